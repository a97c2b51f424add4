"""Takes the records of the topic of held copies into the hold store, each once, however often it comes.

A consumer group of its own, apart from the door's transactions: an offset is committed after the store has on its disk
what stands before it. After a crash, or when a partition goes to another member at the wrong moment, records are read
again and change nothing (`HoldStore.keep`). While the store takes nothing, nothing is read further. What cannot be
stored is written to the dead-letter topic, with all it had, before its offset is committed.

Where the group never committed anything, or records were removed before they were read, it goes on with the oldest
there is; the second is counted and logged, because held copies were lost. A consumer that reads nothing although there
is something is made anew. Nothing raises but CancelledError.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from . import events, logs
from .kafka_held import dead_letter, read_held
from .kafka_in import close
from .kafka_records import Poison, Record
from .kafka_results import Output
from .kafka_writer import NotWrittenError
from .metrics import Metrics
from .ports import HeldMessage, HoldUnavailableError, Journal

MOST_RECORDS: Final = 200  # at once
_POLL: Final = 500  # milliseconds
_ANSWER_WITHIN: Final = 30.0  # seconds
_WATCH_EVERY: Final = 5.0  # seconds
_BACK_OFF_FROM, _BACK_OFF_TO = 0.5, 10.0  # seconds


class Store(Protocol):
    """What is needed of the hold store."""

    def has_room(self, size: int) -> bool:
        """See `ports.HoldStore`."""

    async def keep(self, message: HeldMessage) -> bool:
        """See `ports.HoldStore`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What is read, and how: mappings are arguments of aiokafka's clients, `stall_timeout` is in seconds."""

    topic: str
    connection: Mapping[str, Any]
    consumer: Mapping[str, Any]
    stall_timeout: float = 120.0


class _StalledError(Exception):
    """Records wait, and none is read."""


class HeldIngest:
    """Reads from `serve` until `stop`. `write` is that of a `KafkaWriter`; `clock` gives epoch milliseconds."""

    def __init__(
        self,
        options: IngestOptions,
        store: Store,
        write: Callable[[Output], Awaitable[None]],
        journal: Journal,
        metrics: Metrics,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._options = options
        self._store = store
        self._write = write
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._stopping = asyncio.Event()
        self._failures = 0
        self._watch = _Watch(options.stall_timeout)

    def stop(self) -> None:
        """Read nothing more: `serve` returns when what was read is stored, or the store does not take it."""
        self._stopping.set()

    async def serve(self) -> None:
        """Take in what comes, until `stop`."""
        while not self._stopping.is_set():
            try:
                await self._read()
            except (KafkaError, OSError, TimeoutError, NotWrittenError, _StalledError) as error:
                self._note("held_failed", error=type(error).__name__)
            if not self._stopping.is_set():
                self._failures += 1
                await self._wait(min(_BACK_OFF_FROM * 2.0**self._failures, _BACK_OFF_TO))

    def _note(self, event: str, **fields: object) -> None:
        self._metrics.kafka_event(event)
        logs.event(logs.WARNING, f"kafka_{event}", topic=self._options.topic, **fields)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _read(self) -> None:
        """Be a member of the group until told to stop, or something fails."""
        consumer = AIOKafkaConsumer(**self._options.connection, **self._options.consumer)
        self._watch.begin(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await consumer.start()
            consumer.subscribe([self._options.topic])  # after the start, which would wait for partitions
            while not self._stopping.is_set():
                for place, records in (await self._take(consumer)).items():
                    if await self._store_all(records):
                        await self._commit(consumer, place, records[-1].offset + 1)
                await self._watch.look(consumer, asyncio.get_running_loop().time())
        finally:
            await close(consumer)

    async def _take(self, consumer: Any) -> Mapping[TopicPartition, Sequence[Any]]:
        """Records that are there. A call that waits is never cancelled: aiokafka would not notice."""
        try:
            found: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(
                timeout_ms=_POLL, max_records=MOST_RECORDS
            )
        except NoOffsetForPartitionError as error:
            await consumer.seek_to_beginning(*error.args[:1])
        except OffsetOutOfRangeError as error:
            for place in error.args[0]:
                self._note("held_offset_lost", partition=place.partition, position=error.args[0][place])
                await consumer.seek_to_beginning(place)
        else:
            return found
        return {}

    async def _commit(self, consumer: Any, place: TopicPartition, offset: int) -> None:
        """Say that everything before is stored."""
        async with asyncio.timeout(_ANSWER_WITHIN):
            await consumer.commit({place: offset})
        self._failures = 0

    # What is read

    async def _store_all(self, records: Sequence[Record]) -> bool:
        """Store records, or make them dead letters; whether all is on a disk. False only when told to stop."""
        read = [(record, read_held(record)) for record in records]
        messages = [message for _, message in read if isinstance(message, HeldMessage)]
        while (refusal := await self._try(messages)) and not self._stopping.is_set():
            self._note("held_waiting", reason=refusal)
            await self._wait(_BACK_OFF_FROM * 2)
        if refusal:
            return False
        for record, poison in read:
            if isinstance(poison, Poison):
                await self._bury(record, poison)
        return True

    async def _try(self, messages: Sequence[HeldMessage]) -> str:
        """Store these, each unless it is there; why that cannot be done now, empty for nothing."""
        if not messages:
            return ""
        if not self._store.has_room(sum(len(message.content) for message in messages)):
            return "the store has no room, or cannot be written"
        with self._metrics.hold_write_seconds.time():
            done = await asyncio.gather(*[self._store.keep(message) for message in messages], return_exceptions=True)
        for one in done:
            if isinstance(one, HoldUnavailableError):
                return str(one)
            if isinstance(one, BaseException):
                raise one
        self._count(done)
        return ""

    def _count(self, new: Iterable[object]) -> None:
        for one in new:
            self._metrics.kafka_event("held_stored" if one else "held_repeated")

    async def _bury(self, record: Record, poison: Poison) -> None:
        """Write a record that cannot be stored to where somebody looks for it."""
        await self._write(dead_letter(record, poison))
        self._note("held_dead_letter", partition=record.partition, offset=record.offset, error=poison.detail)
        line = events.dead_letter(
            *("", self._clock(), poison.code), topic=record.topic, partition=record.partition, offset=record.offset
        )
        self._journal.write([line])


class _Watch:
    """Notices that records wait and none is read, which aiokafka does not."""

    def __init__(self, stall_timeout: float) -> None:
        self._stall_timeout = stall_timeout
        self._next = 0.0
        self._seen: dict[TopicPartition, tuple[int, float]] = {}  # position, and since when

    def begin(self, now: float) -> None:
        """A new consumer; times in seconds of the loop."""
        self._next = now + _WATCH_EVERY
        self._seen.clear()

    async def look(self, consumer: Any, now: float) -> None:
        """Look at most now and then. Raises _StalledError."""
        if now < self._next:
            return
        self._next = now + _WATCH_EVERY
        places = list(consumer.assignment())
        if not places:
            return
        async with asyncio.timeout(_ANSWER_WITHIN):
            ends: Mapping[TopicPartition, int] = await consumer.end_offsets(places)
            positions = {place: int(await consumer.position(place)) for place in places}
        for place, position in positions.items():
            before, since = self._seen.get(place, (-1, now))
            if before != position or position >= ends[place]:
                self._seen[place] = (position, now)
            elif now - since > self._stall_timeout:
                raise _StalledError

"""Keeping the consent index of this machine at the end of a Kafka topic: one process of a machine does it.

All partitions are read, without a group, from what the index says was read before (`consent_feed`). Nothing counts as
complete before every partition was read to where it ended at the start; far behind, very many records are loaded at
once. A topic that is not the one we read before, or has lost what we had not seen, is read again from its beginning.

Kafka's failures are logged, and tried again with new connections for as long as it takes. Raises what `Feed` raises:
then this object is of no more use. For one event loop; work on the index is done in a thread.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code

from . import events, logs
from .consent_feed import Batch, Bulk, Counts, Feed, Mark
from .metrics import Metrics
from .ports import Journal

POLL: Final = 200  # milliseconds that a look for records waits
LIVE: Final = 2_000  # records in one transaction
MANY: Final = 10_000  # records of a look while very many are loaded
BULK_FROM: Final = 50_000  # records behind
PAUSE: Final = 1.0  # seconds before the next try
SYNCED_EVERY: Final = 5.0  # seconds between notes that all was read
FAILING_AFTER: Final = 15.0  # seconds without an answer from each partition's leader
_JOURNALLED: Final = 1_000  # refused records of a run through the topic
_LOGGED: Final = 20


class TopicError(Exception):
    """The topic cannot be followed just now; the text says why."""


class _ChangedError(Exception):
    """The topic is not the one we read before, or has lost what we had not seen."""


class Plan(NamedTuple):
    """Where to begin in each partition, and where each ended when we looked."""

    first: dict[int, int]
    ends: dict[int, int]

    @property
    def behind(self) -> int:
        """Records to be read, at most."""
        return sum(self.ends.values()) - sum(self.first.values())


class Follower:
    """Follows `topic` into `feed`. `clock` gives epoch milliseconds.

    `connection` is what every client of aiokafka is given, `reader` what a consumer without a group is given beside it.
    `stall` is how many seconds brokers may be silent before connections are made anew.
    """

    def __init__(
        self,
        feed: Feed,
        topic: str,
        *,
        connection: Mapping[str, Any],
        reader: Mapping[str, Any],
        clock: Callable[[], int],
        journal: Journal,
        metrics: Metrics,
        stall: float,
    ) -> None:
        self._feed, self._topic, self._clock = feed, topic, clock
        self._connection, self._reader = connection, reader
        self._journal, self._metrics, self._stall = journal, metrics, stall
        self._stopping = asyncio.Event()
        self._heard = self._now()
        self._noted = float("-inf")
        self._refused = 0
        self._trouble = ""

    @property
    def complete(self) -> bool:
        """Whether the index holds what the topic held at the start."""
        return self._feed.state.complete

    @property
    def failing(self) -> bool:
        """Whether the topic cannot be read just now."""
        return self._now() - self._heard > FAILING_AFTER

    def stop(self) -> None:
        """Have `run` end soon."""
        self._stopping.set()

    async def run(self) -> None:
        """Follow until told to stop."""
        while not self._stopping.is_set():
            try:
                await self._follow()
            except (_ChangedError, OffsetOutOfRangeError) as error:
                logs.event(logs.WARNING, "consent_topic_changed", topic=self._topic, reason=error)
                await asyncio.to_thread(self._feed.restart)
            except (KafkaError, TopicError, OSError, TimeoutError) as error:
                self._tell(f"{type(error).__name__}: {error}")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), PAUSE)

    async def _follow(self) -> None:
        """Connect, and read until told to stop or something fails."""
        consumer = AIOKafkaConsumer(**self._connection, **self._reader)
        try:
            await consumer.start()
            plan = await self._plan(consumer)
            marks = dict(self._feed.state.marks)
            consumer.assign([self._at(number) for number in plan.ends])
            for number, offset in plan.first.items():
                consumer.seek(self._at(number), offset)
            self._refused = 0
            self._heard = self._now()
            reading = _Reading(self, consumer, plan, marks)
            if await self._catch_up(reading) and not self._stopping.is_set():
                await self._keep_up(reading)
        finally:
            await consumer.stop()

    def _at(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)

    async def _plan(self, consumer: AIOKafkaConsumer) -> Plan:
        partitions = [self._at(number) for number in await self._partitions()]
        begins = {at.partition: offset for at, offset in (await consumer.beginning_offsets(partitions)).items()}
        ends = {at.partition: offset for at, offset in (await consumer.end_offsets(partitions)).items()}
        first = dict(begins)
        for number, mark in self._feed.state.marks.items():
            if number not in ends or not begins[number] <= mark.offset < ends[number]:
                raise _ChangedError(f"partition {number} has no offset {mark.offset} any more")
            first[number] = mark.offset
        return Plan(first, ends)

    async def _partitions(self) -> list[int]:
        admin = AIOKafkaAdminClient(**self._connection)
        try:
            await admin.start()
            (told,) = await admin.describe_topics([self._topic])
        finally:
            await admin.close()
        if not told["partitions"]:
            raise TopicError(
                f"there is no topic {self._topic} that we may read: {for_code(told['error_code']).__name__}"
            )
        return sorted(each["partition"] for each in told["partitions"])

    async def _catch_up(self, reading: "_Reading") -> bool:
        """Read to where the topic ended when we began; whether we got there."""
        if reading.plan.behind >= BULK_FROM:
            with self._feed.bulk() as bulk:
                while not await reading.reached() and not self._stopping.is_set():
                    await reading.more(bulk, MANY)
                    self._check_life(reading)
                if self._stopping.is_set():
                    return False
                self._tell_counts(bulk, await asyncio.to_thread(self._feed.load, bulk))
        while not await reading.reached() and not self._stopping.is_set():
            await self._take_live(reading)
        if self._stopping.is_set():
            return False
        if not self._feed.state.complete:
            await asyncio.to_thread(self._feed.completed)
        self._trouble = ""
        logs.event(logs.INFO, "consent_topic_read", topic=self._topic, records=reading.records)
        return True

    async def _keep_up(self, reading: "_Reading") -> None:
        while not self._stopping.is_set():
            await self._take_live(reading)
            await self._note_synced(reading)
            if reading.partitions_changed(self._topic):
                raise TopicError("the topic has more partitions now")

    async def _take_live(self, reading: "_Reading") -> None:
        batch = self._feed.batch()
        if await reading.more(batch, LIVE):
            before = self._feed.state
            self._tell_counts(batch, await asyncio.to_thread(self._feed.apply, batch))
            if before.complete:  # till then nobody relied on the index
                self._time_opt_outs(batch, before.marks)
        self._check_life(reading)

    def _time_opt_outs(self, batch: Batch, marks: Mapping[int, Mark]) -> None:
        """Measure how long opt-outs took to count here; a record that was read before (its mark says so) does not."""
        now = self._clock()
        for partition, offset, at in batch.opt_outs:
            mark = marks.get(partition)
            if mark is None or offset > mark.offset:
                self._metrics.opt_out_seconds.observe(max(0, now - at) / 1000)

    async def _note_synced(self, reading: "_Reading") -> None:
        """Note in the index, every few seconds, that we have all there is."""
        self._metrics.consent_behind.set(await reading.behind())
        state = self._feed.state
        self._metrics.consent_age.set(max(0, self._clock() - state.as_of) / 1000 if state.as_of else 0)
        if self._now() - self._noted >= SYNCED_EVERY and (at := await reading.synced_at()):
            await asyncio.to_thread(self._feed.synced, min(at, self._clock()))
            self._noted = self._now()

    def _check_life(self, reading: "_Reading") -> None:
        """Make connections anew when brokers have been silent for long; aiokafka may not notice (its issue 1037)."""
        quiet = reading.quiet()
        self._heard = self._now() - quiet
        if quiet > self._stall:
            raise TopicError(f"nothing heard of a partition for {quiet:.0f} s")

    def _tell_counts(self, batch: Batch, counts: Counts) -> None:
        for name in ("added", "repeated", "refused", "erasures", "heartbeats", "tombstones"):
            self._metrics.consent_records(name, getattr(counts, name))
        for record, (because, field, stops) in batch.refused[: max(0, _JOURNALLED - self._refused)]:
            place = (record.partition, record.offset)
            line = events.consent_event_refused(self._clock(), self._topic, place, (because, field), len(stops))
            self._journal.write([line])
            self._refused += 1
            if self._refused <= _LOGGED:
                fields: dict[str, Any] = {"partition": place[0], "offset": place[1], "error": because}
                logs.event(logs.WARNING, "consent_event_refused", topic=self._topic, **fields, field=field or None)

    def _tell(self, trouble: str) -> None:
        """Say what is wrong, once."""
        if trouble != self._trouble:
            logs.event(logs.WARNING, "consent_topic_unreadable", topic=self._topic, reason=trouble)
            self._trouble = trouble

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class _Reading:
    """One connection's way through the topic."""

    def __init__(self, follower: Follower, consumer: AIOKafkaConsumer, plan: Plan, marks: dict[int, Any]) -> None:
        self.plan = plan
        self.records = 0
        self._consumer = consumer
        self._clock = follower._clock  # noqa: SLF001 - a part of it
        self._began = self._clock()
        self._partitions = {number: follower._at(number) for number in plan.ends}  # noqa: SLF001
        self._unproven = marks  # partitions whose first record must be that of the mark

    async def more(self, batch: Batch | Bulk, most: int) -> bool:
        """Put what comes within a moment into the batch; whether anything came."""
        found = await self._consumer.getmany(timeout_ms=POLL, max_records=most)
        now = self._clock()
        for at, records in found.items():
            if at.partition in self._unproven:
                self._prove(at.partition, records)
            for record in records:
                batch.add(record, now)
            self.records += len(records)
        return bool(found)

    def _prove(self, number: int, records: Sequence[Any]) -> None:
        mark, first = self._unproven.pop(number), records[0]
        if not mark.fits(first.offset, first.timestamp, first.key):
            raise _ChangedError(f"partition {number} has another record at offset {mark.offset}")

    async def reached(self) -> bool:
        """Whether every partition was read to where it ended at the start."""
        for number, at in self._partitions.items():
            if await self._consumer.position(at) < self.plan.ends[number]:
                return False
            if number in self._unproven:
                raise _ChangedError(f"partition {number} has no record at the offset last read any more")
        return True

    async def behind(self) -> int:
        """Records that wait, as far as known."""
        waiting = 0
        for at in self._partitions.values():
            waiting += max(0, (self._consumer.highwater(at) or 0) - await self._consumer.position(at))
        return waiting

    async def synced_at(self) -> int:
        """When all was read that every partition held then, in epoch milliseconds; 0 if it is not."""
        for at in self._partitions.values():
            stable = self._consumer.last_stable_offset(at)
            end = self._consumer.highwater(at) if stable in (None, -1) else stable
            if end is None or await self._consumer.position(at) < end:
                return 0
        return min(self._heard(at) for at in self._partitions.values())

    def quiet(self) -> float:
        """Seconds since the partition longest silent was heard of."""
        return max(0, self._clock() - min(self._heard(at) for at in self._partitions.values())) / 1000

    def partitions_changed(self, topic: str) -> bool:
        """Whether the topic has got partitions that we do not read."""
        return bool((self._consumer.partitions_for_topic(topic) or set()) - set(self._partitions))

    def _heard(self, at: TopicPartition) -> int:
        heard: int | None = self._consumer.last_poll_timestamp(at)
        return self._began if heard is None else max(heard, self._began)

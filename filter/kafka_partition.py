"""The worker of one input partition that is ours: reads, judges, writes and commits, one transaction after another.

It begins anew whenever something failed: a new producer, which fences whoever else writes for the partition, then the
committed offset, then the records from there on. So a record is judged again as often as it must be, and its results
are committed once. What is wrong for now is `trouble`; nothing raises, and nothing is skipped.

The partitions of a worker have their turns at judging, one batch after the other: while one judges, others write. Were
they all judged at the same time, they would all be done at the same time too, and nobody would judge while they write.

Records are taken from the consumer only when there is time for them; it fetches no more of a partition than one answer
ahead, so that a slow output means bounded memory, without the pausing that would throw away what was fetched. The
consumer is only asked for what it has, never waited for: a call that waits is lost when the group is formed anew.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordListTooLargeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from . import logs
from .kafka_judging import Passed, RecordJudge
from .kafka_output import START_WITHIN, KafkaOptions, Transactions
from .kafka_records import Poison, PoisonCode
from .ports import Report

STRETCH: Final = 0.005  # seconds of judging, after which others have their turn (heartbeats, mail)
_IDLE_FROM, _IDLE_TO = 0.002, 0.05  # seconds between looks for records that do not come
_BACK_OFF_FROM, _BACK_OFF_TO = 0.1, 10.0  # seconds
_LOST_PAUSE: Final = 10.0  # seconds between looks whether somebody has settled where to go on
_SETTLE: Final = 0.1  # seconds between two looks at the committed offset
_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)
_REFUSED: Final = (TopicAuthorizationFailedError, UnknownTopicOrPartitionError, *_LARGE)


class Trouble(StrEnum):
    """What keeps a partition, or the whole door, from being served."""

    UNAVAILABLE = "kafka_unavailable"  # no broker, no login, no answer
    TOPICS_MISSING = "kafka_topics_missing"
    OUTPUT_REFUSED = "kafka_output_refused"  # an output topic takes nothing from us, or nothing of that size
    OFFSET_LOST = "kafka_offset_lost"  # records are gone that were not read
    STALLED = "kafka_stalled"


class _Unreadable(NamedTuple):
    """In the place of a record of which nothing is known but where it is."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class PartitionWorker:
    """Serves one partition from `start` to `stop`.

    `turn` is held by who judges; whoever is `waiting` for it is well, though its `position` stands. `count` counts
    events, `report` faults that nobody expected.
    """

    def __init__(
        self,
        place: TopicPartition,
        consumer: Any,
        judge: RecordJudge,
        options: KafkaOptions,
        *,
        turn: asyncio.Lock,
        count: Callable[[str], None],
        report: Report,
    ) -> None:
        self.trouble: Trouble | None = None
        self.position = 0  # of the next record to be read
        self.waiting = False
        self._place = place
        self._consumer = consumer
        self._judge = judge
        self._options = options
        self._turn = turn
        self._count = count
        self._report = report
        self._leaving = asyncio.Event()
        self._output = Transactions(place, options)
        self._task: asyncio.Task[None] | None = None
        self._failures = 0  # in a row
        self._pending: list[Passed] = []  # written, and nobody knows whether for good
        self._suspicious = True  # what comes next may have killed a worker
        self._alone_until = 0  # offset before which each record goes in a transaction of its own
        self._too_large = -1  # offset of a record whose results are
        self._one_by_one = False  # there is a record ahead that cannot be read

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, seconds: float) -> None:
        """Commit what was judged, and end; after so many seconds at any price."""
        self._leaving.set()
        if self._task is None:
            return
        await asyncio.wait((self._task,), timeout=seconds)
        self._task.cancel()  # by now it waits for a broker, never for the consumer
        await asyncio.wait((self._task,))
        if self._pending:
            self._judge.doubtful(self._pending)
            self._pending = []

    async def _run(self) -> None:
        try:
            while not self._leaving.is_set():
                pause = await self._serve()
                await self._output.stop()
                await self._rest(pause)
        finally:
            await self._output.stop()

    async def _serve(self) -> float:
        """Serve until told to leave, or something fails; how many seconds to wait before the next try."""
        try:
            await self._own()
            while not self._leaving.is_set():
                passed = await self._gather()
                if passed:
                    await self._write(passed)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            self._note("fenced", error)
            return self._options.fence_pause
        except OffsetOutOfRangeError as error:
            self.trouble = Trouble.OFFSET_LOST
            self._note("offset_lost", error)
            return _LOST_PAUSE
        except IllegalStateError:
            return _IDLE_TO  # no longer assigned: we are about to be told so
        except _REFUSED as error:
            self.trouble = Trouble.OUTPUT_REFUSED
            self._note("refused", error, outputs=",".join(self._output.refused) or "unknown")
        except (KafkaError, TimeoutError, OSError) as error:
            self.trouble = Trouble.UNAVAILABLE
            self._note("failed", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the partition must be served
            self.trouble = Trouble.STALLED
            self._report("kafka", error)
        self._failures += 1
        return min(_BACK_OFF_FROM * 2.0**self._failures, _BACK_OFF_TO)

    def _note(self, event: str, error: Exception, **fields: object) -> None:
        self._count(event)
        logs.event(
            *(logs.WARNING, f"kafka_{event}"),
            topic=self._place.topic,
            partition=self._place.partition,
            position=self.position,
            error=type(error).__name__,
            **fields,
        )

    # Owning the partition

    async def _own(self) -> None:
        """Be the only one who writes for this partition, and go on where the last transaction ended."""
        await self._output.start()
        async with asyncio.timeout(START_WITHIN):
            offset = await self._committed()
            if self._pending:
                self._settle(offset)
            if offset is None:
                offset = await self._first()
        self._consumer.seek(self._place, offset)
        self._consumer.resume(self._place)
        self.position = offset
        self._suspicious = True

    async def _committed(self) -> int | None:
        """The offset of the last transaction. Brokers show it a moment after they say that it has ended."""
        offset = await self._consumer.committed(self._place)
        while True:
            await asyncio.sleep(_SETTLE)
            again = await self._consumer.committed(self._place)
            if again == offset:
                return None if offset is None else int(offset)
            offset = again

    def _settle(self, offset: int | None) -> None:
        """Say what became of the transaction of which nobody knew."""
        pending, self._pending = self._pending, []
        if offset is not None and offset > pending[-1].record.offset:
            self._judge.committed(pending)
        else:
            self._judge.aborted(pending)

    async def _first(self) -> int:
        """Where to begin when nothing was ever committed; from then on that is known."""
        if self._options.from_beginning:
            return int((await self._consumer.beginning_offsets([self._place]))[self._place])
        offset = int((await self._consumer.end_offsets([self._place]))[self._place])
        await self._output.write((), offset)
        return offset

    # One transaction

    async def _gather(self) -> list[Passed]:
        """Judge records as they come, as many as may be in one transaction; none when there are none."""
        passed: list[Passed] = []
        most = 1 if self.position < self._alone_until else self._options.batch_records
        octets, idle = 0, _IDLE_FROM
        clock = asyncio.get_running_loop().time
        due = 0.0
        while not self._leaving.is_set() and octets < self._options.batch_size:
            room = most - len(passed)
            records = await self._take(room) if room > 0 else []
            if not records:
                if passed and (room <= 0 or clock() >= due):
                    break
                await asyncio.sleep(min(idle, due - clock()) if passed else idle)
                idle = min(2 * idle, _IDLE_TO)
                continue
            due = due or clock() + self._options.batch_time
            async with self._our_turn():
                if not self._leaving.is_set():  # else they are for whoever has the partition next
                    octets += await self._judge_all(records, passed)
        return passed

    @asynccontextmanager
    async def _our_turn(self) -> AsyncIterator[None]:
        """Hold the turn, and show while it is another's."""
        self.waiting = True
        try:
            await self._turn.acquire()
        finally:
            self.waiting = False
        try:
            yield
        finally:
            self._turn.release()

    async def _take(self, room: int) -> list[Any]:
        """Records that are there."""
        try:
            found = await self._consumer.getmany(self._place, timeout_ms=0, max_records=1 if self._one_by_one else room)
        except UnicodeDecodeError:  # the name of a record header
            return self._unreadable()
        if not found:
            self.position = int(await self._consumer.position(self._place))
        return list(found.get(self._place, ()))

    def _unreadable(self) -> list[Any]:
        """The record that the client library cannot read, when we know which it is; it would never get past it."""
        if not self._one_by_one:
            self._one_by_one = True  # what comes before it is read first
            self._consumer.seek(self._place, self.position)
            return []
        self._one_by_one = False
        self._consumer.seek(self._place, self.position + 1)
        return [_Unreadable(self._place.topic, self._place.partition, self.position)]

    async def _judge_all(self, records: list[Any], passed: list[Passed]) -> int:
        """Judge records, now and then giving others their turn; how many octets they have."""
        clock = asyncio.get_running_loop().time
        until, octets = clock() + STRETCH, 0
        for record in records:
            refused = None
            if record.offset == self._too_large:
                refused = Poison(PoisonCode.TOO_LARGE, "what it becomes is too large for the topic that it belongs in")
            elif type(record) is _Unreadable:
                refused = Poison(PoisonCode.UNREADABLE, "names of record headers must be UTF-8; it is where it was")
            passed.append(self._judge.judge(record, suspicious=self._suspicious, refused=refused))
            self.position = record.offset + 1
            octets += len(record.value or b"")
            if clock() > until:
                await asyncio.sleep(0)
                until = clock() + STRETCH
        return octets

    async def _write(self, passed: list[Passed]) -> None:
        """Write what was judged, in one transaction."""
        first, last = passed[0].record.offset, passed[-1].record.offset
        self._judge.begin(passed)
        self._pending = passed
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            await self._output.write((output for one in passed for output in one.outputs), last + 1)
        except _LARGE:
            if first < last:
                self._alone_until = last + 1  # to find out which it is
            else:
                self._too_large = first  # it becomes a dead letter
            raise
        self._pending = []
        self._suspicious = False
        self._failures, self.trouble = 0, None
        self._judge.committed(passed, clock() - started)

    async def _rest(self, seconds: float) -> None:
        """Wait, unless told to leave."""
        if not self._leaving.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._leaving.wait()
            except TimeoutError:
                return

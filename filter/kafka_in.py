"""The Kafka door of one worker: a member of the consumer group, and a `PartitionWorker` for each partition it is given.

The group hands partitions over by `on_partitions_revoked` and `on_partitions_assigned`; only these say what is ours
(after a member has left its group, aiokafka still lists its partitions). What no client library notices is looked for
here: records that wait while none is read, though their partition does not wait for its turn. Then everything is made
anew. Nothing raises after `start`; `troubles` says what is wrong, and it is tried again.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from . import logs
from .kafka_judging import RecordJudge
from .kafka_output import KafkaOptions
from .kafka_partition import PartitionWorker, Trouble
from .metrics import Metrics
from .ports import Report

WATCH_EVERY: Final = 1.0  # seconds
REVOKE_WITHIN: Final = 30.0  # seconds: less than the group waits for us
LEAVE_WITHIN: Final = 10.0  # seconds for a transaction under way when we leave for good; then it is aborted
_CLOSE_WITHIN: Final = 5.0  # seconds
_ANSWER_WITHIN: Final = 20.0  # seconds
_BACK_OFF_FROM, _BACK_OFF_TO = 0.5, 5.0  # seconds


class TopicsMissingError(Exception):
    """Topics that there should be; the text names them."""


class _StalledError(Exception):
    """Records wait, and none is read."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """Hands on what the group says."""

    def __init__(self, door: "KafkaDoor", consumer: Any) -> None:
        self._door = door
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """These are not ours any more when this returns."""
        await self._door.revoke(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """These are ours from now on."""
        self._door.assign(self._consumer, assigned)


class KafkaDoor:
    """Serves from `start` to `stop`."""

    def __init__(self, options: KafkaOptions, judge: RecordJudge, metrics: Metrics, report: Report) -> None:
        self._options = options
        self._judge = judge
        self._metrics = metrics
        self._report = report
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._workers: dict[TopicPartition, PartitionWorker] = {}
        self._turn = asyncio.Lock()
        self._trouble: Trouble | None = Trouble.UNAVAILABLE
        self._joined = False
        self._failures = 0
        self._seen: dict[TopicPartition, tuple[int, float]] = {}  # position, and since when

    @property
    def troubles(self) -> set[Trouble]:
        """What keeps records from being judged and written."""
        found = {worker.trouble for worker in self._workers.values()} | {self._trouble}
        return {trouble for trouble in found if trouble is not None}

    @property
    def idle(self) -> bool:
        """Whether we are in the group and it has no partition for us: there are more workers than partitions."""
        return self._joined and not self._workers

    def start(self) -> None:
        """Join the group, in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, seconds: float) -> None:
        """Read nothing more, commit what was judged, leave the group."""
        self._stopping.set()
        if self._task:
            await asyncio.wait((self._task,), timeout=seconds)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    # What the group says

    async def revoke(self, revoked: Iterable[TopicPartition]) -> None:
        """Have no partition any more: in this protocol all are given up before any is given out."""
        self._joined = False
        if any(place in self._workers for place in revoked):
            self._metrics.kafka_event("revoked")
        await self._let_go(REVOKE_WITHIN)

    def assign(self, consumer: Any, assigned: Iterable[TopicPartition]) -> None:
        """Serve these partitions."""
        self._joined = True
        places = list(assigned)
        if self._stopping.is_set():
            return
        consumer.pause(*places)  # until their worker says from where on
        for place in places:
            self._workers[place] = worker = PartitionWorker(
                *(place, consumer, self._judge, self._options),
                turn=self._turn,
                count=self._metrics.kafka_event,
                report=self._report,
            )
            worker.start()
        if places:
            self._metrics.kafka_event("assigned")
        numbers = ",".join(str(place.partition) for place in sorted(places))
        logs.event(logs.INFO, "kafka_assigned", topic=self._options.topic, partitions=numbers or "none")

    async def _let_go(self, seconds: float) -> None:
        """Stop the workers of all partitions, within so many seconds and some."""
        workers, self._workers = self._workers, {}
        self._seen.clear()
        if workers:
            await asyncio.gather(*(worker.stop(seconds) for worker in workers.values()))

    # Being in the group

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._serve()
            except _StalledError:
                self._trouble = Trouble.STALLED
                self._note("stalled")
            except TopicsMissingError as error:
                self._trouble = Trouble.TOPICS_MISSING
                self._note("failed", reason=error)
            except (KafkaError, OSError, TimeoutError) as error:
                self._trouble = Trouble.UNAVAILABLE
                self._note("failed", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - whatever it is, the door must open again
                self._trouble = Trouble.UNAVAILABLE
                self._report("kafka", error)
            self._failures += 1
            await self._wait(min(_BACK_OFF_FROM * 2.0**self._failures, _BACK_OFF_TO))

    def _note(self, event: str, **fields: object) -> None:
        self._metrics.kafka_event(event)
        logs.event(logs.WARNING, f"kafka_{event}", topic=self._options.topic, **fields)

    async def _serve(self) -> None:
        """Be a member of the group until told to stop, or something fails."""
        async with asyncio.timeout(_ANSWER_WITHIN):
            await self._look_for_topics()
        consumer = AIOKafkaConsumer(**self._options.connection, **self._options.consumer)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await consumer.start()
            # After the start, which would otherwise wait for partitions for as long as others take to give them up.
            consumer.subscribe([self._options.topic], listener=_Listener(self, consumer))
            while not self._stopping.is_set():
                await self._wait(WATCH_EVERY)
                await self._watch(consumer)
        finally:
            await self._let_go(LEAVE_WITHIN)
            self._joined = False
            await close(consumer)

    async def _look_for_topics(self) -> None:
        """Raises TopicsMissingError if records would have nowhere to go."""
        topics = [self._options.topic, *self._options.outputs]
        admin = AIOKafkaAdminClient(**self._options.connection)
        try:
            await admin.start()
            told = await admin.describe_topics(topics)
        finally:
            await admin.close()
        missing = [str(one["topic"]) for one in told if one["error_code"]]
        if missing:
            raise TopicsMissingError(f"missing, or not for us to see: {', '.join(sorted(missing))}")

    async def _watch(self, consumer: Any) -> None:
        """Look how far the partitions are. Raises _StalledError, and KafkaError when the group does not let us in."""
        consumer._coordinator.check_errors()  # noqa: SLF001 - it waits until told, and without partitions nobody asks
        ends = await self._ends(consumer)
        positions = {place: worker.position for place, worker in self._workers.items()}
        lag = {place: max(0, end - positions[place]) for place, end in ends.items() if place in positions}
        self._metrics.kafka_partitions.set(len(positions))
        self._metrics.kafka_lag.set(sum(lag.values()))
        now = asyncio.get_running_loop().time()
        for place, position in positions.items():
            before, since = self._seen.get(place, (-1, now))
            worker = self._workers[place]
            if before != position or not lag.get(place, 1) or worker.trouble or worker.waiting:
                self._seen[place] = (position, now)
            elif now - since > self._options.stall_timeout:
                raise _StalledError

    async def _ends(self, consumer: Any) -> dict[TopicPartition, int]:
        """Up to where each partition can be read; nothing if that cannot be told now."""
        places = list(self._workers)
        if not places:
            self._trouble = None if self._joined else self._trouble
            return {}
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
        except (KafkaError, OSError, TimeoutError):
            self._trouble = Trouble.UNAVAILABLE
            return {}
        self._trouble, self._failures = None, 0
        return ends

    async def _wait(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def close(consumer: Any) -> None:
    """Leave the group and close every connection. Raises nothing."""
    try:
        async with asyncio.timeout(_CLOSE_WITHIN):
            await consumer.stop()
    except Exception:  # noqa: BLE001 - the group finds out by itself
        with suppress(Exception):
            await consumer._client.close()  # noqa: SLF001 - stop() has given up before it

"""The transactions of one input partition: what its records become, and how far it was read, all of it or nothing.

Whoever starts the producer of a partition fences the one before and waits until its last transaction has ended; only
after that may the committed offset be read. Three traps of aiokafka 0.14 are kept away from here: a commit succeeds
although a record was refused, so every delivery is awaited before it; after a refused batch the next one is out of
order, so a producer that failed once is never used again; and where the transaction may not have a topic, deliveries
fail by what follows from that, so the transaction itself is asked why.

Raises KafkaError of aiokafka, TimeoutError when the brokers take too long (then nobody knows whether a commit came
about, before the next producer has started), and ProducerFenced when the partition has another owner.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import time_ns
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, RecordTooLargeError, TopicAuthorizationFailedError

from .kafka_hash import murmur2
from .kafka_results import Output

START_WITHIN: Final = 60.0  # seconds: the coordinator may have to end another's transaction
WRITE_WITHIN: Final = 40.0  # seconds: less than the transaction may take
STOP_WITHIN: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """What the Kafka door is told. Times in seconds, sizes in octets; mappings are arguments of aiokafka's clients.

    `fence_pause` is how long a worker that lost its partition waits to be told so by the group.
    """

    topic: str
    outputs: tuple[str, ...]
    group: str
    from_beginning: bool  # where a partition begins of which no offset was ever committed
    connection: Mapping[str, Any]
    consumer: Mapping[str, Any]
    producer: Callable[[int], Mapping[str, Any]]  # for an input partition
    batch_records: int = 500
    batch_size: int = 16 << 20
    batch_time: float = 0.1
    stall_timeout: float = 120.0
    fence_pause: float = 5.0


class Transactions:
    """The transactional producer of one input partition."""

    def __init__(self, place: TopicPartition, options: KafkaOptions) -> None:
        self._place = place
        self._options = options
        self._producer: Any = None
        self._open = False
        self.refused: tuple[str, ...] = ()  # output topics that the last write failed for, as far as known

    async def start(self) -> None:
        """Fence whoever wrote for this partition before, and wait until their last transaction has ended."""
        options = self._options
        self.refused = ()
        self._producer = AIOKafkaProducer(**options.connection, **options.producer(self._place.partition))
        async with asyncio.timeout(START_WITHIN):
            await self._producer.start()

    async def stop(self) -> None:
        """Abort what is open and close the connections. Raises nothing."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(Exception):  # it may be in any state, and whoever starts next brings it to an end
            async with asyncio.timeout(STOP_WITHIN):
                if self._open:
                    await producer.abort_transaction()
        self._open = False
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await producer.stop()
        except Exception:  # noqa: BLE001 - its connections must be closed nevertheless
            with suppress(Exception, asyncio.CancelledError):
                await producer._sender.close()  # noqa: SLF001 - stop() waits for it without end
            with suppress(Exception):
                await producer.client.close()

    async def write(self, outputs: Iterable[Output], offset: int) -> None:
        """Write all of this, and that the partition was read up to before `offset`, in one transaction."""
        try:
            async with asyncio.timeout(WRITE_WITHIN):
                await self._producer.begin_transaction()
                self._open = True
                await self._send(outputs)
                await self._producer.send_offsets_to_transaction({self._place: offset}, self._options.group)
                await self._producer.commit_transaction()
                self._open = False
        except (KafkaError, TimeoutError) as error:
            cause = self._cause()
            if cause is None:
                raise
            raise cause from error

    def _cause(self) -> KafkaError | None:
        """Why a write failed, if the transaction knows: it does better than what was waited for."""
        ended = self._producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - it is told nowhere else
        cause = ended.exception() if ended is not None and ended.done() and not ended.cancelled() else None
        if not isinstance(cause, KafkaError):
            return None
        if isinstance(cause, TopicAuthorizationFailedError):
            self.refused = tuple(sorted(*cause.args))
        return cause

    async def _send(self, outputs: Iterable[Output]) -> None:
        """Write records, and return when every one of them is known to be written."""
        sending = _Sending(self._producer)
        places: dict[str, tuple[str, int]] = {}  # topic and its partitions
        try:
            for output in outputs:
                place = places.get(output.suffix)
                if place is None:
                    topic = f"{self._options.topic}.{output.suffix}"
                    place = places[output.suffix] = topic, await sending.partitions(topic)
                await sending.add(place[0], self._partition(output.key, place[1]), output)
            await sending.close()
        except BaseException:
            self.refused = (sending.topic,)
            await sending.drop()
            raise
        if (failed := await sending.failed()) is not None:
            self.refused = (failed[0],)
            raise failed[1]

    def _partition(self, key: bytes | None, count: int) -> int:
        """Where records of this key go: as Kafka's own producers do it. Those without stay in their order too."""
        return self._place.partition % count if key is None else murmur2(key) % count


class _Sending:
    """Records on their way, gathered into batches: a tenth of the work of sending each."""

    def __init__(self, producer: Any) -> None:
        self.topic = ""  # that was last tried
        self._producer = producer
        self._at = time_ns() // 1_000_000
        self._batches: dict[tuple[str, int], Any] = {}
        self._sent: list[tuple[str, asyncio.Future[object]]] = []

    async def partitions(self, topic: str) -> int:
        """How many it has."""
        self.topic = topic
        return len(await self._producer.partitions_for(topic))

    async def add(self, topic: str, partition: int, output: Output) -> None:
        """Write one record, or keep it until there are more."""
        self.topic = topic
        place = (topic, partition)
        batch = self._batches.get(place)
        if batch is None:
            batch = self._batches[place] = self._producer.create_batch()
        if not self._append(batch, output):
            await self._send(topic, partition, batch)
            batch = self._batches[place] = self._producer.create_batch()
            if not self._append(batch, output):
                raise RecordTooLargeError(f"a record for {topic}")

    def _append(self, batch: Any, output: Output) -> bool:
        return (
            batch.append(timestamp=self._at, key=output.key, value=output.value, headers=list(output.headers))
            is not None
        )

    async def close(self) -> None:
        """Send what was kept."""
        for (topic, partition), batch in self._batches.items():
            await self._send(topic, partition, batch)
        self._batches = {}

    async def failed(self) -> tuple[str, BaseException] | None:
        """Wait for every delivery; the first that failed, by its topic, and why."""
        results = await self._results()
        for (topic, _), result in zip(self._sent, results, strict=True):
            if isinstance(result, BaseException):
                return topic, result
        return None

    async def drop(self) -> None:
        """Nobody waits for these any more."""
        for _, future in self._sent:
            future.cancel()
        await self._results()

    async def _results(self) -> Sequence[object]:
        return await asyncio.gather(*[future for _, future in self._sent], return_exceptions=True)

    async def _send(self, topic: str, partition: int, batch: Any) -> None:
        self.topic = topic
        self._sent.append((topic, await self._producer.send_batch(batch, topic, partition=partition)))

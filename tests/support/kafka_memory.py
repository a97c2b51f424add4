"""A Kafka in memory, as far as the door asks for it through aiokafka, and an event loop whose time passes at once.

`Broker.install` has the door's modules take their clients from it. Every partition is given to the one member.
"""

import asyncio
import selectors
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from filter import kafka_in, kafka_output

from .kafka_records import Record


class _Passing(selectors.SelectSelector):
    """Waits for nothing, but lets that much time pass."""

    loop: "QuickLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, and for no point in time"
            self.loop.now += timeout
        return found


class QuickLoop(asyncio.SelectorEventLoop):
    """Its time is `now` in seconds, and passes only while everybody waits, or when somebody adds to it."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Passing()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """The time."""
        return self.now


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a QuickLoop."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        runner.run(work)


async def until(condition: Callable[[], bool], seconds: float = 3600) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - looking costs no time here
            await asyncio.sleep(0.1)


class Broker:
    """What is in the topics.

    `silent` partitions give nothing from that offset on. `largest` is of a record, in octets. `faults` are raised by
    the method of the client and for the topic that they are named by.
    """

    def __init__(self, topic: str = "outbound", partitions: int = 1) -> None:
        self.topic = topic
        self.places = [TopicPartition(topic, number) for number in range(partitions)]
        self.records: dict[TopicPartition, list[Record]] = defaultdict(list)
        self.committed: dict[TopicPartition, int] = {}
        self.silent: dict[TopicPartition, int] = {}
        self.largest = 1 << 20
        self.faults: dict[tuple[str, str], Exception] = {}

    def produce(self, number: int, *records: Record) -> None:
        """Add these to a partition of the input."""
        place = self.places[number]
        log = self.records[place]
        log += [
            replace(one, topic=self.topic, partition=number, offset=offset)
            for offset, one in enumerate(records, len(log))
        ]

    def fail(self, call: str, topic: str) -> None:
        """Raise what this call is to raise."""
        if fault := self.faults.get((call, topic)):
            raise fault

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be what doors connect to."""
        monkeypatch.setattr(kafka_in, "AIOKafkaAdminClient", lambda **_: _Admin())
        monkeypatch.setattr(kafka_in, "AIOKafkaConsumer", lambda **_: _Consumer(self))
        monkeypatch.setattr(kafka_output, "AIOKafkaProducer", lambda **_: _Producer(self))


class _Admin:
    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        return [{"topic": topic, "error_code": 0} for topic in topics]


class _Consumer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._positions: dict[TopicPartition, int] = {}
        self._coordinator = SimpleNamespace(check_errors=lambda: None)
        self._joining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def subscribe(self, _topics: list[str], *, listener: Any) -> None:
        self._joining = asyncio.create_task(listener.on_partitions_assigned(self._broker.places))

    def pause(self, *places: TopicPartition) -> None:
        pass

    def resume(self, *places: TopicPartition) -> None:
        pass

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    async def committed(self, place: TopicPartition) -> int | None:
        return self._broker.committed.get(place)

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self._broker.records[place]) for place in places}

    async def getmany(
        self, place: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Record]]:
        assert timeout_ms == 0, "a call that waits is lost when the group is formed anew"
        self._broker.fail("getmany", place.topic)
        log, first = self._broker.records[place], self._positions[place]
        found = log[first : min(first + max_records, self._broker.silent.get(place, len(log)))]
        self._positions[place] += len(found)
        return {place: found} if found else {}


class _Batch(list[Record]):
    def __init__(self, largest: int) -> None:
        self._largest = largest

    def append(self, *, timestamp: int, key: bytes | None, value: bytes | None, headers: Any) -> object:  # type: ignore[override] # as a batch of aiokafka has it
        if len(value or b"") > self._largest:
            return None
        super().append(Record(value, tuple(headers), key))
        return timestamp


class _Producer:
    """Commits offsets; the records that it sends are there at once, as if readers asked for uncommitted ones too."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._offsets: Mapping[TopicPartition, int] = {}
        self._txn_manager = SimpleNamespace(wait_for_transaction_end=lambda: None)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def begin_transaction(self) -> None:
        self._offsets = {}

    async def abort_transaction(self) -> None:
        self._offsets = {}

    async def partitions_for(self, topic: str) -> set[int]:
        self._broker.fail("partitions_for", topic)
        return {0}

    def create_batch(self) -> _Batch:
        return _Batch(self._broker.largest)

    async def send_batch(self, batch: _Batch, topic: str, *, partition: int) -> asyncio.Future[object]:
        self._broker.fail("send_batch", topic)
        self._broker.records[TopicPartition(topic, partition)] += batch
        delivered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        delivered.set_result(None)
        return delivered

    async def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int], _group: str) -> None:
        self._offsets = offsets

    async def commit_transaction(self) -> None:
        self._broker.committed.update(self._offsets)

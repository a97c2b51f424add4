"""Writing consent events to the topic that every node follows: all acknowledged by all in-sync replicas, or an error.

Records of one mailbox go to one partition, told by the first part of their key; a heartbeat goes to each. Sending again
is harmless: a record replaces itself. Raises `PublishError`, which says how many records are known to be written.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from .consent_events import partition_key
from .errors import ConsentryError

WINDOW: Final = 5_000  # records sent and not acknowledged yet
_PARTITION_DIGITS: Final = 8  # of a key, which is a hash: even enough

Record = tuple[bytes, bytes | None]


class PublishError(ConsentryError):
    """Not everything could be published."""


class Publisher:
    """A producer for one topic, inside `async with`. `options` are those of aiokafka's producer."""

    def __init__(self, topic: str, options: dict[str, Any]) -> None:
        self.written = 0  # records known to be written
        self._topic = topic
        self._producer = AIOKafkaProducer(**options)
        self._partitions: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        try:
            await self._producer.start()
            self._partitions = tuple(sorted(await self._producer.partitions_for(self._topic)))
        except (KafkaError, OSError, TimeoutError) as error:
            await self._producer.stop()
            raise self._failed(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def publish(self, records: Iterable[Record], progress: Callable[[int], None] = lambda _: None) -> None:
        """Write records; `progress` is told how many are written."""
        under_way: list[asyncio.Future[Any]] = []
        try:
            for key, value in records:
                under_way.append(await self._send(key, value, self._partition(key)))
                if len(under_way) >= WINDOW:
                    await self._written(under_way)
                    progress(self.written)
            await self._written(under_way)
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        progress(self.written)

    async def heartbeat(self, record: Record) -> None:
        """Write a record to every partition."""
        try:
            await self._written([await self._send(*record, number) for number in self._partitions])
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._failed(error) from error

    async def _send(self, key: bytes, value: bytes | None, partition: int) -> "asyncio.Future[Any]":
        sent: asyncio.Future[Any] = await self._producer.send(self._topic, value, key=key, partition=partition)
        return sent

    async def _written(self, under_way: list["asyncio.Future[Any]"]) -> None:
        """Wait for all of these; the first error is raised when each is known."""
        results = await asyncio.gather(*under_way, return_exceptions=True)
        under_way.clear()
        errors = [result for result in results if isinstance(result, BaseException)]
        self.written += len(results) - len(errors)
        if errors:
            raise errors[0]

    def _partition(self, key: bytes) -> int:
        digits = partition_key(key)[:_PARTITION_DIGITS]
        return self._partitions[int(digits, 16) % len(self._partitions)]

    def _failed(self, error: Exception) -> PublishError:
        told = str(error) or type(error).__name__
        return PublishError(f"topic {self._topic}: {told}; {self.written} records are written, publish all again")

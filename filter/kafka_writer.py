"""Writes single records to Kafka, for good, outside of the door's transactions: released copies, dead letters.

The producer is idempotent and waits for all replicas. One that failed is not used again: what comes after would be out
of order for it.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from .kafka_results import Output

START_WITHIN: Final = 30.0  # seconds
WRITE_WITHIN: Final = 60.0  # seconds
STOP_WITHIN: Final = 5.0  # seconds


class NotWrittenError(Exception):
    """A record was certainly not written."""


class KafkaWriter:
    """Writes to topics whose names begin with `topic`; connects when there is something to write."""

    def __init__(self, topic: str, arguments: Mapping[str, Any]) -> None:
        self._topic = topic
        self._arguments = arguments
        self._producer: Any = None
        self._connecting = asyncio.Lock()

    async def write(self, output: Output) -> None:
        """On return it is written. Raises NotWrittenError; KafkaError and TimeoutError when nobody knows."""
        try:
            async with self._connecting, asyncio.timeout(START_WITHIN):
                producer = await self._connected()
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotWrittenError(f"{type(error).__name__} {error}".rstrip()) from error
        try:
            async with asyncio.timeout(WRITE_WITHIN):
                await producer.send_and_wait(
                    *(f"{self._topic}.{output.suffix}", output.value, output.key), headers=list(output.headers)
                )
        except BaseException:
            if self._producer is producer:
                self._producer = None
            await _stop(producer)
            raise

    async def close(self) -> None:
        """Close the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)

    async def _connected(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(**self._arguments)
            try:
                await producer.start()
            except BaseException:
                await _stop(producer)
                raise
            self._producer = producer
        return self._producer


async def _stop(producer: Any) -> None:
    """Close it, whatever state it is in."""
    with suppress(Exception):
        async with asyncio.timeout(STOP_WITHIN):
            await producer.stop()

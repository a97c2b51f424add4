"""Writes released copies to the relay topic, where what came by Kafka goes on; and which copies go that way.

A record as `kafka_results` writes it for copies that are relayed at once: original key, octets and record headers,
`consentry-queue-id`, `-disposition`, `-rcpt`; and `consentry-release`, the id of the order. `rcpt_to` names the
recipients that are released, nobody else. `consentry-source-*` is left out: whoever drops a second record of one source
would drop the copies that were not relayed at once. Delivery is at least once; records of one queue id, order and
recipient are one copy.

Mail that came by SMTP gets the headers of a record of the input topic and keeps its octets, with the header fields that
we prepend. Nothing raises but CancelledError: as in `delivery`, an attempt that fails is an `Attempt` that says how.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from . import trace
from .delivery import Attempt, Courier
from .envelope import RcptTo
from .events import Outcome
from .held_content import ReleaseTo, goes_by_smtp
from .kafka_results import PREFIX, RELAY, Header, Output
from .policy import Disposition
from .ports import HeldMessage, Report

START_WITHIN: Final = 30.0  # seconds
WRITE_WITHIN: Final = 60.0  # seconds
STOP_WITHIN: Final = 5.0  # seconds


class NotWrittenError(Exception):
    """A record was certainly not written."""


class KafkaWriter:
    """Writes records to topics whose names begin with `topic`, for good; connects when there is something to write.

    The producer is idempotent. One that failed is not used again: what comes after would be out of order for it.
    """

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


@dataclass(frozen=True, slots=True)
class KafkaCourier:
    """Delivers to the relay topic."""

    writer: KafkaWriter
    report: Report

    async def deliver(self, message: HeldMessage, recipients: Sequence[RcptTo], order: str, at: int) -> list[Attempt]:
        """Write one record for all these recipients."""
        try:
            await self.writer.write(released(message, recipients, order, at))
        except NotWrittenError:
            outcome = Outcome.UNREACHABLE
        except (KafkaError, TimeoutError) as error:
            self.report("kafka_release", error)
            outcome = Outcome.IN_DOUBT
        except Exception as error:  # noqa: BLE001 - the copies are safe in the hold store
            self.report("kafka_release", error)
            outcome = Outcome.FAULT
        else:
            outcome = Outcome.TAKEN
        return [Attempt(outcome)] * len(recipients)


@dataclass(frozen=True, slots=True)
class Couriers:
    """Delivers each message where it belongs. Without `kafka`, what belongs there waits, as nothing can be reached."""

    smtp: Courier
    kafka: Courier | None
    to: ReleaseTo

    async def deliver(self, message: HeldMessage, recipients: Sequence[RcptTo], order: str, at: int) -> list[Attempt]:
        """See `delivery.Courier`."""
        if goes_by_smtp(message, self.to):
            return await self.smtp.deliver(message, recipients, order, at)
        if self.kafka is None:
            return [Attempt(Outcome.UNREACHABLE)] * len(recipients)
        return await self.kafka.deliver(message, recipients, order, at)


def released(message: HeldMessage, recipients: Sequence[RcptTo], order: str, at: int) -> Output:
    """The record of copies that an order released at that time (epoch milliseconds)."""
    kafka, value = message.kafka, message.content
    key: bytes | None
    headers: list[Header]
    if kafka is None:
        value = trace.released(order, at) + message.trace + value
        key, headers = (
            message.queue_id.encode(),
            [("content-type", b"message/rfc822"), ("mail_from", message.mail.path)],
        )
    else:
        key, headers = kafka.key, list(kafka.headers)
    headers += [("rcpt_to", recipient.path) for recipient in recipients]
    headers += [
        (f"{PREFIX}queue-id", message.queue_id.encode()),
        (f"{PREFIX}disposition", Disposition.RELAY.encode()),
        (f"{PREFIX}release", order.encode()),
    ]
    headers += [(f"{PREFIX}rcpt", recipient.path) for recipient in recipients]
    return Output(RELAY, key, value, headers)

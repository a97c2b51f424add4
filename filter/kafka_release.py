"""Writes released copies to the relay topic, where what came by Kafka goes on; and which copies go that way.

A record as `kafka_results` writes it for copies that are relayed at once: original key, octets and record headers,
`consentry-queue-id`, `-disposition`, `-rcpt`; and `consentry-release`, the id of the order. `rcpt_to` names the
recipients that are released, nobody else. `consentry-source-*` is left out: whoever drops a second record of one source
would drop the copies that were not relayed at once. Delivery is at least once; records of one queue id, order and
recipient are one copy.

Mail that came by SMTP gets the headers of a record of the input topic and keeps its octets, with the header fields that
we prepend. Nothing raises but CancelledError: as in `delivery`, an attempt that fails is an `Attempt` that says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from . import trace
from .delivery import Attempt, Courier
from .envelope import RcptTo
from .events import Outcome
from .held_content import ReleaseTo, goes_by_smtp
from .kafka_results import PREFIX, RELAY, Header, Output
from .kafka_writer import KafkaWriter, NotWrittenError
from .policy import Disposition
from .ports import HeldMessage, Report


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

"""The Kafka door in a worker, put together from the parts that the SMTP door has too; and how it is.

`build` raises ConfigError for files that cannot be used. A configuration without servers, or topic, has no such door.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from . import kafka_client
from .config_kafka import KafkaSettings
from .health import Notice, NotReady
from .judging import Incoming, Judge, Judged
from .kafka_in import KafkaDoor
from .kafka_judging import RecordJudge
from .kafka_partition import Trouble
from .kafka_records import Limits
from .metrics import Metrics
from .ports import Flights, Journal, Known, Report

_REASONS: Final = {
    Trouble.UNAVAILABLE: NotReady.KAFKA_UNAVAILABLE,
    Trouble.TOPICS_MISSING: NotReady.KAFKA_TOPICS_MISSING,
    Trouble.OUTPUT_REFUSED: NotReady.KAFKA_OUTPUT_REFUSED,
    Trouble.OFFSET_LOST: NotReady.KAFKA_OFFSET_LOST,
    Trouble.STALLED: NotReady.KAFKA_STALLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the relay gives; `known` is the hold store's memory of what killed workers, `note` follows campaigns."""

    judge: Judge
    flights: Flights
    known: Callable[[bytes], Collection[Known]]
    journal: Journal
    metrics: Metrics
    note: Callable[[Incoming, Judged], None]
    report: Report
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class KafkaService:
    """The Kafka door of one worker; without one it does nothing and is well."""

    door: KafkaDoor | None
    drain_time: float = 0.0  # seconds

    def start(self) -> None:
        """Join the group."""
        if self.door:
            self.door.start()

    async def stop(self) -> None:
        """Read nothing more, bring open transactions to an end, leave the group."""
        if self.door:
            await self.door.stop(self.drain_time)

    def reasons(self) -> tuple[NotReady, ...]:
        """Why records are not judged now."""
        return tuple(_REASONS[trouble] for trouble in sorted(self.door.troubles)) if self.door else ()

    def notices(self) -> tuple[Notice, ...]:
        """What somebody should know."""
        return (Notice.KAFKA_IDLE,) if self.door and self.door.idle else ()


def build(kafka: KafkaSettings, given: Given) -> KafkaService:
    """Put it together for one worker, within its loop. Nothing is read yet."""
    if not kafka.serves:
        return KafkaService(None)
    judge = RecordJudge(
        judging=given.judge,
        flights=given.flights,
        known=given.known,
        journal=given.journal,
        metrics=given.metrics,
        note=given.note,
        clock=given.clock,
        limits=Limits(kafka.max_message_size, kafka.max_recipients),
    )
    return KafkaService(KafkaDoor(kafka_client.options(kafka), judge, given.metrics, given.report), kafka.drain_time)

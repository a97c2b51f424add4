"""Records of an input topic, and a judge of them in the world of `world`: what the Kafka door has without a Kafka."""

from dataclasses import dataclass

import orjson

from filter.kafka_judging import RecordJudge
from filter.kafka_records import Limits

from .world import World

LIMITS = Limits(message_size=100_000, recipients=50)


@dataclass(frozen=True)
class Record:
    """A record as the client gives it."""

    value: bytes | None = b""
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = b"key"
    topic: str = "outbound"
    partition: int = 3
    offset: int = 17


def record(value: bytes | None, *recipients: str, **headers: str) -> Record:
    """A record with these recipients and other headers."""
    named = [("rcpt_to", one.encode()) for one in recipients]
    return Record(value, (*named, *[(name.replace("__", "-"), text.encode()) for name, text in headers.items()]))


def json_record(document: object, *recipients: str, **headers: str) -> Record:
    """A record of a JSON message."""
    return record(orjson.dumps(document), *recipients, **headers)


def judge(world: World, limits: Limits = LIMITS) -> RecordJudge:
    """The Kafka door's judge, with everything of the world's pipeline."""
    pipeline = world.pipeline
    return RecordJudge(
        judging=pipeline.judge,
        flights=world.flights,
        known=world.hold.known,
        journal=world.journal,
        metrics=world.metrics,
        note=pipeline.completion.note,
        clock=lambda: world.now,
        limits=limits,
        queue_ids=pipeline.queue_ids,
    )

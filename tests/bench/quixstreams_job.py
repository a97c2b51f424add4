"""The job of the Kafka door as a user of quixstreams writes it: `bench_quixstreams.py` runs it beside ours.

    quixstreams_job.py CONFIG SERVERS TOPIC GROUP COMMIT_EVERY

Reads mail from TOPIC, judges it with the judge of the Kafka door and the settings of CONFIG, and writes results to the
topics and in the form of the Kafka door, exactly once. It does less: no journal, no record of what was being judged
when a worker died, no campaign sightings, no way out when a record is refused. COMMIT_EVERY is how many records a
transaction has; 0 is the default of quixstreams: 5 seconds. Runs until SIGTERM.
"""

import gc
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from prometheus_client import CollectorRegistry
from quixstreams import Application, message_context
from quixstreams.models.serializers import Serializer

from filter import app
from filter.config_kafka import OUTPUTS
from filter.consent_view import LateConsent
from filter.envelope import Client
from filter.judging import Incoming, Judge
from filter.kafka_records import Limits, Poison, read
from filter.kafka_results import Output, dead_letter, results
from filter.message_key import QueueIds
from filter.metrics import DoorName, Metrics
from filter.relay import now


class Record(NamedTuple):
    """A record as the Kafka door's reader wants it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Octets(Serializer):
    """Writes the value of an output."""

    def __call__(self, value: Output, ctx: Any) -> bytes | None:
        """Its octets."""
        return value.value


class Job:
    """Judges records."""

    def __init__(self, config_file: Path) -> None:
        config = app.settings(config_file)
        consent = LateConsent(lambda: app.consent_store(config))
        decider = app.decider(config, app.rules(config), consent)
        metrics = Metrics(CollectorRegistry())
        self._judge = Judge(lambda: decider, app.keyer(config, create=True), metrics, _complain)
        self._limits = Limits(config.kafka.max_message_size, config.kafka.max_recipients)
        self._queue_ids = QueueIds()

    def __call__(self, value: bytes, key: Any, _timestamp: int, headers: Any) -> list[Output]:
        """Every record that one becomes."""
        place = message_context()
        record = Record(place.topic, place.partition, place.offset, key, value, headers or [])
        found = read(record, self._limits)
        if isinstance(found, Poison):
            return [dead_letter(record, found)]
        at = now()
        incoming = Incoming(
            *(self._queue_ids.next(at), at, Client(f"kafka:{record.topic}/{record.partition}")),
            *(found.mail, found.recipients, value, found.message, found.said, found.sender_known, DoorName.KAFKA),
        )
        return results(record, incoming, self._judge.judge(incoming, died_before=False))


def _complain(where: str, error: BaseException) -> None:
    raise SystemExit(f"{where}: {error!r}")


def main(config: str, servers: str, topic: str, group: str, commit_every: str) -> None:
    """Run until told to stop."""
    application = Application(
        broker_address=servers,
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_every=int(commit_every),
        use_changelog_topics=False,
    )
    read_from = application.topic(topic, value_deserializer="bytes", key_deserializer="bytes")
    write_to = {
        name: application.topic(f"{topic}.{name}", value_serializer=Octets(), key_serializer="bytes")
        for name in OUTPUTS
    }
    frame = application.dataframe(read_from)
    frame = frame.apply(Job(Path(config)), expand=True, metadata=True)
    frame = frame.set_headers(lambda output, *_: list(output.headers))
    frame.to_topic(lambda output, *_: write_to[output.suffix], key=lambda output: output.key)
    gc.collect()
    gc.freeze()  # as workers do
    application.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

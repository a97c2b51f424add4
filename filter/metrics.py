"""What is counted and timed, each metric declared once; and one page of them for all processes.

Workers count into memory-mapped files, which the supervisor adds up and shows. For that the variable
PROMETHEUS_MULTIPROC_DIR must name their directory before this module is imported in a worker; without it a process
counts for itself. Label values come from closed lists. `deploy/metrics.md` explains each metric.

    DIR/counter_PID.db, histogram_PID.db, gauge_MODE_PID.db   one worker
    DIR/counter_ended.db, histogram_ended.db                  all workers that have ended, added up

`prepare`, `exposition` and `retire` belong to the supervisor, in one thread; errors of the system pass through.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from .events import Outcome
from .policy import Verdict

_Mode = Literal["livesum", "livemax"]  # how a gauge of several workers is added up
# Parts of the library that have no types.
_OpenFile: Any = MmapedDict
_merge: Any = MultiProcessCollector.merge

UNJUDGED: Final = "none"  # label of what was not judged

_TRANSACTION_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 90.0),
)
_JUDGE_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class _Bound(dict[tuple[str, ...], Counter]):
    """The counters of one metric by their label values, each looked up in the library once."""

    def __init__(self, metric: Counter) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Counter:
        counter = self[values] = self._metric.labels(*[str(value) for value in values])
        return counter


class Metrics:
    """Everything a worker counts. One for each process; a test takes one with a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"consentry_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
            return Gauge(f"consentry_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"consentry_{name}", text, buckets=buckets, registry=registry)

        self._messages = _Bound(counter("messages", "Messages, by how they ended for the client", "label", "outcome"))
        self._recipients = _Bound(
            counter("recipients", "Verdicts on recipients' copies", "label", "disposition", "reason")
        )
        self._errors = _Bound(counter("errors", "Faults of this program and failures of its disk", "where"))
        self._next_hop = _Bound(counter("next_hop_events", "What happened on the way to the next hop", "event"))
        self.accepted = counter("accepted", "Recipients' copies of messages answered 250: the sum of the next four")
        self.relayed = counter("relayed", "Copies that the next hop took")
        self.diverted = counter("diverted", "Copies that were diverted")
        self.held = counter("held", "Copies held, with those that could not be diverted")
        self.rejected = counter("rejected", "Copies kept as rejected, of messages that were taken")
        self.in_doubt = counter("in_doubt", "Messages of which the next hop may or may not have a copy")
        self.unscanned = counter("unscanned", "Messages that could not be judged")
        self.suppressed = counter("duplicates_suppressed", "Messages sent again although they had been taken")
        self.unacknowledged = counter("unacknowledged", "Messages taken whose client was lost before it can have known")
        self.campaign_alerts = counter(
            "campaign_alerts", "Campaigns that promote in many copies and claim to be service"
        )
        self.campaigns_overflow = counter("campaigns_overflow", "Messages not counted under their own campaign")
        self.transaction_seconds = histogram(
            "transaction_seconds", "From the end of data to the reply", _TRANSACTION_BUCKETS
        )
        self.judge_seconds = histogram("judge_seconds", "Judging one message", _JUDGE_BUCKETS)
        self._releases = _Bound(counter("release_outcomes", "What became of held copies that were ordered", "outcome"))
        self.held_copies = gauge("held_copies", "Copies in the hold store that wait", "livemax", "state")
        self.held_oldest = gauge("held_oldest_seconds", "Age of the copy that is held longest", "livemax")
        self.notice_last_success = gauge(
            "notice_last_success_timestamp_seconds",
            "When notices last went well, sent or with nothing to say",
            "livemax",
        )
        self.notice_failures = counter("notice_failures", "Notices that failed or may not have arrived")
        self._kafka_records = _Bound(counter("kafka_records", "Records from Kafka, by what became of them", "outcome"))
        self._kafka_events = _Bound(counter("kafka_events", "What happened on the way from and to Kafka", "event"))
        self.kafka_partitions = gauge("kafka_partitions", "Partitions of the input topic that are served", "livesum")
        self.kafka_lag = gauge("kafka_lag", "Records that wait in these partitions", "livesum")
        self.connections = gauge("connections", "Client connections", "livesum")
        self.bytes_in_flight = gauge("bytes_in_flight", "Octets of messages in memory", "livesum")
        self.journal_failed = gauge("journal_failed", "1 while the journal cannot be written", "livemax")
        self.hold_failed = gauge("hold_failed", "1 while the hold store cannot be written", "livemax")
        self._consent_records = _Bound(
            counter("consent_records", "Records of the consent topic, by what became of them", "outcome")
        )
        self.consent_age = gauge("consent_age_seconds", "Age of the consent data from the topic", "livemax")
        self.consent_behind = gauge("consent_behind", "Records of the consent topic not read yet", "livemax")
        self.campaigns_failed = gauge("campaigns_failed", "1 while the campaign ledger cannot be used", "livemax")
        self.breaker_open = gauge("next_hop_breaker_open", "1 while a next hop is left alone", "livemax", "host")

    def finished(self, label: str, outcome: Outcome, seconds: float) -> None:
        """Count a message that was answered, `seconds` after its end of data; `label` is empty if not judged."""
        self._messages[label or UNJUDGED, outcome].inc()
        self.transaction_seconds.observe(seconds)

    def taken(self, *, relayed: int, diverted: int, held: int, rejected: int) -> None:
        """Count the recipients' copies of a message answered 250, by where they are."""
        self.accepted.inc(relayed + diverted + held + rejected)
        self.relayed.inc(relayed)
        for counter, count in ((self.diverted, diverted), (self.held, held), (self.rejected, rejected)):
            if count:
                counter.inc(count)

    def decided(self, label: str, verdicts: Iterable[Verdict]) -> None:
        """Count the verdicts on the copies of one message."""
        found = [(label or UNJUDGED, verdict.disposition, verdict.reason) for verdict in verdicts]
        for values in set(found) if len(found) > 1 else found:
            self._recipients[values].inc(found.count(values))

    def ordered(self, outcome: str, copies: int) -> None:
        """Count held copies by what became of them: an event of the journal."""
        self._releases[outcome,].inc(copies)

    def kafka_record(self, outcome: str) -> None:
        """Count a record from Kafka that was written, became a dead letter, or has to be read again."""
        self._kafka_records[outcome,].inc()

    def kafka_event(self, event: str) -> None:
        """Count what happened on the way from and to Kafka."""
        self._kafka_events[event,].inc()

    def consent_records(self, outcome: str, records: int) -> None:
        """Count records of the consent topic."""
        if records:
            self._consent_records[outcome,].inc(records)

    def error(self, where: str) -> None:
        """Count a fault; `where` is one of a few words of the caller."""
        self._errors[where,].inc()

    def next_hop_event(self, event: str) -> None:
        """Count what happened on the way to the next hop."""
        self._next_hop[event,].inc()


def prepare(directory: Path) -> None:
    """Make the directory ready for workers that are about to start: all counters begin at nothing."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.glob("*.db"):
        path.unlink()


def exposition(directory: Path) -> bytes:
    """The metrics of all workers in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Files(directory))
    return generate_latest(registry)


def retire(directory: Path, pid: int) -> None:
    """Add what a worker that has ended counted to the others that have, so that its files need not be kept.

    Its gauges go; its counters neither vanish nor count twice.
    """
    for path in directory.glob(f"gauge_*_{pid}.db"):
        path.unlink()
    for kind in ("counter", "histogram"):
        path = directory / f"{kind}_{pid}.db"
        if _begun(path):
            _add_up(path, into=directory / f"{kind}_ended.db")
        path.unlink(missing_ok=True)


class _Files(Collector):
    """The files of a directory, added up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order of names."""
        paths = sorted(str(path) for path in self._directory.glob("*.db") if _begun(path))
        yield from sorted(_merge(paths), key=lambda metric: metric.name)


def _begun(path: Path) -> bool:
    """Whether the file holds anything: a worker that is killed while it makes one leaves it empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _add_up(path: Path, *, into: Path) -> None:
    sums = _OpenFile(str(into))
    try:
        for key, value, _, _ in _OpenFile.read_all_values_from_file(str(path)):
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()

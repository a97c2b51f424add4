"""What is counted and timed, each metric declared once; and one page of them for all processes.

Workers count into memory-mapped files, which the supervisor adds up and shows. For that the variable
PROMETHEUS_MULTIPROC_DIR must name their directory before this module is imported in a worker; without it a process
counts for itself. Label values come from closed lists. `deploy/metrics.md` explains each metric.

    DIR/counter_PID.db, histogram_PID.db, gauge_MODE_PID.db   one worker
    DIR/counter_ended.db, histogram_ended.db                  all workers that have ended, added up

`prepare`, `exposition` and `retire` belong to the supervisor, in one thread; errors of the system pass through.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from . import quick_counts
from .events import Event, Outcome
from .labels import Label
from .policy import Disposition, Reason, Verdict
from .quick_counts import Add, Gathered, Later

# Parts of the library that have no types.
_OpenFile: Any = MmapedDict
_merge: Any = MultiProcessCollector.merge

UNJUDGED: Final = "none"  # label of what was not judged
FAULT_PLACES: Final = (
    *("rcpt", "data", "smtp", "judge", "complete", "divert", "void", "confirm", "settle", "abort"),
    *("release", "release_record", "recheck", "retention", "prune", "rejected", "auto_release", "notice"),
    *("housekeeping", "journal", "campaigns", "kafka", "kafka_held", "kafka_release"),
)
KAFKA_OUTCOMES: Final = ("taken", "dead_letter", "aborted", "in_doubt")
KAFKA_EVENTS: Final = (
    *("assigned", "revoked", "fenced", "failed", "refused", "offset_lost", "stalled"),
    *("held_stored", "held_repeated", "held_waiting", "held_failed", "held_dead_letter", "held_offset_lost"),
)
RELEASE_OUTCOMES: Final = (
    *(Event.RELEASED, Event.RELEASE_STOPPED, Event.RELEASE_DEFERRED, Event.BOUNCED, Event.DISCARDED, Event.EXPIRED),
    Event.REPORT_SENT,
)
CONSENT_OUTCOMES: Final = ("added", "repeated", "refused", "erasures", "heartbeats", "tombstones")


class DoorName(StrEnum):
    """Where messages come in."""

    SMTP = "smtp"
    KAFKA = "kafka"


# How a message can end that came in there; `aborted` is in the journal alone, for the message is read again.
MESSAGE_OUTCOMES: Final = {
    DoorName.SMTP: tuple(outcome for outcome in Outcome if outcome is not Outcome.ABORTED),
    DoorName.KAFKA: (Outcome.TAKEN,),
}


class Hop(StrEnum):
    """Connections to the next hop, by what they are for."""

    RELAY = "relay"
    DIVERT = "divert"
    RELEASE = "release"


_TRANSACTION_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 90.0),
)
_FAST_BUCKETS: Final = (0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0)
_DISK_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPT_OUT_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_JUDGE_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class _Quick(dict[tuple[str, ...], Add]):
    """What adds to the counters of one metric, by their label values; for the thread of the event loop alone."""

    def __init__(self, metric: Counter) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Add:
        add = self[values] = quick_counts.counter(self._metric.labels(*[str(value) for value in values]))
        return add


class _Bound(dict[tuple[str, ...], Counter]):
    """The counters of one metric by their label values, each looked up in the library once."""

    def __init__(self, metric: Counter) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Counter:
        counter = self[values] = self._metric.labels(*[str(value) for value in values])
        return counter


class _Declare:
    """Declares metrics, each with what it counts and the names of its labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"consentry_{name}", text, labels, registry=self._registry)

    def counters(self, name: str, text: str, *labels: str) -> _Bound:
        return _Bound(self.counter(name, text, *labels))

    def quick(self, name: str, text: str, *labels: str) -> _Quick:
        return _Quick(self.counter(name, text, *labels))

    def sum(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge of which the workers' values are added up."""
        return Gauge(f"consentry_{name}", text, labels, registry=self._registry, multiprocess_mode="livesum")

    def most(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge of which the highest of the workers' values is shown."""
        return Gauge(f"consentry_{name}", text, labels, registry=self._registry, multiprocess_mode="livemax")

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"consentry_{name}", text, labels, buckets=buckets, registry=self._registry)


class Metrics:
    """Everything a worker counts. One for each process; a test takes one with a registry of its own.

    What every message touches is noted, and counted a moment later, if there is a `later` to do that.
    """

    def __init__(self, registry: CollectorRegistry, later: Later | None = None) -> None:
        declare = _Declare(registry)
        self._gathered = Gathered(later)
        self._declare_mail(declare)
        self._declare_held_mail(declare)
        self._declare_kafka(declare)
        self._declare_consent(declare)
        self._declare_health(declare)
        self._note_ended = self._gathered.each(self._count_ended)
        self._note_taken = self._gathered.each(self._count_taken)
        self._note_decided = self._gathered.each(self._count_decided)
        self._note_next_hop = self._gathered.each(self._count_next_hop)
        self._begin_at_zero()

    def _declare_mail(self, declare: _Declare) -> None:
        counter, quick, histogram = declare.counter, declare.quick, declare.histogram
        self._messages = quick("messages", "Messages, by how they ended", "door", "label", "outcome")
        self._recipients = quick(
            "recipients", "Verdicts on recipients' copies", "door", "label", "disposition", "reason"
        )
        self._rule_hits = quick("rule_hits", "Promotional messages in which a rule found promotion", "rule")
        self._accepted, self._relayed, self._diverted, self._held, self._rejected = (
            quick_counts.counter(counter(name, text))
            for name, text in (
                ("accepted", "Recipients of messages that were taken: the sum of the next four"),
                ("relayed", "Copies that the next hop took"),
                ("diverted", "Copies that were diverted"),
                ("held", "Copies held, with those that could not be diverted"),
                ("rejected", "Copies kept as rejected, of messages that were taken"),
            )
        )
        self.in_doubt = counter("in_doubt", "Messages of which the next hop may or may not have a copy")
        self.unscanned = counter("unscanned", "Messages that could not be judged")
        self.suppressed = counter("duplicates_suppressed", "Messages sent again although they had been taken")
        self.unacknowledged = counter("unacknowledged", "Messages taken whose client was lost before it can have known")
        self.campaign_alerts = counter("campaign_alerts", "Campaigns that promote and claim to be service")
        self.campaigns_overflow = counter("campaigns_overflow", "Messages not counted under their own campaign")
        times = self._gathered.times
        self.judging_took = times(histogram("judge_seconds", "Judging one message", _JUDGE_BUCKETS))
        transaction = histogram(
            "transaction_seconds", "From the end of data to the reply or commit", _TRANSACTION_BUCKETS, "door"
        )
        self._transaction_took = {door: times(transaction.labels(door.value)) for door in DoorName}
        self.next_hop_took = times(
            histogram("next_hop_seconds", "Handing one message to the next hop, until its reply", _TRANSACTION_BUCKETS)
        )
        self._next_hop = quick("next_hop_events", "What happened on the way to the next hop", "event")
        self.breaker_open = declare.most("next_hop_breaker_open", "1 while a host is left alone", "hop", "host")
        self.hop_connections = declare.sum("next_hop_connections", "Connections to hosts", "hop", "state")
        self.hop_waiting = declare.sum("next_hop_waiting", "Messages that wait for a connection", "hop")

    def _declare_held_mail(self, declare: _Declare) -> None:
        counter, most = declare.counter, declare.most
        self._releases = declare.counters("release_outcomes", "What became of copies that were ordered", "outcome")
        self.hold_write_seconds = declare.histogram(
            "hold_write_seconds", "Until copies of a message were on the disk of the hold store", _DISK_BUCKETS
        )
        self.held_copies = most("held_copies", "Copies in the hold store that wait", "state", "reason")
        self.held_oldest = most("held_oldest_seconds", "Age of the copy that is held longest", "reason")
        self.held_keep = most("held_keep_seconds", "How long copies are held until they expire", "reason")
        self.held_pruned = counter("held_pruned", "Copies that ended long ago, whose records were removed")
        self.notice_last_success = most(
            "notice_last_success_timestamp_seconds", "When notices last went well, sent or with nothing to say"
        )
        self.notice_failures = counter("notice_failures", "Notices that failed or may not have arrived")

    def _declare_kafka(self, declare: _Declare) -> None:
        self._kafka_records = declare.counters("kafka_records", "Records, by what became of them", "outcome")
        self._kafka_events = declare.counters("kafka_events", "What happened on the way from and to Kafka", "event")
        self.kafka_transaction_seconds = declare.histogram(
            "kafka_transaction_seconds", "Writing and committing one transaction", _DISK_BUCKETS
        )
        self.kafka_partitions = declare.sum("kafka_partitions", "Partitions of the input topic that are served")
        self.kafka_lag = declare.sum("kafka_lag", "Records that wait in these partitions")

    def _declare_consent(self, declare: _Declare) -> None:
        most = declare.most
        self.consent_lookup_took = self._gathered.times(
            declare.histogram("consent_lookup_seconds", "Looking up the consent of one recipient", _FAST_BUCKETS)
        )
        self.consent_stale = most("consent_stale", "1 while consent data is too old, or there is none")
        self.consent_as_of = most("consent_as_of_timestamp_seconds", "How fresh the consent data is")
        self.consent_subjects = most("consent_index_subjects", "Mailboxes in the consent index")
        self.consent_on_record = most("consent_index_records", "Records in the consent index")
        self._consent_records = declare.counters(
            "consent_records", "Records of the consent topic, by what became of them", "outcome"
        )
        self.consent_age = most("consent_age_seconds", "Age of the consent data from the topic")
        self.consent_behind = most("consent_behind", "Records of the consent topic not read yet")
        self.opt_out_seconds = declare.histogram(
            "consent_opt_out_seconds", "From an opt-out's event to its effect on this machine", _OPT_OUT_BUCKETS
        )

    def _declare_health(self, declare: _Declare) -> None:
        self._errors = declare.counters("errors", "Faults of this program and failures of its disk", "where")
        self.connections = declare.sum("connections", "Client connections")
        self.bytes_in_flight = declare.sum("bytes_in_flight", "Octets of messages in memory")
        self.event_loop_lag_seconds = declare.histogram(
            "event_loop_lag_seconds", "How late a worker's heartbeat was, one each second", _LAG_BUCKETS
        )
        self.journal_failed = declare.most("journal_failed", "1 while the journal cannot be written")
        self.hold_failed = declare.most("hold_failed", "1 while the hold store cannot be written")
        self.campaigns_failed = declare.most("campaigns_failed", "1 while the campaign ledger cannot be used")

    def _begin_at_zero(self) -> None:
        """Show what is alerted on from the start: the first of a kind would not count as growth otherwise."""
        for bound, words in (
            (self._errors, FAULT_PLACES),
            (self._releases, RELEASE_OUTCOMES),
            (self._kafka_records, KAFKA_OUTCOMES),
            (self._kafka_events, KAFKA_EVENTS),
            (self._consent_records, CONSENT_OUTCOMES),
        ):
            for word in words:
                bound[word,].inc(0)
        for door, outcomes in MESSAGE_OUTCOMES.items():
            for values in product([door], (*Label, UNJUDGED), outcomes):
                self._messages[values](0)

    def finished(self, door: DoorName, label: str, outcome: Outcome, seconds: float) -> None:
        """Count a message that was answered, `seconds` after its end of data; `label` is empty if not judged."""
        self._note_ended((door, label or UNJUDGED, outcome))
        self._transaction_took[door](seconds)
        self._gathered.soon()

    def _count_ended(self, how: tuple[DoorName, str, Outcome], messages: int) -> None:
        self._messages[how](messages)

    def taken(self, accepted: int, *, relayed: int, diverted: int, held: int, rejected: int) -> None:
        """Count the recipients of a message answered 250, and their copies by where they are: as many, if all is well.

        `accepted` is counted where recipients are, the others where copies went, so that the sums can disagree.
        """
        self._note_taken((accepted, relayed, diverted, held, rejected))
        self._gathered.soon()

    def _count_taken(self, copies: tuple[int, int, int, int, int], messages: int) -> None:
        adders = (self._accepted, self._relayed, self._diverted, self._held, self._rejected)
        for add, count in zip(adders, copies, strict=True):
            if count:
                add(messages * count)

    def decided(self, door: DoorName, label: str, verdicts: Iterable[Verdict], rules: Iterable[str] = ()) -> None:
        """Count the verdicts on the copies of one message, and the rules that found promotion in it."""
        found = tuple([(verdict.disposition, verdict.reason) for verdict in verdicts])
        self._note_decided((door, label or UNJUDGED, found, tuple(rules)))
        self._gathered.soon()

    def _count_decided(
        self, what: tuple[DoorName, str, tuple[tuple[Disposition, Reason], ...], tuple[str, ...]], messages: int
    ) -> None:
        door, label, found, rules = what
        for verdict, copies in Tally(found).items():
            self._recipients[door, label, *verdict](messages * copies)
        for rule in rules:
            self._rule_hits[rule,](messages)

    def flush(self) -> None:
        """Count what was noted."""
        self._gathered.flush()

    def ordered(self, outcome: str, copies: int) -> None:
        """Count held copies by what became of them: an event of the journal."""
        self._releases[outcome,].inc(copies)

    def kafka_records(self, outcome: str, records: int) -> None:
        """Count records from Kafka that were written, became dead letters, or have to be read again."""
        if records:
            self._kafka_records[outcome,].inc(records)

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
        self._note_next_hop(event)
        self._gathered.soon()

    def _count_next_hop(self, event: str, times: int) -> None:
        self._next_hop[event,](times)


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

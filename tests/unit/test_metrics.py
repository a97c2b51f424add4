"""Each metric is declared once, documented, and labelled from closed lists."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from support.kafka_records import judge, record
from support.world import PROMOTION, SERVICE, World, rcpt

from filter.events import Outcome
from filter.labels import Label
from filter.metrics import DoorName, Metrics, exposition, prepare, retire
from filter.metrics_whole import WholeMetrics
from filter.policy import Disposition, Policy, Reason, Verdict, unscanned

DOCUMENT = Path(__file__).parents[2] / "deploy" / "metrics.md"
SOURCE = Path(__file__).parents[2] / "filter"
HOLD = unscanned(Policy())
PARTS = ("relayed", "diverted", "held", "rejected")


def page(registry: CollectorRegistry) -> str:
    """The metrics as text."""
    return generate_latest(registry).decode()


def test_messages_are_counted_by_door_label_and_outcome() -> None:
    """A message that was answered counts once, with its time."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.finished(DoorName.SMTP, Label.MIXED, Outcome.TAKEN, 0.003)
    metrics.finished(DoorName.SMTP, Label.MIXED, Outcome.TAKEN, 0.003)
    metrics.finished(DoorName.KAFKA, "", Outcome.TAKEN, 30)
    text = page(registry)
    assert 'consentry_messages_total{door="smtp",label="mixed",outcome="taken"} 2.0' in text
    assert 'consentry_messages_total{door="kafka",label="none",outcome="taken"} 1.0' in text
    assert 'consentry_transaction_seconds_bucket{door="smtp",le="0.005"} 2.0' in text
    assert 'consentry_transaction_seconds_bucket{door="smtp",le="0.0025"} 0.0' in text
    assert 'consentry_transaction_seconds_count{door="smtp"} 2.0' in text


def test_verdicts_are_counted_for_each_recipient() -> None:
    """Copies with the same verdict are counted together, others apart."""
    registry = CollectorRegistry()
    relay = Verdict(Disposition.RELAY, Disposition.RELAY, Reason.CONSENT, HOLD.state)
    Metrics(registry).decided(DoorName.SMTP, Label.MARKETING, [HOLD, relay, HOLD])
    value = registry.get_sample_value
    labels = {"door": "smtp", "label": "marketing"}
    assert value("consentry_recipients_total", {**labels, "disposition": "hold", "reason": "unscanned"}) == 2
    assert value("consentry_recipients_total", {**labels, "disposition": "relay", "reason": "consent"}) == 1


def test_rules_are_counted_once_for_each_message_in_which_they_found_promotion() -> None:
    """Promotion counts for the rules that found it, whoever it was for; service mail counts for none."""
    world = World()
    world.send([rcpt("hold", 1), rcpt("relay", 2)], PROMOTION)
    world.send([rcpt("hold", 1)], SERVICE)
    assert hits(world.registry) == {"test.promotion": 1.0}


def hits(registry: CollectorRegistry) -> dict[str, float]:
    """How often each rule found something."""
    (metric,) = [one for one in registry.collect() if one.name == "consentry_rule_hits"]
    return {one.labels["rule"]: one.value for one in metric.samples if one.name.endswith("_total")}


def test_faults_and_events_of_the_next_hop_are_counted() -> None:
    """Each place and each event has its own count."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.error("data")
    metrics.next_hop_event("connect")
    assert 'consentry_errors_total{where="data"} 1.0' in page(registry)
    assert 'consentry_next_hop_events_total{event="connect"} 1.0' in page(registry)


def test_faults_are_shown_before_the_first_one() -> None:
    """Every place that can report a fault is on the first page, as nothing, so that one fault is growth."""
    registry = CollectorRegistry()
    Metrics(registry)
    shown = set(re.findall(r'consentry_errors_total\{where="(\w+)"\} 0\.0', page(registry)))
    source = "\n".join(path.read_text() for path in SOURCE.glob("*.py"))
    places = set(re.findall(r'(?:\breport|_report|metrics\.error|\bChore|\bService)\(\s*"(\w+)"', source))
    assert len(places) > 15
    assert shown == places


def test_outcomes_of_messages_are_shown_before_the_first_one() -> None:
    """Every way in which a message can end is on the first page, as nothing, with every label; none appears later."""
    world = World()
    shown = series(world.registry, "consentry_messages")
    assert set(shown.values()) == {0.0}
    outcomes = {door: {outcome for there, _, outcome in shown if there == door} for door in DoorName}
    explained = re.search(r"^Outcomes: (.+?)\n\n", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert explained
    assert outcomes[DoorName.SMTP] == set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", explained[1])))
    assert outcomes[DoorName.KAFKA] == {Outcome.TAKEN}
    assert {label for _, label, _ in shown} == {*Label, "none"}
    world.send([rcpt("hold", 1), rcpt("relay", 2)], PROMOTION)
    world.send([rcpt("reject", 1)])
    now = series(world.registry, "consentry_messages")
    assert now.keys() == shown.keys()
    assert sum(now.values()) == 2


def test_outcomes_of_releases_are_shown_before_the_first_one() -> None:
    """What can become of held copies is on the first page, as nothing: what is counted, and what is explained."""
    registry = CollectorRegistry()
    Metrics(registry)
    shown = series(registry, "consentry_release_outcomes")
    assert set(shown.values()) == {0.0}
    outcomes = {outcome for (outcome,) in shown}
    source = "\n".join((SOURCE / f"{name}.py").read_text() for name in ("handling", "release"))
    assert outcomes == {one.lower() for one in re.findall(r"(?:_tell\(|CopyState\.\w+: )Event\.(\w+)", source)}
    (row,) = re.findall(r"^\| `consentry_release_outcomes_total.*$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert outcomes == set(re.findall(r"`(\w+)`", row.split("|")[2]))


def series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """The values of a counter by its label values, in the order of its labels."""
    (metric,) = [one for one in registry.collect() if one.name == name]
    return {tuple(one.labels.values()): one.value for one in metric.samples if one.name.endswith("_total")}


def test_every_metric_is_explained() -> None:
    """deploy/metrics.md has a row for every metric, with its labels in their order, and no other."""
    explained = set(re.findall(r"^\| `(consentry_\w+(?:\{[a-z,_]+\})?)` \|", DOCUMENT.read_text(), flags=re.MULTILINE))
    assert explained == {one.row for one in declared()}


def test_names_say_units() -> None:
    """Names follow the conventions of Prometheus: base units, and `_total` for counters alone."""
    for one in declared():
        name = one.row.partition("{")[0]
        assert name.endswith("_total") is (one.kind == "counter"), name
        if one.kind == "histogram":
            assert name.endswith("_seconds"), name
        if "timestamp" in name:
            assert name.endswith("_timestamp_seconds"), name
        assert not re.search(r"_(ms|millis|minutes|hours|kb|percent|count|sum|bucket)(_|$)", name), name


def test_labels_hold_no_personal_data() -> None:
    """The names of labels are a closed list; none of them is about a person, a domain or content."""
    known = {"door", "label", "outcome", "disposition", "reason", "rule", "event", "hop", "host", "state", "where"}
    whole = {"notice", "version", "ruleset", "use"}
    used = {label for one in declared() for label in one.labels}
    assert used == known | whole


def test_copies_are_conserved_across_the_doors() -> None:
    """What both doors accepted is relayed, diverted, held or rejected: the sums are equal, whatever failed or came."""
    world = World()
    words = ["relay", "hold", "divert", "reject"]
    world.send([rcpt(word) for word in words])
    world.send([rcpt("relay", 1), rcpt("relay", 2)], SERVICE)
    world.send([rcpt("reject", 1)])  # rejected as a whole: not accepted
    records = judge(world)
    passed = [records.judge(record(PROMOTION, *[f"{word}.1@x.example" for word in (*words, "tempfail")]))]
    passed.append(records.judge(record(b"", "nobody")))
    records.begin(passed)
    records.aborted(passed)
    records.committed(passed, 0.02)
    counts = {name: world.count(name) for name in PARTS}
    assert counts == {"relayed": 4, "diverted": 2, "held": 3, "rejected": 2}
    assert world.count("accepted") == sum(counts.values())
    value = world.registry.get_sample_value
    assert value("consentry_kafka_transaction_seconds_count") == 1
    for name in ("next_hop", "hold_write"):
        assert value(f"consentry_{name}_seconds_count") == {"next_hop": 2, "hold_write": 1}[name]


def test_the_sums_can_disagree() -> None:
    """What was accepted is counted by recipients, where it went by copies: a copy that is nowhere shows."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.taken(4, relayed=1, diverted=0, held=2, rejected=0)
    parts = [registry.get_sample_value(f"consentry_{name}_total") for name in PARTS]
    assert registry.get_sample_value("consentry_accepted_total") == 4
    assert sum(filter(None, parts)) == 3


def test_what_every_message_touches_is_counted_a_moment_later() -> None:
    """It is noted first, and one call for all of it is asked for; the sums are those of counting at once."""
    calls: list[Any] = []
    at_once, gathered = CollectorRegistry(), CollectorRegistry()
    count_much(Metrics(at_once))
    metrics = Metrics(gathered, lambda seconds, call: calls.append(call))
    count_much(metrics)
    count_much(metrics)
    assert gathered.get_sample_value("consentry_accepted_total") == 0
    (call,) = calls
    call()
    once = values_of(at_once)
    assert once["consentry_next_hop_seconds_count",] == 3
    assert values_of(gathered) == {name: 2 * value for name, value in once.items()}


def test_what_was_noted_can_be_counted_at_once() -> None:
    """Flushing counts it without waiting for the moment, and what comes afterwards is counted in its own moment."""
    calls: list[Any] = []
    registry = CollectorRegistry()
    metrics = Metrics(registry, lambda seconds, call: calls.append(call))
    metrics.consent_lookup_took(0.00002)  # nothing else of a message comes with it
    metrics.flush()
    assert registry.get_sample_value("consentry_consent_lookup_seconds_count") == 1
    count_much(metrics)
    metrics.flush()
    count_much(metrics)
    assert len(calls) == 2
    assert registry.get_sample_value("consentry_accepted_total") == 4
    calls[0]()
    assert registry.get_sample_value("consentry_accepted_total") == 8


def count_much(metrics: Metrics) -> None:
    """Count a message in every way in which messages are counted beside each other."""
    relay = Verdict(Disposition.RELAY, Disposition.RELAY, Reason.CONSENT, HOLD.state)
    metrics.judging_took(0.0005)
    metrics.consent_lookup_took(0.00002)
    metrics.decided(DoorName.SMTP, Label.MARKETING, [HOLD, relay, HOLD, HOLD], ["one", "other"])
    for took in (0.003, 0.02, 100.0):
        metrics.next_hop_took(took)
    metrics.next_hop_event("connect")
    metrics.next_hop_event("reused")
    metrics.taken(4, relayed=1, diverted=0, held=3, rejected=0)
    metrics.finished(DoorName.SMTP, Label.MARKETING, Outcome.TAKEN, 0.004)
    metrics.finished(DoorName.KAFKA, "", Outcome.TAKEN, 0.25)


def values_of(registry: CollectorRegistry) -> dict[tuple[object, ...], float]:
    """What has been counted and observed, without when it began."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


class Declared(NamedTuple):
    """A metric as the document names it."""

    row: str
    kind: str
    labels: tuple[str, ...]


def declared() -> list[Declared]:
    """Every metric of workers and supervisor."""
    workers, whole = CollectorRegistry(), CollectorRegistry()
    Metrics(workers)
    WholeMetrics(whole)
    collectors = {*workers._collector_to_names, *whole._collector_to_names}
    found = []
    for collector in collectors:
        assert isinstance(collector, MetricWrapperBase)
        name = collector._name + ("_total" if collector._type == "counter" else "")
        labels = tuple(collector._labelnames)
        found.append(Declared(name + (f"{{{','.join(labels)}}}" if labels else ""), collector._type, labels))
    return found


def test_nothing_counted_is_an_empty_page(tmp_path: Path) -> None:
    """Before a worker has begun, and with a file that a worker was killed while making, the page is served."""
    directory = tmp_path / "metrics"
    prepare(directory)
    assert exposition(directory) == b""
    (directory / "counter_7.db").touch()
    assert exposition(directory) == b""
    retire(directory, 7)
    assert not list(directory.iterdir())

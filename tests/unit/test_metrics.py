"""Each metric is declared once, documented, and labelled from closed lists."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from filter.events import Outcome
from filter.labels import Label
from filter.metrics import Metrics, exposition, prepare, retire
from filter.policy import Disposition, Policy, Reason, Verdict, unscanned

DOCUMENT = Path(__file__).parents[2] / "deploy" / "metrics.md"
HOLD = unscanned(Policy())


def page(registry: CollectorRegistry) -> str:
    """The metrics as text."""
    return generate_latest(registry).decode()


def test_messages_are_counted_by_label_and_outcome() -> None:
    """A message that was answered counts once, with its time."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.finished(Label.MIXED, Outcome.TAKEN, 0.003)
    metrics.finished(Label.MIXED, Outcome.TAKEN, 0.003)
    text = page(registry)
    assert 'consentry_messages_total{label="mixed",outcome="taken"} 2.0' in text
    assert 'consentry_transaction_seconds_bucket{le="0.005"} 2.0' in text
    assert 'consentry_transaction_seconds_bucket{le="0.0025"} 0.0' in text


def test_verdicts_are_counted_for_each_recipient() -> None:
    """Copies with the same verdict are counted together, others apart."""
    registry = CollectorRegistry()
    relay = Verdict(Disposition.RELAY, Disposition.RELAY, Reason.CONSENT, HOLD.state)
    Metrics(registry).decided(Label.MARKETING, [HOLD, relay, HOLD])
    text = page(registry)
    assert 'consentry_recipients_total{disposition="hold",label="marketing",reason="unscanned"} 2.0' in text
    assert 'consentry_recipients_total{disposition="relay",label="marketing",reason="consent"} 1.0' in text


def test_faults_and_events_of_the_next_hop_are_counted() -> None:
    """Each place and each event has its own count."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.error("data")
    metrics.next_hop_event("connect")
    assert 'consentry_errors_total{where="data"} 1.0' in page(registry)
    assert 'consentry_next_hop_events_total{event="connect"} 1.0' in page(registry)


def test_every_metric_is_explained() -> None:
    """deploy/metrics.md has a row for every metric, with its labels, and no other."""
    registry = CollectorRegistry()
    Metrics(registry)
    declared = {
        (metric.name + ("_total" if metric.type == "counter" else ""), metric.documentation)
        for metric in registry.collect()
    }
    rows = re.findall(r"^\| `(consentry_\w+)(?:\{[a-z,_]+\})?` \| (.+?) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert {name for name, _ in rows} == {name for name, _ in declared}


def test_nothing_counted_is_an_empty_page(tmp_path: Path) -> None:
    """Before a worker has begun, and with a file that a worker was killed while making, the page is served."""
    directory = tmp_path / "metrics"
    prepare(directory)
    assert exposition(directory) == b""
    (directory / "counter_7.db").touch()
    assert exposition(directory) == b""
    retire(directory, 7)
    assert not list(directory.iterdir())

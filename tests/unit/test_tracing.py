"""Spans of messages: what is in them, what never is, and that there is nothing of it when it is off."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from support.world import PROMOTION, SERVICE, World, rcpt

from filter import tracing
from filter.errors import ConfigError
from filter.events import Outcome
from filter.policy import Disposition
from filter.ports import NextHopUnavailableError
from filter.tracing import Tracer


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Where spans arrive."""
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> Iterator[World]:
    """A pipeline whose messages leave spans."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world = World()
    world.pipeline = dataclasses.replace(world.pipeline, tracer=Tracer(provider))
    yield world
    provider.shutdown()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans of one message by their names."""
    finished = exporter.get_finished_spans()
    found = {span.name: span for span in finished}
    assert len(found) == len(finished)
    return found


def test_a_message_leaves_a_span_and_one_for_each_step(traced: World, exporter: InMemorySpanExporter) -> None:
    """The steps of a message that is split stand below its span, one after another, within its time."""
    traced.send([rcpt("relay"), rcpt("hold")])
    found = spans(exporter)
    assert set(found) == {"message", "judge", "hold", "next_hop", "complete"}
    root = found.pop("message")
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    assert found["next_hop"].kind is SpanKind.CLIENT
    assert all(span.parent == root.context for span in found.values())
    steps = [found[name] for name in ("judge", "hold", "next_hop", "complete")]
    times = [root.start_time, *(time for span in steps for time in (span.start_time, span.end_time)), root.end_time]
    assert times == sorted(times, key=lambda time: time or 0)
    assert root.status.status_code is StatusCode.UNSET


def test_a_step_that_is_not_done_has_no_span(traced: World, exporter: InMemorySpanExporter) -> None:
    """A message that goes to everybody is not held, one that goes to nobody not handed on."""
    traced.send([rcpt("relay")], SERVICE)
    assert set(spans(exporter)) == {"message", "judge", "next_hop", "complete"}
    exporter.clear()
    traced.send([rcpt("hold")])
    assert set(spans(exporter)) == {"message", "judge", "hold", "complete"}


def test_spans_say_what_became_of_a_message(traced: World, exporter: InMemorySpanExporter) -> None:
    """A span has the queue id of the journal, label, outcome, reply and sizes."""
    traced.send([rcpt("relay"), rcpt("hold")])
    (queue_id,) = {str(event["queue_id"]) for event in traced.journal.events}
    assert dict(spans(exporter)["message"].attributes or {}) == {
        "consentry.door": "smtp",
        "consentry.queue_id": queue_id,
        "consentry.label": "marketing",
        "consentry.outcome": "taken",
        "consentry.recipients": 2,
        "consentry.size": len(PROMOTION),
        "consentry.reply_code": 250,
    }


def test_spans_hold_no_address_and_no_content(traced: World, exporter: InMemorySpanExporter) -> None:
    """Nothing of envelope, header fields or text is in any span."""
    traced.send([rcpt("relay"), rcpt("hold"), rcpt("divert"), rcpt("reject")])
    shown = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "@" not in shown
    words = set(re.findall(r"[a-z]{5,}", PROMOTION.decode().lower())) - {"message", "content"}
    assert words
    assert not words & set(re.findall(r"[a-z]{5,}", shown.lower()))


def test_a_next_hop_that_is_away_is_an_error_in_its_step(traced: World, exporter: InMemorySpanExporter) -> None:
    """The span of a message that could not be handed on is an error, and its last step the next hop."""
    traced.script.fail["hop.data"] = NextHopUnavailableError()
    assert not traced.send([rcpt("relay")]).ok
    found = spans(exporter)
    assert set(found) == {"message", "judge", "next_hop"}
    assert found["message"].status.status_code is StatusCode.ERROR
    assert (found["message"].attributes or {})["consentry.outcome"] == str(Outcome.UNREACHABLE)
    assert found["next_hop"].end_time == found["message"].end_time


def test_what_is_decided_is_no_error(traced: World, exporter: InMemorySpanExporter) -> None:
    """A message that is deferred by the policy was judged, and its span is no error."""
    assert not traced.send([rcpt("tempfail")]).ok
    assert spans(exporter)["message"].status.status_code is StatusCode.UNSET


def test_looking_up_consent_is_timed_for_the_message_that_asks(traced: World, exporter: InMemorySpanExporter) -> None:
    """The seconds of look-ups while a message is judged are its own; those of other work are nobody's."""
    tracer = traced.pipeline.tracer
    assert tracer
    told: list[float] = []
    timing = tracer.timing(told.append)
    timing(5.0)  # a release that is checked again
    steps = tracer.begin()
    tracer.judging(steps)
    timing(0.25)
    timing(0.5)
    tracer.judged(steps)
    timing(7.0)
    assert told == [5.0, 0.25, 0.5, 7.0]
    assert steps.consent == 0.75
    traced.send([rcpt("relay")], SERVICE)
    assert (spans(exporter)["judge"].attributes or {})["consentry.consent_seconds"] == 0.0


def test_messages_that_are_not_sampled_leave_nothing(exporter: InMemorySpanExporter) -> None:
    """The sampler of OpenTelemetry decides for a message and its steps together."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world = World()
    world.pipeline = dataclasses.replace(world.pipeline, tracer=Tracer(provider))
    assert world.send([rcpt("relay")]).ok
    assert not exporter.get_finished_spans()


def test_traces_change_nothing(traced: World) -> None:
    """With and without traces copies end in the same places."""
    recipients = [rcpt("relay"), rcpt("hold"), rcpt("divert"), rcpt("reject")]
    plain = World()
    assert traced.send(recipients).code == plain.send(recipients).code
    assert traced.places() == plain.places()
    assert traced.hold.live(Disposition.HOLD) == plain.hold.live(Disposition.HOLD)


def test_a_fault_of_traces_is_none_of_mail(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the library raises is logged, and the client hears of its message."""

    class Faulty(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError(span.name)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Faulty(InMemorySpanExporter()))
    world = World()
    world.pipeline = dataclasses.replace(world.pipeline, tracer=Tracer(provider))
    assert world.send([rcpt("relay")]).code == 250
    assert world.count("messages", door="smtp", label="marketing", outcome="taken") == 1
    assert "trace_failed" in caplog.messages


def test_off_it_loads_nothing() -> None:
    """The relay's modules do not load OpenTelemetry, and a disabled tracer is none."""
    assert tracing.build(enabled=False, worker="0") is None
    script = "import sys, filter.relay; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_it_is_named_consentry_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resource of the spans has our name and the worker; the standard variable goes before."""

    def resource() -> dict[str, object]:
        tracer = tracing.build(enabled=True, worker="3")
        assert tracer
        provider = tracer._provider
        tracer.close()
        return dict(provider.resource.attributes)

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    assert resource().items() >= {("service.name", "consentry"), ("consentry.worker", "3")}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mail-gate")
    assert resource()["service.name"] == "mail-gate"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enabled without its packages it says what to install, before anything starts."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"(?s)tracing\.enabled.*consentry\[otel\]"):
        tracing.check(enabled=True)

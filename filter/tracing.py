"""OpenTelemetry traces: one span for each message that comes in by SMTP, with a span for each step of its way.

Off unless `tracing.enabled`; then nothing of OpenTelemetry is loaded, and a message costs a few tests for None. The
standard variables OTEL_* say where spans go and how many are kept. A span has the queue id, words of closed lists and
numbers: never an address, a subject or other content. Steps are noted while a message passes, and made into spans when
it has ended, so that nothing of the library runs in between; spans are sent by a thread of its own, and are lost rather
than waited for when nobody takes them.

`build` and `check` raise ConfigError where the packages are missing or the variables cannot be used.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Thread
from time import time_ns
from typing import TYPE_CHECKING, Final

from . import __version__, logs
from .errors import ConfigError, Problem
from .events import Outcome
from .replies import Reply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FAILURES: Final = frozenset(
    {Outcome.FAULT, Outcome.IN_DOUBT, Outcome.STORAGE, Outcome.TIMEOUT, Outcome.UNREACHABLE},
)
"""Outcomes that make the span of a message an error: what somebody should look at, not what was decided."""
_SETTING: Final = "tracing.enabled"
_CLOSE_SECONDS: Final = 3.0


class Step(StrEnum):
    """What is done with a message, in this order; what is not done has no span."""

    JUDGE = "judge"
    HOLD = "hold"
    NEXT_HOP = "next_hop"
    COMPLETE = "complete"


@dataclass(slots=True)
class Steps:
    """When the steps of one message began, in epoch nanoseconds. A step lasts until the next, or the message's end."""

    began: int = field(default_factory=time_ns)
    at: list[tuple[Step, int]] = field(default_factory=list)
    consent: float = 0.0  # seconds that look-ups of consent took

    def begin(self, step: Step) -> None:
        """From here on it is this step."""
        self.at.append((step, time_ns()))


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a message in the end; `label` is empty if it was not judged, `size` in octets."""

    queue_id: str
    label: str
    outcome: Outcome
    reply: Reply
    recipients: int
    size: int


class Tracer:
    """Makes spans of messages, within the event loop of one worker."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415 -- see the top

        self._provider = provider
        self._tracer = provider.get_tracer("consentry", __version__)
        self._root, self._inner, self._client = SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT
        self._error, self._within = Status(StatusCode.ERROR), set_span_in_context
        self._consent = 0.0

    def timing(self, observe: Callable[[float], None]) -> Callable[[float], None]:
        """`observe` for the seconds of a look-up of consent, which also tells us."""

        def told(seconds: float) -> None:
            self._consent += seconds
            observe(seconds)

        return told

    def begin(self) -> Steps:
        """A message is complete."""
        return Steps()

    def judging(self, steps: Steps) -> None:
        """It is going to be judged, without anything in between."""
        self._consent = 0.0
        steps.begin(Step.JUDGE)

    def judged(self, steps: Steps) -> None:
        """It was judged."""
        steps.consent = self._consent

    def end(self, steps: Steps, ended: Ended) -> None:
        """The message's way has ended: hand its spans over. Never raises: mail does not end with its traces."""
        try:
            self._hand_over(steps, ended)
        except Exception as error:  # noqa: BLE001 -- whatever the library does, the message was dealt with
            logs.fault("trace_failed", error)

    def _hand_over(self, steps: Steps, ended: Ended) -> None:
        now = time_ns()
        attributes: dict[str, str | int] = {
            "consentry.door": "smtp",
            "consentry.queue_id": ended.queue_id,
            "consentry.outcome": str(ended.outcome),
            "consentry.recipients": ended.recipients,
            "consentry.size": ended.size,
            "consentry.reply_code": ended.reply.code,
        }
        if ended.label:
            attributes["consentry.label"] = str(ended.label)
        root = self._tracer.start_span("message", kind=self._root, start_time=steps.began, attributes=attributes)
        if root.is_recording():
            self._children(steps, now, self._within(root))
        if ended.outcome in FAILURES:
            root.set_status(self._error)
        root.end(now)

    def _children(self, steps: Steps, now: int, context: "object") -> None:
        ends = [*(at for _, at in steps.at[1:]), now]
        for (step, at), end in zip(steps.at, ends, strict=True):
            kind = self._client if step is Step.NEXT_HOP else self._inner
            span = self._tracer.start_span(str(step), context=context, kind=kind, start_time=at)  # type: ignore[arg-type]
            if step is Step.JUDGE:
                span.set_attribute("consentry.consent_seconds", steps.consent)
            span.end(end)

    def close(self) -> None:
        """Send what is left, for a few seconds at most; blocks. A collector that is away must not hold up a drain."""
        ending = Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_CLOSE_SECONDS)


def check(*, enabled: bool) -> None:
    """Whether a worker could make spans. Raises ConfigError."""
    tracer = build(enabled=enabled, worker="check")
    if tracer:
        tracer.close()


def build(*, enabled: bool, worker: str) -> Tracer | None:
    """The tracer of a worker; None if there is to be none. Raises ConfigError."""
    if not enabled:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 -- see the top
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 -- as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 -- as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 -- as above
    except ImportError as error:
        raise _problem(
            f'the packages of OpenTelemetry: pip install "consentry[otel]" ({error.name} is missing)'
        ) from None
    try:
        # Our name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give another.
        named = Resource.create({"consentry.worker": worker})
        if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            named = named.merge(Resource({SERVICE_NAME: "consentry"}))
        provider = TracerProvider(resource=named, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise _problem(f"usable variables OTEL_* ({error})") from None
    return Tracer(provider)


def _problem(allowed: str) -> ConfigError:
    return ConfigError("traces cannot be made:", [Problem(_SETTING, "true", allowed)])

"""What the supervisor shows of the whole, beside what workers count: each metric declared once.

Health is shown as of the moment somebody asks; build and certificates as of the configuration that is at work.
Nothing here raises: a certificate that cannot be read is logged, and not shown.
"""

from enum import StrEnum
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from . import __version__, logs
from .certificates import expiry
from .config import Config
from .health import Health, Notice, NotReady


class ReloadOutcome(StrEnum):
    """How a reload ended."""

    DONE = "done"
    REFUSED = "refused"


class CertificateUse(StrEnum):
    """Whom we show a certificate."""

    SMTP = "smtp"  # clients of the SMTP listener
    KAFKA = "kafka"  # brokers


class WholeMetrics:
    """The supervisor's own metrics; a test takes one with a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"consentry_{name}", text, labels, registry=registry)

        self._registry = registry
        self.restarts = Counter(
            "consentry_worker_restarts", "Workers started in place of one that ended", registry=registry
        )
        self._reloads = Counter(
            "consentry_reloads", "Requests to reload the configuration", ["outcome"], registry=registry
        )
        self._not_ready = gauge("not_ready", "1 while mail should go elsewhere, by reason", "reason")
        self._notices = gauge("notice", "1 while somebody should know of something", "notice")
        self._ready = gauge("workers_ready", "Workers that serve")
        self._wanted = gauge("workers_wanted", "Workers that there should be")
        self._build = gauge("build_info", "What runs: 1 for the version and rule set at work", "version", "ruleset")
        self._expiry = gauge("certificate_expiry_timestamp_seconds", "When a certificate of ours expires", "use")
        self._started = gauge("start_timestamp_seconds", "When this program was started")
        self._started.set_to_current_time()
        for outcome in ReloadOutcome:
            self._reloads.labels(outcome.value)

    def reloaded(self, outcome: ReloadOutcome) -> None:
        """Count a reload."""
        self._reloads.labels(outcome.value).inc()

    def configured(self, config: Config, ruleset: str) -> None:
        """This configuration is at work from now on."""
        self._build.clear()
        self._build.labels(__version__, ruleset).set(1)
        self._expiry.clear()
        for use, path in _certificates(config).items():
            if path:
                self._show_expiry(use, path)

    def page(self, health: Health) -> bytes:
        """In the text format of Prometheus."""
        for reason in NotReady:
            self._not_ready.labels(reason.value).set(reason in health.reasons)
        for notice in Notice:
            self._notices.labels(notice.value).set(notice in health.notices)
        self._ready.set(health.workers_ready)
        self._wanted.set(health.workers_wanted)
        return generate_latest(self._registry)

    def _show_expiry(self, use: CertificateUse, path: Path) -> None:
        try:
            self._expiry.labels(use.value).set(expiry(path))
        except (OSError, ValueError) as error:
            self._expiry.remove(use.value)
            logs.event(logs.WARNING, "certificate_unreadable", use=use.value, reason=type(error).__name__)


def _certificates(config: Config) -> dict[CertificateUse, Path | None]:
    return {
        CertificateUse.SMTP: config.smtp.tls_cert_file,
        CertificateUse.KAFKA: config.kafka.tls_cert_file,
    }

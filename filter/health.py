"""What workers say about themselves, and what that says about the whole: ready, or not and why.

A report travels as JSON from worker to supervisor. The words are closed sets: monitoring may rely on them.
Pure; raises ValueError for a report that is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class NotReady(StrEnum):
    """Why mail should go elsewhere for now."""

    STARTING = "starting"
    DRAINING = "draining"
    WORKER_MISSING = "worker_missing"  # ended or not started yet; its connections wait
    WORKER_SILENT = "worker_silent"
    CONSENT_LOADING = "consent_loading"  # the consent topic has not been read to where it ended at the start
    HOLD_FAILED = "hold_failed"
    HOLD_NO_ROOM = "hold_no_room"
    JOURNAL_FAILED = "journal_failed"
    NEXT_HOP_UNAVAILABLE = "next_hop_unavailable"
    EVENT_LOOP_SLOW = "event_loop_slow"
    KAFKA_UNAVAILABLE = "kafka_unavailable"
    KAFKA_TOPICS_MISSING = "kafka_topics_missing"
    KAFKA_OUTPUT_REFUSED = "kafka_output_refused"
    KAFKA_OFFSET_LOST = "kafka_offset_lost"
    KAFKA_STALLED = "kafka_stalled"


class Notice(StrEnum):
    """What somebody should know, while mail flows as the policy says."""

    CONSENT_MISSING = "consent_missing"
    CONSENT_STALE = "consent_stale"
    CONSENT_FEED_FAILED = "consent_feed_failed"  # the consent topic cannot be read just now
    CAMPAIGNS_FAILED = "campaigns_failed"
    KAFKA_IDLE = "kafka_idle"  # more workers than partitions


@dataclass(frozen=True, slots=True)
class Report:
    """One heartbeat: reasons not to be ready (none: ready), notices, and how late the heartbeat was (milliseconds)."""

    reasons: tuple[NotReady, ...] = ()
    notices: tuple[Notice, ...] = ()
    lag_ms: int = 0

    def document(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {"reasons": self.reasons, "notices": self.notices, "lag_ms": self.lag_ms}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Report":
        """A report from JSON; ValueError if it is none."""
        try:
            return cls(
                tuple(NotReady(reason) for reason in document["reasons"]),
                tuple(Notice(notice) for notice in document["notices"]),
                int(document["lag_ms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("not a report") from error


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the whole. `reasons` and `notices` are sorted, each once."""

    reasons: tuple[NotReady, ...]
    notices: tuple[Notice, ...]
    workers_wanted: int
    workers_ready: int

    @property
    def ready(self) -> bool:
        """Whether mail should come here."""
        return not self.reasons

    def document(self) -> dict[str, Any]:
        """As `/readyz` shows it."""
        return {
            "ready": self.ready,
            "reasons": self.reasons,
            "notices": self.notices,
            "workers": {"wanted": self.workers_wanted, "ready": self.workers_ready},
        }


def health(
    reports: Sequence[Report | None], *, also: Iterable[NotReady] = (), notices: Iterable[Notice] = ()
) -> Health:
    """Put the last report of every worker together (None: there is no such worker now).

    One worker that is not ready makes the whole not ready, as its share of the connections suffers.
    """
    reasons = set(also)
    for report in reports:
        reasons.update(report.reasons if report else [NotReady.WORKER_MISSING])
    found = {*notices, *(notice for report in reports if report for notice in report.notices)}
    ready = sum(report is not None and not report.reasons for report in reports)
    return Health(tuple(sorted(reasons)), tuple(sorted(found)), len(reports), ready)

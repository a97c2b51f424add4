"""Judgements, decisions and consent records as JSON documents: the machine-readable side of every command.

Names are a contract (design section 8): fields are added, never renamed. Times are epoch milliseconds UTC, offsets are
characters of the segment's text. Raises nothing.
"""

from typing import Any

from .classify import Classification, JudgedSegment
from .consent import ConsentAnswer, ConsentEvent
from .decision import Decision, RecipientDecision
from .policy import Trouble


def classification_document(name: Any, classification: Classification) -> dict[str, Any]:
    """What a message is; `name` identifies it (a file name, or the id of a JSON message)."""
    return {
        "id": _text(name) if isinstance(name, str) else name,
        "label": classification.label,
        "score": classification.score,
        "claimed": classification.claimed,
        "disguised": classification.disguised,
        "unread": list(classification.unread),
        "segments": [_segment_document(segment) for segment in classification.segments],
        "support": [{"rule": e.rule, "weight": e.weight, "text": e.text} for e in classification.support],
        "ruleset": classification.ruleset,
    }


def _segment_document(segment: JudgedSegment) -> dict[str, Any]:
    return {
        "label": segment.label,
        "kind": segment.kind,
        "text": segment.text,
        "hidden": segment.hidden,
        "score": segment.score,
        "evidence": [
            {
                "rule": e.rule,
                "label": e.label,
                "weight": e.weight,
                "start": e.start,
                "end": e.end,
                "text": e.text,
                "cites": list(e.cites),
            }
            for e in segment.evidence
        ],
    }


def decision_document(name: str, decision: Decision) -> dict[str, Any]:
    """What a message is, the scope in which consent was looked up, and a verdict for each recipient."""
    return {
        **classification_document(name, decision.classification),
        "scope": decision.scope._asdict(),
        "mode": decision.stream.mode,
        "recipients": [_recipient_document(one) for one in decision.recipients],
    }


def _recipient_document(one: RecipientDecision) -> dict[str, Any]:
    verdict = one.verdict
    return {
        "recipient": _text(one.recipient),
        "disposition": verdict.disposition,
        "would": verdict.would,
        "reason": verdict.reason,
        "notes": list(verdict.notes),
        "state": verdict.state,
        "evidence": list(verdict.evidence),
        "consent": {"trouble": one.consent} if isinstance(one.consent, Trouble) else answer_document(one.consent),
    }


def answer_document(answer: ConsentAnswer) -> dict[str, Any]:
    """A consent state, the record it rests on, and what became of every record on file."""
    return {
        "state": answer.state,
        "reasons": list(answer.reasons),
        "blocked": answer.blocked,
        "relied_on": answer.relied_on.id if answer.relied_on else None,
        "considered": [
            {**event_document(item.event), "outcome": item.outcome, "faults": list(item.faults)}
            for item in answer.considered
        ],
    }


def event_document(event: ConsentEvent) -> dict[str, Any]:
    """A consent event; empty fields are left out."""
    capture = event.capture
    fields = {
        "id": event.id,
        "kind": event.kind,
        **capture.scope._asdict(),
        "event_time": event.event_time,
        "received_at": event.received_at,
        "source": capture.source,
        "method": capture.method,
        "reason": capture.reason,
        "wording_id": capture.wording_id,
        "wording_sha256": capture.wording_sha256,
        "evidence_ref": event.evidence_ref,
        "transaction_ref": event.transaction_ref,
        "request_ref": event.request_ref,
        "batch": capture.batch,
        "grade": capture.grade,
    }
    return {key: value for key, value in fields.items() if value not in ("", 0)}


def _text(name: str) -> str:
    """A name from the command line, which need not be UTF-8, as JSON can carry it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

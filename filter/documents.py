"""Judgements, decisions and consent records as JSON documents: the machine-readable side of every command.

Names are a contract (design section 8): fields are added, never renamed. Times are epoch milliseconds UTC, offsets are
characters of the segment's text. Raises nothing.
"""

from dataclasses import fields
from typing import Any

from .campaigns import CampaignDecision
from .classification import Classification, JudgedSegment
from .consent import Capture, ConsentAnswer, ConsentEvent
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
        "segments": [segment_document(segment) for segment in classification.segments],
        "support": [{"rule": e.rule, "weight": e.weight, "text": e.text} for e in classification.support],
        "ruleset": classification.ruleset,
    }


def segment_document(segment: JudgedSegment) -> dict[str, Any]:
    """A segment, its label and what that rests on."""
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
        "campaign": decision.campaign,
        "decided": decided_document(decision.decided),
        "recipients": [_recipient_document(one) for one in decision.recipients],
    }


def decided_document(decision: CampaignDecision | None) -> dict[str, Any] | None:
    """A reviewer's decision on a campaign with everything that is on record; None for none."""
    return {key: value for key, value in decision._asdict().items() if _on_record(value)} if decision else None


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
    """A consent event with everything that is on record; what is empty or unknown is left out."""
    capture = {one.name: getattr(event.capture, one.name) for one in fields(Capture) if one.compare}
    own = {name: value for name, value in event._asdict().items() if name != "capture"}
    document = {"id": own.pop("id"), **capture.pop("scope")._asdict(), **capture, **own}
    return {key: value for key, value in document.items() if _on_record(value)}


def _on_record(value: Any) -> bool:
    """Whether a field says anything: False does, 0 (no time), -1 (no number) and what is empty do not."""
    return value is False or value not in ("", (), None, 0, -1)


def _text(name: str) -> str:
    """A name from the command line, which need not be UTF-8, as JSON can carry it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

"""What the journal says: a closed list of events, the fields of each, and one function to make each kind.

`deploy/journal.md` explains them. No event holds content or an address: a recipient is a subject key (hex, empty for an
address that has none), a sender's claim is the label it amounts to. Times are epoch milliseconds UTC. Pure; raises
nothing of its own, but naming the record behind a verdict reads the consent index, whose errors pass through.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from .campaigns import CampaignDecision, CampaignLine
from .decision import Decision, RecipientDecision
from .envelope import Client
from .policy import Reason, Trouble, Verdict

Line = Mapping[str, object]


class Event(StrEnum):
    """What happened, to a message unless said otherwise."""

    MESSAGE = "message"  # it was judged
    DECISION = "decision"  # one recipient's verdict
    UNSCANNED = "unscanned"  # it could not be judged
    RELAYED = "relayed"
    HELD = "held"
    REJECTED = "rejected"  # copies kept as rejected, while others of the same message went on
    DIVERTED = "diverted"
    DIVERT_FAILED = "divert_failed"  # the copies stay in the hold store
    REFUSED = "refused"  # the client got a 5xx
    DEFERRED = "deferred"  # the client got a 4xx: it keeps the message and tries again
    IN_DOUBT = "in_doubt"  # the next hop may have it; the client got a 4xx or, after a crash, no reply
    NOT_VOIDED = "not_voided"  # copies that should be void could not be made so: tried again, and by a successor
    NOT_CONFIRMED = "not_confirmed"  # it was taken, but its held copies are not for review yet: done later
    DUPLICATE_SUPPRESSED = "duplicate_suppressed"  # it was taken before, and the client did not know
    UNACKNOWLEDGED = "unacknowledged"  # it was taken, and the client was lost before it can have known
    CAMPAIGN_ALERT = "campaign_alert"  # many copies of a new campaign promote and claim to be service
    DIED_JUDGING = "died_judging"  # a worker died while it judged it
    ORDERED = "ordered"  # somebody, or a rule, ordered what becomes of held copies
    RELEASED = "released"  # held copies that the next hop took
    RELEASE_STOPPED = "release_stopped"  # checked again, and held as before
    RELEASE_DEFERRED = "release_deferred"  # could not be delivered, and are tried again
    BOUNCED = "bounced"  # could not be delivered, for good
    DISCARDED = "discarded"  # held copies, by order
    EXPIRED = "expired"  # held copies, after their time
    ERASED = "erased"  # somebody had held copies, in any state, erased
    PRUNED = "pruned"  # records of copies that ended long ago, and of orders that are done
    REPORT_SENT = "report_sent"  # the next hop took a report to the sender on copies that were not delivered
    DEAD_LETTER = "dead_letter"  # a record from Kafka that could not be judged
    CONSENT_EVENT_REFUSED = "consent_event_refused"  # a record of the consent topic cannot be read
    STARTED = "started"  # a worker
    STOPPED = "stopped"  # a worker


class Told(StrEnum):
    """Whether the sender was told that a copy was not delivered."""

    SENT = "sent"  # the next hop took the report
    NOT_WANTED = "not_wanted"  # a null sender, or one who did not ask for it
    REFUSED = "refused"  # the next hop refused it for good
    NOT_SENT = "not_sent"  # it could not be sent until the time was up


class Outcome(StrEnum):
    """How a message ended for its client: label of metrics, and `why` of refused and deferred messages."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"  # taken before
    LOOP = "loop"
    POLICY = "policy"
    STORAGE = "storage"
    NEXT_HOP = "next_hop"  # it answered so
    UNREACHABLE = "unreachable"
    RECIPIENT = "recipient"  # the next hop took a recipient at first, and refused it when asked again
    IN_DOUBT = "in_doubt"
    TIMEOUT = "timeout"
    FAULT = "fault"  # ours
    ABORTED = "aborted"  # the transaction that it was part of; it is read from Kafka again


_ABOUT: Final = ("queue_id", "event", "at")
_COPIES: Final = (*_ABOUT, "recipients", "subjects")
_STREAM: Final = ("controller", "brand", "topic", "mode")
FIELDS: Final[Mapping[Event, tuple[str, ...]]] = {
    Event.MESSAGE: (
        *(*_ABOUT, "client", "tls", "authenticated", "null_sender", "size", "recipients"),
        *("label", "score", "declared", "disguised", "unread", "ruleset", "campaign", *_STREAM, "key_id"),
    ),
    Event.DECISION: (
        *(*_ABOUT, "subject", "label", "state", "disposition", "would", "reason", "notes", "evidence"),
        *("record", "because", "decided", *_STREAM),
    ),
    Event.UNSCANNED: (*_ABOUT, "error"),
    Event.RELAYED: (*_COPIES, "code"),
    Event.HELD: _COPIES,
    Event.REJECTED: _COPIES,
    Event.DIVERTED: _COPIES,
    Event.DIVERT_FAILED: (*_COPIES, "why"),
    Event.REFUSED: (*_ABOUT, "why", "code"),
    Event.DEFERRED: (*_ABOUT, "why", "code"),
    Event.IN_DOUBT: _ABOUT,
    Event.NOT_VOIDED: _ABOUT,
    Event.NOT_CONFIRMED: _ABOUT,
    Event.DUPLICATE_SUPPRESSED: _ABOUT,
    Event.UNACKNOWLEDGED: _ABOUT,
    Event.CAMPAIGN_ALERT: (*_ABOUT, "campaign", "copies", "first_at", "sender", "client", *_STREAM[:2]),
    Event.DIED_JUDGING: _ABOUT,
    Event.ORDERED: (*_ABOUT, "order", "action", "author", "despite"),
    Event.RELEASED: (*_COPIES, "order", "reason", "despite", "code"),
    Event.RELEASE_STOPPED: (*_COPIES, "order", "reason"),
    Event.RELEASE_DEFERRED: (*_COPIES, "order", "why", "code"),
    Event.BOUNCED: (*_COPIES, "order", "why", "code", "told"),
    Event.DISCARDED: (*_COPIES, "order"),
    Event.EXPIRED: (*_COPIES, "order", "told"),
    Event.ERASED: (*_COPIES, "author"),
    Event.PRUNED: (*_ABOUT, "messages", "copies", "orders"),
    Event.REPORT_SENT: (*_COPIES, "order", "code"),
    Event.DEAD_LETTER: (*_ABOUT, "error", "input", "partition", "offset"),
    Event.CONSENT_EVENT_REFUSED: (*_ABOUT, "error", "field", "stopped", "input", "partition", "offset"),
    Event.STARTED: (*_ABOUT, "worker", "version", "ruleset"),
    Event.STOPPED: (*_ABOUT, "worker", "version", "ruleset"),
}

# Verdicts that no consent record had a part in: naming one would say that it was relied on.
_WITHOUT_RECORD: Final = frozenset({Reason.SERVICE, Reason.SURVEY, Reason.NULL_SENDER, Reason.DECIDED_SERVICE})


def plain(event: Event, queue_id: str, at: int) -> Line:
    """An event that has no fields of its own."""
    return {"queue_id": queue_id, "event": event, "at": at}


def message(
    queue_id: str,
    at: int,
    client: Client,
    judged: Decision | None,
    *,
    null_sender: bool,
    size: int,
    recipients: int,
    key_id: str,
) -> Line:
    """A message of `size` octets that was judged, or with `judged` None one that could not be."""
    line: dict[str, object] = {
        "queue_id": queue_id,
        "event": Event.MESSAGE,
        "at": at,
        "client": client.address,
        "tls": client.tls,
        "authenticated": bool(client.user),
        "null_sender": null_sender,
        "size": size,
        "recipients": recipients,
        "label": "",
        "score": 0.0,
        "declared": "",
        "disguised": False,
        "unread": (),
        "ruleset": "",
        "campaign": "",
    }
    if judged is not None:
        classification = judged.classification
        line["label"] = classification.label
        line["score"] = round(classification.score, 3)
        line["declared"] = classification.claimed or ""
        line["disguised"] = classification.disguised
        line["unread"] = classification.unread
        line["ruleset"] = classification.ruleset
        line["campaign"] = judged.campaign
    line.update(_stream(judged))
    line["key_id"] = key_id
    return line


def decision(queue_id: str, at: int, subject: str, decided: RecipientDecision, of: Decision) -> Line:
    """One recipient's verdict, with the consent record it rests on, or why there is none."""
    verdict = decided.verdict
    record, because = _basis(decided)
    return {
        **_verdict(queue_id, at, subject, verdict, of.classification.label),
        "record": record,
        "because": because,
        "decided": _decided(of.decided),
        **_stream(of),
    }


def undecided(queue_id: str, at: int, subject: str, verdict: Verdict) -> Line:
    """One recipient's verdict on a message that could not be judged."""
    line = _verdict(queue_id, at, subject, verdict, "")
    return {**line, "record": "", "because": (), "decided": {}, **_stream(None)}


def unscanned(queue_id: str, at: int, error: str) -> Line:
    """A message that could not be judged; `error` names the kind of fault, never its words."""
    return {"queue_id": queue_id, "event": Event.UNSCANNED, "at": at, "error": error}


def dead_letter(queue_id: str, at: int, error: str, *, topic: str, partition: int, offset: int) -> Line:
    """A record from Kafka that could not be judged, and where it is."""
    line = {**plain(Event.DEAD_LETTER, queue_id, at), "error": error}
    return {**line, "input": topic, "partition": partition, "offset": offset}


def copies(event: Event, queue_id: str, at: int, subjects: Sequence[str]) -> Line:
    """What became of some recipients' copies."""
    return {"queue_id": queue_id, "event": event, "at": at, "recipients": len(subjects), "subjects": subjects}


def relayed(queue_id: str, at: int, subjects: Sequence[str], code: int) -> Line:
    """Copies that the next hop took."""
    return {**copies(Event.RELAYED, queue_id, at, subjects), "code": code}


def divert_failed(queue_id: str, at: int, subjects: Sequence[str], why: Outcome) -> Line:
    """Copies that could not be diverted and stay in the hold store."""
    return {**copies(Event.DIVERT_FAILED, queue_id, at, subjects), "why": why}


def ordered(at: int, order: str, action: str, author: str, *, despite: bool) -> Line:
    """An order about held copies, before anything is moved by it."""
    line = plain(Event.ORDERED, "", at)
    return {**line, "order": order, "action": action, "author": author, "despite": despite}


def by_order(event: Event, queue_id: str, at: int, subjects: Sequence[str], order: str, **fields: object) -> Line:
    """What became of held copies by an order; `fields` are those that `FIELDS` names after it, in that order."""
    return {**copies(event, queue_id, at, subjects), "order": order, **fields}


def turned_away(queue_id: str, at: int, why: Outcome, code: int, *, permanent: bool) -> Line:
    """A message that was not taken, with the code its client got."""
    refused = Event.REFUSED if permanent else Event.DEFERRED
    return {"queue_id": queue_id, "event": refused, "at": at, "why": why, "code": code}


def campaign_alert(at: int, line: CampaignLine) -> Line:
    """A campaign of which the fleet saw so many copies, since it was first seen, that promote under a claim of service.

    Names the latest held message as the sample.
    """
    return {
        "queue_id": line.sample,
        "event": Event.CAMPAIGN_ALERT,
        "at": at,
        "campaign": line.campaign,
        "copies": line.disguised,
        "first_at": line.first_at,
        "sender": line.sender,
        "client": line.client,
        "controller": line.controller,
        "brand": line.brand,
    }


def consent_event_refused(at: int, topic: str, place: tuple[int, int], why: tuple[str, str], stopped: int) -> Line:
    """A record of the consent topic that cannot be read; `place` is partition and offset, `why` a code and a field.

    `stopped` is the number of mailboxes for which it counts as an objection.
    """
    line = plain(Event.CONSENT_EVENT_REFUSED, "", at)
    (partition, offset), (error, field) = place, why
    told = {"error": error, "field": field, "stopped": stopped, "input": topic}
    return {**line, **told, "partition": partition, "offset": offset}


def process(event: Event, at: int, *, worker: str, version: str, ruleset: str) -> Line:
    """A worker started, stopped or was given another configuration."""
    return {"queue_id": "", "event": event, "at": at, "worker": worker, "version": version, "ruleset": ruleset}


def _verdict(queue_id: str, at: int, subject: str, verdict: Verdict, label: str) -> dict[str, object]:
    return {
        "queue_id": queue_id,
        "event": Event.DECISION,
        "at": at,
        "subject": subject,
        "label": label,
        "state": verdict.state,
        "disposition": verdict.disposition,
        "would": verdict.would,
        "reason": verdict.reason,
        "notes": verdict.notes,
        "evidence": verdict.evidence,
    }


def _basis(decided: RecipientDecision) -> tuple[str, Sequence[str]]:
    """The id of the record that the verdict rests on ("" for none), and codes that say why it is that one or none."""
    if decided.verdict.reason in _WITHOUT_RECORD:
        return "", ()
    found = decided.found
    trouble = (decided.consent,) if isinstance(decided.consent, Trouble) else ()
    if found is None:
        return "", trouble
    record = found.block if found.blocked else found.relied_on
    return record.id if record else "", (*trouble, *found.reasons)


def _decided(decision: CampaignDecision | None) -> Mapping[str, object]:
    """Which decision on the campaign was in force, by whom and when; empty for none."""
    if decision is None:
        return {}
    decided = {"decided": decision.decided, "author": decision.author, "at": decision.at}
    return {**decided, "approver": decision.approver} if decision.approver else decided


def _stream(judged: Decision | None) -> dict[str, object]:
    if judged is None:
        return dict.fromkeys(_STREAM, "")
    stream = judged.stream
    return {"controller": stream.controller, "brand": stream.brand, "topic": stream.topic, "mode": stream.mode}


def erased(queue_id: str, at: int, subjects: Sequence[str], count: int, author: str) -> Line:
    """So many copies are erased: of a message, or those of a recipient, who has these subject keys."""
    line: dict[str, object] = {"queue_id": queue_id, "event": Event.ERASED, "at": at}
    return {**line, "recipients": count, "subjects": list(subjects), "author": author}


def pruned(at: int, messages: int, copies: int, orders: int) -> Line:
    """So many messages with so many copies, all ended long ago, and so many orders are known no more."""
    line: dict[str, object] = {"queue_id": "", "event": Event.PRUNED, "at": at}
    return {**line, "messages": messages, "copies": copies, "orders": orders}

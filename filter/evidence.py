"""Consent events: what a person did, on which terms, and whether the record of it counts as evidence.

A `Capture` holds the terms on which something was collected (the form, its wording, the scope); thousands of people who
ticked the same box share one. A `ConsentEvent` is one person's act under it. Both are immutable: evidence is never
edited. `validate` says why an event does not count (law.md C1), as closed codes with rule and sentence.

Times are epoch milliseconds UTC, 0 when unknown; durations are milliseconds, 0 when none. Pure; raises nothing.
"""

import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final, NamedTuple, Self

ANY: Final = "*"
DAY: Final = 86_400_000
CHARITY_START: Final = 1_770_249_600_000  # 2026-02-05T00:00Z: PECR reg 22(3A) in force (law rule R40)
SOLICITED_LIFE: Final = 30 * DAY  # a reply to one request, not a standing permission
CLOCK_SKEW: Final = 600_000  # how far the clock of a source may run ahead of ours

_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch


class EventKind(StrEnum):
    """What happened. The bases (`grant` to `corporate`) permit; the rest restrict; `lift` ends a block."""

    GRANT = "grant"
    SOFT_OPT_IN = "soft_opt_in"
    CHARITY_SOFT_OPT_IN = "charity_soft_opt_in"
    SOLICITED = "solicited"
    CORPORATE = "corporate"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    OBJECT = "object"
    BLOCK = "block"
    LIFT = "lift"


BASES: Final = frozenset(
    {
        EventKind.GRANT,
        EventKind.SOFT_OPT_IN,
        EventKind.CHARITY_SOFT_OPT_IN,
        EventKind.SOLICITED,
        EventKind.CORPORATE,
    }
)
OPT_OUTS: Final = frozenset({EventKind.REFUSE, EventKind.WITHDRAW, EventKind.OBJECT})
_GRANT: Final = EventKind.GRANT
_SOFT: Final = frozenset({EventKind.SOFT_OPT_IN, EventKind.CHARITY_SOFT_OPT_IN})


class Grade(StrEnum):
    """How good the evidence is: only A and B carry a basis (law.md C1; EDF, Porter)."""

    INDIVIDUAL_PROOF = "A"
    SYSTEM_LOG = "B"
    BULK_ASSERTION = "C"
    NONE = "D"


class Invalidity(StrEnum):
    """Why a record does not count. Each has the law rule it fails (`rule`) and a sentence for people (`sentence`)."""

    rule: str
    sentence: str

    def __new__(cls, code: str, rule: str, sentence: str) -> Self:
        """A member is its code; rule and sentence ride along."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.rule = rule
        member.sentence = sentence
        return member

    NO_ID = "no_id", "R34", "The record has no identity, so no decision can point to it."
    NO_CHANNEL = "no_channel", "R26", "It does not say for which channel (mail, text, ...) permission was given."
    NO_CONTROLLER = "no_controller", "R25", "It does not name the organisation and the brand that rely on it."
    NO_TOPIC = "no_topic", "R27", "It does not say which kind of message was agreed to."
    WILDCARD = "wildcard", "R25-R27", "It claims permission for everything; only an opt-out may be that wide."
    NO_TIME = "no_time", "R23", "It does not say when permission was given, so it cannot be shown to precede the send."
    FUTURE_TIME = "future_time", "R23", "It is dated after it arrived, so when permission was given is not on record."
    NO_SOURCE = "no_source", "R34", "It does not say where it was collected (form, shop, call)."
    NO_WORDING = "no_wording", "R28", "The wording the person saw is not on record (version and SHA-256 of its text)."
    NOT_AFFIRMATIVE = (
        "not_affirmative",
        "R29",
        "No clear affirmative act is recorded; silence and pre-ticked boxes fail.",
    )
    BUNDLED = "bundled", "R30", "The same act also agreed to something else, so it was not a choice of its own."
    CONDITIONAL = "conditional", "R24", "It is not recorded that the service could be had without agreeing."
    INDIRECT = (
        "indirect",
        "R33",
        "It came through a third party and the controller was not named when it was collected.",
    )
    SOFT_OPT_IN_INCOMPLETE = (
        "soft_opt_in_incomplete",
        "R37",
        "The soft opt-in needs a sale or enquiry, the same organisation, and a way to refuse when details were taken.",
    )
    CHARITY_INCOMPLETE = (
        "charity_incomplete",
        "R40",
        "The charity soft opt-in is for details a charity took itself on or after 5 February 2026.",
    )
    NOT_SOLICITED = (
        "not_solicited",
        "A10",
        "A solicited reply needs the request it answers, one topic, and an end at most 30 days later.",
    )
    NOT_CORPORATE = "not_corporate", "R21", "No evidence (company number, register) that the subscriber is corporate."
    UNTRACED = "untraced", "R49", "It came in bulk and the batch it came with is not on record."
    WEAK_EVIDENCE = "weak_evidence", "R34", "The evidence is a bulk assertion or nothing, not proof about this person."


class Scope(NamedTuple("_Scope", [("channel", str), ("controller", str), ("brand", str), ("topic", str)])):
    """What a message or an event is about; compared without regard to case and surrounding space.

    A message's scope is always concrete. `*` (ANY) stands for all, and only opt-outs, blocks and lifts may use it.
    """

    __slots__ = ()

    def __new__(cls, channel: str, controller: str, brand: str, topic: str) -> Self:
        """Names are folded on entry, so that "Bank" in an import and "bank" in configuration are one."""
        return super().__new__(cls, _name(channel), _name(controller), _name(brand), _name(topic))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """The terms under which events were collected: everything that many people's records have in common.

    Scope and topics name what was agreed to (topics: further ones shown in the same act; for a soft opt-in, those of
    similar products). In opt-outs, blocks and lifts a blank part of the scope means all. `affirmative`, `conditional`
    and `refusal_offered` are None when the record does not say, which never counts in favour of a basis.
    """

    kind: EventKind
    scope: Scope
    topics: tuple[str, ...] = ()
    source: str = ""  # form, URL, shop, system
    method: str = ""  # web form, telephone script, paper, API
    reason: str = ""  # of an opt-out or block: unsubscribe, complaint, bounce, deceased, legal hold ...
    affirmative: bool | None = None
    wording_id: str = ""  # the wording shown; for a soft opt-in, that of the offered refusal
    wording_sha256: str = ""
    bundled_with: tuple[str, ...] = ()
    conditional: bool | None = None
    told_duration: int = 0  # what the person was told, from the event on
    third_party: str = ""  # who passed the details on
    named_controllers: tuple[str, ...] = ()  # shown by that third party
    collector: str = ""  # the organisation that took the details
    refusal_offered: bool | None = None  # when the details were taken
    charity: bool = False
    pending: bool = False  # double opt-in asked for, not yet confirmed
    grade: Grade = Grade.NONE
    bulk: bool = False  # asserted by a list, not by an act of the person
    batch: str = ""
    permits: bool = field(init=False, repr=False, compare=False)  # a basis, as against an opt-out, block or lift
    faults: tuple[Invalidity, ...] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fold names, read blanks of a restrictive scope as "all", and judge once what all its events share."""
        scope = Scope(*self.scope)
        if self.kind not in BASES:
            scope = Scope(*(part or ANY for part in scope))
        object.__setattr__(self, "permits", self.kind in BASES)
        object.__setattr__(self, "scope", scope)
        object.__setattr__(self, "topics", tuple(_name(topic) for topic in self.topics))
        object.__setattr__(self, "collector", _name(self.collector))
        object.__setattr__(self, "named_controllers", tuple(_name(name) for name in self.named_controllers))
        object.__setattr__(self, "wording_sha256", _name(self.wording_sha256))
        object.__setattr__(self, "faults", tuple(_capture_faults(self)))
        named = (getattr(self, one.name) for one in fields(self) if one.compare)
        object.__setattr__(self, "_hash", hash(tuple(named)))

    def __hash__(self) -> int:
        return self._hash  # computed once: an event is hashed at every merge, its capture never changes


class ConsentEvent(NamedTuple):
    """One person's act (or one fact about an address): who is in the subject key, not here.

    `id` is unique per act; `source_seq` orders events of one source within a millisecond, -1 when there is none.
    """

    capture: Capture
    id: str
    event_time: int
    received_at: int
    source_seq: int = -1
    evidence_ref: str = ""  # call id, IP address, row of the original system
    transaction_ref: str = ""  # sale or enquiry behind a soft opt-in
    request_ref: str = ""  # request that a solicited message answers
    subscriber_evidence: str = ""  # company number and register
    expires_at: int = 0
    valid_until: int = 0  # of a solicited reply

    @property
    def kind(self) -> EventKind:
        """What happened."""
        return self.capture.kind

    @property
    def scope(self) -> Scope:
        """What it is about."""
        return self.capture.scope


def validate(event: ConsentEvent) -> tuple[Invalidity, ...]:
    """Why `event` is no evidence of its basis; empty when it counts. Opt-outs, blocks and lifts always count."""
    capture = event.capture
    if not capture.permits:
        return ()
    faults = capture.faults
    if not event.id:
        faults += (Invalidity.NO_ID,)
    if event.event_time <= 0:
        faults += (Invalidity.NO_TIME,)
    if 0 < event.received_at < event.event_time - CLOCK_SKEW:
        faults += (Invalidity.FUTURE_TIME,)
    if capture.kind is _GRANT:
        return faults
    own = _own_faults(event)
    return tuple(dict.fromkeys(faults + own)) if own else faults


def _own_faults(event: ConsentEvent) -> tuple[Invalidity, ...]:
    """Faults of one event that its capture does not show."""
    kind = event.capture.kind
    if kind is EventKind.SOFT_OPT_IN and not event.transaction_ref:
        return (Invalidity.SOFT_OPT_IN_INCOMPLETE,)
    if kind is EventKind.CHARITY_SOFT_OPT_IN and (not event.transaction_ref or event.event_time < CHARITY_START):
        return (Invalidity.CHARITY_INCOMPLETE,)
    if kind is EventKind.SOLICITED and not _answers_one_request(event):
        return (Invalidity.NOT_SOLICITED,)
    if kind is EventKind.CORPORATE and not event.subscriber_evidence:
        return (Invalidity.NOT_CORPORATE,)
    return ()


def _answers_one_request(event: ConsentEvent) -> bool:
    return (
        bool(event.request_ref)
        and not event.capture.topics
        and event.event_time < event.valid_until <= event.event_time + SOLICITED_LIFE
    )


def _capture_faults(capture: Capture) -> list[Invalidity]:
    """Faults that every event under `capture` has; each code once, in the order of `Invalidity`."""
    kind = capture.kind
    if kind not in BASES:
        return []
    wants_wording = kind is _GRANT or kind in _SOFT
    worded = bool(capture.wording_id) and _SHA256(capture.wording_sha256) is not None
    checks = (
        (Invalidity.NO_CHANNEL, not capture.scope.channel),
        (Invalidity.NO_CONTROLLER, not capture.scope.controller or not capture.scope.brand),
        (Invalidity.NO_TOPIC, not capture.scope.topic),
        (Invalidity.WILDCARD, ANY in capture.scope or ANY in capture.topics),
        (Invalidity.NO_SOURCE, not capture.source),
        (Invalidity.NO_WORDING, wants_wording and not worded),
        (Invalidity.NOT_AFFIRMATIVE, kind is _GRANT and not (capture.affirmative and capture.method)),
        (Invalidity.BUNDLED, kind is _GRANT and bool(capture.bundled_with)),
        (Invalidity.CONDITIONAL, kind is _GRANT and capture.conditional is not False),
        (Invalidity.INDIRECT, bool(capture.third_party) and not _named_to_third_party(capture)),
        (Invalidity.SOFT_OPT_IN_INCOMPLETE, kind is EventKind.SOFT_OPT_IN and not _took_details_itself(capture)),
        (Invalidity.CHARITY_INCOMPLETE, kind is EventKind.CHARITY_SOFT_OPT_IN and not _charity_took_details(capture)),
        (Invalidity.UNTRACED, capture.bulk and not capture.batch),
        (Invalidity.WEAK_EVIDENCE, capture.grade in (Grade.BULK_ASSERTION, Grade.NONE)),
    )
    return [code for code, failed in checks if failed]


def _named_to_third_party(capture: Capture) -> bool:
    """Only consent can come through others, and only when the controller itself was named (R33, R37)."""
    return capture.kind is _GRANT and capture.scope.controller in capture.named_controllers


def _took_details_itself(capture: Capture) -> bool:
    return capture.collector == capture.scope.controller and capture.refusal_offered is True


def _charity_took_details(capture: Capture) -> bool:
    return capture.charity and _took_details_itself(capture)


def _name(text: str) -> str:
    return text.strip().casefold()

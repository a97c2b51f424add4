"""Consent state of one subject for one scope at one instant, merged from every event on record.

The merge is a function of the *set* of events: order of arrival and repetition change nothing. Rules, in words:

- An opt-out in force beats every basis (law rule R42, A10 step 2). Blank or `*` parts of its scope mean all.
- It is lifted only by a later grant that is explicit, valid and individual: not bulk, not imported, not passed on by a
  third party (R46, R47). "Later" is by event time, then by source sequence within one source; on a tie the opt-out
  stands. Consent after an objection is flagged for review (law.md C3).
- No event is dated later than it arrived, so a clock running ahead cannot put a grant after an objection; an event
  counts from when it was made or received, whichever is first, and an opt-out without any time always counts. A basis
  dated more than ten minutes after it arrived is no evidence at all (R23): its date is made up.
- A basis counts when it is valid evidence (law.md C1), concerns exactly this scope, and has not run out: by what the
  person was told, by its own end, or by the operator's maximum age (R31, R32).
- Of several valid bases the strongest is named: consent, corporate, soft opt-in, solicited. (A10 steps 4-7 all let
  marketing through; the order matters only because a solicited reply does not carry a mixed message.)
- Blocks (bounce, deceased, legal hold) are reported beside the state: A10 step 1 puts them before everything.

An address space is as far as a subject key reaches: an objection for all channels made on a telephone number stops
texts, pictures and voicemail to it. Nothing here links a person's number to their mail address; a source that knows
both must send the objection for both.

Pure; raises nothing. Times are epoch milliseconds UTC.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from .answer import NO_RECORD, ConsentAnswer, ConsentState, Considered, Outcome, Review, Ruling, UnknownBecause
from .evidence import (
    ANY,
    BASES,
    OPT_OUTS,
    Capture,
    ConsentEvent,
    EventKind,
    Grade,
    Invalidity,
    Scope,
    validate,
)

__all__ = [
    "ANY",
    "BASES",
    "NO_RECORD",
    "OPT_OUTS",
    "Capture",
    "ConsentAnswer",
    "ConsentEvent",
    "ConsentState",
    "Considered",
    "EventKind",
    "Grade",
    "Invalidity",
    "Outcome",
    "Review",
    "Ruling",
    "Scope",
    "UnknownBecause",
    "resolve",
    "rule",
    "validate",
]

_ALWAYS: Final = 1 << 62  # later than any grant


# Strongest first.
_STATES: Final = {
    EventKind.GRANT: ConsentState.CONSENT,
    EventKind.CORPORATE: ConsentState.CORPORATE,
    EventKind.SOFT_OPT_IN: ConsentState.SOFT_OPT_IN,
    EventKind.CHARITY_SOFT_OPT_IN: ConsentState.SOFT_OPT_IN,
    EventKind.SOLICITED: ConsentState.SOLICITED,
}
_STRENGTH: Final = {kind: rank for rank, kind in enumerate(reversed(_STATES))}


# Member look-up on an enum class is slow enough to show in a look-up; the hot path uses these.
_RELIED_ON, _VALID, _OVERRULED, _LIFTED = Outcome.RELIED_ON, Outcome.VALID, Outcome.OVERRULED, Outcome.LIFTED
_IN_FORCE, _OTHER_SCOPE, _NOT_YET = Outcome.IN_FORCE, Outcome.OTHER_SCOPE, Outcome.NOT_YET
_INVALID, _PENDING, _EXPIRED = Outcome.INVALID, Outcome.PENDING, Outcome.EXPIRED
_GRANT, _CORPORATE, _SOLICITED = EventKind.GRANT, EventKind.CORPORATE, EventKind.SOLICITED
_BLOCK, _LIFT, _CHARITY = EventKind.BLOCK, EventKind.LIFT, EventKind.CHARITY_SOFT_OPT_IN
_OBJECT, _REVIEW = EventKind.OBJECT, Review.OBJECTION_LIFTED
_OBJECTED, _UNKNOWN = ConsentState.OBJECTED, ConsentState.UNKNOWN


_UNKNOWN_BECAUSE: Final = {
    _EXPIRED: UnknownBecause.EXPIRED,
    _PENDING: UnknownBecause.PENDING,
    _INVALID: UnknownBecause.INVALID,
}


def rule(event: ConsentEvent, scope: Scope, max_age: int) -> Ruling | None:
    """The ruling on events like `event` (times aside); None when more than their age decides."""
    capture = event.capture
    if capture.kind in (_SOLICITED, _CHARITY) or event.expires_at:
        return None
    made = max(event.event_time, 1)
    event = event._replace(event_time=made, received_at=made)
    answer = resolve((event,), scope, made, max_age=max_age)
    life = _end(event, max_age) - made if capture.permits else _ALWAYS
    return Ruling(answer.state, answer.reasons, answer.blocked, life)


def resolve(events: Iterable[ConsentEvent], scope: Scope, at: int, *, max_age: int = 0) -> ConsentAnswer:
    """The state of the subject of `events` in the concrete `scope` at the instant `at`.

    `max_age` is the operator's limit on the age of consent and soft opt-in for this topic, in milliseconds (0: none).
    """
    listed = tuple(events)
    if not listed:
        return NO_RECORD
    if len(listed) == 1:
        return _answer((_consider(listed[0], scope, at, max_age),))
    return _answer(_weigh([_consider(event, scope, at, max_age) for event in _in_order(listed)]))


def _in_order(events: Iterable[ConsentEvent]) -> Sequence[ConsentEvent]:
    """Each event once, in an order that depends on the events alone."""
    unique = set(events)
    one_each = len({event.id for event in unique}) == len(unique)
    return sorted(unique, key=_by_time if one_each else repr)


def _by_time(event: ConsentEvent) -> tuple[int, int, str]:
    return event.event_time, event.source_seq, event.id


def _consider(event: ConsentEvent, scope: Scope, at: int, max_age: int) -> Considered:
    """The outcome of one event on its own; `_weigh` then sets events against each other."""
    capture = event.capture
    faults: tuple[Invalidity, ...] = ()
    if capture.scope != scope and not _covers(capture, scope):
        outcome = _OTHER_SCOPE
    elif _moment(event) > at:
        outcome = _NOT_YET
    elif not capture.permits:
        outcome = _IN_FORCE
    elif faults := validate(event):
        outcome = _INVALID
    elif capture.pending:
        outcome = _PENDING
    else:
        outcome = _EXPIRED if at >= _end(event, max_age) else _RELIED_ON
    return Considered(event, outcome, faults)


def _covers(capture: Capture, scope: Scope) -> bool:
    """Opt-outs, blocks and lifts match wide (`*`), bases match exactly (law.md C2)."""
    channel, controller, brand, topic = own = capture.scope
    if capture.permits:
        return own[:3] == scope[:3] and (topic == scope.topic or scope.topic in capture.topics)
    return (
        channel in (ANY, scope.channel)
        and controller in (ANY, scope.controller)
        and brand in (ANY, scope.brand)
        and (topic in (ANY, scope.topic) or scope.topic in capture.topics)
    )


def _moment(event: ConsentEvent) -> int:
    """The instant from which an event counts: made or received, whichever is first; 0 when neither is known."""
    made, received = event.event_time, event.received_at
    return made if 0 < made <= received or received <= 0 else received


def _end(event: ConsentEvent, max_age: int) -> int:
    """The first instant at which a basis no longer counts."""
    capture = event.capture
    end = event.expires_at or _ALWAYS
    if capture.told_duration:
        end = min(end, _moment(event) + capture.told_duration)
    if capture.kind is _SOLICITED:
        return min(end, event.valid_until)
    if max_age and capture.kind is not _CORPORATE:
        end = min(end, _moment(event) + max_age)
    return end


def _weigh(considered: list[Considered]) -> tuple[Considered, ...]:
    """Mark the opt-outs that a grant lifted, the blocks that a lift ended, and the bases that opt-outs overrule."""
    grants = [item.event for item in considered if _may_lift_opt_out(item)]
    lifts = [item.event for item in considered if _may_end_block(item)]
    lifted = [_settled(item, lifts if item.event.kind is _BLOCK else grants) for item in considered]
    if any(_is_opt_out(item) for item in lifted):
        return tuple(_replaced(item, _RELIED_ON, _OVERRULED) for item in lifted)
    best = max((item for item in lifted if item.outcome is _RELIED_ON), key=_strength, default=None)
    return tuple(item if item is best else _replaced(item, _RELIED_ON, _VALID) for item in lifted)


def _replaced(item: Considered, old: Outcome, new: Outcome) -> Considered:
    return item._replace(outcome=new) if item.outcome is old else item


def _settled(item: Considered, by: list[ConsentEvent]) -> Considered:
    if item.outcome is not _IN_FORCE or item.event.kind is _LIFT:
        return item
    return item._replace(outcome=_LIFTED) if any(_after(event, item.event) for event in by) else item


def _may_lift_opt_out(item: Considered) -> bool:
    """Whether a grant is a clear act of the person (R47). One that has since expired still ended the opt-out."""
    capture = item.event.capture
    counted = item.outcome in (_RELIED_ON, _EXPIRED)
    return counted and capture.kind is _GRANT and not _from_list(capture) and not capture.third_party


def _may_end_block(item: Considered) -> bool:
    capture = item.event.capture
    return item.outcome is _IN_FORCE and capture.kind is _LIFT and not _from_list(capture)


def _from_list(capture: Capture) -> bool:
    return capture.bulk or bool(capture.batch)


def _after(later: ConsentEvent, restriction: ConsentEvent) -> bool:
    """Whether an event came after a restriction; when that cannot be told, it did not."""
    when = _moment(later)
    since = restriction.event_time or restriction.received_at or _ALWAYS
    if when != since:
        return when > since
    same_source = later.capture.source == restriction.capture.source
    return same_source and later.source_seq > restriction.source_seq >= 0


def _is_opt_out(item: Considered) -> bool:
    return item.outcome is _IN_FORCE and item.event.kind in OPT_OUTS


def _is_lifted_objection(item: Considered) -> bool:
    return item.outcome is _LIFTED and item.event.capture.kind is _OBJECT


def _strength(item: Considered) -> tuple[int, int, int, str]:
    event = item.event
    return _STRENGTH[event.kind], event.event_time, event.source_seq, event.id


def _answer(considered: tuple[Considered, ...]) -> ConsentAnswer:
    """Read the answer off the outcomes."""
    block = opt_out = basis = None
    for event, outcome, _ in considered:
        if outcome is _RELIED_ON:
            basis = event
        elif outcome is _IN_FORCE:
            kind = event.capture.kind
            if kind in OPT_OUTS:
                opt_out = event
            elif kind is _BLOCK:
                block = event
    if opt_out is not None:
        kinds = dict.fromkeys(item.event.kind for item in considered if _is_opt_out(item))
        return ConsentAnswer(_OBJECTED, opt_out, tuple(kinds), block, considered)
    if basis is not None:
        flags = (_REVIEW,) if any(_is_lifted_objection(item) for item in considered) else ()
        return ConsentAnswer(_STATES[basis.capture.kind], basis, flags, block, considered)
    return ConsentAnswer(_UNKNOWN, None, _why_unknown(considered), block, considered)


def _why_unknown(considered: tuple[Considered, ...]) -> tuple[UnknownBecause | Invalidity, ...]:
    outcomes = {item.outcome for item in considered}
    because = [reason for outcome, reason in _UNKNOWN_BECAUSE.items() if outcome in outcomes]
    faults = {fault for item in considered for fault in item.faults}
    return (*(because or [UnknownBecause.NO_RECORD]), *(code for code in Invalidity if code in faults))

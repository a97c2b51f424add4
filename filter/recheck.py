"""Whether a held copy may go now: consent, policy and a reviewer's word, looked at again right before each attempt.

`recheck` is the whole rule, in this order:

1. reports (null sender) go; a block on the address keeps a copy held;
2. who objected since the copy was held does not get it, whatever anybody decided or ordered; who had objected before
   gets it only as service mail, by a reviewer's decision on its campaign;
3. otherwise the policy decides on what the message is, as it would on a new one, under that decision;
4. what it would hold because something is not known goes only if the order says `despite`: by a reviewer's word. Not
   while consent cannot be looked up at all: nobody would know who objected since.

`Rechecker` brings together what the rule looks at. It judges a message again if another rule set judged it; what could
not be judged then is not tried now, because it may have been what ended a worker. No I/O of its own; the time is an
argument. Faults of the classifier pass through.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from .campaigns import CampaignDecision, Decided
from .consent import NO_RECORD, ConsentAnswer, ConsentState, Scope
from .decision import ConsentView, Decider
from .errors import AddressError, ConsentDataError, InputError
from .facts import Facts, facts_of
from .held_content import read_message
from .labels import Label
from .policy import Disposition, Policy, Reason, Trouble, covers, decide, unscanned
from .ports import HeldCopy, HeldMessage
from .stream import meant

OBJECTED_MEANWHILE: Final = "objected_meanwhile"
"""Beside the policy's reasons: the recipient objected after the copy was held."""
FAULT: Final = "fault"
"""The check itself failed."""

_BASES: Final = frozenset(ConsentState) - {ConsentState.OBJECTED, ConsentState.UNKNOWN}
# A message that was not judged, as a reviewer's decision makes it act.
_DECIDED: Final = {
    Decided.IS_SERVICE: Facts(Label.SERVICE, 0.0, False, (), False, 0.0, 0.0, ()),
    Decided.IS_MARKETING: Facts(Label.MARKETING, 1.0, False, (), False, 0.0, 0.0, ()),
}


class Rechecked(NamedTuple):
    """Whether a copy goes, and why or why not: a `Reason`, or `OBJECTED_MEANWHILE`. With `despite` it goes by the
    order's word alone, and `reason` is why it would be held. `state` is the recipient's consent now, if it was known.
    """

    goes: bool
    reason: str
    despite: bool = False
    state: ConsentState | None = None


def recheck(
    copy: HeldCopy,
    facts: Facts | None,
    consent: ConsentAnswer | Trouble,
    policy: Policy,
    *,
    decision: CampaignDecision | None = None,
    despite: bool = False,
    null_sender: bool = False,
) -> Rechecked:
    """The answer for one copy: `facts` of its message (None: it was not judged), `consent` of its recipient now."""
    if null_sender:
        return Rechecked(True, Reason.NULL_SENDER)
    state = None if isinstance(consent, Trouble) else consent.state
    objects = _objects(copy, consent)
    service = decision is not None and decision.decided is Decided.IS_SERVICE
    if decision and facts and not covers(decision, facts, policy):
        service = False
    stop = _stop(copy, consent, objects=objects, service=service)
    if stop:
        return Rechecked(False, stop, state=state)
    judged = facts or (_DECIDED[decision.decided] if decision else None)
    verdict = decide(judged, consent, policy, decision=decision) if judged else unscanned(policy)
    if verdict.would is Disposition.RELAY:
        return Rechecked(True, verdict.reason, state=state)
    # A rejection is no lack of knowledge, but what the operator wants. Where nothing can be looked up, an objection
    # since the copy was held would be overruled without anybody knowing of it.
    overrules = objects or consent is Trouble.UNAVAILABLE or verdict.would is Disposition.REJECT
    by_order = despite and not overrules
    return Rechecked(by_order, verdict.reason, by_order, state)


def _objects(copy: HeldCopy, consent: ConsentAnswer | Trouble) -> bool:
    """Whether the recipient objects: now, or when it was held and has not agreed since, as far as we can see."""
    state = None if isinstance(consent, Trouble) else consent.state
    return state is ConsentState.OBJECTED or (copy.state == ConsentState.OBJECTED and state not in _BASES)


def _stop(copy: HeldCopy, consent: ConsentAnswer | Trouble, *, objects: bool, service: bool) -> str:
    """What stops a copy before the policy is asked, empty for nothing; `service`: a reviewer decided that it is."""
    if not isinstance(consent, Trouble) and consent.blocked:
        return Reason.BLOCKED
    if objects and copy.state != ConsentState.OBJECTED:
        return OBJECTED_MEANWHILE
    return Reason.OBJECTED if objects and not service else ""


@dataclass(frozen=True, slots=True)
class Rechecker:
    """Checks held copies by whatever `decider` gives at the time, so that a reload is in force at once."""

    decider: Callable[[], Decider]

    def check(self, message: HeldMessage, numbers: Iterable[int], at: int, *, despite: bool = False) -> list[Rechecked]:
        """The answer for each of these copies of a message at an instant (epoch milliseconds).

        A message without its content is taken for what it was when it was held.
        """
        decider = self.decider()
        facts = _facts(message, decider)
        decision = decider.decisions(message.campaign) if message.campaign else None
        if decision and not decision.in_force(at):
            decision = None
        scopes, stale = _scopes(message, decider), _is_stale(decider.consent, at)
        streams = meant(decider.streams, message.controller, message.brand, message.topic)
        policy = decider.policy.within(streams)
        checked = []
        for number in numbers:
            copy = message.copies[number]
            consent = _consent(decider.consent, copy.recipient.path, scopes, at, stale=stale)
            checked.append(
                recheck(
                    *(copy, facts, consent, policy),
                    decision=decision,
                    despite=despite,
                    null_sender=message.null_sender,
                )
            )
        return checked


def _facts(message: HeldMessage, decider: Decider) -> Facts | None:
    """What the message is; None if it was not judged when it was held."""
    if not message.label:
        return None
    if message.ruleset == decider.classifier.rules.version or not message.content:
        try:
            return _read(message.facts)
        except InputError:
            if not message.content:
                raise
    return facts_of(decider.classifier.classify(read_message(message)))


@lru_cache(maxsize=1024)
def _read(facts: str) -> Facts:
    """Messages of one campaign mostly have the same."""
    return Facts.from_json(facts)


def _scopes(message: HeldMessage, decider: Decider) -> list[Scope]:
    """What the recipient's consent is looked up for: every stream there is where the message's own was not found."""
    if message.controller:
        return [Scope(message.channel, message.controller, message.brand, message.topic)]
    streams = decider.streams
    return [Scope(message.channel, stream.controller, stream.brand, stream.topic) for stream in streams]


def _is_stale(view: ConsentView | None, at: int) -> bool:
    try:
        return view is not None and view.stale(at)
    except ConsentDataError:
        return True


def _consent(
    view: ConsentView | None, path: bytes, scopes: list[Scope], at: int, *, stale: bool
) -> ConsentAnswer | Trouble:
    """The answer in the one scope; of several only a no counts, because a yes in another is none."""
    if view is None:
        return Trouble.UNAVAILABLE
    try:
        answers = [view.lookup(path.decode(), scope, at) for scope in scopes]
    except (AddressError, UnicodeDecodeError):
        return Trouble.BAD_ADDRESS
    except ConsentDataError:
        return Trouble.UNAVAILABLE
    for answer in answers:
        if answer.blocked or answer.state is ConsentState.OBJECTED:
            return answer
    if stale:
        return Trouble.STALE
    return answers[0] if len(answers) == 1 else NO_RECORD

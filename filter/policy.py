"""The whole policy as one readable table: label x consent state -> disposition, per recipient, with its reason.

`decide` and `unscanned` are the only places where a disposition is chosen. The default table is design section 2 (law
rules R1-R12, R37, A10); configuration may change cells. What is done when we do not know is a named setting of
`Policy`, and its own reason. A reviewer's decision on a campaign says as what its messages act, whatever their label;
blocks and the null sender go before it. Pure; never raises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from .campaigns import CampaignDecision, Decided
from .classification import Classification
from .consent import ConsentAnswer, ConsentState
from .facts import Facts
from .labels import Disposition, Label
from .message import DefectCode
from .stream import Mode, Stream

__all__ = [
    "DEFAULT_TABLE",
    "Disposition",
    "Policy",
    "Reason",
    "Table",
    "Trouble",
    "Verdict",
    "acting_label",
    "covers",
    "decide",
    "doubts",
    "to_be_seen",
    "unscanned",
]


class Reason(StrEnum):
    """Why: a closed list, used as metric label and journal field."""

    SERVICE = "service"
    SURVEY = "survey"
    CONSENT = "consent"
    SOFT_OPT_IN = "soft_opt_in"
    SOLICITED = "solicited"
    CORPORATE = "corporate"
    OBJECTED = "objected"
    NO_CONSENT = "no_consent"
    BLOCKED = "blocked"
    NULL_SENDER = "null_sender"
    DISGUISED_MARKETING = "disguised_marketing"
    CONSENT_UNAVAILABLE = "consent_unavailable"
    CONSENT_STALE = "consent_stale"
    BAD_ADDRESS = "bad_address"
    UNREAD_CONTENT = "unread_content"
    UNKNOWN_LANGUAGE = "unknown_language"
    UNSURE = "unsure"
    TIME_CRITICAL = "time_critical"
    UNSCANNED = "unscanned"
    DECIDED_SERVICE = "decided_service"
    DECIDED_MARKETING = "decided_marketing"
    DECISION_OUTGROWN = "decision_outgrown"
    REJECTED = "rejected"  # why a copy is kept; the verdict's reason is beside it


class Trouble(StrEnum):
    """Why there is no consent answer for a recipient."""

    UNAVAILABLE = "unavailable"
    STALE = "stale"
    BAD_ADDRESS = "bad_address"


Table = Mapping[Label, Mapping[ConsentState, Disposition]]

_C, _S, _Q = ConsentState.CONSENT, ConsentState.SOFT_OPT_IN, ConsentState.SOLICITED
_X, _O, _U = ConsentState.CORPORATE, ConsentState.OBJECTED, ConsentState.UNKNOWN
_RELAY, _HOLD = Disposition.RELAY, Disposition.HOLD

# S is found only for the collector's own similar products (law rule R37), so "if own and similar" is in the state.
DEFAULT_TABLE: Final[Table] = {
    Label.SERVICE: {_C: _RELAY, _S: _RELAY, _Q: _RELAY, _X: _RELAY, _O: _RELAY, _U: _RELAY},
    Label.SURVEY: {_C: _RELAY, _S: _RELAY, _Q: _RELAY, _X: _RELAY, _O: _RELAY, _U: _RELAY},
    Label.MARKETING: {_C: _RELAY, _S: _RELAY, _Q: _RELAY, _X: _RELAY, _O: _HOLD, _U: _HOLD},
    Label.MIXED: {_C: _RELAY, _S: _RELAY, _Q: _HOLD, _X: _RELAY, _O: _HOLD, _U: _HOLD},
    Label.RE_PERMISSION: {_C: _RELAY, _S: _RELAY, _Q: _RELAY, _X: _RELAY, _O: _HOLD, _U: _HOLD},
}

_STATE_REASON: Final = {
    _C: Reason.CONSENT,
    _S: Reason.SOFT_OPT_IN,
    _Q: Reason.SOLICITED,
    _X: Reason.CORPORATE,
    _O: Reason.OBJECTED,
    _U: Reason.NO_CONSENT,
}
_TROUBLE_REASON: Final = {
    Trouble.UNAVAILABLE: Reason.CONSENT_UNAVAILABLE,
    Trouble.STALE: Reason.CONSENT_STALE,
    Trouble.BAD_ADDRESS: Reason.BAD_ADDRESS,
}
_OF_PROMOTION: Final = frozenset({*_STATE_REASON.values(), *_TROUBLE_REASON.values()})
# A line of text beside pictures says little about what they show, nor a known phrase about a foreign text: more than
# one service phrase is asked for.
_LITTLE_READ: Final = frozenset({DefectCode.IMAGE_ONLY, DefectCode.LANGUAGE_UNKNOWN})
_UNREAD: Final = "unread:"
_FOREIGN: Final = _UNREAD + DefectCode.LANGUAGE_UNKNOWN
_NO_BASIS: Final = frozenset({_O, _U})
_STRICTNESS: Final = (_RELAY, Disposition.DIVERT, Disposition.TEMPFAIL, _HOLD, Disposition.REJECT)
_DECIDED: Final = {Decided.IS_SERVICE: Reason.DECIDED_SERVICE, Decided.IS_MARKETING: Reason.DECIDED_MARKETING}


@dataclass(frozen=True, slots=True)
class Policy:
    """The table, and what is done when we do not know.

    - `on_consent_unavailable`, `on_consent_stale`, `on_bad_address`: promotional mail without a consent look-up.
    - `on_unread_content`: content that could not be read, with no service evidence in what could, to O or U; of a
      message of pictures, twice the usual evidence. Text that was cut off counts whatever the rest serves.
    - `on_unknown_language`: in no language that rules are written in, with less than twice the usual service evidence,
      to O or U.
    - `on_unsure`: labelled service, but with a score of at least `unsure_from` and no service evidence, or with words
      disguised from readers or machines, to O or U.
    - `on_time_critical`: a passcode, password reset, fraud or safety alert with little promotion beside it (`urgency`),
      where its recipient's copy would be held for that promotion.
    - `on_blocked`: a technical or legal block on the address that covers all mail (law A10, step 1).
    - `on_scan_error`: a fault of ours kept the message from being judged at all.
    """

    table: Table = field(default_factory=lambda: DEFAULT_TABLE)
    on_consent_unavailable: Disposition = Disposition.HOLD
    on_consent_stale: Disposition = Disposition.HOLD
    on_bad_address: Disposition = Disposition.HOLD
    on_unread_content: Disposition = Disposition.HOLD
    on_unknown_language: Disposition = Disposition.HOLD
    on_unsure: Disposition = Disposition.HOLD
    on_time_critical: Disposition = Disposition.HOLD
    on_blocked: Disposition = Disposition.HOLD
    on_scan_error: Disposition = Disposition.HOLD
    unsure_from: float = 0.35

    def within(self, streams: Sequence[Stream]) -> "Policy":
        """The policy with the uncertain band of a stream; of several, any of which may be meant, the strictest."""
        if all(stream.unsure_from is None and stream.on_unsure is None for stream in streams):
            return self
        lowest = min(self.unsure_from if stream.unsure_from is None else stream.unsure_from for stream in streams)
        strictest = max((stream.on_unsure or self.on_unsure for stream in streams), key=_STRICTNESS.index)
        return replace(self, unsure_from=lowest, on_unsure=strictest)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one recipient's copy, and why.

    `disposition` is what is done; `would` what enforcement would do (they differ in monitor mode only). `reason` is the
    first reason, `notes` further ones; `evidence` the ids of the rules that decided the label. A reviewer's decision
    is the reason where the disposition would be another without it, and a note elsewhere.
    """

    disposition: Disposition
    would: Disposition
    reason: Reason
    state: ConsentState
    notes: tuple[Reason, ...] = ()
    evidence: tuple[str, ...] = ()


def decide(
    judged: Classification | Facts,
    consent: ConsentAnswer | Trouble,
    policy: Policy,
    *,
    mode: Mode = Mode.ENFORCE,
    null_sender: bool = False,
    decision: CampaignDecision | None = None,
) -> Verdict:
    """The verdict on one recipient's copy of a classified message; a `decision` on its campaign is one in force.

    A decision that does not cover what was found now counts for nothing, and is noted.
    """
    state = _U if isinstance(consent, Trouble) else consent.state
    outgrown = decision is not None and not covers(decision, judged, policy)
    decision = None if outgrown else decision
    would, reason, notes = _enforced(judged, consent, policy, null_sender=null_sender, decided=decision)
    notes = (*notes, Reason.DECISION_OUTGROWN) if outgrown else notes
    if judged.disguised and not (decision and decision.decided is Decided.IS_SERVICE):
        # The mismatch is the graver finding: it leads wherever the copy is not relayed.
        reason, notes = (
            (Reason.DISGUISED_MARKETING, (reason, *notes))
            if would is not _RELAY
            else (reason, (Reason.DISGUISED_MARKETING, *notes))
        )
    if decision:
        undecided, *_ = _enforced(judged, consent, policy, null_sender=null_sender)
        word = _DECIDED[decision.decided]
        reason, notes = (reason, (*notes, word)) if would is undecided else (word, (reason, *notes))
    done = would if mode is Mode.ENFORCE else _RELAY
    return Verdict(done, would, reason, state, notes, judged.decisive_rules)


def covers(decision: CampaignDecision, judged: Classification | Facts, policy: Policy) -> bool:
    """Whether a decision on a campaign was made in sight of what is found in this message of it."""
    return decision.covers(to_be_seen(judged, policy))


def to_be_seen(judged: Classification | Facts, policy: Policy) -> tuple[str, ...]:
    """What a reviewer must know of a message to call it service: the rules that find promotion, and every doubt."""
    rules = judged.decisive_rules if judged.label.promotional else ()
    return (*rules, *doubts(judged, policy))


def doubts(judged: Classification | Facts, policy: Policy) -> tuple[str, ...]:
    """Why mail is held from those without a basis though no promotion is found in it, or no more is: words for
    content that nobody read ("unread:" and its defect), for words that were disguised, and for a high score.

    None of them shows in a campaign's name.
    """
    service, threshold = judged.service_shown, judged.threshold
    needed = 2 * threshold if _LITTLE_READ & set(judged.unread) else threshold
    missed = set(judged.unread) - {DefectCode.ATTACHMENT}
    # Text that was cut off may say anything, whatever the beginning serves.
    unread = sorted(missed if service < needed else missed & {DefectCode.TEXT_TOO_LARGE})
    found = [_UNREAD + defect for defect in unread]
    if judged.obfuscated:
        found.append("obfuscated")
    if not judged.label.promotional and judged.score >= policy.unsure_from and service < threshold:
        found.append("unsure")
    return tuple(found)


def unscanned(policy: Policy, *, mode: Mode = Mode.ENFORCE, null_sender: bool = False) -> Verdict:
    """The verdict on every copy of a message that could not be judged; reports and monitored streams flow as ever."""
    would = _RELAY if null_sender else policy.on_scan_error
    return Verdict(would if mode is Mode.ENFORCE else _RELAY, would, Reason.UNSCANNED, _U)


def acting_label(label: Label, decision: CampaignDecision | None) -> Label:
    """As what a message acts: its label, or what a decision in force on its campaign says.

    Promotion of one kind or another stays of its kind when a reviewer says that it is marketing.
    """
    if decision is None or (label.promotional and decision.decided is Decided.IS_MARKETING):
        return label
    return Label.SERVICE if decision.decided is Decided.IS_SERVICE else Label.MARKETING


def _enforced(
    judged: Classification | Facts,
    consent: ConsentAnswer | Trouble,
    policy: Policy,
    *,
    null_sender: bool,
    decided: CampaignDecision | None = None,
) -> tuple[Disposition, Reason, tuple[Reason, ...]]:
    """What law A10 and the policy make of a copy, and what the policy wants of time-critical mail that is held for its
    promotion. Where a reviewer decided, it is what the reviewer says.
    """
    would, reason = _ordered(judged, consent, policy, null_sender=null_sender, decided=decided)
    if decided or reason not in _OF_PROMOTION or not judged.label.promotional or not judged.time_critical:
        return would, reason, ()
    if would is not _HOLD or policy.on_time_critical is _HOLD:
        return would, reason, (Reason.TIME_CRITICAL,)
    return policy.on_time_critical, Reason.TIME_CRITICAL, (reason,)


def _ordered(
    judged: Classification | Facts,
    consent: ConsentAnswer | Trouble,
    policy: Policy,
    *,
    null_sender: bool,
    decided: CampaignDecision | None = None,
) -> tuple[Disposition, Reason]:
    """The order of law A10: blocks, then service, then what the consent state allows."""
    label = acting_label(judged.label, decided) if decided else judged.label
    if null_sender:
        # Bounces and other reports: never marketing-held (RFC 5321 section 4.5.5).
        return _RELAY, Reason.NULL_SENDER
    if isinstance(consent, Trouble):
        if not label.promotional:
            return _service(judged, _U, policy, decided)
        return getattr(policy, f"on_{_TROUBLE_REASON[consent]}"), _TROUBLE_REASON[consent]
    if consent.blocked:
        return policy.on_blocked, Reason.BLOCKED
    if not label.promotional:
        return _service(judged, consent.state, policy, decided)
    return policy.table[label][consent.state], _STATE_REASON[consent.state]


def _service(
    judged: Classification | Facts, state: ConsentState, policy: Policy, decided: CampaignDecision | None
) -> tuple[Disposition, Reason]:
    """Mail without promotion flows, unless we may have missed some and the recipient has not agreed to any.

    Where a reviewer decided, somebody has looked: there is no doubt left.
    """
    if decided:
        return policy.table[Label.SERVICE][state], Reason.SERVICE
    if state in _NO_BASIS and (doubted := doubts(judged, policy)):
        if doubted[0].startswith(_UNREAD):
            return _unread(doubted, policy)
        return policy.on_unsure, Reason.UNSURE
    label = judged.label
    return policy.table[label][state], Reason.SURVEY if label is Label.SURVEY else Reason.SERVICE


def _unread(doubted: Sequence[str], policy: Policy) -> tuple[Disposition, Reason]:
    """What is done with content that nobody read; where more than its language was the trouble, the stricter."""
    found = []
    if any(doubt.startswith(_UNREAD) and doubt != _FOREIGN for doubt in doubted):
        found.append((policy.on_unread_content, Reason.UNREAD_CONTENT))
    if _FOREIGN in doubted:
        found.append((policy.on_unknown_language, Reason.UNKNOWN_LANGUAGE))
    return max(found, key=lambda one: _STRICTNESS.index(one[0]))

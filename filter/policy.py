"""The whole policy as one readable table: label x consent state -> disposition, per recipient, with its reason.

`decide` and `unscanned` are the only places where a disposition is chosen. The default table is design section 2 (law
rules R1-R12, R37, A10); configuration may change cells. What is done when we do not know is a named setting of
`Policy`, and its own reason. Pure; never raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from .classify import Classification
from .consent import ConsentAnswer, ConsentState
from .labels import Label
from .message import DefectCode
from .stream import Mode


class Disposition(StrEnum):
    """What happens to one recipient's copy."""

    RELAY = "relay"
    HOLD = "hold"
    DIVERT = "divert"
    REJECT = "reject"
    TEMPFAIL = "tempfail"


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
    UNSURE = "unsure"
    UNSCANNED = "unscanned"


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
# A line of text beside pictures says little about what they show: more than one service phrase is asked for.
_PICTURES: Final = frozenset({DefectCode.IMAGE_ONLY})
_NO_BASIS: Final = frozenset({_O, _U})


@dataclass(frozen=True, slots=True)
class Policy:
    """The table, and what is done when we do not know.

    - `on_consent_unavailable`, `on_consent_stale`, `on_bad_address`: promotional mail without a consent look-up.
    - `on_unread_content`: content that could not be read, with no service evidence in what could, to O or U; of a
      message of pictures, twice the usual evidence.
    - `on_unsure`: labelled service, but with a score of at least `unsure_from` and no service evidence, or with words
      disguised from readers or machines, to O or U.
    - `on_blocked`: a technical or legal block on the address that covers all mail (law A10, step 1).
    - `on_scan_error`: a fault of ours kept the message from being judged at all.
    """

    table: Table = field(default_factory=lambda: DEFAULT_TABLE)
    on_consent_unavailable: Disposition = Disposition.HOLD
    on_consent_stale: Disposition = Disposition.HOLD
    on_bad_address: Disposition = Disposition.HOLD
    on_unread_content: Disposition = Disposition.HOLD
    on_unsure: Disposition = Disposition.HOLD
    on_blocked: Disposition = Disposition.HOLD
    on_scan_error: Disposition = Disposition.HOLD
    unsure_from: float = 0.35


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one recipient's copy, and why.

    `disposition` is what is done; `would` what enforcement would do (they differ in monitor mode only). `reason` is the
    first reason, `notes` further ones; `evidence` the ids of the rules that decided the label.
    """

    disposition: Disposition
    would: Disposition
    reason: Reason
    state: ConsentState
    notes: tuple[Reason, ...] = ()
    evidence: tuple[str, ...] = ()


def decide(
    classification: Classification,
    consent: ConsentAnswer | Trouble,
    policy: Policy,
    *,
    mode: Mode = Mode.ENFORCE,
    null_sender: bool = False,
) -> Verdict:
    """The verdict on one recipient's copy of a classified message."""
    state = _U if isinstance(consent, Trouble) else consent.state
    would, reason = _enforced(classification, consent, policy, null_sender=null_sender)
    notes: tuple[Reason, ...] = ()
    if classification.disguised:
        # The mismatch is the graver finding: it leads wherever the copy is not relayed.
        reason, notes = (
            (Reason.DISGUISED_MARKETING, (reason,)) if would is not _RELAY else (reason, (Reason.DISGUISED_MARKETING,))
        )
    done = would if mode is Mode.ENFORCE else _RELAY
    return Verdict(done, would, reason, state, notes, classification.decisive_rules)


def unscanned(policy: Policy, *, mode: Mode = Mode.ENFORCE, null_sender: bool = False) -> Verdict:
    """The verdict on every copy of a message that could not be judged; reports and monitored streams flow as ever."""
    would = _RELAY if null_sender else policy.on_scan_error
    return Verdict(would if mode is Mode.ENFORCE else _RELAY, would, Reason.UNSCANNED, _U)


def _enforced(
    classification: Classification, consent: ConsentAnswer | Trouble, policy: Policy, *, null_sender: bool
) -> tuple[Disposition, Reason]:
    """The order of law A10: blocks, then service, then what the consent state allows."""
    label = classification.label
    if null_sender:
        # Bounces and other reports: never marketing-held (RFC 5321 section 4.5.5).
        return _RELAY, Reason.NULL_SENDER
    if isinstance(consent, Trouble):
        if not label.promotional:
            return _service(classification, _U, policy)
        return getattr(policy, f"on_{_TROUBLE_REASON[consent]}"), _TROUBLE_REASON[consent]
    if consent.blocked:
        return policy.on_blocked, Reason.BLOCKED
    if not label.promotional:
        return _service(classification, consent.state, policy)
    return policy.table[label][consent.state], _STATE_REASON[consent.state]


def _service(classification: Classification, state: ConsentState, policy: Policy) -> tuple[Disposition, Reason]:
    """Mail without promotion flows, unless we may have missed some and the recipient has not agreed to any."""
    if state in _NO_BASIS:
        service, threshold = _service_shown(classification), classification.rules.weights.threshold
        needed = 2 * threshold if _PICTURES & set(classification.unread) else threshold
        if set(classification.unread) - {DefectCode.ATTACHMENT} and service < needed:
            return policy.on_unread_content, Reason.UNREAD_CONTENT
        doubtful = classification.score >= policy.unsure_from and service < threshold
        if doubtful or any(defect.code is DefectCode.OBFUSCATED for defect in classification.message.defects):
            return policy.on_unsure, Reason.UNSURE
    label = classification.label
    return policy.table[label][state], Reason.SURVEY if label is Label.SURVEY else Reason.SERVICE


def _service_shown(classification: Classification) -> float:
    """Evidence, in what a recipient sees, that there is a genuine service purpose; hidden words show none."""
    segments = classification.message.segments
    return sum(max(j.service, j.survey) for i, j in classification.judgements.items() if not segments[i].hidden)

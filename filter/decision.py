"""One message, all its recipients: classify once, look up and decide each; the same for every door.

Declares what it needs of a consent index (`ConsentView`) and of decisions on campaigns. An address or an index that
cannot be looked up is a `Trouble` with its own setting and reason, never a silent yes. No I/O of its own; the time is
an argument.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .campaigns import CampaignDecision
from .classification import Classification
from .classify import Classifier
from .consent import ConsentAnswer, ConsentState, Scope
from .errors import AddressError, ConsentDataError
from .facts import facts_of
from .labels import Channel
from .message import Message
from .policy import Policy, Trouble, Verdict, decide
from .stream import NOTHING_SAID, Said, Stream, select

Fingerprint = Callable[[Message], str]  # the campaign of a message; empty if there is nothing to go by
Decisions = Callable[[str], CampaignDecision | None]  # the last decision on a campaign, in force or not


def no_campaign(_message: Message) -> str:
    """A fingerprint that tells nothing."""
    return ""


def no_decision(_campaign: str) -> None:
    """Nobody decided on any campaign."""


class ConsentView(Protocol):
    """A consent index as a decision sees it. Raises AddressError or ConsentDataError."""

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """The state of an address in a scope at an instant (epoch milliseconds)."""

    def stale(self, at: int) -> bool:
        """Whether the data is older than the configured bound."""


@dataclass(frozen=True, slots=True)
class RecipientDecision:
    """One recipient: the consent answer (or why there is none) and the verdict.

    `found` is the answer that was looked up, though the data may be too old to rely on it; None if there was none.
    """

    recipient: str
    consent: ConsentAnswer | Trouble
    verdict: Verdict
    found: ConsentAnswer | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything decided about one message. `decided` is the reviewer's word on its campaign, if one is in force."""

    message: Message
    classification: Classification
    stream: Stream
    scope: Scope
    recipients: tuple[RecipientDecision, ...]
    campaign: str = ""
    decided: CampaignDecision | None = None


@dataclass(frozen=True, slots=True)
class Decider:
    """Rules, consent, streams and policy, put together; a reload builds another and swaps it in.

    `decisions` is asked for each message anew.
    """

    classifier: Classifier
    consent: ConsentView | None
    streams: tuple[Stream, ...]
    policy: Policy
    fingerprint: Fingerprint = no_campaign
    decisions: Decisions = no_decision

    def decide(
        self, message: Message, mail_from: str | None, rcpt_tos: Sequence[str], at: int, said: Said = NOTHING_SAID
    ) -> Decision:
        """Judge a message for each recipient at an instant (epoch milliseconds).

        `mail_from` is the envelope sender: empty is the null sender of reports (RFC 5321 section 4.5.5), None says that
        it is not known. Channels other than mail have no null sender. `said` is for whom the message speaks, where
        the door was told; what was not said is as the stream has it.
        """
        classification = self.classifier.classify(message)
        campaign, decided = self._campaign(message, at)
        stream = said.over(select(self.streams, _domain(message.from_address), _domain(mail_from or "")))
        scope = Scope(message.channel, stream.controller, stream.brand, stream.topic)
        report = message.channel is Channel.EMAIL and mail_from == ""
        # What the policy looks at is worked out once, not for each recipient.
        facts, stale, policy = facts_of(classification), self._is_stale(at), self.policy.within((stream,))
        recipients = []
        for recipient in rcpt_tos:
            found = self._lookup(recipient, scope, at)
            consent = _relied_on(found, stale=stale)
            verdict = decide(*(facts, consent, policy), mode=stream.mode, null_sender=report, decision=decided)
            recipients.append(
                RecipientDecision(recipient, consent, verdict, None if isinstance(found, Trouble) else found)
            )
        return Decision(message, classification, stream, scope, tuple(recipients), campaign, decided)

    def _campaign(self, message: Message, at: int) -> tuple[str, CampaignDecision | None]:
        """The campaign of a message, and what is decided on it now."""
        campaign = self.fingerprint(message)
        decided = self.decisions(campaign) if campaign else None
        return campaign, decided if decided and decided.in_force(at) else None

    def _is_stale(self, at: int) -> bool:
        try:
            return self.consent is not None and self.consent.stale(at)
        except ConsentDataError:
            return True

    def _lookup(self, recipient: str, scope: Scope, at: int) -> ConsentAnswer | Trouble:
        if self.consent is None:
            return Trouble.UNAVAILABLE
        try:
            return self.consent.lookup(recipient, scope, at)
        except AddressError:
            return Trouble.BAD_ADDRESS
        except ConsentDataError:
            return Trouble.UNAVAILABLE


def _relied_on(found: ConsentAnswer | Trouble, *, stale: bool) -> ConsentAnswer | Trouble:
    """Age makes a yes doubtful; a no and a block stay what they are (law rule R46)."""
    if not stale or isinstance(found, Trouble) or found.blocked or found.state is ConsentState.OBJECTED:
        return found
    return Trouble.STALE


def _domain(address: str) -> str:
    return address.rpartition("@")[2].rstrip(".").lower()

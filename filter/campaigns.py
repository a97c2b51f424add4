"""The campaign ledger: what is known of each campaign, and what reviewers decided about it.

`CampaignLedger` is fulfilled by the store on this machine and by that of a fleet; tests run the same on both. Times are
epoch milliseconds, campaigns hex (`campaign.fingerprint`). Pure; raises InputError for what cannot be decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from .errors import InputError

RARE: Final = 10
"""Messages; personal mail makes campaigns of fewer."""
ANY_EVIDENCE: Final = "*"
"""Whatever evidence there is."""


class Decided(StrEnum):
    """What a reviewer says a campaign is, whatever the classifier says."""

    IS_SERVICE = "is_service"
    IS_MARKETING = "is_marketing"


class CampaignDecision(NamedTuple):
    """A reviewer's word on a campaign. One that needs a second approver (`needs_second`) waits until there is one, who
    is not the author; until then an earlier one stands.

    `evidence` names the rules that had found promotion in the campaign when it was decided, and the doubts there were
    about its messages (`policy.doubts`). That it is service covers no more than those: a fingerprint leaves out much of
    a text, and what nobody saw nobody decided.
    """

    campaign: str
    decided: Decided
    why: str
    author: str
    at: int
    expires_at: int = 0  # 0: never
    needs_second: bool = False
    approver: str = ""
    approved_at: int = 0
    withdrawn_at: int = 0
    withdrawn_by: str = ""
    evidence: str = ANY_EVIDENCE  # ids of rules and words for doubts, a space between two

    @property
    def waits(self) -> bool:
        """Whether a second approver is missing."""
        return self.needs_second and not self.approver

    def covers(self, found: Iterable[str]) -> bool:
        """Whether it was made in sight of these: rules that find promotion in a message of the campaign, and doubts."""
        if self.decided is Decided.IS_MARKETING or self.evidence == ANY_EVIDENCE:
            return True
        return set(found).issubset(self.evidence.split())

    def in_force(self, at: int) -> bool:
        """Whether it counts at that time."""
        if self.withdrawn_at or self.waits:
            return False
        return not self.expires_at or at < self.expires_at


def last_words(history: Iterable[CampaignDecision]) -> tuple[CampaignDecision | None, CampaignDecision | None]:
    """Of every decision on one campaign, oldest first: the last that does not wait, and the one that would replace it.

    The first may be withdrawn or expired, the second is not withdrawn.
    """
    last: CampaignDecision | None = None
    waiting: CampaignDecision | None = None
    for decision in history:
        if not decision.waits:
            last, waiting = decision, None
        else:
            waiting = None if decision.withdrawn_at else decision
    return last, waiting


def to_approve(history: Iterable[CampaignDecision], campaign: str, approver: str) -> CampaignDecision:
    """Of every decision on a campaign, oldest first: the one that waits (the last), which `approver` may second.

    Raises InputError if none does, or its author is the approver.
    """
    _, waiting = last_words(history)
    if waiting is None:
        raise InputError(f"campaign {campaign}: no decision waits for a second approver")
    if not approver.strip() or approver.strip().casefold() == waiting.author.strip().casefold():
        raise InputError(f"approver {approver!r}: somebody other than the author of the decision approves it")
    return waiting


def to_withdraw(history: Iterable[CampaignDecision], campaign: str) -> CampaignDecision:
    """Of every decision on a campaign, oldest first: the one that waits, or else the one that stands.

    Raises InputError if there is none.
    """
    last, waiting = last_words(history)
    taken = waiting or last
    if taken is None or taken.withdrawn_at:
        raise InputError(f"campaign {campaign}: there is no decision to withdraw")
    return taken


def as_of(history: Iterable[CampaignDecision], at: int) -> CampaignDecision | None:
    """Of every decision on one campaign, oldest first: the one that was in force at that time, as it was then."""
    known = [_as_it_was(decision, at) for decision in history if decision.at <= at]
    last, _ = last_words(known)
    return last if last and last.in_force(at) else None


def _as_it_was(decision: CampaignDecision, at: int) -> CampaignDecision:
    if decision.approved_at > at:
        decision = decision._replace(approver="", approved_at=0)
    return decision._replace(withdrawn_at=0, withdrawn_by="") if decision.withdrawn_at > at else decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one worker saw of a campaign since it last told: to be added to the ledger.

    `recipients` counts copies by disposition, `labels` and `declared` (the label that a claim amounts to) count
    messages. `sample` is the queue id of the latest held message. The rest describes one message, and is kept if the
    ledger has none yet: `subject` without what is personal.
    """

    campaign: str
    first_at: int
    last_at: int
    messages: int
    labels: Mapping[str, int] = field(default_factory=dict)
    recipients: Mapping[str, int] = field(default_factory=dict)
    declared: Mapping[str, int] = field(default_factory=dict)
    disguised: int = 0  # copies of messages that claim to be service and promote
    subject: str = ""
    sample: str = ""
    sender: str = ""  # domain of From
    client: str = ""  # address of the client that handed it in
    user: str = ""  # whom it logged in as
    controller: str = ""
    brand: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignLine(Seen):
    """A campaign in the ledger, all told. `decision` stands, unless it has run out; `waiting` would take its place."""

    decision: CampaignDecision | None = None
    waiting: CampaignDecision | None = None
    alerted_at: int = 0


class CampaignLedger(Protocol):
    """The store of campaigns. Methods may block, and be called by several threads. Raises HoldUnavailableError."""

    def add(self, seen: Sequence[Seen]) -> None:
        """Add what was seen, in one durable transaction."""

    def alert(self, campaign: str, at: int) -> bool:
        """Note that an alert about this campaign is due; True for the first caller only, of all workers."""

    def campaigns(self, limit: int = 1000) -> Sequence[CampaignLine]:
        """The campaigns seen last, newest first."""

    def campaign(self, campaign: str) -> CampaignLine | None:
        """One campaign; None if it was never seen. An unambiguous beginning of its name will do.

        Raises InputError if several begin so.
        """

    def decide(self, decision: CampaignDecision) -> None:
        """Keep a decision. It takes the place of an earlier one, at once or when it is approved.

        A campaign that was never seen can be decided too.
        """

    def approve(self, campaign: str, approver: str, at: int) -> CampaignDecision:
        """Second the decision that waits. Raises InputError if none does, or its author is the approver."""

    def withdraw(self, campaign: str, author: str, at: int) -> CampaignDecision:
        """Take the decision back: the one that waits if there is one, else the one that stands.

        What came before it does not count again. Raises InputError if there is none.
        """

    def decisions(self) -> Sequence[CampaignDecision]:
        """On each campaign the last decision that does not wait, withdrawn and expired ones too; after it the one that
        waits, if any. The last one in force of a campaign counts.
        """

    def version(self) -> int:
        """Another number after each change of decisions, by whichever process; a look costs microseconds to a few
        milliseconds.
        """

    def history(self, campaign: str) -> Sequence[CampaignDecision]:
        """Every decision ever made on a campaign, the newest first."""

    def erase(self, campaigns: Sequence[str], fewer_than: int) -> None:
        """Forget subject and sample of those of these campaigns that have fewer messages: they may be one person's.

        What is counted and decided stays.
        """

    def prune(self, before: int, fewer_than: int = 0) -> int:
        """Forget campaigns last seen before then on which nobody ever decided; how many, a few thousand at most.

        With `fewer_than`, only those of fewer messages of which none was held.
        """

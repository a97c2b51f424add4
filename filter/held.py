"""Held mail as those see it who review, release and expire it: what may be asked, what is answered, what is kept.

`HeldMail` is fulfilled by the hold store on this machine and by that of a fleet; tests run the same on both. Values
here are what both give. Times are epoch milliseconds, campaigns and subject keys hex. Pure: declarations only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from .ports import HeldMessage


class CopyState(StrEnum):
    """Where a copy is in its life (design section 7)."""

    PENDING = "pending"  # on the disk, and the message may still turn out to be its client's: not for review
    HELD = "held"
    RELEASED = "released"  # on its way: each attempt to deliver it checks consent again
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    DIVERTED = "diverted"
    VOID = "void"


LONGEST_WAIT: Final = 86_400_000
"""Milliseconds; no lease and no pause is longer. A copy that is due later was put off by a clock that ran ahead."""
OPEN: Final = frozenset({CopyState.PENDING, CopyState.HELD, CopyState.RELEASED})
"""The content is needed while a copy is in one of these."""
ENDED: Final = frozenset(CopyState) - OPEN - {CopyState.VOID}
"""Nothing more becomes of a copy in one of these. VOID is none: such a message was never ours."""


class Place(NamedTuple):
    """One copy: the row number of its message, and which of its copies. Ordered as they were stored."""

    message: int
    number: int


class Ended(NamedTuple):
    """A copy in the order in which copies ended."""

    at: int
    place: Place


class Pruned(NamedTuple):
    """What a step of pruning removed, and from where the next goes on; None: all was looked at."""

    messages: int
    copies: int
    after: Ended | None


class By(StrEnum):
    """What held copies may be counted by."""

    CAMPAIGN = "campaign"
    LABEL = "label"
    RULE = "rule"  # a copy counts under each rule in its evidence
    REASON = "reason"
    DECLARED = "declared"
    CONTROLLER = "controller"
    BRAND = "brand"
    TOPIC = "topic"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldQuery:
    """Which copies: all that is given must hold. Empty values ask nothing; without `states`, copies of every state.

    `subjects` are the subject keys of one recipient (one for each key in use); any of them matches.
    `received_from` is inclusive, `received_before` exclusive.
    """

    states: frozenset[CopyState] = frozenset({CopyState.HELD})
    campaign: str = ""
    label: str = ""
    rule: str = ""
    reason: str = ""
    declared: str = ""
    controller: str = ""
    brand: str = ""
    topic: str = ""
    subjects: tuple[str, ...] = ()
    queue_id: str = ""
    received_from: int = 0
    received_before: int = 0


class HeldLine(NamedTuple):
    """One copy in a list: everything that is known without its content and its address."""

    place: Place
    queue_id: str
    state: CopyState
    received_at: int
    changed_at: int  # when it came into its state; another attempt is no change
    campaign: str
    label: str
    score: float
    reason: str
    consent: str  # consent state when it was held
    rules: tuple[str, ...]
    declared: str
    controller: str
    brand: str
    topic: str
    subject: str  # subject key
    size: int  # octets of the content
    attempts: int
    due_at: int  # of the next attempt; 0: none is planned
    outcome: str  # of the last attempt or order: reply code and reason, never message text
    order: str  # id of the order that moved it; "" if none did


class Tally(NamedTuple):
    """How many copies of how many messages have one value, and when the oldest and newest were received."""

    value: str
    copies: int
    messages: int
    oldest: int
    newest: int


class Action(StrEnum):
    """What a reviewer, or a retention rule, orders."""

    RELEASE = "release"
    DISCARD = "discard"
    EXPIRE = "expire"


class Order(NamedTuple):
    """Who ordered what, when and why; kept with the copies it moved. `despite` releases what the policy would hold
    because no consent is known; nothing releases what a recipient objected to.
    """

    id: str
    action: Action
    at: int
    author: str
    why: str
    despite: bool = False


class Claim(NamedTuple):
    """Copies of one message that are due for delivery, and nobody else's until the lease ends."""

    message: HeldMessage  # with its content; all copies
    places: tuple[Place, ...]  # of those that are due, in the order of `numbers`
    numbers: tuple[int, ...]  # their positions in message.copies
    orders: tuple[Order, ...]
    attempts: tuple[int, ...]  # so far
    released_at: tuple[int, ...]  # when the order moved each


class Unread(StrEnum):
    """Why a released copy cannot be read: what is damaged is HELD again for that reason, the rest waits."""

    DAMAGED = "damaged"
    KEY_MISSING = "key_missing"  # the master key that its message is sealed under


class Unreadable(NamedTuple):
    """Copies of one message, released by one order, that are due and cannot be read; leased like those of a claim.

    `queue_id` and `subjects` (keys) are what their rows say, empty where not even that can be read.
    """

    queue_id: str
    places: tuple[Place, ...]
    subjects: tuple[str, ...]
    order: str
    why: Unread


class Outcome(NamedTuple):
    """What became of an attempt at one copy: its new state, when to try again if RELEASED, and what to tell."""

    place: Place
    state: CopyState
    due_at: int = 0
    outcome: str = ""


class HeldMail(Protocol):
    """The store of held mail, for review. Methods may block for as long as their limit says: call them in a thread.

    Raises HoldUnavailableError when the store cannot be used now. What is damaged is skipped and counted by `check`.
    """

    def tally(self, query: HeldQuery, by: By) -> Sequence[Tally]:
        """Copies that match, counted; the largest first."""

    def lines(self, query: HeldQuery, after: Place | None = None, limit: int = 1000) -> Sequence[HeldLine]:
        """Copies that match, in the order they were stored, from after that place on."""

    def message(self, queue_id: str, *, content: bool = True) -> "tuple[HeldMessage, Mapping[int, HeldLine]] | None":
        """A message with its content (empty if it is gone) and the lines of its copies, by their position in it.

        None if there is none. Without `content` that is not read, and empty. Raises DamagedMessageError.
        """

    def order(self, order: Order) -> None:
        """Keep an order, durably, before anything is moved by it. The same order again is nothing new."""

    def orders(self) -> Sequence[Order]:
        """Every order that is kept, the newest first."""

    def move(self, places: Sequence[Place], to: CopyState, order: Order, at: int) -> Sequence[Place]:
        """Move those of these copies that are still HELD, in one durable transaction; which they were.

        To RELEASED (due at once), DISCARDED or EXPIRED; content goes with the last open copy. What an EXPIRE order
        moves to RELEASED is not delivered: its sender is told, and then it is EXPIRED (BOUNCED if it was rejected).
        """

    def claim(
        self,
        at: int,
        until: int,
        limit: int,
        order: str = "",
        octets: int = 64 << 20,
        *,
        unreadable: "list[Unreadable] | None" = None,
    ) -> Sequence[Claim]:
        """Lease up to so many RELEASED copies that are due and not leased: ours until then. Of one order, or of all.

        What cannot be read is leased as well and added to `unreadable`: who claims says what becomes of it (`finish`).
        A copy whose own record is damaged changes no more, so it comes again, once in LONGEST_WAIT.

        A copy that is due in more than LONGEST_WAIT is due now.
        Their messages have at most so many octets of content together, but for one that has more alone.
        """

    def finish(self, outcomes: Sequence[Outcome], at: int) -> None:
        """Record what became of leased copies and end their leases, in one durable transaction; each was an attempt.

        DELIVERED, BOUNCED, EXPIRED, RELEASED (another attempt at `due_at`), or HELD again (its order stays noted).
        """

    def waiting(self, order: str = "") -> tuple[int, int]:
        """How many copies are RELEASED, and when the next is due, or its lease ends (0: none). Of one order, or all."""

    def confirm_pending(self, before: int, at: int) -> int:
        """Take PENDING copies of messages received before then as HELD: whoever would have voided them is long gone."""

    def erase_message(self, queue_id: str) -> bool:
        """Remove a message with everything that is known of it, in any state; whether there was one."""

    def erase_subjects(self, subjects: Sequence[str]) -> int:
        """Remove every copy of a recipient, and messages that have none left; how many copies."""

    def prune_ended(self, before: int, after: Ended | None = None, limit: int = 1000) -> Pruned:
        """Look at up to so many copies that ended before that time, the oldest first, from after that one on, and
        remove their messages, with all that is known of them, if every copy of the message ended before then.

        What is damaged stays. One durable transaction.
        """

    def prune_orders(self, before: int, limit: int = 1000) -> int:
        """Remove up to so many orders that were given before that time and that no copy names; how many."""

    def rewrap(self, limit: int = 1000) -> int:
        """Wrap the keys of up to so many messages anew with the current master key; how many (0: all are)."""

"""What the pipeline needs of the world: next hop, hold store, flight record, journal, and the values they take.

The drivers (`next_hop`, `hold_store`, `flights`, `journal`) fulfil them; tests put their own in. Failure is part of
each signature: an exception named here is expected and has its own reply, any other is a fault and answered 451.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from .envelope import Capabilities, Client, MailFrom, RcptTo
from .errors import ConsentryError
from .labels import Channel
from .policy import Disposition
from .replies import Reply

Report = Callable[[str, Exception], None]  # counts and logs a fault that nobody expected, and where it was


class NextHopUnavailableError(ConsentryError):
    """No next hop can be reached, or the connection failed before the final dot: nothing was handed over."""


class InDoubtError(ConsentryError):
    """The connection failed after the final dot: the next hop may or may not have the message."""


class HoldUnavailableError(ConsentryError):
    """The hold store cannot take the message now (disk full, too little space, failed write): nothing is stored."""


class NextHopTransaction(Protocol):
    """One mail transaction at a next hop. It owns a connection from the first `rcpt` until `data` or `abort`."""

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """Offer a recipient (with the first one MAIL goes out in the same flight) and give the answer to it.

        If MAIL is refused, every recipient gets that reply. Raises NextHopUnavailableError.
        """

    async def begin(self, recipients: Sequence[RcptTo]) -> Sequence[Reply]:
        """Offer all recipients at once, instead of `rcpt`, when the message is at hand; the answer to each.

        As `rcpt` otherwise. `data` is to follow at once, or `abort`: the next hop may have been told that it does.
        """

    async def restart(self, recipients: Sequence[RcptTo]) -> Reply | None:
        """Begin anew for these recipients only (RSET, MAIL, RCPT...); the first refusal, or None if all are taken.

        Raises NextHopUnavailableError.
        """

    async def data(self, content: Sequence[bytes]) -> Reply:
        """Hand over the message (parts to be joined; CRLF lines, not dot-stuffed) and give the final reply.

        Ends the transaction. If the connection was lost meanwhile, it begins anew on another first.
        Raises NextHopUnavailableError before the final dot, InDoubtError after it.
        """

    async def abort(self) -> None:
        """End the transaction without a message; may be called at any time and more than once. Never raises."""


class NextHop(Protocol):
    """Where relayed mail goes."""

    @property
    def capabilities(self) -> Capabilities:
        """What the next hop last said it can do; nothing before the first connection."""

    def transaction(self, mail: MailFrom, client: Client) -> NextHopTransaction:
        """A transaction for this sender; no I/O yet. `client` is handed on by XFORWARD where the next hop offers it."""


@dataclass(frozen=True, slots=True)
class HeldCopy:
    """One recipient's copy in the hold store, with why it is there. `subject_key` is hex, empty if there is none."""

    recipient: RcptTo
    subject_key: str
    disposition: Disposition  # HOLD, DIVERT or REJECT
    reason: str
    notes: tuple[str, ...]
    state: str  # consent state
    evidence: tuple[str, ...]  # rule ids


@dataclass(frozen=True, slots=True)
class KafkaOrigin:
    """How a message came by Kafka. `sender_known` is False if nobody said who sends it: that is no null sender.

    `key` and `headers` are what its record had beside the value, so that a release can write them again; without the
    recipients, who may be others than those of the held copies, and without headers of ours.
    """

    channel: Channel
    sender_known: bool
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A message with the copies that are not relayed. `content` is as received (CRLF lines, not dot-stuffed).

    `trace` are the header lines we prepend; kept apart so that a release can tell them from the sender's octets.
    `facts` is what the policy looks at (JSON), so that a release can decide again without judging again. `pending`
    copies are not for review before `confirm`: the message may still turn out to be its client's.
    """

    queue_id: str
    received_at: int  # epoch milliseconds
    mail: MailFrom
    trace: bytes
    content: bytes
    label: str
    score: float
    ruleset: str
    declared: str
    controller: str
    brand: str
    topic: str
    copies: tuple[HeldCopy, ...]
    campaign: str = ""  # hex
    facts: str = "{}"
    pending: bool = False
    kafka: KafkaOrigin | None = None  # None: it came by SMTP

    @property
    def channel(self) -> Channel:
        """How it reaches people."""
        return Channel.EMAIL if self.kafka is None else self.kafka.channel

    @property
    def null_sender(self) -> bool:
        """Whether it is a report, which has a null sender (RFC 5321 section 4.5.5)."""
        known = self.kafka is None or self.kafka.sender_known
        return not self.mail.path and known and self.channel is Channel.EMAIL


class Known(StrEnum):
    """What may be remembered of a message key."""

    TAKEN = "taken"  # the message was taken, and its client may not know
    SUSPECT = "suspect"  # a worker died judging it; it may have been chance
    UNSCANNABLE = "unscannable"  # a second one did


class HoldStore(Protocol):
    """The durable store of copies that were not relayed."""

    def has_room(self, size: int) -> bool:
        """Whether a message of so many octets may be accepted: enough free space, and no earlier write failure."""

    async def store(self, message: HeldMessage) -> None:
        """Keep the message; on return it is on the disk. Raises HoldUnavailableError, and then nothing is kept."""

    async def keep(self, message: HeldMessage) -> bool:
        """`store` what may be stored already, under this queue id: then nothing is changed. Whether it was new."""

    async def void(self, queue_id: str) -> None:
        """Undo `store`, durably: the client was told that we did not take the message. Raises HoldUnavailableError."""

    async def confirm(self, queue_id: str) -> None:
        """The message is ours: its pending copies are held from now on. Raises HoldUnavailableError."""

    async def diverted(self, queue_id: str, numbers: Collection[int]) -> None:
        """Mark the copies with these positions in the message as delivered to where they were diverted.

        Raises HoldUnavailableError.
        """

    async def settle(self, key: bytes, at: int) -> None:
        """Remember that this message was taken, though the client may not know. Raises HoldUnavailableError."""

    def known(self, key: bytes) -> Collection[Known]:
        """What is remembered of this key. Never raises: a store that cannot answer says nothing (twice beats never)."""

    async def forget(self, key: bytes) -> bool:
        """The client is told now; whether the key was remembered until then. Raises HoldUnavailableError."""

    async def suspect(self, key: bytes, at: int) -> None:
        """Remember that a worker died while it judged this message; the second time it is unscannable.

        Raises HoldUnavailableError.
        """


class Stage(IntEnum):
    """How far a message came; the order is the order of events."""

    JUDGING = 1  # content complete, being judged
    STORING = 2  # copies are being written to the hold store
    SENDING = 3  # the final dot may have gone to the next hop, no reply yet
    TAKEN = 4  # relayed or stored, and the client does not know it yet


class Flight(Protocol):
    """The trace of one message that outlives this process."""

    def reach(self, stage: Stage) -> None:
        """Note that the message is now at this stage; costs a memory write. Never raises."""

    def land(self) -> None:
        """The client knows the outcome, or nothing was taken: forget the message. May be called twice."""


class Flights(Protocol):
    """Messages in flight in this worker, readable after it was killed."""

    def begin(self, queue_id: str, key: bytes) -> Flight:
        """Follow a message; `key` is its `settle` key (16 octets)."""


class Journal(Protocol):
    """The append-only record of events; see `journal` for their fields."""

    def write(self, events: Sequence[Mapping[str, object]]) -> None:
        """Append one line for each event. Never raises: a failed write is counted and ends readiness."""

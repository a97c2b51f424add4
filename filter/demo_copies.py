"""Where every copy of the demo's mail is, told from what was found afterwards, never from what should have happened.

Found are: what the sender was answered, what the next hop got, what is in the hold store, and what the journal says.
`whereabouts` compares them. Reading the store and the journal raises OSError, and HoldDataError if there is no store.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from . import hold_scan
from .address import SubjectKeyer
from .demo_mailbox import Mail
from .demo_sink import Delivered
from .events import Event
from .held import CopyState
from .hold_database import HoldDatabase
from .hold_scan import StoredCopy
from .journal import read_journal
from .labels import Channel, Label
from .policy import Reason
from .sealing import Vault

ACCEPTED: Final = 250
UNKNOWN: Final = "(not in the demo)"


class Place(StrEnum):
    """Where a copy is."""

    RELAYED = "relayed"
    HELD = "held"
    DIVERTED = "diverted"
    REFUSED = "refused"  # it is still the sender's
    MISSING = "missing"
    TWICE = "twice"


_OUTCOMES: Final = {
    Event.RELAYED: Place.RELAYED,
    Event.HELD: Place.HELD,
    Event.REJECTED: Place.HELD,
    Event.DIVERTED: Place.DIVERTED,
    Event.DIVERT_FAILED: Place.HELD,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was sent: the replies to recipients that were refused, and the reply to the whole."""

    mail: Mail
    refused: Mapping[str, str]
    code: int
    reply: str

    @property
    def queue_id(self) -> str:
        """What the relay calls it; empty if it was not taken."""
        return self.reply.rpartition(" ")[2] if self.accepted else ""

    @property
    def accepted(self) -> bool:
        """Whether it was taken."""
        return self.code == ACCEPTED


@dataclass(frozen=True, slots=True)
class Copy:
    """One recipient's copy: where it is, and why. `said` is the reply to a refused one."""

    recipient: str
    place: Place
    reason: Reason | None = None
    notes: tuple[Reason, ...] = ()
    said: str = ""
    agrees: bool = True  # the journal says the same


@dataclass(frozen=True, slots=True)
class Followed:
    """A message and all its copies; `label` is None if the journal does not know it."""

    sent: Sent
    label: Label | None
    disguised: bool
    copies: tuple[Copy, ...]


class Journal:
    """What the journal of the demo says; `look` reads what is there now."""

    def __init__(self, directory: Path, keyer: SubjectKeyer) -> None:
        self._directory = directory
        self._keyer = keyer
        self._names: dict[str, str] = {}
        self._messages: dict[str, Mapping[str, Any]] = {}
        self._decisions: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._places: dict[tuple[str, str], Place] = {}

    def look(self) -> list[tuple[str, Copy]]:
        """Read it from the beginning; gives the queue id and the copy for each copy that got its place since."""
        new = []
        for line in read_journal(sorted(self._directory.glob("*.jsonl"))):
            event, queue_id = line["event"], line["queue_id"]
            if event == Event.MESSAGE:
                self._messages[queue_id] = line
            elif event == Event.DECISION:
                self._decisions[queue_id, line["subject"]] = line
            elif event in _OUTCOMES:
                copies = [(queue_id, subject) for subject in line["subjects"]]
                new += [copy for copy in copies if copy not in self._places]
                self._places.update(dict.fromkeys(copies, _OUTCOMES[event]))
        return [(queue_id, self._copy(queue_id, subject)) for queue_id, subject in new]

    def label(self, queue_id: str) -> Label | None:
        """What the message was judged to be; None if it was not."""
        found = self._messages.get(queue_id, {}).get("label")
        return Label(found) if found else None

    def disguised(self, queue_id: str) -> bool:
        """Whether it was sent as service and promotes."""
        return bool(self._messages.get(queue_id, {}).get("disguised"))

    def copy(self, queue_id: str, recipient: str, channel: Channel = Channel.EMAIL) -> Copy:
        """What it says about one recipient's copy."""
        subject = self._keyer.subject(recipient, channel).exact.hex()
        self._names[subject] = recipient
        return self._copy(queue_id, subject)

    def _copy(self, queue_id: str, subject: str) -> Copy:
        decision = self._decisions.get((queue_id, subject), {})
        return Copy(
            self._names.get(subject, UNKNOWN),
            self._places.get((queue_id, subject), Place.MISSING),
            Reason(decision["reason"]) if decision else None,
            tuple(Reason(note) for note in decision.get("notes", ())),
        )


def held(directory: Path, vault: Vault) -> Counter[tuple[str, str]]:
    """How many copies of a message (queue id) for a recipient wait in the hold store."""
    database = HoldDatabase.open(directory, vault, readonly=True)
    try:
        found = (
            copy for copy in hold_scan.copies(database) if isinstance(copy, StoredCopy) and copy.state is CopyState.HELD
        )
        return Counter((copy.queue_id, copy.copy.recipient.address) for copy in found)
    finally:
        database.close()


def whereabouts(
    sent: Iterable[Sent], delivered: Iterable[Delivered], waiting: Counter[tuple[str, str]], journal: Journal
) -> Iterator[Followed]:
    """Follow every copy of the messages that were sent; `waiting` as `held` gives it."""
    found = Counter(
        (one.message_id, one.instead_of, Place.DIVERTED)
        if one.instead_of
        else (one.message_id, one.recipient, Place.RELAYED)
        for one in delivered
    )
    for one in sent:
        copies = []
        for recipient in one.mail.recipients:
            places = [Place.RELAYED] * found[one.mail.message_id, recipient, Place.RELAYED]
            places += [Place.DIVERTED] * found[one.mail.message_id, recipient, Place.DIVERTED]
            places += [Place.HELD] * waiting[one.queue_id, recipient]
            copies.append(_copy(one, recipient, places, journal))
        yield Followed(one, journal.label(one.queue_id), journal.disguised(one.queue_id), tuple(copies))


def _copy(sent: Sent, recipient: str, found: list[Place], journal: Journal) -> Copy:
    """A copy that was found in these places; one that was refused must be in none."""
    told = journal.copy(sent.queue_id, recipient)
    if recipient in sent.refused or not sent.accepted:
        said = sent.refused.get(recipient) or f"{sent.code} {sent.reply}"
        place = Place.TWICE if found else Place.REFUSED
        return replace(told, place=place, said=said, agrees=told.place is Place.MISSING)
    place = Place.TWICE if len(found) > 1 else found[0] if found else Place.MISSING
    return replace(told, place=place, agrees=told.place is place)

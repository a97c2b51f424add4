"""Following a topic of consent events into the index: what was read, and how far, in one transaction.

    meta "feed"             how far: `FeedState`
    meta "unsettled KEY"    mailboxes for which the record KEY counts as an objection, as it cannot be read

A mark is the last event read of a partition: offset, time stamp, CRC of its key. Whoever goes on reads it once more: if
it is not there as it was, the topic is another one, or has lost what we had not seen, and all of it is read again. The
index keeps what it has meanwhile, since a merge drops nothing: evidence that was taken in on this machine alone stays.

No event counts as arrived later than it came here, so that no clock of a producer running ahead puts off an opt-out.
`Feed` raises `ConsentDataError` and errors of the disk, after which it must be opened anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from zlib import crc32

from .address import Subject
from .consent_build import Runs
from .consent_codec import MAX_TIME, Template, encode
from .consent_events import Erasure, Heartbeat, Read, Reader, Refused, Told, Tombstone
from .consent_index import ConsentIndex, Tally
from .consent_quick import QuickReader
from .consent_store import ConsentStore
from .evidence import Capture, ConsentEvent, EventKind, Scope

UNREADABLE: Final = "unreadable event"
"""The source of the objections that stand for records nobody can read."""

MAX_LISTED: Final = 1_000  # refused records of a batch

_STATE: Final = "feed"
_UNSETTLED: Final = "unsettled "
_EVERYTHING: Final = Scope("", "", "", "")
_OPT_OUTS: Final = frozenset({EventKind.REFUSE, EventKind.WITHDRAW, EventKind.OBJECT})


class Mark(NamedTuple):
    """The last event read of a partition."""

    offset: int
    timestamp: int
    key: int  # CRC

    def fits(self, offset: int, timestamp: int, key: bytes | None) -> bool:
        """Whether this is that record."""
        return self == (offset, timestamp, crc32(key or b""))


@dataclass(frozen=True, slots=True)
class FeedState:
    """How far a topic was followed. Times are epoch milliseconds, 0 for never.

    `complete`: what the topic held when `run` (one start of the program) began is in the index. `latest`: when what was
    read last was published. `synced_at`: when every partition was last read to its end.
    """

    topic: str = ""
    complete: bool = False
    run: str = ""
    latest: int = 0
    synced_at: int = 0
    marks: Mapping[int, Mark] = field(default_factory=dict)

    @property
    def as_of(self) -> int:
        """How fresh the data is: nothing newer is known to exist, and nothing later was seen."""
        return min(self.latest, self.synced_at)

    def document(self) -> dict[str, Any]:
        """As kept in the index."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "marks": {str(partition): list(mark) for partition, mark in self.marks.items()}}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "FeedState":
        """The inverse of `document`; of nothing, a feed that was never followed."""
        marks = {int(partition): Mark(*mark) for partition, mark in document.get("marks", {}).items()}
        return cls(**{**document, "marks": marks})


class Arrived(NamedTuple):
    """A record of the topic, or whatever a client of Kafka gives that has these fields."""

    partition: int
    offset: int
    timestamp: int  # epoch milliseconds
    key: bytes | None
    value: bytes | None


class OptOut(NamedTuple):
    """Where a record stands by which somebody opted out, and when that was (epoch milliseconds)."""

    partition: int
    offset: int
    at: int


class Stop(NamedTuple):
    """A record that cannot be read counts as an objection."""

    key: str
    mailboxes: tuple[bytes, ...]
    because: str
    at: int


class Settle(NamedTuple):
    """The record that could not be read has been replaced by one that can."""

    key: str
    mailboxes: tuple[bytes, ...]


Step = Told | Erasure | Stop | Settle


@dataclass(slots=True)
class Counts:
    """What was done with records, by what they were."""

    added: int = 0
    repeated: int = 0
    erasures: int = 0
    heartbeats: int = 0
    tombstones: int = 0
    refused: int = 0


def state_of(store: ConsentStore) -> FeedState:
    """How far the index in `store` has followed a topic."""
    return store.read(lambda index, txn: FeedState.read(index.get_meta(txn, _STATE, {})))


class Feed:
    """The index of one node at the end of a topic. For one thread at a time."""

    def __init__(self, store: ConsentStore, topic: str) -> None:
        self._store = store
        self._reader = Reader(store.keyer.key_id)
        self.state = state_of(store)
        if self.state.topic != topic:
            self.state = FeedState(topic=topic)
        found = store.read(lambda index, txn: index.marked(txn, _UNSETTLED))
        self._unsettled = {
            key: tuple(bytes.fromhex(mailbox) for mailbox in mailboxes) for key, mailboxes in found.items()
        }

    def begin(self, run: str) -> None:
        """Count as incomplete from now on, unless this run was complete before."""
        if not (self.state.complete and self.state.run == run):
            self._save(replace(self.state, complete=False, run=run))

    def restart(self) -> None:
        """Forget how far we read: all of the topic is to be read again, and the index is incomplete until then."""
        self._save(replace(self.state, complete=False, marks={}))

    def completed(self) -> None:
        """Count as complete: the end of the start was reached."""
        self._save(replace(self.state, complete=True))

    def synced(self, at: int) -> None:
        """Note that every partition was read to its end at an instant."""
        self._save(replace(self.state, synced_at=max(at, self.state.synced_at)))

    def batch(self) -> "Batch":
        """A batch to fill and `apply`."""
        return Batch(self._reader, self._unsettled)

    def apply(self, batch: "Batch") -> Counts:
        """Put a batch into the index, with how far it got, in one transaction. Synced to disk on return."""
        after = self._after(batch)
        tally = self._store.write(lambda index, txn: _apply(index, txn, batch.steps, after))
        self.state = after
        batch.counts.added, batch.counts.repeated = tally.added, tally.duplicates
        return batch.counts

    def bulk(self) -> "Bulk":
        """A batch for very many records."""
        return Bulk(self._reader, self._unsettled, Runs(self._store.directory))

    def load(self, bulk: "Bulk") -> Counts:
        """Put very many records into the index; until they are all there, how far we got stays as it was."""
        applied = self._store.load(bulk.runs, bulk.latest, None)
        counts = self.apply(bulk)
        counts.added += applied.added
        counts.repeated += applied.duplicates
        return counts

    def _after(self, batch: "Batch") -> FeedState:
        marks = {**self.state.marks, **batch.marks}
        return replace(self.state, marks=marks, latest=max(self.state.latest, batch.latest))

    def _save(self, state: FeedState) -> None:
        self._store.write(lambda index, txn: _put(index, txn, state))
        self.state = state


class Batch:
    """What to do about some records, in their order. `refused` lists the first that cannot be read, `opt_outs` where
    those stand by which somebody opted out, and when that was.
    """

    keeps_opt_outs = True

    def __init__(self, reader: Reader, unsettled: dict[str, tuple[bytes, ...]]) -> None:
        self.steps: list[Step] = []
        self._last: dict[int, Arrived] = {}
        self.latest = 0
        self.counts = Counts()
        self.refused: list[tuple[Arrived, Refused]] = []
        self.opt_outs: list[OptOut] = []
        self._reader, self._unsettled = reader, unsettled

    def add(self, record: Arrived, now: int) -> None:
        """Take a record that came here `now` (epoch milliseconds)."""
        read = self._reader.read(record.key, record.value)
        if type(read) is Told:
            if self._unsettled:
                self._settle(record)
            received = read.event.received_at
            if not 0 < received <= now:
                received = min(received or _came(record, now), now)
                read = Told(read.subject, read.event._replace(received_at=received))
            self.latest = max(self.latest, received)
            if self.keeps_opt_outs and read.event.kind in _OPT_OUTS:
                self.opt_outs.append(OptOut(record.partition, record.offset, read.event.event_time or received))
            self._take(read)
        else:
            self._add_other(record, read, _came(record, now))
        if type(read) is not Heartbeat:
            self._last[record.partition] = record

    @property
    def marks(self) -> dict[int, Mark]:
        """The last event of each partition."""
        return {number: Mark(one.offset, one.timestamp, crc32(one.key or b"")) for number, one in self._last.items()}

    def _add_other(self, record: Arrived, read: Read, came: int) -> None:
        match read:
            case Heartbeat(at):
                self.counts.heartbeats += 1
                self.latest = max(self.latest, min(at, came))
            case Tombstone():
                self.counts.tombstones += 1
            case Erasure():
                self.counts.erasures += 1
                self._settle(record)
                self._take(read)
            case Refused(because, _, stops):
                self.counts.refused += 1
                if len(self.refused) < MAX_LISTED:
                    self.refused.append((record, read))
                if stops:
                    key = (record.key or b"").decode()
                    self._unsettled[key] = stops
                    self._take(Stop(key, stops, because, came))

    def _settle(self, record: Arrived) -> None:
        if self._unsettled:
            key = (record.key or b"").decode()
            mailboxes = self._unsettled.pop(key, None)
            if mailboxes is not None:
                self._take(Settle(key, mailboxes))

    def _take(self, step: Step) -> None:
        self.steps.append(step)


def _came(record: Arrived, now: int) -> int:
    """When a record arrived in the topic, as far as its producer can be believed."""
    return max(0, min(record.timestamp, now, MAX_TIME))


class Bulk(Batch):
    """Very many records: events in sorted runs on disk, and steps for what depends on their order. A context manager.

    Of a mailbox that is erased, the events after that are steps. Nobody waits for their opt-outs.
    """

    keeps_opt_outs = False

    def __init__(self, reader: Reader, unsettled: dict[str, tuple[bytes, ...]], runs: Runs) -> None:
        super().__init__(reader, unsettled)
        self.runs = runs
        self._erased: set[bytes] = set()
        self._numbers: dict[int, tuple[Template, bytes]] = {}  # by identity: quicker to find than by content
        self._quick = QuickReader(reader)

    def add(self, record: Arrived, now: int) -> None:
        """Take a record that came here `now` (epoch milliseconds)."""
        quick = None if self._unsettled else self._quick.read(record.key, record.value, now)
        if quick is None or quick[0] in self._erased:
            super().add(record, now)
            return
        wide, template, rest, received = quick
        known = self._numbers.get(id(template)) or self._number(template)
        self.runs.add(wide + known[1] + rest)
        self.latest = max(self.latest, received)
        self._last[record.partition] = record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runs.__exit__(kind, error, trace)

    def _number(self, template: Template) -> tuple[Template, bytes]:
        found = self._numbers[id(template)] = template, self.runs.templates.number(template).to_bytes(3)
        return found

    def _take(self, step: Step) -> None:
        if type(step) is Told and step[0].wide not in self._erased:
            subject, event = step
            narrow = b"" if subject.exact == subject.wide else subject.exact
            template, rest = encode(event, narrow)
            known = self._numbers.get(id(template)) or self._number(template)
            self.runs.add(subject.wide + known[1] + rest)
            return
        if isinstance(step, Erasure):
            self._erased.add(step.mailbox)
        self.steps.append(step)


def _apply(index: ConsentIndex, txn: Any, steps: Iterable[Step], after: FeedState) -> Tally:
    tally = Tally()
    for step in steps:
        match step:
            case Told(subject, event):
                _put_event(index, txn, subject, event, tally)
            case Erasure(mailbox):
                index.remove(txn, mailbox, lambda _: True)
            case Stop():
                _stop(index, txn, step, tally)
            case Settle(key, mailboxes):
                _settle(index, txn, key, mailboxes)
    index.add_figures(txn, tally, after.latest)
    _put(index, txn, after)
    return tally


def _put_event(index: ConsentIndex, txn: Any, subject: Subject, event: ConsentEvent, tally: Tally) -> None:
    narrow = b"" if subject.exact == subject.wide else subject.exact
    template, rest = encode(event, narrow)
    index.put(txn, subject.wide, [index.templates.number(template).to_bytes(3) + rest], tally)


def _stop(index: ConsentIndex, txn: Any, stop: Stop, tally: Tally) -> None:
    """An objection to everything, without a time of its own, by everybody whom a record may concern."""
    capture = Capture(kind=EventKind.OBJECT, scope=_EVERYTHING, source=UNREADABLE, reason=stop.because)
    event = ConsentEvent(capture, _stop_id(stop.key), 0, stop.at)
    _settle(index, txn, stop.key, stop.mailboxes)  # it may have been unreadable otherwise
    for mailbox in stop.mailboxes:
        _put_event(index, txn, Subject(mailbox, mailbox, ""), event, tally)
    index.put_meta(txn, _UNSETTLED + stop.key, [mailbox.hex() for mailbox in stop.mailboxes])


def _settle(index: ConsentIndex, txn: Any, key: str, mailboxes: Iterable[bytes]) -> None:
    name = _stop_id(key)
    for mailbox in mailboxes:
        index.remove(txn, mailbox, lambda event: event.id == name)
    index.drop_meta(txn, _UNSETTLED + key)


def _stop_id(key: str) -> str:
    return "unreadable-" + blake2b(key.encode(), digest_size=16).hexdigest()


def _put(index: ConsentIndex, txn: Any, state: FeedState) -> None:
    index.put_meta(txn, _STATE, state.document())
    index.put_meta(txn, "as_of", max(index.get_meta(txn, "as_of", 0), state.as_of))

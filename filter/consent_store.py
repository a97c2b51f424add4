"""The consent index as the rest of the program sees it: look-up, account of an address, writing events, freshness.

    DIR/CURRENT              name of the index file in use; replaced atomically when a large import builds a new one
    DIR/index-000001.lmdb    the index file (consent_index)
    DIR/lock                 held while writing: one writer at a time, any number of readers

No address is stored, but references to evidence are: directory and files are for their owner only. A small write is
seen by every reader at once, a rebuilt index within a second; the file a rebuild replaced is kept until the next one.
Open one store per directory and process, after forking, on a local file system.

Raises `ConsentDataError` when the index is missing, damaged, of another schema or another subject key, and
`AddressError` for what is no address. Reading raises nothing else; errors of the disk while writing pass through.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import lmdb

from .address import Subject, SubjectKeyer
from .consent import ANY, ConsentAnswer, ConsentEvent, Scope
from .consent_build import Runs, add_in_place, build
from .consent_codec import Record, encode
from .consent_index import ConsentIndex, Tally
from .durable import sync_directory, write_file
from .errors import ConsentDataError, DamagedIndexError
from .labels import Channel

REFRESH_EVERY: Final = 1.0  # seconds between looks at CURRENT
REBUILD_FROM: Final = 50_000  # records; smaller loads are one transaction

_T = TypeVar("_T")

_INDEX_NAME: Final = re.compile(r"index-[0-9]{6,9}\.lmdb").fullmatch
_UNREADABLE: Final = (OSError, ValueError, lmdb.Error)  # UnicodeError and bad JSON are ValueErrors
_CHANNELS: Final = {str(channel): channel for channel in Channel}


class Entry(NamedTuple):
    """One event and whom it concerns."""

    subject: Subject
    event: ConsentEvent


@dataclass(frozen=True, slots=True)
class Applied:
    """What a write did: records that were new, records that were there already, subjects seen for the first time."""

    added: int
    duplicates: int
    new_subjects: int


@dataclass(frozen=True, slots=True)
class Stats:
    """An index in figures. Times are epoch milliseconds UTC.

    `as_of` is how fresh the data is: when an import last brought new records, or what `touch` noted since; 0 for never.

    `sources` maps each source to `event_time` and `received_at` (its latest) and `records`; `batches` lists imports.
    """

    subjects: int
    records: int
    kinds: Mapping[str, int]
    sources: Mapping[str, Mapping[str, int]]
    batches: tuple[Mapping[str, Any], ...]
    templates: int
    octets: int
    key_id: str
    as_of: int


@dataclass(frozen=True, slots=True)
class Account:
    """All that is on record about one address.

    `events` concern it; `other_spellings` counts grants and the like given for another spelling of the same mailbox
    (plus tag, Gmail dots), which do not. `answers` holds the state in every scope that a basis of it names.
    """

    subject: Subject
    events: tuple[ConsentEvent, ...]
    other_spellings: int
    answers: tuple[tuple[Scope, ConsentAnswer], ...]


class ConsentStore:
    """The consent index in one directory. Threads may share a store; processes open their own, after forking.

    A writer creates the index if need be. `max_age` gives the greatest age of consent per topic ("*": all others) and
    `stale_after` that of the data, both in milliseconds (0 or absent: no limit).
    """

    def __init__(
        self,
        directory: Path,
        keyer: SubjectKeyer,
        *,
        readonly: bool = True,
        max_age: Mapping[str, int] = MappingProxyType({}),
        stale_after: int = 0,
    ) -> None:
        self.directory = directory
        self.keyer = keyer
        self._readonly = readonly
        self._max_age = dict(max_age)
        self._any_age = self._max_age.get(ANY, 0)
        self._stale_after = stale_after
        self._looking = Lock()
        self._name = ""
        if not readonly:
            self._create()
        self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index file."""
        self._index.close()

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """The consent of `address` in a concrete scope at an instant (epoch milliseconds)."""
        channel = _CHANNELS.get(scope.channel)
        if channel is None:
            raise ConsentDataError(f"no such channel {scope.channel!r}; allowed are {', '.join(_CHANNELS)}")
        max_age = self._max_age.get(scope.topic, self._any_age) if self._max_age else 0
        subject = self.keyer.subject(address, channel)
        try:
            index = self._index if monotonic() < self._next_look else self._look()
            return index.answer(subject, scope, at, max_age)
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def version(self) -> tuple[str, int]:
        """Another value after each change, by whichever process; costs microseconds."""
        with self._reading():
            index = self._look()
            return self._name, index.commits

    def show(self, address: str, channel: Channel, at: int) -> Account:
        """Everything on record that concerns an address, and the answer in every scope that its records name."""
        subject = self.keyer.subject(address, channel)
        with self._reading():
            events, others = self._look().events(subject)
        scopes = dict.fromkeys(scope for event in events for scope in _concrete(event))
        answers = tuple((scope, self.lookup(address, scope, at)) for scope in scopes)
        return Account(subject, tuple(events), others, answers)

    def stats(self) -> Stats:
        """The index in figures."""
        with self._reading():
            index = self._look()
            txn = index.begin()
            figures = index.get_meta(txn, "figures", {"subjects": 0, "records": 0, "kinds": {}})
            return Stats(
                subjects=figures["subjects"],
                records=figures["records"],
                kinds=figures["kinds"],
                sources=index.get_meta(txn, "sources", {}),
                batches=tuple(index.get_meta(txn, "batches", [])),
                templates=len(index.templates),
                octets=index.path.stat().st_size,
                key_id=self.keyer.key_id,
                as_of=index.get_meta(txn, "as_of", 0),
            )

    def age(self, now: int) -> int | None:
        """Milliseconds since an import last brought new records or `touch` vouched for the data; None when never."""
        with self._reading():
            index = self._look()
            as_of: int = index.get_meta(index.begin(), "as_of", 0)
        return now - as_of if as_of else None

    def stale(self, at: int) -> bool:
        """Whether the data is older than the configured bound, or nothing was ever imported.

        Events recorded one by one and imports without new records do not count: they would hide that a feed is dead.
        """
        if not self._stale_after:
            return False
        age = self.age(at)
        return age is None or age > self._stale_after

    def export(self) -> Iterator[tuple[bytes, Record]]:
        """Every record with its wide subject key, in key order, as of one instant."""
        index = self._look()
        txn = index.begin()
        for wide, value in index.items(txn):
            for record in index.records(txn, wide, value):
                yield wide, record

    def about(self, subject: Subject) -> list[tuple[Subject, ConsentEvent]]:
        """Every event on record about any spelling of a mailbox, without the identities that the index derived."""
        with self._reading():
            index = self._look()
            txn = index.begin()
            index.load_templates(txn)
            value = txn.get(subject.wide)
            spans = index.templates.spans(value) if value else ()
            found = [
                (template.has_id, *template.decode(value, start, end, subject.wide)) for template, start, end in spans
            ]
        return [
            (Subject(exact, subject.wide, subject.key_id), event if has_id else event._replace(id=""))
            for has_id, exact, event in found
        ]

    def apply(self, entries: Iterable[Entry]) -> Applied:
        """Add events, all or none; events that are there already change nothing. Synced to disk on return.

        Does not make the data fresher (`stale`).
        """
        listed = list(entries)
        for entry in listed:
            if entry.subject.key_id != self.keyer.key_id:
                raise ConsentDataError(
                    f"event {entry.event.id} has subject key id {entry.subject.key_id}; allowed is {self.keyer.key_id}"
                )
        with self._writing() as index:
            tally = index.write(lambda txn: _add(index, txn, listed))
        return Applied(tally.added, tally.duplicates, tally.new_subjects)

    def record(self, address: str, channel: Channel, event: ConsentEvent) -> Applied:
        """Add one event about an address."""
        return self.apply([Entry(self.keyer.subject(address, channel), event)])

    def touch(self, at: int) -> None:
        """Note that the data was complete as of `at` although nothing new arrived (a feed's heartbeat): it is fresh."""
        with self._writing() as index:
            index.write(lambda txn: index.put_meta(txn, "as_of", max(at, index.get_meta(txn, "as_of", 0))))

    def read(self, work: Callable[[ConsentIndex, Any], _T]) -> _T:
        """What `work` reads in a transaction on the index in use."""
        with self._reading():
            index = self._look()
            return work(index, index.begin())

    def write(self, work: Callable[[ConsentIndex, Any], _T]) -> _T:
        """Run `work` in a write transaction, all of it or nothing; it may be run again, with another transaction."""
        with self._writing() as index:
            return index.write(lambda txn: work(index, txn))

    def load(self, runs: Runs, received_at: int, batch: dict[str, Any] | None) -> Applied:
        """Add everything in `runs`, all or nothing; a load that is large beside what is there builds a new file.

        The data of a `batch`, which describes an import, is as fresh as `received_at` if any record is new.
        """
        with self._writing() as index:
            here = index.get_meta(index.begin(), "figures", {"subjects": 0})["subjects"]
            if runs.total >= REBUILD_FROM and runs.total * 4 >= here:
                tally = self._rebuild(index, runs, received_at, batch)
            else:
                tally = add_in_place(index, runs, received_at, batch)
        return Applied(tally.added, tally.duplicates, tally.new_subjects)

    def _rebuild(self, old: ConsentIndex, runs: Runs, received_at: int, batch: dict[str, Any] | None) -> Tally:
        path = self.directory / _file_name(_file_number(old.path) + 1)
        _remove(path)  # left by a build that was cut short
        try:
            new = ConsentIndex(path, self.keyer.key_id, readonly=False, create=True, durable=False)
            try:
                tally = build(new, old, runs, received_at, batch)
                new.env.sync(True)
            finally:
                new.close()
        except BaseException:
            _remove(path)
            raise
        self._switch_to(path)
        for number in range(_file_number(old.path)):
            _remove(self.directory / _file_name(number))
        return tally

    def _switch_to(self, path: Path) -> None:
        """Make `path` the index file in use, durably: complete file, then its name, then CURRENT."""
        sync_directory(self.directory)
        write_file(self.directory / "CURRENT", path.name.encode() + b"\n", replace=True)

    def _create(self) -> None:
        """Make an empty index where there is none."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not (self.directory / "CURRENT").exists():
                path = self.directory / _file_name(1)
                ConsentIndex(path, self.keyer.key_id, readonly=False, create=True).close()
                self._switch_to(path)

    def _look(self) -> ConsentIndex:
        """The index that CURRENT names, opened if it is another than the one we have."""
        with self._looking:  # LMDB allows one opening per file and process
            name = self._current()
            if name != self._name:
                # The old file is not closed here: a look-up in another thread may be using it; it goes with that.
                self._index = ConsentIndex(self.directory / name, self.keyer.key_id, readonly=self._readonly)
                self._name = name
            self._next_look = monotonic() + REFRESH_EVERY  # only now: after a failure every look-up looks again
            return self._index

    def _current(self) -> str:
        """The name of the index file in use."""
        path = self.directory / "CURRENT"
        try:
            name = path.read_text("ascii").strip()
        except FileNotFoundError as error:
            raise ConsentDataError(f"{self.directory}: no consent index there; import consent data first") from error
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        if not _INDEX_NAME(name):
            raise DamagedIndexError(f"{path}: does not name an index file such as {_file_name(1)}; restore it")
        return name

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever keeps the index from being read is a ConsentDataError: a relay then knows what to do."""
        try:
            yield
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ConsentDataError:
        return ConsentDataError(f"{self.directory}: consent index cannot be read: {error}")

    @contextmanager
    def _writing(self) -> Iterator[ConsentIndex]:
        """The index in use, while no other process writes."""
        if self._readonly:
            raise ConsentDataError(f"{self.directory}: consent index is open for reading only")
        with self._locked():
            self._look()
            yield self._index
            self._look()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.directory / "lock", "w", encoding="ascii", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _add(index: ConsentIndex, txn: Any, entries: list[Entry]) -> Tally:
    tally = Tally()
    for subject, event in entries:
        narrow = b"" if subject.exact == subject.wide else subject.exact
        template, rest = encode(event, narrow)
        index.put(txn, subject.wide, [index.templates.number(template).to_bytes(3, "big") + rest], tally)
    index.add_figures(txn, tally, max((entry.event.received_at for entry in entries), default=0))
    return tally


def _concrete(event: ConsentEvent) -> Iterator[Scope]:
    scope = event.scope
    if event.capture.permits:
        yield from (scope._replace(topic=topic) for topic in (scope.topic, *event.capture.topics))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _file_name(number: int) -> str:
    return f"index-{number:06}.lmdb"


def _file_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + "-lock").unlink(missing_ok=True)

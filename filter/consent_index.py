"""One file of the consent index: LMDB with three tables, and the transactions on it.

`records` maps wide subject keys to values (consent_codec), `templates` numbers to templates, `meta` names to JSON. The
file remembers its schema version and the id of the subject key it was written with. Commits are synced to disk before
they return. A full map grows; readers follow. Raises `ConsentDataError` when the file cannot be used.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb
import orjson

from .address import Subject
from .consent import NO_RECORD, ConsentAnswer, Scope
from .consent_codec import Record, Template, Templates, UnknownTemplateError, check, identity
from .consent_rulings import Rulings
from .errors import ConsentDataError, DamagedIndexError
from .evidence import ConsentEvent

SCHEMA: Final = 1
FIRST_MAP: Final = 64 << 20  # octets; doubles when full
MAX_READERS: Final = 2048  # two generations of the most workers, and room for those that were killed

_DAMAGED: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.NotFoundError)

_T = TypeVar("_T")


class Tally:
    """What a write added, by template number, for the figures kept in `meta`."""

    def __init__(self) -> None:
        self.added = 0
        self.duplicates = 0
        self.new_subjects = 0
        self.templates: dict[bytes, list[Any]] = {}  # number: records, and the latest event time among them

    def count(self, *, given: int, added: list[bytes], new_subject: bool) -> None:
        """Note one subject's `given` records, of which `added` were new."""
        self.added += len(added)
        self.duplicates += given - len(added)
        self.new_subjects += new_subject
        for record in added:
            self.count_record(record)

    def count_record(self, record: bytes) -> None:
        """Note one new record."""
        made = record[3:9]
        seen = self.templates.get(record[:3])
        if seen is None:
            self.templates[record[:3]] = [1, made]
            return
        seen[0] += 1
        seen[1] = max(seen[1], made)


class ConsentIndex:
    """An open index file. LMDB allows one per file and process, opened after forking; threads may share it."""

    def __init__(self, path: Path, key_id: str, *, readonly: bool, create: bool = False, durable: bool = True) -> None:
        if not create and not path.exists():  # LMDB would make an empty file
            raise DamagedIndexError(f"{path}: the consent index file is missing; restore it or import again")
        self.path = path
        self.templates = Templates()
        self._rulings = Rulings(self.templates)
        try:
            self.env = lmdb.open(
                str(path),
                subdir=False,
                max_dbs=3,
                max_readers=MAX_READERS,
                map_size=max(FIRST_MAP, 2 * path.stat().st_size if path.exists() else 0),
                readonly=readonly,
                create=create,
                sync=durable,
                mode=0o600,
            )
            self._check_size()
            self.env.reader_check()  # a process killed in a look-up leaves its place taken
            self._records = self.env.open_db(b"records", create=create)
            self._names = self.env.open_db(b"templates", create=create)
            self._meta = self.env.open_db(b"meta", create=create)
        except lmdb.Error as error:
            kind = DamagedIndexError if isinstance(error, _DAMAGED) else ConsentDataError
            raise kind(f"{path}: consent index cannot be opened: {error}") from error
        if create:
            self.write(lambda txn: self._stamp(txn, key_id))
        self._check_stamp(key_id)
        self.load_templates(self.begin())

    def begin(self) -> Any:
        """A read transaction on the newest commit, on `records` by default; it ends when dropped."""
        try:
            return self.env.begin(self._records)
        except lmdb.MapResizedError:  # the writer's map outgrew ours
            self.env.set_mapsize(0)
            return self.env.begin(self._records)

    @property
    def commits(self) -> int:
        """How many commits there have been, of every process."""
        number: int = self.env.info()["last_txnid"]
        return number

    def answer(self, subject: Subject, scope: Scope, at: int, max_age: int) -> ConsentAnswer:
        """The consent of a subject in a scope at an instant, as of the newest commit."""
        try:
            txn = self.begin()
            value = txn.get(subject.wide)
            if value is None:
                return NO_RECORD
            try:
                return self._rulings.answer(value, subject, scope, at, max_age)
            except UnknownTemplateError:
                self.load_templates(txn)
                return self._rulings.answer(value, subject, scope, at, max_age)
        except lmdb.Error as error:
            raise ConsentDataError(f"{self.path}: consent index cannot be read: {error}") from error

    def events(self, subject: Subject) -> tuple[Sequence[ConsentEvent], int]:
        """The events that concern a subject, and how many there are that concern other spellings only."""
        try:
            txn = self.begin()
            records = self.records(txn, subject.wide, value := txn.get(subject.wide))
        except lmdb.Error as error:
            raise ConsentDataError(f"{self.path}: consent index cannot be read: {error}") from error
        events = self.templates.events(value, subject) if value is not None else []
        return events, len(records) - len(events)

    def records(self, txn: Any, wide: bytes, value: bytes | None) -> list[Record]:
        """Decode a value read in `txn`, whichever spelling its records concern."""
        if value is None:
            return []
        self.load_templates(txn)
        return self.templates.records(value, wide)

    def items(self, txn: Any, first: bytes = b"", beyond: bytes = b"\xff" * 17) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order, from `first` up to but without `beyond`."""
        cursor = txn.cursor(self._records)
        if not cursor.set_range(first):
            return
        for key, value in cursor:
            if key >= beyond:
                return
            yield key, value

    def load_templates(self, txn: Any) -> None:
        """Read the templates written since we last looked."""
        cursor = txn.cursor(self._names)
        if cursor.set_range(len(self.templates).to_bytes(4, "big")):
            for _, stored in cursor:
                self.templates.number(Template.from_json(stored))

    def get_meta(self, txn: Any, name: str, default: Any) -> Any:
        """A meta value, `default` when absent."""
        stored = txn.get(name.encode(), db=self._meta)
        return default if stored is None else orjson.loads(stored)

    def put_meta(self, txn: Any, name: str, value: object) -> None:
        """Replace a meta value."""
        txn.put(name.encode(), orjson.dumps(value), db=self._meta)

    def copy_meta(self, txn: Any, other: "ConsentIndex", snapshot: Any) -> None:
        """Take over every meta value of another index, as of a read transaction on it."""
        for name, stored in snapshot.cursor(other._meta):  # noqa: SLF001 - one of us
            txn.put(name, stored, db=self._meta)

    def marked(self, txn: Any, prefix: str) -> dict[str, Any]:
        """The meta values whose names begin with `prefix`, by the rest of their names."""
        cursor, first = txn.cursor(self._meta), prefix.encode()
        found: dict[str, Any] = {}
        if cursor.set_range(first):
            for name, stored in cursor:
                if not name.startswith(first):
                    break
                found[name[len(first) :].decode()] = orjson.loads(stored)
        return found

    def drop_meta(self, txn: Any, name: str) -> None:
        """Remove a meta value, if there is one."""
        txn.delete(name.encode(), db=self._meta)

    def append(self, txn: Any, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Add values in key order, beyond the last key there is: fills pages completely."""
        txn.cursor(self._records).putmulti(items, append=True)

    def write(self, work: Callable[[Any], _T]) -> _T:
        """Run `work` in a write transaction, again with a larger map when it is full: all of it or nothing."""
        while True:
            known = len(self.templates)
            try:
                with self.env.begin(self._records, write=True) as txn:
                    self.load_templates(txn)
                    known = len(self.templates)
                    done = work(txn)
                    self._save_templates(txn, known)
            except lmdb.MapFullError:
                self.templates.truncate(known)
                self.env.set_mapsize(self.env.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                self.env.set_mapsize(0)
            except BaseException:
                self.templates.truncate(known)
                raise
            else:
                return done

    def merge(self, old: bytes | None, records: list[bytes], tally: Tally) -> bytes:
        """A subject's value after adding those of the (numbered) records that are not there already."""
        if old is None and len(records) == 1:  # a large import is nearly all of this
            tally.added += 1
            tally.new_subjects += 1
            tally.count_record(records[0])
            return records[0] + check(records[0])
        body, added = b"", []
        seen: set[tuple[bytes, bytes]] = set()
        if old is not None:
            body = old[:-4]
            seen.update(identity(template, old[start:end]) for template, start, end in self.templates.spans(old))
        for record in records:
            name = identity(self.templates[int.from_bytes(record[:3], "big")], record)
            if name not in seen:
                seen.add(name)
                added.append(record)
        tally.count(given=len(records), added=added, new_subject=old is None)
        body += b"".join(added)
        return body + check(body)

    def put(self, txn: Any, key: bytes, records: list[bytes], tally: Tally) -> None:
        """Merge records into the value of one subject."""
        old = txn.get(key)
        value = self.merge(old, records, tally)
        if value != old:
            txn.put(key, value)

    def remove(self, txn: Any, key: bytes, gone: Callable[[ConsentEvent], bool]) -> int:
        """Forget the records of a subject that `gone` picks, within `write`; how many there were."""
        value = txn.get(key)
        if value is None:
            return 0
        kept, removed = b"", []
        for template, start, end in self.templates.spans(value):
            _, event = template.decode(value, start, end, key)
            if gone(event):
                removed.append(event)
            else:
                kept += value[start:end]
        if removed:
            txn.put(key, kept + check(kept)) if kept else txn.delete(key)
            self._take_from_figures(txn, removed, emptied=not kept)
        return len(removed)

    def _take_from_figures(self, txn: Any, removed: list[ConsentEvent], *, emptied: bool) -> None:
        figures = self.get_meta(txn, "figures", {"subjects": 0, "records": 0, "kinds": {}})
        sources = self.get_meta(txn, "sources", {})
        figures["subjects"] -= emptied
        figures["records"] -= len(removed)
        for event in removed:
            kind, source = str(event.kind), event.capture.source
            figures["kinds"][kind] = figures["kinds"].get(kind, 0) - 1
            if source in sources:
                sources[source]["records"] -= 1
        self.put_meta(txn, "figures", figures)
        self.put_meta(txn, "sources", sources)

    def add_figures(self, txn: Any, tally: Tally, received_at: int, batch: dict[str, Any] | None = None) -> None:
        """Bring the figures in `meta` up to date with a write; `batch` describes an import.

        Only an import with new records shows that a feed is alive: neither one sent again nor an event recorded by hand
        makes the data fresher (`as_of`).
        """
        figures = self.get_meta(txn, "figures", {"subjects": 0, "records": 0, "kinds": {}})
        sources: dict[str, dict[str, int]] = self.get_meta(txn, "sources", {})
        figures["subjects"] += tally.new_subjects
        figures["records"] += tally.added
        for number, (records, latest) in tally.templates.items():
            capture = self.templates[int.from_bytes(number, "big")].capture
            kind = str(capture.kind)
            figures["kinds"][kind] = figures["kinds"].get(kind, 0) + records
            source = sources.setdefault(capture.source, {"event_time": 0, "received_at": 0, "records": 0})
            source["event_time"] = max(source["event_time"], int.from_bytes(latest, "big"))
            source["received_at"] = max(source["received_at"], received_at)
            source["records"] += records
        self.put_meta(txn, "figures", figures)
        self.put_meta(txn, "sources", sources)
        if batch is not None:
            if tally.added:
                self.put_meta(txn, "as_of", max(self.get_meta(txn, "as_of", 0), received_at))
            self.put_meta(txn, "batches", [*self.get_meta(txn, "batches", []), batch])

    def close(self) -> None:
        """Close the file; nothing of it may be used afterwards."""
        self.env.close()

    def _save_templates(self, txn: Any, known: int) -> None:
        for number in range(known, len(self.templates)):
            txn.put(number.to_bytes(4, "big"), self.templates[number].to_json(), db=self._names)

    def _stamp(self, txn: Any, key_id: str) -> None:
        if txn.get(b"schema", db=self._meta) is None:
            self.put_meta(txn, "schema", SCHEMA)
            self.put_meta(txn, "key_id", key_id)

    def _check_size(self) -> None:
        """Refuse a file cut short: reading beyond its end through the memory map would kill the process."""
        wanted = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        if (there := self.path.stat().st_size) < wanted:
            raise DamagedIndexError(f"{self.path}: consent index is cut short: {there} of {wanted} octets; restore it")

    def _check_stamp(self, key_id: str) -> None:
        txn = self.begin()
        schema, written_with = self.get_meta(txn, "schema", 0), self.get_meta(txn, "key_id", "")
        if schema != SCHEMA:
            raise ConsentDataError(f"{self.path}: consent index has schema {schema}; this version reads {SCHEMA}")
        if written_with != key_id:
            raise ConsentDataError(
                f"{self.path}: consent index was written with subject key {written_with}, not {key_id}; "
                "give the key it was written with"
            )

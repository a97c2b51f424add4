"""Held messages in one connection: what is written, in transactions of many, and what is read.

The methods that write are called between `begin` and `commit`. Methods raise `apsw.Error`; those that read messages
raise `DamagedMessageError` and `sealing.UnknownKeyError` too. One thread at a time may use a database.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self, cast

import apsw
import orjson

from .held import OPEN, CopyState, Place
from .hold_codec import (
    CONTENT_COLUMNS,
    COPY_COLUMNS,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    CopyRecord,
    DamagedMessageError,
    Packed,
    StoredMessage,
    pack_record,
    read_message,
    unpack,
    unpack_record,
    with_copies,
)
from .hold_counts import STATES, Counts, Member, Members, counted
from .hold_schema import UNREADABLE, open_file
from .ports import Known
from .sealing import Vault

PLACES: Final = 20  # bits of a row number below the time of arrival
_LAST_TIME: Final = (1 << 63 - PLACES) - 1
_NOTHING: Final[frozenset[Known]] = frozenset()
_UNDONE: Final = frozenset({CopyState.PENDING, CopyState.HELD})

Change = Callable[[int, CopyRecord], CopyRecord | None]  # of the copy with this number; None: it stays as it is


class Changing(NamedTuple):
    """A copy while its message is changed."""

    number: int
    lot: int
    digest: bytes
    record: CopyRecord | None  # None: damaged
    state: str


class Rows(NamedTuple):
    """The rows of one message as they are in the file; `content` is None if it is gone, or not wanted."""

    message: Sequence[object]
    copies: list[Sequence[object]]
    content: Sequence[object] | None


def _into(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names are ours


_INSERT_MESSAGE: Final = _into("message", ("id", *MESSAGE_COLUMNS))
_INSERT_CONTENT: Final = _into("content", ("message", *CONTENT_COLUMNS))
_INSERT_COPY: Final = _into("copy", ("message", "lot", *COPY_COLUMNS))
_SELECT_MESSAGE: Final = f"SELECT {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id = ?"  # noqa: S608 - names are ours
_SELECT_CONTENT: Final = f"SELECT {', '.join(CONTENT_COLUMNS)} FROM content WHERE message = ?"  # noqa: S608 - names are ours
_SELECT_COPIES: Final = f"SELECT {', '.join(COPY_COLUMNS)} FROM copy WHERE message = ? ORDER BY number"  # noqa: S608 - names are ours
_WANTED: Final = "IN (SELECT value FROM json_each(?))"
_MANY_MESSAGES: Final = f"SELECT id, {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id {_WANTED}"  # noqa: S608 - names are ours
_MANY_CONTENTS: Final = f"SELECT message, {', '.join(CONTENT_COLUMNS)} FROM content WHERE message {_WANTED}"  # noqa: S608 - names are ours
_MANY_COPIES: Final = (
    f"SELECT message, {', '.join(COPY_COLUMNS)} FROM copy WHERE message {_WANTED} ORDER BY message, number"  # noqa: S608 - names are ours
)
_SELECT_CHANGING: Final = (
    f"SELECT message, number, lot, digest, {', '.join(RECORD_COLUMNS)} FROM copy"  # noqa: S608 - names are ours
    f" WHERE message {_WANTED} ORDER BY message, number"
)
# The same as octets, for rows that are no text any more.
_SELECT_DAMAGED: Final = re.sub(r"(state|order_id|outcome)(?=,)", r"CAST(\1 AS BLOB)", _SELECT_CHANGING)
_UPDATE_RECORD: Final = (
    f"UPDATE copy SET {', '.join(f'{name} = ?' for name in RECORD_COLUMNS)} WHERE message = ? AND number = ?"  # noqa: S608 - names are ours
)
_PRUNABLE: Final = """
SELECT DISTINCT message FROM copy AS one WHERE state = 'void' AND changed_at < ?
AND NOT EXISTS (SELECT 1 FROM copy AS other WHERE other.message = one.message AND other.state != 'void') LIMIT ?
"""


def first_row(at: int) -> int:
    """The lowest row number of a message received at that time (epoch milliseconds) or later."""
    return min(max(at, 0), _LAST_TIME) << PLACES


def received_at(row: int) -> int:
    """When the message with this row number was received."""
    return row >> PLACES


class HoldDatabase:
    """The file of held mail, through one connection."""

    def __init__(self, connection: apsw.Connection, vault: Vault) -> None:
        self.connection = connection
        self.vault = vault
        self._counts = Counts(connection)

    @classmethod
    def open(
        cls, directory: Path, vault: Vault, *, vfs: str | None = None, readonly: bool = False, create: bool = True
    ) -> Self:
        """Open the file in `directory`; raises HoldDataError and OSError (see `hold_schema`)."""
        return cls(open_file(directory, vfs=vfs, readonly=readonly, create=create), vault)

    def close(self) -> None:
        """Close the connection; what is not committed is undone."""
        self.connection.close(True)

    # Writing

    def begin(self) -> None:
        """Begin to write; waits for other writers."""
        self._counts.clear()
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """On return it is on the disk."""
        self._counts.flush()
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was not committed; nothing if there is nothing."""
        self._counts.clear()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def insert(self, packed: Packed) -> None:
        """Add a message with its copies. A queue id that is there already raises apsw.ConstraintError."""
        first = first_row(packed.message.received_at)
        last = self.connection.execute(
            "SELECT max(id) FROM message WHERE id >= ? AND id < ?", (first, first + (1 << PLACES))
        ).get
        row = first if last is None else int(last) + 1
        self.connection.execute(_INSERT_MESSAGE, (row, *packed.message))
        self.connection.execute(_INSERT_CONTENT, (row, *packed.content))
        copies = [(self._counts.lot(packed.message, copy), copy) for copy in packed.copies]
        self.connection.executemany(_INSERT_COPY, [(row, lot, *copy) for lot, copy in copies])
        self._counts.changed((), tuple([(lot, copy.state) for lot, copy in copies]))

    def change(self, changes: Mapping[int, Change]) -> list[Place]:
        """Change what became of copies of messages, given by row number; which copies are changed.

        A copy that is damaged stays as it is. The content of a message goes with its last open copy.
        """
        changed: list[Place] = []
        updates: list[tuple[str | int, ...]] = []
        closed: list[tuple[int]] = []
        for message, copies in self.changing(changes).items():
            change, after, first = changes.get(message, _unchanged), list[Member](), len(updates)
            for number, lot, digest, record, state in copies:
                new = record and change(number, record)
                if new is None or new == record:
                    after.append((lot, state))
                    continue
                after.append((lot, new.state))
                changed.append(Place(message, number))
                updates.append((*pack_record(digest, new), message, number))
                self._counts.ordered(_waits_for(record), _waits_for(new))
            if len(updates) > first:
                self._counts.changed(_members(copies), counted(after))
                if not any(_may_be_open(state) for _, state in after):
                    closed.append((message,))
        self.connection.executemany(_UPDATE_RECORD, updates)
        self.connection.executemany("DELETE FROM content WHERE message = ?", closed)
        return changed

    def changing(self, messages: Collection[int]) -> dict[int, list[Changing]]:
        """The copies of these messages and where they are, by message."""
        try:
            return self._changing(_SELECT_CHANGING, messages)
        except UnicodeDecodeError:  # in a row that is damaged
            return self._changing(_SELECT_DAMAGED, messages)

    def _changing(self, select: str, messages: Iterable[int]) -> dict[int, list[Changing]]:
        found: dict[int, list[Changing]] = {}
        rows = self.connection.execute(select, (orjson.dumps(list(messages)).decode(),))
        for message, number, lot, digest, *columns in cast("Iterator[tuple[int, int, int, bytes, object]]", rows):
            texts = columns if select is _SELECT_CHANGING else list(map(_as_text, columns))
            record = None
            with suppress(DamagedMessageError):
                record = unpack_record(digest, texts)
            found.setdefault(message, []).append(Changing(number, lot, digest, record, str(texts[0])))
        return found

    def void(self, queue_id: str, at: int) -> None:
        """Undo `insert`: pending and held copies become VOID, and the content goes."""
        self._change_named(queue_id, lambda _, record: _into_state(record, _UNDONE, CopyState.VOID, at))

    def confirm(self, queue_id: str, at: int) -> None:
        """Make the pending copies of a message HELD."""
        pending = (CopyState.PENDING,)
        self._change_named(queue_id, lambda _, record: _into_state(record, pending, CopyState.HELD, at))

    def diverted(self, queue_id: str, numbers: Collection[int], at: int) -> None:
        """Mark these copies as diverted."""
        self._change_named(
            queue_id,
            lambda number, record: _into_state(record, _UNDONE, CopyState.DIVERTED, at) if number in numbers else None,
        )

    def _change_named(self, queue_id: str, change: Change) -> None:
        message = self.number(queue_id)
        if message is not None:
            self.change({message: change})

    def remove(self, message: int) -> None:
        """Remove a message with its copies and its content."""
        self.remove_all({message: self.changing([message]).get(message, [])})

    def remove_all(self, messages: Mapping[int, Sequence[Changing]]) -> None:
        """The same for many, whose copies are as `changing` gave them in this transaction."""
        for copies in messages.values():
            self._counts.changed(_members(copies), ())
            for copy in copies:
                self._counts.ordered(_waits_for(copy.record), "")
        rows = [(message,) for message in messages]
        for table, column in (("content", "message"), ("copy", "message"), ("message", "id")):
            self.connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", rows)  # noqa: S608 - a closed list of names

    def remove_copies(self, message: int, numbers: Collection[int]) -> None:
        """Remove these copies of a message, and the message if none is left."""
        copies = self.changing([message]).get(message, [])
        left = [copy for copy in copies if copy.number not in numbers]
        if not left:
            self.remove(message)
            return
        self._counts.changed(_members(copies), _members(left))
        for copy in copies:
            if copy.number in numbers:
                self._counts.ordered(_waits_for(copy.record), "")
                self.connection.execute("DELETE FROM copy WHERE message = ? AND number = ?", (message, copy.number))
        if not any(_may_be_open(copy.state) for copy in left):
            self.connection.execute("DELETE FROM content WHERE message = ?", (message,))
        with suppress(DamagedMessageError, UnicodeDecodeError):  # which stays damaged
            row = read_message(self.connection.execute(_SELECT_MESSAGE, (message,)).fetchone() or ())
            row = with_copies(row, len(left))
            self.connection.execute(
                "UPDATE message SET copies = ?, digest = ? WHERE id = ?", (row.copies, row.digest, message)
            )

    def remember(self, key: bytes, kind: Known, at: int) -> None:
        """Remember a message key from now on."""
        self.connection.execute("INSERT OR REPLACE INTO message_key (key, kind, at) VALUES (?, ?, ?)", (key, kind, at))

    def suspect(self, key: bytes, at: int) -> None:
        """Remember that it killed a worker: once may be chance, twice is not."""
        self.remember(key, Known.UNSCANNABLE if Known.SUSPECT in self.known(key) else Known.SUSPECT, at)

    def forget(self, key: bytes, kind: Known) -> bool:
        """Remember it no more; whether it was remembered."""
        self.connection.execute("DELETE FROM message_key WHERE key = ? AND kind = ?", (key, kind))
        return self.connection.changes() > 0

    def note(self, name: str, value: str) -> None:
        """Keep a remark on the store as a whole, in place of an earlier one of that name."""
        self.connection.execute("INSERT OR REPLACE INTO note (name, value) VALUES (?, ?)", (name, value))

    def forget_note(self, name: str) -> None:
        """Keep the remark no more."""
        self.connection.execute("DELETE FROM note WHERE name = ?", (name,))

    def prune(self, before: int, limit: int) -> int:
        """Remove keys and void messages from before that time (epoch milliseconds), so many at most; how many."""
        keys = self.connection.execute(
            "DELETE FROM message_key WHERE (key, kind) IN (SELECT key, kind FROM message_key WHERE at < ? LIMIT ?)"
            " RETURNING 1",
            (before, limit),
        ).fetchall()
        messages = cast("list[tuple[int]]", self.connection.execute(_PRUNABLE, (before, limit)).fetchall())
        for (message,) in messages:
            self.remove(message)
        self._counts.prune(limit)
        return len(keys) + len(messages)

    # Reading

    def known(self, key: bytes) -> frozenset[Known]:
        """What is remembered of the key."""
        found = self.connection.execute("SELECT kind FROM message_key WHERE key = ?", (key,)).fetchall()
        return frozenset([Known(str(kind)) for (kind,) in found]) if found else _NOTHING

    def notes(self) -> dict[str, str]:
        """The remarks on the store as a whole."""
        return dict(self.connection.execute("SELECT name, value FROM note"))

    def get(self, queue_id: str, *, content: bool = True) -> StoredMessage | None:
        """The message as it was stored, verified, with or without its content; None if there is none."""
        try:
            number = self.number(queue_id)
        except UNREADABLE:
            number = self._number_by_scan(queue_id)
        return None if number is None else self.read(number, content=content)

    def read(self, number: int, *, content: bool = True) -> StoredMessage:
        """The message with this row number."""
        message, copies, row = self.rows(number, content=content)
        stored = unpack(message, row, copies, self.vault)
        if content and row is None and any(record.state in OPEN for record in stored.records):
            raise DamagedMessageError("its content is gone")
        return stored

    def rows(self, number: int, *, content: bool = True) -> Rows:
        """The rows of a message, its copies and its content, as they are in the file."""
        try:
            message = self.connection.execute(_SELECT_MESSAGE, (number,)).fetchone()
            if message is None:
                raise DamagedMessageError("its row is gone")
            copies = self.connection.execute(_SELECT_COPIES, (number,)).fetchall()
            row = self.connection.execute(_SELECT_CONTENT, (number,)).fetchone() if content else None
        except UNREADABLE as error:
            raise DamagedMessageError(f"the file is damaged where it is kept: {error}") from error
        return Rows(message, cast("list[Sequence[object]]", copies), row)

    def rows_of(self, numbers: Collection[int]) -> dict[int, Rows]:
        """The rows of many messages, without content, by few statements; what cannot be read whole is left out."""
        try:
            return self._rows_of(numbers)
        except UNREADABLE:  # the file is damaged somewhere: what can be read is read one by one
            found: dict[int, Rows] = {}
            for number in numbers:
                with suppress(DamagedMessageError):
                    found[number] = self.rows(number, content=False)
            return found

    def contents_of(self, numbers: Collection[int]) -> dict[int, Sequence[object]]:
        """The rows of the content of many messages; those that are gone or cannot be read are left out."""
        try:
            wanted = (orjson.dumps(list(numbers)).decode(),)
            return dict(_by_first(self.connection.execute(_MANY_CONTENTS, wanted).fetchall()))
        except UNREADABLE:
            found: dict[int, Sequence[object]] = {}
            for number in numbers:
                with suppress(*UNREADABLE):
                    found |= _by_first(self.connection.execute(_MANY_CONTENTS, (f"[{number}]",)).fetchall())
            return found

    def _rows_of(self, numbers: Iterable[int]) -> dict[int, Rows]:
        wanted = (orjson.dumps(list(numbers)).decode(),)
        copies: dict[int, list[Sequence[object]]] = {}
        for message, *copy in cast("Iterator[tuple[int, object]]", self.connection.execute(_MANY_COPIES, wanted)):
            copies.setdefault(message, []).append(copy)
        messages = _by_first(self.connection.execute(_MANY_MESSAGES, wanted).fetchall())
        return {number: Rows(row, copies.get(number, []), None) for number, row in messages}

    def number(self, queue_id: str) -> int | None:
        """The row number of a message; None if there is none."""
        found = self.connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).get
        return None if found is None else int(found)

    def _number_by_scan(self, queue_id: str) -> int | None:
        """The row number without the index, which is damaged."""
        try:
            found = self.connection.execute("SELECT id FROM message NOT INDEXED WHERE queue_id = ?", (queue_id,)).get
        except UNREADABLE as error:
            raise DamagedMessageError(f"the file is damaged where it is looked for: {error}") from error
        return None if found is None else int(found)


def _as_text(column: object) -> object:
    return column.decode(errors="replace") if isinstance(column, bytes) else column


def _by_first(rows: object) -> Iterator[tuple[int, Sequence[object]]]:
    return ((row[0], row[1:]) for row in cast("list[tuple[int, object]]", rows))


def _unchanged(_: int, _record: CopyRecord) -> None:
    """For what is found where it does not belong."""


def _members(copies: Iterable[Changing]) -> Members:
    return counted((copy.lot, copy.state) for copy in copies)


def _may_be_open(state: str) -> bool:
    """Whether a copy is open, or so damaged that nobody knows."""
    return state in OPEN or state not in STATES


def _into_state(record: CopyRecord, those: Collection[CopyState], state: CopyState, at: int) -> CopyRecord | None:
    return record._replace(state=state, changed_at=at) if record.state in those else None


def _waits_for(record: CopyRecord | None) -> str:
    """The order that has released a copy; empty if none has."""
    return record.order if record is not None and record.state is CopyState.RELEASED else ""

"""Held messages in one connection: what is written, in transactions of many, and what is read.

The methods that write are called between `begin` and `commit`. Methods raise `apsw.Error`; `get` raises
`DamagedMessageError` too. One thread at a time may use a database.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, cast

import apsw

from .envelope import RcptTo
from .held import OPEN, CopyState
from .hold_codec import (
    CONTENT_COLUMNS,
    COPY_COLUMNS,
    MESSAGE_COLUMNS,
    DamagedMessageError,
    Packed,
    StoredMessage,
    unpack,
)
from .hold_schema import UNREADABLE, open_file
from .policy import Disposition
from .ports import HeldCopy, Known

_NOTHING: Final[frozenset[Known]] = frozenset()
_PAGE: Final = 500  # rows of one look, so that a long reading never keeps the log from being emptied


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """One recipient's copy, verified, and where it is in its life. `changed_at` is in epoch milliseconds."""

    queue_id: str
    number: int
    copy: HeldCopy
    state: CopyState
    changed_at: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A message that cannot be read as it was stored. It stays in the file."""

    queue_id: str  # empty if not even that can be read
    what: str


def _into(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names are ours


_INSERT_MESSAGE: Final = _into("message", MESSAGE_COLUMNS)
_INSERT_CONTENT: Final = _into("content", ("message", *CONTENT_COLUMNS))
_INSERT_COPY: Final = _into("copy", ("message", *COPY_COLUMNS))
_SELECT_MESSAGE: Final = f"SELECT {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id = ?"  # noqa: S608 - names are ours
_SELECT_CONTENT: Final = f"SELECT {', '.join(CONTENT_COLUMNS)} FROM content WHERE message = ?"  # noqa: S608 - names are ours
_SELECT_COPIES: Final = f"SELECT {', '.join(COPY_COLUMNS)} FROM copy WHERE message = ? ORDER BY number"  # noqa: S608 - names are ours
_SELECT_NUMBERS: Final = "SELECT id, queue_id FROM message WHERE id > ? ORDER BY id LIMIT ?"
_BY_NAME: Final = "message INDEXED BY sqlite_autoindex_message_1"  # the index alone, without the table
_SELECT_NAMES: Final = f"SELECT id, queue_id FROM {_BY_NAME} WHERE queue_id > ? ORDER BY queue_id LIMIT ?"  # noqa: S608 - names are ours
_OPEN: Final = ", ".join(f"'{state}'" for state in sorted(OPEN))
_DROP_CONTENT: Final = (
    "DELETE FROM content WHERE message = ?1"  # noqa: S608 - names are ours
    f" AND NOT EXISTS (SELECT 1 FROM copy WHERE message = ?1 AND state IN ({_OPEN}))"
)
_PRUNABLE: Final = """
SELECT DISTINCT message FROM copy AS one WHERE state = 'void' AND changed_at < ?
AND NOT EXISTS (SELECT 1 FROM copy AS other WHERE other.message = one.message AND other.state != 'void') LIMIT ?
"""


class HoldDatabase:
    """The file of held mail, through one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, directory: Path, *, vfs: str | None = None, readonly: bool = False, create: bool = True) -> Self:
        """Open the file in `directory`; raises HoldDataError and OSError (see `hold_schema`)."""
        return cls(open_file(directory, vfs=vfs, readonly=readonly, create=create))

    def close(self) -> None:
        """Close the connection; what is not committed is undone."""
        self.connection.close(True)

    # Writing

    def begin(self) -> None:
        """Begin to write; waits for other writers."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """On return it is on the disk."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was not committed; nothing if there is nothing."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def insert(self, packed: Packed) -> None:
        """Add a message with its copies. A queue id that is there already raises apsw.ConstraintError."""
        self.connection.execute(_INSERT_MESSAGE, packed.message)
        message = self.connection.last_insert_rowid()
        self.connection.execute(_INSERT_CONTENT, (message, *packed.content))
        self.connection.executemany(_INSERT_COPY, ((message, *copy) for copy in packed.copies))

    def void(self, queue_id: str, at: int) -> None:
        """Undo `insert`: held copies become VOID and the content goes. Nothing if there is no such message."""
        message = self._number(queue_id)
        if message is not None:
            self.connection.execute(
                "UPDATE copy SET state = 'void', changed_at = ? WHERE message = ? AND state IN ('held', 'pending')",
                (at, message),
            )
            self.connection.execute(_DROP_CONTENT, (message,))

    def confirm(self, queue_id: str, at: int) -> None:
        """Make the pending copies of a message HELD."""
        self.connection.execute(
            "UPDATE copy SET state = 'held', changed_at = ? WHERE state = 'pending'"
            " AND message = (SELECT id FROM message WHERE queue_id = ?)",
            (at, queue_id),
        )

    def diverted(self, queue_id: str, recipients: Sequence[RcptTo], at: int) -> None:
        """Mark one copy to be diverted for each of these recipients; the content goes with the last open copy."""
        message = self._number(queue_id)
        if message is None:
            return
        self.connection.executemany(
            "UPDATE copy SET state = 'diverted', changed_at = ?1 WHERE message = ?2 AND number = (SELECT min(number)"
            " FROM copy WHERE message = ?2 AND path = ?3 AND params = ?4 AND disposition = ?5"
            " AND state IN ('held', 'pending'))",
            ((at, message, one.path, b" ".join(one.params), str(Disposition.DIVERT)) for one in recipients),
        )
        self.connection.execute(_DROP_CONTENT, (message,))

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

    def prune(self, before: int, limit: int) -> int:
        """Remove keys and void messages from before that time (epoch milliseconds), so many at most; how many."""
        keys = self.connection.execute(
            "DELETE FROM message_key WHERE (key, kind) IN (SELECT key, kind FROM message_key WHERE at < ? LIMIT ?)"
            " RETURNING 1",
            (before, limit),
        ).fetchall()
        messages = self.connection.execute(_PRUNABLE, (before, limit)).fetchall()
        for table, column in (("content", "message"), ("copy", "message"), ("message", "id")):
            self.connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", messages)  # noqa: S608 - a closed list of names
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
            number = self._number(queue_id)
        except UNREADABLE:
            number = self._number_by_scan(queue_id)
        return None if number is None else self.read(number, content=content)

    def read(self, number: int, *, content: bool = True) -> StoredMessage:
        """The message with this row number."""
        try:
            message = self.connection.execute(_SELECT_MESSAGE, (number,)).fetchone()
            if message is None:
                raise DamagedMessageError("its row is gone")
            copies = self.connection.execute(_SELECT_COPIES, (number,)).fetchall()
            row = self.connection.execute(_SELECT_CONTENT, (number,)).fetchone() if content else None
        except UNREADABLE as error:
            raise DamagedMessageError(f"the file is damaged where it is kept: {error}") from error
        stored = unpack(message, row, copies)
        if content and row is None and any(record.state in OPEN for record in stored.records):
            raise DamagedMessageError("its content is gone")
        return stored

    def numbers(self) -> Iterator[tuple[int, str]]:
        """Row number and queue id (empty if unreadable) of every message, in the order of arrival.

        Where the table is damaged every number that may have been there is given, to be tried by `read`.
        """
        last = 0
        try:
            while rows := self.connection.execute(_SELECT_NUMBERS, (last, _PAGE)).fetchall():
                for row in rows:
                    last, queue_id = cast("tuple[int, str]", row)
                    yield last, queue_id
        except UNREADABLE:
            yield from self._probe(last + 1)

    def lost(self) -> Iterator[str]:
        """Queue ids that are in the index, but whose row is in the table no more: damage that `numbers` cannot show."""
        last = ""
        with suppress(*UNREADABLE):
            while rows := self.connection.execute(_SELECT_NAMES, (last, _PAGE)).fetchall():
                found = cast("list[tuple[int, str]]", rows)
                last = found[-1][1]
                yield from (queue_id for number, queue_id in found if self._gone(number))

    def _gone(self, number: int) -> bool:
        with suppress(*UNREADABLE):
            return self.connection.execute("SELECT id FROM message WHERE id = ?", (number,)).fetchone() is None
        return False  # unreadable, which `numbers` tells

    def _probe(self, first: int) -> Iterator[tuple[int, str]]:
        for number in range(first, self._highest() + 1):
            try:
                found = self.connection.execute("SELECT queue_id FROM message WHERE id = ?", (number,)).fetchone()
            except UNREADABLE:
                yield number, self._name(number)
            else:
                if found is not None:
                    yield number, str(found[0])

    def _highest(self) -> int:
        """The highest row number that is used anywhere."""
        highest = 0
        for column, source in (("id", _BY_NAME), ("message", "content"), ("message", "copy")):
            with suppress(*UNREADABLE):
                found = self.connection.execute(f"SELECT max({column}) FROM {source}").get  # noqa: S608 - a closed list of names
                highest = max(highest, int(found or 0))
        return highest

    def _name(self, number: int) -> str:
        """The queue id of a message whose row is unreadable, from the index."""
        with suppress(*UNREADABLE):
            found = self.connection.execute(f"SELECT queue_id FROM {_BY_NAME} WHERE +id = ?", (number,)).get  # noqa: S608 - names are ours
            return str(found or "")
        return ""

    def copies(self) -> Iterator[StoredCopy | Damage]:
        """Every copy in the store, and what is damaged among them; memory does not grow with the store."""
        for number, queue_id in self.numbers():
            try:
                stored = self.read(number, content=False)
            except DamagedMessageError as error:
                yield Damage(queue_id, str(error))
                continue
            for place, (copy, record) in enumerate(zip(stored.message.copies, stored.records, strict=True)):
                yield StoredCopy(queue_id, place, copy, record.state, record.changed_at)

    def _number(self, queue_id: str) -> int | None:
        found = self.connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).get
        return None if found is None else int(found)

    def _number_by_scan(self, queue_id: str) -> int | None:
        """The row number without the index, which is damaged."""
        try:
            found = self.connection.execute("SELECT id FROM message NOT INDEXED WHERE queue_id = ?", (queue_id,)).get
        except UNREADABLE as error:
            raise DamagedMessageError(f"the file is damaged where it is looked for: {error}") from error
        return None if found is None else int(found)

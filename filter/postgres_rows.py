"""Rows of held mail in PostgreSQL: how messages are added, how copies are locked and changed, how a message is read.

Functions are called within a transaction of the caller's and raise what psycopg raises. Whoever changes copies locks
them with their messages, in the order of their places, so that nobody waits for each other in a circle and the content
goes with the last open copy.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
import psycopg

from .held import OPEN, Place
from .hold_codec import (
    CONTENT_COLUMNS,
    COPY_COLUMNS,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    CopyRecord,
    CopyRow,
    DamagedMessageError,
    MessageRow,
    Packed,
    StoredMessage,
    pack_record,
    unpack,
    unpack_record,
)
from .sealing import Vault

Connection = psycopg.Connection[tuple[Any, ...]]
Rows = tuple[Sequence[Any], Sequence[Any] | None, list[Sequence[Any]]]  # of a message, its content and its copies

ARRIVAL: Final = 1 << 20
"""A message's row number divided by this is when it was received."""

LOT_COLUMNS: Final = ("campaign", "label", "declared", "controller", "brand", "topic", "reason", "evidence")
_OF_COPY: Final = ("reason", "evidence")

# PostgreSQL's text holds every character but NUL, which a hostile header may have.
_ESCAPE, _NUL, _ITSELF = "\uf8ff", "\uf8ff0", "\uf8ff1"

_TYPES: Final = {int: "bigint", bytes: "bytea", str: "text"}
_COPY_TYPES: Final = tuple(_TYPES[kind] for kind in CopyRow.__annotations__.values())
_NAMES: Final = ", ".join(MESSAGE_COLUMNS)
_COPY_NAMES: Final = ", ".join(COPY_COLUMNS)
_INSERT: Final = (
    f"WITH one AS (INSERT INTO message (id, {_NAMES}) VALUES"  # noqa: S608 - names are ours
    f" (%b::bigint * {ARRIVAL} + (nextval('message_sequence') & {ARRIVAL - 1}),"
    f" {', '.join(['%b'] * len(MESSAGE_COLUMNS))})"
    f" RETURNING id), body AS (INSERT INTO content (message, {', '.join(CONTENT_COLUMNS)}) SELECT id, %b, %b FROM one)"
    f" INSERT INTO copy (message, lot, {_COPY_NAMES}) SELECT one.id, each.* FROM one,"
    f" unnest(%b::bigint[], {', '.join(f'%b::{kind}[]' for kind in _COPY_TYPES)}) AS each"
)
_INSERT_LOTS: Final = (
    f"INSERT INTO lot (digest, {', '.join(LOT_COLUMNS)}) SELECT * FROM"  # noqa: S608 - names are ours
    f" unnest(%s::bytea[], {', '.join(['%s::text[]'] * len(LOT_COLUMNS))}) ON CONFLICT DO NOTHING"
)
KEPT: Final = f"copy.message, copy.number, copy.digest, {', '.join(f'copy.{name}' for name in RECORD_COLUMNS)}"
_CHANGE: Final = (
    f"UPDATE copy SET ({', '.join(RECORD_COLUMNS)}) = ({', '.join(f'new.{name}' for name in RECORD_COLUMNS)})"  # noqa: S608 - names are ours
    " FROM unnest(%s::bigint[], %s::bigint[],"
    f" {', '.join(f'%s::{_COPY_TYPES[COPY_COLUMNS.index(name)]}[]' for name in RECORD_COLUMNS)})"
    f" AS new (message, number, {', '.join(RECORD_COLUMNS)})"
    " WHERE copy.message = new.message AND copy.number = new.number"
)
_OPEN_STATES: Final = [str(state) for state in OPEN]


class Kept(NamedTuple):
    """A copy that is locked: where, the digest of what does not change, and what became of it so far."""

    place: Place
    digest: bytes
    record: CopyRecord


class Lots:
    """The numbers of lots, as far as this process has met them; they never go. For one thread."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._ids: dict[tuple[str, ...], int] = {}

    def find(self, connection: Connection, packed: Sequence[Packed]) -> list[list[int]]:
        """For each message the lot of each of its copies. Lots that are new are committed, so call it first of all."""
        wanted = [[_lot(one.message, copy) for copy in one.copies] for one in packed]
        missing = {lot for lots in wanted for lot in lots if lot not in self._ids}
        if missing:
            if len(self._ids) + len(missing) > self._most:
                self._ids = {}
                missing = {lot for lots in wanted for lot in lots}
            self._ids |= _add_lots(connection, missing)
        return [[self._ids[lot] for lot in lots] for lots in wanted]


def _lot(message: MessageRow, copy: CopyRow) -> tuple[str, ...]:
    return tuple(getattr(copy if name in _OF_COPY else message, name) for name in LOT_COLUMNS)


def _add_lots(connection: Connection, missing: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    digests = {blake2b(orjson.dumps(lot), digest_size=16, person=b"lot").digest(): lot for lot in missing}
    in_order = sorted(digests)  # so that two who add the same lots do not wait in a circle
    columns = zip(*(to_text(digests[digest]) for digest in in_order), strict=True)
    connection.execute(_INSERT_LOTS, (in_order, *(list(column) for column in columns)))
    found = connection.execute("SELECT digest, id FROM lot WHERE digest = ANY(%s)", (in_order,)).fetchall()
    return {digests[digest]: number for digest, number in found}


def insert(connection: Connection, packed: Sequence[Packed], lots: Sequence[Sequence[int]]) -> None:
    """Add messages with their copies. A queue id that is there already raises psycopg.IntegrityError."""
    with connection.pipeline():
        for one, numbers in zip(packed, lots, strict=True):
            rows = [to_text(copy) for copy in one.copies]
            columns = [[row[at] for row in rows] for at in range(len(COPY_COLUMNS))]
            message = (one.message.received_at, *to_text(one.message))
            connection.execute(_INSERT, (*message, *one.content, list(numbers), *columns))


def lock(connection: Connection, messages: Sequence[int]) -> None:
    """Let nobody else change these messages and their copies."""
    connection.execute("SELECT FROM message WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (sorted(set(messages)),))


def kept(connection: Connection, where: str, values: Sequence[object]) -> list[Kept]:
    """The copies of which this holds, locked; those that are damaged are left out."""
    query = f"SELECT {KEPT} FROM copy WHERE {where} ORDER BY message, number FOR UPDATE"  # noqa: S608 - names are ours
    return read_kept(connection.execute(query, values).fetchall())


def read_kept(rows: Iterable[Sequence[Any]]) -> list[Kept]:
    """Rows of KEPT as what they say; those that are damaged are left out."""
    found = []
    for message, number, digest, *columns in rows:
        with suppress(DamagedMessageError):
            found.append(Kept(Place(message, number), digest, unpack_record(digest, from_text(columns))))
    return found


def change(connection: Connection, changes: Iterable[tuple[Kept, CopyRecord]]) -> list[Place]:
    """Write what became of copies that are locked; their places."""
    pairs = list(changes)
    if pairs:
        rows = [(*one.place, *to_text(pack_record(one.digest, record))) for one, record in pairs]
        connection.execute(_CHANGE, [list(column) for column in zip(*rows, strict=True)])
    return [one.place for one, _ in pairs]


def drop_content(connection: Connection, messages: Iterable[int]) -> None:
    """Remove the content of those messages (locked) that have no open copy any more."""
    numbers = list(set(messages))
    if numbers:
        connection.execute(
            "DELETE FROM content WHERE message = ANY(%s) AND NOT EXISTS"
            " (SELECT FROM copy WHERE copy.message = content.message AND copy.state = ANY(%s))",
            (numbers, _OPEN_STATES),
        )


def stored(connection: Connection, queue_id: str, vault: Vault) -> StoredMessage | None:
    """A message with its content, verified; None if there is none. Raises DamagedMessageError, UnknownKeyError."""
    number = number_of(connection, queue_id)
    rows = None if number is None else read(connection, number, content=True)
    return verified(rows, vault) if rows else None


def verified(rows: Rows, vault: Vault) -> StoredMessage:
    """The message of rows that were read with its content. Raises DamagedMessageError, UnknownKeyError."""
    one = unpack(*rows, vault)
    if not one.has_content and any(record.state in OPEN for record in one.records):
        raise DamagedMessageError("its content is gone")
    return one


def read(connection: Connection, message: int, *, content: bool) -> Rows | None:
    """The rows of a message, its content (None if it is gone or not wanted) and its copies, as `unpack` wants them."""
    row = connection.execute(f"SELECT {_NAMES} FROM message WHERE id = %s", (message,)).fetchone()  # noqa: S608 - names are ours
    if row is None:
        return None
    copies = connection.execute(
        f"SELECT {_COPY_NAMES} FROM copy WHERE message = %s ORDER BY number",  # noqa: S608 - names are ours
        (message,),
    ).fetchall()
    return from_text(row), _content(connection, message) if content else None, [from_text(copy) for copy in copies]


def _content(connection: Connection, message: int) -> Sequence[Any] | None:
    query = f"SELECT {', '.join(CONTENT_COLUMNS)} FROM content WHERE message = %s"  # noqa: S608 - names are ours
    return connection.execute(query, (message,), binary=True).fetchone()


def number_of(connection: Connection, queue_id: str) -> int | None:
    """The row number of a message."""
    row = connection.execute("SELECT id FROM message WHERE queue_id = %s", (text_in(queue_id),)).fetchone()
    return int(row[0]) if row else None


def text_in(text: str) -> str:
    """Text as PostgreSQL takes it."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)
    return text


def text_out(text: str) -> str:
    """Text as it was."""
    if _ESCAPE in text:
        return text.replace(_NUL, "\0").replace(_ITSELF, _ESCAPE)
    return text


def to_text(row: Iterable[Any]) -> tuple[Any, ...]:
    """A row as PostgreSQL takes it."""
    return tuple([text_in(value) if isinstance(value, str) else value for value in row])


def from_text(row: Iterable[Any]) -> tuple[Any, ...]:
    """A row as it was."""
    return tuple([text_out(value) if isinstance(value, str) else value for value in row])

"""Every held message from end to end, through one connection, also where the file is damaged.

Memory does not grow with the store, and no reading lasts so long that it keeps the log from being emptied. Raises
`apsw.Error`; damage is told, never raised.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from typing import Final, cast

import apsw

from .held import CopyState
from .hold_codec import DamagedMessageError
from .hold_database import HoldDatabase
from .hold_schema import UNREADABLE
from .ports import HeldCopy
from .sealing import UnknownKeyError

_PAGE: Final = 500  # rows of one look
_BY_NAME: Final = "message INDEXED BY sqlite_autoindex_message_1"  # the index alone, without the table
_SELECT_NUMBERS: Final = "SELECT id, queue_id FROM message WHERE id > ? ORDER BY id LIMIT ?"
_SELECT_NAMES: Final = f"SELECT id, queue_id FROM {_BY_NAME} WHERE queue_id > ? ORDER BY queue_id LIMIT ?"  # noqa: S608 - names are ours


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


def copies(database: HoldDatabase) -> Iterator[StoredCopy | Damage]:
    """Every copy in the store, and what is damaged, or sealed with a key that is not there, among them."""
    for number, queue_id in numbers(database.connection):
        try:
            stored = database.read(number, content=False)
        except (DamagedMessageError, UnknownKeyError) as error:
            yield Damage(queue_id, str(error))
            continue
        for place, (copy, record) in enumerate(zip(stored.message.copies, stored.records, strict=True)):
            yield StoredCopy(queue_id, place, copy, record.state, record.changed_at)


def numbers(connection: apsw.Connection) -> Iterator[tuple[int, str]]:
    """Row number and queue id (empty if unreadable) of every message, in the order of arrival.

    Where the table is damaged every number that is found anywhere else is given, to be tried by `read`.
    """
    last = -1
    try:
        while rows := connection.execute(_SELECT_NUMBERS, (last, _PAGE)).fetchall():
            for row in rows:
                last, queue_id = cast("tuple[int, str]", row)
                yield last, queue_id
    except UNREADABLE:
        yield from _probe(connection, last)


def lost(connection: apsw.Connection) -> Iterator[str]:
    """Queue ids that are in the index, but whose row is in the table no more: damage that `numbers` cannot show."""
    last = ""
    with suppress(*UNREADABLE):
        while rows := connection.execute(_SELECT_NAMES, (last, _PAGE)).fetchall():
            found = cast("list[tuple[int, str]]", rows)
            last = found[-1][1]
            yield from (queue_id for number, queue_id in found if _gone(connection, number))


def _gone(connection: apsw.Connection, number: int) -> bool:
    with suppress(*UNREADABLE):
        return connection.execute("SELECT id FROM message WHERE id = ?", (number,)).fetchone() is None
    return False  # unreadable, which `numbers` tells


def _probe(connection: apsw.Connection, after: int) -> Iterator[tuple[int, str]]:
    last = after
    for number in merge(*(_numbers_in(connection, table, after) for table in ("content", "copy"))):
        if number == last:
            continue
        last = number
        try:
            found = connection.execute("SELECT queue_id FROM message WHERE id = ?", (number,)).fetchone()
        except UNREADABLE:
            yield number, _name(connection, number)
        else:
            if found is not None:
                yield number, str(found[0])


def _numbers_in(connection: apsw.Connection, table: str, after: int) -> Iterator[int]:
    """The row numbers of messages that another table has, ascending, as far as it can be read."""
    sql = f"SELECT message FROM {table} WHERE message > ? ORDER BY message LIMIT ?"  # noqa: S608 - a closed list of names
    with suppress(*UNREADABLE):
        while rows := connection.execute(sql, (after, _PAGE)).fetchall():
            for (number,) in cast("list[tuple[int]]", rows):
                after = number
                yield after


def _name(connection: apsw.Connection, number: int) -> str:
    """The queue id of a message whose row is unreadable, from the index."""
    with suppress(*UNREADABLE):
        found = connection.execute(f"SELECT queue_id FROM {_BY_NAME} WHERE +id = ?", (number,)).get  # noqa: S608 - names are ours
        return str(found or "")
    return ""

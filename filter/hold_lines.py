"""Held copies as the lines of a list, verified, without content and addresses. Raises `apsw.Error`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, cast

import orjson

from .held import HeldLine, Place
from .hold_codec import COPY_COLUMNS, MESSAGE_COLUMNS, DamagedMessageError, MessageRow, line_of, read_copy, read_message
from .hold_database import HoldDatabase
from .hold_schema import UNREADABLE

_THESE: Final = "(SELECT value FROM json_each(?))"
_MESSAGES: Final = f"SELECT id, {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id IN {_THESE}"  # noqa: S608 - names are ours
_COPIES: Final = (
    f"SELECT message, {', '.join(COPY_COLUMNS)} FROM copy WHERE message IN {_THESE} ORDER BY message, number"  # noqa: S608 - names are ours
)


def by_message(places: Sequence[Place]) -> dict[int, set[int]]:
    """The numbers of the copies of each message."""
    found: dict[int, set[int]] = {}
    for message, number in places:
        found.setdefault(message, set()).add(number)
    return found


def lines_of(database: HoldDatabase, places: Sequence[Place]) -> list[HeldLine]:
    """The lines of these copies, in the order of their places; what is damaged is left out."""
    wanted = by_message(places)
    try:
        return list(_lines(database, wanted))
    except UNREADABLE:  # one of them is on a page that is damaged
        return [line for message, numbers in wanted.items() for line in _lines_if_readable(database, message, numbers)]


def _lines_if_readable(database: HoldDatabase, message: int, numbers: set[int]) -> list[HeldLine]:
    with suppress(*UNREADABLE):
        return list(_lines(database, {message: numbers}))
    return []


def _lines(database: HoldDatabase, wanted: dict[int, set[int]]) -> Iterator[HeldLine]:
    these = (orjson.dumps(list(wanted)).decode(),)
    messages: dict[int, MessageRow] = {}
    for number, *columns in cast("Iterator[tuple[int, object]]", database.connection.execute(_MESSAGES, these)):
        with suppress(DamagedMessageError):
            messages[number] = read_message(columns)
    for message, *columns in cast("Iterator[tuple[int, object]]", database.connection.execute(_COPIES, these)):
        row = messages.get(message)
        if row is not None and columns[0] in wanted[message]:
            with suppress(DamagedMessageError):
                copy = read_copy(row.queue_id, columns)
                yield line_of(Place(message, copy.number), row, copy)

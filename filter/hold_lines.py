"""Held copies as the lines of a list, verified, without content and addresses. Raises `apsw.Error`."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from .held import HeldLine, Place
from .hold_codec import DamagedMessageError, line_of, read_copy, read_message
from .hold_database import HoldDatabase, Rows


def by_message(places: Sequence[Place]) -> dict[int, set[int]]:
    """The numbers of the copies of each message."""
    found: dict[int, set[int]] = {}
    for message, number in places:
        found.setdefault(message, set()).add(number)
    return found


def lines_of(database: HoldDatabase, places: Sequence[Place]) -> list[HeldLine]:
    """The lines of these copies, in the order they were stored; what is damaged is left out."""
    wanted, lines = by_message(places), list[HeldLine]()
    found = database.rows_of(wanted)
    for message, numbers in wanted.items():
        if rows := found.get(message):
            with suppress(DamagedMessageError):
                lines += _lines(message, numbers, rows)
    return lines


def _lines(message: int, numbers: Collection[int], rows: Rows) -> Iterator[HeldLine]:
    row = read_message(rows.message)
    for columns in rows.copies:
        if columns[0] in numbers:
            with suppress(DamagedMessageError):
                copy = read_copy(row.queue_id, columns)
                yield line_of(Place(message, copy.number), row, copy)

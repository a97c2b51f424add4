"""What is over removed from held mail, so that the file stops growing: its pages are used again by what comes.

A message goes, with its copies, when every copy ended long enough ago; an order when it was given long ago and no copy
names it. What is damaged stays: nobody knows when it ended. Within a transaction of the caller's; bounded by the
limits given. Raises `apsw.Error`.
"""

from collections.abc import Sequence
from typing import Final, cast

import apsw

from .held import ENDED, OPEN, Ended, Place, Pruned
from .hold_database import Changing, HoldDatabase

_STATES: Final = ", ".join(f"'{state}'" for state in sorted(ENDED))
_OLDEST: Final = (
    "SELECT changed_at, message, number FROM copy INDEXED BY copy_ended"  # noqa: S608 - a closed list of words
    f" WHERE state IN ({_STATES}) AND changed_at < ? AND (changed_at, message, number) > (?, ?, ?)"
    " ORDER BY changed_at, message, number LIMIT ?"
)
_ORDERS: Final = (
    "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE at < ? AND waiting = 0 AND NOT EXISTS"
    " (SELECT 1 FROM copy INDEXED BY copy_by_order WHERE order_id = orders.id AND order_id != '') LIMIT ?)"
)
_FIRST: Final = Ended(-1, Place(-1, -1))


def prune_ended(database: HoldDatabase, before: int, after: Ended | None, limit: int) -> Pruned:
    """Remove messages of up to so many copies that ended before that time, if all of their copies did."""
    at, place = after or _FIRST
    rows = cast(
        "list[tuple[int, int, int]]", database.connection.execute(_OLDEST, (before, at, *place, limit)).fetchall()
    )
    found = database.changing({message for _, message, _ in rows})
    over = {message: copies for message, copies in found.items() if _over(copies, before)}
    database.remove_all(over)
    last = Ended(rows[-1][0], Place(*rows[-1][1:])) if len(rows) == limit else None
    return Pruned(len(over), sum(map(len, over.values())), last)


def prune_orders(connection: apsw.Connection, before: int, limit: int) -> int:
    """Remove orders given before that time that no copy names, so many at most; how many."""
    connection.execute(_ORDERS, (before, limit))
    return connection.changes()


def _over(copies: Sequence[Changing], before: int) -> bool:
    records = [copy.record for copy in copies]
    return all(record and record.state not in OPEN and record.changed_at < before for record in records)

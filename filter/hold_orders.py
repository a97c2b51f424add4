"""Orders of a reviewer, or of retention, as they are kept with the copies they moved. Raises `apsw.Error`."""

from typing import Final, cast

import apsw

from .held import Action, CopyState, Order

_KEEP: Final = (
    "INSERT INTO orders (id, action, at, author, why, despite, waiting) VALUES (?, ?, ?, ?, ?, ?, 0)"
    " ON CONFLICT DO NOTHING"
)
_SELECT: Final = "SELECT id, action, at, author, why, despite FROM orders WHERE ? IN ('', id) ORDER BY at, id"
_NEXT: Final = "SELECT min(due_at) FROM copy INDEXED BY copy_due WHERE state = 'released'"
_NEXT_BY: Final = "SELECT min(due_at) FROM copy INDEXED BY copy_due_by_order WHERE state = 'released' AND order_id = ?"


def keep(connection: apsw.Connection, order: Order) -> None:
    """Add an order, unless it is kept already; within a transaction."""
    connection.execute(_KEEP, (order.id, str(order.action), order.at, order.author, order.why, int(order.despite)))


def kept(connection: apsw.Connection, order: str = "") -> dict[str, Order]:
    """The orders by id, or the one with this id, the oldest first."""
    rows = cast("list[tuple[str, str, int, str, str, int]]", connection.execute(_SELECT, (order,)).fetchall())
    return {
        name: Order(name, Action(action), at, author, why, bool(despite))
        for name, action, at, author, why, despite in rows
    }


def waiting(connection: apsw.Connection, order: str) -> tuple[int, int]:
    """How many copies are RELEASED, and when the first is due or its lease ends; of one order, or of all for empty."""
    if order:
        count = connection.execute("SELECT waiting FROM orders WHERE id = ?", (order,)).get
        due = connection.execute(_NEXT_BY, (order,)).get
    else:
        released = (str(CopyState.RELEASED),)
        count = connection.execute("SELECT sum(copies) FROM lot_count WHERE state = ?", released).get
        due = connection.execute(_NEXT).get
    return int(count or 0), int(due or 0)

"""Orders of a reviewer, or of retention, as they are kept with the copies they moved. Raises `apsw.Error`."""

from typing import Final, cast

import apsw

from .held import Action, CopyState, Order

_KEEP: Final = (
    "INSERT INTO orders (id, action, at, author, why, despite, waiting) VALUES (?, ?, ?, ?, ?, ?, 0)"
    " ON CONFLICT DO NOTHING"
)
_SELECT: Final = "SELECT id, action, at, author, why, despite FROM orders"
_NEXT: Final = "SELECT min(due_at) FROM copy INDEXED BY copy_due WHERE state = 'released' AND order_id = ?"


def keep(connection: apsw.Connection, order: Order) -> None:
    """Add an order, unless it is kept already; within a transaction."""
    connection.execute(_KEEP, (order.id, str(order.action), order.at, order.author, order.why, int(order.despite)))


def kept(connection: apsw.Connection) -> list[Order]:
    """Every order, the oldest first."""
    return _orders(connection.execute(f"{_SELECT} ORDER BY at, id").fetchall())


def find(connection: apsw.Connection, order: str) -> Order | None:
    """The order with this id; None if it is not kept."""
    return next(iter(_orders(connection.execute(f"{_SELECT} WHERE id = ?", (order,)).fetchall())), None)


def _orders(rows: object) -> list[Order]:
    return [
        Order(name, Action(action), at, author, why, bool(despite))
        for name, action, at, author, why, despite in cast("list[tuple[str, str, int, str, str, int]]", rows)
    ]


def waiting_orders(connection: apsw.Connection) -> list[str]:
    """The orders by which copies are RELEASED."""
    rows = connection.execute("SELECT id FROM orders INDEXED BY orders_waiting WHERE waiting > 0").fetchall()
    return [str(order) for (order,) in rows]


def waiting(connection: apsw.Connection, order: str) -> tuple[int, int]:
    """How many copies are RELEASED, and when the first is due or its lease ends; of one order, or of all for empty."""
    if order:
        count = connection.execute("SELECT waiting FROM orders WHERE id = ?", (order,)).get
    else:
        released = (str(CopyState.RELEASED),)
        count = connection.execute("SELECT sum(copies) FROM lot_count WHERE state = ?", released).get
    those = [order] if order else waiting_orders(connection)
    due = [connection.execute(_NEXT, (one,)).get for one in those] if count else []
    return int(count or 0), min([int(one) for one in due if one is not None], default=0)

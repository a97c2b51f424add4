"""Released copies that somebody is about to deliver, and orders, in PostgreSQL; `hold_claims` does it in SQLite.

A lease is the time that `due_at` is put off to. Functions are called within a transaction of the caller's and raise
what psycopg raises.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from . import logs, postgres_rows
from .held import LONGEST_WAIT, Action, Claim, Order, Place, Unread, Unreadable
from .hold_codec import COPY_COLUMNS, DamagedMessageError, read_copies, read_message
from .postgres_rows import Connection, Kept
from .sealing import UnknownKeyError, Vault

PLACES: Final = (
    "(copy.message, copy.number) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[]) AS place (message, number))"
)
_ORDER_COLUMNS: Final = ", ".join(Order._fields)
_SUBJECT: Final = COPY_COLUMNS.index("subject_key")
_PUT_OFF: Final = f"UPDATE copy SET due_at = %s WHERE {PLACES}"  # noqa: S608 - names are ours


class _Due(NamedTuple):
    """A copy that is due, as it was before it was leased; without `kept` its record is damaged."""

    place: Place
    kept: Kept | None

    @property
    def order(self) -> str:
        return self.kept.record.order if self.kept else ""


def claim(
    connection: Connection, vault: Vault, span: tuple[int, int], most: tuple[int, int], order: str
) -> list[Claim | Unreadable]:
    """Lease copies that are due at the first time until the second: so many, of messages of so many octets together."""
    at, until = span
    due = _lease(connection, at, most, order)
    postgres_rows.change(connection, [(one.kept, one.kept.record._replace(due_at=until)) for one in due if one.kept])
    # What is damaged cannot be changed, but must not be first again and again; its record stays damaged.
    damaged = [list(column) for column in zip(*(one.place for one in due if not one.kept), strict=True)]
    if damaged:
        connection.execute(_PUT_OFF, (at + LONGEST_WAIT, *damaged))
    known = orders(connection, {one.order for one in due})
    by_message: dict[int, list[_Due]] = {}
    for one in due:
        by_message.setdefault(one.place.message, []).append(one)
    return [found for number, dues in by_message.items() for found in _read(connection, vault, number, dues, known)]


def _lease(connection: Connection, at: int, most: tuple[int, int], order: str) -> list[_Due]:
    """Copies to deliver now that nobody else has."""
    limit, octets = most
    rows: list[tuple[Any, ...]] = []
    for due, bound in (("<=", at), (">", at + LONGEST_WAIT)):  # the second were put off by a clock that ran ahead
        rows += connection.execute(
            f"SELECT message.size, {postgres_rows.KEPT} FROM copy JOIN message ON message.id = copy.message"  # noqa: S608 - names are ours
            f" WHERE copy.state = 'released' AND copy.due_at {due} %s {'AND copy.order_id = %s' if order else ''}"
            " ORDER BY copy.due_at, copy.message, copy.number LIMIT %s FOR UPDATE OF copy SKIP LOCKED",
            (bound, *([order] if order else []), limit - len(rows)),
        ).fetchall()
    taken: dict[int, list[Sequence[Any]]] = {}
    for size, *row in rows:
        if row[0] not in taken:
            if taken and size > octets:
                break
            octets -= size
        taken.setdefault(row[0], []).append(row)
    leased = [row for each in taken.values() for row in each]
    kept = {one.place: one for one in postgres_rows.read_kept(leased)}
    return [_Due(place, kept.get(place)) for place in (Place(row[0], row[1]) for row in leased)]


def _read(
    connection: Connection, vault: Vault, number: int, dues: Sequence[_Due], known: Mapping[str, Order]
) -> list[Claim | Unreadable]:
    rows = postgres_rows.read(connection, number, content=True)
    if rows is None:
        return []
    try:
        stored = postgres_rows.verified(rows, vault)
        positions = {copy.number: at for at, copy in enumerate(read_copies(read_message(rows[0]), rows[2]))}
    except (DamagedMessageError, UnknownKeyError) as error:
        logs.event(logs.ERROR, "held_message_unreadable", row=number, error=str(error))
        why = Unread.KEY_MISSING if isinstance(error, UnknownKeyError) else Unread.DAMAGED
        return [*_unreadable(dues, rows, why)]
    copies = [one.kept for one in dues if one.kept]
    return [
        Claim(
            message=stored.message,
            places=tuple(one.place for one in copies),
            numbers=tuple(positions[one.place.number] for one in copies),
            orders=tuple(known.get(one.record.order) or _lost_order(one) for one in copies),
            attempts=tuple(one.record.attempts for one in copies),
            released_at=tuple(one.record.changed_at for one in copies),
        )
    ]


def _unreadable(dues: Sequence[_Due], rows: postgres_rows.Rows, why: Unread) -> list[Unreadable]:
    """Copies that cannot be read, by their orders."""
    by_order: dict[str, list[Place]] = {}
    for one in dues:
        by_order.setdefault(one.order, []).append(one.place)
    subjects = {copy[0]: bytes(copy[_SUBJECT]).hex() for copy in rows[2]}
    return [
        Unreadable(rows[0][0], tuple(places), tuple([subjects.get(one.number, "") for one in places]), order, why)
        for order, places in by_order.items()
    ]


def keep(connection: Connection, order: Order) -> None:
    """Add an order, unless it is kept already."""
    connection.execute(
        f"INSERT INTO orders ({_ORDER_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",  # noqa: S608 - names are ours
        postgres_rows.to_text(order),
    )


def orders(connection: Connection, names: Iterable[str]) -> dict[str, Order]:
    """Those of these orders that are kept, by id."""
    query = f"SELECT {_ORDER_COLUMNS} FROM orders WHERE id = ANY(%s)"  # noqa: S608 - names are ours
    return {order.id: order for order in map(_order, connection.execute(query, (list(names),)))}


def every_order(connection: Connection) -> list[Order]:
    """Every order that is kept, the newest first."""
    query = f"SELECT {_ORDER_COLUMNS} FROM orders ORDER BY at DESC, id"  # noqa: S608 - names are ours
    return [_order(row) for row in connection.execute(query)]


def _order(row: Sequence[object]) -> Order:
    name, action, *rest = postgres_rows.from_text(row)
    return Order(name, Action(action), *rest)


def _lost_order(one: Kept) -> Order:
    """What is known of an order that is kept no more: it allows nothing out of the ordinary."""
    return Order(one.record.order, Action.RELEASE, one.record.changed_at, "", "")

"""What is over removed from held mail in PostgreSQL, as `hold_prune` does it in SQLite.

Functions are called within a transaction of the caller's and raise what psycopg raises. Space that becomes free is used
again after the server's autovacuum. Lots stay: other processes know them by number.
"""

from typing import Final

from . import postgres_rows
from .held import ENDED, OPEN, Ended, Place, Pruned
from .postgres_rows import Connection, Kept

_STATES: Final = ", ".join(f"'{state}'" for state in sorted(ENDED))
_OLDEST: Final = (
    f"SELECT changed_at, message, number FROM copy WHERE state IN ({_STATES}) AND changed_at < %s"  # noqa: S608 - a closed list of words
    " AND (changed_at, message, number) > (%s, %s, %s) ORDER BY changed_at, message, number LIMIT %s"
)
_COUNTED: Final = "SELECT message, count(*) FROM copy WHERE message = ANY(%s) GROUP BY message"
_ORDERS: Final = (
    "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE at < %s AND NOT EXISTS"
    " (SELECT FROM copy WHERE copy.order_id = orders.id AND copy.order_id <> '') LIMIT %s)"
)
_FIRST: Final = Ended(-1, Place(-1, -1))


def prune_ended(connection: Connection, before: int, after: Ended | None, limit: int) -> Pruned:
    """Remove messages of up to so many copies that ended before that time, if all of their copies did."""
    at, place = after or _FIRST
    rows = connection.execute(_OLDEST, (before, at, *place, limit), prepare=False).fetchall()
    messages = list({message for _, message, _ in rows})
    postgres_rows.lock(connection, messages)
    ended: dict[int, int] = {}
    for one in postgres_rows.kept(connection, "message = ANY(%s)", (messages,)):
        ended[one.place.message] = ended.get(one.place.message, 0) + _over(one, before)
    copies = connection.execute(_COUNTED, (messages,)).fetchall()  # damaged ones as well
    over = {int(message): int(count) for message, count in copies if ended.get(message) == count}
    connection.execute("DELETE FROM message WHERE id = ANY(%s)", (list(over),))
    last = Ended(rows[-1][0], Place(*rows[-1][1:])) if len(rows) == limit else None
    return Pruned(len(over), sum(over.values()), last)


def prune_orders(connection: Connection, before: int, limit: int) -> int:
    """Remove orders given before that time that no copy names, so many at most; how many."""
    # Who moves copies keeps their order first, in the same transaction: none can be half-way through that now.
    connection.execute("LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE")
    return connection.execute(_ORDERS, (before, limit), prepare=False).rowcount


def _over(one: Kept, before: int) -> bool:
    return one.record.state not in OPEN and one.record.changed_at < before

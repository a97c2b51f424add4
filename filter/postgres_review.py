"""Held mail of a fleet for review, in PostgreSQL; fulfils `held.HeldMail`.

One connection for several threads, one at a time; made at the first question and again after it was lost. Every method
is a transaction of its own, or several small ones. Raises `HoldUnavailableError` when the server cannot be used now,
`HoldDataError` when it never can. A copy whose row is damaged is left out of lists and left as it is. A connection that
is lost in a commit leaves open whether it was done: `move` and `finish` ask once more, by the state of the copies.

What is erased is gone for every question at once. Its octets, sealed, stay on the server's disk until it uses their
pages again, and in its log and backups as long as those are kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import psycopg

from . import logs, postgres_claims, postgres_prune, postgres_query, postgres_rows
from .errors import InputError
from .held import (
    By,
    Claim,
    CopyState,
    Ended,
    HeldLine,
    HeldQuery,
    Order,
    Outcome,
    Place,
    Pruned,
    Tally,
    Unreadable,
)
from .hold_codec import (
    MESSAGE_COLUMNS,
    CopyRecord,
    DamagedMessageError,
    line_of,
    read_copies,
    read_message,
    unpack,
    with_copies,
)
from .ports import HeldMessage, HoldUnavailableError
from .postgres_claims import PLACES
from .postgres_link import Connection, Link, Server, UnavailableError, reason
from .postgres_rows import Kept
from .sealing import SealError, UnknownKeyError, Vault

T = TypeVar("T")

LIMIT: Final = 120.0  # seconds that one statement may take
AT_ONCE: Final = 500  # messages in one transaction of those that go over all

_MOVES: Final = frozenset({CopyState.RELEASED, CopyState.DISCARDED, CopyState.EXPIRED})
_ENDS: Final = frozenset(
    {CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED, CopyState.RELEASED, CopyState.HELD}
)


class PostgresReview:
    """Held mail, as those see it who review, release and expire it."""

    def __init__(self, server: Server, *, vault: Vault) -> None:
        self._vault = vault
        self._link = Link(server, limit=LIMIT)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def tally(self, query: HeldQuery, by: By) -> Sequence[Tally]:
        """Copies that match, counted; the largest first."""
        return self._run(lambda connection: postgres_query.tally(connection, query, by))

    def lines(self, query: HeldQuery, after: Place | None = None, limit: int = 1000) -> Sequence[HeldLine]:
        """Copies that match, in the order of arrival, from after that place on."""
        return self._run(lambda connection: postgres_query.lines(connection, query, after, limit))

    def message(self, queue_id: str, *, content: bool = True) -> tuple[HeldMessage, Mapping[int, HeldLine]] | None:
        """A message and the lines of its copies by their position in it; None if there is none."""

        def look(connection: Connection) -> tuple[HeldMessage, Mapping[int, HeldLine]] | None:
            number = postgres_rows.number_of(connection, queue_id)
            rows = None if number is None else postgres_rows.read(connection, number, content=content)
            if number is None or rows is None:
                return None
            message = read_message(rows[0])
            copies = read_copies(message, rows[2])
            found = {at: line_of(Place(number, copy.number), message, copy) for at, copy in enumerate(copies)}
            return unpack(*rows, self._vault).message, found

        return self._run(look)

    def order(self, order: Order) -> None:
        """Keep an order, durably. The same order again is nothing new. Raises InputError for another of that id."""

        def work(connection: Connection) -> Order | None:
            postgres_claims.keep(connection, order)
            return postgres_claims.orders(connection, [order.id]).get(order.id)

        if self._run(work) != order:
            raise InputError(f"order {order.id}: is kept already as another one")

    def orders(self) -> Sequence[Order]:
        """Every order that is kept, the newest first."""
        return self._run(postgres_claims.every_order)

    def move(self, places: Sequence[Place], to: CopyState, order: Order, at: int) -> Sequence[Place]:
        """Move those of these copies that are still HELD, in one transaction; which they were."""
        if to not in _MOVES:
            raise ValueError(f"{to}: held copies are moved to {', '.join(sorted(_MOVES))}")
        record = CopyRecord(to, at, due_at=at if to is CopyState.RELEASED else 0, order=order.id)

        def moved(one: Kept) -> CopyRecord | None:
            return record if one.record.state is CopyState.HELD else None

        try:
            return self._change(places, moved, order)
        except UnavailableError as error:
            if not error.in_doubt:
                raise
        return self._change(places, lambda one: record if one.record == record else moved(one), order)

    def claim(
        self,
        at: int,
        until: int,
        limit: int,
        order: str = "",
        octets: int = 64 << 20,
        *,
        unreadable: list[Unreadable] | None = None,
    ) -> Sequence[Claim]:
        """Lease RELEASED copies that are due: nobody else's until then. What cannot be read goes to `unreadable`."""
        span, most = (at, until), (limit, octets)
        found = self._run(lambda connection: postgres_claims.claim(connection, self._vault, span, most, order))
        if unreadable is not None:
            unreadable += [one for one in found if isinstance(one, Unreadable)]
        return [one for one in found if isinstance(one, Claim)]

    def finish(self, outcomes: Sequence[Outcome], at: int) -> None:
        """Record what became of leased copies and end their leases, in one transaction."""
        by_place = {outcome.place: outcome for outcome in outcomes}
        if wrong := [outcome.state for outcome in outcomes if outcome.state not in _ENDS]:
            raise ValueError(f"{wrong[0]}: a released copy becomes {', '.join(sorted(_ENDS))}")

        def finished(one: Kept) -> CopyRecord | None:
            if one.record.state is not CopyState.RELEASED:
                return None
            outcome, record = by_place[one.place], one.record
            waits = outcome.state is CopyState.RELEASED
            return record._replace(
                state=outcome.state,
                changed_at=record.changed_at if waits else at,
                attempts=record.attempts + 1,
                due_at=outcome.due_at if waits else 0,
                outcome=outcome.outcome,
            )

        try:
            self._change(list(by_place), finished)
        except UnavailableError as error:
            if not error.in_doubt:
                raise
            self._change(list(by_place), finished)

    def waiting(self, order: str = "") -> tuple[int, int]:
        """How many copies are RELEASED, and when the next is due (0: none). Of one order, or of all."""
        found = self._run(
            lambda connection: connection.execute(
                "SELECT count(*), min(due_at) FROM copy WHERE state = 'released' AND (%s = '' OR order_id = %s)",
                (order, order),
                prepare=False,
            ).fetchone()
        )
        return (int(found[0]), int(found[1] or 0)) if found else (0, 0)

    def confirm_pending(self, before: int, at: int) -> int:
        """Take PENDING copies of messages received before then as HELD; how many."""
        total = 0
        while True:
            places = self._run(lambda connection: _pending(connection, before))
            moved = self._change(places, lambda one: _confirmed(one, at))
            total += len(moved)
            if not moved:
                return total

    def erase_message(self, queue_id: str) -> bool:
        """Remove a message with everything that is known of it, in any state; whether there was one."""
        name = postgres_rows.text_in(queue_id)
        query = "DELETE FROM message WHERE queue_id = %s"
        return self._run(lambda connection: connection.execute(query, (name,)).rowcount > 0)

    def erase_subjects(self, subjects: Sequence[str]) -> int:
        """Remove every copy of a recipient, and messages that have none left; how many copies."""
        keys = [bytes.fromhex(subject) for subject in subjects if subject]
        total = 0
        while erased := self._run(lambda connection: _erase(connection, keys)):
            total += erased
        return total

    def prune_ended(self, before: int, after: Ended | None = None, limit: int = AT_ONCE) -> Pruned:
        """Remove messages of up to so many copies that ended before that time, if all of their copies did."""
        return self._run(lambda connection: postgres_prune.prune_ended(connection, before, after, limit))

    def prune_orders(self, before: int, limit: int = AT_ONCE) -> int:
        """Remove up to so many orders that were given before that time and that no copy names; how many."""
        return self._run(lambda connection: postgres_prune.prune_orders(connection, before, limit))

    def rewrap(self, limit: int = 1000) -> int:
        """Wrap the keys of up to so many messages anew with the current master key; how many (0: all are that can be).

        Keys wrapped by a master key that is not there, and damaged ones, stay as they are.
        """
        return self._run(lambda connection: self._rewrap(connection, limit))

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._link.run(work)
        except psycopg.Error as error:  # what is wrong with values: such as an integer out of bounds
            raise HoldUnavailableError(f"held mail cannot be changed so: {reason(error)}") from error

    def _change(
        self, places: Sequence[Place], change: Callable[[Kept], CopyRecord | None], order: Order | None = None
    ) -> Sequence[Place]:
        """Change copies that are locked; the places of those that are changed. Content goes with the last open copy."""

        def work(connection: Connection) -> Sequence[Place]:
            if order is not None:
                postgres_claims.keep(connection, order)
            postgres_rows.lock(connection, [place.message for place in places])
            numbers = [list(column) for column in zip(*places, strict=True)]
            found = postgres_rows.kept(connection, PLACES, numbers)
            changed = postgres_rows.change(
                connection, [(one, record) for one in found if (record := change(one)) is not None]
            )
            postgres_rows.drop_content(connection, [place.message for place in changed])
            return changed

        return self._run(work) if places else []

    def _rewrap(self, connection: Connection, limit: int) -> int:
        old = [name for name in self._vault.key_ids if name != self._vault.current]
        done = 0
        after = -1
        while not done:
            rows = connection.execute(
                "SELECT id, key_id, wrapped_key FROM message WHERE key_id = ANY(%s) AND id > %s ORDER BY id LIMIT %s"
                " FOR NO KEY UPDATE",
                (old, after, limit),
            ).fetchall()
            if not rows:
                break
            after = rows[-1][0]
            done = self._wrap(connection, rows)
        return done

    def _wrap(self, connection: Connection, rows: Iterable[tuple[int, str, bytes]]) -> int:
        changes = []
        for number, key_id, wrapped in rows:
            try:
                fresh, name = self._vault.rewrap(key_id, wrapped)
            except (SealError, UnknownKeyError) as error:
                logs.event(logs.ERROR, "held_message_unreadable", row=number, error=str(error))
                continue
            changes.append((name, fresh, number))
        with connection.cursor() as cursor:
            cursor.executemany("UPDATE message SET key_id = %s, wrapped_key = %s WHERE id = %s", changes)
        return len(changes)


def _pending(connection: Connection, before: int) -> list[Place]:
    rows = connection.execute(
        "SELECT message, number FROM copy WHERE state = 'pending' AND message < %s ORDER BY message, number LIMIT %s",
        (postgres_query.first_row(before), AT_ONCE),
    )
    return [Place(*row) for row in rows]


def _confirmed(one: Kept, at: int) -> CopyRecord | None:
    if one.record.state is not CopyState.PENDING:
        return None
    return one.record._replace(state=CopyState.HELD, changed_at=at)


def _erase(connection: Connection, keys: Sequence[bytes]) -> int:
    """Remove copies of that recipient in some messages; how many."""
    rows = connection.execute(
        "SELECT DISTINCT message FROM copy WHERE subject_key = ANY(%s) LIMIT %s", (keys, AT_ONCE)
    ).fetchall()
    messages = [int(number) for (number,) in rows]
    postgres_rows.lock(connection, messages)
    gone = connection.execute(
        "DELETE FROM copy WHERE message = ANY(%s) AND subject_key = ANY(%s)", (messages, keys)
    ).rowcount
    connection.execute(
        "DELETE FROM message WHERE id = ANY(%s) AND NOT EXISTS (SELECT FROM copy WHERE copy.message = message.id)",
        (messages,),
    )
    postgres_rows.drop_content(connection, messages)
    _count_copies(connection, messages)
    return gone


def _count_copies(connection: Connection, messages: Sequence[int]) -> None:
    """Let messages say how many copies they have now. One that is damaged stays as it is."""
    left = connection.execute(
        f"SELECT id, (SELECT count(*) FROM copy WHERE copy.message = message.id), {', '.join(MESSAGE_COLUMNS)}"  # noqa: S608 - names are ours
        " FROM message WHERE id = ANY(%s)",
        (messages,),
    ).fetchall()
    changes = []
    for number, copies, *row in left:
        with suppress(DamagedMessageError):
            message = with_copies(read_message(postgres_rows.from_text(row)), copies)
            changes.append((message.copies, message.digest, number))
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE message SET copies = %s, digest = %s WHERE id = %s", changes)

"""Released copies that somebody is about to deliver: leased, handed out, and what became of them.

A lease is the time that `due_at` is put off to, so that whatever was not finished is due again when it ends. Raises
`apsw.Error`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final, cast

from .held import Action, Claim, CopyState, Order, Outcome, Place
from .hold_codec import CopyRecord, DamagedMessageError, read_copies, read_message
from .hold_database import HoldDatabase
from .hold_orders import kept
from .sealing import UnknownKeyError

ENDS: Final = frozenset({CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED, CopyState.RELEASED, CopyState.HELD})
"""What a leased copy may become."""

_WHAT: Final = "SELECT copy.message, number, coalesce(size, 0) FROM copy"
_HOW: Final = "LEFT JOIN message ON message.id = copy.message WHERE state = 'released' AND due_at <= ?"
_IN_ORDER: Final = "ORDER BY due_at, copy.message, number LIMIT ?"
_DUE: Final = f"{_WHAT} INDEXED BY copy_due {_HOW} {_IN_ORDER}"
_DUE_BY_ORDER: Final = f"{_WHAT} INDEXED BY copy_due_by_order {_HOW} AND order_id = ? {_IN_ORDER}"


def lease(
    database: HoldDatabase,
    leased: dict[int, set[int]],
    *,
    at: int,
    until: int,
    limit: int,
    order: str,
    octets: int,
) -> None:
    """Put off copies that are due; `leased` says which, the numbers of copies by the row number of their message."""
    leased.clear()
    where = (_DUE_BY_ORDER, (at, order, limit)) if order else (_DUE, (at, limit))
    rows = cast("list[tuple[int, int, int]]", database.connection.execute(*where).fetchall())
    left = octets
    for message, number, size in rows:
        if message not in leased:
            if leased and size > left:
                break
            left -= size
        leased.setdefault(message, set()).add(number)
    for message, numbers in leased.items():
        database.change(
            message,
            lambda number, record, numbers=numbers: (  # type: ignore[misc]
                record._replace(due_at=until) if number in numbers and record.state is CopyState.RELEASED else None
            ),
        )


def claims_of(database: HoldDatabase, leased: Mapping[int, set[int]]) -> Iterator[Claim]:
    """What was leased, with content; what cannot be read, or was erased since, is left out."""
    orders = kept(database.connection)
    for message, numbers in leased.items():
        with suppress(DamagedMessageError, UnknownKeyError):
            rows = database.rows(message, content=False)
            row = read_message(rows[0])
            copies = [(at, copy) for at, copy in enumerate(read_copies(row, rows[1])) if copy.number in numbers]
            yield Claim(
                message=database.read(message).message,
                places=tuple([Place(message, copy.number) for _, copy in copies]),
                numbers=tuple([position for position, _ in copies]),
                orders=tuple([orders.get(copy.order_id) or _lost(copy.order_id) for _, copy in copies]),
                attempts=tuple([copy.attempts for _, copy in copies]),
                released_at=tuple([copy.changed_at for _, copy in copies]),
            )


def finish(database: HoldDatabase, outcomes: Sequence[Outcome], at: int) -> None:
    """Record what became of leased copies; one that is RELEASED no more stays as it is."""
    for message, those in groupby(sorted(outcomes, key=lambda outcome: outcome.place), lambda one: one.place.message):
        by_number = {outcome.place.number: outcome for outcome in those}
        database.change(
            message,
            lambda number, record, by_number=by_number: (  # type: ignore[misc]
                _ended(record, by_number[number], at) if number in by_number else None
            ),
        )


def _ended(record: CopyRecord, outcome: Outcome, at: int) -> CopyRecord | None:
    if outcome.state not in ENDS:
        raise ValueError(f"{outcome.state}: a released copy becomes {', '.join(sorted(ENDS))}")
    if record.state is not CopyState.RELEASED:
        return None
    again = outcome.state is CopyState.RELEASED
    return CopyRecord(
        state=outcome.state,
        changed_at=record.changed_at if again else at,
        attempts=record.attempts + 1,
        due_at=outcome.due_at if again else 0,
        order=record.order,
        outcome=outcome.outcome,
    )


def _lost(order: str) -> Order:
    """An order whose row is gone: it is released as the policy allows, and not despite it."""
    return Order(order, Action.RELEASE, 0, "", "")

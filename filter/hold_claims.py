"""Released copies that somebody is about to deliver: leased, handed out, and what became of them.

A lease is the time that `due_at` is put off to, so that whatever was not finished is due again when it ends. That goes
for what a disk with trouble does not give: it is in the log, and not taken for damage. Raises `apsw.Error`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple, cast

import apsw
import orjson

from . import logs
from .held import LONGEST_WAIT, Action, Claim, CopyState, Order, Outcome, Place, Unread, Unreadable
from .hold_codec import (
    COPY_COLUMNS,
    CopyRecord,
    DamagedMessageError,
    open_message,
    pack_record,
    read_copies,
    read_message,
    unpack_record,
)
from .hold_database import Change, HoldDatabase, Rows
from .hold_orders import find, waiting_orders
from .hold_schema import UNREADABLE
from .sealing import UnknownKeyError

ENDS: Final = frozenset({CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED, CopyState.RELEASED, CopyState.HELD})
"""What a leased copy may become."""

_DIGEST: Final = COPY_COLUMNS.index("digest")
_SUBJECT: Final = COPY_COLUMNS.index("subject_key")
_WAITING: Final = (
    "SELECT due_at, copy.message, number, coalesce(size, 0) FROM copy INDEXED BY copy_due"
    " LEFT JOIN message ON message.id = copy.message WHERE state = 'released' AND order_id = ? AND due_at {} ?"
    " ORDER BY due_at, copy.message, number LIMIT ?"
)
_DUE: Final = _WAITING.format("<=")
_PUT_OFF: Final = _WAITING.format(">")
_LEFT: Final = "SELECT message, number FROM copy WHERE message IN (SELECT value FROM json_each(?))"


class Lease(NamedTuple):
    """Which copies of a message were leased, and its rows as they were before; None where those cannot be used."""

    numbers: set[int]
    rows: Rows | None = None


_Update = tuple[int, str | int, int, int]  # of a row: when it is due, its mark, and its place
Leases = dict[int, Lease]
"""By row number of the message."""


def lease(
    database: HoldDatabase,
    leases: Leases,
    *,
    at: int,
    until: int,
    limit: int,
    order: str,
    octets: int,
) -> None:
    """Put off copies that are due; `leases` says which."""
    leases.clear()
    left = octets
    wanted: dict[int, set[int]] = {}
    for _, message, number, size in _due(database, order, at, limit):
        if message not in wanted:
            if wanted and size > left:
                break
            left -= size
        wanted.setdefault(message, set()).add(number)
    found = database.rows_of(wanted)
    changes: list[_Update] = []
    for message, numbers in wanted.items():
        rows = found.get(message)
        marked = _marked(message, numbers, rows, until) if rows else None
        leases[message] = Lease(numbers, rows if marked else None)
        changes += marked or ()
    # A lease changes no state and no order, so nothing that is counted.
    database.connection.executemany("UPDATE copy SET due_at = ?, mark = ? WHERE message = ? AND number = ?", changes)
    _lease_damaged(database, {message: one.numbers for message, one in leases.items() if one.rows is None}, at, until)


def _marked(message: int, numbers: Collection[int], rows: Rows, until: int) -> list[_Update] | None:
    """The copies as they are to be written, if what became of each of them can be read."""
    changes = []
    for columns in rows.copies:
        if columns[0] in numbers:
            try:
                digest = cast("bytes", columns[_DIGEST])
                record = unpack_record(digest, columns[_DIGEST + 1 :])
            except DamagedMessageError:
                return None
            changes.append(
                (until, pack_record(digest, record._replace(due_at=until))[-1], message, cast("int", columns[0]))
            )
    return changes if len(changes) == len(numbers) else None


def _lease_damaged(database: HoldDatabase, wanted: Mapping[int, Collection[int]], at: int, until: int) -> None:
    """The same for messages of which something is damaged, copy by copy."""
    changed = set(database.change({message: _leased(numbers, until) for message, numbers in wanted.items()}))
    # What is damaged cannot be changed, but must not be first again and again; its record stays damaged.
    damaged = [(at + LONGEST_WAIT, *one) for one in _places(wanted) if one not in changed]
    database.connection.executemany("UPDATE copy SET due_at = ? WHERE message = ? AND number = ?", damaged)


def _places(wanted: Mapping[int, Collection[int]]) -> Iterator[Place]:
    return (Place(message, number) for message, numbers in wanted.items() for number in sorted(numbers))


def _due(database: HoldDatabase, order: str, at: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """What is due, the longest first, of all orders that have something waiting or of this one."""
    execute = database.connection.execute
    found = [
        cast("list[tuple[int, int, int, int]]", execute(sql, (one, bound, limit)).fetchall())
        for one in ([order] if order else waiting_orders(database.connection))
        for sql, bound in ((_DUE, at), (_PUT_OFF, at + LONGEST_WAIT))
    ]
    return islice(merge(*found), limit)


def _leased(numbers: Collection[int], until: int) -> Change:
    def change(number: int, record: CopyRecord) -> CopyRecord | None:
        leased = number in numbers and record.state is CopyState.RELEASED
        return record._replace(due_at=until) if leased else None

    return change


def claims_of(database: HoldDatabase, leases: Leases, unreadable: list[Unreadable] | None = None) -> Iterator[Claim]:
    """What was leased, with content. What cannot be read goes to `unreadable`.

    What was erased since is left out; and so is what the disk does not give now, which comes again.
    """
    orders: dict[str, Order] = {}
    contents, left = database.contents_of(leases), _left(database, leases)
    for message, (numbers, rows) in leases.items():
        try:
            if rows is None:
                rows = database.rows(message, content=False)  # noqa: PLW2901 - only to say what of it can be read
            row = read_message(rows.message)
            verified = read_copies(row, rows.copies)
            stored = open_message(row, _content(database, contents, message), verified, database.vault)
        except (DamagedMessageError, UnknownKeyError) as error:
            found = _unreadable(database, message, numbers, rows, error)
            if unreadable is not None:
                unreadable += found
            continue
        there = [copy.number in numbers and (message, copy.number) in left for copy in verified]
        those = [(position, copy) for position, copy in enumerate(verified) if there[position]]
        if not those:
            continue
        yield Claim(
            message=stored.message,
            places=tuple([Place(message, copy.number) for _, copy in those]),
            numbers=tuple([position for position, _ in those]),
            orders=tuple([_order(database, orders, copy.order_id) for _, copy in those]),
            attempts=tuple([copy.attempts for _, copy in those]),
            released_at=tuple([copy.changed_at for _, copy in those]),
        )


def _left(database: HoldDatabase, messages: Collection[int]) -> set[tuple[int, int]]:
    """The copies of these messages that are there, by place; the rows of a lease are from before it was committed."""
    execute = database.connection.execute
    try:
        return set(cast("list[tuple[int, int]]", execute(_LEFT, (orjson.dumps(list(messages)).decode(),)).fetchall()))
    except UNREADABLE:  # one by one; of what cannot be read none: it comes again
        return set() if len(messages) == 1 else set().union(*(_left(database, [message]) for message in messages))


def _content(database: HoldDatabase, contents: Mapping[int, Sequence[object]], message: int) -> Sequence[object]:
    content = contents.get(message) or database.rows(message).content  # which says why there is none
    if content is None:
        raise DamagedMessageError("its content is gone")  # nothing is delivered in its place
    return content


def _unreadable(
    database: HoldDatabase, message: int, numbers: Collection[int], rows: Rows | None, error: Exception
) -> list[Unreadable]:
    """Those of the leased copies of a message that are still there, by their orders; none if the disk has trouble."""
    orders: dict[str, list[int]] = {}
    try:
        if isinstance(error.__cause__, apsw.IOError):
            raise error.__cause__
        copies = database.changing([message]).get(message, [])
    except apsw.IOError as trouble:
        logs.event(logs.ERROR, "held_message_unreadable", row=message, error=str(trouble))
        return []
    for copy in copies:
        if copy.number in numbers and (copy.record is None or copy.record.state is CopyState.RELEASED):
            orders.setdefault(copy.record.order if copy.record else "", []).append(copy.number)
    subjects = {copy[0]: copy[_SUBJECT] for copy in rows.copies} if rows else {}
    queue_id = rows.message[0] if rows else ""
    return [
        Unreadable(
            queue_id=queue_id if isinstance(queue_id, str) else "",
            places=tuple([Place(message, number) for number in those]),
            subjects=tuple([_hex(subjects.get(number)) for number in those]),
            order=order,
            why=Unread.KEY_MISSING if isinstance(error, UnknownKeyError) else Unread.DAMAGED,
        )
        for order, those in orders.items()
    ]


def _hex(subject: object) -> str:
    return subject.hex() if isinstance(subject, bytes) else ""


def finish(database: HoldDatabase, outcomes: Sequence[Outcome], at: int) -> None:
    """Record what became of leased copies; one that is RELEASED no more stays as it is."""
    by_message: dict[int, dict[int, Outcome]] = {}
    for outcome in outcomes:
        by_message.setdefault(outcome.place.message, {})[outcome.place.number] = outcome
    database.change({message: _finished(those, at) for message, those in by_message.items()})


def _finished(outcomes: Mapping[int, Outcome], at: int) -> Change:
    def change(number: int, record: CopyRecord) -> CopyRecord | None:
        return _ended(record, outcomes[number], at) if number in outcomes else None

    return change


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


def _order(database: HoldDatabase, known: dict[str, Order], name: str) -> Order:
    """The order with this id. If its row is gone, the copy is released as the policy allows, and not despite it."""
    if name not in known:
        known[name] = find(database.connection, name) or Order(name, Action.RELEASE, 0, "", "")
    return known[name]

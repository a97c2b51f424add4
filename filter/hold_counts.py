"""How many copies there are, counted as they change, so that a tally of a million looks at some hundred rows.

A *lot* is copies alike in campaign, label, declared class, controller, brand, topic, reason and evidence. `lot_count`
has the copies of each lot in each state. A *mix* is the lots and states that the copies of one message are in;
`mix_count` has the messages of each, so that messages can be counted once, whatever is asked. An order's `waiting` is
the copies released by it. All are written in the transaction that changes the copies, one row for each that changes.

Memory grows with what one transaction changes. Raises `apsw.Error`.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import apsw

from .held import CopyState
from .hold_codec import CopyRow, MessageRow

Member = tuple[int, str]  # lot and state of a copy
Members = tuple[Member, ...]  # those of the copies of one message
STATES: Final = frozenset(CopyState)
LOT_COLUMNS: Final = ("campaign", "label", "declared", "controller", "brand", "topic", "reason", "evidence")

_SELECT_LOT: Final = f"SELECT id FROM lot WHERE {' AND '.join(f'{name} = ?' for name in LOT_COLUMNS)}"  # noqa: S608 - names are ours
_INSERT_LOT: Final = f"INSERT INTO lot ({', '.join(LOT_COLUMNS)}) VALUES ({', '.join('?' * len(LOT_COLUMNS))})"  # noqa: S608 - names are ours
_ADD_COPIES: Final = (
    "INSERT INTO lot_count (lot, state, copies) VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET copies = copies + excluded.copies"
)
_ADD_MESSAGES: Final = (
    "INSERT INTO mix_count (members, messages) VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET messages = messages + excluded.messages"
)
_UNUSED: Final = "SELECT id FROM lot WHERE NOT EXISTS (SELECT 1 FROM lot_count WHERE lot = id) LIMIT ?"


class Counts:
    """What one transaction changes of the counts: begin with `clear`, end with `flush`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._lots: dict[tuple[str, ...], int] = {}
        self._changes: Counter[tuple[Members, Members]] = Counter()  # messages, by what they were in and are in now
        self._orders: Counter[str] = Counter()

    def clear(self) -> None:
        """Nothing has changed."""
        for one in (self._lots, self._changes, self._orders):
            one.clear()

    def lot(self, message: MessageRow, copy: CopyRow) -> int:
        """The number of the lot that a copy belongs to; a new one if there was none."""
        name = (
            *(message.campaign, message.label, message.declared, message.controller, message.brand, message.topic),
            *(copy.reason, copy.evidence),
        )
        found = self._lots.get(name)
        if found is None:
            found = self._lots[name] = self._find(name)
        return found

    def _find(self, name: tuple[str, ...]) -> int:
        found = self._connection.execute(_SELECT_LOT, name).get
        if found is None:
            self._connection.execute(_INSERT_LOT, name)
            found = self._connection.last_insert_rowid()
        return int(found)

    def changed(self, before: Members, after: Members) -> None:
        """The copies of one message were in these lots and states, and are in those now; empty for no message."""
        if before != after:
            self._changes[before, after] += 1

    def ordered(self, before: str, after: str) -> None:
        """A copy was RELEASED by one order, and is by the other now; empty if it was not, or is not."""
        if before != after:
            if before:
                self._orders[before] -= 1
            if after:
                self._orders[after] += 1

    def flush(self) -> None:
        """Write what has changed."""
        execute = self._connection.executemany
        changed_copies, changed_mixes = self._totals()
        copies = [(lot, state, number) for (lot, state), number in changed_copies.items() if number]
        messages = [(members, number) for members, number in changed_mixes.items() if number]
        execute(_ADD_COPIES, copies)
        gone = [(lot, state) for lot, state, number in copies if number < 0]
        execute("DELETE FROM lot_count WHERE lot = ? AND state = ? AND copies = 0", gone)
        execute(_ADD_MESSAGES, messages)
        execute("DELETE FROM mix_count WHERE members = ? AND messages = 0", [one[:1] for one in messages if one[1] < 0])
        execute(
            "UPDATE orders SET waiting = waiting + ?2 WHERE id = ?1", [one for one in self._orders.items() if one[1]]
        )
        self.clear()

    def _totals(self) -> tuple[Counter[Member], Counter[str]]:
        """By how many the copies of each lot and state, and the messages of each mix, have grown."""
        copies: Counter[Member] = Counter()
        mixes: Counter[str] = Counter()
        for (before, after), messages in self._changes.items():
            for members, grown in ((before, -messages), (after, messages)):
                for member in members:
                    copies[member] += grown
                if members:
                    mixes[mix(members)] += grown
        return copies, mixes

    def prune(self, limit: int) -> int:
        """Remove lots that no copy belongs to, so many at most; how many."""
        unused = self._connection.execute(_UNUSED, (limit,)).fetchall()
        self._connection.executemany("DELETE FROM lot WHERE id = ?", unused)
        return len(unused)


def counted(members: Iterable[Member]) -> Members:
    """Those in a state that can be: what is damaged was not counted as that."""
    return tuple([one for one in members if one[1] in STATES])


def mix(members: Iterable[Member]) -> str:
    """The name of a mix: each lot and state once."""
    return " ".join(sorted({f"{lot}:{state}" for lot, state in members}))


def members_of(name: str) -> Members:
    """The lots and states of a mix. Raises ValueError."""
    pairs = [member.split(":") for member in name.split(" ")]
    return tuple([(int(lot), state) for lot, state in pairs])


def miscounted(connection: apsw.Connection) -> list[str]:
    """What is counted otherwise than it is; reads every copy in one view of the file."""
    copies: Counter[Member] = Counter()
    mixes: Counter[str] = Counter()
    orders: Counter[str] = Counter()
    with connection:  # one view
        last, members = None, list[Member]()
        for message, lot, state, order in connection.execute(
            "SELECT message, lot, state, order_id FROM copy ORDER BY message, number"
        ):
            if message != last and members:
                mixes[mix(members)] += 1
                members = []
            last = message
            members.append((lot, state))
            copies[lot, state] += 1
            if order and state == CopyState.RELEASED:
                orders[order] += 1
        if members:
            mixes[mix(members)] += 1
        counted = (
            {(lot, state): number for lot, state, number in connection.execute("SELECT * FROM lot_count")},
            dict(connection.execute("SELECT members, messages FROM mix_count")),
            dict(connection.execute("SELECT id, waiting FROM orders WHERE waiting != 0")),
        )
    names = ("copies of a lot", "messages of a mix", "copies of an order")
    right = (counted[0] == copies, counted[1] == mixes, counted[2] == orders)
    return [f"{name} are not as many as are counted" for name, fits in zip(names, right, strict=True) if not fits]

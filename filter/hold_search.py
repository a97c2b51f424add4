"""Held copies by what may be asked of them: found in the order they were stored, and counted.

Nothing looks at every copy for the usual questions. What is asked of campaign, label, rule, reason and the like is
answered by lots (`hold_counts`), of which there are few; a lot's copies in a state stand together in an index, in the
order of arrival, and as row numbers begin with the time, a span of time is a span of that index. The copies of a
recipient have an index of their own. Memory grows with the number of lots and the limit asked for.

Call within one read transaction. Raises `apsw.Error`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple, cast

import apsw
import orjson

from .held import By, HeldQuery, Place, Tally
from .hold_counts import LOT_COLUMNS, Member, members_of
from .hold_database import first_row, received_at

_FIRST: Final = Place(-1, -1)
_LAST_ROW: Final = (1 << 63) - 1
_LEAST_PAGE: Final = 16  # places that one source is asked for at a time
_SCAN: Final = 1000  # copies of one look, where all are looked at
_SEEK: Final = 10  # so many copies are passed over in the time of one look into an index

_BY_LOT: Final = (
    "SELECT message, number FROM copy INDEXED BY copy_by_lot WHERE lot = ? AND state = ?"
    " AND (message, number) > (?, ?) AND message < ? ORDER BY message, number LIMIT ?"
)
_BY_SUBJECT: Final = (
    "SELECT message, number, lot, state, subject_key FROM copy INDEXED BY copy_by_subject"
    " WHERE subject_key = ? AND subject_key != x'' AND (message, number) > (?, ?) AND message < ?"
    " ORDER BY message, number LIMIT ?"
)
_BY_PLACE: Final = (
    "SELECT message, number, lot, state, subject_key FROM copy"
    " WHERE (message, number) > (?, ?) AND message < ? ORDER BY message, number LIMIT ?"
)
_SPAN: Final = (
    "SELECT count(*), min(message), max(message) FROM copy INDEXED BY copy_by_lot"
    " WHERE lot = ? AND state = ? AND message >= ? AND message < ?"
)
_ENDS: Final = (
    "SELECT (SELECT min(message) FROM copy INDEXED BY copy_by_lot WHERE lot = ?1 AND state = ?2),"
    " (SELECT max(message) FROM copy INDEXED BY copy_by_lot WHERE lot = ?1 AND state = ?2)"
)


class Lot(NamedTuple):
    """What the copies of a lot have in common. `evidence` is JSON."""

    campaign: str
    label: str
    declared: str
    controller: str
    brand: str
    topic: str
    reason: str
    evidence: str

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules in the evidence."""
        return tuple(orjson.loads(self.evidence))


assert Lot._fields == LOT_COLUMNS  # noqa: S101 - the columns are read by position


@dataclass(slots=True)
class _Sum:
    """A tally while it is counted."""

    copies: int = 0
    messages: int = 0
    first: int = _LAST_ROW
    last: int = -1
    seen: set[int] = field(default_factory=set)  # of messages, where they are few

    def span(self, first: int, last: int) -> None:
        self.first, self.last = min(self.first, first), max(self.last, last)


class Search:
    """The copies that one query asks for. `members` are the lots and states they are in, with how many are there."""

    def __init__(self, connection: apsw.Connection, query: HeldQuery) -> None:
        self._connection = connection
        self._query = query
        self._low = first_row(query.received_from)
        self._high = first_row(query.received_before) if query.received_before else _LAST_ROW
        self._row: int | None = None
        if query.queue_id:
            found = connection.execute("SELECT id FROM message WHERE queue_id = ?", (query.queue_id,)).get
            self._row = -1 if found is None else int(found)
        self.lots = self._lots()
        self.members = self._members()

    def _lots(self) -> dict[int, Lot]:
        query = self._query
        asked = {name: getattr(query, name) for name in LOT_COLUMNS if getattr(query, name, "")}
        where = " AND ".join(f"{name} = ?" for name in asked) or "1"
        sql = f"SELECT id, {', '.join(LOT_COLUMNS)} FROM lot WHERE {where}"  # noqa: S608 - names are ours
        rows = cast("Iterator[tuple[int, *tuple[str, ...]]]", self._connection.execute(sql, tuple(asked.values())))
        lots = {number: Lot(*fields) for number, *fields in rows}
        return {number: lot for number, lot in lots.items() if not query.rule or query.rule in lot.rules}

    def _members(self) -> dict[Member, int]:
        states = {str(state) for state in self._query.states}
        rows = cast("Iterator[tuple[int, str, int]]", self._connection.execute("SELECT * FROM lot_count"))
        return {
            (lot, state): copies for lot, state, copies in rows if lot in self.lots and (not states or state in states)
        }

    # In the order they were stored

    def places(self, after: Place | None, limit: int) -> list[Place]:
        """Those that match from after that place on, so many at most."""
        start = max(after or _FIRST, Place(self._low - 1, _LAST_ROW))
        return list(islice(self._found(start, limit), limit))

    def _found(self, start: Place, limit: int) -> Iterator[Place]:
        if self._row is not None:
            return self._filtered(self._pages(_BY_PLACE, (), max(start, Place(self._row, -1)), self._row + 1, _SCAN))
        if self._query.subjects:
            return self._filtered(self._of_subjects(start, limit))
        if self._scanned(limit):
            return self._filtered(self._pages(_BY_PLACE, (), start, self._high, _SCAN))
        page = max(_LEAST_PAGE, 2 * limit // (len(self.members) or 1))
        sources = [self._pages(_BY_LOT, member, start, self._high, page) for member in self.members]
        return (Place(*row) for row in merge(*sources))

    def _scanned(self, limit: int) -> bool:
        """Whether it is quicker to pass over copies that do not match than to look into the index for each lot."""
        matching = sum(self.members.values())
        if not matching or len(self.members) <= _LEAST_PAGE:
            return False
        copies = self._connection.execute("SELECT sum(copies) FROM lot_count").get
        return limit * int(copies) / matching < _SEEK * len(self.members)

    def _of_subjects(self, start: Place, limit: int) -> Iterator[tuple[int, ...]]:
        keys = {bytes.fromhex(subject) for subject in self._query.subjects if subject}
        page = max(_LEAST_PAGE, limit)
        return merge(*(self._pages(_BY_SUBJECT, (key,), start, self._high, page) for key in keys))

    def _pages(self, sql: str, where: Sequence[object], start: Place, end: int, page: int) -> Iterator[tuple[int, ...]]:
        """The rows from after a place on, in their order, a page at a time."""
        while True:
            rows = self._connection.execute(sql, (*where, *start, end, page)).fetchall()
            yield from cast("list[tuple[int, ...]]", rows)
            if len(rows) < page:
                return
            start = Place(*cast("tuple[int, int]", rows[-1][:2]))

    def _filtered(self, rows: Iterable[Sequence[object]]) -> Iterator[Place]:
        """Of rows with lot, state and subject those that match."""
        for message, number, _, _ in self._matching(rows):
            yield Place(message, number)

    def _matching(self, rows: Iterable[Sequence[object]]) -> Iterator[tuple[int, int, int, str]]:
        subjects = {bytes.fromhex(subject) for subject in self._query.subjects if subject}
        for row in rows:
            message, number, lot, state, subject = cast("tuple[int, int, int, str, bytes]", row)
            if (
                (lot, state) in self.members
                and self._low <= message < self._high
                and (self._row is None or message == self._row)
                and (not self._query.subjects or subject in subjects)
            ):
                yield message, number, lot, state

    # Counted

    def tally(self, by: By) -> list[Tally]:
        """Those that match, counted by their values; the largest first."""
        values = {member: self._values(member, by) for member in self.members}
        if self._row is not None or self._query.subjects:
            sums = self._tally_few(values)
        elif self._query.received_from or self._query.received_before:
            sums = self._tally_span(values)
        else:
            sums = self._tally_all(values)
        tallies = [
            Tally(value, one.copies, one.messages or len(one.seen), received_at(one.first), received_at(one.last))
            for value, one in sums.items()
            if one.copies
        ]
        return sorted(tallies, key=lambda tally: (-tally.copies, tally.value))

    def _values(self, member: Member, by: By) -> tuple[str, ...]:
        number, state = member
        if by is By.STATE:
            return (state,)
        lot = self.lots[number]
        return lot.rules if by is By.RULE else (str(getattr(lot, by)),)

    def _tally_few(self, values: Mapping[Member, tuple[str, ...]]) -> dict[str, _Sum]:
        """Of one message or one recipient: each copy is looked at."""
        sums: dict[str, _Sum] = {}
        if self._row is not None:
            rows = self._pages(_BY_PLACE, (), Place(self._row, -1), self._row + 1, _SCAN)
        else:
            rows = self._of_subjects(_FIRST, _SCAN)
        for message, _, lot, state in self._matching(rows):
            for value in set(values[lot, state]):
                one = sums.setdefault(value, _Sum())
                one.copies += 1
                one.seen.add(message)
                one.span(message, message)
        return sums

    def _tally_all(self, values: Mapping[Member, tuple[str, ...]]) -> dict[str, _Sum]:
        """Of what is counted; the index tells the oldest and the newest of each lot."""
        sums: dict[str, _Sum] = {}
        for member, copies in self.members.items():
            ends = cast("tuple[int, int] | tuple[None, None]", self._connection.execute(_ENDS, member).fetchone())
            for value in set(values[member]):
                one = sums.setdefault(value, _Sum())
                one.copies += copies
                if ends[0] is not None:
                    one.span(*ends)
        rows = cast("Iterator[tuple[str, int]]", self._connection.execute("SELECT members, messages FROM mix_count"))
        for name, messages in rows:
            members = [member for member in members_of(name) if member in values]
            for value in {value for member in members for value in values[member]}:
                sums[value].messages += messages
        return sums

    def _tally_span(self, values: Mapping[Member, tuple[str, ...]]) -> dict[str, _Sum]:
        """Of a span of time: counted in the index."""
        sums: dict[str, _Sum] = {}
        groups: dict[str, list[Member]] = {}
        for member in self.members:
            count = self._connection.execute(_SPAN, (*member, self._low, self._high)).fetchone()
            copies, first, last = cast("tuple[int, int, int]", count)
            if not copies:
                continue
            for value in set(values[member]):
                one = sums.setdefault(value, _Sum())
                one.copies += copies
                one.span(first, last)
                groups.setdefault(value, []).append(member)
        for value, members in groups.items():
            sums[value].messages = self._messages(members)
        return sums

    def _messages(self, members: Sequence[Member]) -> int:
        """How many messages of the span have a copy in one of these lots and states."""
        pairs = ", ".join("(?, ?)" for _ in members)
        sql = (
            f"SELECT count(DISTINCT copy.message) FROM (VALUES {pairs}) AS one JOIN copy INDEXED BY copy_by_lot"  # noqa: S608 - only places for values
            " ON lot = one.column1 AND state = one.column2 AND message >= ? AND message < ?"
        )
        found = self._connection.execute(sql, (*(cell for one in members for cell in one), self._low, self._high)).get
        return int(found)

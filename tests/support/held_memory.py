"""Held mail in memory: keeps the contract of `filter.held.HeldMail`, for tests of what is built on it.

`fail` maps the name of a method to what it raises. `store` takes messages in, `at` is when a copy came to its state.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from filter.held import (
    ENDED,
    LONGEST_WAIT,
    OPEN,
    Action,
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
    Unread,
    Unreadable,
)
from filter.ports import HeldCopy, HeldMessage

_KEPT = frozenset({CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED, CopyState.RELEASED, CopyState.HELD})


@dataclass
class Row:
    """One copy."""

    place: Place
    copy: HeldCopy
    state: CopyState
    changed_at: int
    order: Order | None = None
    attempts: int = 0
    due_at: int = 0
    lease_until: int = 0
    outcome: str = ""
    released_at: int = 0
    history: list[CopyState] = field(default_factory=list)


def _due(when: int, at: int) -> bool:
    return when <= at or when > at + LONGEST_WAIT


class MemoryHeldMail:
    """`HeldMail` without a disk."""

    def __init__(self, *messages: HeldMessage) -> None:
        self.messages: dict[int, HeldMessage] = {}
        self.rows: dict[Place, Row] = {}
        self.kept: list[Order] = []
        self.given: set[str] = set()  # ids of orders, also of those that are kept no more
        self.spoiled: dict[int, Unread] = {}  # messages that cannot be read, by number
        self.fail: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._last = 0  # number of a message; none is given twice
        for message in messages:
            self.store(message)

    def store(self, message: HeldMessage) -> None:
        """Take a message in."""
        self._last += 1
        number = self._last
        self.messages[number] = message
        state = CopyState.PENDING if message.pending else CopyState.HELD
        for position, copy in enumerate(message.copies):
            place = Place(number, position)
            self.rows[place] = Row(place, copy, state, message.received_at)

    def states(self) -> dict[str, int]:
        """How many copies are in each state."""
        return dict(Counter(str(row.state) for row in self.rows.values()))

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        if method in self.fail:
            raise self.fail[method]

    def tally(self, query: HeldQuery, by: By) -> Sequence[Tally]:
        """See `HeldMail`."""
        self._called("tally")
        found: dict[str, list[HeldLine]] = {}
        for line in self._matching(query):
            for value in line.rules if by is By.RULE else (str(getattr(line, by)),):
                found.setdefault(value, []).append(line)
        tallies = [
            Tally(
                value,
                len(lines),
                len({line.queue_id for line in lines}),
                min(line.received_at for line in lines),
                max(line.received_at for line in lines),
            )
            for value, lines in found.items()
        ]
        return sorted(tallies, key=lambda tally: (-tally.copies, tally.value))

    def lines(self, query: HeldQuery, after: Place | None = None, limit: int = 1000) -> Sequence[HeldLine]:
        """See `HeldMail`."""
        self._called("lines")
        found = sorted(line for line in self._matching(query) if after is None or line.place > after)
        return found[:limit]

    def message(self, queue_id: str, *, content: bool = True) -> tuple[HeldMessage, dict[int, HeldLine]] | None:
        """See `HeldMail`."""
        self._called("message")
        for number, message in self.messages.items():
            if message.queue_id == queue_id:
                rows = [row for row in self.rows.values() if row.place.message == number]
                there = content and any(row.state in OPEN for row in rows)
                shown = message if there else replace(message, content=b"")
                return shown, dict(enumerate(map(self._line, rows)))
        return None

    def order(self, order: Order) -> None:
        """See `HeldMail`."""
        self._called("order")
        self.given.add(order.id)
        self._keep(order)

    def _keep(self, order: Order) -> None:
        if all(order.id != one.id for one in self.kept):
            self.kept.insert(0, order)

    def orders(self) -> Sequence[Order]:
        """See `HeldMail`."""
        return tuple(self.kept)

    def move(self, places: Sequence[Place], to: CopyState, order: Order, at: int) -> Sequence[Place]:
        """See `HeldMail`."""
        self._called("move")
        assert order.id in self.given, "the order comes first"
        assert to in (CopyState.RELEASED, CopyState.DISCARDED, CopyState.EXPIRED)
        assert to is not CopyState.RELEASED or order.action is not Action.DISCARD
        with self._lock:
            self._keep(order)
            rows = [self.rows[place] for place in places if place in self.rows]
            moved = [row for row in rows if row.state is CopyState.HELD]
            for row in moved:
                self._enter(row, to, at)
                released = to is CopyState.RELEASED
                row.order, row.attempts, row.outcome = order, 0, ""
                row.due_at = row.released_at = at if released else 0
        return tuple(row.place for row in moved)

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
        """See `HeldMail`."""
        self._called("claim")
        with self._lock:
            due = [row for row in self._released(order) if _due(row.due_at, at) and _due(row.lease_until, at)]
            due.sort(key=lambda row: (row.due_at, row.place))
            by_message: dict[int, list[Row]] = {}
            size = 0
            for row in due[:limit]:
                number = row.place.message
                if number not in by_message:
                    size += len(self.messages[number].content)
                    if by_message and size > octets:
                        break
                by_message.setdefault(number, []).append(row)
                row.lease_until = until
        spoiled = [number for number in by_message if number in self.spoiled]
        for number in spoiled if unreadable is not None else ():
            unreadable += self._unreadable(number, by_message[number])
        return tuple(self._claimed(number, rows) for number, rows in by_message.items() if number not in spoiled)

    def finish(self, outcomes: Sequence[Outcome], at: int) -> None:
        """See `HeldMail`."""
        self._called("finish")
        with self._lock:
            for place, state, due_at, outcome in outcomes:
                row = self.rows.get(place)
                assert state in _KEPT
                if row is None or row.state is not CopyState.RELEASED:
                    continue
                self._enter(row, state, at)
                row.attempts += 1
                row.lease_until = 0
                row.outcome = outcome
                row.due_at = due_at if state is CopyState.RELEASED else 0

    def waiting(self, order: str = "") -> tuple[int, int]:
        """See `HeldMail`."""
        released = list(self._released(order))
        return len(released), min((row.due_at for row in released), default=0)

    def confirm_pending(self, before: int, at: int) -> int:
        """See `HeldMail`."""
        old = [row for row in self.rows.values() if row.state is CopyState.PENDING]
        old = [row for row in old if self.messages[row.place.message].received_at < before]
        for row in old:
            self._enter(row, CopyState.HELD, at)
        return len(old)

    def erase_message(self, queue_id: str) -> bool:
        """See `HeldMail`."""
        numbers = [number for number, message in self.messages.items() if message.queue_id == queue_id]
        for number in numbers:
            del self.messages[number]
            self.rows = {place: row for place, row in self.rows.items() if place.message != number}
        return bool(numbers)

    def erase_subjects(self, subjects: Sequence[str]) -> int:
        """See `HeldMail`."""
        gone = [row.place for row in self.rows.values() if row.copy.subject_key in set(subjects) - {""}]
        for place in gone:
            del self.rows[place]
        for number in {place.message for place in gone}:
            left = tuple(self.rows[place].copy for place in self._places(number))
            self.messages[number] = replace(self.messages[number], copies=left)
            if not left:
                del self.messages[number]
        return len(gone)

    def prune_ended(self, before: int, after: Ended | None = None, limit: int = 1000) -> Pruned:
        """See `HeldMail`."""
        self._called("prune_ended")
        ended = sorted(Ended(row.changed_at, row.place) for row in self.rows.values() if row.state in ENDED)
        seen = [one for one in ended if one.at < before and (after is None or one > after)][:limit]
        messages = copies = 0
        for number in {one.place.message for one in seen}:
            rows = [row for row in self.rows.values() if row.place.message == number]
            if all(row.state not in OPEN and row.changed_at < before for row in rows):
                self.erase_message(self.messages[number].queue_id)
                messages, copies = messages + 1, copies + len(rows)
        return Pruned(messages, copies, seen[-1] if len(seen) == limit else None)

    def prune_orders(self, before: int, limit: int = 1000) -> int:
        """See `HeldMail`."""
        self._called("prune_orders")
        named = {row.order.id for row in self.rows.values() if row.order}
        gone = [order for order in self.kept if order.at < before and order.id not in named][:limit]
        self.kept = [order for order in self.kept if order not in gone]
        return len(gone)

    def rewrap(self, limit: int = 1000) -> int:
        """See `HeldMail`; there are no keys here."""
        return min(limit, 0)

    def _enter(self, row: Row, state: CopyState, at: int) -> None:
        row.history.append(state)
        if row.state is not state:
            row.changed_at = at
        row.state = state

    def _released(self, order: str) -> Iterator[Row]:
        for row in self.rows.values():
            if row.state is CopyState.RELEASED and row.order and order in ("", row.order.id):
                yield row

    def _claimed(self, number: int, rows: list[Row]) -> Claim:
        rows.sort(key=lambda row: row.place)
        return Claim(
            self.messages[number],
            tuple(row.place for row in rows),
            tuple(self._places(number).index(row.place) for row in rows),
            tuple(row.order for row in rows if row.order),
            tuple(row.attempts for row in rows),
            tuple(row.released_at for row in rows),
        )

    def _unreadable(self, number: int, rows: list[Row]) -> Iterator[Unreadable]:
        for order in {row.order.id: None for row in rows if row.order}:
            those = [row for row in rows if row.order and row.order.id == order]
            places = tuple(row.place for row in those)
            subjects = tuple(row.copy.subject_key for row in those)
            yield Unreadable(self.messages[number].queue_id, places, subjects, order, self.spoiled[number])

    def _places(self, number: int) -> list[Place]:
        """Those of the copies of a message that are left, as they stand in it."""
        return [place for place in self.rows if place.message == number]

    def _matching(self, query: HeldQuery) -> Iterator[HeldLine]:
        for row in self.rows.values():
            line = self._line(row)
            asked = {
                name: getattr(query, name)
                for name in ("campaign", "label", "reason", "declared", "controller", "brand", "topic", "queue_id")
            }
            if (
                (not query.states or line.state in query.states)
                and all(not value or getattr(line, name) == value for name, value in asked.items())
                and (not query.rule or query.rule in line.rules)
                and (not query.subjects or line.subject in query.subjects)
                and line.received_at >= query.received_from
                and (not query.received_before or line.received_at < query.received_before)
            ):
                yield line

    def _line(self, row: Row) -> HeldLine:
        message, copy = self.messages[row.place.message], row.copy
        return HeldLine(
            *(row.place, message.queue_id, row.state, message.received_at, row.changed_at),
            *(message.campaign, message.label, message.score, copy.reason, copy.state, copy.evidence),
            *(message.declared, message.controller, message.brand, message.topic, copy.subject_key),
            *(len(message.content), row.attempts, row.due_at, row.outcome, row.order.id if row.order else ""),
        )

"""Orders about held mail, carried out: by query, batch by batch, in bounded memory, from where an earlier run stopped.

An order is kept, durably, before anything is moved by it. Each copy that matches is visited once: what the order moved
is not HELD any more, and what came back to HELD from its release is passed over when it is carried out again. What is
received after the order was given is not meant by it, unless the query says until when. To RELEASE moves copies to
where a `releaser` delivers them.

Blocks like the store it is given: call it in a thread. Raises HoldUnavailableError; the same order carried out again
goes on from there. InputError for an id under which another order is kept. `now` gives epoch milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from . import events
from .errors import InputError
from .events import Event, Line, Told
from .held import LONGEST_WAIT, Action, CopyState, HeldLine, HeldMail, HeldQuery, Order
from .metrics import Metrics
from .ports import Journal

BATCH: Final = 1000
"""Copies of one transaction of the store."""

_TO: Final = {
    Action.RELEASE: CopyState.RELEASED,
    Action.DISCARD: CopyState.DISCARDED,
    Action.EXPIRE: CopyState.EXPIRED,
}
_EVENT: Final = {CopyState.DISCARDED: Event.DISCARDED, CopyState.EXPIRED: Event.EXPIRED}


class Moved(NamedTuple):
    """How far an order was carried out: copies looked at, moved, and passed over because it had released them before
    and they were checked and held again.
    """

    visited: int = 0
    moved: int = 0
    passed_over: int = 0


def nobody(_moved: Moved) -> bool | None:
    """Whoever does not want to know."""


class Orders:
    """Carries orders out on one store of held mail, and writes what it did into the journal."""

    def __init__(self, mail: HeldMail, journal: Journal, metrics: Metrics, now: Callable[[], int]) -> None:
        self._mail = mail
        self._journal = journal
        self._metrics = metrics
        self._now = now

    def keep(self, order: Order) -> Order:
        """Keep an order, and say so in the journal if it is new; the order as it is kept.

        InputError if the one that is kept under its id orders something else.
        """
        for known in self._mail.orders():
            if known.id == order.id:
                if (known.action, known.despite) != (order.action, order.despite):
                    raise InputError(f"order {order.id}: was given before to {_said(known)}, not to {_said(order)}")
                return known
        self._mail.order(order)
        line = events.ordered(self._now(), order.id, order.action, order.author, despite=order.despite)
        self._journal.write([line])
        return order

    def carry_out(
        self,
        order: Order,
        query: HeldQuery,
        *,
        told: bool = False,
        progress: Callable[[Moved], bool | None] = nobody,
        batch: int = BATCH,
    ) -> Moved:
        """Do what is ordered to every held copy that matches; `progress` is told after each batch, False ends it there.

        With `told` copies that expire go by way of a `releaser`, which tells their senders first.
        """
        order = self.keep(order)
        to = CopyState.RELEASED if told and order.action is Action.EXPIRE else _TO[order.action]
        moved = Moved()
        for span in self._spans(order, replace(query, states=frozenset({CopyState.HELD}))):
            after = None
            while lines := self._mail.lines(span, after, batch):
                after = lines[-1].place
                moved = self._move(order, to, lines, moved)
                if progress(moved) is False:
                    return moved
        return moved

    def _spans(self, order: Order, query: HeldQuery) -> Sequence[HeldQuery]:
        """What was held when the order was given; also what a clock that ran ahead says will be received some day."""
        if query.received_before:
            return [query]
        ahead = max(query.received_from, self._now() + LONGEST_WAIT)
        return [replace(query, received_before=order.at + 1), replace(query, received_from=ahead)]

    def move(self, order: Order, to: CopyState, lines: Sequence[HeldLine]) -> int:
        """Move the copies of these lines that are still held; how many they were."""
        done = set(self._mail.move([line.place for line in lines], to, order, self._now()))
        if event := _EVENT.get(to):
            self._tell(event, order, [line for line in lines if line.place in done])
        return len(done)

    def _move(self, order: Order, to: CopyState, lines: Sequence[HeldLine], before: Moved) -> Moved:
        fresh = [line for line in lines if line.order != order.id]
        moved = self.move(order, to, fresh) if fresh else 0
        visited, passed = len(lines), len(lines) - len(fresh)
        return Moved(before.visited + visited, before.moved + moved, before.passed_over + passed)

    def _tell(self, event: Event, order: Order, lines: Sequence[HeldLine]) -> None:
        """One line for each message."""
        at = self._now()
        by_message: dict[str, list[str]] = {}
        for line in lines:
            by_message.setdefault(line.queue_id, []).append(line.subject)
        more = {"told": Told.NOT_WANTED} if event is Event.EXPIRED else {}
        told: list[Line] = [
            events.by_order(event, queue_id, at, subjects, order.id, **more)
            for queue_id, subjects in by_message.items()
        ]
        self._journal.write(told)
        self._metrics.ordered(event, len(lines))


def _said(order: Order) -> str:
    return f"{order.action} despite unknown consent" if order.despite else str(order.action)

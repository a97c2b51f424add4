"""What is done with released copies of one message that are due: check again, deliver, report; and what to record.

- What the check stops is HELD again; the same order does not take it a second time.
- What the next hop takes is DELIVERED; what it cannot take now stays RELEASED and is tried again, checked anew.
- What it refuses for good, or has not taken in all the time there is, is BOUNCED once its sender was told. While the
  report cannot be sent, the copy stays RELEASED and is tried again with it; after twice the time it is BOUNCED anyway.
- What an order expires is not delivered: its sender is told, and then it is EXPIRED; BOUNCED if the policy rejected it.

Delivery is at least once: what is in doubt is tried again, and so is what a crash kept from being recorded.
Raises nothing but CancelledError: a check that fails stops the copy, a delivery that fails defers it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from . import events
from .bouncing import Bouncer
from .delivery import Attempt, Courier
from .dsn import Cause, Failure
from .events import Event, Line, Outcome, Told
from .held import Action, Claim, CopyState, Order, Place
from .held import Outcome as Recorded
from .policy import Disposition
from .ports import HeldCopy, HeldMessage, Report
from .recheck import FAULT, Rechecked, Rechecker
from .retry import Retry

_TELL_UNTIL: Final = 2  # times the time after which it is given up to deliver


class Due(NamedTuple):
    """One copy that is to be delivered, or expired, now."""

    place: Place
    number: int
    copy: HeldCopy
    attempts: int
    released_at: int


@dataclass(slots=True)
class Handled:
    """What to record about the copies of a claim. `reached`: whether the next hop answered; None: it was not asked."""

    outcomes: list[Recorded] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    counts: dict[Event, int] = field(default_factory=dict)
    in_doubt: int = 0
    reached: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """Handles claims; one for a process. `clock` gives epoch milliseconds."""

    rechecker: Rechecker
    courier: Courier
    bouncer: Bouncer
    retry: Retry
    clock: Callable[[], int]
    report: Report

    async def handle(self, claim: Claim, handled: Handled | None = None, begin_before: float = math.inf) -> Handled:
        """See to every copy of a claim, by what their orders say; `handled` is filled as it goes.

        An order that could not be begun before that time (epoch milliseconds) is left to whoever claims it next.
        """
        handled = handled or Handled()
        for order, dues in _by_order(claim):
            if self.clock() >= begin_before:
                break
            work = _Work(self, claim.message, order, handled)
            if order.action is Action.RELEASE:
                await work.release(dues)
            elif order.action is Action.EXPIRE:
                await work.expire(dues)
            else:  # no other order leads here
                work.stop(dues, [Rechecked(False, FAULT)] * len(dues))
        return handled


def _by_order(claim: Claim) -> Iterable[tuple[Order, list[Due]]]:
    """The copies of a claim by the order that moved them."""
    groups: dict[Order, list[Due]] = {}
    for place, number, order, attempts, released_at in zip(*claim[1:], strict=True):
        copy = claim.message.copies[number]
        groups.setdefault(order, []).append(Due(place, number, copy, attempts, released_at))
    return groups.items()


def _is_rejected(due: Due) -> bool:
    """Whether the policy refused this copy, after those of others had been taken."""
    return due.copy.disposition is Disposition.REJECT


class _Work:
    """The copies of one message under one order."""

    def __init__(self, handler: Handler, message: HeldMessage, order: Order, handled: Handled) -> None:
        self._handler = handler
        self._message = message
        self._order = order
        self._handled = handled

    async def release(self, dues: Sequence[Due]) -> None:
        """Deliver those of the copies that may go."""
        checked = self._check(dues)
        stopped = [(due, answer) for due, answer in zip(dues, checked, strict=True) if not answer.goes]
        self.stop([due for due, _ in stopped], [answer for _, answer in stopped])
        going = [(due, answer) for due, answer in zip(dues, checked, strict=True) if answer.goes]
        if not going:
            return
        message, recipients = self._message, [due.copy.recipient for due, _ in going]
        attempts = await self._handler.courier.deliver(message, recipients, self._order.id, self._handler.clock())
        self._note_reached(attempts)
        failed, deferred = [], []
        delivered: dict[tuple[Rechecked, int], list[Due]] = {}
        for (due, answer), attempt in zip(going, attempts, strict=True):
            if attempt.outcome is Outcome.TAKEN:
                delivered.setdefault((answer, attempt.code), []).append(due)
                self._record(due, CopyState.DELIVERED, attempt.said)
            elif attempt.refused or self._over(due):
                failed.append((due, attempt))
            else:
                deferred.append((due, attempt))
        for (answer, code), those in delivered.items():
            self._tell(Event.RELEASED, those, reason=answer.reason, despite=answer.despite, code=code)
        self._defer(deferred)
        if failed:
            await self._bounce(failed)

    async def expire(self, dues: Sequence[Due]) -> None:
        """Tell the sender that these copies expire, or were rejected, and let them."""
        causes = [Cause.POLICY if _is_rejected(due) else Cause.EXPIRED for due in dues]
        failures = [Failure(due.copy.recipient, cause) for due, cause in zip(dues, causes, strict=True)]
        for (told, due), attempt in await self._told(dues, failures):
            if told is None:
                self._defer([(due, attempt)])
            elif _is_rejected(due):
                self._record(due, CopyState.BOUNCED, f"{Outcome.POLICY}; sender told: {told}")
                self._tell(Event.BOUNCED, [due], why=Outcome.POLICY, code=0, told=told)
            else:
                self._record(due, CopyState.EXPIRED, f"sender told: {told}")
                self._tell(Event.EXPIRED, [due], told=told)

    def stop(self, dues: Sequence[Due], answers: Sequence[Rechecked]) -> None:
        """These copies stay held."""
        by_reason: dict[str, list[Due]] = {}
        for due, answer in zip(dues, answers, strict=True):
            by_reason.setdefault(str(answer.reason), []).append(due)
            self._record(due, CopyState.HELD, f"recheck: {answer.reason}")
        for reason, those in by_reason.items():
            self._tell(Event.RELEASE_STOPPED, those, reason=reason)

    def _check(self, dues: Sequence[Due]) -> list[Rechecked]:
        handler, numbers = self._handler, [due.number for due in dues]
        try:
            return handler.rechecker.check(self._message, numbers, handler.clock(), despite=self._order.despite)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was not checked does not go
            handler.report("recheck", error)
            return [Rechecked(False, FAULT)] * len(dues)

    async def _bounce(self, failed: Sequence[tuple[Due, Attempt]]) -> None:
        at = self._handler.clock()
        failures = [
            Failure(
                due.copy.recipient,
                Cause.REFUSED if attempt.refused else Cause.GAVE_UP,
                reply=attempt.reply,
                attempted_at=at,
            )
            for due, attempt in failed
        ]
        last = dict(failed)
        for (told, due), _ in await self._told([due for due, _ in failed], failures):
            attempt = last[due]
            if told is None:
                self._defer([(due, attempt)])
            else:
                self._record(due, CopyState.BOUNCED, f"{attempt.said}; sender told: {told}")
                self._tell(Event.BOUNCED, [due], why=attempt.outcome, code=attempt.code, told=told)

    async def _told(
        self, dues: Sequence[Due], failures: Sequence[Failure]
    ) -> list[tuple[tuple[Told | None, Due], Attempt]]:
        """Whether the sender was told of each copy; None: it will be, later. With the attempt to tell."""
        handler, at = self._handler, self._handler.clock()
        telling = await handler.bouncer.tell(self._message, failures, at)
        attempt = telling.attempt or Attempt(Outcome.TAKEN)
        if telling.attempt:
            self._note_reached([telling.attempt])
        told = [
            Told.NOT_SENT if one is None and self._too_late_to_tell(due, at) else one
            for one, due in zip(telling.told, dues, strict=True)
        ]
        sent = [due for one, due in zip(told, dues, strict=True) if one is Told.SENT]
        if sent:
            self._tell(Event.REPORT_SENT, sent, code=attempt.code)
        return [(pair, attempt) for pair in zip(told, dues, strict=True)]

    def _too_late_to_tell(self, due: Due, at: int) -> bool:
        return at - due.released_at >= _TELL_UNTIL * self._handler.retry.give_up and self._over(due)

    def _over(self, due: Due) -> bool:
        return self._handler.retry.over(due.attempts, due.released_at, self._handler.clock())

    def _defer(self, deferred: Sequence[tuple[Due, Attempt]]) -> None:
        """These copies are tried again later."""
        by_answer: dict[tuple[Outcome, int], list[Due]] = {}
        for due, attempt in deferred:
            by_answer.setdefault((attempt.outcome, attempt.code), []).append(due)
            due_at = self._handler.clock() + self._handler.retry.pause(due.attempts)
            self._record(due, CopyState.RELEASED, attempt.said, due_at)
        for (why, code), those in by_answer.items():
            if why is Outcome.IN_DOUBT:
                self._handled.in_doubt += 1
                at = self._handler.clock()
                self._handled.lines.append(events.plain(Event.IN_DOUBT, self._message.queue_id, at))
            self._tell(Event.RELEASE_DEFERRED, those, why=why, code=code)

    def _note_reached(self, attempts: Sequence[Attempt]) -> None:
        reached = any(attempt.outcome is not Outcome.UNREACHABLE for attempt in attempts)
        self._handled.reached = reached or bool(self._handled.reached)

    def _record(self, due: Due, state: CopyState, outcome: str, due_at: int = 0) -> None:
        self._handled.outcomes.append(Recorded(due.place, state, due_at, outcome))

    def _tell(self, event: Event, dues: Sequence[Due], **fields: object) -> None:
        subjects = [due.copy.subject_key for due in dues]
        at = self._handler.clock()
        self._handled.lines.append(
            events.by_order(event, self._message.queue_id, at, subjects, self._order.id, **fields)
        )
        self._handled.counts[event] = self._handled.counts.get(event, 0) + len(dues)

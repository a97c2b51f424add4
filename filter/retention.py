"""How long mail is held, by the reason it is held for, and what happens then: a standing order for each reason.

What has been held for too long is EXPIRED: with a line in the journal, or with a report to the sender as well, which a
`releaser` sends before the copy is expired. Its age is told by a `SteadyClock`, so that a clock that jumps forward
expires nothing. Blocks like the store it is given: call it in a thread. Raises HoldUnavailableError; nothing is lost
by that, the next time goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .held import Action, By, CopyState, HeldMail, HeldQuery, Order, Tally
from .metrics import Metrics
from .policy import Reason
from .release import Moved, Orders
from .steady_clock import SteadyClock

AUTHOR: Final = "retention"
OTHERS: Final = "*"
"""Stands for every reason that is not named."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How long, in milliseconds, and whether the sender is told at the end."""

    keep: int
    tell: bool = False


class Retention:
    """Expires held mail; one for a store is enough, several do no harm.

    `rules` go by reason, `OTHERS` must be among them. `on_batch` is asked after each batch whether to go on.
    """

    def __init__(
        self,
        mail: HeldMail,
        orders: Orders,
        metrics: Metrics,
        clock: SteadyClock,
        rules: Mapping[str, Rule],
        *,
        on_batch: Callable[[Moved], bool | None] = lambda _: True,
    ) -> None:
        self._mail = mail
        self._orders = orders
        self._metrics = metrics
        self._clock = clock
        self._rules = rules
        self._on_batch = on_batch
        self._seen: set[str] = set()  # reasons for which anything was shown

    def run_once(self) -> int:
        """Expire what was held for too long, and set the gauges; how many copies."""
        held = self._mail.tally(HeldQuery(), By.REASON)
        self._gauge(held)
        now = self._clock.now()
        if now is None:
            return 0
        expired = 0
        for tally in held:
            if tally.value == Reason.REJECTED:  # which ends when its sender was told (`rejections`)
                continue
            rule = self._rule(tally.value)
            if tally.oldest < now - rule.keep:
                expired += self._expire(tally.value, rule, now)
        return expired

    def _expire(self, reason: str, rule: Rule, now: int) -> int:
        query = HeldQuery(reason=reason, received_before=now - rule.keep)
        order = self._order(reason, rule, now)
        return self._orders.carry_out(order, query, told=rule.tell, progress=self._on_batch).moved

    def _order(self, reason: str, rule: Rule, now: int) -> Order:
        """The standing order; another rule is another order. Only the first time that it is given is kept."""
        told = "the sender is told" if rule.tell else "the sender is not told"
        why = f"held for {reason} longer than {rule.keep // 1000} s; {told}"
        name = f"{AUTHOR}-{reason}-{rule.keep // 1000}{'-dsn' if rule.tell else ''}"
        return Order(name, Action.EXPIRE, now, AUTHOR, why)

    def _gauge(self, held: Sequence[Tally]) -> None:
        """How much waits and for how long, by reason; a reason that is gone is shown as nothing."""
        released = self._mail.tally(HeldQuery(states=frozenset({CopyState.RELEASED})), By.REASON)
        self._seen |= {tally.value for tally in (*held, *released)}
        for state, tallies in ((CopyState.HELD, held), (CopyState.RELEASED, released)):
            copies = {tally.value: tally.copies for tally in tallies}
            for reason in self._seen:
                self._metrics.held_copies.labels(str(state), reason).set(copies.get(reason, 0))
        oldest = {tally.value: tally.oldest for tally in held}
        for reason in self._seen:
            since = oldest.get(reason)
            self._metrics.held_oldest.labels(reason).set(self._clock.age(since) if since else 0)
            if reason != Reason.REJECTED:
                self._metrics.held_keep.labels(reason).set(self._rule(reason).keep / 1000)

    def _rule(self, reason: str) -> Rule:
        return self._rules.get(reason, self._rules[OTHERS])

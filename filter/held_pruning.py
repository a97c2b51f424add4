"""The records of held mail that is over, removed so long after it ended: or the store would grow for ever.

A message goes with its copies when each of them ended more than `keep` milliseconds ago; an order when it was given
before then and no copy that is kept names it. Until then `held` tells what became of them, a record that comes from
Kafka again is known, and an order that is given again goes on; afterwards the journal alone has it. Campaigns are
counted elsewhere, and stay.

Their age is told by a `SteadyClock`: a clock that jumps forward removes nothing. Each run is a bounded number of small
transactions, each with a line in the journal right after it, and goes on where the last one ended. Blocks like the
store it is given: call it in a thread. Raises HoldUnavailableError; what was removed until then is in the journal.
"""

from collections.abc import Callable
from typing import Final

from . import events
from .held import Ended, HeldMail
from .metrics import Metrics
from .ports import Journal
from .steady_clock import SteadyClock

STEP: Final = 500
"""Copies that one transaction looks at: others who write wait as long as it takes."""
STEPS: Final = 20
"""Transactions of one run."""
REST: Final = 3_600_000
"""Milliseconds between looking at all and looking again: copies that are not over are looked at each time."""


class Pruner:
    """Removes what is over; one for a store is enough, several do no harm. `goes_on` is asked before each step."""

    def __init__(
        self,
        mail: HeldMail,
        journal: Journal,
        metrics: Metrics,
        clock: SteadyClock,
        keep: int,
        *,
        goes_on: Callable[[], bool] = lambda: True,
        step: int = STEP,
        steps: int = STEPS,
    ) -> None:
        self._mail = mail
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._keep = keep
        self._goes_on = goes_on
        self._step, self._steps = step, steps
        self._after: Ended | None = None
        self._look_at = 0  # when all may be looked at again

    def run_once(self) -> int:
        """Remove some of what is over; how many copies."""
        now = self._clock.now()
        if now is None or now < self._look_at <= now + REST:
            return 0
        copies = 0
        for _ in range(self._steps):
            if not self._goes_on():
                break
            done = self._mail.prune_ended(now - self._keep, self._after, self._step)
            self._tell(now, done.messages, done.copies, 0)  # at once: a process that is killed has told what it did
            copies, self._after = copies + done.copies, done.after
            if done.after is None:
                self._tell(now, 0, 0, self._mail.prune_orders(now - self._keep, self._step))
                self._look_at = now + REST
                break
        return copies

    def _tell(self, now: int, messages: int, copies: int, orders: int) -> None:
        if messages or orders:
            self._journal.write([events.pruned(now, messages, copies, orders)])
            self._metrics.held_pruned.inc(copies)

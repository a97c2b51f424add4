"""Tells senders of copies that the policy rejects, where copies for others were taken: a standing order.

The client heard 250 for the whole message (RFC 5321 has no answer for one recipient after DATA), so its sender is owed
a report (section 6.1). The rejected copies are in the hold store, under a reason of their own; this hands them to the
`releaser`, which tells the sender and ends them as BOUNCED. A reviewer who is quicker may do otherwise.

Blocks like the store it is given: call it in a thread. Raises HoldUnavailableError; nothing is lost by that, the next
time goes on, and so does another process: the store knows which copies are left.
"""

from collections.abc import Callable
from typing import Final

from .held import Action, HeldMail, HeldQuery, Order
from .policy import Reason
from .release import Moved, Orders

ORDER_ID: Final = "rejected"
AUTHOR: Final = "policy"
_EVER: Final = 1 << 60  # epoch milliseconds: a copy that a wrong clock dated ahead is meant as well


class Rejections:
    """One for a store is enough, several do no harm. `on_batch` is asked after each batch whether to go on."""

    def __init__(
        self,
        mail: HeldMail,
        orders: Orders,
        *,
        now: Callable[[], int],
        on_batch: Callable[[Moved], bool | None] = lambda _: True,
    ) -> None:
        self._mail = mail
        self._orders = orders
        self._now = now
        self._on_batch = on_batch

    def run_once(self) -> int:
        """Hand over whatever was rejected since; how many copies."""
        query = HeldQuery(reason=Reason.REJECTED, received_before=_EVER)
        if not self._mail.lines(query, None, 1):
            return 0
        why = "rejected by policy, after copies for others had been taken; the sender is told"
        order = Order(ORDER_ID, Action.EXPIRE, self._now(), AUTHOR, why)
        return self._orders.carry_out(order, query, told=True, progress=self._on_batch).moved

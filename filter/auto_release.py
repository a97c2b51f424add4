"""Releases held copies whose recipients have consented since: the standing order `auto`, where the operator wants it.

A pass looks at every copy that is held for a reason that consent can cure, batch by batch, and costs nothing while
`version` is what it was at the last whole pass: no consent, rule or decision has changed (None: there is no consent
to look up). The check is that of every
release (`recheck`), and the `releaser` makes it again right before it delivers. What is held because of a block, or
was never judged, is left to people.

Consent is looked up in the loop, where the index lives; the store is read and written in threads. `run_once` raises
HoldUnavailableError; what was moved until then stays moved, and the next pass begins anew.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import Final

from .consent import ConsentState
from .held import Action, CopyState, HeldLine, HeldMail, HeldQuery, Order
from .policy import Reason
from .ports import HeldMessage, Report
from .recheck import Rechecker
from .release import Orders

ORDER_ID: Final = "auto"
CURABLE: Final = (
    Reason.NO_CONSENT,
    Reason.OBJECTED,
    Reason.SOLICITED,
    Reason.DISGUISED_MARKETING,
    Reason.DECIDED_MARKETING,
    Reason.CONSENT_UNAVAILABLE,
    Reason.CONSENT_STALE,
    Reason.UNREAD_CONTENT,
    Reason.UNSURE,
)
"""Reasons to hold that the recipient's consent does away with."""
_BATCH: Final = 100  # copies whose consent is looked up without a pause
_DISAGREED: Final = frozenset({None, ConsentState.OBJECTED, ConsentState.UNKNOWN})


class AutoRelease:
    """Looks for held copies that may go; one for a store is enough, several do no harm."""

    def __init__(
        self,
        mail: HeldMail,
        orders: Orders,
        rechecker: Rechecker,
        *,
        now: Callable[[], int],
        version: Callable[[], Hashable],
        report: Report,
    ) -> None:
        self._mail = mail
        self._orders = orders
        self._rechecker = rechecker
        self._now = now
        self._version = version
        self._report = report
        self._passed: Hashable = None  # version at the last whole pass

    async def run_once(self) -> int:
        """Release whatever may go now; how many copies."""
        version = self._version()
        if version is None or version == self._passed:
            return 0
        released = 0
        for reason in CURABLE:
            query, after = HeldQuery(reason=reason), None
            while lines := await asyncio.to_thread(self._mail.lines, query, after, _BATCH):
                after = lines[-1].place
                messages = await asyncio.to_thread(self._messages, lines)
                if going := self._going(messages, lines):
                    released += await asyncio.to_thread(self._release, going)
        self._passed = version
        return released

    def _messages(self, lines: Sequence[HeldLine]) -> dict[str, HeldMessage]:
        found = {}
        for queue_id, _ in groupby(lines, lambda line: line.queue_id):
            if one := self._mail.message(queue_id, content=False):
                found[queue_id] = one[0]
        return found

    def _going(self, messages: dict[str, HeldMessage], lines: Sequence[HeldLine]) -> list[HeldLine]:
        going = []
        for queue_id, group in groupby(lines, lambda line: line.queue_id):
            if message := messages.get(queue_id):
                going += self._agreed(message, list(group))
        return going

    def _agreed(self, message: HeldMessage, lines: list[HeldLine]) -> list[HeldLine]:
        """Those of the message's copies that may go because their recipients agreed."""
        try:
            checked = self._rechecker.check(message, [line.place.number for line in lines], self._now())
        except Exception as error:  # noqa: BLE001 - one message must not keep all others
            self._report("recheck", error)
            return []
        return [
            line for line, answer in zip(lines, checked, strict=True) if answer.goes and answer.state not in _DISAGREED
        ]

    def _release(self, going: Sequence[HeldLine]) -> int:
        why = "the recipient has agreed since it was held"
        order = self._orders.keep(Order(ORDER_ID, Action.RELEASE, self._now(), ORDER_ID, why))
        return self._orders.move(order, CopyState.RELEASED, going)

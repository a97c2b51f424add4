"""Releases held copies whose recipients have consented since: the standing order `auto`, where the operator wants it.

A pass looks at every copy that is held for a reason that consent can cure, batch by batch, and costs nothing while
`version` is what it was at the last whole pass: no consent, rule or decision has changed (None: there is no consent
to look up). The check is that of every release (`recheck`), and the `releaser` makes it again right before it delivers.
What is held because of a block, or was never judged, is left to people.

Consent is looked up in the loop, where the index lives; the store is read and written in threads. `run_once` raises
HoldUnavailableError; what was moved until then stays moved, and the next pass begins anew.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from typing import Final

from .consent import ConsentState
from .errors import ConsentryError
from .held import Action, CopyState, HeldLine, HeldMail, HeldQuery, Order, Place
from .policy import Reason
from .ports import HeldMessage, HoldUnavailableError, Report
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
    Reason.UNKNOWN_LANGUAGE,
    Reason.UNSURE,
)
"""Reasons to hold that the recipient's consent does away with."""
_BATCH: Final = 100  # copies whose consent is looked up without a pause
_DISAGREED: Final = frozenset({None, ConsentState.OBJECTED, ConsentState.UNKNOWN})


Found = tuple[HeldMessage, Mapping[Place, int]]  # with the position of each copy in it


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

    def _messages(self, lines: Sequence[HeldLine]) -> dict[str, Found]:
        """The messages; what is damaged, or sealed with a key that is not there, waits for people."""
        found: dict[str, Found] = {}
        for queue_id, _ in groupby(lines, lambda line: line.queue_id):
            try:
                one = self._mail.message(queue_id, content=False)
            except HoldUnavailableError:
                raise
            except ConsentryError as error:
                self._report("auto_release", error)
                continue
            if one:
                found[queue_id] = one[0], {line.place: position for position, line in one[1].items()}
        return found

    def _going(self, messages: dict[str, Found], lines: Sequence[HeldLine]) -> list[HeldLine]:
        going = []
        for queue_id, group in groupby(lines, lambda line: line.queue_id):
            if found := messages.get(queue_id):
                going += self._agreed(found, [line for line in group if line.place in found[1]])
        return going

    def _agreed(self, found: Found, lines: list[HeldLine]) -> list[HeldLine]:
        """Those of the message's copies that may go because their recipients agreed."""
        message, positions = found
        try:
            checked = self._rechecker.check(message, [positions[line.place] for line in lines], self._now())
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

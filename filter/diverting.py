"""Sends diverted copies to where they are diverted, each in a transaction of its own.

A copy says in a header whom it was for, so no two recipients share one. All of them are in the hold store before this
begins, and one that could not be sent stays there: nothing raises but CancelledError. A copy of which it is not known
whether it arrived stays as well (twice beats never).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from . import trace
from .envelope import RcptTo
from .events import Outcome
from .judging import Copy, Incoming
from .ports import (
    HoldStore,
    HoldUnavailableError,
    InDoubtError,
    NextHop,
    NextHopTransaction,
    NextHopUnavailableError,
    Report,
)

UNDO_TIMEOUT: Final = 3.0  # seconds; what a step may take that comes after the deadline, of which there are two


async def give_up(onward: NextHopTransaction, report: Report) -> None:
    """End a transaction at a next hop, however that goes: it has no message, or has answered already."""
    try:
        async with asyncio.timeout(UNDO_TIMEOUT):
            await onward.abort()
    except Exception as error:  # noqa: BLE001 - nothing depends on it
        report("abort", error)


class Diverter:
    """Diverts to `hop`, and to `address` (a path) if it is not empty, otherwise to the recipient as addressed.

    Without a hop nothing is diverted: there is nowhere but the very person.
    """

    def __init__(self, hop: NextHop | None, address: bytes, hold: HoldStore, report: Report) -> None:
        self._hop = hop
        self._address = address
        self._hold = hold
        self._report = report

    async def divert(
        self, incoming: Incoming, copies: Mapping[int, Copy], header: bytes, deadline: float
    ) -> Mapping[Outcome, list[Copy]]:
        """Send these copies, until `deadline` (time of the loop), and say how each ended; TAKEN is diverted.

        `copies` are by their position in the message that is in the hold store.
        """
        ended: dict[Outcome, list[Copy]] = {}
        taken = []
        for number, copy in copies.items():
            outcome = await self._send(incoming, copy, header, deadline)
            ended.setdefault(outcome, []).append(copy)
            if outcome is Outcome.TAKEN:
                taken.append(number)
        if taken and not await self._mark(incoming.queue_id, taken):
            ended.setdefault(Outcome.STORAGE, []).extend(ended.pop(Outcome.TAKEN))
        return ended

    async def _send(self, incoming: Incoming, copy: Copy, header: bytes, deadline: float) -> Outcome:
        if self._hop is None:
            return Outcome.UNREACHABLE
        if asyncio.get_running_loop().time() >= deadline:
            return Outcome.TIMEOUT
        onward = self._hop.transaction(incoming.mail, incoming.client)
        content = (trace.original_recipient(copy.recipient), header, incoming.content)
        outcome = await self._attempt(onward, copy.recipient, content, deadline)
        if outcome is not Outcome.TAKEN:
            await give_up(onward, self._report)
        return outcome

    async def _attempt(
        self, onward: NextHopTransaction, recipient: RcptTo, content: Sequence[bytes], deadline: float
    ) -> Outcome:
        to = RcptTo(self._address) if self._address else recipient
        try:
            async with asyncio.timeout_at(deadline):
                taken = (await onward.rcpt(to)).ok and (await onward.data(content)).ok
        except NextHopUnavailableError:
            return Outcome.UNREACHABLE
        except InDoubtError:
            return Outcome.IN_DOUBT
        except TimeoutError:
            return Outcome.TIMEOUT
        except Exception as error:  # noqa: BLE001 - the copy is safe in the hold store
            self._report("divert", error)
            return Outcome.FAULT
        return Outcome.TAKEN if taken else Outcome.NEXT_HOP

    async def _mark(self, queue_id: str, numbers: Sequence[int]) -> bool:
        try:
            async with asyncio.timeout(UNDO_TIMEOUT):
                await self._hold.diverted(queue_id, numbers)
        except (HoldUnavailableError, TimeoutError):
            return False
        except Exception as error:  # noqa: BLE001 - as above
            self._report("divert", error)
            return False
        return True

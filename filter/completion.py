"""What remains to be done for a message once it is ours: say where its copies are, send those that are diverted, count,
and give the others over to review.

Every copy is safe before this begins, with the next hop or in the hold store, where it was stored pending if anything
could still have made the message its client's. Nobody waits for the hold store to confirm it: what it cannot confirm
now is in the journal, and confirmed later (`HeldMail.confirm_pending`). Raises nothing of its own.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from . import events
from .diverting import UNDO_TIMEOUT, Diverter
from .events import Event, Line, Outcome
from .judging import Copy, Incoming, Judged
from .metrics import Metrics
from .policy import Disposition
from .ports import HoldStore, Journal, Report


def _nobody(_incoming: Incoming, _judged: Judged) -> None:
    """Nobody follows campaigns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Completes messages; one for each pipeline. `clock` gives epoch milliseconds; `note` follows campaigns: it is told
    of each message that was taken, or refused for good by the policy, once.
    """

    diverter: Diverter
    hold: HoldStore
    journal: Journal
    metrics: Metrics
    clock: Callable[[], int]
    report: Report
    note: Callable[[Incoming, Judged], None] = _nobody
    _confirming: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def complete(self, incoming: Incoming, judged: Judged, header: bytes, code: int, deadline: float) -> None:
        """Complete a message; `code` is what the next hop answered, `deadline` (time of the loop) ends diverting."""
        try:
            self.note(incoming, judged)
            await self._say_and_send(incoming, judged, header, code, deadline)
        finally:
            if is_pending(judged):
                confirming = asyncio.create_task(self._confirm(incoming.queue_id))
                self._confirming.add(confirming)
                confirming.add_done_callback(self._confirming.discard)

    async def finish(self) -> None:
        """Wait for the hold store to confirm what it was asked to, for a while."""
        if self._confirming:
            with suppress(TimeoutError):
                async with asyncio.timeout(UNDO_TIMEOUT):
                    await asyncio.gather(*self._confirming)

    async def _say_and_send(
        self, incoming: Incoming, judged: Judged, header: bytes, code: int, deadline: float
    ) -> None:
        relayed, held = judged.those(Disposition.RELAY), judged.those(Disposition.HOLD)
        rejected, diverting = judged.those(Disposition.REJECT), _diverting(judged)
        queue_id, at = incoming.queue_id, self.clock()
        lines: list[Line] = []
        if relayed:
            lines.append(events.relayed(queue_id, at, _subjects(relayed), code))
        if held:
            lines.append(events.copies(Event.HELD, queue_id, at, _subjects(held)))
        if rejected:
            lines.append(events.copies(Event.REJECTED, queue_id, at, _subjects(rejected)))
        self.journal.write(lines)
        diverted = 0
        if diverting:
            ended = await self.diverter.divert(incoming, diverting, header, deadline)
            self.journal.write(_diverted_lines(queue_id, self.clock(), ended))
            diverted = len(ended.get(Outcome.TAKEN, ()))
        self.metrics.taken(
            len(incoming.recipients),
            relayed=len(relayed),
            diverted=diverted,
            held=len(held) + len(diverting) - diverted,
            rejected=len(rejected),
        )

    async def _confirm(self, queue_id: str) -> None:
        try:
            await self.hold.confirm(queue_id)
        except Exception as error:  # noqa: BLE001 - nothing is lost: it is done later
            self.report("confirm", error)
            self.journal.write([events.plain(Event.NOT_CONFIRMED, queue_id, self.clock())])


def is_pending(judged: Judged) -> bool:
    """Whether the stored copies are not for review yet: others are relayed first, or some of them diverted, or their
    sender is to be told of some that are rejected, which must not begin before the message is ours.
    """
    waits = bool(judged.those(Disposition.DIVERT, Disposition.REJECT))
    return waits or bool(judged.those(Disposition.RELAY) and judged.those(Disposition.HOLD))


def _diverting(judged: Judged) -> dict[int, Copy]:
    """The copies to be diverted, by their position in the message that is in the hold store."""
    return {number: copy for number, copy in enumerate(judged.stored) if copy.verdict.disposition is Disposition.DIVERT}


def _diverted_lines(queue_id: str, at: int, ended: Mapping[Outcome, Sequence[Copy]]) -> list[Line]:
    return [
        events.copies(Event.DIVERTED, queue_id, at, _subjects(copies))
        if outcome is Outcome.TAKEN
        else events.divert_failed(queue_id, at, _subjects(copies), outcome)
        for outcome, copies in ended.items()
    ]


def _subjects(copies: Sequence[Copy]) -> list[str]:
    return [copy.subject for copy in copies]

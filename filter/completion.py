"""What remains to be done for a message once it is ours: say where its copies are, send those that are diverted, count.

Every copy is safe before this begins, with the next hop or in the hold store. Raises nothing of its own.
"""

from collections.abc import Callable, Mapping, Sequence

from . import events
from .diverting import Diverter
from .events import Event, Line, Outcome
from .judging import Copy, Incoming, Judged
from .metrics import Metrics
from .policy import Disposition
from .ports import Journal


class Completion:
    """Completes messages; one for each pipeline. `clock` gives epoch milliseconds."""

    def __init__(self, diverter: Diverter, journal: Journal, metrics: Metrics, clock: Callable[[], int]) -> None:
        self._diverter = diverter
        self._journal = journal
        self._metrics = metrics
        self._clock = clock

    async def complete(self, incoming: Incoming, judged: Judged, header: bytes, code: int, deadline: float) -> None:
        """Complete a message; `code` is what the next hop answered, `deadline` (time of the loop) ends diverting."""
        relayed, held = judged.those(Disposition.RELAY), judged.those(Disposition.HOLD)
        diverting, rejected = judged.those(Disposition.DIVERT), judged.those(Disposition.REJECT)
        queue_id, at = incoming.queue_id, self._clock()
        lines: list[Line] = []
        if relayed:
            lines.append(events.relayed(queue_id, at, _subjects(relayed), code))
        if held:
            lines.append(events.copies(Event.HELD, queue_id, at, _subjects(held)))
        if rejected:
            lines.append(events.copies(Event.REJECTED, queue_id, at, _subjects(rejected)))
        self._journal.write(lines)
        diverted = 0
        if diverting:
            ended = await self._diverter.divert(incoming, diverting, header, deadline)
            self._journal.write(_diverted_lines(queue_id, self._clock(), ended))
            diverted = len(ended.get(Outcome.TAKEN, ()))
        self._metrics.taken(
            relayed=len(relayed),
            diverted=diverted,
            held=len(held) + len(diverting) - diverted,
            rejected=len(rejected),
        )


def _diverted_lines(queue_id: str, at: int, ended: Mapping[Outcome, Sequence[Copy]]) -> list[Line]:
    return [
        events.copies(Event.DIVERTED, queue_id, at, _subjects(copies))
        if outcome is Outcome.TAKEN
        else events.divert_failed(queue_id, at, _subjects(copies), outcome)
        for outcome, copies in ended.items()
    ]


def _subjects(copies: Sequence[Copy]) -> list[str]:
    return [copy.subject for copy in copies]

"""What a worker does first: bring to an end what died with the workers before it.

No client of theirs got a reply that is not in the books: a message that was not taken is the client's still, and one
that was taken is remembered, so that the client's next attempt is answered and goes no further; its pending copies are
held. What cannot be brought to an end now (the hold store takes nothing) raises HoldUnavailableError; doing it again
later does no harm.
"""

from collections.abc import Callable, Iterable

from . import events
from .events import Event
from .flights import Left
from .metrics import Metrics
from .ports import HoldStore, Journal, Stage


async def recover(
    left: Iterable[Left], hold: HoldStore, journal: Journal, metrics: Metrics, clock: Callable[[], int]
) -> None:
    """Bring the messages that dead workers `left` in flight to an end; `clock` gives epoch milliseconds."""
    for one in left:
        at = clock()
        if one.stage is Stage.JUDGING:
            # It may have been the message that killed the worker: if it does so again, nobody tries a third time.
            await hold.suspect(one.key, at)
            journal.write([events.plain(Event.DIED_JUDGING, one.queue_id, at)])
        elif one.stage is Stage.STORING:
            await hold.void(one.queue_id)
        elif one.stage is Stage.SENDING:
            await hold.void(one.queue_id)
            metrics.in_doubt.inc()
            journal.write([events.plain(Event.IN_DOUBT, one.queue_id, at)])
        else:
            await hold.settle(one.key, at)
            await hold.confirm(one.queue_id)
            metrics.unacknowledged.inc()
            journal.write([events.plain(Event.UNACKNOWLEDGED, one.queue_id, at)])

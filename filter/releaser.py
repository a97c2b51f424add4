"""Delivers released copies: claims what is due, hands it to the next hop over several connections, records outcomes.

Any number of these may run at once, in workers and in commands: a claim is a lease, so that each copy goes once; after
a crash the lease ends, and the copy is tried again. An attempt begins only if it will have ended before its lease, by
the clock of this machine: machines that share a store must agree on the time to within a few minutes.
Outcomes are recorded in batches. When the next hop cannot be reached time after time, what is claimed goes back and
nothing more is claimed for a while, so that a long queue is not worn out against a closed door.

`run` raises nothing but CancelledError; what a cancelled attempt did is in doubt, and its lease ends by itself.
Outcomes that were known by then are recorded.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

from . import events
from .events import Event, Line, Outcome
from .handling import Handled, Handler
from .held import Action, Claim, CopyState, HeldMail, Unread, Unreadable
from .held import Outcome as Recorded
from .metrics import Metrics
from .ports import HoldUnavailableError, Journal, Report

_T = TypeVar("_T")

_UNREACHED: Final = 5  # claims in a row that found no next hop, after which there is none
_RECORDINGS: Final = 20  # attempts to record outcomes
_ATTEMPTS_IN_LEASE: Final = 2  # the message, and a report on it
_KEY_AGAIN: Final = 3_600_000  # milliseconds until a master key that is not there is looked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSettings:
    """`concurrent` transactions at once; `batch` copies and `octets` of content claimed at once, twice of which may be
    in memory. Times in seconds: `attempt` is the longest of a transaction (that of the `Sender`), `lease` of a claim;
    `linger` gathers outcomes, as each write keeps others of the store waiting; `poll` is the pause when nothing is due,
    `pause` that when the next hop or the store cannot be reached.
    """

    concurrent: int = 20
    batch: int = 200
    octets: int = 64 << 20
    attempt: float = 300.0
    lease: float = 1200.0
    linger: float = 0.2
    poll: float = 2.0
    pause: float = 30.0


class Progress(NamedTuple):
    """What became of copies so far, by event of the journal. `unreachable`: the next hop was not; `unavailable`: the
    hold store was not.
    """

    counts: Counter[Event]
    unreachable: bool = False
    unavailable: bool = False

    @property
    def copies(self) -> int:
        """How many copies there was an outcome for, each attempt counted."""
        return sum(count for event, count in self.counts.items() if event is not Event.REPORT_SENT)


def nobody(_progress: Progress) -> None:
    """Whoever does not want to know."""


class Releaser:
    """Delivers from one hold store; belongs to the loop it is used in. `clock` gives epoch milliseconds.

    `mail` is called in threads, to claim and to record at the same time.
    """

    def __init__(
        self,
        mail: HeldMail,
        handler: Handler,
        journal: Journal,
        metrics: Metrics,
        report: Report,
        *,
        settings: ReleaseSettings,
        clock: Callable[[], int],
    ) -> None:
        self.mail = mail
        self.handler = handler
        self.journal = journal
        self.metrics = metrics
        self.report = report
        self.settings = settings
        self.clock = clock
        self._threads = ThreadPoolExecutor(2, "release")
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is begun."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin no further attempt: `run` and `serve` return when those under way have ended."""
        self._stopping.set()

    def close(self) -> None:
        """Let the threads go, after the last call."""
        self._threads.shutdown(wait=False)

    async def run(self, order: str = "", progress: Callable[[Progress], None] = nobody) -> Progress:
        """Deliver all that is due now, of one order or of all; `progress` is told after each batch."""
        run = _Run(self, order, progress)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run.record())
                consumers = [group.create_task(run.consume()) for _ in range(self.settings.concurrent)]
                await run.claim()
                await asyncio.wait(consumers)
                run.end()
        finally:
            await run.record_rest()
        return run.progress

    async def serve(self) -> None:
        """Deliver whatever is due, until `stop`."""
        while not self.stopping:
            pause = self.settings.pause
            try:
                done = await self.run()
            except Exception as error:  # noqa: BLE001 - the next round may go better
                self.report("release", error)
            else:
                if not (done.unreachable or done.unavailable):
                    pause = self.settings.poll
            await self.wait(pause)

    async def wait(self, seconds: float) -> None:
        """Wait, or until `stop`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call the store."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


class _Run:
    """One `run`: a claimer, several that handle what was claimed, and one that records."""

    def __init__(self, releaser: Releaser, order: str, progress: Callable[[Progress], None]) -> None:
        self._releaser = releaser
        self._order = order
        self._tell = progress
        self._queue: asyncio.Queue[tuple[Claim, int] | None] = asyncio.Queue(releaser.settings.batch // 2 or 1)
        self._outcomes: list[Recorded] = []
        self._lines: list[Line] = []
        self._counts: Counter[Event] = Counter()
        self._in_doubt = 0
        self._news = asyncio.Event()
        self._ended = False
        self._unreached = 0
        self.progress = Progress(Counter())

    def end(self) -> None:
        """All is handled: what is left is to be recorded."""
        self._ended = True
        self._news.set()

    @property
    def _over(self) -> bool:
        return self._releaser.stopping or self.progress.unreachable or self.progress.unavailable

    async def claim(self) -> None:
        """Claim what is due, batch by batch, until nothing is."""
        releaser, settings = self._releaser, self._releaser.settings
        try:
            while not self._over:
                now = releaser.clock()
                until = now + int(settings.lease * 1000)
                unreadable: list[Unreadable] = []
                claim_those = partial(releaser.mail.claim, unreadable=unreadable)
                arguments = (now, until, settings.batch, self._order, settings.octets)
                claims = await releaser.in_thread(claim_those, *arguments)
                for one in unreadable:
                    self._note(_unread(one, now))
                for claim in claims:
                    await self._queue.put((claim, until))
                if not claims and not unreadable:
                    break
        except HoldUnavailableError:
            self.progress = self.progress._replace(unavailable=True)
        except Exception as error:  # noqa: BLE001 - what was claimed is seen to its end all the same
            releaser.report("release", error)
            self.progress = self.progress._replace(unavailable=True)
        for _ in range(settings.concurrent):
            await self._queue.put(None)

    async def consume(self) -> None:
        """Handle claims until there is none."""
        releaser = self._releaser
        needed = int(_ATTEMPTS_IN_LEASE * releaser.settings.attempt * 1000)
        while (work := await self._queue.get()) is not None:
            claim, until = work
            if self._over:
                self._give_back(claim)
                continue
            handled = Handled()
            try:
                # What waited too long is not begun: somebody else may have it soon.
                await releaser.handler.handle(claim, handled, until - needed)
            except asyncio.CancelledError:
                self._note_doubt(claim, handled)
                raise
            except Exception as error:  # noqa: BLE001 - the lease ends, and it is tried again
                releaser.report("release", error)
            finally:
                self._note(handled)

    def _note_doubt(self, claim: Claim, handled: Handled) -> None:
        """Say that copies may have arrived whose attempt was cut off, and will be tried again when the lease ends."""
        delivers = any(order.action is Action.RELEASE for order in claim.orders)
        if delivers and len(handled.outcomes) < len(claim.places):
            handled.in_doubt += 1
            handled.lines.append(events.plain(Event.IN_DOUBT, claim.message.queue_id, self._releaser.clock()))

    def _note(self, handled: Handled) -> None:
        self._outcomes += handled.outcomes
        self._lines += handled.lines
        self._in_doubt += handled.in_doubt
        self._counts.update(handled.counts)
        self._news.set()
        if handled.reached is not None:
            self._unreached = 0 if handled.reached else self._unreached + 1
            if self._unreached >= _UNREACHED:
                self.progress = self.progress._replace(unreachable=True)

    def _publish(self) -> Sequence[Recorded]:
        """Write and count what happened; what the store is to record of it, and has to afterwards."""
        journal, metrics = self._releaser.journal, self._releaser.metrics
        outcomes, self._outcomes = self._outcomes, []
        lines, self._lines = self._lines, []
        counts, self._counts = self._counts, Counter()
        journal.write(lines)
        metrics.in_doubt.inc(self._in_doubt)
        self._in_doubt = 0
        for event, copies in counts.items():
            metrics.ordered(event, copies)
        self.progress.counts.update(counts)
        return outcomes

    def _give_back(self, claim: Claim) -> None:
        """What is not begun is due again: soon, or once the next hop may be there."""
        releaser = self._releaser
        wait = 0 if releaser.stopping else int(releaser.settings.pause * 1000)
        said = "" if releaser.stopping else str(Outcome.UNREACHABLE)
        due_at = releaser.clock() + wait
        self._outcomes += [Recorded(place, CopyState.RELEASED, due_at, said) for place in claim.places]
        self._news.set()

    async def record(self) -> None:
        """Record outcomes as they come, many at once."""
        settings = self._releaser.settings
        while not self._ended or self._outcomes:
            await self._news.wait()
            self._news.clear()
            if not self._ended and len(self._outcomes) < settings.batch:
                await asyncio.sleep(settings.linger)
            if outcomes := self._publish():
                await self._finish(outcomes)
                self._tell(self.progress)
            if self._ended:
                self._news.set()

    async def record_rest(self) -> None:
        """Record what is left because the run was cancelled, if the store takes it."""
        if outcomes := self._publish():
            with suppress(HoldUnavailableError):
                await self._releaser.in_thread(self._releaser.mail.finish, outcomes, self._releaser.clock())

    async def _finish(self, outcomes: Sequence[Recorded]) -> None:
        """Record, and if the store cannot, again: what is not recorded is delivered a second time."""
        releaser, settings = self._releaser, self._releaser.settings
        for _ in range(_RECORDINGS):
            try:
                await releaser.in_thread(releaser.mail.finish, outcomes, releaser.clock())
            except HoldUnavailableError as error:
                failure = error
                self.progress = self.progress._replace(unavailable=True)
                await releaser.wait(settings.pause)
            else:
                return
        releaser.report("release_record", failure)


def _unread(one: Unreadable, at: int) -> Handled:
    """What is damaged is held again: somebody has to look at it, and trying again would not help.

    A missing key may come back (an old file of keys, a secret that is not mounted): it is looked for again later.
    """
    fields: dict[str, object]
    if one.why is Unread.KEY_MISSING:
        event, fields = Event.RELEASE_DEFERRED, {"why": one.why, "code": 0}
        outcomes = [Recorded(place, CopyState.RELEASED, at + _KEY_AGAIN, str(one.why)) for place in one.places]
    else:
        event, fields = Event.RELEASE_STOPPED, {"reason": one.why}
        outcomes = [Recorded(place, CopyState.HELD, 0, f"recheck: {one.why}") for place in one.places]
    line = events.by_order(event, one.queue_id, at, one.subjects, one.order, **fields)
    return Handled(outcomes, [line], {event: len(outcomes)})

"""The campaign ledger as one worker uses it: what is seen goes in, what reviewers decided comes out, bursts are told.

`note` and `decision` are for the way of a message: a look into memory, no I/O. A task hands what was noted over to the
ledger every second; another looks twice a second whether decisions changed, each in a thread of its own, so that a
ledger that takes its time holds up neither mail nor the other. What a crash loses is what was noted in the last second
(the journal has it all); what could not be written is kept in memory and written later.

A ledger that fails is counted and logged, and shows in the gauge `campaigns_failed`: meanwhile the decisions last read
go on to count. `start` raises HoldUnavailableError, because without any decision marketing would pass as service; the
other methods raise nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from . import events, logs
from .campaigns import RARE, CampaignDecision, CampaignLedger, CampaignLine
from .judging import Incoming, Judged
from .message import Message
from .metrics import Metrics
from .ports import HoldUnavailableError, Journal
from .sightings import OTHER, Sightings

FLUSH_EVERY: Final = 1.0  # seconds
POLL_EVERY: Final = 0.5  # seconds; a decision is to count within one
PRUNE_EVERY: Final = 600  # flushes
KEEP_RARE: Final = 86_400_000  # milliseconds that a rare campaign of which nothing was held is remembered
KEEP: Final = 400 * 86_400_000  # milliseconds that any other is, unless somebody decided on it
_MAX_SETTLED: Final = 100_000
_SOME: Final = 1000  # more pruned at once than this, and there is more to prune

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripwire:
    """How many copies that promote and claim to be service, within how long (milliseconds) of its first message, make
    a campaign worth an alert.
    """

    copies: int
    window: int


class CampaignWatch:
    """Follows campaigns for one worker; to be used within its event loop. `clock` gives epoch milliseconds."""

    def __init__(
        self,
        ledger: CampaignLedger,
        tripwire: Tripwire,
        subject: Callable[[Message], str],
        *,
        journal: Journal,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._tripwire = tripwire
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._sightings = Sightings(subject)
        self._decisions: dict[str, CampaignDecision] = {}
        self._version: int | None = None
        self._unsettled: dict[str, int] = {}  # campaigns to be looked at for an alert -> when a copy was last seen
        self._settled: set[str] = set()
        self._failing: set[str] = set()  # which of our tasks fail at present
        self._flushes = 0
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    # On the way of a message

    def decision(self, campaign: str) -> CampaignDecision | None:
        """The decision that stands on a campaign, as last read; whether it has run out is for the caller to see."""
        return self._decisions.get(campaign)

    def note(self, incoming: Incoming, judged: Judged) -> None:
        """Count a message that was taken, or refused by the policy for good."""
        try:
            counted = self._sightings.note(incoming, judged)
        except Exception as error:  # noqa: BLE001 -- a fault in counting must not become one of the message
            self._metrics.error("campaigns")
            logs.fault("campaigns_failed", error, part="note")
        else:
            if not counted:
                self._metrics.campaigns_overflow.inc()

    @property
    def version(self) -> int | None:
        """Of the decisions as they were last read; None before."""
        return self._version

    @property
    def failing(self) -> bool:
        """Whether the ledger cannot be read or written at present."""
        return bool(self._failing)

    # Beside it

    async def start(self) -> None:
        """Read the decisions that stand, and follow them from now on. Raises HoldUnavailableError."""
        self._threads = {what: ThreadPoolExecutor(1, f"campaigns-{what}") for what in ("read", "write")}
        try:
            await self.refresh()
        except HoldUnavailableError:
            self._end_threads()
            raise
        self._tasks = [
            asyncio.create_task(self._repeat("read", POLL_EVERY, self.refresh)),
            asyncio.create_task(self._repeat("write", FLUSH_EVERY, self.flush)),
        ]

    async def stop(self) -> None:
        """Hand over what was noted, and follow nothing more."""
        self._stopping.set()  # no task is cut off while it waits for its thread, which would write all the same
        await asyncio.gather(*self._tasks)
        if self._threads:
            await self._try("write", self.flush)
            self._end_threads()

    async def flush(self) -> None:
        """Hand over what was noted, and tell of campaigns that are worth an alert. Raises HoldUnavailableError."""
        noted = self._sightings.take()
        seen = [sighting.seen() for sighting in noted.values()]
        if seen:
            try:
                await self._in_thread("write", lambda: self._ledger.add(seen))
            except Exception:
                self._sightings.put_back(noted)
                raise
            self._sightings.told(noted)
            self._watch((one.campaign, one.last_at) for one in seen if one.disguised and one.campaign != OTHER)
        await self._tell_alerts()
        await self._prune()

    async def refresh(self) -> None:
        """Read the decisions that stand if any changed. Raises HoldUnavailableError."""
        version = await self._in_thread("read", self._ledger.version)
        if version != self._version:
            # What is decided between these two looks has another version and is read the next time.
            decisions = await self._in_thread("read", self._ledger.decisions)
            self._decisions = {
                decision.campaign: decision
                for decision in decisions
                if not decision.withdrawn_at and not decision.waits
            }
            self._version = version

    def _watch(self, found: Iterable[tuple[str, int]]) -> None:
        self._unsettled.update([(campaign, at) for campaign, at in found if campaign not in self._settled])

    async def _tell_alerts(self) -> None:
        """Look at campaigns with copies that claim to be service and promote, until it is settled what to tell."""
        if not self._unsettled:
            return
        now = self._clock()
        undecided = {name: at for name, at in self._unsettled.items() if not self._is_decided(name, now)}
        settled, alerts = await self._in_thread("write", lambda: self._look(undecided, now))
        if len(self._settled) + len(settled) > _MAX_SETTLED:
            self._settled.clear()
        self._settled.update(settled)
        self._unsettled.clear()
        for line in alerts:
            self._metrics.campaign_alerts.inc()
            self._journal.write([events.campaign_alert(now, line)])
            logs.event(
                logs.WARNING, "campaign_alert", campaign=line.campaign, copies=line.disguised, sender=line.sender
            )

    def _look(self, names: dict[str, int], now: int) -> tuple[list[str], list[CampaignLine]]:
        """Of these campaigns those that need no further look, and those to tell of."""
        settled, alerts = [], []
        for name, last_at in names.items():
            line = self._ledger.campaign(name)
            if line is None:
                continue
            if line.alerted_at or last_at - line.first_at > self._tripwire.window:
                settled.append(name)
            elif line.disguised >= self._tripwire.copies:
                settled.append(name)
                if self._ledger.alert(name, now):
                    alerts.append(line)
        return settled, alerts

    def _is_decided(self, campaign: str, at: int) -> bool:
        """Whether somebody has looked already."""
        decision = self._decisions.get(campaign)
        return decision is not None and decision.in_force(at)

    async def _prune(self) -> None:
        """Forget now and then what nobody will ask for."""
        self._flushes += 1
        if self._flushes < PRUNE_EVERY:
            return
        now = self._clock()
        gone = await self._in_thread("write", lambda: self._ledger.prune(now - KEEP_RARE, RARE))
        gone += await self._in_thread("write", lambda: self._ledger.prune(now - KEEP))
        if gone < _SOME:
            self._flushes = 0

    # How the tasks run

    async def _repeat(self, what: str, every: float, work: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), every)
                return
            await self._try(what, work)

    async def _try(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, and whatever happens go on; a failure is counted each time and logged when it begins and ends."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 -- decisions and counts must go on being looked after
            self._metrics.error("campaigns")
            if what not in self._failing:
                self._failing.add(what)
                self._log_failure(what, error)
        else:
            if what in self._failing:
                self._failing.discard(what)
                logs.event(logs.INFO, "campaigns_available", part=what)
        self._metrics.campaigns_failed.set(bool(self._failing))

    def _log_failure(self, what: str, error: Exception) -> None:
        if isinstance(error, HoldUnavailableError):
            logs.event(logs.ERROR, "campaigns_failed", part=what, reason=error)
        else:
            logs.fault("campaigns_failed", error, part=what)

    def _end_threads(self) -> None:
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._threads = {}

    async def _in_thread(self, what: str, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads[what], work)

"""Notices: tells a mailbox, at most so often, what is held, what needs attention and what expires soon.

`Notifier.run_once` may be called by every worker as often as it likes: a file in the store directory says when the next
look is due, and whoever finds it due writes the following time before it does anything, under a lock. So restarts and
several workers send one notice, and a process that dies while it sends one leaves the next to the next time. With
nothing new to say nothing is sent, but once a week, so that silence means something. Each machine sends its own.

    DIR/notice.json   {"next_at","since","sent_at","well_at": epoch milliseconds, "troubles": [sentences]}
    DIR/notice.lock   locked while that is read and written

Whatever fails is reported and counted, and tried again; nothing is raised but CancelledError.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import orjson

from .campaigns import CampaignLedger, CampaignLine
from .delivery import Sender
from .durable import write_file
from .events import Outcome
from .held import By, HeldMail, HeldQuery, Tally
from .metrics import Metrics
from .notice_mail import Digest, Expiring, Fresh, notice
from .ports import HoldUnavailableError, Report
from .retention import OTHERS, Rule
from .store_directory import locked

STATE_FILE: Final = "notice.json"
LOCK_FILE: Final = "notice.lock"
HEARTBEAT: Final = 7 * 86_400_000  # milliseconds without a notice after which one is sent in any case
AGAIN: Final = 300_000  # milliseconds until another try if a notice was not taken
REPEAT: Final = 86_400_000  # milliseconds until what cannot be used is told again
_SOON: Final = 3 * 86_400_000  # milliseconds before the end in which a copy expires soon, or a quarter of its time
_ALERTED: Final = 1000  # campaigns, those seen last, that are looked through for alerts

HELD_UNREADABLE: Final = "held mail cannot be read now"
LEDGER_UNREADABLE: Final = "the campaign ledger cannot be read now"
_UNREADABLE: Final = frozenset({HELD_UNREADABLE, LEDGER_UNREADABLE})


class Ran(StrEnum):
    """What a call did."""

    NOT_DUE = "not_due"
    NOTHING_NEW = "nothing_new"
    SENT = "sent"
    IN_DOUBT = "in_doubt"  # it may have been taken; what it said is said again next time
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeTo:
    """To whom, from whom, at most how often (milliseconds), with how many campaigns."""

    to: str
    sender: str
    hostname: str
    every: int
    max_campaigns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What is known from one time to the next; all zero if nothing is. Epoch milliseconds."""

    next_at: int = 0
    since: int = 0  # what the last notice that was taken covers
    sent_at: int = 0
    well_at: int = 0  # the last time that all went well, with or without a notice
    troubles: tuple[str, ...] = ()


@dataclass(slots=True)
class Notifier:
    """Sends notices. `rules` go by the reason copies are held for, as `retention` has them. `troubles` gives sentences
    on whatever else cannot be used now; they hold nothing personal.
    """

    settings: NoticeTo
    directory: Path
    mail: HeldMail
    ledger: CampaignLedger
    rules: Mapping[str, Rule]
    sender: Sender
    metrics: Metrics
    report: Report
    troubles: Callable[[], Sequence[str]] = field(default=tuple)

    async def run_once(self, at: int) -> Ran:
        """Send a notice if one is due and there is something to say. `at` is now, in epoch milliseconds."""
        try:
            ran = await self._run(at)
        except Exception as error:  # noqa: BLE001 - a notice is not worth the worker
            self.report("notice", error)
            ran = Ran.FAILED
        if ran in (Ran.FAILED, Ran.IN_DOUBT):
            self.metrics.notice_failures.inc()
        return ran

    async def _run(self, at: int) -> Ran:
        before = await asyncio.to_thread(self._claim, at)
        if before is None:
            return Ran.NOT_DUE
        digest = await asyncio.to_thread(self._digest, before, at)
        ran = await self._tell(digest) if digest.news or at - before.sent_at >= HEARTBEAT else Ran.NOTHING_NEW
        if after := self._after(ran, before, digest):
            await asyncio.to_thread(self._keep, after)
        return ran

    def _claim(self, at: int) -> _State | None:
        """The state if a look is due, which then is nobody else's; None if it is not."""
        with locked(self.directory / LOCK_FILE):
            state = self._read()
            self.metrics.notice_last_success.set(state.well_at / 1000)
            if at < state.next_at <= at + self.settings.every:  # further away: the clock was put back
                return None
            self._write(replace(state, next_at=at + self.settings.every))
        return replace(state, sent_at=min(state.sent_at, at), since=min(state.since, at))

    def _after(self, ran: Ran, before: _State, digest: Digest) -> _State | None:
        """What is to be kept; None: what was claimed stands. In doubt, nothing is sent before the next time is due."""
        at, next_at = digest.at, digest.at + self.settings.every
        if ran is Ran.FAILED:
            return replace(before, next_at=min(next_at, at + AGAIN))
        if ran is Ran.IN_DOUBT:
            return None
        return _State(
            next_at=next_at,
            well_at=at,
            since=before.since if _UNREADABLE & set(digest.troubles) else at,
            sent_at=at if ran is Ran.SENT else before.sent_at,
            troubles=tuple(digest.troubles),
        )

    def _keep(self, state: _State) -> None:
        with locked(self.directory / LOCK_FILE):
            self._write(state)
            self.metrics.notice_last_success.set(state.well_at / 1000)

    def _read(self) -> _State:
        """The state on the disk; if it is damaged it is reported, and a notice too many is sent rather than none."""
        try:
            found = orjson.loads((self.directory / STATE_FILE).read_bytes())
            times = {name: int(found[name]) for name in ("next_at", "since", "sent_at", "well_at")}
            return _State(**times, troubles=tuple([str(trouble) for trouble in found["troubles"]]))
        except FileNotFoundError:
            return _State()
        except (ValueError, KeyError, TypeError) as error:
            self.report("notice", error)
            return _State()

    def _write(self, state: _State) -> None:
        write_file(self.directory / STATE_FILE, orjson.dumps(state), replace=True)

    async def _tell(self, digest: Digest) -> Ran:
        settings = self.settings
        own = notice(digest, to=settings.to, sender=settings.sender, hostname=settings.hostname)
        (attempt,) = await self.sender.send(own.mail, [own.recipient], (own.content,))
        if attempt.outcome is Outcome.TAKEN:
            return Ran.SENT
        return Ran.IN_DOUBT if attempt.outcome is Outcome.IN_DOUBT else Ran.FAILED

    def _digest(self, before: _State, at: int) -> Digest:
        digest = Digest(at=at, since=before.since)
        troubles = list(self.troubles())
        try:
            digest = self._with_held(digest)
        except HoldUnavailableError:
            troubles.append(HELD_UNREADABLE)
        try:
            digest = self._with_ledger(digest)
        except HoldUnavailableError:
            troubles.append(LEDGER_UNREADABLE)
        again = set(troubles) <= set(before.troubles) and at - before.sent_at < REPEAT
        return replace(digest, troubles=troubles, again=again)

    def _with_held(self, digest: Digest) -> Digest:
        held = self.mail.tally(HeldQuery(), By.CAMPAIGN)
        new = self.mail.tally(HeldQuery(received_from=digest.since), By.CAMPAIGN) if digest.since else held
        all_of = {tally.value: tally for tally in held}
        return replace(
            digest,
            copies=sum(tally.copies for tally in new),
            campaigns=len(new),
            fresh=[Fresh(one, all_of.get(one.value, one), None) for one in new[: self.settings.max_campaigns]],
            held=sum(tally.copies for tally in held),
            oldest=min((tally.oldest for tally in held), default=0),
            waiting=self.mail.waiting()[0],
            expiring=[
                found for one in self.mail.tally(HeldQuery(), By.REASON) if (found := self._expiring(one, digest))
            ],
        )

    def _with_ledger(self, digest: Digest) -> Digest:
        fresh = [one._replace(about=self._known(one.new.value)) for one in digest.fresh]
        alerts = [line for line in self.ledger.campaigns(_ALERTED) if digest.since < line.alerted_at]
        return replace(digest, fresh=fresh, alerts=alerts)

    def _known(self, campaign: str) -> CampaignLine | None:
        return self.ledger.campaign(campaign) if campaign else None

    def _expiring(self, held: Tally, digest: Digest) -> Expiring | None:
        """Of the copies held for one reason, those that expire soon; None if there are none."""
        rule = self.rules.get(held.value, self.rules[OTHERS])
        soon = rule.keep - min(_SOON, rule.keep // 4)
        if held.oldest >= digest.at - soon:
            return None
        copies = self._count(HeldQuery(reason=held.value, received_before=digest.at - soon))
        earlier = HeldQuery(reason=held.value, received_before=max(1, digest.since - soon)) if digest.since else None
        entered = copies - (self._count(earlier) if earlier else 0)
        return Expiring(held.value, copies, max(0, entered), held.oldest + rule.keep, rule.tell)

    def _count(self, query: HeldQuery) -> int:
        return sum(tally.copies for tally in self.mail.tally(query, By.REASON))

"""Held mail in a worker: what is done about it beside the mail, put together, started and stopped.

One worker of a machine at a time takes in copies that the Kafka door holds, delivers what was released, tells senders
of what was rejected, expires what was held for too long, removes records of what ended long ago, sends notices and
tidies up (`housekeeping`). `build` raises ConsentryError or OSError for what keeps it from starting; afterwards faults
are counted and logged, and nothing of it holds up or ends the relay.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from . import app, kafka_client, logs, relay_settings, releasing
from .auto_release import AutoRelease
from .campaigns import CampaignLedger
from .config import Config
from .decision import Decider
from .health import Notice, NotReady
from .held_pruning import Pruner
from .hold_stores import OpenHeldMail
from .housekeeping import Chore, Housekeeper, Service, SharedJournal, Turn
from .journal import FileJournal
from .kafka_ingest import HeldIngest
from .kafka_writer import KafkaWriter
from .metrics import Metrics
from .next_hop import SmtpNextHop
from .notices import NoticeTo, Notifier
from .ports import HoldStore, HoldUnavailableError, Report
from .recheck import Rechecker
from .rejections import Rejections
from .release import Moved, Orders
from .releaser import Releaser
from .releasing import Parts
from .retention import Retention
from .steady_clock import SteadyClock

TROUBLES: Final = {
    NotReady.HOLD_FAILED: "the disk failed to keep held mail; see the log",
    NotReady.HOLD_NO_ROOM: "there is too little space for held mail; senders are asked to come again",
    NotReady.JOURNAL_FAILED: "the journal cannot be written",
    NotReady.NEXT_HOP_UNAVAILABLE: "the next hop cannot be reached; senders are asked to come again",
    NotReady.KAFKA_UNAVAILABLE: "Kafka cannot be reached, or lets us not in; messages wait there",
    NotReady.KAFKA_TOPICS_MISSING: "topics of the Kafka door are missing; messages wait; see the log",
    NotReady.KAFKA_OUTPUT_REFUSED: "a topic takes nothing from us, or nothing so large; a partition waits; see the log",
    NotReady.KAFKA_OFFSET_LOST: "messages were removed from Kafka before they were read; a partition waits",
    NotReady.KAFKA_STALLED: "messages wait in Kafka and none is read; connections are made anew",
    Notice.KAFKA_IDLE: "a worker has no partition of the input topic; there are more workers than partitions",
    Notice.CONSENT_MISSING: "there is no consent data, or it cannot be read",
    Notice.CONSENT_STALE: "the consent data is older than it may be",
    Notice.CAMPAIGNS_FAILED: "the campaign ledger cannot be used; decisions count as last read",
}
"""What a relay says of itself, as notices say it."""
CHORES_EVERY: Final = 60.0  # seconds
TURN_FILE: Final = "housekeeping.lock"
_PENDING_FOR: Final = 2  # times transaction_timeout, after which nobody is going to void a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the relay gives: how it decides now, what is known of campaigns, where to store, what
    changes when consent or decisions do, what cannot be used at present (sentences), and the usual. `clock` gives epoch
    milliseconds.
    """

    slot: int
    decider: Callable[[], Decider]
    ledger: CampaignLedger
    hold: HoldStore
    consent_version: Callable[[], Hashable]
    decisions_version: Callable[[], Hashable]
    troubles: Callable[[], Sequence[str]]
    metrics: Metrics
    report: Report
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldService:
    """The keeper of held mail in one worker."""

    held: OpenHeldMail
    journal: FileJournal
    hop: SmtpNextHop
    releaser: Releaser
    writer: KafkaWriter | None
    housekeeper: Housekeeper

    def start(self) -> None:
        """Begin, as soon as it is our turn."""
        self.journal.start()
        self.housekeeper.start()

    async def stop(self) -> None:
        """Begin nothing more, let what was begun end, and close everything."""
        await self.housekeeper.stop()
        self.releaser.close()
        await self.hop.close()
        if self.writer:
            await self.writer.close()
        await asyncio.to_thread(self.held.close)  # which waits for what a thread is doing
        self.journal.close()


def build(config: Config, given: Given) -> HeldService:
    """Put it together for one worker, within its loop."""
    held = app.held_mail(config)
    journal = FileJournal(
        config.store.dir / "journal",
        f"{given.slot}-held",
        given.clock,
        sync_every=config.journal.sync.total_seconds(),
        on_failure=lambda: given.metrics.error("journal"),
    )
    hop = releasing.next_hop(config, given.metrics)
    report = _quiet(given.report)
    parts = Parts(
        held=held,
        decider=given.decider,
        sender=releasing.sender(config, hop, report),
        writer=releasing.kafka_writer(config),
        journal=SharedJournal(journal),
        metrics=given.metrics,
        report=report,
        clock=given.clock,
    )
    releaser = releasing.releaser(config, parts)
    turn = Turn(config.store.dir / TURN_FILE)
    services = [Service("release", releaser.serve, releaser.stop)]
    if parts.writer:
        ingest = _ingest(config, given, parts, parts.writer)
        services.append(Service("kafka_held", ingest.serve, ingest.stop))
    housekeeper = Housekeeper(turn, _chores(config, given, parts, lambda: releaser.stopping), services, report)
    return HeldService(
        held=held, journal=journal, hop=hop, releaser=releaser, writer=parts.writer, housekeeper=housekeeper
    )


def _ingest(config: Config, given: Given, parts: Parts, writer: KafkaWriter) -> HeldIngest:
    options = kafka_client.ingest(config.kafka)
    return HeldIngest(options, given.hold, writer.write, parts.journal, parts.metrics, clock=parts.clock)


def _quiet(report: Report) -> Report:
    """A store that cannot be used now is no fault of ours: it is logged in a line, and shows in the relay's health."""

    def tell(where: str, error: Exception) -> None:
        if isinstance(error, HoldUnavailableError):
            logs.event(logs.WARNING, "held_mail_unavailable", where=where, reason=error)
        else:
            report(where, error)

    return tell


def _chores(config: Config, given: Given, parts: Parts, stopping: Callable[[], bool]) -> list[Chore]:
    orders = Orders(parts.held, parts.journal, parts.metrics, parts.clock)
    chores = [
        Chore("confirm", CHORES_EVERY, _confirming(config, parts)),
        Chore(
            "retention", CHORES_EVERY, partial(asyncio.to_thread, _retention(config, parts, orders, stopping).run_once)
        ),
        Chore("rejected", CHORES_EVERY, partial(asyncio.to_thread, _rejections(parts, orders, stopping).run_once)),
    ]
    if keep := config.hold.prune_after:
        pruner = _pruner(relay_settings.milliseconds(keep), parts, stopping)
        chores.append(Chore("prune", CHORES_EVERY, partial(asyncio.to_thread, pruner.run_once)))
    if config.hold.auto_release:
        chores.append(Chore("auto_release", CHORES_EVERY, _auto_release(given, parts, orders).run_once))
    if config.notice.to:
        notifier = _notifier(config, given, parts)
        chores.append(Chore("notice", CHORES_EVERY, lambda: notifier.run_once(given.clock())))
    return chores


def _confirming(config: Config, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Gives copies over to review whose message is ours, though nobody could say so at the time."""
    age = _PENDING_FOR * relay_settings.milliseconds(config.smtp.transaction_timeout)

    async def confirm() -> None:
        at = parts.clock()
        confirmed = await asyncio.to_thread(parts.held.confirm_pending, at - age, at)
        if confirmed:
            logs.event(logs.INFO, "pending_confirmed", copies=confirmed)

    return confirm


def _retention(config: Config, parts: Parts, orders: Orders, stopping: Callable[[], bool]) -> Retention:
    clock = SteadyClock(parts.clock, time.monotonic)

    def go_on(_moved: Moved) -> bool:
        return not stopping()

    return Retention(parts.held, orders, parts.metrics, clock, releasing.rules(config), on_batch=go_on)


def _pruner(keep: int, parts: Parts, stopping: Callable[[], bool]) -> Pruner:
    clock = SteadyClock(parts.clock, time.monotonic)
    return Pruner(parts.held, parts.journal, parts.metrics, clock, keep, goes_on=lambda: not stopping())


def _rejections(parts: Parts, orders: Orders, stopping: Callable[[], bool]) -> Rejections:
    return Rejections(parts.held, orders, now=parts.clock, on_batch=lambda _moved: not stopping())


def _auto_release(given: Given, parts: Parts, orders: Orders) -> AutoRelease:
    def version() -> Hashable:
        return given.consent_version(), given.decisions_version(), given.decider().classifier.rules.version

    return AutoRelease(
        parts.held, orders, Rechecker(parts.decider), now=parts.clock, version=version, report=parts.report
    )


def _notifier(config: Config, given: Given, parts: Parts) -> Notifier:
    notice, hostname = config.notice, relay_settings.hostname(config)
    return Notifier(
        settings=NoticeTo(
            to=notice.to,
            sender=notice.from_ or f"consentry@{hostname}",
            hostname=hostname,
            every=relay_settings.milliseconds(notice.every),
            max_campaigns=notice.max_campaigns,
        ),
        directory=config.store.dir,
        mail=parts.held,
        ledger=given.ledger,
        rules=releasing.rules(config),
        sender=parts.sender,
        metrics=parts.metrics,
        report=parts.report,
        troubles=given.troubles,
    )

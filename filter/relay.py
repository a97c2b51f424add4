"""The relay of one worker: everything that moves mail, put together straight down the page, started, watched, stopped.

`build` raises ConsentryError or OSError for what keeps it from starting. Afterwards `report` says how it is; only
`broken` asks for the end of the process, when what the disk holds can no longer be believed.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import time_ns
from typing import Final

from prometheus_client import CollectorRegistry

from . import __version__, app, events, logs, relay_held, relay_kafka, relay_settings, tracing
from .campaign import masked_subject
from .campaign_watch import CampaignWatch, Tripwire
from .completion import Completion
from .config import Config
from .consent_view import LateConsent
from .diverting import Diverter
from .errors import ConsentDataError
from .events import Event
from .flights import Flights, recovered
from .health import Notice, NotReady, Report
from .hold_stores import OpenHold, OpenLedger
from .journal import FileJournal
from .judging import Judge
from .keys import load_key
from .message_key import MessageKeyer
from .metrics import Hop, Metrics
from .next_hop import HostState, SmtpNextHop
from .next_hop_breaker import BreakerState
from .pipeline import Pipeline
from .ports import HoldUnavailableError, NextHopUnavailableError
from .recovery import recover
from .relay_held import TROUBLES, Given, HeldService
from .relay_kafka import KafkaService
from .smtp_door import Door
from .smtp_service import SmtpService
from .tracing import Tracer

WATCH_EVERY: Final = 5.0  # seconds between looks for a next hop that could not be reached, and for dead workers
_PROBE_TIMEOUT: Final = 10.0
_SPARE_FLIGHTS: Final = 256


def now() -> int:
    """The wall clock in epoch milliseconds."""
    return time_ns() // 1_000_000


@dataclass(slots=True)
class Relay:
    """The parts that need care after they were put together. `version` is that of the rule set."""

    version: str
    slot: int
    drain_time: float
    config: Config
    consent: LateConsent
    hold: OpenHold
    flights: Flights
    journal: FileJournal
    metrics: Metrics
    next_hop: SmtpNextHop
    divert_hop: SmtpNextHop | None
    service: SmtpService
    completion: Completion
    ledger: OpenLedger
    watch: CampaignWatch
    keeper: HeldService
    kafka: KafkaService
    tracer: Tracer | None
    troubles: list[str]  # what notices tell of; as of the last report
    _watching: asyncio.Task[None] | None = None
    _unreached: bool = False

    async def start(self, sockets: Sequence[tuple[socket.socket, bool]]) -> None:
        """Settle what a worker before us left, look for the next hop, and serve on these sockets (socket, TLS)."""
        await self._recover()
        await self.watch.start()
        self.journal.start()
        self._write(Event.STARTED)
        if self.config.smtp.serves:
            await self._probe()
        self._watching = asyncio.create_task(self._keep_watch())
        for implicit_tls in (False, True):
            share = [one for one, tls in sockets if tls is implicit_tls]
            await self.service.listen(share, implicit_tls=implicit_tls)
        self.kafka.start()
        self.keeper.start()

    async def stop(self) -> None:
        """Accept nothing more, see messages under way to their end, and close everything."""
        keeper = asyncio.create_task(self.keeper.stop())  # at once: its successor is waiting
        kafka = asyncio.create_task(self.kafka.stop())
        if not await self.service.drain(self.drain_time):
            logs.event(logs.WARNING, "drain_overdue", sessions=len(self.service.sessions))
        await kafka
        await keeper
        if self._watching:
            self._watching.cancel()
        for hop in filter(None, (self.next_hop, self.divert_hop)):
            await hop.close()
        await self.completion.finish()
        await self.watch.stop()
        self._write(Event.STOPPED)
        if self.tracer:
            await asyncio.to_thread(self.tracer.close)
        self.hold.close()
        self.flights.close()
        self.journal.close()
        self.consent.close()
        self.ledger.close()

    @property
    def broken(self) -> bool:
        """Whether only a new process can help."""
        return bool(self.hold.failed)

    def report(self) -> Report:
        """How it is; sets the gauges as well."""
        unreachable = self.config.smtp.serves and (self._unreached or not self.next_hop.available)
        reasons = {
            NotReady.HOLD_FAILED: bool(self.hold.failed),
            NotReady.HOLD_NO_ROOM: not self.hold.has_room(0),
            NotReady.JOURNAL_FAILED: self.journal.failed or self.keeper.journal.failed,
            NotReady.NEXT_HOP_UNAVAILABLE: unreachable,
        }
        self._set_gauges()
        found = [reason for reason, given in reasons.items() if given]
        report = Report((*found, *self.kafka.reasons()), (*self._notices(), *self.kafka.notices()))
        self.troubles[:] = [TROUBLES[one] for one in (*report.reasons, *report.notices)]
        return report

    def _notices(self) -> tuple[Notice, ...]:
        campaigns = (Notice.CAMPAIGNS_FAILED,) if self.watch.failing else ()
        try:
            stale = (Notice.CONSENT_STALE,) if self.consent.stale(now()) else ()
        except ConsentDataError:
            stale = (Notice.CONSENT_MISSING,)
        self.metrics.consent_stale.set(bool(stale))
        return (*stale, *campaigns)

    def _set_gauges(self) -> None:
        usage = self.service.sessions.usage
        self.metrics.connections.set(usage.connections)
        self.metrics.bytes_in_flight.set(usage.bytes_in_flight)
        self.metrics.journal_failed.set(self.journal.failed or self.keeper.journal.failed)
        self.metrics.hold_failed.set(bool(self.hold.failed))
        for hop, there in ((Hop.RELAY, self.next_hop), (Hop.DIVERT, self.divert_hop), (Hop.RELEASE, self.keeper.hop)):
            if there:
                self._show_hosts(hop, there.hosts)

    def _show_hosts(self, hop: Hop, hosts: Sequence[HostState]) -> None:
        """Hosts are numbered as configured, from 1: their names are nobody's business."""
        metrics = self.metrics
        for number, host in enumerate(hosts, 1):
            metrics.breaker_open.labels(hop.value, str(number)).set(host.breaker is BreakerState.OPEN)
        metrics.hop_connections.labels(hop.value, "idle").set(sum(host.idle for host in hosts))
        metrics.hop_connections.labels(hop.value, "in_use").set(sum(host.in_use for host in hosts))
        metrics.hop_waiting.labels(hop.value).set(sum(host.waiting for host in hosts))

    def _look_at_consent(self) -> None:
        """Show how much is in the consent index; it takes a look at the disk."""
        try:
            found = self.consent.stats()
        except ConsentDataError:
            return  # of which `consent_stale` tells
        self.metrics.consent_subjects.set(found.subjects)
        self.metrics.consent_on_record.set(found.records)
        self.metrics.consent_as_of.set(found.as_of / 1000)

    async def _recover(self) -> None:
        """Bring to an end what died with other workers; if the disk does not let us, we try again."""
        try:
            with recovered(self.config.store.dir / "flights") as found:
                for path in found.damaged:
                    logs.event(logs.ERROR, "flights_damaged", path=path)
                if found.outdated:
                    logs.event(logs.WARNING, "flights_outdated", files=found.outdated)
                await recover(found.left, self.hold, self.journal, self.metrics, now)
        except HoldUnavailableError as error:
            logs.event(logs.ERROR, "recovery_failed", reason=error)

    async def _probe(self) -> None:
        """Learn what the next hop can do, and whether it is there."""
        was = self._unreached
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await self.next_hop.probe()
            self._unreached = False
        except (NextHopUnavailableError, TimeoutError) as error:
            self._unreached = True
            if not was:
                logs.event(logs.WARNING, "next_hop_unavailable", reason=error)
        if was and not self._unreached:
            logs.event(logs.INFO, "next_hop_available")

    async def _keep_watch(self) -> None:
        """See to what no mail might come to find: a next hop that is back, and what a worker left that nobody follows.

        The last worker of an old generation has no successor when it overruns its drain.
        """
        while True:
            self._look_at_consent()
            await asyncio.sleep(WATCH_EVERY)
            try:
                await self._recover()
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next hop must go on being looked for
                logs.fault("recovery_failed", error)
            if self.config.smtp.serves and (self._unreached or not self.next_hop.available):
                with suppress(OSError):
                    await self._probe()

    def _write(self, event: Event) -> None:
        line = events.process(event, now(), worker=str(self.slot), version=__version__, ruleset=self.version)
        self.journal.write([line])


def build(config: Config, slot: int) -> Relay:
    """Put the relay of worker `slot` together, within its running event loop. Nothing is served yet."""
    store = config.store.dir
    loaded = app.rules(config)
    metrics = Metrics(CollectorRegistry(), asyncio.get_running_loop().call_later)
    tracer = tracing.build(enabled=config.tracing.enabled, worker=str(slot))
    took = metrics.consent_lookup_took
    consent = LateConsent(
        lambda: app.consent_store(config), topic=config.kafka.follows, took=tracer.timing(took) if tracer else took
    )
    hold = app.hold(config)
    flights = Flights(store / "flights", slot, slots=2 * config.smtp.max_connections + _SPARE_FLIGHTS)
    journal = FileJournal(
        store / "journal",
        str(slot),
        now,
        sync_every=config.journal.sync.total_seconds(),
        on_failure=lambda: metrics.error("journal"),
    )
    ledger = app.campaign_ledger(config)
    tripwire = Tripwire(
        copies=config.campaign.alert_copies, window=relay_settings.milliseconds(config.campaign.alert_window)
    )
    watch = CampaignWatch(ledger, tripwire, masked_subject, journal=journal, metrics=metrics, clock=now)
    decider = app.decider(config, loaded, consent, watch.decision)
    next_hop = SmtpNextHop(relay_settings.next_hop(config, config.next_hop.hosts), count=metrics.next_hop_event)
    divert_hop = _divert_hop(config, metrics)
    report = _Reporter(metrics)
    diverter = Diverter(divert_hop, config.divert.address.encode(), hold, report)
    completion = Completion(
        diverter=diverter, hold=hold, journal=journal, metrics=metrics, clock=now, report=report, note=watch.note
    )
    judge = Judge(lambda: decider, app.keyer(config, create=True), metrics, report)
    pipeline = Pipeline(
        judge=judge,
        next_hop=next_hop,
        completion=completion,
        hold=hold,
        flights=flights,
        journal=journal,
        metrics=metrics,
        keyer=MessageKeyer(load_key(config.subject_key_file)),
        settings=relay_settings.pipeline(config),
        clock=now,
        report=report,
        tracer=tracer,
    )
    door = Door(pipeline, lambda: next_hop.capabilities, hold.has_room, config.smtp.relay_networks)
    kafka = relay_kafka.build(
        config.kafka,
        relay_kafka.Given(
            judge=judge,
            flights=flights,
            known=hold.known,
            journal=journal,
            metrics=metrics,
            note=watch.note,
            report=report,
            clock=now,
        ),
    )
    troubles: list[str] = []
    keeper = relay_held.build(
        config,
        Given(
            slot=slot,
            decider=lambda: decider,
            ledger=ledger,
            hold=hold,
            consent_version=consent.version,
            decisions_version=lambda: watch.version,
            troubles=lambda: troubles,
            metrics=metrics,
            report=report,
            clock=now,
        ),
    )
    return Relay(
        version=loaded.rules.version,
        slot=slot,
        drain_time=config.smtp.drain_time,
        config=config,
        consent=consent,
        hold=hold,
        flights=flights,
        journal=journal,
        metrics=metrics,
        next_hop=next_hop,
        divert_hop=divert_hop,
        service=SmtpService(door, relay_settings.server(config), report),
        completion=completion,
        ledger=ledger,
        watch=watch,
        keeper=keeper,
        kafka=kafka,
        tracer=tracer,
        troubles=troubles,
    )


class _Reporter:
    """Counts and logs the faults nobody expected."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, where: str, error: Exception) -> None:
        self._metrics.error(where)
        logs.fault("fault", error, where=where)


def _divert_hop(config: Config, metrics: Metrics) -> SmtpNextHop | None:
    """Where diverted copies go: own hosts, or the next hop's if they go to an address of their own."""
    hosts = config.divert.hosts or (config.next_hop.hosts if config.divert.address else ())
    return SmtpNextHop(relay_settings.next_hop(config, hosts), count=metrics.next_hop_event) if hosts else None

"""The release of held mail, put together of configuration and parts: for a worker, and for a command.

Raises ConfigError, RuleError and OSError for what keeps it from beginning.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

from . import app, kafka_client, logs, relay_settings
from .bouncing import Bouncer
from .campaigns import CampaignDecision, CampaignLedger
from .config import Config
from .config_held import OnExpiry
from .consent_view import LateConsent
from .decision import Decider
from .delivery import Sender
from .envelope import Client
from .handling import Handler
from .held import HeldMail
from .kafka_release import Couriers, KafkaCourier
from .kafka_writer import KafkaWriter
from .metrics import Metrics
from .next_hop import SmtpNextHop
from .ports import HoldUnavailableError, Journal, NextHop, Report
from .recheck import Rechecker
from .releaser import Releaser, ReleaseSettings
from .retention import Rule
from .retry import Retry
from .reviewing import ReviewStores

_LOOK_EVERY: Final = 0.5  # seconds between looks of a command for decisions that changed
_OURSELVES: Final = Client("")


def settings(config: Config) -> ReleaseSettings:
    """How many transactions at once, and for how long each."""
    return ReleaseSettings(concurrent=config.hold.release_connections)


def rules(config: Config) -> Mapping[str, Rule]:
    """How long mail is held, by reason, and whether its sender is told at the end."""
    hold = config.hold
    reasons = {*hold.retention, *hold.on_expiry}
    return {
        reason: Rule(
            relay_settings.milliseconds(hold.retention_of(reason)), tell=hold.on_expiry_of(reason) is OnExpiry.DSN
        )
        for reason in reasons
    }


def next_hop(config: Config, metrics: Metrics) -> SmtpNextHop:
    """The next hop over connections of its own, so that released mail takes none from mail that a client waits for."""
    options = relay_settings.next_hop(config, config.next_hop.hosts)
    return SmtpNextHop(replace(options, max_connections=config.hold.release_connections), count=metrics.next_hop_event)


def sender(config: Config, hop: NextHop, report: Report) -> Sender:
    """What hands mail over in our own name."""
    return Sender(hop, _OURSELVES, report, settings(config).attempt)


def kafka_writer(config: Config) -> KafkaWriter | None:
    """What writes to Kafka in our own name, if there is one; connects when there is something to write."""
    kafka = config.kafka
    if not kafka.serves:
        return None
    return KafkaWriter(kafka.topic, {**kafka_client.connection(kafka), **kafka_client.producer(kafka)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a releaser works with; without `writer` there is no Kafka. `clock` gives epoch milliseconds."""

    held: HeldMail
    decider: Callable[[], Decider]
    sender: Sender
    writer: KafkaWriter | None
    journal: Journal
    metrics: Metrics
    report: Report
    clock: Callable[[], int]


def releaser(config: Config, parts: Parts) -> Releaser:
    """A releaser; within the loop it is used in."""
    kafka = KafkaCourier(parts.writer, parts.report) if parts.writer else None
    handler = Handler(
        rechecker=Rechecker(parts.decider),
        courier=Couriers(parts.sender, kafka, config.hold.release_to),
        bouncer=Bouncer(parts.sender, relay_settings.hostname(config)),
        retry=Retry(give_up=relay_settings.milliseconds(config.hold.give_up)),
        clock=parts.clock,
        report=parts.report,
    )
    common = (parts.held, handler, parts.journal, parts.metrics, parts.report)
    return Releaser(*common, settings=settings(config), clock=parts.clock)


@asynccontextmanager
async def for_command(
    config: Config,
    stores: ReviewStores,
    journal: Journal,
    metrics: Metrics,
    clock: Callable[[], int],
) -> AsyncIterator[Releaser]:
    """A releaser for as long as a command lasts."""
    consent = LateConsent(lambda: app.consent_store(config))
    decider = app.decider(config, app.rules(config), consent, LateDecisions(stores.ledger))
    hop, writer = next_hop(config, metrics), kafka_writer(config)
    built = releaser(
        config,
        Parts(
            held=stores.held,
            decider=lambda: decider,
            sender=sender(config, hop, _log),
            writer=writer,
            journal=journal,
            metrics=metrics,
            report=_log,
            clock=clock,
        ),
    )
    try:
        yield built
    finally:
        built.close()
        await hop.close()
        if writer:
            await writer.close()
        consent.close()


def _log(where: str, error: Exception) -> None:
    logs.fault("fault", error, where=where)


class LateDecisions:
    """The decisions that stand, read from the ledger when they changed; asked for one, blocks for a look at it.

    While the ledger cannot be read those that were read last count. The first look raises HoldUnavailableError.
    """

    def __init__(self, ledger: CampaignLedger, *, clock: Callable[[], float] = monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._version = ledger.version()
        self._found = _standing(ledger)
        self._look_at = clock() + _LOOK_EVERY

    def __call__(self, campaign: str) -> CampaignDecision | None:
        """The decision on this campaign; whether it has run out is for the caller to see."""
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + _LOOK_EVERY
            self._look()
        return self._found.get(campaign)

    def _look(self) -> None:
        try:
            version = self._ledger.version()
            if version != self._version:
                self._found, self._version = _standing(self._ledger), version
        except HoldUnavailableError as error:
            _log("decisions", error)


def _standing(ledger: CampaignLedger) -> dict[str, CampaignDecision]:
    return {one.campaign: one for one in ledger.decisions() if not one.withdrawn_at and not one.waits}

"""Held mail, a next hop and recipients who change their minds, around what releases: in memory, time in our hands."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry
from support import fakes
from support.held_memory import MemoryHeldMail

from filter.bouncing import Bouncer
from filter.campaigns import CampaignDecision, Decided
from filter.classify import Classifier
from filter.consent import ANY, Capture, ConsentAnswer, ConsentEvent, ConsentState, EventKind, Scope
from filter.decision import Decider
from filter.delivery import Sender
from filter.envelope import Client, MailFrom, RcptTo
from filter.errors import AddressError, ConsentDataError
from filter.facts import facts_of
from filter.handling import Handler
from filter.held import Action, CopyState, HeldQuery, Order
from filter.labels import SegmentLabel
from filter.message import parse_message
from filter.metrics import Metrics
from filter.policy import Disposition, Policy, Trouble, decide
from filter.ports import HeldCopy, HeldMessage
from filter.recheck import Rechecker
from filter.release import Moved, Orders
from filter.releaser import Progress, Releaser, ReleaseSettings
from filter.retry import Retry
from filter.rules import Rule, compile_rules
from filter.stream import Stream
from filter.weights import Weights

NOON = 1_790_000_000_000
RULES = (
    Rule("test.promotion", SegmentLabel.MARKETING, 3.0, ("promotion",), ("R1",)),
    Rule("test.service", SegmentLabel.SERVICE, 3.0, ("statement",), ("R2",)),
)
CLASSIFIER = Classifier(compile_rules(RULES, Weights()))
NEW_RULES = Classifier(compile_rules((replace(RULES[0], patterns=("other words",)), RULES[1]), Weights()))
PROMOTION = b"Subject: Hello\r\n\r\nA promotion for you.\r\n..and dots.\r\n"
TRACE = (
    b"Received: from client (client.example [192.0.2.1])\r\n\tby gate.example with ESMTP; noon\r\nX-Consentry: Q\r\n"
)
SENDER = MailFrom(b"bounce@shop.example")
SETTINGS = ReleaseSettings(concurrent=4, batch=10, linger=0.0, pause=0.0, attempt=5.0, lease=60.0)


def blocked(state: ConsentState = ConsentState.CONSENT) -> ConsentAnswer:
    """The answer for an address to which nothing may be sent."""
    capture = Capture(kind=EventKind.BLOCK, scope=Scope(ANY, ANY, ANY, ANY))
    return ConsentAnswer(state, None, (), ConsentEvent(capture, "b", 1, 1), ())


class Consents:
    """Consent by address; UNKNOWN for everybody who is not in `states`. `down`: nothing can be looked up."""

    def __init__(self) -> None:
        self.states: dict[str, ConsentState | ConsentAnswer] = {}
        self.scopes: list[Scope] = []
        self.old = self.down = False

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """As set."""
        self.scopes.append(scope)
        if self.down:
            raise ConsentDataError("down")
        if "@" not in address:
            raise AddressError("no domain")
        found = self.states.get(address, ConsentState.UNKNOWN)
        return found if isinstance(found, ConsentAnswer) else ConsentAnswer(found, None, (), None, ())

    def stale(self, at: int) -> bool:
        """As set."""
        return self.old


class ReleaseWorld:
    """Everything that releases, wired as in a relay."""

    def __init__(self, *, settings: ReleaseSettings = SETTINGS) -> None:
        self.mail = MemoryHeldMail()
        self.script = fakes.Script()
        self.hop = fakes.NextHop("hop", self.script)
        self.journal = fakes.Journal()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.consents = Consents()
        self.decisions: dict[str, CampaignDecision] = {}
        self.classifier = CLASSIFIER
        self.policy = Policy()
        self.streams = (Stream("shop", "shop", "offers"),)
        self.reported: list[str] = []
        self.now = NOON
        self.settings = settings
        self.rechecker = Rechecker(self._decider)
        self.orders = Orders(self.mail, self.journal, self.metrics, self.clock)
        self.retry = Retry()

    def clock(self) -> int:
        """Epoch milliseconds."""
        return self.now

    def report(self, where: str, _error: Exception) -> None:
        """Note a fault."""
        self.reported.append(where)

    def releaser(self) -> Releaser:
        """One more releaser; within a loop."""
        sender = Sender(self.hop, Client(""), self.report, self.settings.attempt)
        handler = Handler(
            rechecker=self.rechecker,
            courier=sender,
            bouncer=Bouncer(sender, "gate.example"),
            retry=self.retry,
            clock=self.clock,
            report=self.report,
        )
        return Releaser(
            *(self.mail, handler, self.journal, self.metrics, self.report), settings=self.settings, clock=self.clock
        )

    def hold(
        self,
        *names: str,
        content: bytes = PROMOTION,
        mail: MailFrom = SENDER,
        params: tuple[bytes, ...] = (),
        campaign: str = "c1",
        received_at: int = NOON - 1000,
    ) -> str:
        """Hold a message for these recipients, judged as it would be on its way; its queue id."""
        classification = CLASSIFIER.classify(parse_message(content))
        copies = [self._copy(classification, name, params) for name in names]
        queue_id = f"Q{len(self.mail.messages) + 1}"
        self.mail.store(
            HeldMessage(
                queue_id=queue_id,
                received_at=received_at,
                mail=mail,
                trace=TRACE,
                content=content,
                label=classification.label,
                score=classification.score,
                ruleset=classification.ruleset,
                declared="",
                controller="shop",
                brand="shop",
                topic="offers",
                copies=tuple(copies),
                campaign=campaign,
                facts=facts_of(classification).to_json(),
            )
        )
        return queue_id

    def order(self, action: Action = Action.RELEASE, *, name: str = "o1", despite: bool = False) -> Order:
        """An order of now."""
        return Order(name, action, self.now, "ann", "because", despite)

    def release(self, *, name: str = "o1", despite: bool = False, query: HeldQuery | None = None) -> Moved:
        """Order the release of what is held."""
        return self.orders.carry_out(self.order(name=name, despite=despite), query or HeldQuery())

    def deliver(self, order: str = "") -> Progress:
        """Deliver what is due."""

        async def once() -> Progress:
            releaser = self.releaser()
            try:
                return await releaser.run(order)
            finally:
                releaser.close()

        return asyncio.run(once())

    def decide(self, decided: Decided, campaign: str = "c1") -> None:
        """A reviewer decides."""
        self.decisions[campaign] = CampaignDecision(campaign, decided, "why", "ann", NOON)

    def pass_time(self, milliseconds: int) -> None:
        """Time passes."""
        self.now += milliseconds

    def state(self, name: str) -> CopyState:
        """The state of the one copy for a recipient."""
        (found,) = [row.state for row in self.mail.rows.values() if row.copy.recipient.path == path(name)]
        return found

    def outcome(self, name: str) -> str:
        """What is told of it."""
        (found,) = [row.outcome for row in self.mail.rows.values() if row.copy.recipient.path == path(name)]
        return found

    @property
    def reached(self) -> list[bytes]:
        """Whom the next hop has copies for, without reports."""
        return [recipient.path for mail, recipient, _ in self.hop.delivered if mail.path]

    @property
    def reports(self) -> list[bytes]:
        """The reports that the next hop took."""
        return [content for mail, _, content in self.hop.delivered if not mail.path]

    def count(self, outcome: str) -> float:
        """The metric."""
        return self.registry.get_sample_value("consentry_release_outcomes_total", {"outcome": outcome}) or 0.0

    def _decider(self) -> Decider:
        return Decider(
            self.classifier,
            self.consents,
            self.streams,
            self.policy,
            decisions=self.decisions.get,
        )

    def _copy(self, classification: object, name: str, params: Sequence[bytes]) -> HeldCopy:
        address = path(name).decode()
        try:
            consent = self.consents.lookup(address, Scope("email", "shop", "shop", "offers"), self.now)
        except ConsentDataError:
            consent = Trouble.UNAVAILABLE
        verdict = decide(classification, consent, self.policy)
        return HeldCopy(
            recipient=RcptTo(path(name), tuple(params)),
            subject_key=path(name).hex()[:32].ljust(32, "0"),
            disposition=Disposition.HOLD,
            reason=verdict.reason,
            notes=verdict.notes,
            state=verdict.state,
            evidence=verdict.evidence,
        )


def path(name: str) -> bytes:
    """The address of a recipient."""
    return f"{name}@x.example".encode()

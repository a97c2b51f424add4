"""A pipeline among fakes (`fakes`) that judges for real; a recipient's local part says what the policy is to do."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from filter.address import SubjectKeyer
from filter.classify import Classifier
from filter.completion import Completion
from filter.consent import ConsentAnswer, ConsentState, Scope
from filter.decision import Decider
from filter.diverting import Diverter
from filter.envelope import Client, MailFrom, RcptTo
from filter.errors import AddressError
from filter.judging import Judge, Judged
from filter.labels import Label, SegmentLabel
from filter.message_key import MessageKeyer
from filter.metrics import Metrics
from filter.pipeline import Pipeline, PipelineSettings, Transaction
from filter.policy import DEFAULT_TABLE, Disposition, Policy
from filter.recovery import recover
from filter.replies import Reply
from filter.rules import Rule, compile_rules
from filter.stream import Mode, Stream
from filter.weights import Weights

from . import fakes

PROMOTION = b"From: a@bank.example\r\nSubject: news\r\nMessage-ID: <1@bank.example>\r\n\r\nOur promotion.\r\n"
SERVICE = b"From: a@bank.example\r\nSubject: note\r\nMessage-ID: <2@bank.example>\r\n\r\nYour statement.\r\n"
CLIENT = Client("192.0.2.1", "mail.example", esmtp=True)
MAIL = MailFrom(b"a@bank.example", (b"SIZE=100",), size=100)
NOON = 1_728_043_200_000

_CLASSIFIER = Classifier(
    compile_rules((Rule("test.promotion", SegmentLabel.MARKETING, 3.0, ("promotion",), ("R1",)),), Weights())
)
_STATES = {
    "relay": ConsentState.CONSENT,
    "hold": ConsentState.SOFT_OPT_IN,
    "divert": ConsentState.SOLICITED,
    "reject": ConsentState.CORPORATE,
    "tempfail": ConsentState.OBJECTED,
}
POLICY = Policy({**DEFAULT_TABLE, Label.MARKETING: {state: Disposition(word) for word, state in _STATES.items()}})
_T = TypeVar("_T")


class Consents:
    """Consent as the local part has it: `hold.2@x.example` is in the state that POLICY holds."""

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """A state, and no records. Raises AddressError for an address without domain."""
        if "@" not in address:
            raise AddressError("no domain")
        return ConsentAnswer(_STATES[address.partition("@")[0].partition(".")[0]], None, (), None, ())

    def stale(self, at: int) -> bool:
        """Never."""
        return False


def decider(policy: Policy = POLICY, *modes: Mode) -> Decider:
    """A decider with a stream for each mode, the last of which is the default."""
    streams = tuple([Stream("bank", "bank", "offers", mode) for mode in modes or (Mode.ENFORCE,)])
    return Decider(_CLASSIFIER, Consents(), streams, policy)


def rcpt(word: str, number: int = 0) -> RcptTo:
    """A recipient whose promotional mail gets the disposition that `word` is."""
    return RcptTo(f"{word}.{number}@x.example".encode(), (b"NOTIFY=NEVER",))


class World:
    """A pipeline, everything around it, and ways to send mail through it."""

    def __init__(
        self,
        *,
        decider: Callable[[], Decider] = decider,
        divert: bool = True,
        divert_address: bytes = b"",
        timeout: float = 5.0,
    ) -> None:
        self.script = fakes.Script()
        self.hop = fakes.NextHop("hop", self.script)
        self.side = fakes.NextHop("side", self.script)
        self.hold = fakes.HoldStore(self.script)
        self.flights = fakes.Flights(self.script)
        self.journal = fakes.Journal()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.reported: list[str] = []
        self.noted: list[tuple[str, Judged]] = []
        self.now = NOON
        diverter = Diverter(self.side if divert else None, divert_address, self.hold, self._report)
        self.pipeline = Pipeline(
            judge=Judge(decider, SubjectKeyer(b"s" * 32), self.metrics, self._report),
            next_hop=self.hop,
            completion=Completion(
                diverter=diverter,
                hold=self.hold,
                journal=self.journal,
                metrics=self.metrics,
                clock=self._clock,
                report=self._report,
                note=lambda incoming, judged: self.noted.append((incoming.queue_id, judged)),
            ),
            hold=self.hold,
            flights=self.flights,
            journal=self.journal,
            metrics=self.metrics,
            keyer=MessageKeyer(b"m" * 32),
            settings=PipelineSettings(hostname="gate.example", transaction_timeout=timeout),
            clock=self._clock,
            report=self._report,
        )

    def send(
        self,
        recipients: Sequence[RcptTo],
        content: bytes = PROMOTION,
        mail: MailFrom = MAIL,
        *,
        known: bool = True,
        finished: bool = True,
    ) -> Reply:
        """Send a message; `known`: the client goes on afterwards, otherwise it is lost.

        Unless `finished`, the worker ends when the client has its reply, whatever remains to be done.
        """
        return run(self._send(recipients, content, mail, known=known, finished=finished))

    async def offered(self, recipients: Sequence[RcptTo], mail: MailFrom = MAIL) -> Transaction:
        """A transaction with these recipients."""
        transaction = self.pipeline.begin(CLIENT, mail)
        for recipient in recipients:
            await transaction.rcpt(recipient)
        return transaction

    def restart(self) -> None:
        """The worker was killed; another one takes over."""
        left = self.flights.left
        self.flights.flying.clear()
        self.script.fail, self.script.at = {}, 0
        run(recover(left, self.hold, self.journal, self.metrics, self._clock))

    def places(self) -> list[bytes]:
        """Paths of all copies that are somewhere: relayed, marked as diverted, or live in the hold store, sorted."""
        marked = [
            self.hold.messages[queue_id].copies[number].recipient.path for queue_id, number in self.hold.sent.elements()
        ]
        return sorted([*self.hop.reached, *marked, *self.hold.live()])

    def count(self, name: str, **labels: str) -> float:
        """The value of a counter; 0 if it never counted."""
        return self.registry.get_sample_value(f"consentry_{name}_total", labels) or 0.0

    async def _send(
        self, recipients: Sequence[RcptTo], content: bytes, mail: MailFrom, *, known: bool, finished: bool
    ) -> Reply:
        transaction = await self.offered(recipients, mail)
        reply = await transaction.data(content)
        if finished:
            await self.pipeline.completion.finish()
        if known:
            transaction.acknowledged()
        else:
            await transaction.unacknowledged()
        return reply

    def _report(self, where: str, error: Exception) -> None:
        self.reported.append(where)
        self.metrics.error(where)

    def _clock(self) -> int:
        return self.now


def run(task: Coroutine[Any, Any, _T]) -> _T:
    """What it returns."""
    return asyncio.run(task)

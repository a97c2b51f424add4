"""Bulk release from the store of this machine to a server: octets, signatures, objections, and processes that die."""

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from prometheus_client import CollectorRegistry
from support import fakes
from support.captures import grant
from support.held import VAULT
from support.processes import Process, run, wait_until
from support.release import PROMOTION, TRACE, ReleaseWorld, path
from support.release_process import KEYER, LEASE, SETTINGS, deliver, now
from support.script_sink import ScriptSink, reply

from filter.consent import ANY, Capture, ConsentEvent, EventKind, Scope
from filter.consent_store import ConsentStore, Entry
from filter.events import Event
from filter.held import Action, CopyState, HeldQuery, Order
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.metrics import Metrics
from filter.ports import HeldMessage
from filter.release import Orders
from filter.releaser import Progress

pytestmark = pytest.mark.integration

SCOPE = Scope("email", "shop", "shop", "offers")
GRANT = grant(SCOPE)
OBJECT = Capture(kind=EventKind.OBJECT, scope=Scope(ANY, "shop", ANY, ANY), source="centre")
PROGRAM = Path(__file__).parents[1] / "support" / "release_process.py"


class Place:
    """A store directory with held mail and consent, and a server to deliver to."""

    def __init__(self, directory: Path, sink: ScriptSink) -> None:
        self.directory = directory
        self.sink = sink
        self.journal = fakes.Journal()
        self._world = ReleaseWorld()
        HoldStore(directory / "hold", vault=VAULT, min_free_space=0).close()
        self.mail = HeldReview(directory / "hold", VAULT)

    def hold(self, *groups: Sequence[str], content: bytes = PROMOTION) -> None:
        """Hold a message for each group of recipients."""
        store = HoldStore(self.directory / "hold", vault=VAULT, min_free_space=0)

        async def store_all(messages: Sequence[HeldMessage]) -> None:
            await asyncio.gather(*[store.store(message) for message in messages])

        before = len(self._world.mail.messages)
        for names in groups:
            self._world.hold(*names, content=content, received_at=now() - 1000)
        asyncio.run(store_all(list(self._world.mail.messages.values())[before:]))
        store.close()

    def record(self, capture: Capture, *names: str) -> None:
        """Record what these say of themselves."""
        at = now() - 10
        with ConsentStore(self.directory / "consent", KEYER, readonly=False) as store:
            store.apply(
                Entry(
                    KEYER.subject(path(name).decode(), "email"), ConsentEvent(capture, f"{name}{capture.kind}", at, at)
                )
                for name in names
            )

    def release(self, *, despite: bool = False) -> None:
        """Order the release of everything."""
        orders = Orders(self.mail, self.journal, Metrics(CollectorRegistry()), now)
        orders.carry_out(Order("o1", Action.RELEASE, now(), "ann", "why", despite), HeldQuery())

    def deliver(self) -> Progress:
        """Deliver in this process."""
        with ConsentStore(self.directory / "consent", KEYER) as consent:
            return asyncio.run(deliver(self.mail, consent, self.journal, self.sink.port))

    def states(self) -> Counter[CopyState]:
        """How many copies are where."""
        return Counter(line.state for line in self.mail.lines(HeldQuery(states=frozenset())))

    @property
    def command(self) -> list[str]:
        """What delivers in a process of its own, as from now on."""
        return [sys.executable, str(PROGRAM), str(self.directory), str(self.sink.port)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A new one."""
    with ScriptSink() as sink:
        made = Place(tmp_path, sink)
        yield made
        made.mail.close()


def recipients(sink: ScriptSink) -> Counter[bytes]:
    """How many copies each recipient got."""
    return Counter(line for one in sink.delivered for line in one.rcpt_tos)


def test_octets_and_signature_survive(place: Place) -> None:
    """What was signed is delivered with a good signature, with our own fields before it and nothing else changed."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    head = b"From: Shop <news@shop.example>\r\nSubject:  A   promotion\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    message = head + b"\r\nA promotion.\r\n..\r\n.\r\n" + b"x" * 998 + b"\r\n\r\n"
    signed = dkim.sign(message, b"s", b"shop.example", private, canonicalize=(b"simple", b"simple")) + message
    place.hold(["ann"], content=signed)
    place.record(GRANT, "ann")
    place.release()
    place.deliver()
    (arrived,) = place.sink.delivered
    ours = re.match(rb"X-Consentry-Released: o1;[^\r]*(?:\r\n\t[^\r]*)*\r\n", arrived.message)
    assert ours
    assert arrived.message == ours[0] + TRACE + signed
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    assert dkim.verify(arrived.message, dnsfunc=lambda _name, timeout=5: record)
    assert not dkim.verify(arrived.message.replace(b"..", b"-."), dnsfunc=lambda _name, timeout=5: record)


def test_an_objection_recorded_elsewhere_stops_it(place: Place) -> None:
    """Whoever objects between the order and the delivery does not get it, and the copy is held again."""
    place.hold(["ann", "bob"], ["cat"])
    place.record(GRANT, "ann")
    place.release(despite=True)
    place.record(OBJECT, "bob")
    assert place.deliver().counts == {Event.RELEASED: 2, Event.RELEASE_STOPPED: 1}
    assert place.states() == {CopyState.DELIVERED: 2, CopyState.HELD: 1}
    assert recipients(place.sink) == {path("ann"): 1, path("cat"): 1}


def test_each_answer_of_the_server_counts(place: Place) -> None:
    """Refused for good: bounced, and the sender is told; refused for now: it stays; taken: delivered."""
    answers = {b"ann@": reply("550 5.1.1 No"), b"bob@": reply("450 4.2.1 Later")}
    place.sink.script = {"RCPT": lambda command: next((answers[who] for who in answers if who in command.line), None)}
    place.hold(["ann", "bob", "cat"])
    place.record(GRANT, "ann", "bob", "cat")
    place.release()
    place.deliver()
    assert place.states() == {CopyState.BOUNCED: 1, CopyState.RELEASED: 1, CopyState.DELIVERED: 1}
    (report,) = [one for one in place.sink.delivered if one.mail_from == b""]
    assert b"ann@x.example" in report.message
    assert b"Status: 5.1.1" in report.message


def test_processes_that_die_lose_nothing(place: Place) -> None:
    """Two deliver at once and one is killed: everybody gets it, and only what the dead one had in hand comes twice."""
    names = [f"p{number}" for number in range(120)]
    place.hold(*[[name] for name in names])
    place.record(GRANT, *names)
    place.release()
    place.sink.script = {".": lambda _command: reply("250 ok", delay=0.02)}
    environment = dict(os.environ)
    with (
        Process([*place.command, "0"], environment, place.directory / "first") as first,
        Process([*place.command, "1"], environment, place.directory / "second") as second,
    ):
        place.sink.wait(20, seconds=60)
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: second.ended, "the second process has delivered the rest", seconds=60)
    rest = run([*place.command, str(LEASE + 1)], environment, seconds=60)
    assert rest.code == 0, rest.output
    got = recipients(place.sink)
    assert set(got) == set(map(path, names))
    assert place.states() == {CopyState.DELIVERED: len(names)}
    again = json.loads(rest.output).get("released", 0)
    assert sum(got.values()) - len(names) <= again <= 3 * SETTINGS.batch

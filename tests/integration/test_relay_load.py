"""Many sessions at once through the relay into smtp-sink, and smtp-sink as a next hop that refuses or hangs up."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.ledger import CONSENTING, NOBODY, RECORDS, SENDER
from support.processes import free_port
from support.relay import OURS, Relay
from support.sink import Sink
from support.source import smtp_source

pytestmark = pytest.mark.integration

SESSIONS, MESSAGES = 20, 1000
OFFER = b"Subject: Save 20%% today\r\nMessage-ID: <%d@bank.example>\r\n\r\nGet 20%% off your next order. Shop now!\r\n"
WHERE = {"MAIL": "RCPT", "RCPT": "RCPT", "DATA": ".", ".": "."}  # the next hop hears of MAIL at the first RCPT
PATIENT = 'breaker_failures = 1000\nbreaker_pause = "100ms"\n'  # a next hop that fails on purpose is to be asked again


class Next(NamedTuple):
    """A relay, and the port at which it expects its next hop."""

    relay: Relay
    port: int


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[Next]:
    """A relay whose next hop may change from test to test."""
    port = free_port()
    directory = tmp_path_factory.mktemp("load")
    with Relay(
        directory, port, cache=rules_cache, consents=RECORDS, smtp=OURS + "max_connections_per_client = 1000\n",
        next_hop=PATIENT,
    ).wait_ready() as relay:  # fmt: skip
        yield Next(relay, port)


def test_many_sessions(through: Next, tmp_path: Path) -> None:
    """A thousand messages over twenty sessions at once, one and several for each connection: each is there once."""
    relay, port = through
    before = len(relay.events("relayed"))
    with Sink(tmp_path, port=port) as sink:
        for reuse in (True, False):
            done = smtp_source(
                relay.port, "-N", messages=MESSAGES // 2, sessions=SESSIONS, reuse=reuse, length=4096, recipients=2
            )
            assert done.code == 0, done.output
        messages = sink.wait(MESSAGES)
    assert len(messages) == MESSAGES
    passages = {line for each in messages for line in each.content.splitlines() if line.startswith(b"X-Consentry: ")}
    assert len(passages) == MESSAGES
    assert all(len(each.rcpts) == 2 for each in messages)
    taken = {event["queue_id"] for event in relay.events("relayed")}
    assert len(taken) == before + MESSAGES
    assert {line.removeprefix(b"X-Consentry: ").decode() for line in passages} <= taken


class Fault(NamedTuple):
    """How smtp-sink fails at which command, and where the client learns of it, by which class of reply."""

    option: str
    verb: str
    where: str
    code: int


FAULTS = [
    *(Fault("-f", verb, where, 5) for verb, where in WHERE.items()),
    *(Fault(option, verb, where, 4) for option in ("-r", "-q", "-Q") for verb, where in WHERE.items()),
    *(Fault(option, verb, "RCPT", 4) for option in ("-f", "-r", "-q", "-Q") for verb in ("CONNECT", "EHLO,HELO")),
    *(Fault(option, "RSET", "accepted", 2) for option in ("-f", "-r", "-q", "-Q")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.option} {fault.verb}")
def test_a_next_hop_that_fails(through: Next, tmp_path: Path, fault: Fault) -> None:
    """Every command refused for good or for now, answered by 421, or not at all: the client gets the same class where
    it happened, nothing is delivered, nothing stays live in the hold store (D4, D5, D8).
    """
    relay, port = through
    live, doubts = len(relay.held()), len(relay.events("in_doubt"))
    with Sink(tmp_path, fault.option, fault.verb, port=port) as sink:
        answered, code, text = hand_over(relay, OFFER % len(relay.events()))
    assert (answered, code // 100) == (fault.where, fault.code), text
    assert code != 421, text  # which would end the session of a client that did nothing wrong
    if fault.code == 2:
        (message,) = sink.messages()
        assert message.rcpts == tuple(f"<{one}>".encode() for one in recipients() if one in CONSENTING)
        live += len(recipients()) - len(CONSENTING)
    assert len(relay.held()) == live
    assert len(relay.events("in_doubt")) == doubts + (fault[:2] == ("-q", "."))


def test_no_next_hop(through: Next) -> None:
    """Without a next hop the answer is a 4xx at once, at the first recipient (D14)."""
    relay, _ = through
    answered, reply, text = hand_over(relay, OFFER % 0)
    assert (answered, reply) == ("RCPT", 451), text


def recipients() -> list[str]:
    """One in each consent state."""
    return [*RECORDS, NOBODY]


def hand_over(relay: Relay, content: bytes) -> tuple[str, int, bytes]:
    """Send an offer to everybody: the command at which it ended, and the reply."""
    with relay.client() as client:
        client.ehlo()
        client.mail(SENDER)
        for recipient in recipients():
            code, text = client.rcpt(recipient)
            if code != 250:
                return "RCPT", code, text
        code, text = client.data(content)
        return "accepted" if code == 250 else ".", code, text

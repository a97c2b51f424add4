"""The relay among real MTAs: a Postfix in front of it, one behind it, one that asks it before its queue, and swaks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from support import parts
from support.ledger import CONSENTING, NOBODY, RECORDS, SENDER
from support.postfix import Postfix
from support.processes import free_port, run
from support.relay import OURS, Relay
from support.script_sink import ScriptSink, reply
from support.source import smtp_source
from support.swaks import DATA_REFUSED, RCPT_REFUSED, swaks

from filter.config import Config
from filter.users import hash_password

pytestmark = pytest.mark.integration

AUTH_FAILED = 28  # exit code of swaks
AGREED = "agreed@home.example"
FIELDS = b"From: Bank <news@bank.example>\nTo: you@home.example\nDate: Mon, 02 Mar 2026 09:00:00 +0000\n"
SERVICE = FIELDS + b"Message-Id: <1@bank.example>\nSubject: Your statement\n\nYour statement for March is ready.\n.\n"
OFFER = FIELDS + b"Message-Id: <2@bank.example>\nSubject: Save 20% today\n\nGet 20% off your next order. Shop now!\n.\n"
EVERYBODY = ",".join([*RECORDS, NOBODY])


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A service message in a file."""
    file = tmp_path / "service"
    file.write_bytes(SERVICE)
    return file


@pytest.fixture
def offer(tmp_path: Path) -> Path:
    """A marketing message in a file."""
    return offer_in(tmp_path)


def test_a_postfix_in_front(tmp_path: Path, rules_cache: Path, service: Path, offer: Path) -> None:
    """Postfix -> relay -> next hop: everything that may go arrives, the rest is held, and Postfix's queue is empty.

    What the next hop defers waits in Postfix; what it refuses comes back as a report with a null sender, which passes.
    """
    refusals = {
        b"busy@home.example": [reply("450 4.2.0 Busy")],
        b"gone@home.example": [reply("550 5.1.1 Gone")],
    }

    def at_rcpt(command):
        return next((said.pop() for path, said in refusals.items() if said and path in command.line), None)

    with (
        ScriptSink({"RCPT": at_rcpt}) as sink,
        Relay(tmp_path, sink.port, cache=rules_cache, workers=1, consents=RECORDS).wait_serving() as relay,
        Postfix.relaying(relay.port) as postfix,
    ):
        done = smtp_source(postfix.port, "-N", messages=10, sessions=2, recipients=2, sender=SENDER, file=service)
        assert done.code == 0, done.output
        assert swaks(postfix.port, sender=SENDER, recipients=EVERYBODY, message=offer).code == 0
        sink.wait(11)
        postfix.wait_empty()
        (offered,) = [each for each in sink.delivered if b"Save 20%" in each.message]
        assert {path.decode() for path in offered.rcpt_tos} == CONSENTING
        assert {copy.recipient for copy in relay.held()} == {*RECORDS, NOBODY} - CONSENTING

        assert swaks(postfix.port, sender=SENDER, recipients="busy@home.example", message=service).code == 0
        (entry,) = postfix.wait_deferred(1)
        assert "450 4.2.0 Busy" in str(entry)
        postfix.flush()
        sink.wait(12)
        assert swaks(postfix.port, sender=SENDER, recipients="gone@home.example", message=service).code == 0
        report = sink.wait(13)[-1]
        postfix.wait_empty()
    assert report.mail.startswith(b"MAIL FROM:<>")
    assert report.rcpt_tos == [SENDER.encode()]
    assert b"550 5.1.1 Gone" in report.message
    assert sum(len(each.rcpt_tos) for each in sink.delivered) == 10 * 2 + len(CONSENTING) + 1 + 1


def test_a_postfix_behind(tmp_path: Path, rules_cache: Path, service: Path, offer: Path) -> None:
    """Relay -> Postfix: a mailbox gets exactly what may go, and Postfix's refusal of a recipient is the client's."""
    refusing = "check_recipient_access inline:{ {gone@home.example=550 5.1.1 Gone} }, permit_mynetworks, reject"
    with (
        Postfix.receiving(smtpd_recipient_restrictions=refusing) as postfix,
        Relay(tmp_path, postfix.port, cache=rules_cache, workers=1, consents=RECORDS).wait_serving() as relay,
    ):
        assert smtp_source(relay.port, messages=20, sessions=4, sender=SENDER, file=service).code == 0
        assert swaks(relay.port, sender=SENDER, recipients=EVERYBODY, message=offer).code == 0
        refused = swaks(relay.port, sender=SENDER, recipients="gone@home.example", message=service)
        assert (refused.code, "550 5.1.1" in refused.output) == (RCPT_REFUSED, True), refused.output
        postfix.wait_empty()
        box = postfix.mailbox()
    offered = [copy for copy in box if b"Save 20%" in copy]
    assert {copy.split(b"\n", 2)[1] for copy in offered} == {b"X-Original-To: " + one.encode() for one in CONSENTING}
    assert len(offered) == len(CONSENTING)
    assert len(box) == len(offered) + 20
    assert all(b"X-Consentry: " in copy for copy in box)


def test_before_the_queue(tmp_path: Path, rules_cache: Path, sink: ScriptSink, service: Path, offer: Path) -> None:
    """Postfix asks the relay while its client waits, and takes back what is let through; the client is known by
    XFORWARD all the way.
    """
    port = free_port()
    xforward = OURS + 'xforward_networks = ["127.0.0.0/8"]\n'
    with (
        Postfix.filtering(port, sink.port) as postfix,
        Relay(
            tmp_path, postfix.reentry_port, cache=rules_cache, consents=RECORDS, port=port, smtp=xforward
        ).wait_serving() as relay,
    ):
        assert smtp_source(postfix.port, messages=20, sessions=4, sender=SENDER, file=service).code == 0
        done = swaks(postfix.port, sender=SENDER, recipients=EVERYBODY, message=offer)
        assert done.code == 0, done.output
        sink.wait(21)
        postfix.wait_empty()
        taken = re.findall(r"smtpd\[\d+\]: [0-9A-F]+: client=.*orig_client=(\S+)", postfix.log())
        assert len(taken) == 22  # the offer began anew, with those who may have it
        assert all(client.endswith("[127.0.0.1]") for client in taken), taken
        (offered,) = [each for each in sink.delivered if b"Save 20%" in each.message]
        assert {path.decode() for path in offered.rcpt_tos} == CONSENTING
        assert {copy.recipient for copy in relay.held()} == {*RECORDS, NOBODY} - CONSENTING


def test_postfix_waits_longer_than_we_take(tmp_path: Path, rules_cache: Path, service: Path) -> None:
    """The whole of a transaction ends within our time, with our own reply, before Postfix would give up on a filter:
    with both at their defaults, and when every step of a next hop is just quick enough (D20).
    """
    postfix_default = run_postconf("smtpd_proxy_timeout")
    assert postfix_default == "100s"
    assert Config.default().smtp.transaction_timeout.total_seconds() <= 100 - 10

    slow = reply("250 2.0.0 At last", delay=0.8)
    tight = {
        "smtp": OURS + 'transaction_timeout = "2s"\n',
        "next_hop": 'connect_timeout = "900ms"\ncommand_timeout = "1s"\n',
    }
    with (
        ScriptSink({"RSET": slow, "MAIL": [None, slow], "RCPT": slow, ".": slow}) as sink,
        Relay(tmp_path, sink.port, cache=rules_cache, workers=1, consents=RECORDS, **tight).wait_serving() as relay,
        Postfix.filtering(relay.port, sink.port, smtpd_proxy_timeout="5s") as postfix,
    ):
        done = swaks(postfix.port, sender=SENDER, recipients=f"{AGREED},{NOBODY}", message=offer_in(tmp_path))
        assert done.code == DATA_REFUSED, done.output
        (said,) = re.findall(r"<\*\* (451 .*)", done.output)
        assert "queue file write error" not in said  # what Postfix says when it gives up
        assert "timeout" not in postfix.log()
        assert not relay.held()
        (event,) = relay.events("deferred")
    assert (event["why"], event["code"]) == ("timeout", 451)


@pytest.fixture(scope="module")
def behind_a_balancer(
    tmp_path_factory: pytest.TempPathFactory, rules_cache: Path
) -> Iterator[tuple[Relay, ScriptSink]]:
    """A relay with STARTTLS, AUTH and PROXY from loopback; only clients of 192.0.2.0/24 may relay without AUTH."""
    directory = tmp_path_factory.mktemp("swaks")
    authority = trustme.CA().issue_cert("relay.example")
    authority.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    (directory / "users").write_text(f"app:{hash_password('a password')}\n")
    authority.private_key_pem.write_to_path(directory / "key.pem")
    for name in ("key.pem", "users"):
        (directory / name).chmod(0o600)
    settings = (
        'relay_networks = ["192.0.2.0/24"]\nproxy_networks = ["127.0.0.0/8"]\n'
        'tls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\nusers_file = "users"\n'
    )
    with (
        ScriptSink() as sink,
        Relay(directory, sink.port, cache=rules_cache, workers=1, smtp=settings).wait_serving() as relay,
    ):
        yield relay, sink


AUTH = ("--auth", "PLAIN", "--auth-user", "app", "--auth-password")
OUTSIDE, INSIDE = "198.51.100.7", "192.0.2.7"


class Visit(NamedTuple):
    """A client at `source`, what else swaks is told, how swaks ends, and by which protocol mail was received."""

    source: str
    options: tuple[str, ...]
    code: int
    protocol: str = ""


VISITS = [
    Visit(INSIDE, (), 0, "ESMTP"),
    Visit(INSIDE, ("--tls",), 0, "ESMTPS"),
    Visit(OUTSIDE, (), RCPT_REFUSED),
    Visit(OUTSIDE, ("--tls",), RCPT_REFUSED),
    Visit(OUTSIDE, ("--tls", *AUTH, "a password"), 0, "ESMTPSA"),
    Visit(OUTSIDE, ("--tls", *AUTH, "another one"), AUTH_FAILED),
    Visit(OUTSIDE, (*AUTH, "a password"), AUTH_FAILED),
]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: f"{visit.source} {' '.join(visit.options)}")
def test_swaks_behind_a_balancer(
    behind_a_balancer: tuple[Relay, ScriptSink], service: Path, version: str, visit: Visit
) -> None:
    """Who may relay is decided by the address a balancer gives (both versions of PROXY) and by AUTH inside TLS; both
    are in the trace line and in the journal (A13, C4, C6).
    """
    relay, sink = behind_a_balancer
    proxy = {"version": version, "family": "TCP4" if version == "1" else "AF_INET", "source": visit.source}
    proxy |= {"source-port": "40000", "dest": "192.0.2.1", "dest-port": "25"}
    proxy |= {"protocol": "STREAM", "command": "PROXY"} if version == "2" else {}
    given = [word for name, value in proxy.items() for word in (f"--proxy-{name}", value)]
    before = len(sink.delivered)
    done = swaks(relay.port, *given, *visit.options, sender=SENDER, recipients=AGREED, message=service)
    assert done.code == visit.code, done.output
    if visit.code:
        assert len(sink.delivered) == before
        return
    trace = " ".join(sink.wait(before + 1)[-1].message.decode().split("\r\nX-Consentry")[0].split())
    assert trace.startswith(
        f"Received: from swaks.example ([{visit.source}]) by relay.example with {visit.protocol} id "
    )
    event = relay.events("message")[-1]
    assert event["client"] == visit.source
    assert bool(event["tls"]) == ("S" in visit.protocol[5:])
    assert event["authenticated"] == visit.protocol.endswith("A")


def offer_in(directory: Path) -> Path:
    """A marketing message in a file."""
    file = directory / "offer"
    file.write_bytes(OFFER)
    return file


def run_postconf(name: str) -> str:
    """The default that this Postfix has for a setting."""
    part = parts.need("postfix")
    return run([part.program("postconf"), "-dh", name], part.environment).output.split()[-1]

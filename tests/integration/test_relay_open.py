"""Nobody relays through us who may not, whatever they write and whoever they say they are (checklist C); loops end."""

import smtplib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from support.processes import free_port, wait_until
from support.relay import Relay
from support.script_sink import Command, Reply, ScriptSink, reply

from filter.users import hash_password

pytestmark = pytest.mark.integration

OFFER = (
    b"From: Bank <news@bank.example>\r\nSubject: Save 20%% today\r\nMessage-ID: <1@bank.example>\r\n"
    b"%s\r\nGet 20%% off your next order today. Shop now!\r\n"
)
SERVICE = b"Subject: Your statement\r\n\r\nYour statement for March is ready.\r\n"
BALANCER = "127.0.0.2"  # the only one that must speak PROXY
INSIDE, OUTSIDE = "192.0.2.7", "198.51.100.7"

# Forms that are good RFC 5321 paths: refused by policy, and by that alone.
TRICKS = [
    "alex@customer.example",
    "alex%customer.example@relay.example",
    "alex%customer.example@[127.0.0.1]",
    "customer.example!alex@relay.example",
    '"alex@customer.example"@relay.example',
    '"alex%customer.example"@relay.example',
    "alex@[127.0.0.1]",
    "alex@[IPv6:::1]",
    "alex@relay.example",
    "alex@localhost",
    "postmaster@relay.example",
    "abuse@[192.0.2.7]",
    '" "@customer.example',
    "postmaster",
    "=?utf-8?q?alex?=@customer.example",
    "alex+relay@customer.example",
]
# Forms that are none: refused as such.
MALFORMED = [
    "@relay.example:alex@customer.example",
    "@relay.example,@customer.example:alex@customer.example",
    "alex@customer.example@relay.example",
    "alex@relay.example(@customer.example)",
    "alex",
    '"alex@customer.example"',
    "alex@",
    "",
    "alex@customer.example>,<other@customer.example",
]


class Client(smtplib.SMTP):
    """A client at an address of loopback that may say something before it is greeted."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", preface: bytes = b"") -> None:
        self._preface = preface
        super().__init__("127.0.0.1", port, "client.example", timeout=30, source_address=(source, 0))

    def _get_socket(self, *where):
        connected = super()._get_socket(*where)
        connected.sendall(self._preface)
        return connected

    def rcpt_line(self, path: str, sender: str = "a@relay.example") -> tuple[int, bytes]:
        """The reply to a recipient as it is given, in a new transaction."""
        assert self.docmd(f"MAIL FROM:<{sender}>")[0] == 250
        return self.docmd(f"RCPT TO:<{path}>")


def version_1(source: str, family: str = "TCP4", destination: str = "192.0.2.1") -> bytes:
    """A PROXY header of version 1."""
    return f"PROXY {family} {source} {destination} 40000 25\r\n".encode()


def version_2(family: int, addresses: bytes, command: int = 1) -> bytes:
    """A PROXY header of version 2."""
    head = b"\r\n\r\n\0\r\nQUIT\n"
    return head + bytes([0x20 | command, family]) + struct.pack(">H", len(addresses)) + addresses


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[tuple[Relay, ScriptSink]]:
    """A relay with the default settings, and its next hop."""
    with (
        ScriptSink() as sink,
        Relay(
            tmp_path_factory.mktemp("open"), sink.port, cache=rules_cache, workers=1, smtp=""
        ).wait_serving() as relay,
    ):
        yield relay, sink


@pytest.fixture(scope="module")
def with_everything(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[tuple[Relay, ScriptSink]]:
    """A relay with everything on that can be abused; clients of 192.0.2.0/24 may relay, and those who log in."""
    directory = tmp_path_factory.mktemp("all")
    issued = trustme.CA().issue_cert("relay.example")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "users").write_text(f"app:{hash_password('right')}\n")
    for name in ("key.pem", "users"):
        (directory / name).chmod(0o600)
    settings = (
        f'relay_networks = ["192.0.2.0/24"]\nproxy_networks = ["{BALANCER}/32"]\nxforward_networks = ["127.0.0.0/8"]\n'
        'tls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\nusers_file = "users"\n'
        "max_auth_failures = 10\nmax_hops = 3\n"
    )
    with (
        ScriptSink() as sink,
        Relay(directory, sink.port, cache=rules_cache, workers=1, smtp=settings).wait_serving() as relay,
    ):
        yield relay, sink


def tls() -> ssl.SSLContext:
    """The TLS of a client that believes anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def proxied(preface: bytes) -> Callable[[int], Client]:
    """Come by way of the balancer."""

    def connect(port: int) -> Client:
        client = Client(port, source=BALANCER, preface=preface)
        client.ehlo()
        return client

    return connect


def saying(*lines: str, hello: str = "EHLO client.example") -> Callable[[int], Client]:
    """Say this after the greeting, whatever the answers are."""

    def connect(port: int) -> Client:
        client = Client(port)
        client.docmd(hello)
        for line in lines:
            client.docmd(line)
        return client

    return connect


def inside_tls(*lines: str) -> Callable[[int], Client]:
    """Say this inside TLS."""

    def connect(port: int) -> Client:
        client = saying()(port)
        assert client.starttls(context=tls())[0] == 220
        client.ehlo()
        for line in lines:
            client.docmd(line)
        return client

    return connect


SPOOFS = {
    "plain": saying(),
    "our name": saying(hello="EHLO relay.example"),
    "literal": saying(hello=f"EHLO [{INSIDE}]"),
    "helo": saying(hello="HELO localhost"),
    "xforward": saying(f"XFORWARD ADDR={INSIDE} NAME=mail.inside.example PROTO=ESMTP SOURCE=LOCAL"),
    "xclient": saying(f"XCLIENT ADDR={INSIDE} LOGIN=app"),
    "proxy in the session": saying(f"PROXY TCP4 {INSIDE} 192.0.2.1 40000 25"),
    "reset": saying("MAIL FROM:<a@relay.example>", "RSET"),
    "second ehlo": saying("MAIL FROM:<a@relay.example>", "EHLO relay.example"),
    "auth in the clear": saying("AUTH PLAIN AGFwcAByaWdodA=="),
}
ABUSES = {
    **SPOOFS,
    "tls": inside_tls(),
    "wrong password": inside_tls("AUTH PLAIN AGFwcAB3cm9uZw=="),
    "no password": inside_tls("AUTH PLAIN AGFwcAA="),
    "another user": inside_tls("AUTH PLAIN AGFkbWluAHJpZ2h0"),
    "given up": inside_tls("AUTH LOGIN", "*"),
    "xforward in tls": inside_tls(f"XFORWARD ADDR={INSIDE}"),
    "proxied from outside": proxied(version_1(OUTSIDE)),
    "proxied from nowhere": proxied(b"PROXY UNKNOWN\r\n"),
    "proxied as mapped": proxied(version_1(f"::ffff:{OUTSIDE}", "TCP6", "::1")),
    "proxied with IPv6": proxied(version_1("fe80::c000:207", "TCP6", "::1")),
    "proxied as compatible": proxied(version_1(f"::{INSIDE}", "TCP6", "::1")),
    "proxied by the balancer itself": proxied(
        version_2(0x11, bytes([192, 0, 2, 7, 192, 0, 2, 1]) + b"\x9c\x40\0\x19", 0)
    ),
}


def denied_to(port: int, connect: Callable[[int], Client]) -> list[str]:
    """What was answered otherwise than it should be."""
    wrong = []
    for sender in ("a@relay.example", ""):
        for group in batched((*TRICKS, *MALFORMED)):
            client = connect(port)
            for path in group:
                code, text = client.rcpt_line(path, sender)
                good = (code, text[:5]) == (550, b"5.7.1") if path in TRICKS else 500 <= code < 560
                if not good:
                    wrong.append(f"{sender} {path}: {code} {text!r}")
                if client.docmd("DATA")[0] < 400:
                    wrong.append(f"{sender} {path}: DATA was let through")
                client.docmd("RSET")
            client.close()
    return wrong


def batched(paths: tuple[str, ...], size: int = 7) -> list[tuple[str, ...]]:
    """So many in a session that it is not ended for its errors."""
    return [paths[start : start + size] for start in range(0, len(paths), size)]


@pytest.mark.parametrize("spoof", SPOOFS)
def test_the_default_relays_for_nobody(by_default: tuple[Relay, ScriptSink], spoof: str) -> None:
    """Whatever the address looks like and whoever the client says it is: 550 5.7.1, and the next hop hears nothing
    (C1, C2, C8).
    """
    relay, sink = by_default
    assert not denied_to(relay.port, SPOOFS[spoof])
    assert not sink.transactions


@pytest.mark.parametrize("abuse", ABUSES)
def test_nothing_that_can_be_switched_on_opens_it(with_everything: tuple[Relay, ScriptSink], abuse: str) -> None:
    """Nor with PROXY, XFORWARD, TLS and AUTH on, for those who are not inside and have not logged in (C2 to C6, C8)."""
    relay, sink = with_everything
    before = len(sink.transactions)
    assert not denied_to(relay.port, ABUSES[abuse])
    assert len(sink.transactions) == before


@pytest.mark.parametrize(
    "connect",
    [
        pytest.param(proxied(version_1(INSIDE)), id="version 1"),
        pytest.param(proxied(version_1(f"::ffff:{INSIDE}", "TCP6", "::1")), id="mapped"),
        pytest.param(proxied(version_2(0x11, bytes([192, 0, 2, 7, 192, 0, 2, 1]) + b"\x9c\x40\0\x19")), id="version 2"),
        pytest.param(inside_tls("AUTH PLAIN AGFwcAByaWdodA=="), id="logged in"),
        pytest.param(
            inside_tls("AUTH PLAIN AGFwcAByaWdodA==", "RSET", "EHLO again.example"), id="logged in, and reset"
        ),
    ],
)
def test_those_who_may_relay_can(with_everything: tuple[Relay, ScriptSink], connect: Callable[[int], Client]) -> None:
    """The same addresses pass for a client inside, and for one who has logged in, so that the refusals above are the
    policy's (C3, C4, C6).
    """
    relay, _ = with_everything
    client = connect(relay.port)
    for path in TRICKS:
        assert client.rcpt_line(path)[0] == 250, path
        client.docmd("RSET")
    for path in MALFORMED:
        assert client.rcpt_line(path)[0] >= 500, path
        client.docmd("RSET")
    client.close()


@pytest.mark.parametrize(
    "preface",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 99999\r\n",
        b"PROXY TCP9 192.0.2.7 192.0.2.1 40000 25\r\n",
        b"PROXY " + b"x" * 200,
        version_2(0x12, bytes([192, 0, 2, 7, 192, 0, 2, 1]) + b"\x9c\x40\0\x19"),  # UDP
        version_2(0x11, bytes([192, 0])),
        version_2(0x11, b"\0" * 4000),
    ],
)
def test_a_balancer_must_say_it_right(with_everything: tuple[Relay, ScriptSink], preface: bytes) -> None:
    """Without a good PROXY header a listed balancer is cut off without a word (C4)."""
    relay, _ = with_everything
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10, source_address=(BALANCER, 0)) as connection:
        said = b""
        with suppress(ConnectionResetError):  # octets that were not read turn FIN into RST
            connection.sendall(preface)
            said = connection.recv(1000)
    assert said == b""


def test_our_own_fields_from_outside_mean_nothing(with_everything: tuple[Relay, ScriptSink]) -> None:
    """A client that writes our fields into its message gets nothing by it: marketing is held as ever (C7)."""
    relay, sink = with_everything
    fields = (
        b"X-Consentry: 1A202C2EDD70000AAAAAA\r\nX-Consentry-Original-Recipient: <other@customer.example>\r\n"
        b"X-Consentry-Disposition: relay\r\nX-Consentry-Label: service\r\n"
    )
    before, live = len(sink.delivered), len(relay.held())
    with proxied(version_1(INSIDE))(relay.port) as client:
        assert client.rcpt_line("alex@customer.example")[0] == 250
        assert client.data(OFFER % fields)[0] == 250
    assert len(sink.delivered) == before
    (copy,) = relay.held()[live:]
    assert copy.recipient == "alex@customer.example"
    assert copy.queue_id != "1A202C2EDD70000AAAAAA"


def test_two_relays_pointed_at_each_other_stop(tmp_path: Path, rules_cache: Path) -> None:
    """As recipients are passed on at once, a loop of relays shows at RCPT, and not by Received fields: when one of them
    has no connection left it ends in a 4xx, again and again, and the connections are let go (D16).
    """
    ports = free_port(), free_port()
    few = 'max_connections = 4\ncommand_timeout = "1s"\nidle_timeout = "1s"\n'
    made = []
    for own, other in zip(ports, reversed(ports), strict=True):
        directory = tmp_path / str(own)
        directory.mkdir()
        made.append(Relay(directory, other, cache=rules_cache, workers=1, port=own, next_hop=few))
    with made[0] as first, made[1] as second:
        first.wait_ready()
        second.wait_ready()
        for _ in range(2):
            with first.client() as client:
                client.ehlo()
                client.mail("a@bank.example")
                code, text = client.rcpt("b@customer.example")
            assert code == 451, text
        used_up = 'consentry_next_hop_events_total{event="wait"} '
        assert any(used_up in one.metrics() for one in made), "it was no loop"
        wait_until(lambda: not any(connected(one.port) for one in made), "connections let go")


def connected(port: int) -> int:
    """How many connections to a port of ours are open."""
    local = f":{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1].endswith(local) and row[3] == "01" for row in rows)


def test_too_many_hops_are_a_loop(with_everything: tuple[Relay, ScriptSink]) -> None:
    """With as many Received fields as max_hops a message is refused for good; with one fewer it passes (D16)."""
    relay, sink = with_everything
    before = len(sink.delivered)
    trace = b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    code, text = from_inside(relay, trace * 3 + SERVICE)
    assert (code, text[:5]) == (554, b"5.4.6")
    assert from_inside(relay, trace * 2 + SERVICE)[0] == 250
    (passed,) = sink.delivered[before:]
    assert passed.message.count(b"Received: ") == 3


def test_no_promise_before_the_next_hop_has_made_one(with_everything: tuple[Relay, ScriptSink]) -> None:
    """250 comes after the next hop's 250 and never before; a next hop that talks out of turn is not believed (D1)."""
    relay, sink = with_everything
    release = threading.Event()
    for said, code in ((reply("450 4.3.0 Not yet"), 450), (None, 250)):

        def when_released(_command: Command, said: Reply | None = said) -> Reply | None:
            assert release.wait(30)
            return said

        release.clear()
        sink.script = {".": when_released}
        before = len(sink.lines("."))
        answers: list[tuple[int, bytes]] = []
        sending = threading.Thread(target=lambda: answers.append(from_inside(relay, SERVICE)))  # noqa: B023 - joined
        sending.start()
        sink.wait_until(lambda: len(sink.lines(".")) > before, "the final dot")  # noqa: B023 - used at once
        sending.join(0.5)
        assert sending.is_alive()
        release.set()
        sending.join(30)
        assert [one for one, _ in answers] == [code]
    sink.script = {"DATA": reply("354 Go ahead", "250 2.0.0 Ok: all of it"), ".": reply("451 4.3.0 None of it")}
    code, text = from_inside(relay, SERVICE)
    sink.script = {}
    assert code == 451, text


def from_inside(relay: Relay, content: bytes) -> tuple[int, bytes]:
    """Send a message from a client that may relay; the reply to the final dot."""
    with proxied(version_1(INSIDE))(relay.port) as client:
        assert client.rcpt_line("b@customer.example")[0] == 250
        return client.data(content)

"""The next hop over real connections, under both event loops: octets on the wire, TLS, login, pressure and loss."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from support.script_sink import KEYWORDS, ScriptSink, drop, reply

from filter.envelope import Client, MailFrom, RcptTo
from filter.next_hop import SmtpNextHop
from filter.next_hop_setup import Event, NextHopOptions
from filter.ports import InDoubtError, NextHopUnavailableError
from filter.tls_policy import TlsPolicy

pytestmark = pytest.mark.integration

CLIENT = Client("192.0.2.1", "app.example", esmtp=True)
ANN = RcptTo(b"ann@customer.example")
BEN = RcptTo(b"ben@customer.example")
CONTENT = b"Subject: x\r\n\r\n.dot\r\n..two\r\nK\xc3\xb6ln \xff\r\n"
LINE = b"." + b"All work and no play makes a long message, line after line after line.\r\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request) -> Callable[..., Any]:
    """Runs a coroutine."""
    return request.param


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs certificates here."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


def _context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def events() -> Counter[Event]:
    """What was counted."""
    return Counter()


@pytest.fixture
def through(events: Counter[Event], run) -> Callable[..., Any]:
    """Runs a scenario with a next hop at these sinks, and closes it."""

    def through(scenario: Callable[[SmtpNextHop], Awaitable[Any]], *sinks: ScriptSink, **options: object) -> Any:
        async def inner() -> Any:
            hosts = tuple(("127.0.0.1", sink.port) for sink in sinks)
            given = {"hosts": hosts, "hostname": "filter.example", "tls": TlsPolicy.OFF, **options}
            hop = SmtpNextHop(NextHopOptions(**given), count=lambda event: events.update([event]))
            try:
                return await scenario(hop)
            finally:
                await hop.close()
                assert all(state.connections == 0 for state in hop.hosts)
                assert not any(pool._open for pool in hop._hosts.pools)

        return run(inner())

    return through


async def _send(hop: SmtpNextHop, *recipients: RcptTo, content: bytes = CONTENT, mail: bytes = b"a@sender.example"):
    transaction = hop.transaction(MailFrom(mail), CLIENT)
    for recipient in recipients or (ANN,):
        assert (await transaction.rcpt(recipient)).ok
    return await transaction.data((b"Received: by us\r\n", content))


def test_octets_arrive_as_they_were(through, sink):
    """Paths, parameters and content are identical at the next hop, the null sender is <> (A4, A5, A6, D18)."""
    odd = RcptTo(b'"A b>\\"c"@Customer.example', (b"NOTIFY=Success", b"ORCPT=rfc822;X+40y"))
    encoded = RcptTo(b"=?utf-8?q?a=40evil.com=3e=0d=0a?=@x.example")

    async def scenario(hop: SmtpNextHop) -> None:
        assert (await _send(hop, ANN, odd, encoded, mail=b"")).ok

    through(scenario, sink)
    (transaction,) = sink.wait()
    assert transaction.mail == b"MAIL FROM:<>"
    assert transaction.rcpts == [
        b"RCPT TO:<ann@customer.example>",
        b'RCPT TO:<"A b>\\"c"@Customer.example> NOTIFY=Success ORCPT=rfc822;X+40y',
        b"RCPT TO:<" + encoded.path + b">",
    ]
    assert transaction.message == b"Received: by us\r\n" + CONTENT
    assert b"\r\n..dot\r\n" in transaction.data
    assert transaction.helo == b"filter.example"


def test_one_connection_serves_one_after_the_other(through, sink, events):
    """Messages one after the other take one connection; at once, no more than max_connections."""

    async def scenario(hop: SmtpNextHop) -> None:
        for _ in range(20):
            assert (await _send(hop)).ok
        assert sink.sessions == 1
        results = await asyncio.gather(*(_send(hop, ANN, BEN) for _ in range(60)))
        assert all(result.ok for result in results)

    through(scenario, sink, max_connections=4)
    assert len(sink.delivered) == 80
    assert sink.sessions == events[Event.CONNECT] == 4
    assert events[Event.REUSE] == 76


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_large_messages_arrive_whole(through, sink, size):
    """A message far larger than any buffer arrives octet for octet."""
    content = LINE * (size // len(LINE))

    async def scenario(hop: SmtpNextHop) -> None:
        assert (await _send(hop, content=content)).ok
        assert (await _send(hop)).ok

    through(scenario, sink)
    assert sink.delivered[0].message == b"Received: by us\r\n" + content
    assert sink.sessions == 1


def test_loss_in_the_middle_of_a_large_message_is_no_doubt(through):
    """Before the dot nothing was handed over, and the next message is well (D5)."""
    with ScriptSink({"DATA": [reply("354 go", cut_after=1_000_000)]}) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop, content=LINE * 400_000)
            assert (await _send(hop)).ok

        through(scenario, sink)
        assert len(sink.delivered) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_stale_connection_is_replaced_unseen(through, events, reset):
    """A server that drops an idle connection just as it is used again gets the message once, on a fresh one (D12)."""
    with ScriptSink({"MAIL": [None, drop(reset=reset)]}) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            assert (await _send(hop)).ok
            assert (await _send(hop)).ok

        through(scenario, sink)
        assert len(sink.delivered) == 2
    assert events[Event.RETRY] == 1


@pytest.mark.parametrize("how", [drop(), drop(reset=True)])
def test_loss_after_the_dot_is_doubt(through, how):
    """Without the final reply nobody knows; the next message is well (D5)."""
    with ScriptSink({".": [how]}) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(InDoubtError):
                await _send(hop)
            assert (await _send(hop)).ok

        through(scenario, sink)


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"550 5.1.1 \xff\xfe 8-bit"),
        reply("550-5.1.1 many", *["550-5.1.1 lines"] * 50, "550 5.1.1 here"),
        reply("550 5.1.1 " + "x" * 10_000),
        reply("550 5.1.1 slow", one_by_one=True),
        reply("550 5.1.1 text with", "line end"),
    ],
)
def test_odd_replies_keep_their_class(through, answer):
    """Replies with 8-bit text, many lines, 10 kB or a line end within reach the client as what they are (D8, D11)."""
    with ScriptSink({"RCPT": [answer]}) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            transaction = hop.transaction(MailFrom(b"a@sender.example"), CLIENT)
            result = await transaction.rcpt(ANN)
            assert (result.code, result.encode().isascii()) == (550, True)
            await transaction.abort()
            assert (await _send(hop)).ok

        through(scenario, sink)


def test_silence_ends_in_real_time(through, events):
    """The pool's own timer ends what takes too long, before the dot and after it (D20)."""
    with ScriptSink({"MAIL": [reply("250 ok", delay=20)], ".": [reply("250 ok", delay=20)]}) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)
            with pytest.raises(InDoubtError):
                await _send(hop)

        through(scenario, sink, command_timeout=0.2, final_timeout=0.2)
    assert events[Event.TIMEOUT] == 2


def test_hosts_that_refuse_fail_fast_and_come_back(through, events):
    """With every host down the answer is immediate; the first to recover takes the mail (D14)."""
    with ScriptSink(refusing=True) as first, ScriptSink(refusing=True) as second:

        async def scenario(hop: SmtpNextHop) -> None:
            for _ in range(4):
                with pytest.raises(NextHopUnavailableError):
                    await _send(hop)
            assert not hop.available
            second.accept()
            await asyncio.sleep(0.3)  # longer than the pause
            assert (await _send(hop)).ok
            first.accept()
            await asyncio.sleep(0.3)
            assert (await _send(hop)).ok

        through(scenario, first, second, breaker_failures=2, breaker_pause=0.1)
        assert len(first.delivered) == len(second.delivered) == 1
    assert events[Event.FAILOVER] == 1


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_tls_is_used_where_it_is_offered(through, authority, ca_file, policy):
    """Every policy but "off" encrypts, large messages too; what was offered in the clear is asked again."""
    with ScriptSink(tls=_context(authority)) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            assert (await _send(hop)).ok
            assert (await _send(hop, content=LINE * 20_000)).ok
            assert "STARTTLS" not in hop.capabilities

        through(scenario, sink, tls=policy, tls_ca_file=ca_file)
        assert [transaction.tls for transaction in sink.wait(2)] == [True, True]
        assert sink.delivered[1].message == b"Received: by us\r\n" + LINE * 20_000
        assert sink.sessions == 1


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_no_mail_leaves_in_the_clear_where_tls_is_required(through, sink, policy):
    """A next hop without STARTTLS is not used (D15)."""

    async def scenario(hop: SmtpNextHop) -> None:
        with pytest.raises(NextHopUnavailableError):
            await _send(hop)

    through(scenario, sink, tls=policy)
    assert not sink.lines("MAIL")


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_certificate_that_does_not_fit_is_refused(through, authority, ca_file, wrong):
    """Name and authority are checked with "verify", before any mail (H13)."""
    issuer = trustme.CA() if wrong == "authority" else authority
    context = _context(issuer, "other.example" if wrong == "name" else "127.0.0.1")
    with ScriptSink(tls=context) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)

        through(scenario, sink, tls=TlsPolicy.VERIFY, tls_ca_file=ca_file)
        assert not sink.lines("MAIL")


@pytest.mark.filterwarnings("ignore:ssl.*deprecated:DeprecationWarning")  # speaking the old version is the point
def test_tls_that_is_too_old_is_not_spoken(through, authority):
    """Below TLS 1.2, "require" sends nothing and "opportunistic" goes on in the clear, and counts it (H13)."""
    context = _context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with ScriptSink(tls=context) as sink:

        async def refused(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)

        async def sent(hop: SmtpNextHop) -> None:
            assert (await _send(hop)).ok

        through(refused, sink, tls=TlsPolicy.REQUIRE)
        through(sent, sink, tls=TlsPolicy.OPPORTUNISTIC)
        assert [transaction.tls for transaction in sink.delivered] == [False]


def test_opportunistic_tls_that_fails_is_done_without(through, authority, events):
    """STARTTLS that is refused, or breaks, leads to mail in the clear where TLS is only an opportunity."""
    answers = [reply("454 4.7.0 not now"), reply("220 go", close=True), None]
    with ScriptSink({"STARTTLS": answers}, tls=_context(authority)) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            assert (await _send(hop)).ok

        through(scenario, sink, tls=TlsPolicy.OPPORTUNISTIC)
        assert events[Event.TLS_FALLBACK] == 0
        through(scenario, sink, tls=TlsPolicy.OPPORTUNISTIC)
        assert events[Event.TLS_FALLBACK] == 1
        through(scenario, sink, tls=TlsPolicy.OPPORTUNISTIC)
        assert [transaction.tls for transaction in sink.delivered] == [False, False, True]


def test_replies_injected_before_tls_end_the_connection(through, authority, ca_file):
    """What comes behind the answer to STARTTLS in the clear is never taken for an answer within TLS (A12)."""
    answer = reply("220 go", "250-evil", "250 AUTH PLAIN")
    with ScriptSink({"STARTTLS": answer}, tls=_context(authority)) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)

        through(scenario, sink, tls=TlsPolicy.VERIFY, tls_ca_file=ca_file)
        assert not sink.lines("MAIL")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login_is_within_verified_tls(through, authority, ca_file, mechanism):
    """The password goes out by PLAIN or LOGIN after TLS only; with a wrong one no mail is sent (C6)."""
    login = {"tls": TlsPolicy.VERIFY, "tls_ca_file": ca_file, "user": "relay", "password": "p\u00e4ssword"}
    script = (
        {} if mechanism == "PLAIN" else {"EHLO": reply("250-sink", "250-STARTTLS", "250-8BITMIME", "250 AUTH LOGIN")}
    )
    with ScriptSink(script, tls=_context(authority), credentials={b"relay": "p\u00e4ssword".encode()}) as sink:

        async def sent(hop: SmtpNextHop) -> None:
            assert (await _send(hop)).ok

        async def refused(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)

        through(sent, sink, **login)
        through(refused, sink, **{**login, "password": "wrong"})
        assert [(each.tls, each.user) for each in sink.delivered] == [(True, b"relay")]
        assert all(line.startswith(b"AUTH " + mechanism.encode()) for line in sink.lines("AUTH"))
        assert len(sink.lines("MAIL")) == 1


def test_no_known_way_to_log_in_is_no_login(through, authority, ca_file):
    """A server that offers neither PLAIN nor LOGIN gets no mail where there is a user to log in as."""
    login = {"tls": TlsPolicy.VERIFY, "tls_ca_file": ca_file, "user": "relay", "password": "password"}
    with ScriptSink(keywords=(*KEYWORDS, "AUTH CRAM-MD5"), tls=_context(authority)) as sink:

        async def scenario(hop: SmtpNextHop) -> None:
            with pytest.raises(NextHopUnavailableError):
                await _send(hop)

        through(scenario, sink, **login)
        assert not sink.lines("AUTH")
        assert not sink.lines("MAIL")

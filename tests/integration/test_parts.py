"""The real parts that integration tests stand on do what those tests believe of them."""

import json
import smtplib
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from support import parts
from support.postfix import Postfix
from support.postgres import Postgres
from support.processes import free_port, listening, wait_until
from support.script_sink import Reply, ScriptSink, drop, reply
from support.sink import Sink
from support.source import smtp_source
from support.swaks import DATA_REFUSED, RCPT_REFUSED, swaks

pytestmark = pytest.mark.integration

HOSTILE = (
    b"Subject: odd\r\n\r\nbare\nlf, bare\rcr, nul \0, 8bit \xff\r\n..two dots\r\n...\r\n\n.\n\r.\r\r\n.\r\r\nlast\r\n"
)
"""Everything here but the last line end may be mistaken for the end of a message; nothing of it is one."""


class Client:
    """A client that says exactly what it is told to, octet by octet."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self._socket.sendall(octets)

    def read(self) -> bytes:
        """The next line, or b"" at the end; ConnectionResetError on RST."""
        return self._file.readline()

    def ask(self, line: bytes) -> bytes:
        """Send a line and give the last line of the reply."""
        self.send(line + b"\r\n")
        said = self.read()
        while said[3:4] == b"-":
            said = self.read()
        return said

    def __enter__(self):
        self.read()
        return self

    def __exit__(self, *error):
        self._file.close()
        self._socket.close()


@pytest.fixture(scope="module")
def authority():
    """A certificate authority for this module."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority):
    """The TLS of a server named sink.example."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("sink.example", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority):
    """The TLS of a client that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def in_transaction(client):
    """Bring a client to the point where DATA is next."""
    assert client.ask(b"EHLO client.example")[:3] == b"250"
    assert client.ask(b"MAIL FROM:<a@bank.example>")[:3] == b"250"
    assert client.ask(b"RCPT TO:<b@customer.example>")[:3] == b"250"


# The parts themselves: found, fetched, or missed for a reason.


def stub(directory: Path, name: str, script: str) -> None:
    """Put a shell script on a path of its own."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_a_part_that_is_installed_is_not_fetched(tmp_path):
    """What is on the path is used; apt-get is not asked and nothing is cached."""
    for program in parts.RECIPES["postfix"].programs:
        stub(tmp_path / "bin", program, "exit 0")
    stub(tmp_path / "bin", "apt-get", f"touch {tmp_path}/asked")
    part = parts.find("postfix", cache=tmp_path / "cache", path=str(tmp_path / "bin"))
    assert part.root is None
    assert part.program("smtp-sink") == str(tmp_path / "bin/smtp-sink")
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / "cache").exists()


def test_a_part_that_cannot_be_fetched_says_why(tmp_path):
    """The reason is apt-get's own, after it has tried fresh package lists too; nothing half done stays behind."""
    stub(tmp_path / "bin", "apt-get", f'echo "$*" >>{tmp_path}/asked; echo "E: No network" >&2; exit 100')
    stub(tmp_path / "bin", "dpkg", "exit 0")
    with pytest.raises(parts.NotThereError, match=r"^swaks is not installed and could not be fetched: E: No network "):
        parts.find("swaks", cache=tmp_path / "cache", path=str(tmp_path / "bin"))
    assert [line.split()[-1] for line in (tmp_path / "asked").read_text().splitlines()][1:] == ["update"]
    assert not list((tmp_path / "cache").iterdir())


def test_without_apt_a_part_is_missed_in_plain_words(tmp_path):
    """On a machine of another kind the reason says what is not there."""
    with pytest.raises(parts.NotThereError, match="without apt-get"):
        parts.find("postfix", cache=tmp_path, path=str(tmp_path))


@pytest.mark.parametrize(("ci", "outcome"), [("true", "failed"), ("", "skipped")])
def test_a_missing_part_skips_and_in_ci_fails(ci, outcome, monkeypatch):
    """What cannot run is left out with its reason, except where everything must run."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(parts, "_found", lambda name: f"{name} is not here")
    expected = pytest.fail.Exception if outcome == "failed" else pytest.skip.Exception
    with pytest.raises(expected, match="postfix is not here"):
        parts.need("postfix")


# smtp-source, smtp-sink and swaks.


def test_smtp_source_sends_what_smtp_sink_counts(tmp_path):
    """Messages of parallel sessions arrive one for one, each with its envelope and content."""
    message = tmp_path / "message"
    message.write_bytes(b"Subject: one\n\n.dot\n..dots\nlast\n")
    with Sink(tmp_path) as sink:
        done = smtp_source(sink.port, messages=20, sessions=4, recipients=2, file=message)
        assert done.code == 0, done.output
        received = sink.wait(20)
        wait_until(lambda: sink.count() == 20, "the counter of smtp-sink")
    assert {each.mail for each in received} == {b"<news@bank.example>"}
    assert {each.rcpts for each in received} == {(b"<2alex@customer.example>", b"<alex@customer.example>")}
    assert {each.helo for each in received} == {b"source.example"}
    assert {each.content for each in received} == {message.read_bytes() + b"\n"}
    assert not listening(sink.port)


def test_smtp_sink_drops_every_cr(tmp_path):
    """Octets cannot be compared at smtp-sink: line ends of every kind become one, and a CR in a line is gone."""
    with Sink(tmp_path) as sink, Client(sink.port) as client:
        in_transaction(client)
        client.ask(b"DATA")
        assert client.ask(b"a\r\nb\nc\rd\0\xff\r\n.")[:3] == b"250"
        (received,) = sink.messages()
    assert received.content == b"a\nb\ncd\0\xff\n"


@pytest.mark.parametrize(
    ("options", "verb", "answer"),
    [
        (("-r", "RCPT"), b"RCPT TO:<b@customer.example>", b"450"),
        (("-f", "MAIL"), b"MAIL FROM:<a@bank.example>", b"500"),
        (("-Q", "RCPT"), b"RCPT TO:<b@customer.example>", b"421"),
        (("-q", "MAIL"), b"MAIL FROM:<a@bank.example>", b""),
    ],
)
def test_smtp_sink_refuses_by_command(tmp_path, options, verb, answer):
    """Soft and hard refusals, 421 and a drop come at the command that the option names."""
    with Sink(tmp_path, *options) as sink, Client(sink.port) as client:
        client.ask(b"EHLO client.example")
        if verb.startswith(b"RCPT"):
            client.ask(b"MAIL FROM:<a@bank.example>")
        assert client.ask(verb)[:3] == answer
        assert sink.messages() == []


def test_swaks_reports_what_was_refused(tmp_path):
    """The exit code says at which step a session failed, the output what was said."""
    message = tmp_path / "message"
    message.write_bytes(b"Subject: one\n\n.dot")
    script = {"RCPT": [None, reply("550 5.1.1 No such user")], ".": [None, reply("554 5.7.1 Not this")]}
    with ScriptSink(script) as sink:
        taken = swaks(sink.port, message=message)
        assert taken.code == 0, taken.output
        assert sink.delivered[0].message == b"Subject: one\r\n\r\n.dot\r\n"
        refused = swaks(sink.port)
        assert (refused.code, "550 5.1.1 No such user" in refused.output) == (RCPT_REFUSED, True)
        assert swaks(sink.port).code == DATA_REFUSED


def test_swaks_speaks_tls(server_tls):
    """STARTTLS and a password work, and the scripted server sees both."""
    with ScriptSink(tls=server_tls, credentials={b"bank": b"secret"}) as sink:
        done = swaks(sink.port, "--tls", "--auth", "PLAIN", "--auth-user", "bank", "--auth-password", "secret")
        assert done.code == 0, done.output
        (transaction,) = sink.delivered
    assert (transaction.tls, transaction.user) == (True, b"bank")


# The scripted server.


def test_the_scripted_server_records_octets():
    """Content is kept octet by octet, and only CRLF.CRLF ends it, wherever the segments are cut."""
    stuffed = HOSTILE
    with ScriptSink() as sink:
        for cut in range(0, len(stuffed), 7):
            with Client(sink.port) as client:
                in_transaction(client)
                client.ask(b"DATA")
                client.send(stuffed[:cut])
                client.send(stuffed[cut:])
                assert client.ask(b".")[:3] == b"250"
        transactions = sink.delivered
    assert len(transactions) == len(range(0, len(stuffed), 7))
    assert {each.data for each in transactions} == {stuffed}
    assert {each.message for each in transactions} == {stuffed.replace(b"\r\n.", b"\r\n")}


def test_an_empty_message_is_one():
    """A dot straight after 354 ends a message of no octets."""
    with ScriptSink() as sink, Client(sink.port) as client:
        in_transaction(client)
        client.ask(b"DATA")
        assert client.ask(b".")[:3] == b"250"
        assert sink.delivered[0].data == b""


def test_the_scripted_server_takes_pipelined_groups():
    """Commands in one segment are answered in order; parameters, case and octets of addresses are kept."""
    group = (
        b'EHLO client.example\r\nMAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<"a>b"@customer.example> NOTIFY=Never\r\n'
        b"RCPT TO:<b@customer.example>\r\nRCPT TO:<\xc3\xa4@customer.example>\r\nDATA\r\n"
    )
    with ScriptSink({"RCPT": [None, reply("450 4.2.0 Later")]}) as sink, Client(sink.port) as client:
        client.send(group + b"text\r\n.\r\nQUIT\r\n")
        codes = []
        while line := client.read():
            codes += [line[:3]] if line[3:4] == b" " else []
        assert codes == [b"250", b"250", b"250", b"450", b"250", b"354", b"250", b"221"]
        (transaction,) = sink.delivered
    assert (transaction.helo, transaction.mail_from) == (b"client.example", b"")
    assert transaction.rcpts[0] == b'RCPT TO:<"a>b"@customer.example> NOTIFY=Never'
    assert transaction.rcpt_tos == [b'"a>b"@customer.example', b"\xc3\xa4@customer.example"]
    assert transaction.data == b"text\r\n"


def test_replies_are_sent_as_scripted():
    """Garbage, 8-bit text, ten kilobytes, several lines and single octets go out as given, by occurrence."""
    odd = [Reply(b"2zz \xff\xfe\r\n"), reply("250-a", "250 b"), reply("250 " + "x" * 10_000)]
    with ScriptSink({"NOOP": [*odd, reply("250 slowly", one_by_one=True)]}) as sink, Client(sink.port) as client:
        client.send(b"NOOP\r\n" * 5)
        said = [client.read() for _ in range(6)]
    assert said == [
        b"2zz \xff\xfe\r\n",
        b"250-a\r\n",
        b"250 b\r\n",
        b"250 " + b"x" * 10_000 + b"\r\n",
        b"250 slowly\r\n",
        b"250 2.0.0 Ok\r\n",
    ]


def test_a_scripted_drop_after_the_dot():
    """The message is recorded, the connection ends without an answer, and nothing counts as delivered."""
    with ScriptSink({".": [drop(), drop(reset=True)]}) as sink:
        for end in ("fin", "rst"):
            with Client(sink.port) as client:
                in_transaction(client)
                client.ask(b"DATA")
                if end == "fin":
                    assert client.ask(b"text\r\n.") == b""
                else:
                    with pytest.raises(ConnectionResetError):
                        client.ask(b"text\r\n.")
        assert [(each.data, each.answered) for each in sink.transactions] == [(b"text\r\n", b"")] * 2
        assert sink.delivered == []


def test_a_scripted_end_in_the_middle_of_data():
    """The server may close when a given number of octets has come."""
    with ScriptSink({"DATA": reply("354 Go", cut_after=100)}) as sink, Client(sink.port) as client:
        in_transaction(client)
        assert client.ask(b"DATA")[:3] == b"354"
        client.send(b"x" * 200)
        assert client.read() == b""
        assert [each.data for each in sink.transactions] == [None]


def test_a_scripted_refusal_to_connect():
    """Connections are refused before `accept` and after `refuse`, on the same port."""
    with ScriptSink(refusing=True) as sink:
        with pytest.raises(ConnectionRefusedError):
            Client(sink.port)
        sink.accept()
        with Client(sink.port) as client:
            sink.refuse()
            with pytest.raises(ConnectionRefusedError):
                Client(sink.port)
            assert client.ask(b"NOOP")[:3] == b"250"
        sink.accept()
        with Client(sink.port) as client:
            assert client.ask(b"NOOP")[:3] == b"250"


def test_an_unasked_421():
    """The server may speak and close while the client waits for nothing."""
    with ScriptSink() as sink, Client(sink.port) as client:
        client.ask(b"EHLO client.example")
        sink.interrupt(reply("421 4.3.2 Going down", close=True))
        assert (client.read(), client.read()) == (b"421 4.3.2 Going down\r\n", b"")


def test_a_script_may_decide_by_command():
    """A function sees verb, line, connection and occurrence."""

    def by_domain(command):
        return reply("550 5.7.1 Not there") if b"@away.example" in command.line else None

    with ScriptSink({"RCPT": by_domain}) as sink, Client(sink.port) as client:
        client.ask(b"EHLO client.example")
        client.ask(b"MAIL FROM:<a@bank.example>")
        assert client.ask(b"RCPT TO:<b@away.example>")[:3] == b"550"
        assert client.ask(b"RCPT TO:<b@here.example>")[:3] == b"250"
        assert sink.lines("RCPT") == [b"RCPT TO:<b@away.example>", b"RCPT TO:<b@here.example>"]


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
def test_auth_and_tls_against_an_independent_client(mechanism, server_tls, client_tls):
    """STARTTLS begins anew, AUTH checks the password, and what was offered is offered at the right time."""
    with ScriptSink(tls=server_tls, credentials={b"bank": b"secret"}) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port, timeout=10) as client:
            client.ehlo()
            assert client.has_extn("starttls")
            client.starttls(context=client_tls)
            client.ehlo()
            assert not client.has_extn("starttls")
            client.user, client.password = "bank", "wrong"
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.auth(mechanism[5:].upper(), getattr(client, mechanism))
            client.password = "secret"
            client.auth(mechanism[5:].upper(), getattr(client, mechanism))
            client.sendmail("a@bank.example", ["b@customer.example"], b"text\r\n")
        (transaction,) = sink.delivered
    assert (transaction.tls, transaction.user) == (True, b"bank")


def test_implicit_tls(server_tls, client_tls):
    """The handshake may come before the greeting; one that fails is noted."""
    with ScriptSink(tls=server_tls, implicit_tls=True) as sink:
        with smtplib.SMTP_SSL("127.0.0.1", sink.port, timeout=10, context=client_tls) as client:
            client.sendmail("a@bank.example", ["b@customer.example"], b"text\r\n")
        assert sink.delivered[0].tls
        with pytest.raises(ssl.SSLCertVerificationError):
            smtplib.SMTP_SSL("127.0.0.1", sink.port, timeout=10, context=ssl.create_default_context())
        sink.wait_until(lambda: not sink.open, "the end of the session")
        assert len(sink.tls_failures) == 1


def test_what_is_injected_before_tls_is_thrown_away(server_tls):
    """Octets behind STARTTLS in the same segment are recorded and not obeyed."""
    with ScriptSink(tls=server_tls) as sink, Client(sink.port) as client:
        client.ask(b"EHLO client.example")
        assert client.ask(b"STARTTLS\r\nMAIL FROM:<a@bank.example>")[:3] == b"220"
        assert sink.injected == [b"MAIL FROM:<a@bank.example>\r\n"]
        assert sink.transactions == []


def test_the_scripted_server_leaves_nothing_behind():
    """Closing ends delayed replies, idle sessions and the listener at once."""
    before = threading.active_count()
    with ScriptSink({"NOOP": reply("250 late", delay=3600)}) as sink:
        with Client(sink.port) as waiting, Client(sink.port) as idle:
            waiting.send(b"NOOP\r\n")
            assert idle.ask(b"RSET")[:3] == b"250"
            sink.wait_until(lambda: sink.lines("NOOP") == [b"NOOP"], "the command")
            sink.close()
        assert sink.open == 0
    assert threading.active_count() == before
    assert not listening(sink.port)


# Postfix.


@pytest.fixture
def message(tmp_path):
    """A message with the fields that Postfix would add otherwise, in a file with the line ends of files."""
    file = tmp_path / "message"
    file.write_bytes(
        b"From: Bank <news@bank.example>\nTo: alex@customer.example\nDate: Mon, 02 Mar 2026 09:00:00 +0000\n"
        b"Message-Id: <1@bank.example>\nSubject: Your statement\n\nIt is there.\n.\n"
    )
    return file


def test_postfix_relays(tmp_path, message):
    """What is sent to a relaying Postfix reaches the next hop, and its queue is empty then."""
    with Sink(tmp_path) as sink, Postfix.relaying(sink.port) as postfix:
        done = smtp_source(postfix.port, "-N", messages=10, sessions=2, file=message)
        assert done.code == 0, done.output
        received = sink.wait(10)
        postfix.wait_empty()
        assert "status=sent" in postfix.log()
    assert len({each.rcpts for each in received}) == 10
    assert all(each.content.endswith(message.read_bytes() + b"\n") for each in received)
    assert not postfix.home.exists()
    assert not listening(postfix.port)


def test_postfix_keeps_what_the_next_hop_defers(message):
    """A 4yz stays in the queue with its reason, and goes when the next hop takes it."""
    with ScriptSink({"RCPT": [reply("450 4.2.0 Later")]}) as sink, Postfix.relaying(sink.port) as postfix:
        assert smtp_source(postfix.port, file=message).code == 0
        sink.wait_until(lambda: bool(sink.lines("RCPT")), "the first try")
        (entry,) = postfix.wait_deferred(1)
        assert "450 4.2.0 Later" in json.dumps(entry)
        postfix.flush()
        assert sink.wait(1)[0].rcpt_tos == [b"alex@customer.example"]
        postfix.wait_empty()


def test_postfix_repeats_what_was_not_answered(message):
    """A drop after the final dot leaves the message deferred; tried again, the same octets come once more."""
    with ScriptSink({".": [drop(), None]}) as sink, Postfix.relaying(sink.port) as postfix:
        assert smtp_source(postfix.port, file=message).code == 0
        postfix.wait_deferred(1)
        postfix.flush()
        sink.wait(1)
        postfix.wait_empty()
        first, second = sink.transactions
    assert (first.answered, second.answered) == (b"", b"2")
    assert first.data == second.data


def test_postfix_receives(message):
    """A receiving Postfix delivers a copy per recipient, with its envelope, and refuses whom it is told to refuse."""
    refusing = "check_recipient_access inline:{ {gone@customer.example=550 5.1.1 Gone} }, permit_mynetworks, reject"
    with Postfix.receiving(smtpd_recipient_restrictions=refusing) as postfix:
        done = smtp_source(postfix.port, recipients=2, file=message)
        assert done.code == 0, done.output
        assert swaks(postfix.port, recipients="gone@customer.example").code == RCPT_REFUSED
        postfix.wait_empty()
        box = postfix.mailbox()
    assert [copy.split(b"\n", 3)[:3] for copy in sorted(box)] == [
        [
            b"Return-Path: <news@bank.example>",
            b"X-Original-To: " + recipient,
            b"Delivered-To: " + recipient,
        ]
        for recipient in (b"2alex@customer.example", b"alex@customer.example")
    ]
    assert all(copy.endswith(message.read_bytes() + b"\n") for copy in box)


def test_a_filter_before_the_queue(tmp_path, message):
    """Postfix asks the filter before it answers: a refusal is the client's, and nothing is queued."""
    with ScriptSink({".": [None, reply("554 5.7.1 Not this")]}, keywords=("XFORWARD NAME ADDR",)) as sink:
        with Postfix.filtering(sink.port, free_port()) as postfix:
            assert swaks(postfix.port, message=message).code == 0
            refused = swaks(postfix.port, message=message)
            assert (refused.code, "554 5.7.1 Not this" in refused.output) == (DATA_REFUSED, True)
            assert postfix.queue() == []
        assert b"XFORWARD NAME=[UNAVAILABLE] ADDR=127.0.0.1" in sink.lines("XFORWARD")
        assert len(sink.delivered) == 1


def test_a_filter_that_lets_everything_through(tmp_path, message):
    """What comes back at the second door is queued and relayed."""
    with Sink(tmp_path) as sink, PassThrough() as through, Postfix.filtering(through.port, sink.port) as postfix:
        through.to_port = postfix.reentry_port
        done = smtp_source(postfix.port, messages=3, file=message)
        assert done.code == 0, done.output
        received = sink.wait(3)
        postfix.wait_empty()
    assert through.connections == 3
    assert all(each.content.endswith(message.read_bytes() + b"\n") for each in received)


class PassThrough:
    """A transparent TCP relay on a thread per direction: a filter that does nothing."""

    def __init__(self) -> None:
        self.to_port, self.connections = 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self.to_port), timeout=10)
            near.settimeout(10)
            pair = threading.Thread(target=self._both, args=(near, far))
            self._threads.append(pair)
            pair.start()

    def _both(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._copy, args=(far, near))
            back.start()
            self._copy(near, far)
            back.join()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        try:
            while octets := one.recv(65536):
                other.sendall(octets)
            other.shutdown(socket.SHUT_WR)
        except OSError:  # one side has gone
            return

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def test_a_postfix_that_does_not_start_says_why():
    """A setting that it cannot live with gives an error with its words, and leaves nothing behind."""
    postfix = Postfix.relaying(free_port(), mail_owner="nosuch")
    with pytest.raises(AssertionError, match="unknown user name value: nosuch"):
        postfix.start()
    assert not postfix.home.exists()


# PostgreSQL.


def test_postgresql_keeps_what_it_said_it_has():
    """A server that is killed has what was committed when it is started again; its role may do nothing elsewhere."""
    with Postgres("log_connections = on") as postgres:
        url = postgres.database()
        postgres.execute("CREATE TABLE kept AS SELECT 1 AS one", url)
        postgres.kill()
        assert not listening(postgres.port)
        postgres.run()
        assert postgres.execute("SELECT one FROM kept", url) == [(1,)]
        assert postgres.execute("SHOW fsync", url) == [("on",)]
        assert postgres.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", url) == [(False,)]
        assert "automatic recovery in progress" in postgres.log()
    assert not postgres.home.exists()
    assert not listening(postgres.port)


def test_a_postgresql_that_does_not_start_says_why():
    """A setting that it cannot live with gives an error with its words, and leaves nothing behind."""
    postgres = Postgres("max_connections = few")
    with pytest.raises(AssertionError, match='invalid value for parameter "max_connections": "few"'):
        postgres.start()
    assert not postgres.home.exists()

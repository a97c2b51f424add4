"""A session without a socket: whatever a client says, there are replies and no faults."""

import asyncio
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.server import ALL_EXTENSIONS, LOOPBACK, FakePipeline, FakeTransaction, until

from filter import replies
from filter.data_reader import DataReader
from filter.smtp_auth import MAX_UNFINISHED, PasswordChecker
from filter.smtp_door import Door
from filter.smtp_in import Server, as_reply
from filter.smtp_limits import Limits
from filter.smtp_sessions import Sessions

PIECES = (
    b"EHLO x",
    b"HELO x",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<> SIZE=10 BODY=8BITMIME",
    b"RCPT TO:<c@d.example>",
    b"RCPT TO:<c@d.example> NOTIFY=NEVER",
    b"DATA",
    b"Subject: x",
    b"",
    b".",
    b"RSET",
    b"AUTH PLAIN AAAA",
    b"XFORWARD NAME=x",
    b"VRFY x",
    b"STARTTLS",
    b"\xff\0",
)
REPLY = re.compile(rb"(?:[2-5]\d\d(?:-[\x20-\x7e]*\r\n[2-5]\d\d)*(?: [\x20-\x7e]*)?\r\n)+")


class Wire(asyncio.Transport):
    """Keeps what the server says."""

    def __init__(self, protocol):
        super().__init__({"peername": ("127.0.0.1", 4711)})
        self.protocol = protocol
        self.said = b""
        self.open = True

    def write(self, data):
        """Keep it."""
        self.said += data

    def close(self):
        """End the connection at the next turn, as a real transport does."""
        if self.open:
            self.open = False
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self):
        """Nothing to pause."""

    def resume_reading(self):
        """Nothing to go on with."""


async def _converse(chunks):
    """What a server says to these chunks, the faults of it, and what became of its sessions."""
    pipeline, faults = FakePipeline(), []
    sessions = Sessions(Limits(), lambda where, error: faults.append((where, error)))
    door = Door(pipeline, lambda: ALL_EXTENSIONS, lambda _: True, LOOPBACK)
    server = Server(door, sessions=sessions, hostname="relay.example", loop=asyncio.get_running_loop())
    wire = Wire(server)
    server.connection_made(wire)
    for chunk in chunks:
        if wire.open:
            server.data_received(chunk)
            for _ in range(6):  # turns for what is waited for
                await asyncio.sleep(0)
    wire.close()
    for _ in range(6):
        await asyncio.sleep(0)
    return wire.said, faults, sessions, pipeline


lines = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=30)), max_size=20)


@settings(deadline=None)
@given(lines, st.data())
def test_no_input_makes_a_fault(said, data):
    """Any lines in any cut are answered by well-formed replies, nothing is left open afterwards (B14)."""
    octets = b"".join(line + b"\r\n" for line in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=12)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    heard, faults, sessions, pipeline = asyncio.run(_converse([chunk for chunk in chunks if chunk]))
    assert faults == []
    assert REPLY.fullmatch(heard), heard
    assert not sessions
    assert (sessions.usage.connections, sessions.usage.bytes_in_flight) == (0, 0)
    ends = {"abort", "acknowledged", "unacknowledged"}
    assert all(ends & set(one.events) for one in pipeline.transactions)


def test_status_lines_of_other_handlers_are_made_safe():
    """A handler's text becomes a reply of one line in ASCII; what is no status becomes a 451 (D11)."""
    forged = as_reply("250 ok\r\n250 forged", replies.OK)
    assert (forged.code, forged.encode().count(b"\r\n")) == (250, 1)
    foreign = as_reply("550 n\u00f6", replies.OK)
    assert foreign.code == 550
    assert foreign.encode().isascii()
    assert as_reply(None, replies.OK) is replies.OK
    assert as_reply("nonsense", replies.OK) is replies.INTERNAL_ERROR
    assert as_reply(17, replies.OK) is replies.INTERNAL_ERROR


class StubbornTransaction(FakeTransaction):
    """Whose abort fails, a little later."""

    async def abort(self):
        """Fail when the next command was heard."""
        await asyncio.sleep(0)
        raise RuntimeError("secret detail")


def _server(pipeline, *, limits=None, **options):
    """A session with a client on loopback, what it says, and the faults it reports."""
    faults = []
    sessions = Sessions(limits or Limits(), lambda _, error: faults.append(type(error)))
    door = Door(pipeline, lambda: ALL_EXTENSIONS, lambda _: True, LOOPBACK)
    loop = asyncio.get_running_loop()
    server = Server(door, sessions=sessions, hostname="relay.example", loop=loop, **options)
    wire = Wire(server)
    server.connection_made(wire)
    return server, wire, faults


async def _turns(count=6):
    for _ in range(count):
        await asyncio.sleep(0)


async def _up_to_data(server):
    for line in (b"EHLO x", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"):
        server.data_received(line + b"\r\n")
        await _turns()


INJECTED = b"RSET\r\nMAIL FROM:<evil@b.example>\r\nRCPT TO:<evil@d.example>\r\nDATA\r\nevil\r\n.\r\n"


def test_rest_of_a_message_is_never_taken_for_commands(monkeypatch):
    """After a fault within a message the session ends, as what follows is message and looks like commands (D10)."""

    def out_of_memory(*_):
        raise MemoryError

    async def dialogue():
        pipeline = FakePipeline()
        server, wire, faults = _server(pipeline)
        await _up_to_data(server)
        monkeypatch.setattr(DataReader, "feed", out_of_memory)
        server.data_received(b"Subject: x\r\n")
        monkeypatch.undo()
        server.data_received(INJECTED)
        await _turns()
        assert faults == [MemoryError]
        assert wire.said.splitlines()[-1].startswith(b"451 4.3.0")
        assert not wire.open
        assert [one.mail.path for one in pipeline.transactions] == [b"a@b.example"]

    asyncio.run(dialogue())


def test_an_abort_that_fails_does_not_touch_the_next_message():
    """Giving up a transaction goes on in the background; its fault is reported, and the next message is one (D10)."""

    async def dialogue():
        pipeline = FakePipeline()
        pipeline.begin = lambda client, mail: StubbornTransaction(pipeline, client, mail)
        server, wire, faults = _server(pipeline)
        await _up_to_data(server)
        server.data_received(b".\r\n")
        await _turns()
        server.data_received(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        await _turns()
        pipeline.begin = lambda client, mail: FakeTransaction(pipeline, client, mail)
        server.data_received(b"RSET\r\nMAIL FROM:<a@b.example>\r\n")
        server.data_received(b"RCPT TO:<c@d.example>\r\nDATA\r\n")
        await _turns()
        server.data_received(INJECTED)
        await _turns(12)
        assert faults == [RuntimeError]
        assert [one.content for one in pipeline.messages] == [b"", INJECTED[:-3]]
        assert wire.said.endswith(b"250 2.0.0 Ok: taken as Q1\r\n")

    asyncio.run(dialogue())


def test_a_fault_of_the_proxy_header_ends_the_session(monkeypatch):
    """Nobody knows whose connection it is, and the same octets are not looked at again (C4, D10)."""

    def fails(_):
        raise ValueError("secret detail")

    async def dialogue():
        server, wire, faults = _server(FakePipeline(), proxy_networks=LOOPBACK)
        monkeypatch.setattr("filter.smtp_dialogue.parse", fails)
        server.data_received(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nEHLO x\r\n")
        await _turns()
        assert faults == [ValueError]
        assert not wire.open
        assert b"220" not in wire.said

    asyncio.run(dialogue())


def test_a_balancer_without_a_header_is_logged(caplog):
    """Its operator finds the balancer and what was wrong in the log; the client is told nothing (C4)."""

    async def dialogue():
        server, wire, _ = _server(FakePipeline(), proxy_networks=LOOPBACK)
        server.data_received(b"EHLO x\r\n")
        await _turns()
        assert not wire.open
        assert wire.said == b""

    asyncio.run(dialogue())
    (record,) = caplog.records
    assert record.getMessage() == "proxy_header_refused"
    assert record.fields["peer"] == "127.0.0.1"
    assert str(record.fields["reason"]) == "no PROXY header"


@pytest.mark.parametrize("leaves", [False, True])
def test_a_flood_of_commands_is_served_in_turns(leaves):
    """However many commands arrive at once, others get their turn, and all are answered, in order (B13).

    So they are when the client says that nothing more comes.
    """

    async def dialogue():
        server, wire, faults = _server(FakePipeline(), limits=Limits(recipients=1))
        server.data_received(b"EHLO x\r\n")
        await _turns()
        server.data_received(b"MAIL FROM:<a@b.example>\r\n")
        before = wire.said.count(b"\r\n")
        server.data_received(b"RCPT TO:<c@d.example>\r\n" * 10_000)
        if leaves:
            server.eof_received()
        most, answered = 0, wire.said.count(b"\r\n") - before
        for _ in range(1000):
            await asyncio.sleep(0)
            now = wire.said.count(b"\r\n") - before
            most, answered = max(most, now - answered), now
        assert answered == 10_000
        assert most <= 200
        assert faults == []
        assert wire.open is not leaves

    asyncio.run(dialogue())


def test_a_message_of_a_lost_client_counts_until_it_is_delivered():
    """Whoever leaves while a message is delivered does not make room for another one: it is still in memory (B8)."""

    async def dialogue():
        pipeline = FakePipeline()
        pipeline.data_waits = asyncio.Event()
        server, wire, _ = _server(pipeline)
        await _up_to_data(server)
        server.data_received(b"x" * 1000 + b"\r\n.\r\n")
        await _turns()
        wire.close()
        await _turns()
        assert server.sessions.usage.bytes_in_flight >= 1000
        pipeline.data_waits.set()
        await _turns()
        assert server.sessions.usage.bytes_in_flight == 0
        assert pipeline.events[-1] == "unacknowledged"
        assert not server.sessions

    asyncio.run(dialogue())


def test_what_is_waited_for_may_be_closed_under_a_session():
    """A delivery that somebody cancels ends its session, which is not left behind (D10)."""

    async def dialogue():
        pipeline = FakePipeline()
        pipeline.data_waits = asyncio.get_running_loop().create_future()
        pipeline.data_waits.wait = lambda: pipeline.data_waits
        server, wire, faults = _server(pipeline)
        await _up_to_data(server)
        server.data_received(b".\r\n")
        await _turns()
        pipeline.data_waits.cancel()
        await _turns()
        assert not wire.open
        assert not server.sessions
        assert faults == []

    asyncio.run(dialogue())


def test_a_drain_lets_an_open_transaction_come_to_its_end():
    """Who has given a sender may finish this message, and nothing after it (D21)."""

    async def dialogue():
        pipeline = FakePipeline()
        server, wire, _ = _server(pipeline)
        server.data_received(b"EHLO x\r\n")
        await _turns()
        server.data_received(b"MAIL FROM:<a@b.example>\r\n")
        drained = asyncio.create_task(server.sessions.drain())
        await _turns()
        assert wire.open
        for line in (b"RCPT TO:<c@d.example>", b"DATA", b"."):
            server.data_received(line + b"\r\n")
            await _turns()
        assert wire.said.endswith(b"250 2.0.0 Ok: taken as Q1\r\n")
        server.data_received(b"MAIL FROM:<a@b.example>\r\n")
        await drained
        assert wire.said.splitlines()[-1].startswith(b"421 4.3.2")
        assert len(pipeline.messages) == 1

    asyncio.run(dialogue())


def test_passwords_that_wait_to_be_checked_are_few():
    """However many log in at once, and leave, only so many checks wait; the others are told to come again (B6)."""

    class Slow:
        """Users whose passwords take their time."""

        def __init__(self):
            self.go_on = threading.Event()

        def verify(self, _name, _password):
            """Find it right in the end."""
            return self.go_on.wait(10)

    async def dialogue():
        users = Slow()
        passwords = PasswordChecker(users)
        wires = []
        for _ in range(MAX_UNFINISHED + 5):
            server, wire, faults = _server(FakePipeline(), passwords=passwords)
            server.session.tls = "TLSv1.3"
            wires.append(wire)
            server.data_received(b"EHLO x\r\n")
            await _turns()
            server.data_received(b"AUTH PLAIN AHNob3AAeA==\r\n")
            if len(wires) < MAX_UNFINISHED:
                wire.close()
            await _turns()
        assert sum(wire.said.endswith(b"454 4.7.0 Cannot check passwords now, try again\r\n") for wire in wires) == 5
        users.go_on.set()
        await until(lambda: not passwords.busy)
        await until(lambda: wires[MAX_UNFINISHED - 1].said.endswith(b"235 2.7.0 Authenticated\r\n"))
        assert faults == []
        passwords.close()

    asyncio.run(dialogue())

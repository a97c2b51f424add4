"""The SMTP server under load and abuse, over loopback: flights, hostile clients, limits, drain."""

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop
from support.server import PATIENCE, run, running, until

from filter.smtp_limits import Limits
from filter.smtp_session import Session, plain_address

pytestmark = pytest.mark.integration


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    """Both event loops."""
    return request.param


def _resident() -> int:
    """Memory of this process in octets."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[1]) * 4096


def _descriptors() -> int:
    """Files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_thousand_pipelined_transactions_are_answered_in_order(loop):
    """All in one flight, the replies come in the order of the commands, each recipient with its own (A8)."""

    async def dialogue():
        async with running(limits=Limits(tick=0.05, idle_commands=2000)) as server:
            talker = await server.connect()
            await talker.hello()
            flight = b"".join(
                b"MAIL FROM:<s%d@bank.example>\r\nRCPT TO:<r%d@customer.example>\r\nRSET\r\n" % (number, number)
                for number in range(1000)
            )
            sending = asyncio.create_task(talker.say(flight))
            for _ in range(1000):
                await talker.expect("250 2.1.0")
                await talker.expect("250 2.1.5")
                await talker.expect("250 2.0.0")
            await sending
            seen = [(one.mail.path, one.recipients[0].path) for one in server.pipeline.transactions]
            assert seen == [(b"s%d@bank.example" % n, b"r%d@customer.example" % n) for n in range(1000)]
            talker.close()

    run(dialogue(), loop)


def test_messages_follow_each_other_in_flights(loop):
    """The end of a message and the next transaction up to DATA in one packet, a hundred times (A8, A9)."""

    async def dialogue():
        async with running() as server:
            talker = await server.connect()
            await talker.hello()
            begin = b"MAIL FROM:<a@bank.example>\r\nRCPT TO:<b@customer.example>\r\nDATA\r\n"
            await talker.say(begin)
            for number in range(100):
                for reply in ("250 2.1.0", "250 2.1.5", "354"):
                    await talker.expect(reply)
                await talker.say(b"Subject: %d\r\n.\r\n" % number + (begin if number < 99 else b"QUIT\r\n"))
                await talker.expect("250 2.0.0")
            await talker.expect("221")
            assert [one.content for one in server.pipeline.messages] == [b"Subject: %d\r\n" % n for n in range(100)]
            talker.close()

    run(dialogue(), loop)


def test_message_cut_at_every_octet_is_one_message(loop):
    """However the octets arrive, commands and message are the same (A1)."""
    octets = b"MAIL FROM:<a@bank.example>\r\n|RCPT TO:<b@customer.example>\r\n|DATA\r\n|a\r\n..b\r\n.\r\n"

    async def dialogue():
        async with running() as server:
            talker = await server.connect()
            talker.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await talker.hello()
            for part in octets.split(b"|"):
                for octet in part:
                    await talker.say(bytes([octet]))
                    await asyncio.sleep(0)
                await talker.reply()
            assert [one.content for one in server.pipeline.messages] == [b"a\r\n.b\r\n"]
            talker.close()

    run(dialogue(), loop)


@pytest.mark.parametrize("within_message", [False, True])
def test_endless_line_takes_no_memory(within_message, loop):
    """100 MB without a line end are thrown away as they come, in a command and in a message (B1)."""

    async def dialogue():
        async with running(limits=Limits(tick=0.05, message_size=60 * 1024 * 1024)) as server:
            talker = await server.connect()
            await talker.hello()
            if within_message:
                for line in ("MAIL FROM:<a@bank.example>", "RCPT TO:<b@customer.example>", "DATA"):
                    await talker.ask(line, "354" if line == "DATA" else "250")
            before, octets = _resident(), b"x" * 1_000_000
            for _ in range(100):
                await talker.say(octets)
            cap = 60 * 1024 * 1024 if within_message else 0
            assert _resident() - before < cap + 40 * 1024 * 1024  # buffers of the kernel, the loop and the client
            await talker.say(b"\r\n.\r\n" if within_message else b"\r\n")
            await talker.expect("552" if within_message else "500")
            talker.close()

    run(dialogue(), loop)


def test_connections_are_capped_and_leave_nothing_behind(loop):
    """Past the cap for one client a connection gets 421; those that go make room, however often (B4)."""

    async def dialogue():
        async with running(limits=Limits(tick=0.05, connections_per_client=3)) as server:
            for _ in range(100):
                talkers = [await server.connect() for _ in range(4)]
                for talker in talkers[:3]:
                    await talker.expect("220")
                await talkers[3].expect("421 4.7.0")
                for talker in talkers[:3]:
                    await talker.ask("QUIT", "221")
                for talker in talkers:
                    await talker.expect_end()
                    talker.close()
                await until(lambda: not server.service.sessions)
            assert server.service.sessions.usage.connections == 0

    run(dialogue(), loop)


def test_ten_thousand_connections_leave_no_descriptor():
    """Clients that come and go, most of them past the cap of all connections, leave no file open (B4)."""

    def come_and_go(port, count):
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                assert client.recv(3) in (b"220", b"421")

    async def dialogue():
        async with running(limits=Limits(tick=0.05, connections=2)) as server:
            await asyncio.to_thread(come_and_go, server.port, 10)
            await until(lambda: not server.service.sessions)
            before = _descriptors()
            kept = [await server.connect() for _ in range(2)]
            for talker in kept:
                await talker.expect("220")
            await asyncio.to_thread(come_and_go, server.port, 10_000)
            for talker in kept:
                await talker.ask("QUIT", "221")
                talker.close()
                await talker.writer.wait_closed()
            await until(lambda: not server.service.sessions)
            assert server.service.sessions.usage.connections == 0
            assert _descriptors() <= before

    run(dialogue(), uvloop.new_event_loop)


def test_client_that_reads_nothing_is_cut_off(loop):
    """A client that lets its replies pile up is not served further, and aborted after a while (B5)."""

    async def dialogue():
        limits = Limits(tick=0.05, command_timeout=0.3, idle_commands=10**9, errors=10**9)
        async with running(limits=limits, buffer=8192) as server:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(_talk_on(client), PATIENCE)
            client.close()

    run(dialogue(), loop)


async def _talk_on(client):
    """Say EHLO and then NOOP without end, reading nothing."""
    sending = asyncio.get_running_loop().sock_sendall
    await sending(client, b"EHLO x\r\n")
    await asyncio.sleep(0.05)  # for the replies, which are left unread
    while True:
        await sending(client, b"NOOP\r\n" * 1000)


def test_drain_ends_idle_sessions_and_waits_for_messages(loop):
    """Idle clients get 421 at once, a message on its way is delivered and answered, then all is over (D21)."""

    async def dialogue():
        async with running() as server:
            server.pipeline.data_waits = asyncio.Event()
            idle, busy = await server.connect(), await server.connect()
            await idle.hello()
            await busy.hello()
            sending = asyncio.create_task(busy.send())
            await server.pipeline.arrived.wait()
            drained = asyncio.create_task(server.service.drain(PATIENCE))
            await idle.expect("421 4.3.2")
            await idle.expect_end()
            with pytest.raises(OSError, match=r".*"):
                await server.connect()
            assert not drained.done()
            server.pipeline.data_waits.set()
            assert (await sending).startswith("250 2.0.0")
            await busy.ask("NOOP", "421 4.3.2")
            await busy.expect_end()
            assert await drained
            assert server.pipeline.events[-1] == "acknowledged"
            for talker in (idle, busy):
                talker.close()

    run(dialogue(), loop)


def test_drain_that_takes_too_long_says_so(loop):
    """A message that does not get through in time keeps the drain from succeeding, and nothing is cancelled (D21)."""

    async def dialogue():
        async with running() as server:
            server.pipeline.data_waits = asyncio.Event()
            talker = await server.connect()
            await talker.hello()
            sending = asyncio.create_task(talker.send())
            await server.pipeline.arrived.wait()
            assert not await server.service.drain(0.05)
            server.pipeline.data_waits.set()
            assert (await sending).startswith("250")
            talker.close()

    run(dialogue(), loop)


def test_ipv6_client_is_recognised(loop):
    """A client of ::1 relays if ::1 may (C3)."""

    async def dialogue():
        async with running(host="::1") as server:
            talker = await server.connect("::1")
            await talker.hello()
            assert (await talker.send()).startswith("250")
            assert server.pipeline.transactions[0].client.address == "::1"
            talker.close()

    run(dialogue(), loop)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("", "None"),
        ("/run/socket", "None"),
        ("localhost", "None"),
    ],
)
def test_addresses_have_one_form(text, address):
    """Mapped addresses are IPv4, scopes are left out, and what is no IP address is none (C3)."""
    assert str(plain_address(text)) == address


def test_client_without_an_address_is_in_no_network():
    """A local socket gives no rights (C3)."""

    async def check():
        session = Session(asyncio.get_running_loop())
        session.come_from("")
        assert not session.is_in([])
        assert session.client.address == ""

    run(check())

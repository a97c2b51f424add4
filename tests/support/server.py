# ruff: noqa: D102 - the fakes have the interfaces of the real parts, described there
"""The real SMTP server on a loopback port before a pipeline that only records, and a client that speaks line by line.

Everything runs in one event loop, given by the test (`run`). A client that waits longer than `PATIENCE` raises
TimeoutError, an unexpected reply AssertionError.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from filter import logs, replies
from filter.envelope import Capabilities, Client, MailFrom, RcptTo
from filter.replies import Reply
from filter.smtp_door import Door
from filter.smtp_limits import Limits
from filter.smtp_service import ServerSettings, SmtpService

PATIENCE = 10
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
ALL_EXTENSIONS = Capabilities({"8BITMIME": "", "SMTPUTF8": "", "DSN": "", "SIZE": "", "PIPELINING": ""})


def run(work: Coroutine[Any, Any, Any], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Any:
    """Run a test's coroutine to its end in an event loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what nobody announces; AssertionError after a while."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not reached():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


@dataclass
class FakeTransaction:
    """One transaction as the door drove it; `events` in their order."""

    pipeline: "FakePipeline"
    client: Client
    mail: MailFrom
    queue_id: str = "Q1"
    recipients: list[RcptTo] = field(default_factory=list)
    content: bytes | None = None
    events: list[str] = field(default_factory=list)

    async def rcpt(self, recipient: RcptTo) -> Reply:
        self.events.append("rcpt")
        if self.pipeline.rcpt_waits is not None:
            await self.pipeline.rcpt_waits.wait()
        reply = self.pipeline.rcpt_replies.get(recipient.path, replies.RECIPIENT_OK)
        if isinstance(reply, Exception):
            raise reply
        if reply.ok:
            self.recipients.append(recipient)
        return reply

    async def data(self, content: bytes) -> Reply:
        self.content = content
        self.events.append("data")
        self.pipeline.arrived.set()
        if self.pipeline.data_waits is not None:
            await self.pipeline.data_waits.wait()
        self.events.append("delivered")
        reply = self.pipeline.data_reply
        if isinstance(reply, Exception):
            raise reply
        if reply.ok:
            self.pipeline.messages.append(self)
        return reply

    async def abort(self) -> None:
        self.events.append("abort")
        self.pipeline.ended.set()

    def acknowledged(self) -> None:
        self.events.append("acknowledged")
        self.pipeline.ended.set()

    async def unacknowledged(self) -> None:
        self.events.append("unacknowledged")
        self.pipeline.ended.set()


class FakePipeline:
    """Takes every message unless told otherwise. `transactions` holds all that were begun, `messages` those taken."""

    def __init__(self) -> None:
        self.transactions: list[FakeTransaction] = []
        self.messages: list[FakeTransaction] = []
        self.rcpt_replies: dict[bytes, Reply | Exception] = {}
        self.data_reply: Reply | Exception = replies.taken("Q1")
        self.rcpt_waits: asyncio.Event | None = None
        self.data_waits: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self.capabilities = ALL_EXTENSIONS
        self.room = True

    def begin(self, client: Client, mail: MailFrom) -> FakeTransaction:
        self.transactions.append(FakeTransaction(self, client, mail))
        return self.transactions[-1]

    @property
    def events(self) -> list[str]:
        """What happened to the last transaction."""
        return self.transactions[-1].events if self.transactions else []


@dataclass
class Running:
    """A server under test."""

    service: SmtpService
    pipeline: FakePipeline
    port: int

    async def connect(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> "Talker":
        reader, writer = await asyncio.open_connection(host, self.port, ssl=context, limit=1 << 20)
        return Talker(reader, writer)


@asynccontextmanager
async def running(
    *,
    limits: Limits | None = None,
    relay_networks: Any = LOOPBACK,
    host: str = "127.0.0.1",
    implicit_tls: bool = False,
    buffer: int = 0,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A server with a door on an ephemeral port; at the end every session must be over or end by the drain.

    `buffer` is the size of the kernel's buffer for what a client does not read.
    """
    pipeline = FakePipeline()
    door = Door(pipeline, lambda: pipeline.capabilities, lambda _: pipeline.room, relay_networks)
    service = SmtpService(
        door, ServerSettings(hostname="relay.example", limits=limits or Limits(tick=0.05), **settings), logs.fault
    )
    bound = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if buffer:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    await service.listen([bound], implicit_tls=implicit_tls)
    try:
        yield Running(service, pipeline, bound.getsockname()[1])
    finally:
        assert await service.drain(PATIENCE), "a session did not end"


class Talker:
    """A client: says octets, reads whole replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, octets: bytes | str) -> None:
        """Send a line (text, CRLF is added) or octets as they are."""
        self.writer.write(octets if isinstance(octets, bytes) else octets.encode() + b"\r\n")
        await self.writer.drain()

    async def reply(self) -> list[str]:
        """The lines of the next reply without CRLF; empty when the server closed the connection."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not lines or lines[-1][3:4] == "-":
                try:
                    line = await self.reader.readline()
                except ConnectionError:
                    line = b""
                if not line:
                    assert not lines, f"closed within a reply: {lines}"
                    return []
                assert line.endswith(b"\r\n"), line
                lines.append(line[:-2].decode("ascii"))
        return lines

    async def expect(self, begin: str) -> list[str]:
        """The next reply, whose last line must begin so."""
        lines = await self.reply()
        assert lines, f"closed, not {begin}"
        assert lines[-1].startswith(begin), f"{lines} is not {begin}"
        return lines

    async def expect_end(self) -> None:
        """The server must close the connection now."""
        lines = await self.reply()
        assert lines == [], f"{lines} is no end"

    async def ask(self, octets: bytes | str, begin: str) -> list[str]:
        """Say something and expect its reply."""
        await self.say(octets)
        return await self.expect(begin)

    async def hello(self) -> list[str]:
        """Read the greeting and say EHLO."""
        await self.expect("220 ")
        return await self.ask("EHLO client.example", "250 ")

    async def send(self, content: bytes = b"Subject: x\r\n\r\nHi\r\n", rcpt: str = "alex@customer.example") -> str:
        """One message in lock-step; the last line of the final reply."""
        await self.ask("MAIL FROM:<news@bank.example>", "250 ")
        await self.ask(f"RCPT TO:<{rcpt}>", "250 ")
        await self.ask("DATA", "354 ")
        await self.say(content + b".\r\n")
        return (await self.reply() or [""])[-1]

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Secure the connection after a 220 to STARTTLS."""
        await self.writer.start_tls(context, server_hostname="relay.example")

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        self.writer.write_eof()

    def close(self) -> None:
        """Leave."""
        self.writer.close()

    def reset(self) -> None:
        """Leave as a client that crashed: with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

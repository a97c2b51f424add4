"""One SMTP connection to a next hop: commands out, the replies that belong to them in, in step or not at all.

`exchange` and `send_content` raise `ConnectionFailedError`, which says why in plain words. A connection on which
anything unexpected came (a reply nobody asked for, octets that are no reply, 421) is finished: `ended` says why.
What is awaited has a `deadline`, which the owner compares with the clock now and then (the pool's `sweep`): a timer
for each command would cost more than the command.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, cast

from .envelope import Capabilities
from .ports import NextHopUnavailableError
from .smtp_reply import SERVICE_CLOSING, ReplyReader, ServerReply

_AT_ONCE: Final = 256 << 10  # octets of content that are given to the transport in one piece
_BLOCK: Final = 128 << 10  # of more than that, as fast as the other side reads


class ConnectionFailedError(NextHopUnavailableError):
    """This connection cannot be made, or not be used any more."""


class Connection(asyncio.Protocol):
    """The client's side of one SMTP connection; one exchange at a time.

    `on_lost` is called once, when the transport is gone. The first reply, the greeting, is awaited with an exchange of
    no commands. `clock` is in seconds; every limit is in seconds from now.
    """

    __slots__ = (
        "_clock",
        "_expected",
        "_limit",
        "_loop",
        "_on_lost",
        "_paused",
        "_reader",
        "_replies",
        "_transport",
        "_waiter",
        "capabilities",
        "connected_at",
        "deadline",
        "dot_sent",
        "ended",
        "idle_since",
        "needs_reset",
        "uses",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self.capabilities = Capabilities()
        self.connected_at = clock()
        self.idle_since = 0.0
        self.deadline = math.inf  # when what is awaited now is late
        self.ended = ""  # why this connection is of no more use; empty while it is
        self.dot_sent = False  # the end of a message may have left: only a reply tells what became of it
        self.needs_reset = False  # a transaction was left open: RSET goes before the next MAIL
        self.uses = 0  # transactions that were begun on it
        self._loop = loop
        self._clock = clock
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._replies: list[ServerReply] = []
        self._expected = 1  # the greeting
        self._limit = math.inf  # for the next reply
        self._waiter: asyncio.Future[None] | None = None
        self._paused: asyncio.Future[None] | None = None

    @property
    def in_step(self) -> bool:
        """Whether every command has had its reply and nothing else came: the connection can be used again."""
        return not self.ended and not self._expected

    @property
    def transport(self) -> asyncio.Transport:
        """Raises ConnectionFailedError where there is none (any more)."""
        if self._transport is None or self.ended:
            raise ConnectionFailedError(self.ended or "not connected")
        return self._transport

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        """Once connected, and again when TLS was made upon the former one."""
        transport.set_write_buffer_limits(high=_AT_ONCE)
        self._transport = transport

    async def exchange(self, commands: bytes, count: int, limit: float) -> list[ServerReply]:
        """Send commands (whole lines) and give their `count` replies; fewer only if the last of them is a 421.

        The limit is for each reply.
        """
        transport = self.transport
        if commands:
            self._expect(count)
            transport.write(commands)
        await self._wait(limit)
        return self._take(count)

    async def send_content(self, content: bytes, limit: float) -> ServerReply:
        """Send content (dot-stuffed, with its final dot) and give the reply to it.

        A refusal that comes before all was sent is given too; the connection is then finished, because the rest would
        be read as commands. Until `dot_sent`, nothing was handed over. The limit is for each block and for the reply.
        """
        transport = self.transport
        self._expect(1)
        if len(content) <= _AT_ONCE:
            self.dot_sent = not transport.is_closing()
            transport.write(content)
        else:
            await self._send_blocks(transport, content, limit)
        await self._wait(limit)
        reply = self._take(1)[0]
        if reply.ok and not self.dot_sent:
            raise ConnectionFailedError("a message was accepted before its end")
        return reply

    async def _send_blocks(self, transport: asyncio.Transport, content: bytes, limit: float) -> None:
        for start in range(0, len(content), _BLOCK):
            if self._paused is not None:
                await self._until((self._paused, self._answered()), limit)
            else:
                await asyncio.sleep(0)  # a fast taker never pauses us: see whether it is gone meanwhile
            if self._replies and not self.ended:
                self.end("a reply before the end of the message")
            if self.ended or transport.is_closing():  # which takes octets, and throws them away
                return
            self.dot_sent = start + _BLOCK >= len(content)
            transport.write(content[start : start + _BLOCK])

    def _expect(self, count: int) -> None:
        if self._expected:
            self.end("used out of step")
            raise ConnectionFailedError(self.ended)
        self._expected = count
        self.dot_sent = False

    def _answered(self) -> asyncio.Future[None]:
        """Done as soon as the expected replies are there, or cannot come any more."""
        if self._waiter is None:
            self._waiter = self._loop.create_future()
            if self._replies or self.ended:
                self._wake_if_answered()
        return self._waiter

    async def _wait(self, limit: float) -> None:
        self._limit = limit
        self.deadline = self._clock() + limit
        try:
            await self._answered()
        finally:
            self.deadline = math.inf
            self._waiter = None

    async def _until(self, either: tuple[asyncio.Future[None], asyncio.Future[None]], limit: float) -> None:
        self.deadline = self._clock() + limit
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        self.deadline = math.inf

    def _wake_if_answered(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.ended or len(self._replies) >= self._expected):
            waiter.set_result(None)

    def _take(self, count: int) -> list[ServerReply]:
        replies, self._replies = self._replies[:count], []
        if len(replies) == count:
            self._expected = 0
        elif not replies or replies[-1].code != SERVICE_CLOSING:
            raise ConnectionFailedError(self.ended)
        return replies

    def end(self, reason: str) -> None:
        """Make no more use of this connection; what is awaited ends now. May be called at any time, and again."""
        self.ended = self.ended or reason
        if self._transport is not None:
            self._transport.abort()
        self._wake_if_answered()

    def quit(self, limit: float) -> None:
        """Say goodbye. The transport is closed when the other side answers, or by `end` after the deadline."""
        if self._transport is not None and not self.ended:
            self.ended = "closed by us"
            self.deadline = self._clock() + limit
            self._transport.write(b"QUIT\r\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; the greeting comes next."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Give replies to who awaits them; end the connection at the first that nobody does."""
        if self.ended:
            self.end(self.ended)  # the answer to QUIT, or more of what was wrong
            return
        for reply in self._reader.feed(data):
            self._replies.append(reply)
            if reply.code == SERVICE_CLOSING:
                self.end("the server closes the connection (421)")
                return
        missing = self._expected - len(self._replies)
        if self._reader.broken:
            self.end(f"malformed reply: {self._reader.broken}")
        elif missing < 0:
            if self._expected > 1:
                self._replies.clear()  # one too many: it cannot be told which belongs to which command
            self.end("a reply that nobody asked for")
        elif not missing and self._reader.partial:
            self.end("more than a reply")
        elif not missing:
            self._wake_if_answered()
        elif self._waiter is not None:
            self.deadline = self._clock() + self._limit  # a long group takes its time

    def eof_received(self) -> None:
        """The other side will send no more: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._transport = None
        self.end(f"connection lost ({type(exc).__name__})" if exc else "connection closed by the server")
        self.resume_writing()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The other side reads more slowly than we write."""
        self._paused = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)
        self._paused = None

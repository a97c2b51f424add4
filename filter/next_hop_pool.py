"""Connections to one host, kept and used again: the last one back is the first one out, at most so many at once.

`acquire` raises ConnectionFailedError (this host cannot be used now) or NextHopUnavailableError (all connections stay
in use). Whoever acquires must `release`, whatever happened. One timer for the pool watches every time limit.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final, Protocol

from .envelope import Capabilities
from .next_hop_breaker import Breaker, BreakerState
from .next_hop_connection import Connection, ConnectionFailedError
from .next_hop_setup import Count, Event, NextHopOptions, Setup, TlsFailedError
from .ports import NextHopUnavailableError
from .tls_policy import TlsPolicy

QUIT_LIMIT: Final = 1.0  # seconds for the answer to QUIT
_SWEEPS: Final = 4  # per shortest time limit
_MAX_SWEEP: Final = 1.0  # seconds


class _Turn(Enum):
    """What a waiting caller gets if it is not a connection."""

    CONNECT = auto()  # a place came free
    LATE = auto()
    CLOSED = auto()


class Connect(Protocol):
    """What makes the transport; `loop.create_connection`, or the one of a test."""

    def __call__(self, protocol: Callable[[], Connection], host: str, port: int) -> Awaitable[object]:
        """Connect and call `connection_made`; raises OSError."""


async def _connect_tcp(protocol: Callable[[], Connection], host: str, port: int) -> None:
    await asyncio.get_running_loop().create_connection(protocol, host, port)


class Pool:
    """The connections to one host. Belongs to the loop it is made in. `clock` is in seconds (default: the loop's)."""

    def __init__(
        self,
        host: tuple[str, int],
        options: NextHopOptions,
        context: ssl.SSLContext | None,
        count: Count,
        *,
        clock: Callable[[], float] | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.host = host
        self.capabilities = Capabilities()  # of the last connection
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self.breaker = Breaker(options.breaker_failures, options.breaker_pause, self._clock)
        self._options = options
        self._setup = Setup(host[0], options, context)
        self._count = count
        self._connect = connect or _connect_tcp
        self._places = 0  # connections that are made or being made; at most max_connections
        self._open: set[Connection] = set()  # with a transport: in use, idle, being set up, or leaving
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[float, asyncio.Future[Connection | _Turn]]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        limits = (options.idle_timeout, options.max_age, options.command_timeout, options.final_timeout)
        self._interval = min(_MAX_SWEEP, min(limits) / _SWEEPS)
        self._closed = False
        self._all_left: asyncio.Event | None = None  # while closing: whether every QUIT was answered

    @property
    def connections(self) -> int:
        """Connections made or being made."""
        return self._places

    @property
    def idle(self) -> int:
        """Of these, how many wait for work."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Of these, how many have work or are being made."""
        return self._places - len(self._idle)

    @property
    def waiting(self) -> int:
        """Callers that wait for a connection."""
        return len(self._waiting)

    async def acquire(self) -> Connection:
        """A connection ready for MAIL: the one used last, a new one, or the first that comes free."""
        now = self._clock()
        if self.breaker.state is not BreakerState.CLOSED:
            self._drop_idle()  # only a new connection shows that a host works again
        while self._idle:
            connection = self._idle.pop()
            if connection.in_step and self._fresh(connection, now):
                return connection
            self._drop(connection)
        if self._closed:
            raise ConnectionFailedError("shutting down")
        if self._places >= self._options.max_connections or self._waiting:
            turn = await self._wait(now)
            if isinstance(turn, Connection):
                return turn
            if self.breaker.state is BreakerState.OPEN:  # meanwhile: who waits need not find out again
                self._leave_place()
                raise ConnectionFailedError("this host is left alone for a while")
        else:
            self._places += 1
        return await self._fill_place()

    async def replace(self, connection: Connection) -> Connection:
        """A new connection in the place of one that turned out to be of no use."""
        connection.end("replaced")
        return await self._fill_place()

    def release(self, connection: Connection) -> None:
        """Give a connection back, in whatever condition."""
        now = self._clock()
        if self._closed or not connection.in_step or now - connection.connected_at > self._options.max_age:
            self._drop(connection)
            return
        while self._waiting:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = now
        self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())

    async def close(self, limit: float = QUIT_LIMIT) -> None:
        """Say QUIT on idle connections and wait so long for the answers; those in use are closed at their release."""
        self._closed = True
        while self._waiting:
            self._settle(_Turn.CLOSED)
        self._drop_idle()
        if self._leaving():
            self._all_left = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._all_left.wait()
        for connection in self._leaving():
            connection.end("closed by us")
        await asyncio.sleep(0)  # transports close on the loop's next round
        if self._sweeper is not None and not self._open:
            self._sweeper.cancel()
            self._sweeper = None

    def _leaving(self) -> list[Connection]:
        return [connection for connection in self._open if connection.ended]

    def sweep(self) -> None:
        """End what is late: replies, idle and waiting times. Called by the pool's own timer."""
        now = self._clock()
        for connection in [connection for connection in self._open if connection.deadline <= now]:
            if not connection.ended:
                self._count(Event.TIMEOUT)
            connection.end("no answer in time")
        for connection in [connection for connection in self._idle if not self._fresh(connection, now)]:
            self._idle.remove(connection)
            self._drop(connection)
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][1].done()):
            self._settle(_Turn.LATE)

    def _fresh(self, connection: Connection, now: float) -> bool:
        idle = now - connection.idle_since
        return idle < self._options.idle_timeout and now - connection.connected_at < self._options.max_age

    async def _wait(self, now: float) -> Connection | _Turn:
        """Stand in line. Raises NextHopUnavailableError after command_timeout."""
        self._count(Event.WAIT)
        waiter: asyncio.Future[Connection | _Turn] = self._loop.create_future()
        self._waiting.append((now + self._options.command_timeout, waiter))
        self._watch()
        try:
            turn = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._return(waiter.result())
            raise
        if turn is _Turn.LATE:
            self._count(Event.WAIT_FAILED)
            raise NextHopUnavailableError("every connection to the next hop stays in use")
        if turn is _Turn.CLOSED:
            raise NextHopUnavailableError("shutting down")
        return turn

    def _return(self, turn: Connection | _Turn) -> None:
        """Pass on what a caller got in the moment it left."""
        if isinstance(turn, Connection):
            self.release(turn)
        elif turn is _Turn.CONNECT:
            self._leave_place()

    def _settle(self, turn: _Turn) -> None:
        """Give the first in line its turn."""
        _, waiter = self._waiting.popleft()
        if not waiter.done():
            waiter.set_result(turn)

    async def _fill_place(self) -> Connection:
        """Connect; the place, already counted, is left again if that fails."""
        try:
            connection = await self._new()
        except ConnectionFailedError:
            self._count(Event.CONNECT_FAILED)
            self._leave_place()
            raise
        except BaseException:
            self._leave_place()
            raise
        self._count(Event.CONNECT)
        self.capabilities = connection.capabilities
        return connection

    async def _new(self) -> Connection:
        try:
            return await self._try()
        except TlsFailedError:
            if self._options.tls is not TlsPolicy.OPPORTUNISTIC:
                raise
        self._count(Event.TLS_FALLBACK)
        return await self._try(clear=True)

    async def _try(self, *, clear: bool = False) -> Connection:
        connection = Connection(self._loop, self._clock, self._lost)
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await self._connect(lambda: connection, *self.host)
            if not connection.ended:
                self._open.add(connection)
                self._watch()
            await self._setup.run(connection, clear=clear)
        except OSError as error:  # TimeoutError is one
            connection.end("cannot connect")
            raise ConnectionFailedError(f"cannot connect ({type(error).__name__})") from None
        except BaseException:
            connection.end("not set up")
            raise
        return connection

    def _leave_place(self) -> None:
        """A place came free: the first that still waits has it."""
        while self._waiting:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(_Turn.CONNECT)
                return
        self._places -= 1

    def _drop(self, connection: Connection) -> None:
        """Part with a connection that is not in `_idle`."""
        if connection.in_step:
            connection.quit(QUIT_LIMIT)
        else:
            connection.end("not usable")
        self._leave_place()

    def _lost(self, connection: Connection) -> None:
        """A transport is gone. If the connection was idle nobody else will notice."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._leave_place()
        if self._all_left is not None and not self._leaving():
            self._all_left.set()

    def _watch(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._interval, self._swept)

    def _swept(self) -> None:
        self._sweeper = None
        self.sweep()
        if self._open or self._waiting:
            self._watch()

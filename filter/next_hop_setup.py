"""A connection to a next hop made ready for mail: greeting, EHLO, STARTTLS, AUTH.

`set_up` raises ConnectionFailedError for everything that keeps the connection from being used, without a word of what
the server said. Passwords go out only over TLS with a verified certificate: `NextHopOptions` raises ConfigError for a
user without it. `tls_context` raises OSError (ssl.SSLError is one) for a file of authorities that cannot be used.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from .envelope import Capabilities
from .errors import ConfigError, Problem
from .next_hop_connection import Connection, ConnectionFailedError
from .smtp_reply import ServerReply
from .tls_policy import TlsPolicy

_READY: Final = 220
_CHALLENGE: Final = 334
_UNKNOWN_COMMAND: Final = (500, 502)


class Event(StrEnum):
    """What happens on the way to the next hop, for counting."""

    CONNECT = "connect"  # a connection was made and is ready
    CONNECT_FAILED = "connect_failed"
    REUSE = "reuse"  # a transaction began on a connection that had one before
    RETRY = "retry"  # a reused connection was gone; the transaction began anew on a fresh one
    FAILOVER = "failover"  # a host could not be used and there is another
    LOST = "lost"  # a connection failed within a transaction
    TIMEOUT = "timeout"  # the reply or the reading of a block took too long
    WAIT = "wait"  # max_connections was reached
    WAIT_FAILED = "wait_failed"  # and no connection came free in time
    BREAKER_OPENED = "breaker_opened"
    BREAKER_CLOSED = "breaker_closed"
    TLS_FALLBACK = "tls_fallback"  # opportunistic TLS failed; connected in the clear
    XFORWARD_REFUSED = "xforward_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHopOptions:
    """Everything about the way to one group of hosts. Times are in seconds, counts are per worker and host."""

    hosts: tuple[tuple[str, int], ...]  # in order of preference; addresses without brackets
    hostname: str  # ours, for EHLO
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    tls_ca_file: Path | None = None  # None for the system's authorities
    user: str = ""
    password: str = field(default="", repr=False)
    max_connections: int = 50
    idle_timeout: float = 30.0
    max_age: float = 300.0
    connect_timeout: float = 5.0
    command_timeout: float = 30.0
    final_timeout: float = 90.0  # for the reply to the final dot: giving up earlier makes doubt; transaction_timeout
    breaker_failures: int = 5
    breaker_pause: float = 10.0
    xforward: bool = True

    def __post_init__(self) -> None:
        if self.user and self.tls is not TlsPolicy.VERIFY:
            problem = Problem("next_hop.tls", self.tls, 'with next_hop.user it must be "verify"')
            raise ConfigError("the next hop's password would be sent to an unverified server", [problem])


def tls_context(options: NextHopOptions) -> ssl.SSLContext | None:
    """The context for these options; None for no TLS."""
    if options.tls is TlsPolicy.OFF:
        return None
    context = ssl.create_default_context(cafile=options.tls_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.tls is not TlsPolicy.VERIFY:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class TlsFailedError(ConnectionFailedError):
    """STARTTLS was offered and did not lead to TLS."""


class Setup:
    """Makes connections to one host ready. `context` None leaves STARTTLS alone."""

    __slots__ = ("_context", "_hello", "_host", "_options")

    def __init__(self, host: str, options: NextHopOptions, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._options = options
        self._context = context
        name = options.hostname.encode("ascii")
        self._hello = (b"EHLO " + name + b"\r\n", b"HELO " + name + b"\r\n")

    async def run(self, connection: Connection, *, clear: bool = False) -> None:
        """From the greeting to the last reply before mail. `clear`: without TLS, which has failed before."""
        greeting = await self._exchange(connection, b"")
        if greeting.code != _READY:
            raise ConnectionFailedError(f"greeted with {greeting.code}")
        await self._say_hello(connection)
        if self._context is not None and not clear:
            await self._secure(connection, self._context)
        if self._options.user:
            await self._log_in(connection)

    async def _exchange(self, connection: Connection, command: bytes) -> ServerReply:
        return (await connection.exchange(command, 1, self._options.command_timeout))[0]

    async def _say_hello(self, connection: Connection) -> None:
        extended, plain = self._hello
        reply = await self._exchange(connection, extended)
        if reply.ok:
            connection.capabilities = capabilities_of(reply)
            return
        if reply.code in _UNKNOWN_COMMAND:
            reply = await self._exchange(connection, plain)
        if not reply.ok:
            raise ConnectionFailedError(f"hello answered with {reply.code}")
        connection.capabilities = Capabilities()

    async def _secure(self, connection: Connection, context: ssl.SSLContext) -> None:
        if "STARTTLS" in connection.capabilities:
            reply = await self._exchange(connection, b"STARTTLS\r\n")
            if reply.code == _READY and connection.in_step:
                await self._handshake(connection, context)
                await self._say_hello(connection)  # what was offered in the clear counts no more; RFC 3207 section 4.2
                return
        if self._options.tls is not TlsPolicy.OPPORTUNISTIC:
            raise ConnectionFailedError("no TLS to be had")

    async def _handshake(self, connection: Connection, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                connection.transport,
                connection,
                context,
                server_hostname=self._host,
                ssl_handshake_timeout=self._options.command_timeout,
            )
        except OSError as error:
            connection.end("TLS failed")
            raise TlsFailedError(f"TLS failed ({type(error).__name__})") from None
        if transport is None:  # lost while TLS was being agreed on
            connection.end("TLS failed")
            raise TlsFailedError("TLS failed")
        connection.transport = transport

    async def _log_in(self, connection: Connection) -> None:
        mechanisms = connection.capabilities.keywords.get("AUTH", "").upper().split()
        user, password = self._options.user.encode(), self._options.password.encode()
        if "PLAIN" in mechanisms:
            reply = await self._exchange(connection, b"AUTH PLAIN " + _base64(b"\0" + user + b"\0" + password))
        elif "LOGIN" in mechanisms:
            reply = await self._exchange(connection, b"AUTH LOGIN\r\n")
            for answer in (user, password):
                if reply.code == _CHALLENGE:
                    reply = await self._exchange(connection, _base64(answer))
        else:
            raise ConnectionFailedError("neither AUTH PLAIN nor AUTH LOGIN offered")
        if not reply.ok:
            raise ConnectionFailedError(f"login answered with {reply.code}")


def capabilities_of(reply: ServerReply) -> Capabilities:
    """What a reply to EHLO offers; lines that are not ASCII offer nothing. The old form "AUTH=LOGIN" is understood."""
    keywords: dict[str, str] = {}
    for line in reply.lines[1:]:
        if line.isascii():
            keyword, _, rest = line.decode().strip().replace("=", " ", 1).partition(" ")
            keywords.setdefault(keyword.upper(), rest.strip())
    return Capabilities(keywords)


def _base64(octets: bytes) -> bytes:
    return base64.b64encode(octets) + b"\r\n"


def ignore(event: Event) -> None:
    """Count nothing."""


Count = Callable[[Event], None]

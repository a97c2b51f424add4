"""The next hop over SMTP: `ports.NextHop` for one host or several in order of preference.

A transaction begins at the first host that works. Nothing has been handed over before the final dot, so up to the
first answers to RCPT it is begun again, unseen: on a fresh connection if a reused one turns out to be gone, at the next
host if one does not work. It is also begun again if the connection was lost while the client sent its message. RCPT
goes out as soon as it is offered, MAIL in the same flight with the first one.
Raises what `ports.NextHopTransaction` says, and ValueError (a fault of ours) for octets that would break out of their
command or end the message early; then nothing was sent.

Measured with `tests/bench/bench_next_hop.py --messages 6000` (4 kB, 20 at once, one process, uvloop, two cores with
other work on them): 160 to 200 us of processor time for a message, and 400 to 520 us by aiosmtplib; the best run made
5,900 messages/s, that of aiosmtplib 1,900.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from . import next_hop_commands as commands
from .data_reader import stuff
from .envelope import USUAL, Capabilities, Client, MailFrom, RcptTo
from .next_hop_breaker import BreakerState
from .next_hop_connection import Connection, ConnectionFailedError
from .next_hop_pool import Connect, Pool
from .next_hop_setup import Count, Event, NextHopOptions, ignore, tls_context
from .ports import InDoubtError, NextHopUnavailableError
from .replies import NO_RECIPIENTS, Reply, relayed
from .smtp_reply import SERVICE_CLOSING, ServerReply

_START_MAIL: Final = 354
_REFUSALS: Final = (4, 5)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HostState:
    """How it stands with one host, for metrics and readiness."""

    host: tuple[str, int]
    connections: int  # open or being made
    idle: int
    in_use: int
    waiting: int  # transactions that wait for a connection
    breaker: BreakerState


class _Hosts:
    """The hosts in order of preference, and which of them to use now."""

    def __init__(self, pools: tuple[Pool, ...], options: NextHopOptions, count: Count) -> None:
        self.pools = pools
        self.options = options
        self.count = count
        self.capabilities = USUAL

    async def at_first(self, attempt: Callable[[Pool], Awaitable[_T]]) -> _T:
        """Attempt at each host that is not left alone until one works. Raises NextHopUnavailableError if none does."""
        reason = "every host is left alone for a while"
        for pool in self.pools:
            breaker = pool.breaker
            if not breaker.admit():
                continue
            try:
                result = await attempt(pool)
            except ConnectionFailedError as error:
                reason = str(error)
                if breaker.failed():
                    self.count(Event.BREAKER_OPENED)
            except BaseException:
                breaker.gave_up()
                raise
            else:
                if breaker.succeeded():
                    self.count(Event.BREAKER_CLOSED)
                if pool is not self.pools[0]:
                    self.count(Event.FAILOVER)
                return result
        raise NextHopUnavailableError(f"next hop not available: {reason}")


class SmtpNextHop:
    """Where relayed mail goes; one for each worker, made within its running loop.

    `count` is called with every event worth counting. `clock` (seconds) and `connect` are for tests. Raises OSError if
    `options.tls_ca_file` cannot be used.
    """

    def __init__(
        self,
        options: NextHopOptions,
        *,
        count: Count = ignore,
        clock: Callable[[], float] | None = None,
        connect: Connect | None = None,
    ) -> None:
        context = tls_context(options)
        pools = [Pool(host, options, context, count, clock=clock, connect=connect) for host in options.hosts]
        self._hosts = _Hosts(tuple(pools), options, count)

    @property
    def capabilities(self) -> Capabilities:
        """What the next hop last said it can do; what is usual before the first connection (see `probe`)."""
        return self._hosts.capabilities

    @property
    def available(self) -> bool:
        """Whether there is a host that is not left alone at the moment."""
        return any(pool.breaker.state is not BreakerState.OPEN for pool in self._hosts.pools)

    @property
    def hosts(self) -> tuple[HostState, ...]:
        """How it stands with each host, in order of preference."""
        return tuple(
            HostState(pool.host, pool.connections, pool.idle, pool.in_use, pool.waiting, pool.breaker.state)
            for pool in self._hosts.pools
        )

    def transaction(self, mail: MailFrom, client: Client) -> "SmtpTransaction":
        """A transaction for this sender; no I/O yet."""
        return SmtpTransaction(self._hosts, mail, client)

    async def probe(self) -> None:
        """Connect, unless a connection is open, to learn what the next hop can do. Raises NextHopUnavailableError."""

        async def greet(pool: Pool) -> None:
            connection = await pool.acquire()
            self._hosts.capabilities = connection.capabilities
            pool.release(connection)

        await self._hosts.at_first(greet)

    async def close(self) -> None:
        """Part with every idle connection, within a second each; those in use are closed with their transaction."""
        for pool in self._hosts.pools:
            await pool.close()


class SmtpTransaction:
    """One mail transaction, as `ports.NextHopTransaction` describes it. One call at a time, but `abort` at any time."""

    __slots__ = (
        *("_accepted", "_client", "_connection", "_hosts", "_mail", "_over", "_pool", "_refusal"),
        *("_start", "_with_data"),
    )

    def __init__(self, hosts: _Hosts, mail: MailFrom, client: Client) -> None:
        self._hosts = hosts
        self._mail = mail
        self._client = client
        self._pool: Pool | None = None  # of the connection
        self._connection: Connection | None = None
        self._refusal: Reply | None = None  # of MAIL: the answer to every recipient
        self._accepted: list[RcptTo] = []
        self._over = ""  # why nothing can be sent any more
        self._with_data = False  # whether DATA goes out in the flight of MAIL
        self._start: ServerReply | None = None  # the answer to DATA, if it did

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """See `ports`."""
        if self._refusal is not None:
            return self._refusal
        connection = self._connection
        if connection is None:
            return (await self._open((recipient,)))[0]
        command = commands.rcpt_command(recipient, connection.capabilities)
        try:
            (reply,) = await connection.exchange(command, 1, self._hosts.options.command_timeout)
            _check_open(reply)
        except ConnectionFailedError as error:
            self._lost(error)
            raise
        return self._answer(recipient, reply)

    async def begin(self, recipients: Sequence[RcptTo]) -> Sequence[Reply]:
        """See `ports`. MAIL, RCPTs and DATA are one flight where the next hop takes that (RFC 2920 section 3.1)."""
        self._with_data = True
        return await self._open(tuple(recipients))

    async def restart(self, recipients: Sequence[RcptTo]) -> Reply | None:
        """See `ports`. If the connection was lost meanwhile, on another."""
        self._refusal = None
        answers = await self._open(tuple(recipients))
        return next((answer for answer in answers if not answer.ok), None)

    async def data(self, content: Sequence[bytes]) -> Reply:
        """See `ports`."""
        connection = self._connection
        if connection is None:
            if self._refusal is not None:
                return self._refusal
            raise NextHopUnavailableError(self._over or "no transaction was begun")
        if not self._accepted:
            await self.abort()
            return NO_RECIPIENTS
        whole = b"".join(content)
        try:
            self._with_data = False
            if not connection.in_step:
                connection = await self._begin_again()
            obstacle = commands.content_obstacle(whole, connection.capabilities)
            if obstacle is not None:
                return obstacle
            whole = stuff(whole)  # under the same name: a large message is not kept twice while it is sent
            return await self._hand_over(connection, whole)
        except (NextHopUnavailableError, InDoubtError):
            self._hosts.count(Event.LOST)
            raise
        finally:
            self._finish("the transaction has ended")

    async def abort(self) -> None:
        """See `ports`. Costs nothing: RSET goes out with the next transaction on the connection."""
        self._finish("the transaction was aborted")

    async def _open(self, recipients: tuple[RcptTo, ...]) -> list[Reply]:
        """Begin for these recipients, on the connection there is or at the first host that works."""
        if self._over:
            raise NextHopUnavailableError(self._over)
        pool, connection = self._pool, self._connection
        if pool is not None and connection is not None:
            try:
                return await self._begin(pool, connection, recipients)
            except ConnectionFailedError:
                self._hosts.count(Event.RETRY)

        async def begin_at(pool: Pool) -> list[Reply]:
            return await self._begin_at(pool, recipients)

        try:
            return await self._hosts.at_first(begin_at)
        except NextHopUnavailableError as error:
            self._over = str(error)
            raise

    async def _begin_again(self) -> Connection:
        """In place of a connection that was lost while the client sent its message, one on which as many are taken."""
        answers = await self._open(tuple(self._accepted))
        if self._connection is None or not all(answer.ok for answer in answers):
            raise NextHopUnavailableError("what was taken before is refused now")
        return self._connection

    async def _begin_at(self, pool: Pool, recipients: tuple[RcptTo, ...]) -> list[Reply]:
        """Begin on a connection to this host; on a fresh one if a reused one fails."""
        connection = await pool.acquire()
        if connection.uses:
            self._hosts.count(Event.REUSE)
            try:
                return await self._begin(pool, connection, recipients, release=False)
            except ConnectionFailedError:
                self._hosts.count(Event.RETRY)
                connection = await pool.replace(connection)
        return await self._begin(pool, connection, recipients)

    async def _begin(
        self, pool: Pool, connection: Connection, recipients: tuple[RcptTo, ...], *, release: bool = True
    ) -> list[Reply]:
        """MAIL and RCPTs on this connection. `release`: give it back too if it fails (else only for other reasons)."""
        self._pool = self._connection = self._start = None
        self._accepted = []
        self._hosts.capabilities = connection.capabilities
        try:
            answers = await self._send_envelope(connection, recipients)
        except ConnectionFailedError:
            if release:
                pool.release(connection)
            raise
        except BaseException:
            pool.release(connection)
            raise
        self._pool, self._connection = pool, connection
        if self._over:  # aborted meanwhile
            self._give_back()
            raise NextHopUnavailableError(self._over)
        return answers

    async def _send_envelope(self, connection: Connection, recipients: tuple[RcptTo, ...]) -> list[Reply]:
        """The answers to the recipients."""
        capabilities = connection.capabilities
        obstacle = commands.obstacle(self._mail, capabilities)
        if obstacle is not None:
            self._refusal = obstacle
            return [obstacle] * len(recipients)
        before = [commands.RSET] if connection.needs_reset else []
        resets = len(before)
        if self._hosts.options.xforward:
            before += commands.xforward_commands(self._client, capabilities)
        mail = len(before)
        lines = [*before, commands.mail_command(self._mail, capabilities)]
        lines += [commands.rcpt_command(recipient, capabilities) for recipient in recipients]
        with_data = self._with_data and "PIPELINING" in capabilities
        if with_data:
            lines.append(commands.DATA)
        connection.uses += 1
        connection.needs_reset = True
        replies = await self._exchange(connection, lines, mail)
        if with_data:
            self._start = replies.pop()
        if resets and not replies[0].ok:
            connection.end("RSET refused")
            raise ConnectionFailedError(connection.ended)
        if mail > resets and not all(reply.ok for reply in replies[resets:mail]):
            self._hosts.count(Event.XFORWARD_REFUSED)
        if not replies[mail].ok:
            self._refusal = relayed(replies[mail].code, replies[mail].lines)
            return [self._refusal] * len(recipients)
        return [self._answer(*pair) for pair in zip(recipients, replies[mail + 1 :], strict=True)]

    async def _exchange(self, connection: Connection, lines: list[bytes], mail: int) -> list[ServerReply]:
        """Send the lines in one flight where the server takes it, else one by one; RCPT only after a good MAIL."""
        limit = self._hosts.options.command_timeout
        if "PIPELINING" in connection.capabilities:
            replies = await connection.exchange(b"".join(lines), len(lines), limit)
            for reply in replies:
                _check_open(reply)
            return replies
        replies = []
        for line in lines:
            (reply,) = await connection.exchange(line, 1, limit)
            _check_open(reply)
            replies.append(reply)
            if len(replies) > mail and not replies[mail].ok:
                break
        return replies

    async def _hand_over(self, connection: Connection, content: bytes) -> Reply:
        """DATA, if it is not sent yet, the content (dots stuffed), and what the server says to it."""
        options = self._hosts.options
        reply, self._start = self._start, None
        if reply is None:
            (reply,) = await connection.exchange(commands.DATA, 1, options.command_timeout)
            _check_open(reply)
        if reply.code != _START_MAIL:
            if reply.code // 100 not in _REFUSALS:
                connection.end("DATA answered with neither 354 nor a refusal")
                raise ConnectionFailedError(connection.ended)
            return relayed(reply.code, reply.lines)
        try:
            reply = await connection.send_content(content, options.final_timeout)
        except ConnectionFailedError as error:
            if connection.dot_sent:
                raise InDoubtError(f"no reply to the final dot: {error}") from None
            raise
        if reply.code // 100 == _START_MAIL // 100:
            connection.end("the final dot answered with 3xx")
            raise InDoubtError(connection.ended)
        connection.needs_reset = not reply.ok
        return relayed(reply.code, reply.lines)

    def _answer(self, recipient: RcptTo, reply: ServerReply) -> Reply:
        """The answer to one RCPT, for the client."""
        answer = relayed(reply.code, reply.lines)
        if answer.ok:
            self._accepted.append(recipient)
        return answer

    def _lost(self, error: ConnectionFailedError) -> None:
        self._hosts.count(Event.LOST)
        self._give_back()
        self._over = self._over or f"next hop lost: {error}"

    def _finish(self, reason: str) -> None:
        self._over = self._over or reason
        self._give_back()

    def _give_back(self) -> None:
        pool, connection, start = self._pool, self._connection, self._start
        self._pool = self._connection = self._start = None
        if pool is not None and connection is not None:
            if start is not None and start.code == _START_MAIL:
                connection.end("a message was announced and not sent")  # what comes next would be taken for it
            pool.release(connection)


def _check_open(reply: ServerReply) -> None:
    """Raise ConnectionFailedError for 421: whatever it answers, the connection is gone."""
    if reply.code == SERVICE_CLOSING:
        raise ConnectionFailedError("the server closes the connection (421)")

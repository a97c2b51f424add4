"""The octets of one SMTP session: lines and messages in, replies out, and every deadline.

`Channel` takes the place of aiosmtpd's reader and command loop. Commands are handled inside `data_received` as far as
nothing has to be waited for, so that a flight of commands costs one turn of the event loop and one write; a flood of
them is served in turns with everybody else's. What has to be waited for runs as a task that nothing here cancels, but
for handshakes: a client that goes away, half or whole, or is too slow, ends its session, not its delivery.
Every fault leaves by one door (`fault`): the client gets a constant 451 and the transaction is given up; the session
too, if what follows may not be commands. Nothing is raised to the event loop, and no address is logged.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Coroutine
from copy import copy
from typing import Any, Final, Self, cast

from aiosmtpd.smtp import SMTP

from . import logs, replies, smtp_tls
from .data_reader import Data, DataReader
from .envelope import MAX_LINE
from .replies import Reply
from .smtp_limits import Limits, Pace
from .smtp_lines import BareLineFeedError, Input, LineTooLongError
from .smtp_session import Envelope, Session, peer_address
from .smtp_sessions import Background, Sessions

Work = Coroutine[Any, Any, Reply | None]
_MAX_AHEAD: Final = 64 * 1024  # octets a client may send while a reply is being worked out
_TURN: Final = 100  # lines of one client that are handled before others get their turn
_DRAIN_GRACE: Final = 5  # seconds for a client to go on after its last reply, before a drain ends its session


class Channel(SMTP):
    """A session's transport. Subclasses say what lines, messages and input before the greeting mean."""

    session: Session
    envelope: Envelope
    transport: asyncio.Transport | None

    def __init__(self, handler: object, *, sessions: Sessions | None = None, **options: Any) -> None:
        """`sessions` is shared by all sessions of a worker; `options` are those of aiosmtpd's SMTP."""
        # The base class has one dict for all sessions and clears it here.
        self.command_size_limits = defaultdict(lambda: MAX_LINE)
        super().__init__(handler, **options)
        if sessions is None:
            sessions = Sessions(Limits(command_timeout=self._timeout_duration))
        self.sessions = sessions
        self.limits = self.sessions.limits
        self.prepare()

    def prepare(self) -> None:
        """Set what belongs to one session; subclasses add theirs."""
        self.input = Input()
        self._message: DataReader | None = None  # while a message comes in
        self._counted = 0  # octets of this message that count as in flight
        self._pending: asyncio.Task[None] | None = None  # what is being waited for
        self._background = Background(self.loop, self.sessions.report, self._leave)
        self._output: list[bytes] = []
        self._blocked = False  # the client does not read our replies
        self._resting = False  # input is left for the next turn
        self._held_back = False  # reading is paused until the input is used up
        self._ended = False  # no more input is taken
        self._half_closed = self._securing = False  # the client says no more; a handshake goes on
        self._admitted: str | None = None
        self._began = self._since = 0.0
        self._pace = Pace(self.limits, 0)

    def another(self) -> Self:
        """A new session with the same settings, at less cost: aiosmtpd's constructor searches class and handler."""
        session = copy(self)
        session.prepare()
        return session

    # What subclasses define.

    def begin(self) -> None:
        """The client is connected."""
        raise NotImplementedError

    def preface(self, octets: bytes) -> int:
        """Input before the greeting: how much of it was used, 0 for more wanted."""
        raise NotImplementedError

    def line(self, line: bytes) -> Reply | Work | None:
        """A command line without its CRLF: the reply to it, what to wait for, or None for no reply."""
        raise NotImplementedError

    def over_long_line(self) -> Reply:
        """The reply to a line that was thrown away."""
        raise NotImplementedError

    def message(self, data: Data) -> Reply | Work:
        """A message that is complete."""
        raise NotImplementedError

    # The connection.

    def _create_session(self) -> Session:
        return Session(self.loop)

    def _create_envelope(self) -> Envelope:
        return Envelope()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session."""
        self.transport = cast("asyncio.Transport", transport)
        self.session = self._create_session()
        self.envelope = self._create_envelope()
        self.session.peer = transport.get_extra_info("peername")
        self.session.come_from(peer_address(self.session.peer))
        self.session.tls = smtp_tls.version(transport)
        self._began = self._since = self.loop.time()
        self.sessions.add(self, self.loop)
        self.begin()
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """Go on with what is being delivered, and give up the rest."""
        if self.transport is None:
            return
        self.transport = None
        self._ended = True
        self._message = None
        if self._admitted is not None:
            self.sessions.usage.disconnect(self._admitted)
            self._admitted = None
        self._settle()

    def eof_received(self) -> bool:
        """Answer what was sent before; a client may close its half and still read replies."""
        self._half_closed = True
        self._run()
        return not self.session.tls and self.transport is not None

    def admit(self) -> Reply | None:
        """Count the connection, now that its client's address is known: None, or the reply that ends it."""
        usage, address = self.sessions.usage, self.session.address
        refusal = replies.SHUTTING_DOWN if self.sessions.draining else usage.connect(address)
        if refusal is None:
            self._admitted = address
        return refusal

    # Input.

    def data_received(self, data: bytes) -> None:
        """Take octets as they come."""
        if self._ended:
            return
        self.input.add(data)
        if self._pending is None and not self._resting:
            self._run()
        elif len(self.input) > _MAX_AHEAD and self.transport is not None:
            self._held_back = True
            self.transport.pause_reading()

    def _run(self) -> None:
        """Handle the input there is until something has to be waited for, then send the replies in one flight."""
        if self._resting:
            return
        for _ in range(_TURN):
            if not self.input or self._pending is not None or self._ended or self._blocked or not self._take_safely():
                break
        else:
            self._resting = True
            self.loop.call_soon(self._go_on)
        if self._pending is None and not (self._blocked or self._resting):
            self._catch_up()
        self.flush()

    def _go_on(self) -> None:
        """Everybody else had a turn."""
        self._resting = False
        self._run()

    def _catch_up(self) -> None:
        """All whole lines there are were handled: read on, or end with a client that says no more."""
        if self._held_back and self.transport is not None:
            self._held_back = False
            self.transport.resume_reading()
        if self._half_closed:
            self._ended = True

    def _take_safely(self) -> bool:
        try:
            return self._take()
        except Exception as error:  # noqa: BLE001 - the one exit door of a session
            commands_follow = self._message is None and self._admitted is not None
            self.say(self.fault(error))
            self._ended = self._ended or not commands_follow
            return commands_follow

    def _take(self) -> bool:
        """Use some input; whether there was enough of it."""
        if self._message is not None:
            return self._take_message(self._message)
        if self._admitted is None:
            used = self.preface(self.input.peek())
            self.input.skip(used)
            return used > 0
        return self._take_line()

    def _take_line(self) -> bool:
        try:
            line = self.input.line()
        except LineTooLongError:
            self.say(self.over_long_line())
            return True
        except BareLineFeedError:
            self.end(replies.COMMAND_LINE_END)
            return False
        if line is not None:
            self._since = self.loop.time()
            self.answer(self.line(line))
        return line is not None

    def receive(self) -> None:
        """Take a message next."""
        self._message = DataReader(self.data_size_limit or self.limits.message_size)
        self._since = self.loop.time()
        self._pace = Pace(self.limits, self._since)

    def _take_message(self, reader: DataReader) -> bool:
        chunk = self.input.take()
        rest = reader.feed(chunk)
        if rest:
            self.input.add(rest)
        if not reader.too_big:
            self._counted += len(chunk)
            if not self.sessions.usage.take(len(chunk)):
                self.end(replies.TOO_BUSY)
                return False
        elif rest is None and reader.received > 2 * (self.data_size_limit or self.limits.message_size):
            self.end(replies.SIZE_EXCEEDED)
            return False
        if rest is not None:
            self._message = None
            self.answer(self.message(reader.finish()))
        return True

    async def start_tls(self, context: ssl.SSLContext) -> bool:
        """Secure the connection; whether that worked."""
        transport = cast("asyncio.Transport", self.transport)
        self.flush()
        self._securing = True
        try:
            secured = await smtp_tls.secure(
                transport, self, context, seconds=self.limits.tls_timeout, early=self.input.take
            )
        except (OSError, asyncio.CancelledError) as error:  # cancelled by a drain
            logs.event(logs.INFO, "tls_failed", error=type(error).__name__)
            transport.abort()
            self.connection_lost(None)
            return False
        self.transport, self._securing = secured, False
        self.abandon()
        self.session.secure(smtp_tls.version(secured))
        return True

    # Replies.

    def answer(self, answer: Reply | Work | None) -> None:
        """Send a reply, or wait for one."""
        if answer is None:
            return
        if isinstance(answer, Reply):
            self.say(answer)
        else:
            self._pending = self.loop.create_task(self._wait_for(answer))

    async def _wait_for(self, work: Work) -> None:
        try:
            reply = await work
        except Exception as error:  # noqa: BLE001 - the one exit door of a session
            reply = self.fault(error)
        except asyncio.CancelledError:  # what was waited for was closed, as at the end of an overdue drain
            self._pending = None
            self.transport.abort() if self.transport is not None else self._settle()
            raise
        self._pending = None
        if reply is not None:
            self.say(reply)
        if self.transport is None:
            self._settle()
            return
        self._since = self.loop.time()
        self._run()

    def say(self, reply: Reply) -> None:
        """Put a reply into the flight."""
        if self._counted and self._message is None:
            self._release()
        self._output.append(reply.encode())

    def flush(self) -> None:
        """Send the flight, and end the session if that is due."""
        transport = self.transport
        if transport is None:
            return
        if self._output:
            transport.write(self._output[0] if len(self._output) == 1 else b"".join(self._output))
            self._output.clear()
        if self._ended and self._pending is None:
            self._since = self.loop.time()
            transport.close()

    def end(self, reply: Reply | None = None) -> None:
        """Take no more input; with this reply, if any, the session is over."""
        if reply is not None:
            self.say(reply)
        self._ended = True

    def pause_writing(self) -> None:
        """The client does not read: take nothing more from it until it does."""
        self._blocked = True
        self._since = self.loop.time()
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked = False
        if self.transport is not None:
            self.transport.resume_reading()
        if self._pending is None:
            self.loop.call_soon(self._run)

    # The end of things.

    def fault(self, error: Exception) -> Reply:
        """Whatever went wrong unexpectedly: reported, and to the client a constant without the error's text."""
        self.sessions.report("smtp", error)
        self._message = None
        self.abandon()
        return replies.INTERNAL_ERROR

    def abandon(self) -> None:
        """Give up the transaction as far as it came and begin with an empty envelope."""
        transaction = self.envelope.transaction
        if transaction is not None:
            self._background.spawn(transaction.abort())
        self.envelope = self._create_envelope()
        self.session.forward(None)

    def _settle(self) -> None:
        """The client is gone: when nothing is being delivered, give up what is open and leave."""
        if self._pending is not None:
            return
        self._release()
        unconfirmed, self.session.unconfirmed = self.session.unconfirmed, None
        if unconfirmed is not None:
            self._background.spawn(unconfirmed.unacknowledged())
        self.abandon()
        self._leave()

    def _leave(self) -> None:
        """Be no session any more, once nothing of this one is left."""
        if self.transport is None and self._pending is None and not self._background:
            self.sessions.remove(self)

    def check(self, now: float) -> None:
        """End the session if it is overdue; what is being delivered has its own time limit."""
        transport = self.transport
        if transport is None:
            return
        waited = now - self._since
        if self._ended or self._blocked:
            if self._pending is None and waited > (self.limits.linger if self._ended else self.limits.command_timeout):
                transport.abort()
        elif self._pending is None and (reply := self._overdue(now, waited)) is not None:
            self.end(reply)
            self.flush()

    def _overdue(self, now: float, waited: float) -> Reply | None:
        if self._message is not None:
            return replies.DATA_TIMEOUT if self._pace.too_slow(now, self._message.received) else None
        if waited > (self.limits.tls_timeout if self._admitted is None else self.limits.command_timeout):
            return replies.TIMEOUT
        if now - self._began > self.limits.session:
            return replies.SESSION_TOO_LONG
        return replies.SHUTTING_DOWN if self.sessions.draining and waited > _DRAIN_GRACE else None

    def drain(self) -> None:
        """Take no further mail: end now if nothing is under way, else after the next reply that was heard."""
        if self._securing and self._pending is not None:
            self._pending.cancel()
        elif not (self._ended or self._pending or self._message or self.in_transaction or self.session.unconfirmed):
            self.end(replies.SHUTTING_DOWN)
            self.flush()

    @property
    def in_transaction(self) -> bool:
        """Whether a sender was given, and no message yet."""
        return self.envelope.mail_from is not None

    def _release(self) -> None:
        """The octets of a message are no longer in flight."""
        self.sessions.usage.give_back(self._counted)
        self._counted = 0

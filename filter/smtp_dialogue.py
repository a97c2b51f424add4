"""The dialogue before and around mail: greeting, HELO and EHLO, TLS, AUTH, XFORWARD, and the order of commands.

RFC 5321, 3207, 4954; <https://www.postfix.org/XFORWARD_README.html>. Each command gives a reply, or a coroutine where
something has to be waited for. What a command refuses by RefusedError counts as an error of the client. Nothing is
raised to the event loop.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, ClassVar, Final

from aiosmtpd.smtp import MISSING

from . import logs, replies, xforward
from .envelope import MAX_LINE
from .replies import RefusedError, Reply
from .smtp_auth import MAX_LINE as MAX_AUTH_LINE
from .smtp_auth import MECHANISMS, Credentials, Exchange, PasswordChecker
from .smtp_channel import Channel, Work
from .smtp_commands import NOT_IMPLEMENTED, RULES, is_other_protocol, split
from .smtp_limits import Conduct
from .smtp_proxy import ProxyError, client_address, header_size, parse
from .smtp_session import Networks

_MAX_NAME: Final = 255  # octets; RFC 5321 section 4.5.3.1.2
_CODE_SIZE: Final = 3
_GO_ON: Final = (b"RCPT", b"DATA")  # what brings a transaction to its end


class Dialogue(Channel):
    """A session without mail in it; subclasses add commands to `COMMANDS` and say what a message is."""

    def __init__(
        self,
        handler: object,
        *,
        passwords: PasswordChecker | None = None,
        proxy_networks: Networks = (),
        xforward_networks: Networks = (),
        implicit_tls: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of `Channel` and of aiosmtpd's SMTP; `implicit_tls` begins with TLS, before the greeting.

        `passwords` None offers no AUTH. A client in `proxy_networks` must begin with a PROXY header.
        """
        super().__init__(handler, **options)
        self._passwords = passwords
        self._proxy_networks = proxy_networks
        self._xforward_networks = xforward_networks
        self._implicit_tls = implicit_tls

    def prepare(self) -> None:
        """Set what belongs to one session."""
        super().prepare()
        self.conduct = Conduct(self.limits)
        self._exchange: Exchange | None = None

    # Before the first command.

    def begin(self) -> None:
        """Greet, unless a balancer or TLS comes first."""
        if self._proxy_timeout is None and not self.session.is_in(self._proxy_networks):
            self._admit()

    def preface(self, octets: bytes) -> int:
        """Take the PROXY header; without a good one close without a word to the client: nobody knows who it is."""
        try:
            size = header_size(octets)
            if size is None:
                return 0
            data = parse(octets[:size])
        except ProxyError as error:
            logs.event(logs.WARNING, "proxy_header_refused", peer=self.session.address, reason=error)
            self.end()
            return 0
        self.session.proxy_data = data
        self.session.come_from(client_address(data))
        if (hook := self._handle_hooks.get("PROXY")) is not None:
            self.answer(self._after_proxy(hook(self, self.session, self.envelope, data)))
        elif self._proxy_timeout is None:
            self._admit()
        else:
            self.end()
        return size

    async def _after_proxy(self, verdict: Awaitable[object]) -> None:
        if await verdict is True:
            self._admit()
        else:
            self.end()

    def _admit(self) -> None:
        refusal = self.admit()
        if refusal is not None:
            self.end(refusal)
        elif self._implicit_tls and self.tls_context is not None:
            self.answer(self._secure_first(self.tls_context))
        else:
            self.say(replies.service_ready(self.hostname))

    async def _secure_first(self, context: ssl.SSLContext) -> Reply | None:
        return replies.service_ready(self.hostname) if await self.start_tls(context) else None

    # Lines.

    def line(self, line: bytes) -> Reply | Work | None:
        """Handle one line; whatever a command refuses counts as an error of this session."""
        self.session.confirm()
        try:
            return self._auth_line(self._exchange, line) if self._exchange else self._command(line)
        except RefusedError as refusal:
            self._exchange = None
            self.input.limit = MAX_LINE
            return self._refused(refusal.reply)

    def over_long_line(self) -> Reply:
        """Refuse it; a line of AUTH ends the dialogue."""
        reply = replies.AUTH_LINE_TOO_LONG if self._exchange else replies.COMMAND_TOO_LONG
        self._exchange = None
        self.input.limit = MAX_LINE
        return self._refused(reply)

    def _refused(self, reply: Reply) -> Reply:
        last = self.conduct.error()
        if last is None:
            return reply
        self.end()
        return last

    def _command(self, line: bytes) -> Reply | Work | None:
        verb, argument = split(line)
        rule = RULES.get(verb)
        if self.sessions.draining and verb != b"QUIT" and not (self.in_transaction and verb in _GO_ON):
            self.end()
            return replies.SHUTTING_DOWN
        if rule is None:
            return self._unknown(verb, line)
        if self.input and verb != b"QUIT" and (rule.last or not self._pipelines(verb)):
            self.end()
            return replies.EARLY_DATA
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise RefusedError(replies.COMMAND_LINE_END)
        if self.require_starttls and not self.session.tls and not rule.clear:
            raise RefusedError(replies.TLS_REQUIRED)
        if rule.bare and argument:
            raise RefusedError(replies.SYNTAX)
        if rule.idle and (last := self.conduct.idle_command()) is not None:
            self.end()
            return last
        return self.COMMANDS[verb](self, argument)

    def _pipelines(self, verb: bytes) -> bool:
        """Whether the client may send more with this verb: once EHLO said so; what follows STARTTLS is thrown away."""
        return self.session.extended_smtp or verb == b"STARTTLS"

    def _unknown(self, verb: bytes, line: bytes) -> Reply:
        if is_other_protocol(line):
            self.end()
            return replies.NOT_SMTP
        raise RefusedError(replies.NOT_IMPLEMENTED if verb in NOT_IMPLEMENTED else replies.UNKNOWN_COMMAND)

    def ask(self, hook: str, default: Reply, accept: Callable[[], object], *arguments: object) -> Reply | Work:
        """What the handler says to a command, `default` if it has no such hook; `accept` is done if that is a 2xx."""
        method = self._handle_hooks.get(hook)
        answer = default if method is None else method(self, self.session, self.envelope, *arguments)
        if isinstance(answer, Reply):
            if answer.ok:
                accept()
            return answer
        return self._await(answer, default, accept)

    async def _await(self, answer: object, default: Reply, accept: Callable[[], object]) -> Reply:
        if isawaitable(answer):
            answer = await answer
        reply = as_reply(answer, default)
        if reply.ok:
            accept()
        return reply

    # Commands.

    def _helo(self, argument: bytes) -> Reply | Work:
        name = _hello_name(argument)
        self.abandon()
        return self.ask("HELO", replies.hello(self.hostname), lambda: self._greet(name, []), name)

    def _ehlo(self, argument: bytes) -> Reply | Work:
        name = _hello_name(argument)
        self.abandon()
        keywords = self._keywords()
        hook = self._handle_hooks.get("EHLO")
        if hook is None:
            return self._greet(name, keywords)
        lines = [f"250-{self.hostname}", *(f"250-{keyword}" for keyword in keywords)]
        return self._after_ehlo(hook(self, self.session, self.envelope, name, lines), name)

    async def _after_ehlo(self, answer: Awaitable[Sequence[str]] | Sequence[str], name: str) -> Reply:
        lines = await answer if isawaitable(answer) else answer
        return self._greet(name, [line[4:] for line in lines[1:]])

    def _greet(self, name: str, keywords: Sequence[str]) -> Reply:
        self.session.greet(name, extended=bool(keywords))
        self.session.offered = frozenset(keyword.partition(" ")[0].upper() for keyword in keywords)
        return replies.hello(self.hostname, keywords)

    def _keywords(self) -> list[str]:
        """What this server can do by its own settings; the handler takes away what cannot be passed on."""
        keywords = ["PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"]
        if self.data_size_limit:
            keywords.append(f"SIZE {self.data_size_limit}")
        if self.enable_SMTPUTF8:
            keywords.append("SMTPUTF8")
        if self.tls_context is not None and not self.session.tls:
            keywords.append("STARTTLS")
        if self._passwords is not None and self.session.tls:
            keywords.append("AUTH " + b" ".join(MECHANISMS).decode())
        if self.session.is_in(self._xforward_networks):
            keywords.append("XFORWARD " + " ".join(xforward.ATTRIBUTES))
        return keywords

    def _xforward(self, argument: bytes) -> Reply:
        if not self.session.is_in(self._xforward_networks):
            raise RefusedError(replies.XFORWARD_DENIED)
        if self.in_transaction:
            raise RefusedError(replies.WITHIN_TRANSACTION)
        self.session.forward(xforward.parse(argument, self.session.origin))
        return replies.OK

    # TLS and AUTH.

    def _starttls(self, _: bytes) -> Work:
        if self.session.tls:
            raise RefusedError(replies.ALREADY_TLS)
        if self.tls_context is None:
            raise RefusedError(replies.NOT_IMPLEMENTED)
        return self._secure(self.tls_context)

    async def _secure(self, context: ssl.SSLContext) -> None:
        self.input.take()  # it came in the clear, after STARTTLS and before TLS (RFC 3207 section 6)
        self.say(replies.READY_FOR_TLS)
        if await self.start_tls(context) and (hook := self._handle_hooks.get("STARTTLS")) is not None:
            hook(self, self.session, self.envelope)

    def _auth(self, argument: bytes) -> Reply | Work:
        if self._passwords is None:
            raise RefusedError(replies.NOT_IMPLEMENTED)
        if not self.session.extended_smtp:
            raise RefusedError(replies.HELLO_FIRST)
        if not self.session.tls:
            raise RefusedError(replies.AUTH_NEEDS_TLS)
        if self.session.authenticated:
            raise RefusedError(replies.ALREADY_AUTHENTICATED)
        if self.in_transaction:
            raise RefusedError(replies.WITHIN_TRANSACTION)
        exchange = Exchange(argument)
        return self._auth_step(exchange, self._passwords, exchange.begin())

    def _auth_line(self, exchange: Exchange, line: bytes) -> Reply | Work:
        assert self._passwords is not None  # noqa: S101 - an exchange begins only with them
        return self._auth_step(exchange, self._passwords, exchange.step(line))

    def _auth_step(self, exchange: Exchange, passwords: PasswordChecker, step: Reply | Credentials) -> Reply | Work:
        if isinstance(step, Reply):
            self._exchange = exchange
            self.input.limit = MAX_AUTH_LINE
            return step
        self._exchange = None
        self.input.limit = MAX_LINE
        return replies.AUTH_UNAVAILABLE if passwords.busy else self._log_in(passwords, step)

    async def _log_in(self, passwords: PasswordChecker, claimed: Credentials) -> Reply:
        if await passwords.check(claimed):
            self.session.log_in(claimed.name.decode("utf-8", "replace"))
            return replies.AUTHENTICATED
        last = self.conduct.auth_failure()
        if last is None:
            return replies.AUTH_FAILED
        self.end()
        return last

    COMMANDS: ClassVar[dict[bytes, Callable[[Any, bytes], Reply | Work]]] = {
        b"HELO": _helo,
        b"EHLO": _ehlo,
        b"STARTTLS": _starttls,
        b"AUTH": _auth,
        b"XFORWARD": _xforward,
    }


def as_reply(answer: object, default: Reply) -> Reply:
    """What a handler said as a reply: ours, or a status line of aiosmtpd's kind, made safe as if from a next hop."""
    if isinstance(answer, Reply):
        return answer
    if answer is MISSING or answer is None:
        return default
    octets = answer.encode("utf-8", "replace") if isinstance(answer, str) else answer
    if isinstance(octets, bytes) and octets[:_CODE_SIZE].isdigit():
        return replies.relayed(int(octets[:_CODE_SIZE]), [octets[_CODE_SIZE + 1 :]])
    return replies.INTERNAL_ERROR


def _hello_name(argument: bytes) -> str:
    """The argument of HELO and EHLO; what is not printable ASCII is refused, though not every bad name is."""
    if (
        not argument
        or not argument.isascii()
        or not argument.decode("ascii").isprintable()
        or len(argument) > _MAX_NAME
    ):
        raise RefusedError(replies.SYNTAX)
    return argument.decode("ascii")

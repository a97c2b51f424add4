"""The SMTP server: mail transactions (RFC 5321) on aiosmtpd's class.

The constructor, session, envelope and handler hooks are aiosmtpd's; a hook may also be a plain function and may return
a `Reply`. The command loop, the parser of paths, the reader of messages, AUTH and the exit for faults are our own (see
smtp_channel and smtp_dialogue). Hooks find the parsed command in the envelope: `mail` at MAIL, `recipient` at RCPT, and
`content` (octets) at DATA. Nothing is raised to the event loop.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from . import replies
from .data_reader import Data
from .path import parse_mail, parse_rcpt
from .replies import RefusedError, Reply
from .smtp_channel import Work
from .smtp_dialogue import Dialogue, as_reply


class Server(Dialogue):
    """One SMTP session."""

    def __init__(
        self,
        handler: object,
        *,
        reject_bare_line_ends: bool = False,
        reject_long_lines: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of `Dialogue`."""
        super().__init__(handler, **options)
        self._reject_bare_line_ends = reject_bare_line_ends
        self._reject_long_lines = reject_long_lines

    def _mail(self, argument: bytes) -> Reply | Work:
        envelope = self.envelope
        if not self.session.host_name:
            raise RefusedError(replies.HELLO_FIRST)
        if envelope.mail_from is not None:
            raise RefusedError(replies.MAIL_TWICE)
        mail = parse_mail(argument, offered=self.session.offered)
        if self.data_size_limit and mail.size > self.data_size_limit:
            raise RefusedError(replies.SIZE_EXCEEDED)
        if not self.sessions.usage.has_room(mail.size):
            return replies.BUSY_FOR_MAIL
        envelope.mail = mail
        envelope.smtp_utf8 = mail.smtputf8
        options = [option.decode() for option in mail.params]

        def accept() -> None:
            envelope.mail_from = mail.address
            envelope.mail_options = options

        return self.ask("MAIL", replies.SENDER_OK, accept, mail.address, options)

    def _rcpt(self, argument: bytes) -> Reply | Work:
        envelope = self.envelope
        if envelope.mail_from is None:
            raise RefusedError(replies.MAIL_FIRST if self.session.host_name else replies.HELLO_FIRST)
        recipient = parse_rcpt(argument, offered=self.session.offered, smtputf8=envelope.smtp_utf8)
        envelope.asked += 1
        if envelope.asked > self.limits.recipients:
            return replies.TOO_MANY_RECIPIENTS
        envelope.recipient = recipient
        options = [option.decode() for option in recipient.params]

        def accept() -> None:
            envelope.recipients.append(recipient)
            envelope.rcpt_tos.append(recipient.address)
            envelope.rcpt_options.extend(options)

        return self.ask("RCPT", replies.RECIPIENT_OK, accept, recipient.address, options)

    def _data(self, _: bytes) -> Reply:
        envelope = self.envelope
        if not self.session.host_name:
            raise RefusedError(replies.HELLO_FIRST)
        if envelope.mail_from is None:
            raise RefusedError(replies.MAIL_FIRST)
        if not envelope.recipients:
            raise RefusedError(replies.NO_RECIPIENTS if envelope.asked else replies.RCPT_FIRST)
        self.receive()
        return replies.START_MAIL

    def message(self, data: Data) -> Reply | Work:
        """Refuse what must not be passed on, and give the rest to the handler."""
        refusal = self._message_refusal(data)
        if refusal is not None:
            self.abandon()
            return refusal
        self.envelope.eight_bit = data.eight_bit
        self.envelope.content = self.envelope.original_content = data.content
        return self._deliver()

    def _message_refusal(self, data: Data) -> Reply | None:
        if data.too_big:
            return replies.SIZE_EXCEEDED
        if data.irregular and self._reject_bare_line_ends:
            return replies.BARE_LINE_ENDS
        return replies.LONG_LINE if data.long_line and self._reject_long_lines else None

    async def _deliver(self) -> Reply:
        hook = self._handle_hooks.get("DATA")
        answer = replies.OK if hook is None else await hook(self, self.session, self.envelope)
        self.conduct.message()
        self.abandon()
        return as_reply(answer, replies.OK)

    def _rset(self, _: bytes) -> Reply | Work:
        self.abandon()
        return self.ask("RSET", replies.OK, _nothing)

    def _noop(self, argument: bytes) -> Reply | Work:
        return self.ask("NOOP", replies.OK, _nothing, argument.decode("ascii", "replace"))

    def _vrfy(self, argument: bytes) -> Reply | Work:
        if not argument:
            raise RefusedError(replies.SYNTAX)
        return self.ask("VRFY", replies.CANNOT_VERIFY, _nothing, argument.decode("ascii", "replace"))

    def _help(self, _: bytes) -> Reply:
        return replies.HELP

    def _quit(self, _: bytes) -> Reply | Work:
        return self.ask("QUIT", replies.BYE, self.end)

    COMMANDS: ClassVar[dict[bytes, Callable[[Any, bytes], Reply | Work]]] = {
        **Dialogue.COMMANDS,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"VRFY": _vrfy,
        b"HELP": _help,
    }


def _nothing() -> None:
    pass

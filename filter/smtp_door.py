"""The door for mail over SMTP: who may relay, whether there is room, and the way to the pipeline.

A handler for `smtp_in.Server` with aiosmtpd's hooks. It relays for clients in `relay_networks` and for those who
authenticated, and decides that anew for each transaction; everybody else is refused at RCPT. Extensions that the next
hop lacks are not offered. Raises RefusedError for what counts as the client's error.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from . import replies
from .envelope import Capabilities, Client, MailFrom
from .replies import RefusedError, Reply
from .smtp_in import Server
from .smtp_session import Envelope, Networks, Session, Transaction

# Extensions that only make sense if the next hop has them too.
_PASSED_ON: Final = frozenset({"8BITMIME", "SMTPUTF8", "DSN"})

Answer = Reply | Coroutine[Any, Any, Reply]


class Pipeline(Protocol):
    """Where messages go; see `pipeline`."""

    def begin(self, client: Client, mail: MailFrom) -> Transaction:
        """A transaction for this sender."""


class Door:
    """The hooks of all sessions of a worker."""

    def __init__(
        self,
        pipeline: Pipeline,
        capabilities: Callable[[], Capabilities],
        has_room: Callable[[int], bool],
        relay_networks: Networks = (),
    ) -> None:
        """`capabilities` are the next hop's, as last seen; `has_room` says whether so many octets could be held."""
        self._pipeline = pipeline
        self._capabilities = capabilities
        self._has_room = has_room
        self._relay_networks = relay_networks

    def may_relay(self, session: Session) -> bool:
        """Whether mail of this client is passed on at all."""
        return bool(session.user) or session.is_in(self._relay_networks)

    def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: Server, _session: Session, _envelope: Envelope, _name: str, lines: list[str]
    ) -> list[str]:
        """Offer what both we and the next hop can do, and the smaller of both sizes."""
        offered = self._capabilities()
        kept = [line for line in lines if line[4:] not in _PASSED_ON or line[4:] in offered]
        return [_smaller(line, offered.size) for line in kept]

    def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: Server, _session: Session, envelope: Envelope, _address: str, _options: list[str]
    ) -> Reply:
        """Refuse early what could not be passed on or kept."""
        mail = envelope.mail
        if mail is None:
            raise RefusedError(replies.MAIL_FIRST)
        offered = self._capabilities()
        if offered.size and mail.size > offered.size:
            return replies.SIZE_EXCEEDED
        if mail.smtputf8 and "SMTPUTF8" not in offered:
            return replies.SMTPUTF8_UNAVAILABLE
        if mail.eight_bit and "8BITMIME" not in offered:
            return replies.EIGHT_BIT_REFUSED
        return replies.SENDER_OK if self._has_room(mail.size) else replies.STORAGE_FULL

    def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Server, session: Session, envelope: Envelope, _address: str, _options: list[str]
    ) -> Answer:
        """Let the next hop say whether it takes this recipient, if the client may relay."""
        mail, recipient = envelope.mail, envelope.recipient
        if mail is None or recipient is None or not self.may_relay(session):
            raise RefusedError(replies.RELAY_DENIED)
        if envelope.transaction is None:
            envelope.transaction = self._pipeline.begin(session.client, mail)
        return envelope.transaction.rcpt(recipient)

    async def handle_DATA(self, _server: Server, session: Session, envelope: Envelope) -> Reply:  # noqa: N802
        """Have the message judged and passed on; until the client goes on, its outcome counts as unknown to it."""
        transaction, content = envelope.transaction, envelope.content
        if transaction is None or not isinstance(content, bytes):
            return replies.RCPT_FIRST
        if envelope.eight_bit and "8BITMIME" not in self._capabilities():
            return replies.EIGHT_BIT_REFUSED  # the session gives up the transaction
        envelope.transaction = None
        reply = await transaction.data(content)
        session.unconfirmed = transaction
        return reply


def _smaller(line: str, size: int) -> str:
    """The line that offers SIZE with the next hop's limit, if that is lower."""
    prefix = "250-SIZE "
    if size and line.startswith(prefix) and int(line.removeprefix(prefix)) > size:
        return f"{prefix}{size}"
    return line

"""What one connection and one transaction know: aiosmtpd's `Session` and `Envelope` with what relaying needs.

Plain state, changed by the session's commands and by the door. Raises nothing, and does no I/O.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Protocol

from aiosmtpd import smtp

from .envelope import Client, MailFrom, Origin, RcptTo
from .replies import Reply

Networks = Sequence[IPv4Network | IPv6Network]


class Transaction(Protocol):
    """A message on its way, as the pipeline begins it; see there."""

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """Offer a recipient to the next hop."""

    async def data(self, content: bytes) -> Reply:
        """Judge the message and pass it on."""

    async def abort(self) -> None:
        """End it without a message."""

    def acknowledged(self) -> None:
        """The client has read the reply to its message, as it goes on."""

    async def unacknowledged(self) -> None:
        """The client was lost before it went on."""


class Session(smtp.Session):
    """What is known of the client. `client` is rebuilt after a change, so that one object serves a whole session."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.address = ""
        self.ip: IPv4Address | IPv6Address | None = None
        self.tls = ""
        self.user = ""
        self.origin: Origin | None = None
        self.offered: frozenset[str] = frozenset()
        self.unconfirmed: Transaction | None = None  # its reply was sent, and nothing was heard since
        self._client: Client | None = None

    def come_from(self, address: str) -> None:
        """Set the client's address as a socket or a balancer tells it; what is no IP address is none."""
        self.ip = plain_address(address)
        self.address = str(self.ip) if self.ip else ""
        self._client = None

    def greet(self, name: str, *, extended: bool) -> None:
        """HELO or EHLO was given."""
        self.host_name = name
        self.extended_smtp = extended
        self._client = None

    def log_in(self, user: str) -> None:
        """AUTH succeeded."""
        self.user = user
        self.authenticated = True
        self._client = None

    def forward(self, origin: Origin | None) -> None:
        """XFORWARD was given; None: the transaction it was given for is over."""
        if origin is not self.origin:
            self.origin = origin
            self._client = None

    def confirm(self) -> None:
        """The client went on after the reply to its message: it knows."""
        unconfirmed, self.unconfirmed = self.unconfirmed, None
        if unconfirmed is not None:
            unconfirmed.acknowledged()

    def secure(self, version: str) -> None:
        """TLS is on: what the client said in the clear is forgotten (RFC 3207 section 4.2), who it is stays."""
        self.tls = version
        self.host_name = None
        self.extended_smtp = False
        self.user = ""
        self.authenticated = None
        self.origin = None
        self.offered = frozenset()
        self._client = None

    def is_in(self, networks: Networks) -> bool:
        """Whether the client's address is in one of the networks; a client without an address is in none."""
        ip = self.ip
        return ip is not None and any(ip in network for network in networks)

    @property
    def client(self) -> Client:
        """The client as the pipeline gets it."""
        if self._client is None:
            self._client = Client(
                address=self.address,
                helo=self.host_name or "",
                esmtp=self.extended_smtp,
                tls=self.tls,
                user=self.user,
                origin=self.origin,
            )
        return self._client


class Envelope(smtp.Envelope):
    """One transaction as far as it came. `transaction` is set by the door while one is open at the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.mail: MailFrom | None = None
        self.recipients: list[RcptTo] = []
        self.recipient: RcptTo | None = None  # the one RCPT offers just now
        self.asked = 0  # RCPT commands, the refused ones with them
        self.eight_bit = False  # what was received has octets over 127
        self.transaction: Transaction | None = None


def plain_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address without an IPv6 scope, an IPv4 address mapped into IPv6 as IPv4; None if it is no address."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def peer_address(peername: Any) -> str:
    """The address in what a socket says of its peer; empty for a local socket."""
    return str(peername[0]) if isinstance(peername, (tuple, list)) and peername else ""

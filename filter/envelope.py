"""What travels around a message: who connected, the reverse path, the recipients. Plain values; never raises.

Paths and parameters are kept as the octets that were received, because the next hop must get exactly these (RFC 5321
section 4.1.1.11); `path` is where they are checked. Consent is looked up on the same object that is sent on.
"""

from dataclasses import dataclass, field

_SIZE_DIGITS = 20  # at most, RFC 1870 section 3
MAX_LINE = 2048  # octets of a command line with its CRLF; RFC 5321 section 4.5.3.1.4 and the extensions that add to it


@dataclass(frozen=True, slots=True)
class Client:
    """Who speaks to us in one session. `address` is behind a balancer the address it told us, never its own."""

    address: str  # "192.0.2.1", "2001:db8::1"; empty for a local socket
    helo: str = ""
    esmtp: bool = False
    tls: str = ""  # protocol version, such as "TLSv1.3"; empty without TLS
    user: str = ""  # who authenticated; empty for nobody
    origin: "Origin | None" = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The client before the client, as a listed host told by XFORWARD: recorded and handed on, gives no rights.

    Attributes are decoded; empty is unknown. <https://www.postfix.org/XFORWARD_README.html>
    """

    name: str = ""
    address: str = ""
    port: str = ""
    protocol: str = ""
    helo: str = ""
    ident: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class MailFrom:
    """The argument of MAIL. `path` is what stood between < and >, empty for the null sender.

    `params` are the ESMTP parameters as received and in their order, such as `b"SIZE=1234"`; the other fields are what
    they mean to us (`size` in octets, 0 for not given).
    """

    path: bytes
    params: tuple[bytes, ...] = ()
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False

    @property
    def address(self) -> str:
        """The reverse path as text; empty for the null sender."""
        return self.path.decode()


@dataclass(frozen=True, slots=True)
class RcptTo:
    """The argument of one RCPT: path and parameters as received (`b"NOTIFY=NEVER"`, `b"ORCPT=..."`)."""

    path: bytes
    params: tuple[bytes, ...] = ()

    @property
    def address(self) -> str:
        """The forward path as text."""
        return self.path.decode()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an SMTP server said it can do: keyword in upper case -> the rest of its line."""

    keywords: dict[str, str] = field(default_factory=dict)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size(self) -> int:
        """The largest message it takes, in octets; 0 for no stated limit (RFC 1870)."""
        value = self.keywords.get("SIZE", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= _SIZE_DIGITS else 0


# Taken for granted of a next hop that was not seen yet, as every MTA in use has them: a client that misses SMTPUTF8
# would return its message for good. Until a connection is made no recipient is taken, and then we know better.
USUAL = Capabilities({"8BITMIME": "", "SMTPUTF8": "", "DSN": ""})

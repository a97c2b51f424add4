"""The command lines of SMTP: which verbs there are and when they may come. Pure; raises nothing.

Order within a flight: RFC 2920 section 3.1 (EHLO, DATA and others end one). Verbs that are none at all but another
protocol's, and header fields, mean that somebody has a browser or a web server talk to us.
"""

import re
from dataclasses import dataclass
from typing import Final

_OTHER_PROTOCOL: Final = re.compile(
    rb"(?:GET|POST|PUT|HEAD|OPTIONS|PATCH|DELETE|CONNECT|TRACE) |[A-Za-z][A-Za-z0-9-]*:"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for a verb, beside what the command itself checks.

    `clear`: allowed in the clear although TLS is required (RFC 3207 section 4). `last`: nothing may follow in the same
    flight, as the client must see the reply first. `idle`: moves no mail. `bare`: takes no argument.
    """

    clear: bool = False
    last: bool = False
    idle: bool = False
    bare: bool = False


RULES: Final[dict[bytes, Rule]] = {
    b"HELO": Rule(last=True, idle=True),
    b"EHLO": Rule(clear=True, last=True, idle=True),
    b"MAIL": Rule(),
    b"RCPT": Rule(),
    b"DATA": Rule(last=True, bare=True),
    b"RSET": Rule(idle=True, bare=True),
    b"NOOP": Rule(clear=True, idle=True),
    b"QUIT": Rule(clear=True, bare=True),
    b"STARTTLS": Rule(clear=True, bare=True),
    b"AUTH": Rule(),
    b"XFORWARD": Rule(),
    b"VRFY": Rule(idle=True),
    b"HELP": Rule(idle=True),
}
NOT_IMPLEMENTED: Final = frozenset({b"EXPN", b"TURN", b"ETRN", b"ATRN", b"SEND", b"SOML", b"SAML", b"BDAT", b"XCLIENT"})
_LONGEST: Final = max(map(len, RULES))


def split(line: bytes) -> tuple[bytes, bytes]:
    """The verb in upper case (empty if too long for one) and the argument without outer spaces, octets as received."""
    verb, _, argument = line.partition(b" ")
    return verb.upper() if len(verb) <= _LONGEST else b"", argument.strip(b" ")


def is_other_protocol(line: bytes) -> bool:
    """Whether the line is the beginning of HTTP or a header field (cross-protocol scripting)."""
    return _OTHER_PROTOCOL.match(line) is not None

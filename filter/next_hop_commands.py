"""The commands of a transaction as octets, as far as a next hop understands them.

Paths and parameters go out as they came in; a parameter of an extension that the next hop does not offer is left out,
where leaving it out changes nothing that was promised, and `obstacle` says where it would. What would break out of its
command line raises ValueError: such octets cannot come from `path`, so it is a fault of this program.
"""

import re
from functools import lru_cache
from typing import Final

from . import xforward
from .data_reader import is_regular
from .envelope import Capabilities, Client, MailFrom, RcptTo
from .replies import EIGHT_BIT_REFUSED, SMTPUTF8_UNAVAILABLE, Reply

RSET: Final = b"RSET\r\n"
DATA: Final = b"DATA\r\n"
# Octets that the header fields we prepend may take: what a client says of its message is made larger by so many.
PREPENDED: Final = 1024
# The parameter -> the extension that defines it (RFC 1870, 6152, 6531, 3461, 4954). All others are left out.
_EXTENSIONS: Final = {
    b"BODY": "8BITMIME",
    b"SMTPUTF8": "SMTPUTF8",
    b"RET": "DSN",
    b"ENVID": "DSN",
    b"NOTIFY": "DSN",
    b"ORCPT": "DSN",
    b"AUTH": "AUTH",
}
_UNSAFE_PATH: Final = re.compile(rb"[\x00-\x1f\x7f]").search
_UNSAFE_PARAMETER: Final = re.compile(rb"[\x00-\x20\x7f]").search


def obstacle(mail: MailFrom, capabilities: Capabilities) -> Reply | None:
    """Why mail of this kind cannot go to a next hop with these capabilities at all; None if it can."""
    return SMTPUTF8_UNAVAILABLE if mail.smtputf8 and "SMTPUTF8" not in capabilities else None


def mail_command(mail: MailFrom, capabilities: Capabilities) -> bytes:
    """MAIL with its line end. SIZE is what the client said and room for what we prepend."""
    size = b" SIZE=%d" % (mail.size + PREPENDED) if mail.size and "SIZE" in capabilities else b""
    return b"MAIL FROM:<%s>%s%s\r\n" % (_path(mail.path), size, _parameters(mail.params, capabilities))


def rcpt_command(recipient: RcptTo, capabilities: Capabilities) -> bytes:
    """RCPT with its line end."""
    return b"RCPT TO:<%s>%s\r\n" % (_path(recipient.path), _parameters(recipient.params, capabilities))


def xforward_commands(client: Client, capabilities: Capabilities) -> list[bytes]:
    """The XFORWARD commands that tell the next hop who the client is; none where it offers no XFORWARD."""
    offered = capabilities.keywords.get("XFORWARD")
    return list(_xforward_commands(client, offered)) if offered else []


@lru_cache(maxsize=1024)
def _xforward_commands(client: Client, offered: str) -> tuple[bytes, ...]:
    """The same for every message of a session; a next hop forgets them with each."""
    return tuple(xforward.commands(xforward.origin_of(client), offered))


def content_obstacle(content: bytes, capabilities: Capabilities) -> Reply | None:
    """Why this content cannot go there; it is never converted, because that would break signatures (RFC 6152).

    Raises ValueError for a bare CR, a bare LF or a NUL: the next hop might see the end of the message there.
    """
    if not is_regular(content):
        raise ValueError("content with bare CR, bare LF or NUL")
    return None if "8BITMIME" in capabilities or content.isascii() else EIGHT_BIT_REFUSED


def _path(path: bytes) -> bytes:
    if _UNSAFE_PATH(path):
        raise ValueError("a path with control characters")
    return path


def _parameters(params: tuple[bytes, ...], capabilities: Capabilities) -> bytes:
    if not params:
        return b""
    kept = []
    for parameter in params:
        extension = _EXTENSIONS.get(parameter.partition(b"=")[0].upper())
        if extension is None or extension not in capabilities:
            continue
        if _UNSAFE_PARAMETER(parameter):
            raise ValueError("a parameter with spaces or control characters")
        kept.append(b" " + parameter)
    return b"".join(kept)

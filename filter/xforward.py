"""XFORWARD: the client before the client, as a listed host tells it and as it is handed on to the next hop.

Attributes and their form: <https://www.postfix.org/XFORWARD_README.html>; values are xtext (RFC 3461 section 4), at most
255 octets, without control characters. `parse` raises XforwardError; nothing else is raised. Pure.
"""

import re
from dataclasses import replace
from typing import Final

from . import replies
from .envelope import Client, Origin
from .replies import RefusedError

MAX_VALUE: Final = 255  # octets, decoded
MAX_COMMAND: Final = 512  # octets with CRLF; RFC 5321 section 4.5.3.1.4
# The attribute on the wire -> the field of `Origin`. In the order in which they are sent.
ATTRIBUTES: Final = {
    "NAME": "name",
    "ADDR": "address",
    "PORT": "port",
    "PROTO": "protocol",
    "HELO": "helo",
    "IDENT": "ident",
    "SOURCE": "source",
}
_UNKNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*").fullmatch
_HEX: Final = re.compile(rb"\+([0-9A-Fa-f]{2})")


class XforwardError(RefusedError):
    """The argument of XFORWARD is refused."""


def parse(argument: bytes, before: Origin | None = None) -> Origin:
    """The origin after one XFORWARD command; attributes of earlier commands (`before`) stay unless given anew.

    `argument` is what follows the verb, such as b"NAME=spike.example ADDR=192.0.2.1". [UNAVAILABLE] and [TEMPUNAVAIL]
    become empty. Raises XforwardError for no attribute, an unknown one, one given twice, and a bad value.
    """
    changes: dict[str, str] = {}
    for part in argument.split():
        name, equals, value = part.partition(b"=")
        field = ATTRIBUTES.get(name.upper().decode("ascii", "replace"))
        if not equals or field is None or field in changes:
            raise XforwardError(replies.SYNTAX)
        changes[field] = _decoded(value)
    if not changes:
        raise XforwardError(replies.SYNTAX)
    return replace(before or Origin(), **changes)


def commands(origin: Origin, offered: str) -> list[bytes]:
    """The XFORWARD commands (with CRLF) for a next hop that offers these attributes ("NAME ADDR PROTO"); may be none.

    Unknown values are sent as [UNAVAILABLE], so that the next hop does not take ours for them. More than one command
    if one would be over 512 octets.
    """
    names = offered.upper().split()
    lines: list[bytes] = []
    line = b"XFORWARD"
    for name, field in ATTRIBUTES.items():
        if name not in names:
            continue
        part = b" " + name.encode() + b"=" + _encoded(getattr(origin, field))
        if len(line) + len(part) + 2 > MAX_COMMAND and line != b"XFORWARD":
            lines.append(line + b"\r\n")
            line = b"XFORWARD"
        line += part
    if line != b"XFORWARD":
        lines.append(line + b"\r\n")
    return lines


def origin_of(client: Client) -> Origin:
    """What to hand on about a client: what it told about the one before it, else itself."""
    if client.origin is not None:
        return client.origin
    address = f"IPv6:{client.address}" if ":" in client.address else client.address
    return Origin(address=address, protocol="ESMTP" if client.esmtp else "SMTP", helo=client.helo)


def _decoded(value: bytes) -> str:
    if not _XTEXT(value):
        raise XforwardError(replies.SYNTAX)
    octets = _HEX.sub(lambda found: bytes([int(found[1], 16)]), value)
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise XforwardError(replies.SYNTAX) from None
    if len(octets) > MAX_VALUE or any(ord(character) < ord(" ") or ord(character) == 127 for character in text):
        raise XforwardError(replies.SYNTAX)
    return "" if text.upper() in _UNKNOWN else text


def _encoded(value: str) -> bytes:
    octets = value.encode("utf-8", "replace")[:MAX_VALUE]
    if not octets:
        return b"[UNAVAILABLE]"
    return b"".join(
        bytes([octet]) if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet for octet in octets
    )

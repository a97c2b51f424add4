"""XFORWARD: the client before the client, as a listed host tells it and as it is handed on to the next hop.

Attributes and their form: <https://www.postfix.org/XFORWARD_README.html>; values are xtext (RFC 3461 section 4) of
UTF-8, at most 255 octets, not empty, without control characters. `parse` raises XforwardError; nothing else is raised.
Pure.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address
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
_QUOTED: Final = re.compile(rb"[^!-*,-<>-~]")
_CONTROLS: Final = re.compile(r"[\0-\x1f\x7f-\x9f]").search
_PORT: Final = re.compile(r"[0-9]{1,5}").fullmatch


class XforwardError(RefusedError):
    """The argument of XFORWARD is refused."""


def parse(argument: bytes, before: Origin | None = None) -> Origin:
    """The origin after one XFORWARD command; attributes of earlier commands (`before`) stay unless given anew.

    `argument` is what follows the verb, such as b"NAME=spike.example ADDR=192.0.2.1". [UNAVAILABLE] and [TEMPUNAVAIL]
    become empty. Raises XforwardError for no attribute, an unknown one, one given twice, and a bad value.
    """
    changes: dict[str, str] = {}
    for part in argument.split(b" "):
        if not part:
            continue
        octets, equals, value = part.partition(b"=")
        name = octets.upper().decode("ascii", "replace")
        field = ATTRIBUTES.get(name)
        if not equals or field is None or field in changes:
            raise XforwardError(replies.SYNTAX)
        changes[field] = _decoded(name, value)
    if not changes:
        raise XforwardError(replies.SYNTAX)
    return replace(before or Origin(), **changes)


def commands(origin: Origin, offered: str) -> list[bytes]:
    """The XFORWARD commands (with CRLF) for a next hop that offers these attributes ("NAME ADDR PROTO"); may be none.

    Unknown values are sent as [UNAVAILABLE], so that the next hop does not take ours for them. More than one command
    if one would be over 512 octets; a single value is never split.
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
    """What to hand on about a client: what it told of the one before it, else itself."""
    if client.origin is not None:
        return client.origin
    address = f"IPv6:{client.address.partition('%')[0]}" if ":" in client.address else client.address
    protocol = "ESMTP" if client.esmtp else "SMTP"
    return Origin(address=address, protocol=protocol, helo=client.helo, source="REMOTE" if address else "LOCAL")


def _decoded(name: str, value: bytes) -> str:
    if not _XTEXT(value):
        raise XforwardError(replies.SYNTAX)
    octets = _HEX.sub(lambda found: bytes([int(found[1], 16)]), value)
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise XforwardError(replies.SYNTAX) from None
    if text.upper() in _UNKNOWN:
        return ""
    if len(octets) > MAX_VALUE or _CONTROLS(text) or not _FORMS.get(name, bool)(text):
        raise XforwardError(replies.SYNTAX)
    return text


def _is_address(text: str) -> bool:
    kind, colon, rest = text.partition(":")
    try:
        if colon and kind.upper() == "IPV6":
            IPv6Address(rest)
        else:
            IPv4Address(text)
    except AddressValueError:
        return False
    return "%" not in text


def _encoded(value: str) -> bytes:
    octets = value.encode("utf-8", "replace")[:MAX_VALUE]
    if not octets:
        return b"[UNAVAILABLE]"
    return _QUOTED.sub(lambda found: b"+%02X" % found[0][0], octets)


# The form of values that others act on; the rest is any text.
_FORMS: Final[dict[str, Callable[[str], bool]]] = {
    "ADDR": _is_address,
    "PORT": lambda text: bool(_PORT(text)),
    "SOURCE": lambda text: text.upper() in ("LOCAL", "REMOTE"),
}

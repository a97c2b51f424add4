"""Arguments of MAIL and RCPT: checked against RFC 5321 section 4.1.2 and RFC 6531, and kept octet for octet.

Strict own address parser: nothing is decoded, folded, stripped or repaired, so that the address whose consent is looked
up is the one the next hop gets. Refused are source routes, comments, missing brackets, control characters (with CR, LF,
NUL, DEL and, beyond ASCII, C1 and bidirectional controls), a trailing dot, and whatever is over its limit. One lenience:
spaces after the colon ("MAIL FROM: <a@b>"), which real clients send. Raises PathError with the reply to give; nothing
else. Pure.
"""

import re
import unicodedata
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NoReturn

from . import replies
from .envelope import MailFrom, RcptTo
from .replies import RefusedError, Reply

MAX_PATH: Final = 256  # octets with the brackets; RFC 5321 section 4.5.3.1.3
MAX_LOCAL: Final = 64  # octets; section 4.5.3.1.1
MAX_DOMAIN: Final = 255  # octets; section 4.5.3.1.2
MAX_LABEL: Final = 63  # octets; RFC 1035 section 2.3.4
MAX_ENVID: Final = 100  # characters of xtext; RFC 3461 section 4.4
MAX_ORCPT: Final = 500  # characters; RFC 3461 section 4.2


class PathError(RefusedError):
    """The argument of MAIL or RCPT is refused; `reply` says why. Never quotes it."""


# Beyond ASCII any octet may pass here; whether it is UTF-8 and allowed is checked after.
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]"
_LOCAL = rb"(?:" + _ATEXT + rb"++(?:\." + _ATEXT + rb'++)*+|"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*+")'
_LABEL = rb"[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])?"
_DOMAIN = rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*+|\[[!-Z^-~]++\])"
_PATH = re.compile(rb" *<((" + _LOCAL + rb")@(" + _DOMAIN + rb"))>((?: .*)?)\Z", re.DOTALL).match
_NULL = re.compile(rb" *<>((?: .*)?)\Z", re.DOTALL).match
_POSTMASTER = re.compile(rb" *<(postmaster)>((?: .*)?)\Z", re.DOTALL | re.IGNORECASE).match

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?").fullmatch
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*").fullmatch
_ORCPT = re.compile(rb"[A-Za-z0-9!#$%&'*/?^_`{|}~.-]+;(?:[!-*,-<>-~]|\+[0-9A-F]{2})+").fullmatch
_ORCPT_UTF8 = re.compile(
    rb"utf-8;(?:[!-*,-<>-\[\]-~\x80-\xff]|\\x\{[0-9A-F]{2,6}\}|\+[0-9A-F]{2})+", re.IGNORECASE
).fullmatch
_SIZE = re.compile(rb"[0-9]{1,20}").fullmatch
_NOTIFY = re.compile(rb"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}", re.IGNORECASE).fullmatch

# The EHLO keyword that offers a parameter.
_MAIL_OFFERS: Final = {
    b"SIZE": "SIZE",
    b"BODY": "8BITMIME",
    b"SMTPUTF8": "SMTPUTF8",
    b"RET": "DSN",
    b"ENVID": "DSN",
    b"AUTH": "AUTH",
}
_RCPT_OFFERS: Final = {b"NOTIFY": "DSN", b"ORCPT": "DSN"}


def parse_mail(argument: bytes, *, offered: frozenset[str]) -> MailFrom:
    """What follows the verb MAIL, such as b"FROM:<a@b.example> SIZE=1", without CRLF.

    `offered` are the EHLO keywords that were offered to this client (upper case; empty after HELO): a parameter of
    another extension is refused with 555. SIZE, 8BITMIME, SMTPUTF8, DSN and AUTH are known. AUTH= is checked and left
    out of `params`, as we vouch for nobody (RFC 4954 section 5). Whether the size is too big is for the caller to say.
    Raises PathError.
    """
    if argument[:5].upper() != b"FROM:":
        _refuse(replies.SYNTAX)
    rest = argument[5:]
    if found := _NULL(rest):
        path, tail = b"", found[1]
    else:
        path, tail = _path(rest, replies.BAD_SENDER)
    if not tail:
        if not path.isascii():
            _refuse(replies.SENDER_NEEDS_SMTPUTF8)
        return MailFrom(path)
    params = _parameters(tail, _MAIL_OFFERS, offered)
    for keyword, value in params.values():
        _check_mail(keyword, value)
    smtputf8 = b"SMTPUTF8" in params
    if not smtputf8 and not path.isascii():
        _refuse(replies.SENDER_NEEDS_SMTPUTF8)
    return MailFrom(
        path,
        tuple([octets for octets, (keyword, _) in _split(tail, params) if keyword != b"AUTH"]),
        size=int(params[b"SIZE"][1] or 0) if b"SIZE" in params else 0,
        eight_bit=b"BODY" in params and (params[b"BODY"][1] or b"").upper() == b"8BITMIME",
        smtputf8=smtputf8,
    )


def parse_rcpt(argument: bytes, *, offered: frozenset[str], smtputf8: bool = False) -> RcptTo:
    """What follows the verb RCPT, such as b"TO:<a@b.example> NOTIFY=NEVER", without CRLF.

    `offered` as for `parse_mail`; `smtputf8` is whether MAIL of this transaction had SMTPUTF8. "<postmaster>" needs no
    domain (RFC 5321 section 4.5.1); "<>" is refused. Raises PathError.
    """
    if argument[:3].upper() != b"TO:":
        _refuse(replies.SYNTAX)
    rest = argument[3:]
    if found := _POSTMASTER(rest):
        path, tail = found[1], found[2]
    else:
        path, tail = _path(rest, replies.BAD_RECIPIENT)
    if not smtputf8 and not path.isascii():
        _refuse(replies.RECIPIENT_NEEDS_SMTPUTF8)
    if not tail:
        return RcptTo(path)
    params = _parameters(tail, _RCPT_OFFERS, offered)
    for keyword, value in params.values():
        _check_rcpt(keyword, value, smtputf8=smtputf8)
    return RcptTo(path, tuple([octets for octets, _ in _split(tail, params)]))


def _refuse(reply: Reply) -> NoReturn:
    raise PathError(reply)


def _path(rest: bytes, bad: Reply) -> tuple[bytes, bytes]:
    """The path without brackets, checked, and what follows it."""
    found = _PATH(rest)
    if not found:
        _refuse(bad)
    path, local, domain, tail = found.groups()
    if len(local) > MAX_LOCAL or len(path) + 2 > MAX_PATH or len(domain) > MAX_DOMAIN:
        _refuse(bad)
    if domain[0] == ord("["):
        if not _literal(domain[1:-1]):
            _refuse(bad)
    elif len(domain) > MAX_LABEL and max(map(len, domain.split(b"."))) > MAX_LABEL:
        _refuse(bad)
    if not path.isascii() and not _international(path):
        _refuse(bad)
    return path, tail


def _literal(inner: bytes) -> bool:
    """Whether it is an IPv4 or IPv6 address literal without its brackets; no other kind is in use."""
    text = inner.decode("ascii", "replace")
    try:
        if text[:5].upper() == "IPV6:":
            return "%" not in text and bool(IPv6Address(text[5:]).packed)
        return bool(IPv4Address(text).packed)
    except AddressValueError:
        return False


def _international(path: bytes) -> bool:
    """Whether it is UTF-8 without characters that are controls, that turn the direction, or that are none at all."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isascii() or unicodedata.category(character) not in _FORBIDDEN for character in text)


_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})  # Cf holds the bidi controls


def _parameters(
    tail: bytes, offers: dict[bytes, str], offered: frozenset[str]
) -> dict[bytes, tuple[bytes, bytes | None]]:
    """Keyword in upper case -> (keyword in upper case, value or None). `tail` begins with a space."""
    params: dict[bytes, tuple[bytes, bytes | None]] = {}
    for octets in tail[1:].split(b" "):
        if not octets:
            continue
        found = _PARAMETER(octets)
        if not found:
            _refuse(replies.BAD_PARAMETER)
        keyword = found[1].upper()
        if keyword in params:
            _refuse(replies.BAD_PARAMETER)
        if keyword not in offers or offers[keyword] not in offered:
            _refuse(replies.UNKNOWN_PARAMETER)
        params[keyword] = keyword, found[2]
    return params


def _split(
    tail: bytes, params: dict[bytes, tuple[bytes, bytes | None]]
) -> list[tuple[bytes, tuple[bytes, bytes | None]]]:
    return list(zip(tail.split(), params.values(), strict=True))


def _check_mail(keyword: bytes, value: bytes | None) -> None:
    given = value or b""
    checks: dict[bytes, Callable[[], object]] = {
        b"SIZE": lambda: _SIZE(given),
        b"BODY": lambda: given.upper() in (b"7BIT", b"8BITMIME"),
        b"SMTPUTF8": lambda: value is None,
        b"RET": lambda: given.upper() in (b"FULL", b"HDRS"),
        b"ENVID": lambda: given and len(given) <= MAX_ENVID and _XTEXT(given),
        b"AUTH": lambda: given and _XTEXT(given),
    }
    if not checks[keyword]():
        _refuse(replies.BAD_PARAMETER)


def _check_rcpt(keyword: bytes, value: bytes | None, *, smtputf8: bool) -> None:
    given = value or b""
    if keyword == b"NOTIFY":
        right = bool(_NOTIFY(given))
    else:
        right = len(given) <= MAX_ORCPT and bool(_ORCPT(given) or (smtputf8 and _ORCPT_UTF8(given)))
    if not right:
        _refuse(replies.BAD_PARAMETER)

"""Arguments of MAIL and RCPT: checked against RFC 5321 section 4.1.2 and RFC 6531, and kept octet for octet.

Strict own address parser: nothing is decoded, folded, stripped or repaired, so that the address whose consent is looked
up is the one the next hop gets. Refused are source routes, comments, missing brackets, control characters (CR, LF, NUL
and DEL among them, beyond ASCII those that turn the direction of text as well), a trailing dot, and what is over its
limit. An encoded-word is a local part like any other. There is one lenience: spaces after the colon ("FROM: <a@b>"),
which real clients send. Raises PathError with the reply to give, and nothing else. Pure.
"""

import re
import unicodedata
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple, NoReturn

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


# Beyond ASCII any octet may pass here; whether these are UTF-8, and allowed, is checked after.
_ATEXT: Final = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]"
_QUOTED: Final = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_LOCAL: Final = rb"(?:" + _ATEXT + rb"++(?:\." + _ATEXT + rb"++)*|" + _QUOTED + rb")"
_LABEL: Final = rb"[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])?"
_DOMAIN: Final = rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*|\[[0-9A-Za-z:.]++\])"
_TAIL: Final = rb"((?: [ -~\x80-\xff]*+)?)\Z"
_PATH: Final = re.compile(rb" *+<((" + _LOCAL + rb")@(" + _DOMAIN + rb"))>" + _TAIL).match
_NULL: Final = re.compile(rb" *+<>" + _TAIL).match
_POSTMASTER: Final = re.compile(rb" *+<(postmaster)>" + _TAIL, re.IGNORECASE).match

# RFC 3461 writes the hexadecimal digits of xtext in upper case; lower case is met, and handed on as it is.
_XCHAR: Final = rb"[!-*,-<>-~]|\+[0-9A-Fa-f]{2}"
_PARAMETER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?").fullmatch
_XTEXT: Final = re.compile(rb"(?:" + _XCHAR + rb")+").fullmatch
_ORCPT: Final = re.compile(rb"[A-Za-z0-9-]+;(?:" + _XCHAR + rb")+").fullmatch
_ORCPT_UTF8: Final = re.compile(rb"utf-8;(?:" + _XCHAR + rb"|[\x80-\xff])+", re.IGNORECASE).fullmatch  # RFC 6533
_SIZE: Final = re.compile(rb"[0-9]{1,20}").fullmatch
_NOTIFY: Final = re.compile(
    rb"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}", re.IGNORECASE
).fullmatch

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

_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})  # Cf holds the bidirectional controls
_IN_LABELS: Final = frozenset("LMN")  # letters, marks, numbers
_ALSO_IN_LABELS: Final = frozenset("\u00b7\u0375\u05f3\u05f4\u30fb")  # RFC 5892 appendix A


class _Parameter(NamedTuple):
    """One parameter: as received, its keyword in upper case, its value (None if there is no equals sign)."""

    octets: bytes
    keyword: bytes
    value: bytes | None


def parse_mail(argument: bytes, *, offered: frozenset[str]) -> MailFrom:
    """What follows the verb MAIL, such as b"FROM:<a@b.example> SIZE=1", without CRLF.

    `offered` are the EHLO keywords that were offered to this client (upper case; none after HELO): a parameter of
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
    params = _parameters(tail, _MAIL_OFFERS, offered) if tail else ()
    size, eight_bit, smtputf8 = 0, False, False
    for _, keyword, value in params:
        if not _mail_value_fits(keyword, value):
            _refuse(replies.BAD_PARAMETER)
        if keyword == b"SIZE":
            size = int(value or 0)
        elif keyword == b"BODY":
            eight_bit = value is not None and value.upper() == b"8BITMIME"
        elif keyword == b"SMTPUTF8":
            smtputf8 = True
    if not smtputf8 and not path.isascii():
        _refuse(replies.SENDER_NEEDS_SMTPUTF8)
    kept = tuple([param.octets for param in params if param.keyword != b"AUTH"])
    return MailFrom(path, kept, size=size, eight_bit=eight_bit, smtputf8=smtputf8)


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
    params = _parameters(tail, _RCPT_OFFERS, offered) if tail else ()
    if not all(_rcpt_value_fits(param.keyword, param.value or b"", smtputf8=smtputf8) for param in params):
        _refuse(replies.BAD_PARAMETER)
    return RcptTo(path, tuple([param.octets for param in params]))


def _refuse(reply: Reply) -> NoReturn:
    raise PathError(reply)


def _path(rest: bytes, bad: Reply) -> tuple[bytes, bytes]:
    """The path without brackets, checked, and what follows it."""
    found = _PATH(rest)
    if not found:
        _refuse(bad)
    path, local, domain, tail = found.groups()
    if len(local) > MAX_LOCAL or len(path) + len(b"<>") > MAX_PATH or len(domain) > MAX_DOMAIN:
        _refuse(bad)
    if domain.startswith(b"["):
        fits = _is_literal(domain[1:-1].decode())
    else:
        fits = len(domain) <= MAX_LABEL or max(map(len, domain.split(b"."))) <= MAX_LABEL
    if not fits or not (path.isascii() or (_is_text(local) and _is_text(domain, of_labels=True))):
        _refuse(bad)
    return path, tail


def _is_literal(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address as in an address literal; other kinds are not in use."""
    try:
        if text[:5].upper() == "IPV6:":
            IPv6Address(text[5:])
        else:
            IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_text(octets: bytes, *, of_labels: bool = False) -> bool:
    """Whether it is UTF-8 without controls, turns of direction, spaces beyond ASCII, and characters that are none."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return False
    beyond = [character for character in text if not character.isascii()]
    kinds = [unicodedata.category(character) for character in beyond]
    if of_labels:
        pairs = zip(beyond, kinds, strict=True)
        return all(kind[0] in _IN_LABELS or character in _ALSO_IN_LABELS for character, kind in pairs)
    return _FORBIDDEN.isdisjoint(kinds)


def _parameters(tail: bytes, offers: Mapping[bytes, str], offered: frozenset[str]) -> list[_Parameter]:
    """The parameters in their order, each known, offered and given once."""
    params: list[_Parameter] = []
    seen = set()
    for octets in filter(None, tail.split(b" ")):
        found = _PARAMETER(octets)
        if not found or (keyword := found[1].upper()) in seen:
            _refuse(replies.BAD_PARAMETER)
        if offers.get(keyword) not in offered:
            _refuse(replies.UNKNOWN_PARAMETER)
        seen.add(keyword)
        params.append(_Parameter(octets, keyword, found[2]))
    return params


def _mail_value_fits(keyword: bytes, value: bytes | None) -> bool:
    if keyword == b"SMTPUTF8":
        return value is None
    if value is None:
        return False
    if keyword == b"SIZE":
        return bool(_SIZE(value))
    if keyword == b"BODY":
        return value.upper() in (b"7BIT", b"8BITMIME")
    if keyword == b"RET":
        return value.upper() in (b"FULL", b"HDRS")
    # ENVID and AUTH, whose "<>" is xtext as well.
    return bool(_XTEXT(value)) and (keyword != b"ENVID" or len(value) <= MAX_ENVID)


def _rcpt_value_fits(keyword: bytes, value: bytes, *, smtputf8: bool) -> bool:
    if keyword == b"NOTIFY":
        return bool(_NOTIFY(value))
    if len(value) > MAX_ORCPT:
        return False
    return bool(_ORCPT(value) or (smtputf8 and _ORCPT_UTF8(value) and _is_text(value)))

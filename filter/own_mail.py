"""Mail that we write ourselves: its envelope and header, and what came from outside made harmless for its lines.

Everything is ASCII with CRLF in lines of at most 998 octets, but for addresses that are not ASCII, where SMTPUTF8 was
asked for. The envelope sender is null, so that nothing is ever sent in answer (RFC 5321 section 4.5.5). Pure; never
raises.
"""

import binascii
import re
import textwrap
from collections.abc import Sequence
from typing import Final, NamedTuple

from .data_reader import is_regular
from .envelope import MailFrom, RcptTo

WIDTH: Final = 76  # octets of a line without CRLF; RFC 5322 section 2.1.1 asks for at most 78
MAX_LINE: Final = 998  # octets of a line without CRLF; section 2.1.1
_MAX_TEXT: Final = 900  # characters of something from outside: stays on one line even if it cannot be folded
_FOLD: Final = re.compile(rb"(?<=[^ ]) (?=[^ ])")  # where a line may be folded and give the same when unfolded
_STRANGE: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


class OwnMail(NamedTuple):
    """A message that is ready for a next hop."""

    mail: MailFrom
    recipient: RcptTo
    content: bytes


def addressed(to: bytes, content: bytes, *, smtputf8: bool = False) -> OwnMail:
    """The message with its envelope: null sender, and no report about it ever (RFC 3461 section 6.1)."""
    eight_bit = smtputf8 or not content.isascii()
    params = ((b"BODY=8BITMIME",) if eight_bit else ()) + ((b"SMTPUTF8",) if smtputf8 else ())
    mail = MailFrom(b"", params, size=len(content), eight_bit=eight_bit, smtputf8=smtputf8)
    return OwnMail(mail, RcptTo(to, (b"NOTIFY=NEVER",)), content)


def field(name: bytes, value: bytes) -> bytes:
    """One field of a header or of a report, folded at spaces, with CRLF; `value` is printable."""
    first, *words = _FOLD.split(value)
    lines = [name + b": " + first]
    for word in words:
        if len(lines[-1]) + 1 + len(word) <= WIDTH:
            lines[-1] += b" " + word
        else:
            lines.append(b" " + word)
    return b"\r\n".join(lines) + b"\r\n"


def fields(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Several fields, without those that have no value."""
    return b"".join([field(name, value) for name, value in pairs if value])


def paragraph(text: str, indent: str = "") -> bytes:
    """Printable text in lines with CRLF, the second and further ones indented."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "".join([line + "\r\n" for line in lines]).encode()


def printable(text: str, *, utf8: bool = False) -> str:
    """Text from outside, cut, with ? for what is not printable, and for what is not ASCII unless `utf8`."""
    short = text[:_MAX_TEXT]
    if short.isascii() and short.isprintable():
        return short
    return "".join([char if char.isprintable() and (utf8 or char.isascii()) else "?" for char in short])


def domain(text: str) -> str:
    """A host name or address literal with ? for what cannot stand in one."""
    return _STRANGE.sub("?", text[:255])


def stands_plain(octets: bytes) -> bool:
    """Whether the lines are ones that SMTP takes as they are."""
    return is_regular(octets) and max(map(len, octets.split(b"\r\n"))) <= MAX_LINE


def quoted_printable(octets: bytes) -> bytes:
    """RFC 2045 section 6.7, with the line ends of text."""
    lines = octets.split(b"\r\n")
    return b"\r\n".join([binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in lines])

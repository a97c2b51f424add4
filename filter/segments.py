"""What was read, and in which form: `Segment`, `Link`, `Defect`, and the one place where text is cleaned.

Clean text is NFC, has single spaces and no line ends, and none of the characters a reader cannot see. Pure, never
raises, linear in the characters.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from functools import cache
from itertools import repeat
from typing import NamedTuple

from .labels import SegmentKind


class DefectCode(StrEnum):
    """What was wrong with a message as received. Codes in `UNREAD` left content that nobody judged."""

    # read all the same
    HEADER_MALFORMED = "header_malformed"
    BARE_LINE_END = "bare_line_end"
    ENCODING_DAMAGED = "encoding_damaged"
    CHARSET_REPLACED = "charset_replaced"
    BOUNDARY_MISSING = "boundary_missing"
    OBFUSCATED = "obfuscated"
    STRUCTURE_LOST = "structure_lost"
    # content not judged
    CHARSET_UNKNOWN = "charset_unknown"
    ENCODING_UNKNOWN = "encoding_unknown"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_PARTS = "too_many_parts"
    TOO_DEEP = "too_deep"
    TEXT_TOO_LARGE = "text_too_large"
    ENCRYPTED = "encrypted"
    ATTACHMENT = "attachment"
    IMAGE_ONLY = "image_only"
    EMPTY = "empty"
    INTERNAL = "internal"


UNREAD = frozenset(
    {
        DefectCode.CHARSET_UNKNOWN,
        DefectCode.ENCODING_UNKNOWN,
        DefectCode.HEADERS_TOO_LARGE,
        DefectCode.TOO_MANY_PARTS,
        DefectCode.TOO_DEEP,
        DefectCode.TEXT_TOO_LARGE,
        DefectCode.ENCRYPTED,
        DefectCode.ATTACHMENT,
        DefectCode.IMAGE_ONLY,
        DefectCode.EMPTY,
        DefectCode.INTERNAL,
    }
)


class Defect(NamedTuple):
    """One oddity: its code and a short, safe detail (a media type, a charset name, a count; never message text)."""

    code: DefectCode
    detail: str = ""

    @property
    def unread(self) -> bool:
        """Whether it left content that nobody judged."""
        return self.code in UNREAD


class Segment(NamedTuple):
    """One piece of text in reading order: NFC, single spaces, no line ends, no zero-width or control characters."""

    kind: SegmentKind
    text: str
    hidden: bool = False


class Link(NamedTuple):
    """A link: host lower-case without port, path with query, index of the segment that shows it (-1: none)."""

    host: str
    path: str
    segment: int = -1


# tuple.__new__ from C: a NamedTuple's own constructor is a Python call, and a statement has hundreds of segments.
_new_tuple: Callable[[type[Segment], tuple[SegmentKind, str, bool]], Segment] = tuple.__new__


def make_segments(kinds: Sequence[SegmentKind], texts: Sequence[str], hidden: Collection[int]) -> list[Segment]:
    """Segments from two columns and the indexes of those that are hidden."""
    flags = [False] * len(texts)
    for index in hidden:
        flags[index] = True
    return list(map(_new_tuple, repeat(Segment), zip(kinds, texts, flags, strict=True)))


# Characters a reader does not see: C0/C1 controls, soft hyphen, joiners, directional marks, fillers, selectors, tags;
# NUL is another one, but stands between texts here.
_INVISIBLE_SET = (
    "\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[{_INVISIBLE_SET}]+")
# Letters that only look different: mathematical bold and italic, full width, circled. Read as the plain letter.
_STYLED = re.compile("[\uff01-\uff5e\u24b6-\u24e9\U0001d400-\U0001d7ff\U0001f130-\U0001f149]+")
# Single letters with something invisible around each: no language hyphenates like that.
_SPLIT_WORD = re.compile(f"[{_INVISIBLE_SET}][A-Za-z][{_INVISIBLE_SET}]+[A-Za-z]")
_TURNED = ("\u202d", "\u202e")  # text shown in the other direction
_MANY_MARKS = re.compile(r"[^\w\s\x00-\x7f]{31}")


@cache
def _excess_marks() -> re.Pattern[str]:
    """Combining marks beyond the 30th in a row (UAX #15, stream-safe): normalisation is quadratic in such runs."""
    marks = "".join(mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.combining(mark))
    return re.compile(f"([{marks}]{{30}})[{marks}]+")


def clean(text: str) -> str:
    """One text in clean form (see the module's docstring)."""
    text = _single_spaces(text)
    return text if _is_plain(text) else _cleaned(text.replace("\0", ""))


def _cleaned(text: str) -> str:
    """One text, or several with a NUL between two, in clean form."""
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = _STYLED.sub(_plain_letters, text)
    if _MANY_MARKS.search(text):
        text = _excess_marks().sub(r"\1", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return _single_spaces(text)


def clean_all(texts: Sequence[str]) -> tuple[list[str], bool]:
    """Each text in clean form, and whether words in them were cut apart by what cannot be seen.

    Looks at the whole, because most pages need no more than single spaces. Padding between words is usual in
    preheaders and no obfuscation; nothing invisible between single letters, and turned direction, is.
    """
    whole = "|".join(texts)
    if _is_plain(whole) and not (any(map(whole.__contains__, ("  ", "| ", " |"))) or whole != whole.strip()):
        return list(texts), False
    if "\0" in whole:
        return list(map(clean, texts)), _is_obfuscated(whole)
    spaced = _single_spaces("\0".join(texts))
    if not _is_plain(spaced.replace("\0", "|")):
        spaced = _cleaned(spaced)
    return list(map(str.strip, spaced.split("\0"))), _is_obfuscated(whole)


def _is_obfuscated(text: str) -> bool:
    if text.isascii():
        return False
    return any(map(text.__contains__, _TURNED)) or _SPLIT_WORD.search(text) is not None


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _is_plain(text: str) -> bool:
    """Whether no character needs attention: all printable, and of windows-1252, which holds nothing to compose."""
    return text.isprintable() and (text.isascii() or _fits(text, "latin-1") or _fits(text, "cp1252"))


def _fits(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _plain_letters(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match[0])


_URL = re.compile(r"\s*(?:https?:)?/[/\\]+(?:[^/?#\\@]*@)?([^/?#\\:]*)(?::\d*)?([^#]*)", re.IGNORECASE)
_MAX_URL = 2_048


def parse_url(url: str) -> tuple[str, str] | None:
    """Host (lower-case, no port) and path with query of a web address; None for mailto:, tel: and the like."""
    found = _URL.match(url[:_MAX_URL])
    return (found[1].strip().lower().rstrip("."), found[2].strip()) if found else None

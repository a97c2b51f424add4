"""What was read, and in which form: `Segment`, `Link`, `Defect`, and the one place where text is cleaned.

Clean text is NFC, has single spaces and no line ends, and none of the characters a reader cannot see. Pure, never
raises, linear in the characters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import NamedTuple, overload

from .labels import SegmentKind
from .spelled import closed_up, may_be_spelled

LOOKALIKES = dict(
    zip(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u0475\u04bb\u04cf\u051b\u051d"
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0423\u0406\u0408\u0405\u043a"
        "\u03bf\u03bd\u03b1\u03b9\u03c1\u03ba\u03c5\u03c4\u03b5\u03f2\u0493"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
        "aeopcyxijsdvhlqwABEKMHOPCTXYIJSkovaipkutecfABEZHIKMNOPTYX",
        strict=True,
    )
)
"""Cyrillic and Greek letters that look like Latin ones: read so inside a word that has Latin letters too."""


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
    TEXT_UNREAD = "text_unread"
    ATTACHMENT = "attachment"
    IMAGE_ONLY = "image_only"
    EMPTY = "empty"
    LANGUAGE_UNKNOWN = "language_unknown"
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
        DefectCode.TEXT_UNREAD,
        DefectCode.ATTACHMENT,
        DefectCode.IMAGE_ONLY,
        DefectCode.EMPTY,
        DefectCode.LANGUAGE_UNKNOWN,
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


class Segments(Sequence[Segment]):
    """The segments of a message, kept as columns: a statement has hundreds, and few are looked at one by one.

    Equal to, and hashed and shown as, the tuple of its segments. `hidden` holds indexes.
    """

    __slots__ = ("_hidden", "kinds", "texts")

    def __init__(self, kinds: Iterable[SegmentKind], texts: Iterable[str], hidden: Iterable[int]) -> None:
        self.texts = tuple(texts)
        self.kinds, self._hidden = tuple(kinds), frozenset(hidden)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Segment, ...]: ...
    def __getitem__(self, index: int | slice) -> Segment | tuple[Segment, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return Segment(self.kinds[index], self.texts[index], index % len(self) in self._hidden)

    def __iter__(self) -> Iterator[Segment]:
        hidden = self._hidden
        for index, (kind, text) in enumerate(zip(self.kinds, self.texts, strict=True)):
            yield Segment(kind, text, index in hidden)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == (tuple(other) if isinstance(other, Segments) else other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def texts_of(segments: Sequence[Segment]) -> Sequence[str]:
    """The text of each segment."""
    return segments.texts if isinstance(segments, Segments) else [segment.text for segment in segments]


def kinds_of(segments: Sequence[Segment]) -> Sequence[SegmentKind]:
    """The kind of each segment."""
    return segments.kinds if isinstance(segments, Segments) else [segment.kind for segment in segments]


# Characters a reader does not see: C0/C1 controls, soft hyphen, joiners, directional marks, fillers, selectors, tags;
# NUL is another one, but stands between texts here.
_INVISIBLE_SET = (
    "\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[{_INVISIBLE_SET}]+")
_CONTROLS = bytes(octet for octet in range(128) if _INVISIBLE.match(chr(octet)))
# Letters that only look different: mathematical bold and italic, full width, circled, squared, ligatures. Read as the
# plain letter. And halves of characters, which no text that is sent on may hold.
_STYLED = re.compile(
    "[\ud800-\udfff\ufb00-\ufb06\uff01-\uff5e\u24b6-\u24e9\U0001d400-\U0001d7ff\U0001f130-\U0001f149"
    "\U0001f150-\U0001f169\U0001f170-\U0001f189]+"
)
# Single letters with something invisible around each: no language hyphenates like that.
_SPLIT_WORD = re.compile(f"[{_INVISIBLE_SET}][A-Za-z][{_INVISIBLE_SET}]+[A-Za-z]")
_HALF = re.compile("[\ud800-\udfff]")
_OTHER_SCRIPTS = re.compile("[\u0370-\u052f]")
_SMALL_LOOKALIKES = "".join(filter(str.islower, LOOKALIKES))
_GREAT_LOOKALIKES = "".join(filter(str.isupper, LOOKALIKES))
# A letter of another script right before a Latin one. (Endings stand after it, symbols before capitals: NF-\u03baB.)
_DISGUISED_WORD = re.compile(f"[{_SMALL_LOOKALIKES}][a-z]|[{_GREAT_LOOKALIKES}][A-Za-z]")
# White on black: letters, though Unicode does not say so.
_SQUARED = {first + place: chr(ord("A") + place) for first in (0x1F150, 0x1F170) for place in range(26)}
# Marks left when letter and mark have no character of their own: struck through, underlined.
_MARKED_LETTER = re.compile("(?<=[ -~])[\u0300-\u036f\u20d0-\u20ff]+")
_TURNED = ("\u202d", "\u202e")  # text shown in the other direction
_MANY_MARKS = re.compile(r"[^\w\s\x00-\x7f]{31}")


_MARK = "`"  # stands between texts, when none of them has it


@cache
def _excess_marks() -> re.Pattern[str]:
    """Combining marks beyond the 30th in a row (UAX #15, stream-safe): normalisation is quadratic in such runs."""
    marks = "".join(mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.combining(mark))
    return re.compile(f"([{marks}]{{30}})[{marks}]+")


def whole(text: str) -> str:
    """The text, with U+FFFD for each half of a character, so that it can be encoded."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean(text: str) -> str:
    """One text in clean form (see the module's docstring)."""
    text = _single_spaces(text)
    return text if _is_plain(text) else _cleaned(text.replace("\0", ""))


def _cleaned(text: str) -> str:
    """One text, or several with a NUL between two, in clean form."""
    text = _INVISIBLE.sub("", _without_controls(text))
    if _is_composed(text.replace("\ufffd", "")):  # noise ends here: each sweep for what comes next costs as much
        return _single_spaces(text)
    text = _STYLED.sub(_plain_letters, text)
    if _MANY_MARKS.search(text):
        text = _excess_marks().sub(r"\1", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        text = _MARKED_LETTER.sub("", text)
    return _single_spaces(text)


def _without_controls(text: str) -> str:
    """The text without what is invisible in ASCII: noise has thousands, which would take long one by one."""
    octets = text.encode("utf-8", "surrogatepass")
    left = octets.translate(None, _CONTROLS)
    return text if len(left) == len(octets) else left.decode("utf-8", "surrogatepass")


def clean_all(texts: Sequence[str]) -> tuple[list[str], bool]:
    """Each text in clean form, and whether words in them were cut apart by what cannot be seen.

    Looks at the whole, because most pages need no more than single spaces. Padding between words is usual in
    preheaders and no obfuscation; nothing invisible between single letters, turned direction, and letters of another
    script that look like Latin ones inside a word, are.
    """
    if not texts:
        return [], False
    whole = _MARK.join(texts)
    if may_be_spelled(whole):
        texts, endless = closed_up(texts)
        cleaned, obfuscated = _clean_all(texts, _MARK.join(texts))
        return cleaned, obfuscated or endless
    return _clean_all(texts, whole)


def _clean_all(texts: Sequence[str], whole: str) -> tuple[list[str], bool]:
    if whole.count(_MARK) == len(texts) - 1:
        # Nearly every page ends here: the spaces that all writers use, and no character that needs attention.
        spaced = _close_up(whole)
        if _is_plain(spaced):
            return list(texts) if spaced is whole else spaced.split(_MARK), False
    if "\0" in whole:
        return list(map(clean, texts)), _is_obfuscated(whole) or _is_disguised(whole)
    spaced, disguised = _single_spaces("\0".join(texts)), False
    if not _is_plain(spaced.replace("\0", "|")):
        # A mark that begins a text stands on no space.
        spaced = _cleaned(spaced.replace("\0 ", "\0"))
        disguised = _is_disguised(spaced)
    return list(map(str.strip, spaced.split("\0"))), disguised or _is_obfuscated(whole)


def _close_up(texts: str) -> str:
    """Texts with a mark between two: one space for several of the usual ones, and none at a text's ends."""
    for space in "\n\r\t\xa0":
        if space in texts:
            texts = texts.replace(space, " ")
    while "  " in texts:
        texts = texts.replace("  ", " ")
    for end in (" " + _MARK, _MARK + " "):
        if end in texts:
            texts = texts.replace(end, _MARK)
    return texts.strip(" ")


def _is_obfuscated(text: str) -> bool:
    if text.isascii():
        return False
    return any(map(text.__contains__, _TURNED)) or _SPLIT_WORD.search(text) is not None


def _is_disguised(text: str) -> bool:
    return not text.isascii() and _OTHER_SCRIPTS.search(text) is not None and _DISGUISED_WORD.search(text) is not None


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _is_plain(text: str) -> bool:
    """Whether no character needs attention: all printable, and of windows-1252, which holds nothing to compose."""
    return text.isprintable() and _is_composed(text)


def _is_composed(text: str) -> bool:
    """Whether no character is a mark or a letter in disguise: windows-1252 has none."""
    return text.isascii() or _fits(text, "latin-1") or _fits(text, "cp1252")


def _fits(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _plain_letters(match: re.Match[str]) -> str:
    return _HALF.sub("\ufffd", unicodedata.normalize("NFKC", match[0].translate(_SQUARED)))


_URL = re.compile(r"\s*(?:https?:)?/[/\\]+(?:[^/?#\\@]*@)?([^/?#\\:]*)(?::\d*)?([^#]*)", re.IGNORECASE)
_MAX_URL = 2_048


def parse_url(url: str) -> tuple[str, str] | None:
    """Host (lower-case, no port) and path with query of a web address; None for mailto:, tel: and the like."""
    found = _URL.match(url[:_MAX_URL])
    return (found[1].strip().lower().rstrip("."), found[2].strip()) if found else None

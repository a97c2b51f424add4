"""Plain text -> paragraphs as a reader sees them, and the footer of any message. Never raises; pure; linear.

Lines of one paragraph are joined (RFC 3676 soft breaks or not), quoted replies are marked, and the block of legal and
unsubscribe lines at the end is told apart conservatively, so that promotion cannot pass for a footer.
"""

import re
from collections.abc import Iterator, Sequence

from .labels import SegmentKind

MAX_LINES = 10_000
"""Lines (or paragraphs) of one text that are told apart."""

_BLANK_LINES = re.compile(r"\n\s*\n")
_QUOTE_HEAD = re.compile(
    r"^(?:-{2,}\s*(?:original message|forwarded message|original-nachricht)|on\b.{4,200}\bwrote:\s*$)",
    re.IGNORECASE,
)
_STRUCTURE = re.compile(r"^[ \t]*(?:[^\w\s]|_|on\b|\d{1,2}[.)])", re.IGNORECASE | re.MULTILINE)
_SIGNATURES = frozenset({"-- ", "--"})
_LONGEST_RULER = 400
_RULER = re.compile(r"[-=_*~#+.\s]+")
_LIST_ITEM = re.compile(r"\s*(?:[-*\u2022\u00b7+]|\d{1,2}[.)])\s+\S")

_FOOTER_TAIL = 40
_FOOTER_LONGEST = 900
_FOOTER_SHORT = 60
_FOOTER_WORDS = (
    *("unsubscribe", "opt out", "opt-out", "registered office", "registered in england", "registered in scotland"),
    *("company number", "company no", "registered number", "vat number", "vat reg", "privacy policy", "privacy notice"),
    *(
        "you are receiving this",
        "you're receiving this",
        "you received this",
        "this email was sent",
        "this message was sent",
    ),
    *("this e-mail was sent", "authorised and regulated", "all rights reserved", "copyright", "\u00a9", "do not reply"),
    *(
        "don't reply",
        "terms and conditions",
        "terms of use",
        "terms & conditions",
        "view in browser",
        "view this email",
    ),
    *("intended recipient", "confidential", "email preferences", "manage preferences", "update your preferences"),
    *("reg. no", "registered charity", "why did i get this", "mailing address", "cookie policy", "privacy"),
)
_OFFERING = frozenset(
    (
        *("save", "sale", "deal", "deals", "discount", "discounts", "offer", "offers", "win", "free", "gift"),
        *("bonus", "upgrade", "shop", "buy", "exclusive", "reward", "rewards"),
    )
)
_OFFER_SIGNS = "%$\u00a3\u20ac!"
_MARKS = ".,;:()\"'-|*?"


def paragraphs(text: str) -> Iterator[tuple[SegmentKind, str]]:
    """The paragraphs of a plain text in order, each with its kind: paragraph, quoted or footer (after "-- ").

    Structure is looked for in the first `MAX_LINES` lines; what follows is one paragraph.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if _STRUCTURE.search(text):
        yield from _structured(text.split("\n", MAX_LINES))
    else:
        yield from ((SegmentKind.PARAGRAPH, block) for block in _BLANK_LINES.split(text, MAX_LINES) if block)


_TEXT, _QUOTE, _HEAD, _SIGN, _BLANK = range(5)


def _structured(lines: list[str]) -> Iterator[tuple[SegmentKind, str]]:
    """Join lines of one sort to paragraphs; a reply's head makes the rest quoted, a signature mark makes it footer."""
    last, held, rest = _TEXT, list[str](), SegmentKind.PARAGRAPH
    for line in lines:
        head = line.lstrip()[:1]
        if last == _TEXT and head.isalpha() and head not in "Oo":  # most lines: text that goes on
            held.append(line)
            continue
        sort = _sort(line)
        if held and (sort != last or sort == _HEAD or _LIST_ITEM.match(line)):
            yield _joined(held, last, rest)
            held = []
        last = sort
        if sort == _HEAD:
            rest = SegmentKind.QUOTED
        elif sort == _SIGN and rest != SegmentKind.QUOTED:
            rest = SegmentKind.FOOTER
        if sort not in (_SIGN, _BLANK):
            held.append(line.lstrip("> ") if sort == _QUOTE else line)
    if held:
        yield _joined(held, last, rest)


def _joined(lines: list[str], sort: int, rest: SegmentKind) -> tuple[SegmentKind, str]:
    """The lines as one paragraph; what offers something is no footer, wherever it stands."""
    text = " ".join(lines)
    if sort == _QUOTE:
        return SegmentKind.QUOTED, text
    return (SegmentKind.PARAGRAPH if rest == SegmentKind.FOOTER and _offers(text.lower()) else rest), text


def _sort(line: str) -> int:
    """What a line is; rulers count as blank."""
    if not line or line.isspace():
        return _BLANK
    if line.startswith(">"):
        return _QUOTE
    if line in _SIGNATURES:
        return _SIGN
    if line.startswith(("-", "O", "o", "_")) and _QUOTE_HEAD.match(line[:300]):
        return _HEAD
    return _BLANK if _RULER.fullmatch(line[:_LONGEST_RULER]) else _TEXT


def footer_start(texts: Sequence[str], kinds: Sequence[SegmentKind]) -> int:
    """Where the footer begins: `len(texts)` when there is none.

    Walks back from the end over footer wording and short neutral lines between it, and stops at anything else: a long
    sentence, a figure with a currency sign, an offer word. Such a block stays what it is and is judged.
    """
    start = position = len(texts)
    lowest = max(0, position - _FOOTER_TAIL)
    while position > lowest:
        position -= 1
        text = texts[position].lower()
        if kinds[position] == SegmentKind.QUOTED:
            break
        wording = is_footer_wording(text)
        if not wording and (len(text) > _FOOTER_SHORT or kinds[position] == SegmentKind.HEADING or _offers(text)):
            break
        if wording:
            start = position
    return start


def is_footer_wording(text: str) -> bool:
    """Whether a text (lower-case) reads like a footer line and offers nothing."""
    if len(text) > _FOOTER_LONGEST or not any(map(text.__contains__, _FOOTER_WORDS)):
        return False
    return not _offers(text)


def _offers(text: str) -> bool:
    """Whether a text (lower-case) has a figure or word of an offer in it: too much for a footer."""
    if any(map(text.__contains__, _OFFER_SIGNS)):
        return True
    return not _OFFERING.isdisjoint([word.strip(_MARKS) for word in text.split()])

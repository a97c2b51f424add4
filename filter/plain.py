"""Plain text -> paragraphs as a reader sees them, and the footer of any message. Never raises; pure; linear.

Lines of one paragraph are joined (RFC 3676 soft breaks or not), quoted replies are marked, and the block of legal and
unsubscribe lines at the end is told apart conservatively, so that promotion cannot pass for a footer.
"""

import re
from collections.abc import Iterator, Sequence

from .labels import SegmentKind

MAX_PARAGRAPHS = 10_000
"""Paragraphs of one text; what is left over is joined to the last."""

_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_QUOTE_HEAD = re.compile(
    r"^(?:-{2,}\s*(?:original message|forwarded message|original-nachricht)|on\b.{4,200}\bwrote:\s*$|_{20,}\s*$)",
    re.IGNORECASE,
)
_SIGNATURE = "-- "
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
    "save sale deal deals discount discounts offer offers win free gift bonus upgrade shop buy exclusive reward rewards".split()
)
_OFFER_SIGNS = "%$\u00a3\u20ac!"
_MARKS = ".,;:()\"'-|*?"


def paragraphs(text: str) -> Iterator[tuple[SegmentKind, str]]:
    """The paragraphs of a plain text in order, each with its kind: paragraph, quoted or footer (after "-- ")."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    quoted = footer = False
    for block in _BLANK_LINES.split(text, maxsplit=MAX_PARAGRAPHS):
        lines = block.split("\n")
        for kind, piece in _pieces(lines):
            if kind == _HEAD:
                quoted = True
            elif kind == _SIGN:
                footer = not quoted
            if piece:
                yield _kind(kind, quoted=quoted, footer=footer), piece


_TEXT, _QUOTE, _HEAD, _SIGN = range(4)


def _kind(piece: int, *, quoted: bool, footer: bool) -> SegmentKind:
    if quoted or piece == _QUOTE:
        return SegmentKind.QUOTED
    return SegmentKind.FOOTER if footer else SegmentKind.PARAGRAPH


def _pieces(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Runs of lines of one sort within a block, joined to one text each; rulers are dropped."""
    sort, held = _TEXT, list[str]()
    for line in lines:
        now = _sort(line)
        if now in (_HEAD, _SIGN) or now != sort or _LIST_ITEM.match(line):
            yield sort, " ".join(held)
            held = []
        sort = now
        if now == _SIGN or _RULER.fullmatch(line):
            continue
        held.append(line.lstrip("> ") if now == _QUOTE else line)
    yield sort, " ".join(held)


def _sort(line: str) -> int:
    if line.startswith(">"):
        return _QUOTE
    if line in (_SIGNATURE, "--"):
        return _SIGN
    if line.startswith(("-", "O", "o", "_")) and _QUOTE_HEAD.match(line[:300]):
        return _HEAD
    return _TEXT


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
        if not wording and (
            len(text) > _FOOTER_SHORT or kinds[position] == SegmentKind.HEADING or _offers(text)
        ):
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

"""Plain text -> paragraphs as a reader sees them, and the footer of any message. Never raises; pure; linear.

Lines of one paragraph are joined (RFC 3676 soft breaks or not), quoted replies are marked, and the block of legal and
unsubscribe lines at the end is told apart conservatively, so that promotion cannot pass for a footer.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

from .labels import SegmentKind

MAX_STRUCTURED = 200_000
"""Characters of one text in which marks of structure are looked for."""
MAX_LINES = 10_000
"""Marks of structure (blank lines, list items, quotations) of one text that are told apart."""

# Every line that is more than text that goes on. Each begins with its line end, which the engine finds by `memchr`, and
# what a line begins with already tells most lines of text.
_MARK = re.compile(
    r"""\n(?=[ ]*+(?:[-\s>=_*~\#+.\u2022\u00b7\d]|[oO][nN]\b))(?:
        (?P<quote>  >[^\n]*+(?:\n>[^\n]*+)* )
      | (?P<sign>   --[ ]?(?=\n) )
      | (?P<head>   (?i: -{2,}+[^\S\n]*+(?:original\ message|forwarded\ message|original-nachricht)[^\n]*+
                       | on\b.{4,200}\bwrote:[^\S\n]*+(?=\n) ))
      | [^\S\n]*+(?:
            (?P<blank> (?=\n) | (?:[-=_*~\#+.]++[^\S\n]*+)+(?=\n) )
          | (?P<item>  (?:[-*\u2022\u00b7+]|\d{1,2}[.)])[^\S\n]+\S ) )
    )""",
    re.VERBOSE,
)

_FOLD = re.compile(r"\r?\n[ \t]")
_CALENDAR = re.compile(
    r"^(?:SUMMARY|DESCRIPTION|COMMENT|LOCATION|X-ALT-DESC|X-WR-CALNAME|X-WR-CALDESC)(?:;[^:\n]*)?:([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_CALENDAR_ESCAPE = re.compile(r"\\([nN,;\\])")

_FOOTER_TAIL = 40
_FOOTER_LONGEST = 900
_FOOTER_SHORT = 60
_FOOTER_WORDS = (
    *("unsubscribe", "opt out", "opt-out", "registered office", "registered in england", "registered in scotland"),
    *("company number", "company no", "registered number", "vat number", "vat reg"),
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

    Lines of text are joined until something marks a new start: a blank line or ruler, a list item, a quoted line, the
    head of a reply (all below it is quoted) or a signature mark (all below it is footer, unless it offers something).
    After `MAX_LINES` such marks or `MAX_STRUCTURED` characters, what follows is one paragraph.
    """
    text = "\n" + text.replace("\r\n", "\n").replace("\r", "\n").strip() + "\n"
    rest, start = SegmentKind.PARAGRAPH, 0
    for mark in islice(_MARK.finditer(text, 0, MAX_STRUCTURED), MAX_LINES):
        if run := text[start : mark.start()]:
            yield _kind(run, rest), run
        sort, start = mark.lastgroup, mark.end()
        if sort == "item":
            start = mark.start()
        elif sort == "quote":
            yield SegmentKind.QUOTED, " ".join([line.lstrip("> ") for line in mark[0].split("\n")])
        elif sort == "head":
            rest = SegmentKind.QUOTED
            yield rest, mark[0]
        elif sort == "sign" and rest != SegmentKind.QUOTED:
            rest = SegmentKind.FOOTER
    if run := text[start:-1]:
        yield _kind(run, rest), run


def calendar_text(text: str) -> str:
    """What people read of an iCalendar object (RFC 5545): its summaries, descriptions and places."""
    unfolded = _FOLD.sub("", text)
    values = [found[1] for found in islice(_CALENDAR.finditer(unfolded), MAX_LINES)]
    return _CALENDAR_ESCAPE.sub(lambda found: "\n" if found[1] in "nN" else found[1], "\n\n".join(values))


def _kind(text: str, rest: SegmentKind) -> SegmentKind:
    """`rest`, but what offers something is no footer, wherever it stands."""
    return SegmentKind.PARAGRAPH if rest == SegmentKind.FOOTER and _offers(text.lower()) else rest


def footer_start(texts: Sequence[str], kinds: Sequence[SegmentKind]) -> int:
    """Where the footer begins: `len(texts)` when there is none.

    Walks back from the end over footer wording and short neutral lines between it, and stops at anything else: a long
    sentence, a figure with a currency sign, an offer word. Such a block stays what it is and is judged.
    """
    start = len(texts)
    for position in range(start - 1, max(0, start - _FOOTER_TAIL) - 1, -1):
        if kinds[position] == SegmentKind.QUOTED or len(texts[position]) > _FOOTER_LONGEST:
            break
        offers, wording = _footer_signs(texts[position])
        if offers:
            break
        if not wording and (len(texts[position]) > _FOOTER_SHORT or kinds[position] == SegmentKind.HEADING):
            break
        if wording:
            start = position
    return start


@lru_cache(maxsize=1_000)
def _footer_signs(text: str) -> tuple[bool, bool]:
    """Whether a text offers something, and whether it has footer wording; remembered, as footers are in every copy."""
    text = text.lower()
    return _offers(text), any(map(text.__contains__, _FOOTER_WORDS))


def _offers(text: str) -> bool:
    """Whether a text (lower-case) has a figure or word of an offer in it: too much for a footer."""
    if any(map(text.__contains__, _OFFER_SIGNS)):
        return True
    if not any(map(text.__contains__, _OFFERING)):  # not even inside another word
        return False
    return not _OFFERING.isdisjoint([word.strip(_MARKS) for word in text.split()])

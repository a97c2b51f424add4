"""The sheet: a message's text in the form that patterns are matched on, and the way back to the words as written.

A sheet holds every segment's sentences, one a line, folded to ASCII where a reader sees ASCII. It is made in a few
sweeps over the whole text, because it is made for every message. Pure; raises nothing; linear.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

OPENING: Final = "\x01"
CLOSING: Final = "\n"
BETWEEN: Final = CLOSING + OPENING

# Characters whose compatibility form is not the ASCII character a reader sees.
_LOOKS_LIKE: Final = dict(
    zip(
        "‘’‚‛′`´“”„«»″‐‑‒–—―−£€¥₹₽₩…。！？•·×ßæÆøØłŁđĐıœŒþð",  # noqa: RUF001 -- the confusable signs are the point
        "'''''''\"\"\"\"\"\"-------$$$$$$..!?**xsaAoOlLdDioOtd",
        strict=True,
    )
)
# Folded first, each in one sweep: most mail has no others.
_USUAL: Final = "£€’‘“”–—•"  # noqa: RUF001 -- as above
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]")


def sheet(segments: Iterable[str]) -> str:
    """The text that patterns are matched on: every segment's sentences, one a line.

    Each segment is preceded by `OPENING`, and the sheet ends with `CLOSING` and `OPENING`.
    """
    text = fold(OPENING + BETWEEN.join(segments) + BETWEEN).replace("-", " ").replace(", ", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    # A sentence ends with its mark and a space, perhaps after a closing quote or bracket.
    for mark in ".!?":
        if mark in text:
            for end in (mark, mark + '"', mark + ")"):
                text = text.replace(end + " ", end + CLOSING)
    return text


def offsets(segment: str) -> list[int]:
    """For each character that `sheet` keeps of a segment (`OPENING` apart), its offset in the segment; then the end.

    Slow and exact, for showing evidence; `sheet` is what the hot path uses.
    """
    folded, kept, before = fold(segment).replace("-", " "), [], ""
    for i, char in enumerate(folded):
        if (char == "," and folded[i + 1 : i + 2] == " ") or (char == " " and before == " "):
            continue
        kept.append(i)
        before = char
    return [*kept, len(segment)]


def fold(text: str) -> str:
    """Typographic and accented characters as the ASCII a reader sees, one for one; others as they are."""
    if text.isascii():
        return text
    for char in _USUAL:
        if char in text:
            text = text.replace(char, _LOOKS_LIKE[char])
    return text if text.isascii() else _FOREIGN.sub(_fold_char, text)


def _fold_char(match: re.Match[str]) -> str:
    char = match[0]
    return _FOLDED.get(char) or _FOLDED.setdefault(char, _ascii_look(char))


def _ascii_look(char: str) -> str:
    """The ASCII character a reader sees (é -> e, full-width A -> A); any other character stays as it is."""
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isascii() and base.isprintable() else char


_FOLDED: Final = dict(_LOOKS_LIKE)  # grows by what is met; bounded by the size of Unicode

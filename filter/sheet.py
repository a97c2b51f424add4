"""The sheet: a message's text in the form that patterns are matched on, and the way back to the words as written.

A sheet holds every segment's sentences, one a line, folded to ASCII where a reader sees ASCII. It is made in a few
sweeps over the whole text, because it is made for every message. Pure; raises nothing; linear.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from .segments import LOOKALIKES

OPENING: Final = "\x01"
CLOSING: Final = "\n"
BETWEEN: Final = CLOSING + OPENING

FIGURES: Final = " 0123456789.,:;/+-#()%*'$"
"""Characters of amounts, dates and numbers, as they stand in a sheet."""
WRITTEN_FIGURES: Final = FIGURES + "£€\u2013"
"""Characters that are folded to those."""

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
_SMALL_CAPITALS: Final = dict(
    zip(
        "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u0280\ua731\u1d1b\u1d1c"
        "\u1d20\u1d21\u028f\u1d22",
        "abcdefghijklmnoprstuvwyz",
        strict=True,
    )
)
# A word with Latin letters and those of a script that has letters like them.
_MIXED: Final = re.compile(
    r"(?<![A-Za-z\u0370-\u052f])(?:[A-Za-z]++(?=[\u0370-\u052f])|[\u0370-\u052f]++(?=[A-Za-z]))[A-Za-z\u0370-\u052f]++"
)
_OTHER: Final = re.compile("[\u0370-\u052f]")
_A_LATIN: Final = re.compile("[A-Za-z]")
_SEGMENT: Final = re.compile(f"[^{OPENING}]+")
_LATIN: Final = str.maketrans(LOOKALIKES)
_LIKE_LATIN: Final = frozenset(_LATIN)
# Marks that join words where no address has them. Each expression begins with its mark, which the engine finds fast.
_JOINTS: Final = {
    "_": re.compile(r"_(?<=[A-Za-z0-9%!]_)(?=[A-Za-z0-9$])"),
    "/": re.compile(r"/(?<=[A-Za-z]/)(?=[A-Za-z])"),
}
_LONGEST_WORD: Final = 100
_LONG_TEXT: Final = 20_000
_MAX_JOINTS: Final = 10_000  # of each mark in one text
_ADDRESS: Final = re.compile("[.:@?=&]")


def sheet(segments: Iterable[str]) -> str:
    """The text that patterns are matched on: every segment's sentences, one a line.

    Each segment is preceded by `OPENING`, and the sheet ends with `CLOSING` and `OPENING`.
    """
    text = spread(fold(OPENING + BETWEEN.join(segments) + BETWEEN)).replace(", ", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    # A sentence ends with its mark and a space, perhaps after a closing quote or bracket.
    for mark in ".!?":
        if mark in text:
            for end in (mark, mark + '"', mark + ")"):
                text = text.replace(end + " ", end + CLOSING)
    return text


def lines_of(text: str) -> list[str]:
    """The sentences of a text, as a sheet has them."""
    return [line.strip(f"{OPENING} ") for line in sheet([text]).split(CLOSING) if line.strip(f"{OPENING} ")]


def offsets(segment: str) -> list[int]:
    """For each character that `sheet` keeps of a segment (`OPENING` apart), its offset in the segment; then the end.

    Slow and exact, for showing evidence; `sheet` is what the hot path uses.
    """
    folded, kept, before = spread(fold(segment)), [], ""
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
    if len(text) >= _LONG_TEXT:
        return _fold_long(text)
    for char in _USUAL:
        if char in text:
            text = text.replace(char, _LOOKS_LIKE[char])
    if not text.isascii():
        text = _FOREIGN.sub(_fold_char, text)
    return text if text.isascii() else _as_seen(text)


def _fold_long(text: str) -> str:
    """The same by one table for all characters: dearer than a few substitutions, far cheaper than very many."""
    table = {ord(char): char if char.isascii() else _folded(char) for char in set(text)}
    text = text.translate(table)
    return _as_seen(text) if not _LIKE_LATIN.isdisjoint(table) else text


def _as_seen(text: str) -> str:
    """Letters that look like Latin ones as those: in words that have Latin ones too, and in segments beside Latin ones
    where no letter tells that the other script is meant.
    """
    text = _MIXED.sub(_as_latin, text)
    return _SEGMENT.sub(_all_latin, text) if _OTHER.search(text) else text


def _all_latin(match: re.Match[str]) -> str:
    others = set(_OTHER.findall(match[0]))
    return match[0].translate(_LATIN) if others and others <= _LIKE_LATIN and _A_LATIN.search(match[0]) else match[0]


def _as_latin(match: re.Match[str]) -> str:
    return match[0].translate(_LATIN)


def spread(text: str) -> str:
    """Hyphens, and other marks that join words, as spaces, one for one."""
    for mark, joint in _JOINTS.items():
        if mark in text:
            text = joint.sub(_space_or_mark, text, _MAX_JOINTS)
    return text.replace("-", " ")


def _space_or_mark(match: re.Match[str]) -> str:
    """A space, unless what stands before the mark in its word shows an address."""
    text, at = match.string, match.start()
    start = max(text.rfind(before, max(0, at - _LONGEST_WORD), at) for before in (" ", OPENING))
    return match[0] if _ADDRESS.search(text, max(start, 0, at - _LONGEST_WORD), at) else " "


def _fold_char(match: re.Match[str]) -> str:
    return _folded(match[0])


def _folded(char: str) -> str:
    return _FOLDED.get(char) or _FOLDED.setdefault(char, _ascii_look(char))


def _ascii_look(char: str) -> str:
    """The ASCII character a reader sees (é -> e, full-width A -> A); any other character stays as it is."""
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isascii() and base.isprintable() else char


_FOLDED: Final = _LOOKS_LIKE | _SMALL_CAPITALS  # grows by what is met; bounded by the size of Unicode

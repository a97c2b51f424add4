"""HTML -> blocks of text in reading order, through Lexbor: what a reader sees, and what is there but out of sight.

Never raises on bad HTML; pure; linear. The text of the whole page (`marked`) has a NUL between two blocks and control
characters where other elements began and ended; only lines with such a mark are looked at closely. Nothing but the
separator is ever a NUL, for HTML has none. A page that brings control characters of its own is freed of them
and read again. One that would make tree building quadratic (see `outline`) is read as bare text instead, with a
defect, so that nothing is lost. Hidden text is marked, not dropped (see `styles`).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .labels import SegmentKind
from .marked import (
    BREAK,
    END_HEADING,
    END_LINK,
    HEADING,
    HIDDEN,
    LINK,
    MARKS,
    PICTURE,
    SEPARATOR,
    TABLE,
    Marked,
    marked_text,
)
from .outline import MAX_TAGS, cut_tags, is_tame, strip_tags
from .pictures import SLICES
from .segments import Defect, DefectCode

MAX_BLOCKS = 10_000
"""Blocks of text read from a page without structure; the rest is joined to the last."""
_LONGEST_CELL = 80

_IMAGE = re.compile(rb"<img\b", re.IGNORECASE)
_MARK = re.compile(f"([{MARKS}])")
_PARAGRAPH_BREAK = re.compile(r"\x03(?:\s*\x03)+")
_CONTROLS = re.compile(rb"[\x01-\x07\x0e\x0f]|&#(?:0*(?:[1-7]|1[45])(?![0-9])|[xX]0*[1-7eEfF](?![0-9a-fA-F]));?")
_ZERO_WIDTH = "\u200b".encode()


class Page(NamedTuple):
    """What a page says: kinds and texts of its blocks (not cleaned), the indexes of hidden ones, links as (host, path,
    index of the block or -1), the number of pictures shown; `pictured` says that they may carry the message.
    """

    kinds: list[SegmentKind]
    texts: list[str]
    hidden: list[int]
    links: list[tuple[str, str, int]]
    pictures: int
    defects: list[Defect]
    pictured: bool = False


def read_page(html: bytes) -> Page:
    """Read UTF-8 HTML."""
    defects: list[Defect] = []
    whole = cut_tags(html)
    if whole is not html:
        defects.append(Defect(DefectCode.TEXT_TOO_LARGE, f"{MAX_TAGS} tags"))
    if not is_tame(whole):
        defects.append(Defect(DefectCode.STRUCTURE_LOST))
        return _bare(whole, defects)
    reader = _Reader(marked_text(whole))
    if not reader.read():
        reader = _Reader(marked_text(_CONTROLS.sub(_ZERO_WIDTH, whole)))
        if not reader.read():
            defects.append(Defect(DefectCode.STRUCTURE_LOST))
            return _bare(whole, defects)
    marked = reader.marked
    if marked.turned:
        defects.append(Defect(DefectCode.OBFUSCATED))
    pictured = marked.pictured or marked.area > SLICES
    return Page(reader.kinds, reader.texts, reader.hidden, marked.links, marked.pictures, defects, pictured)


def _bare(html: bytes, defects: list[Defect]) -> Page:
    lines = [line for line in strip_tags(html).split("\n") if line and not line.isspace()]
    if len(lines) > MAX_BLOCKS:
        lines[MAX_BLOCKS - 1 :] = [" ".join(lines[MAX_BLOCKS - 1 :])]
    pictures = sum(1 for _ in _IMAGE.finditer(html))
    return Page([SegmentKind.PARAGRAPH] * len(lines), lines, [], [], pictures, defects, pictures > 0)


def _marked_places(text: str) -> list[int]:
    """Where the marks of a text are: `str.find` for each goes through it far faster than an expression for all."""
    places = []
    for sign in MARKS:
        at = text.find(sign)
        while at >= 0:
            places.append(at)
            at = text.find(sign, at + 1)
    return sorted(places)


class _Reader:
    """The columns of a page, line by line."""

    def __init__(self, marked: Marked) -> None:
        self.kinds: list[SegmentKind] = []
        self.texts: list[str] = []
        self.hidden: list[int] = []
        self.marked = marked
        self._targets = iter(marked.targets)
        self._waiting: list[int] = []  # links begun whose text was not met yet
        self._links = self._headings = 0  # open at the place reached
        self._table: int | None = None  # index of the first block of the table that is open

    def read(self) -> bool:
        """Read the text; False when there are other marks in it than those that were set."""
        text = self.marked.text
        if text.count(BREAK) != self.marked.breaks:
            return False
        if self.marked.breaks:
            text = _PARAGRAPH_BREAK.sub(SEPARATOR, text).replace(BREAK, " ")
        places = _marked_places(text)
        if len(places) != self.marked.count:
            return False
        done = 0  # where the next line begins
        for place in places:
            if place < done:
                continue
            start, end = text.rfind(SEPARATOR, done, place) + 1 or done, text.find(SEPARATOR, place)
            if start > done:
                self._add_lines(text[done : start - 1].split(SEPARATOR))
            end = end if end >= 0 else len(text)
            self._add_marked(iter(_MARK.split(text[start:end])))
            done = end + 1
        if done <= len(text):
            self._add_lines(text[done:].split(SEPARATOR))
        return True

    def _add_lines(self, lines: list[str]) -> None:
        """Lines without marks: all of one kind."""
        if self._waiting:
            self._place_links()
        self.texts += lines
        if self._table is None or self._links or max(map(len, lines)) <= _LONGEST_CELL:
            self.kinds += [self._kind(lines[0])] * len(lines)
        else:
            self.kinds += map(self._kind, lines)

    def _kind(self, text: str) -> SegmentKind:
        """The kind of a text at the place reached."""
        if self._links:
            return SegmentKind.BUTTON
        if self._headings:
            return SegmentKind.HEADING
        if self._table is not None and len(text) <= _LONGEST_CELL:
            return SegmentKind.CELL
        return SegmentKind.PARAGRAPH

    def _add_marked(self, pieces: Iterator[str]) -> None:
        """One line cut at its marks: texts and marks in turn."""
        words: list[str] = []
        asides: list[str] = []
        kinds: list[SegmentKind] = []
        for piece in pieces:
            if piece and not piece.isspace():
                kinds.append(self._kind(piece))
                self._place_links()
            if piece and kinds:
                words.append(piece)
            found = next(pieces, "")
            if found == HIDDEN:
                asides.append(self.marked.hidden[int(next(pieces))])
                next(pieces)
                if not words:
                    self._add_hidden(asides)
            elif found == PICTURE:
                self._picture(next(pieces), words)
                next(pieces)
            elif found:
                self._step(found)
        if words:
            whole = kinds[0] if len(set(kinds)) == 1 else next(kind for kind in kinds if kind is not SegmentKind.BUTTON)
            self._add(whole, "".join(words))
        self._add_hidden(asides)

    def _step(self, found: str) -> None:
        if found == LINK:
            self._links += 1
            target = next(self._targets)
            if target >= 0:
                self._waiting.append(target)
        elif found == END_LINK:
            self._links -= 1
            self._waiting.clear()
        elif found == HEADING:
            self._headings += 1
        elif found == END_HEADING:
            self._headings -= 1
        elif found == TABLE:
            self._table = len(self.texts)
        else:
            self._end_table()

    def _end_table(self) -> None:
        """A text that is alone in its table is no cell."""
        if self._table == len(self.texts) - 1 and self.kinds[-1] is SegmentKind.CELL:
            self.kinds[-1] = SegmentKind.PARAGRAPH
        self._table = None

    def _picture(self, text: str, words: list[str]) -> None:
        """In the middle of a sentence a picture is read with it."""
        self._place_links()
        if words:
            words.append(f" {text} ")
        else:
            self._add(SegmentKind.ALT, text)

    def _place_links(self) -> None:
        """The links that are open are shown by the segment that comes next."""
        for target in self._waiting:
            self.marked.links[target] = (*self.marked.links[target][:2], len(self.texts))
        self._waiting.clear()

    def _add(self, kind: SegmentKind, text: str) -> None:
        self.kinds.append(kind)
        self.texts.append(text)

    def _add_hidden(self, texts: list[str]) -> None:
        for text in texts:
            self.hidden.append(len(self.texts))
            self._add(SegmentKind.PARAGRAPH, text)
        texts.clear()

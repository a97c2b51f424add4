"""HTML -> blocks of text in reading order, through Lexbor: what a reader sees, and what is there but out of sight.

Never raises on bad HTML; pure; linear. Python looks at few nodes only: elements that are no plain block (one query
finds them) are taken out of the tree and leave control characters where they began and ended; then one call collects
the text of the whole page, a NUL between two blocks, and only lines with such a mark are looked at closely. Nothing
but the separator is ever a NUL, for HTML has none. A page that brings control characters of its own is freed of them
and read again. One that would make tree building quadratic (see `outline`) is read as bare text instead, with a
defect, so that nothing is lost. Hidden text is marked, not dropped (see `styles`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from .allocator import keep_freed_memory
from .labels import SegmentKind
from .outline import MAX_TAGS, cut_tags, is_tame, strip_tags
from .pictures import SLICES, Shown, judge_picture
from .segments import Defect, DefectCode, clean, parse_url
from .styles import hidden_nodes, mark

MAX_BLOCKS = 10_000
"""Blocks of text read from a page without structure; the rest is joined to the last."""
_MAX_CLIMB = 12  # elements around a hidden one that are looked through for another
_LONGEST_CELL = 80

_NO_EVENTS = int(LexborDocumentOptions.WO_EVENTS)  # they serve scripts and <selectedcontent>
_FREQUENT_BLOCKS = "td,tr,p,div,tbody,table,li,ul,th"  # the most frequent first
_RARE_BLOCKS = (  # the query would take longer to read their names than it takes to pass over what it finds
    "body center hr address article aside blockquote caption dd details dialog dl dt fieldset figcaption figure footer "
    "form header legend main menu nav ol option pre section summary textarea tfoot thead title"
)
_PASSED_OVER = frozenset(_RARE_BLOCKS.split())
_SPECIAL = f":not({_FREQUENT_BLOCKS}),table:not(:has(table)):has(td + td)"
_UNHIDEABLE = frozenset({"html", "head", "body"})
_IMAGE = re.compile(rb"<img\b", re.IGNORECASE)
_CAPTIONED = frozenset({"submit", "button", "reset"})

# What stands in the text for an element; a hidden one and a picture have a mark on both sides of what is between.
_SEPARATOR, _HIDDEN, _PICTURE, _BREAK, _LINK, _END_LINK, _HEADING, _END_HEADING = map(chr, range(8))
_TABLE, _END_TABLE = "\x0e\x0f"
_MARKS = "\x01\x02\x03\x04\x05\x06\x07\x0e\x0f"
_MARK = re.compile(f"([{_MARKS}])")
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
    reader = _Reader(_marked_text(whole))
    if not reader.read():
        reader = _Reader(_marked_text(_CONTROLS.sub(_ZERO_WIDTH, whole)))
        if not reader.read():
            defects.append(Defect(DefectCode.STRUCTURE_LOST))
            return _bare(whole, defects)
    marked = reader.marked
    pictured = marked.pictured or marked.area > SLICES
    return Page(reader.kinds, reader.texts, reader.hidden, marked.links, marked.pictures, defects, pictured)


def _bare(html: bytes, defects: list[Defect]) -> Page:
    lines = [line for line in strip_tags(html).split("\n") if line and not line.isspace()]
    if len(lines) > MAX_BLOCKS:
        lines[MAX_BLOCKS - 1 :] = [" ".join(lines[MAX_BLOCKS - 1 :])]
    pictures = sum(1 for _ in _IMAGE.finditer(html))
    return Page([SegmentKind.PARAGRAPH] * len(lines), lines, [], [], pictures, defects, pictures > 0)


class _Marked:
    """A tree whose elements give way to marks in its text."""

    def __init__(self) -> None:
        self.text = ""
        self.hidden: list[str] = []
        self.targets: list[int] = []  # for each marked link its index in `links`, or -1
        self.links: list[tuple[str, str, int]] = []
        self.pictures = self.area = 0
        self.pictured = False
        self.count = 0  # marks that were set
        self.breaks = 0

    def set_aside(self, nodes: Iterable[LexborNode]) -> None:
        """Keep the text of each outermost hidden element and put its number where it was."""
        found = {node.mem_id: node for node in nodes if node.tag not in _UNHIDEABLE}
        for node in [node for node in found.values() if not _is_inside(node, found)]:
            text = node.text(separator=" ", skip_empty=True)
            node.replace_with(f"{_HIDDEN}{len(self.hidden)}{_HIDDEN}")
            self.hidden.append(text)
            self.count += 2

    def replace(self, node: LexborNode) -> None:
        """Leave the marks of an element, and what is in it unless it is code."""
        special = _REPLACE.get(node.tag or "")
        if special:
            special(self, node)
        elif node.tag not in _PASSED_OVER:
            node.unwrap(delete_empty=True)

    def link(self, node: LexborNode) -> None:
        """A link (or button)."""
        target = parse_url(node.attributes.get("href") or "") if node.tag == "a" else None
        if target:
            self.links.append((*target, -1))
        if node.first_child is not None:
            self.targets.append(len(self.links) - 1 if target else -1)
            self._enclose(node, _LINK, _END_LINK)
        node.unwrap(delete_empty=True)

    def button(self, node: LexborNode) -> None:
        """A button stays a block: its marks go inside."""
        if node.first_child is not None:
            self.targets.append(-1)
            self._fill(node, _LINK, _END_LINK)

    def heading(self, node: LexborNode) -> None:
        """A heading stays a block: its marks go inside."""
        if node.first_child is not None:
            self._fill(node, _HEADING, _END_HEADING)

    def _enclose(self, node: LexborNode, start: str, end: str) -> None:
        node.insert_before(start)
        node.insert_after(end)
        self.count += 2

    def _fill(self, node: LexborNode, start: str, end: str) -> None:
        if node.first_child is not None:
            node.first_child.insert_before(start)
            node.insert_child(end)
            self.count += 2

    def line_break(self, node: LexborNode) -> None:
        """A line break."""
        node.replace_with(_BREAK)
        self.breaks += 1

    def table(self, node: LexborNode) -> None:
        """An innermost table with columns (see `_SPECIAL`) stays a block: its marks go around it."""
        self._enclose(node, _TABLE, _END_TABLE)

    def picture(self, node: LexborNode) -> None:
        """A picture's other text stands in its place."""
        attributes = node.attributes
        shown, area = judge_picture(attributes)
        if shown:
            self.pictures += 1
            self.area += area
            if shown is Shown.LARGE or (shown is Shown.BANNER and _follows_link(node)):
                self.pictured = True
        text, title = clean(attributes.get("alt") or ""), attributes.get("title")
        if title and clean(title) != text:
            text = clean(f"{text} {title}")
        if text:
            node.replace_with(f"{_PICTURE}{text}{_PICTURE}")
            self.count += 2
        else:
            node.decompose()

    def field(self, node: LexborNode) -> None:
        """A button of a form has its caption in an attribute."""
        attributes = node.attributes
        caption = "value" if (attributes.get("type") or "").lower() in _CAPTIONED else "alt"
        if text := clean(attributes.get(caption) or ""):
            self.targets.append(-1)
            node.replace_with(f" {_LINK}{text}{_END_LINK} ")
            self.count += 2
        else:
            node.decompose()


def _follows_link(node: LexborNode) -> bool:
    """Whether a link begins right before an element, perhaps with space between."""
    before = node.prev
    if before is not None and before.is_text_node and not (before.text_content or "").strip(" \n\r\t"):
        before = before.prev
    return before is not None and before.is_text_node and before.text_content == _LINK


def _drop(_marked: _Marked, node: LexborNode) -> None:
    node.decompose()


_REPLACE: dict[str, Callable[[_Marked, LexborNode], None]] = {
    "a": _Marked.link,
    "button": _Marked.button,
    "br": _Marked.line_break,
    "img": _Marked.picture,
    "input": _Marked.field,
    "table": _Marked.table,
    "script": _drop,
    "style": _drop,
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _Marked.heading),
}


def _marked_text(html: bytes) -> _Marked:
    """The page's text with its marks."""
    look = mark(html)
    keep_freed_memory()
    tree = LexborHTMLParser(look.html, options=_NO_EVENTS)
    marked = _Marked()
    marked.pictured = look.background
    marked.pictures += look.background
    if look.marked or look.classes:
        marked.set_aside(hidden_nodes(tree, look))
    root = tree.body or tree.root
    if root is not None:
        if look.comments:
            _drop_comments(root)
        for node in root.css(_SPECIAL):
            marked.replace(node)
        root.merge_text_nodes()
        marked.text = root.text(separator=_SEPARATOR, skip_empty=True)
    return marked


def _drop_comments(root: LexborNode) -> None:
    """Take out comments and the like, for they may stand inside a word."""
    nodes = root.traverse(include_text=True, skip_empty=True)
    for node in [node for node in nodes if not (node.is_element_node or node.is_text_node)]:
        node.remove()


def _is_inside(node: LexborNode, elements: dict[int, LexborNode]) -> bool:
    here = node.parent
    for _ in range(_MAX_CLIMB):
        if here is None:
            return False
        if here.mem_id in elements:
            return True
        here = here.parent
    return False


def _marked_places(text: str) -> list[int]:
    """Where the marks of a text are: `str.find` for each goes through it far faster than an expression for all."""
    places = []
    for sign in _MARKS:
        at = text.find(sign)
        while at >= 0:
            places.append(at)
            at = text.find(sign, at + 1)
    return sorted(places)


class _Reader:
    """The columns of a page, line by line."""

    def __init__(self, marked: _Marked) -> None:
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
        if text.count(_BREAK) != self.marked.breaks:
            return False
        if self.marked.breaks:
            text = _PARAGRAPH_BREAK.sub(_SEPARATOR, text).replace(_BREAK, " ")
        places = _marked_places(text)
        if len(places) != self.marked.count:
            return False
        done = 0  # where the next line begins
        for place in places:
            if place < done:
                continue
            start, end = text.rfind(_SEPARATOR, done, place) + 1 or done, text.find(_SEPARATOR, place)
            if start > done:
                self._add_lines(text[done : start - 1].split(_SEPARATOR))
            end = end if end >= 0 else len(text)
            self._add_marked(iter(_MARK.split(text[start:end])))
            done = end + 1
        if done <= len(text):
            self._add_lines(text[done:].split(_SEPARATOR))
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
            if found == _HIDDEN:
                asides.append(self.marked.hidden[int(next(pieces))])
                next(pieces)
                if not words:
                    self._add_hidden(asides)
            elif found == _PICTURE:
                self._picture(next(pieces), words)
                next(pieces)
            elif found:
                self._step(found)
        if words:
            whole = kinds[0] if len(set(kinds)) == 1 else next(kind for kind in kinds if kind is not SegmentKind.BUTTON)
            self._add(whole, "".join(words))
        self._add_hidden(asides)

    def _step(self, found: str) -> None:
        if found == _LINK:
            self._links += 1
            target = next(self._targets)
            if target >= 0:
                self._waiting.append(target)
        elif found == _END_LINK:
            self._links -= 1
            self._waiting.clear()
        elif found == _HEADING:
            self._headings += 1
        elif found == _END_HEADING:
            self._headings -= 1
        elif found == _TABLE:
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

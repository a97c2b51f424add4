"""HTML -> blocks of text in reading order, through Lexbor: what a reader sees, and what is there but out of sight.

Never raises on bad HTML; pure; one walk over the tree. A page that would make tree building quadratic (see `outline`)
is read as bare text instead, with a defect, so that nothing is lost. Hidden text is marked, not dropped (see `styles`).
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from .allocator import keep_freed_memory
from .labels import SegmentKind
from .outline import MAX_TAGS, cut_tags, is_tame, strip_tags
from .segments import Defect, DefectCode, parse_url
from .styles import hidden_nodes, mark

MAX_BLOCKS = 10_000
"""Blocks of text read from a page without structure; the rest is joined to the last."""
_MAX_CLIMB = 12  # elements around a text that are looked through for the link and the block it stands in
_LONGEST_CELL = 80

_FACTORY = LexborHTMLParser("")
_NO_EVENTS = int(LexborDocumentOptions.WO_EVENTS)  # they serve scripts and <selectedcontent>


def _tags(names: str) -> frozenset[int]:
    """Lexbor's numbers of these elements."""
    return frozenset(_FACTORY.create_node(name).tag_id for name in names.split())


_TEXT = 2
_STAND_IN_NAME = "noframes"  # takes the place of a hidden element: no reader shows it
(_STAND_IN,) = _tags(_STAND_IN_NAME)
(_ROW,) = _tags("tr")
(_LINK,) = _tags("a")
(_PICTURE,) = _tags("img")
(_BREAK,) = _tags("br")
(_PARAGRAPH,) = _tags("p")
_CELLS = _tags("td th")
_CHECKED = _tags("h1 h2 h3 h4 h5 h6 button")
_SPECIAL = _tags(f"a br img script style {_STAND_IN_NAME}")
_BLOCKS = frozenset[int]().union(
    *(_CELLS, _CHECKED),
    _tags(
        "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure"
    ),
    _tags("footer form header hr legend li main menu nav ol option p pre section summary table tbody textarea tfoot"),
    _tags("thead title tr ul"),
)
_KINDS = {
    **dict.fromkeys(_BLOCKS, SegmentKind.PARAGRAPH),
    **dict.fromkeys(_CHECKED, SegmentKind.HEADING),
    **dict.fromkeys(_tags("button a"), SegmentKind.BUTTON),
    _PICTURE: SegmentKind.ALT,
}
_HIDEABLE = frozenset(range(1, 1000)) - _tags("html head body")
_PARAGRAPH_BREAKS = 2
_PIXEL = frozenset({"0", "1"})


class Page(NamedTuple):
    """What a page says: kinds and texts of its blocks (not cleaned), the indexes of hidden ones, links as (host, path,
    index of the block or -1), the number of pictures shown.
    """

    kinds: list[SegmentKind]
    texts: list[str]
    hidden: list[int]
    links: list[tuple[str, str, int]]
    pictures: int
    defects: list[Defect]


def read_page(html: bytes) -> Page:
    """Read UTF-8 HTML."""
    defects: list[Defect] = []
    whole = cut_tags(html)
    if whole is not html:
        defects.append(Defect(DefectCode.TEXT_TOO_LARGE, f"{MAX_TAGS} tags"))
    if not is_tame(whole):
        defects.append(Defect(DefectCode.STRUCTURE_LOST))
        return _bare(whole, defects)
    look = mark(whole)
    keep_freed_memory()
    tree = LexborHTMLParser(look.html, options=_NO_EVENTS)
    reader = _Reader()
    if look.marked or look.classes:
        reader.set_aside(tree, hidden_nodes(tree, look))
    root = tree.body or tree.root
    if root is not None:
        reader.read(root)
    return reader.page(defects)


def _bare(html: bytes, defects: list[Defect]) -> Page:
    lines = [line for line in strip_tags(html).split("\n") if line and not line.isspace()]
    if len(lines) > MAX_BLOCKS:
        lines[MAX_BLOCKS - 1 :] = [" ".join(lines[MAX_BLOCKS - 1 :])]
    return Page([SegmentKind.PARAGRAPH] * len(lines), lines, [], [], 0, defects)


class _Reader:
    """One walk over a tree.

    A block is begun by its first text and grows while texts follow in the same element; `tags` says for each block
    which element (or picture, or link) gave it its kind.
    """

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.texts: list[str] = []
        self.rows: list[int] = []  # the index of the first block of each table row
        self.joined: dict[int, list[str]] = {}  # the pieces of blocks that grew
        self.links: list[tuple[str, str, int]] = []
        self.pictures = 0
        self.hidden: list[str] = []  # text of hidden elements by the number of their stand-in
        self.asides: list[tuple[int, str]] = []  # hidden text, and the block before which it was met
        self.first: LexborNode | None = None  # the text that began the last block
        self.known: tuple[LexborNode | None, tuple[int, int]] = (None, (0, 0))
        self.link: LexborNode | None = None  # the last link
        self.skip = False

    def set_aside(self, tree: LexborHTMLParser, nodes: Iterable[LexborNode]) -> None:
        """Put an empty stand-in where each outermost hidden element is, and keep its text for when it is met."""
        hidden = {node.mem_id: node for node in nodes if node.tag_id in _HIDEABLE}
        for node in [node for node in hidden.values() if not _is_inside(node, hidden)]:
            stand_in = tree.create_node(_STAND_IN_NAME)
            stand_in.attrs["n"] = str(len(self.hidden))
            self.hidden.append(node.text(separator=" ", skip_empty=True))
            node.replace_with(stand_in)

    def read(self, root: LexborNode) -> None:
        """Visit every node in document order; empty texts are left out, and looked for where two texts are joined."""
        texts, tags, rows = self.texts, self.tags, self.rows
        add_text, add_tag, blocks, special = texts.append, tags.append, _BLOCKS, _SPECIAL
        text_tag, row_tag, checked = _TEXT, _ROW, _CHECKED  # locals: this loop is most of the time spent in Python
        block, growing, closely, breaks = _PARAGRAPH, False, False, 0
        for node in root.traverse(include_text=True, skip_empty=True):
            tag = node.tag_id
            if tag == text_tag:
                if closely:
                    growing = self._text(node, breaks, growing=growing)
                else:
                    add_text(node.text_content or "")
                    add_tag(block)
                    self.first = node
                    growing = closely = True
                breaks = 0
            elif tag in blocks:
                block, growing = tag, False
                closely = tag in checked or self.link is not None
                if tag == row_tag:
                    rows.append(len(texts))
            elif tag in special:
                if tag == _BREAK:
                    breaks += 1
                else:
                    closely = True
                    self._special(node, tag, growing=growing)

    def _special(self, node: LexborNode, tag: int, *, growing: bool) -> None:
        if tag == _LINK:
            self._link(node)
        elif tag == _PICTURE:
            self._picture(node, growing=growing)
        elif tag == _STAND_IN:
            number = node.attributes.get("n") or ""
            if self.hidden and number.isdecimal():  # else it is the page's own
                self.asides.append((len(self.texts), self.hidden[int(number) % len(self.hidden)]))
        else:  # script, style: their text follows at once
            self.skip = node.first_child is not None and not node.first_child.is_empty_text_node

    def _text(self, node: LexborNode, breaks: int, *, growing: bool) -> bool:
        """A text that may go on with the last block, stand in a link, or not be shown at all."""
        if self.skip:
            self.skip = False
            return growing
        text = node.text_content or ""
        linked = self.link is not None and _is_inside(node, {self.link.mem_id: self.link})
        block = _block_of(node)
        if growing and breaks < _PARAGRAPH_BREAKS and block == self._block():
            spaced = breaks or _is_space_before(node)
            self._grow(f" {text}" if spaced else text)
            if self.tags[-1] == _LINK and not linked:
                self.tags[-1] = block[0]
        else:
            self.first = node
            self.texts.append(text)
            self.tags.append(_LINK if linked else _PARAGRAPH if growing and breaks else block[0])
        self._place_link(linked=linked)
        return True

    def _block(self) -> tuple[int, int]:
        """Where the last block's first text stands."""
        if self.known[0] is not self.first:
            self.known = (self.first, _block_of(self.first))
        return self.known[1]

    def _grow(self, text: str) -> None:
        last = len(self.texts) - 1
        self.joined.setdefault(last, [self.texts[last]]).append(text)

    def _link(self, node: LexborNode) -> None:
        target = parse_url(node.attributes.get("href") or "")
        self.link = node if node.first_child is not None else None
        if target:
            self.links.append((*target, -1))

    def _place_link(self, *, linked: bool) -> None:
        """The block begun or grown last shows the last link; a text outside of it ends it."""
        if not linked:
            self.link = None
        elif self.links and self.links[-1][2] < 0:
            self.links[-1] = (*self.links[-1][:2], len(self.texts) - 1)

    def _picture(self, node: LexborNode, *, growing: bool) -> None:
        attributes = node.attributes
        self.pictures += attributes.get("width") not in _PIXEL
        text = attributes.get("alt") or ""
        if not text or text.isspace():
            return
        if growing and _block_of(node) == self._block():  # in the middle of a sentence it is read with it
            self._grow(f" {text} ")
            return
        self.texts.append(text)
        self.tags.append(_PICTURE)
        self._place_link(linked=self.link is not None and _is_inside(node, {self.link.mem_id: self.link}))

    def page(self, defects: list[Defect]) -> Page:
        """What was read, hidden texts put back where they were met."""
        for index, pieces in self.joined.items():
            self.texts[index] = "".join(pieces)
        kinds = list(map(_KINDS.__getitem__, self.tags))
        self._settle_cells(kinds)
        places = [place for place, _ in self.asides]
        for place, text in reversed(self.asides):
            self.texts.insert(place, text)
            kinds.insert(place, SegmentKind.PARAGRAPH)
        hidden = [place + before for before, place in enumerate(places)]
        if places:
            self.links = [(*link[:2], link[2] + bisect_right(places, link[2])) for link in self.links]
        return Page(kinds, self.texts, hidden, self.links, self.pictures, defects)

    def _settle_cells(self, kinds: list[SegmentKind]) -> None:
        """Texts of one row that stand in two or more of its cells are table cells, unless it ends in a long text."""
        texts, tags, cell, last = self.texts, self.tags, [SegmentKind.CELL], len(self.texts)
        for start in reversed(self.rows):
            count, end, last = last - start, last, start
            if count > 1 and len(texts[end - 1]) <= _LONGEST_CELL and _CELLS.issuperset(tags[start:end]):
                kinds[start:end] = cell * count


def _is_inside(node: LexborNode, elements: dict[int, LexborNode]) -> bool:
    here = node.parent
    for _ in range(_MAX_CLIMB):
        if here is None:
            return False
        if here.mem_id in elements:
            return True
        here = here.parent
    return False


def _block_of(node: LexborNode | None) -> tuple[int, int]:
    """Number of the tag and id of the block a text stands in."""
    here = node.parent if node is not None else None
    for _ in range(_MAX_CLIMB):
        if here is None:
            break
        tag = here.tag_id
        if tag in _BLOCKS:
            return tag, here.mem_id
        here = here.parent
    return _PARAGRAPH, 0


def _is_space_before(node: LexborNode) -> bool:
    """Whether white space alone stands between this text and the one before it in its block."""
    here: LexborNode | None = node
    for _ in range(_MAX_CLIMB):
        if here is None or here.tag_id in _BLOCKS:
            return False
        before = here.prev
        if before is not None:
            while before.last_child is not None:
                before = before.last_child
            return before.is_empty_text_node
        here = here.parent
    return False

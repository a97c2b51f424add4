"""HTML -> blocks of text in reading order, through Lexbor: what a reader sees, and what is there but out of sight.

Never raises on bad HTML; pure; one walk over the tree. A page that would make tree building quadratic (see `outline`) is
read as bare text instead, with a defect, so that nothing is lost. Hidden text is marked, not dropped (see `styles`).
"""

from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from .labels import SegmentKind
from .outline import MAX_TAGS, cut_tags, is_tame, strip_tags
from .segments import Defect, DefectCode, parse_url
from .styles import hidden_nodes, mark

MAX_BLOCKS = 10_000
"""Blocks of text read from one page."""
_MAX_CLIMB = 16  # inline elements around a text that are looked through for the block it stands in

_FACTORY = LexborHTMLParser("")
_TEXT = 2


class _Role:
    """What an element means for the text in it."""

    BLOCK, CELL, ROW, HEADING, BUTTON, LINK, PICTURE, BREAK, QUOTE, SKIP = range(10)


_NAMES = {
    _Role.BLOCK: "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption "
    "figure footer form header hr legend li main menu nav ol option p pre section summary table tbody textarea tfoot "
    "thead title ul",
    _Role.CELL: "td th",
    _Role.ROW: "tr",
    _Role.HEADING: "h1 h2 h3 h4 h5 h6",
    _Role.BUTTON: "button",
    _Role.LINK: "a area",
    _Role.PICTURE: "img",
    _Role.BREAK: "br",
    _Role.SKIP: "script style",
}
_ROLES = {_FACTORY.create_node(name).tag_id: role for role, names in _NAMES.items() for name in names.split()}
_BLOCKS = frozenset(tag for tag, role in _ROLES.items() if role in range(_Role.BLOCK, _Role.LINK))
_KINDS = {_Role.HEADING: SegmentKind.HEADING, _Role.BUTTON: SegmentKind.BUTTON}


class Block(NamedTuple):
    """One block of text as found, not yet cleaned."""

    kind: SegmentKind
    text: str
    hidden: bool


class Page(NamedTuple):
    """What a page says: three columns of blocks, links (host, path, index of the block or -1), pictures shown."""

    kinds: list[SegmentKind]
    texts: list[str]
    hidden: list[bool]
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
    tree = LexborHTMLParser(look.html)
    root = tree.body or tree.root
    if root is None:
        return _bare(whole, defects)
    reader = _Reader({node.mem_id for node in hidden_nodes(tree, look)})
    reader.read(root)
    return reader.page(defects)


def _bare(html: bytes, defects: list[Defect]) -> Page:
    lines = [line for line in strip_tags(html).split("\n") if line and not line.isspace()]
    if len(lines) > MAX_BLOCKS:
        lines[MAX_BLOCKS - 1 :] = [" ".join(lines[MAX_BLOCKS - 1 :])]
    return Page([SegmentKind.PARAGRAPH] * len(lines), lines, [False] * len(lines), [], 0, defects)


class _Reader:
    """One walk over a tree. `run` is the text of the block being read, `aside` hidden text met on the way."""

    def __init__(self, hidden_ids: set[int]) -> None:
        self.hidden_ids = hidden_ids
        self.kinds: list[SegmentKind] = []
        self.texts: list[str] = []
        self.hidden: list[bool] = []
        self.links: list[tuple[str, str, int]] = []
        self.pictures = 0
        self.cells: list[tuple[int, int, int]] = []
        self.run: list[str] = []
        self.run_node: LexborNode | None = None
        self.aside: list[str] = []
        self.role = _Role.BLOCK
        self.row = self.cell = 0
        self.breaks = 0
        self.linked = 0
        self.pending: list[int] = []
        self.ends: dict[int, list[int]] = {}
        self.in_hidden = 0
        self.in_link = 0

    def read(self, root: LexborNode) -> None:
        """Visit every node in document order."""
        role_of, skipped = _ROLES.get, 0
        for node in root.traverse(include_text=True, skip_empty=True):
            tag = node.tag_id
            if self.ends and node.mem_id in self.ends:
                self._leave(node.mem_id)
            if tag == _TEXT:
                if skipped:
                    skipped -= 1
                else:
                    self._text(node)
                continue
            if self.hidden_ids and node.mem_id in self.hidden_ids:
                self._enter(node, _HIDDEN)
            role = role_of(tag)
            if role is None:
                continue
            if role <= _Role.BUTTON:
                self._block(role)
            elif role == _Role.SKIP:
                skipped = node.first_child is not None and not node.first_child.is_empty_text_node
            else:
                self._inline(node, role)
        self._leave_all()

    def _text(self, node: LexborNode) -> None:
        text = node.text_content or ""
        if self.in_hidden:
            self.aside.append(text)
            return
        if self.run:
            if not _same_block(self.run_node, node):
                self._flush()
            elif _space_before(node):
                self.run.append(" ")
        self.run_node = node
        self.run.append(text)
        self.breaks = 0
        if self.in_link:
            self.linked += len(text)

    def _block(self, role: int) -> None:
        if self.in_hidden:
            self.aside.append(" ")
            return
        if self.run:
            self._flush()
        self.role = role
        if role == _Role.CELL:
            self.cell += 1
        elif role == _Role.ROW:
            self.row += 1

    def _inline(self, node: LexborNode, role: int) -> None:
        if role == _Role.BREAK:
            self._break()
        elif role == _Role.PICTURE:
            self._picture(node.attributes)
        else:
            self._link(node)

    def _break(self) -> None:
        """One <br> wraps a line, two end a paragraph."""
        if self.in_hidden:
            self.aside.append(" ")
        elif self.run:
            self.breaks += 1
            if self.breaks > 1:
                self._flush()
            else:
                self.run.append(" ")

    def _picture(self, attributes: dict[str, str | None]) -> None:
        if not self.in_hidden and attributes.get("width") not in ("0", "1"):
            self.pictures += 1
        text = attributes.get("alt")
        if not text or text.isspace():
            return
        if self.in_hidden:
            self.aside.append(f" {text} ")
        elif self.run:  # a picture in the middle of a sentence is read with it
            self.run.append(text)
        else:
            self._emit(SegmentKind.ALT, text, hidden=False)

    def _link(self, node: LexborNode) -> None:
        target = parse_url(node.attributes.get("href") or "")
        if target:
            self.pending.append(len(self.links))
            self.links.append((*target, -1))
        self._enter(node, _LINK)

    def _enter(self, node: LexborNode, span: int) -> None:
        """Note that a link or hidden element begins, and at which node it is over."""
        if node.first_child is None:
            return
        self.ends.setdefault(_after(node), []).append(span)
        if span == _HIDDEN:
            self.in_hidden += 1
        else:
            self.in_link += 1

    def _leave(self, at: int) -> None:
        for span in self.ends.pop(at):
            if span == _LINK:
                self.in_link -= 1
                continue
            self.in_hidden -= 1
            if not self.in_hidden and self.aside:
                self._emit(SegmentKind.PARAGRAPH, "".join(self.aside), hidden=True)
                self.aside = []

    def _leave_all(self) -> None:
        for at in list(self.ends):
            self._leave(at)
        self._flush()

    def _flush(self) -> None:
        """The block is complete."""
        run = self.run
        if not run:
            return
        text = run[0] if len(run) == 1 else "".join(run)
        kind = _KINDS.get(self.role, SegmentKind.PARAGRAPH)
        if self.linked and self.linked >= len(text.strip()):
            kind = SegmentKind.BUTTON
        elif self.role == _Role.CELL:
            self.cells.append((self.row, self.cell, len(self.texts)))
        self.run, self.linked, self.breaks = [], 0, 0
        self._emit(kind, text, hidden=False)

    def _emit(self, kind: SegmentKind, text: str, *, hidden: bool) -> None:
        for index in self.pending:
            host, path, _ = self.links[index]
            self.links[index] = (host, path, len(self.texts))
        self.pending.clear()
        self.kinds.append(kind)
        self.texts.append(text)
        self.hidden.append(hidden)

    def page(self, defects: list[Defect]) -> Page:
        """What was read; a cell is text in a row where other cells have text too."""
        filled: dict[int, set[int]] = {}
        for row, cell, _ in self.cells:
            filled.setdefault(row, set()).add(cell)
        for row, _, index in self.cells:
            if len(filled[row]) > 1:
                self.kinds[index] = SegmentKind.CELL
        return Page(self.kinds, self.texts, self.hidden, self.links, self.pictures, defects)


_HIDDEN, _LINK = 0, 1


def _after(node: LexborNode) -> int:
    """The id of the first node after this element in document order; 0 when there is none."""
    here: LexborNode | None = node
    while here is not None:
        following = here.next
        while following is not None and following.is_empty_text_node:
            following = following.next
        if following is not None:
            return following.mem_id
        here = here.parent
    return 0


def _block_of(node: LexborNode) -> int:
    here = node.parent
    for _ in range(_MAX_CLIMB):
        if here is None:
            return 0
        if here.tag_id in _BLOCKS:
            return here.mem_id
        here = here.parent
    return 0


def _same_block(one: LexborNode | None, other: LexborNode) -> bool:
    return one is not None and _block_of(one) == _block_of(other)


def _space_before(node: LexborNode) -> bool:
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

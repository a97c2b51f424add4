"""A page's tree -> its text in which control characters stand for elements: what `markup` reads line by line.

Python looks at few nodes only: elements that are no plain block (one query finds them) are taken out of the tree and
leave marks where they began and ended; then one call collects the text of the whole page, a NUL between two blocks.
Never raises; pure; linear.
"""

from collections.abc import Callable, Iterable

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from .allocator import keep_freed_memory
from .pictures import Shown, judge_picture
from .segments import clean, parse_url
from .styles import hidden_nodes, mark

_MAX_CLIMB = 12  # elements around a hidden one that are looked through for another

_NO_EVENTS = int(LexborDocumentOptions.WO_EVENTS)  # they serve scripts and <selectedcontent>
_FREQUENT_BLOCKS = "td,tr,p,div,tbody,table,li,ul,th"  # the most frequent first
_RARE_BLOCKS = (  # the query would take longer to read their names than it takes to pass over what it finds
    "body center hr address article aside blockquote caption dd details dialog dl dt fieldset figcaption figure footer "
    "form header legend main menu nav ol option pre section summary textarea tfoot thead title"
)
_PASSED_OVER = frozenset(_RARE_BLOCKS.split())
_SPECIAL = f":not({_FREQUENT_BLOCKS}),table:not(:has(table)):has(td + td)"
_UNHIDEABLE = frozenset({"html", "head", "body"})
_CAPTIONED = frozenset({"submit", "button", "reset"})

# What stands in the text for an element; a hidden one and a picture have a mark on both sides of what is between.
SEPARATOR, HIDDEN, PICTURE, BREAK, LINK, END_LINK, HEADING, END_HEADING = map(chr, range(8))
TABLE, END_TABLE = "\x0e\x0f"
MARKS = "\x01\x02\x03\x04\x05\x06\x07\x0e\x0f"


class Marked:
    """A tree whose elements give way to marks in its text."""

    def __init__(self) -> None:
        self.text = ""
        self.hidden: list[str] = []
        self.targets: list[int] = []  # for each marked link its index in `links`, or -1
        self.links: list[tuple[str, str, int]] = []
        self.pictures = self.area = 0
        self.pictured = False
        self.turned = False  # whether the page shows letters in an order that is not theirs
        self.count = 0  # marks that were set
        self.breaks = 0

    def set_aside(self, nodes: Iterable[LexborNode]) -> None:
        """Keep the text of each outermost hidden element and put its number where it was."""
        found = {node.mem_id: node for node in nodes if node.tag not in _UNHIDEABLE}
        for node in [node for node in found.values() if not _is_inside(node, found)]:
            text = node.text(separator=" ", skip_empty=True)
            node.replace_with(f"{HIDDEN}{len(self.hidden)}{HIDDEN}")
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
        attributes = node.attributes
        target = parse_url(attributes.get("href") or "") if node.tag == "a" else None
        if target:
            self.links.append((*target, -1))
        title = attributes.get("title")
        if node.first_child is not None:
            self.targets.append(len(self.links) - 1 if target else -1)
            self._enclose(node, LINK, END_LINK)
        if title and (shown := clean(title)) and shown != clean(node.text()):
            self._aside(node, shown)
        node.unwrap(delete_empty=True)

    def _aside(self, node: LexborNode, text: str) -> None:
        """A text that is out of sight, after an element."""
        node.insert_after(f"{HIDDEN}{len(self.hidden)}{HIDDEN}")
        self.hidden.append(text)
        self.count += 2

    def map_area(self, node: LexborNode) -> None:
        """A part of a picture, with the text that stands for it."""
        text = clean(node.attributes.get("alt") or node.attributes.get("title") or "")
        if text:
            node.replace_with(f" {PICTURE}{text}{PICTURE}")
            self.count += 2
        else:
            node.decompose()

    def button(self, node: LexborNode) -> None:
        """A button stays a block: its marks go inside."""
        if node.first_child is not None:
            self.targets.append(-1)
            self._fill(node, LINK, END_LINK)

    def heading(self, node: LexborNode) -> None:
        """A heading stays a block: its marks go inside."""
        if node.first_child is not None:
            self._fill(node, HEADING, END_HEADING)

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
        node.replace_with(BREAK)
        self.breaks += 1

    def table(self, node: LexborNode) -> None:
        """An innermost table with columns (see `_SPECIAL`) stays a block: its marks go around it."""
        self._enclose(node, TABLE, END_TABLE)

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
            node.replace_with(f"{PICTURE}{text}{PICTURE}")
            self.count += 2
        else:
            node.decompose()

    def field(self, node: LexborNode) -> None:
        """A button of a form has its caption in an attribute."""
        attributes = node.attributes
        caption = "value" if (attributes.get("type") or "").lower() in _CAPTIONED else "alt"
        if text := clean(attributes.get(caption) or ""):
            self.targets.append(-1)
            node.replace_with(f" {LINK}{text}{END_LINK} ")
            self.count += 2
        else:
            node.decompose()


def _follows_link(node: LexborNode) -> bool:
    """Whether a link begins right before an element, perhaps with space between."""
    before = node.prev
    if before is not None and before.is_text_node and not (before.text_content or "").strip(" \n\r\t"):
        before = before.prev
    return before is not None and before.is_text_node and before.text_content == LINK


def _drop(_marked: Marked, node: LexborNode) -> None:
    node.decompose()


_REPLACE: dict[str, Callable[[Marked, LexborNode], None]] = {
    "a": Marked.link,
    "area": Marked.map_area,
    "button": Marked.button,
    "br": Marked.line_break,
    "img": Marked.picture,
    "input": Marked.field,
    "table": Marked.table,
    "script": _drop,
    "style": _drop,
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), Marked.heading),
}


def marked_text(html: bytes) -> Marked:
    """The page's text with its marks."""
    look = mark(html)
    keep_freed_memory()
    tree = LexborHTMLParser(look.html, options=_NO_EVENTS)
    marked = Marked()
    marked.pictured = look.background
    marked.pictures += look.background
    marked.turned = look.turned
    if look.marked or look.classes:
        marked.set_aside(hidden_nodes(tree, look))
    root = tree.body or tree.root
    if root is not None:
        if look.comments:
            _drop_comments(root)
        for node in root.css(_SPECIAL):
            marked.replace(node)
        root.merge_text_nodes()
        marked.text = root.text(separator=SEPARATOR, skip_empty=True)
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

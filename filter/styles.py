"""Which elements of a page are out of sight: found in the page's octets first, looked at closely in the tree.

Asking every element for its style costs more than parsing the page; few elements hide anything. So one Hyperscan pass
over the octets finds the declarations that can hide, the tags they stand in get a mark attribute, and only marked
elements (and those of hiding classes) are examined. Never raises; pure; linear.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

import hyperscan
from selectolax.lexbor import LexborHTMLParser, LexborNode

MARK = "data-consentry-look"
_MARK_ATTRIBUTE = f" {MARK}=1 ".encode()
_MAX_MARKS = 1_000
_MAX_CLASSES = 16
_MAX_RULES = 2_000
_HINTS = (
    "none",
    "hidden",
    "collapse",
    "opacity",
    "transparent",
    ":-",
    ": -",
)  # a rule without any of them hides nothing
_MAX_SHEET = 65_536
_MAX_CLIMB = 64

_PROPERTIES = (
    *(b"display:none", b"visibility:hidden", b"visibility:collapse", b"font-size:0", b"height:0", b"width:0"),
    *(b"opacity:0", b"opacity:.0", b"text-indent:-", b"left:-", b"top:-", b"color:transparent"),
    *(b"color:#f", b"color:#e", b"color:#d", b"color:white"),
)
# Literals only, so that the scan costs a few microseconds; with and without the space writers put after the colon.
_ATTRIBUTES = tuple(
    b"color=" + quote + colour for quote in (b"", b"'", b'"') for colour in (b"#f", b"#e", b"#d", b"white")
)
_LITERALS = (*_PROPERTIES, *(name.replace(b":", b": ") for name in _PROPERTIES), *_ATTRIBUTES, b" hidden")
_TAG_NAME = re.compile(rb"<[a-zA-Z][a-zA-Z0-9:-]*(?=[\s/>])")
_OWN_BACKGROUND = re.compile(rb"(?:background|background-color):\s?#([0-9a-fA-F])")
_FAR_BACK = 16_384
_SHORT_STYLE = 500
_SHEET_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_DECLARATION = re.compile(r"([a-z-]+)\s*:\s*([^;]*)")
_ZERO = re.compile(r"0*(?:\.0+)?(?:px|pt|em|rem|%)?$")
_FAR = re.compile(r"-\d{3,}(?:\.\d+)?(?:px|pt)|-\d{2,}(?:em|rem)")
_CLASS = re.compile(r"^(?:[a-z]+)?\.([a-z_][\w-]*)$")
_COLOUR = re.compile(r"#[0-9a-f]{3,8}|[a-z]{3,20}")
_SHORT_COLOUR = re.compile(r"#...")
_BACKGROUNDS = (b" background=", b"url(")
_TURNED = (b"bidi-override", b"isolate-override", b"<bdo")
_MAX_BACKGROUNDS = 100
_DECLARED_BEFORE = 60  # octets between a property and its picture

# What HTML reads as a comment.
_BOGUS = (octet for octet in range(256) if octet > ord("~") or (not chr(octet).isalpha() and octet != ord(">")))
_COMMENTS = (b"<!", b"<?", *(bytes((*b"</", octet)) for octet in _BOGUS))


class Look(NamedTuple):
    """The page with marks at the tags to examine, the classes its style sheet takes out of sight, whether there are
    comments, which may stand inside words, whether there is a picture in the background, and whether letters may be
    shown in an order that is not theirs.
    """

    html: bytes
    marked: bool
    classes: tuple[str, ...]
    comments: bool
    background: bool
    turned: bool = False


_SOUGHT = (*_LITERALS, *_COMMENTS, *_BACKGROUNDS, *_TURNED)
_BOUNDS = len(_LITERALS), len(_LITERALS) + len(_COMMENTS), len(_SOUGHT) - len(_TURNED)


@cache
def _database() -> hyperscan.Database:
    database = hyperscan.Database()
    expressions = [b"".join(b"\\x%02x" % octet for octet in text) for text in _SOUGHT]
    database.compile(expressions=expressions, flags=[hyperscan.HS_FLAG_CASELESS] * len(expressions))
    return database


def mark(html: bytes) -> Look:
    """Find what may hide text and mark the tags where it is declared."""
    places: list[int] = []
    comments: list[int] = []
    backgrounds: list[int] = []
    turned: list[int] = []
    count, pictures, letters = _BOUNDS

    def found(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
        if number < count:
            places.append(end)
        else:
            (comments if number < pictures else backgrounds if number < letters else turned).append(end)

    _database().scan(html, match_event_handler=found)
    commented = any(html[end : end + 7].lower() != b"doctype" for end in comments)
    background = any(_is_background(html, end) for end in backgrounds[:_MAX_BACKGROUNDS])
    if not places:
        return Look(html, False, (), commented, background, bool(turned))
    ends, sheets = set[int](), dict[int, None]()
    for place in places[:_MAX_MARKS]:
        start = html.rfind(b"<", max(0, place - _FAR_BACK), place)
        name = _TAG_NAME.match(html, start, place) if start >= 0 else None
        if name is None or _is_on_background(html, start, place):
            continue
        ends.add(name.end())
        if name[0].lower() == b"<style":
            sheets[start] = None
    pieces = [html[start:end] for start, end in pairwise([0, *sorted(ends), len(html)])]
    classes = tuple(hiding_classes(html, sheets))
    return Look(_MARK_ATTRIBUTE.join(pieces), bool(ends), classes, commented, background, bool(turned))


def _is_background(html: bytes, end: int) -> bool:
    """Whether the address that begins at `end` is that of a picture in the background."""
    return html[end - 1 : end] == b"=" or b"background" in html[max(0, end - _DECLARED_BEFORE) : end].lower()


def _is_on_background(html: bytes, start: int, place: int) -> bool:
    """Whether the declaration that ends at `place` is a light colour and its tag brings a darker background along."""
    if html[place - 2 : place - 1] != b"#":
        return False
    found = _OWN_BACKGROUND.search(html, start, html.find(b">", place))
    return found is not None and found[1].lower() not in b"fed"


def hiding_classes(html: bytes, sheets: Iterable[int]) -> list[str]:
    """Classes that the style sheets whose tags begin at these places take out of sight for everyone: rules inside
    @media and the like do not count.
    """
    rules = (rule for start in sheets for rule in _top_rules(_sheet(html, start)))
    found: dict[str, None] = {}
    for selector, body in islice(rules, _MAX_RULES):
        if hides(declarations(body)):
            names = map(_CLASS.match, map(str.strip, selector.split(",")))
            found.update((name[1], None) for name in names if name)
    return list(found)[:_MAX_CLASSES]


def _sheet(html: bytes, start: int) -> str:
    """The style sheet whose tag begins here, lower-case."""
    text = html[start : start + _MAX_SHEET].partition(b">")[2].lower()
    return text.partition(b"</style")[0].decode("utf-8", "replace")


def _top_rules(sheet: str) -> Iterator[tuple[str, str]]:
    """Selector and body of each rule that may hide something and stands in no other block."""
    sheet = _SHEET_COMMENT.sub(" ", sheet)
    hints = [hint for hint in _HINTS if hint in sheet]
    depth = 0
    for block in sheet.split("}")[:-1]:
        opened = block.count("{")
        if depth == 0 and opened == 1 and any(map(block.__contains__, hints)):
            selector, _, body = block.partition("{")
            yield selector.strip(), body
        depth = max(0, depth + opened - 1)


def declarations(style: str) -> Mapping[str, str]:
    """The declarations of a style attribute or rule, lower-case."""
    return _short_declarations(style) if len(style) <= _SHORT_STYLE else _declarations(style)


@lru_cache(maxsize=500)
def _short_declarations(style: str) -> Mapping[str, str]:
    """Remembered: the elements of a page, and the pages of a sender, have few styles."""
    return _declarations(style)


def _declarations(style: str) -> dict[str, str]:
    text = style.lower().replace("!important", "")
    return {name: value.strip() for name, value in _DECLARATION.findall(text)}


def hides(style: Mapping[str, str]) -> bool:
    """Whether an element with these declarations, and all text in it, is out of sight."""
    get = style.get
    if get("display") == "none" or get("visibility") in ("hidden", "collapse"):
        return True
    if _is_zero(get("opacity")) or get("color") == "transparent" or _FAR.match(get("text-indent", "")):
        return True
    if get("overflow") == "hidden" and any(
        _is_zero(get(side)) for side in ("max-height", "height", "max-width", "width")
    ):
        return True
    return get("position") in ("absolute", "fixed") and any(_FAR.match(get(side, "")) for side in ("left", "top"))


def _is_zero(value: str | None) -> bool:
    return value is not None and value != "" and _ZERO.match(value) is not None


def hidden_nodes(tree: LexborHTMLParser, look: Look) -> Iterator[LexborNode]:
    """The elements whose text is out of sight."""
    if look.marked:
        for node in tree.css(f"[{MARK}]"):
            if _is_hidden(node):
                yield node
    for name in look.classes:
        yield from tree.css(f".{name}")


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    style = declarations(attributes.get("style") or "")
    if "hidden" in attributes or hides(style):
        return True
    if _is_zero(style.get("font-size")):
        return not any(child.is_element_node for child in node.iter())
    colour = style.get("color") or attributes.get("color")
    return bool(colour) and _normal(str(colour)) == _background(node)


def _background(node: LexborNode) -> str:
    """The colour behind an element: the nearest declared background, white when there is none."""
    above: LexborNode | None = node
    for _ in range(_MAX_CLIMB):
        if above is None or not above.is_element_node:
            break
        attributes = above.attributes
        style = declarations(attributes.get("style") or "")
        if "background-image" in style or "url(" in style.get("background", "") or attributes.get("background"):
            return ""  # a picture: nobody can say
        colour = style.get("background-color") or style.get("background") or attributes.get("bgcolor")
        if colour and "transparent" not in colour:
            return _normal(colour)
        above = above.parent
    return _normal("white")


def _normal(colour: str) -> str:
    found = _COLOUR.search(colour.lower())
    name = {"white": "#ffffff", "black": "#000000"}.get(found[0], found[0]) if found else ""
    return "#" + "".join(2 * digit for digit in name[1:]) if _SHORT_COLOUR.fullmatch(name) else name

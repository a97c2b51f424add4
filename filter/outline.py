"""A look at the tags of a page before it is parsed: whether a tree builder can take it in linear time.

HTML's tree construction is quadratic in four places: open elements (every `<p>` looks up the stack), formatting
elements that are never closed, attributes of one tag, and attributes repeated on `<html>` or `<body>`. Small pages
cannot do harm; a larger one is outlined first, and one that exceeds a limit is read through `strip_tags`. Never raises;
linear.
"""

import re
from collections import Counter
from html import unescape
from itertools import islice

MAX_NESTING = 256
"""Elements open at once (browsers stop at 512)."""
MAX_ATTRIBUTES = 256
"""Attributes of one tag."""
MAX_ROOT_TAGS = 16
"""`<html>` and `<body>` tags of one page."""
MAX_TAGS = 10_000
"""Tags of one page; what follows is not read."""

_SMALL = 16_384
_FEW_TAGS = 1_500
_LONG_TAG = 1_000
_UNCOUNTED = frozenset(  # never open for long: without an end tag, or ended by the next of their kind
    b"area base br col embed hr img input link meta param source track wbr "
    b"p li td tr th option dt dd thead tbody".split()
)
# A quote counts only after "=": elsewhere it is part of an attribute's name, and `>` ends the tag.
_TAG = re.compile(
    rb"<(/?)([a-zA-Z][^\s/>]*+)([^>=]*+(?:=(?:\s*+(?:\"[^\"]*+\"|'[^']*+'))?[^>=]*+)*)",
)
_ATTRIBUTE = re.compile(rb"[^\s/=]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s]+))?")
_INVISIBLE_MARKUP = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|title|textarea)\b.*?(?:</\1|\Z)|<[!/?a-zA-Z][^>]*(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def is_tame(html: bytes) -> bool:
    """Whether the tree builder takes this page in linear time."""
    if len(html) <= _SMALL or (len(html) <= 2 * _SMALL and html.count(b"<") <= _FEW_TAGS):
        return True
    open_tags: Counter[bytes] = Counter()
    depth = roots = 0
    for closing, name, rest in _TAG.findall(html):
        if len(rest) > _LONG_TAG and len(_ATTRIBUTE.findall(rest)) > MAX_ATTRIBUTES:
            return False
        tag = name.lower()
        if tag in _UNCOUNTED:
            continue
        if closing:
            depth -= open_tags[tag] > 0
            open_tags[tag] -= open_tags[tag] > 0
            continue
        open_tags[tag] += 1
        depth += 1
        roots += tag in (b"html", b"body")
        if depth > MAX_NESTING or roots > MAX_ROOT_TAGS:
            return False
    return True


def cut_tags(html: bytes) -> bytes:
    """The page up to its `MAX_TAGS`th tag: the same object when it has no more, or is too short to have many more."""
    if len(html) <= 2 * _SMALL or html.count(b"<") <= MAX_TAGS:
        return html
    opening = islice(re.finditer(b"<", html), MAX_TAGS, None)
    return html[: next(opening).start()]


def strip_tags(html: bytes) -> str:
    """The bare text of a page, with a line end for every tag; comments, scripts and styles left out."""
    return unescape(_INVISIBLE_MARKUP.sub(b"\n", html).decode("utf-8", "replace"))

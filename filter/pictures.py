"""How large the pictures of a page are shown: which may carry its message, and which are logos, icons or pixels.

A size counts as far as attributes and inline style say it; one that nobody says may be any. Pure; never raises.
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache

from .styles import declarations

_LEGIBLE = 200  # pixels: what is narrower is an icon, a logo or stands beside text
_STRIP = 100  # pixels: what is not higher is a logo or a rule across the page …
_BANNER = 400, 50  # … unless it is linked and as large as a banner
_PIXEL = 3
_LONGEST = 20
_LONGEST_STYLE = 1_000
SLICES = 150_000
"""Square pixels of small pictures that together may be one large picture cut into pieces."""
_SIZED = re.compile("width|height", re.IGNORECASE)
_LENGTH = re.compile(r"\s*(\d{1,5})(?:\.\d*)?\s*(?:px\s*)?$")


class Shown(IntEnum):
    """What a picture is by its size."""

    PIXEL = 0
    SMALL = 1
    BANNER = 2  # large if it is linked
    LARGE = 3


def judge_picture(attributes: Mapping[str, str | None]) -> tuple[Shown, int]:
    """What a picture is, and its area in square pixels (of a square when one side is not said; 0 when neither is)."""
    style = attributes.get("style") or ""
    sized = style[:_LONGEST_STYLE] if _SIZED.search(style) else ""
    return _judge((attributes.get("width") or "")[:_LONGEST], (attributes.get("height") or "")[:_LONGEST], sized)


@lru_cache(maxsize=512)
def _judge(written_width: str, written_height: str, written_style: str) -> tuple[Shown, int]:
    """Pictures of a page are of few sizes, and most styles say none."""
    style = declarations(written_style) if written_style else {}
    width, height = _side(written_width, style, "width"), _side(written_height, style, "height")
    if (width is not None and width <= _PIXEL) or (height is not None and height <= _PIXEL):
        return Shown.PIXEL, 0
    area = (width or height or 0) * (height or width or 0)
    if height is not None and height <= _STRIP:
        banner = width is not None and width >= _BANNER[0] and height >= _BANNER[1]
        return Shown.BANNER if banner else Shown.SMALL, area
    if width is not None and width < _LEGIBLE:
        return Shown.SMALL, area
    return Shown.LARGE, area


def _side(attribute: str, style: Mapping[str, str], name: str) -> int | None:
    """One side in pixels as a browser takes it: style before attribute, within its limits; None when not said."""
    side = _pixels(style.get(name, attribute))
    if not style:
        return side
    most, least = _pixels(style.get(f"max-{name}")), _pixels(style.get(f"min-{name}"))
    if most is not None:
        side = most if side is None else min(side, most)
    return side if least is None or side is None else max(side, least)


def _pixels(length: str | None) -> int | None:
    found = _LENGTH.match(length) if length else None
    return int(found[1]) if found else None

"""How large the pictures of a page are shown: which may carry its message, and which are logos, icons or pixels.

A size counts as far as attributes and inline style say it; one that nobody says may be any. Pure; never raises.
"""

import re
from collections.abc import Mapping
from enum import IntEnum

from .styles import declarations

_LEGIBLE = 200  # pixels: what is narrower is an icon, a logo or stands beside text
_STRIP = 100  # pixels: what is not higher is a logo or a rule across the page …
_BANNER = 400, 50  # … unless it is linked and as large as a banner
_PIXEL = 3
SLICES = 150_000
"""Square pixels of small pictures that together may be one large picture cut into pieces."""
_LENGTH = re.compile(r"\s*(\d{1,5})(?:\.\d*)?\s*(?:px\s*)?$")


class Shown(IntEnum):
    """What a picture is by its size."""

    PIXEL = 0
    SMALL = 1
    LARGE = 2


def judge_picture(attributes: Mapping[str, str | None], *, linked: bool) -> tuple[Shown, int]:
    """What a picture is, and its area in square pixels (of a square when one side is not said; 0 when neither is)."""
    written = attributes.get("style")
    style = declarations(written) if written else {}
    width, height = _side(attributes, style, "width"), _side(attributes, style, "height")
    if min(_LEGIBLE if side is None else side for side in (width, height)) <= _PIXEL:
        return Shown.PIXEL, 0
    area = (width or height or 0) * (height or width or 0)
    if height is not None and height <= _STRIP:
        banner = linked and width is not None and width >= _BANNER[0] and height >= _BANNER[1]
        return Shown.LARGE if banner else Shown.SMALL, area
    if width is not None and width < _LEGIBLE:
        return Shown.SMALL, area
    return Shown.LARGE, area


def _side(attributes: Mapping[str, str | None], style: Mapping[str, str], name: str) -> int | None:
    """One side in pixels as a browser takes it: style before attribute, within its limits; None when not said."""
    side = _pixels(style[name] if name in style else attributes.get(name))
    if not style:
        return side
    most, least = _pixels(style.get(f"max-{name}")), _pixels(style.get(f"min-{name}"))
    if most is not None:
        side = most if side is None else min(side, most)
    return side if least is None or side is None else max(side, least)


def _pixels(length: str | None) -> int | None:
    found = _LENGTH.match(length) if length else None
    return int(found[1]) if found else None

"""Text that came from outside, made safe to show: nothing in it acts on a terminal or is read as markup.

Pure; raises nothing.
"""

from typing import Final

from rich.text import Text

_UNITS: Final = ((48 * 3_600_000, 24 * 3_600_000, "d"), (120 * 60_000, 3_600_000, "h"), (120_000, 60_000, "min"))


def visible(text: str, style: str = "") -> Text:
    """Text for the terminal, with everything unprintable (escape sequences, direction marks) shown as a code."""
    return Text(printable(text), style=style)


def printable(text: str) -> str:
    """Text with everything unprintable shown as a code, such as <001b>."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"<{ord(c):04x}>" for c in text)


def counted(number: int, one: str, several: str) -> str:
    """So many of a thing: "1 copy", "1,200 copies"."""
    return f"{number:,} {one if number == 1 else several}"


def ago(at: int, now: int) -> str:
    """How long ago that was, both in epoch milliseconds: "40 s ago", "12 min ago", "3 h ago", "20 d ago"."""
    passed = max(0, now - at)
    size, unit = next(((size, unit) for least, size, unit in _UNITS if passed >= least), (1000, "s"))
    return f"{passed // size:,} {unit} ago"

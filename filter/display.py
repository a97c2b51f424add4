"""Text that came from outside, made safe to show: nothing in it acts on a terminal or is read as markup.

Pure; raises nothing.
"""

from rich.text import Text


def visible(text: str, style: str = "") -> Text:
    """Text for the terminal, with everything unprintable (escape sequences, direction marks) shown as a code."""
    return Text(printable(text), style=style)


def printable(text: str) -> str:
    """Text with everything unprintable shown as a code, such as <001b>."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"<{ord(c):04x}>" for c in text)


def counted(number: int, one: str, several: str) -> str:
    """So many of a thing: "1 copy", "1,200 copies"."""
    return f"{number:,} {one if number == 1 else several}"

"""Words written letter by letter ("S A L E", "F-R-E-E"), which readers read as words: found cheaply, and closed up.

Where words are told apart by more than what stands between letters ("F R E E  g i f t"), each is read as a word. Where
they are not, nobody can say where a word ends: a long row of letters is reported. Pure; never raises; linear.
"""

import re
from collections.abc import Sequence

_FEWEST = 3  # letters, of at least four signs
_ENDLESS = 16  # letters of a row that is more than one word
# For each octet: `x` for a letter or figure, a space for everything else.
_SHAPE = bytes(ord("x" if chr(octet).isalnum() and octet < ord("\x7f") else " ") for octet in range(256))
_ROW = b" x x x x "
_SPELLED = re.compile(r"(?<![^\W_])[^\W_](?=([ \t\r\n\xa0.*_-]))(?:\1[^\W_]|\1[%!]){3,}(?![^\W_])")


def may_be_spelled(text: str) -> bool:
    """Whether there is a row of single letters somewhere; two sweeps, for it is asked of every message."""
    return _ROW in b" %b " % text.encode("ascii", "replace").translate(_SHAPE)


def closed_up(texts: Sequence[str]) -> tuple[list[str], bool]:
    """The texts with rows of single letters as words, and whether a row is too long for one word (but no alphabet)."""
    endless = False

    def close(match: re.Match[str]) -> str:
        nonlocal endless
        word = match[0].replace(match[1], "")
        letters = "".join(filter(str.isalpha, word)).lower()
        if len(letters) < _FEWEST:
            return match[0]
        endless = endless or (len(letters) >= _ENDLESS and letters != "".join(sorted(letters)))
        return word

    return [_SPELLED.sub(close, text) for text in texts], endless

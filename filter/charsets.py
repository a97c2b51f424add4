"""Octets -> text, through an allow-list of charsets. Never raises; pure; linear in the octets.

A name outside the list is never handed to the interpreter's codec registry: that registry also holds transforms and
escapes (`utf-7`, `unicode_escape`, `idna`, `punycode`, `rot13`) that turn harmless octets into other text or take
quadratic time. Names follow the WHATWG Encoding Standard, which is what mail readers do: `iso-8859-1` and `us-ascii`
are read as windows-1252, `gb2312` as gb18030, `ks_c_5601-1987` as cp949.
"""

import codecs
from typing import NamedTuple

_SAME_NAME = (
    *(f"iso-8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"windows-{n}" for n in range(1250, 1259)),
    *("koi8-r", "koi8-u", "gbk", "gb18030", "big5", "big5-hkscs", "shift_jis", "euc-jp", "iso-2022-jp"),
    *("euc-kr", "macintosh", "ibm866", "cp437", "cp850", "cp932", "cp949", "utf-16", "utf-16-le", "utf-16-be"),
)
_ALIASES = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
    **dict.fromkeys(
        ("us-ascii", "ascii", "ansi_x3.4-1968", "iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1", "l1"),
        "windows-1252",
    ),
    **{f"cp{n}": f"windows-{n}" for n in range(1250, 1259)},
    **{f"iso8859-{n}": f"iso-8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    "iso-8859-9": "windows-1254",
    "iso-8859-11": "cp874",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "iso-8859-8-i": "iso-8859-8",
    "gb2312": "gb18030",
    "gb_2312-80": "gb18030",
    "x-gbk": "gbk",
    "cp936": "gbk",
    "sjis": "shift_jis",
    "shift-jis": "shift_jis",
    "windows-31j": "cp932",
    "x-sjis": "cp932",
    "ks_c_5601-1987": "cp949",
    "euc_kr": "cp949",
    "koi8": "koi8-r",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "x-mac-roman": "macintosh",
}
_CODECS = {name: codecs.lookup(codec).name for name, codec in (*((n, n) for n in _SAME_NAME), *_ALIASES.items())}
_ASCII_LIKE = frozenset({"", "us-ascii", "ascii", "ansi_x3.4-1968"})


class Decoded(NamedTuple):
    """The text, and how far it can be trusted: `replaced` octets did not fit, `unknown` is no charset we read."""

    text: str
    replaced: bool = False
    unknown: bool = False


def is_known(charset: str) -> bool:
    """Whether the charset (any case) is on the allow-list; an empty name counts as ASCII."""
    return charset.lower() in _CODECS or not charset


def decode(octets: bytes, charset: str) -> Decoded:
    """Decode by the declared charset. Undeclared or ASCII: UTF-8 when it fits, else windows-1252 (and `replaced`)."""
    name = charset.strip().strip("\"'").lower()
    if octets.isascii() and not name.startswith(("utf-16", "iso-2022")):
        return Decoded(octets.decode("ascii"), unknown=not is_known(name))
    if name in _ASCII_LIKE:
        return _guess(octets)
    codec = _CODECS.get(name)
    if codec is None:
        return Decoded(_guess(octets).text, unknown=True)
    return _strictly(octets, codec)


def _strictly(octets: bytes, codec: str) -> Decoded:
    try:
        return Decoded(octets.decode(codec))
    except UnicodeError:
        return Decoded(octets.decode(codec, "replace"), replaced=True)


def _guess(octets: bytes) -> Decoded:
    """8-bit octets under an ASCII label: almost always UTF-8, otherwise windows-1252."""
    try:
        return Decoded(octets.decode("utf-8"), replaced=True)
    except UnicodeDecodeError:
        return Decoded(octets.decode("cp1252", "replace"), replaced=True)

"""The first mailbox of a From field (RFC 5322 §3.4), read as leniently as readers do. Never raises; pure; linear."""

import re

from .segments import Defect, DefectCode, clean
from .transfer import decode_header, note

_MAX_FROM = 10_000
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
# A comment, or what may hold brackets that are none.
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*+>|\(((?:[^()\\]|\\.|\((?:[^()\\]|\\.)*\))*)\)?')


def first_mailbox(value: bytes, defects: list[Defect]) -> tuple[str, str]:
    """Display name (or the comment that stands for it) and address; a defect when there is more than one mailbox."""
    text = value[:_MAX_FROM].decode("utf-8", "replace").replace("\r", "").replace("\n", "").strip()
    comments: list[str] = []
    if "(" in text:
        text = _COMMENT.sub(lambda found: _set_aside(found, comments), text).strip()
    quoted = _QUOTED_NAME.match(text)
    name, angle, rest = text[quoted.end() if quoted else 0 :].partition("<")
    if not angle:
        return clean(decode_header(" ".join(comments[:1]).encode("utf-8", "replace"), defects)), _bare(text, defects)
    address, _, others = rest.partition(">")
    if "@" in others:
        note(defects, Defect(DefectCode.HEADER_MALFORMED, "from"))
    name = _ESCAPED.sub(r"\1", quoted[1]) if quoted and not name.strip() else text[: -len(rest) - 1]
    return clean(decode_header(name.encode("utf-8", "replace"), defects)), clean(address)


def _set_aside(found: re.Match[str], comments: list[str]) -> str:
    if not found[0].startswith("("):
        return found[0]
    comments.append(found[1])
    return " "


def _bare(text: str, defects: list[Defect]) -> str:
    """The first address of a field without angle brackets, perhaps in a group ("name: a@x.example, b@x.example;")."""
    members = text.partition(":")[2] if ":" in text.partition("@")[0] else text
    found = [clean(member) for member in members.replace(";", ",").split(",") if "@" in member]
    if len(found) > 1:
        note(defects, Defect(DefectCode.HEADER_MALFORMED, "from"))
    return found[0] if found else clean(members.rstrip(";").partition(",")[0])

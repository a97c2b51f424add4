"""Raw octets of a message -> header fields and text parts: our own bounded scanner of RFC 5322, 2045-2047 and 2231.

Never raises on bad mail; what is odd or left unread becomes a `Defect`. One pass over the octets whatever the nesting:
delimiter lines are looked up in the stack of open boundaries, so depth costs nothing and nothing recurses.

Why our own: see MEASURED
"""

import re
from typing import NamedTuple

from .segments import Defect, DefectCode
from .transfer import note

MAX_HEADER_BLOCK = 102_400
"""Octets of one header block that are read (Postfix header_size_limit)."""
MAX_DEPTH = 100
"""Nested multiparts and messages (Postfix mime_nesting_limit)."""
MAX_BOUNDARY = 2_048
"""Octets of a boundary (Postfix mime_boundary_length_limit)."""
MAX_PARTS = 1_000
"""Parts of one message."""
MAX_DELIMITERS = 100_000
"""Lines that begin with two hyphens and are compared with the open boundaries."""

_HEADER_BLOCK = re.compile(rb"(?:(?!--)[!-9;-~]*[ \t]*:[^\n]*(?:\n|\Z)|[ \t][^\n]*(?:\n|\Z))*+")
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)
_BLANK_LINE = re.compile(rb"\n\r?\n")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;\s"]*))')

TEXT_TYPES = frozenset({"text/plain", "text/html", "application/xhtml+xml", "text/x-amp-html"})
_SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
_ENCRYPTED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted"})
_MESSAGES = frozenset({"message/rfc822", "message/global"})
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})


class Part(NamedTuple):
    """A text part: where its encoded octets lie and how to read them.

    `alternative` numbers the outermost multipart/alternative around it (0: none); `quoted` is inside message/rfc822;
    `attached` asks to be shown as a file.
    """

    media_type: str
    parameters: dict[str, str]
    encoding: str
    start: int
    end: int
    alternative: int = 0
    quoted: bool = False
    attached: bool = False


class Scan(NamedTuple):
    """A message taken apart: `octets` (line ends repaired if need be), top header fields, parts and pictures."""

    octets: bytes
    fields: dict[str, list[bytes]]
    parts: list[Part]
    pictures: int
    defects: list[Defect]


class _Entity(NamedTuple):
    """The header of a message or part, and where its body starts."""

    fields: dict[str, list[bytes]]
    media_type: str
    parameters: dict[str, str]
    body: int
    quoted: bool


class _Open:
    """A multipart whose closing delimiter has not been seen."""

    __slots__ = ("alternative", "boundary", "digest", "entity", "seen")

    def __init__(self, entity: _Entity, boundary: bytes, alternative: int) -> None:
        self.entity = entity
        self.boundary = boundary
        self.alternative = alternative
        self.digest = entity.media_type == "multipart/digest"
        self.seen = False


def scan(raw: bytes) -> Scan:
    """Take a message apart. Linear in `raw`; see the caps above."""
    return _Scanner(raw).run()


class _Scanner:
    """The state of one scan: a cursor, the stack of open multiparts, and what was found."""

    def __init__(self, raw: bytes) -> None:
        self.defects: list[Defect] = []
        self.octets = self._repair_line_ends(raw)
        self.parts: list[Part] = []
        self.stack: list[_Open] = []
        self.boundaries: set[bytes] = set()
        self.entities = 0
        self.alternatives = 0
        self.pictures = 0
        self.compared = 0

    def run(self) -> Scan:
        start = 0
        if self.octets.startswith((b"From ", b">From ")):
            start = self.octets.find(b"\n") + 1  # mbox separator
        top = self._entity(start, digest=False, quoted=False)
        entity: _Entity | None = top
        while entity is not None:
            entity = self._next_entity(self._enter(entity))
        self._close_to(0, len(self.octets))
        return Scan(self.octets, top.fields, self.parts, self.pictures, self.defects)

    def defect(self, code: DefectCode, detail: str = "") -> None:
        note(self.defects, Defect(code, detail))

    def _repair_line_ends(self, raw: bytes) -> bytes:
        """A bare CR ends a line for readers, and a bare LF among CRLFs too; a file with LF only is no defect."""
        returns = raw.count(b"\r")
        if not returns:
            return raw
        pairs = raw.count(b"\r\n")
        if raw.count(b"\n") != pairs or returns != pairs:
            self.defect(DefectCode.BARE_LINE_END)
        return raw if returns == pairs else raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    # -- headers

    def _entity(self, start: int, *, digest: bool, quoted: bool) -> _Entity:
        fields, body = self._fields(start)
        default = "message/rfc822" if digest else "text/plain"
        media_type, parameters = parse_content_type(_first(fields, "content-type"), default)
        return _Entity(fields, media_type, parameters, body, quoted)

    def _fields(self, start: int) -> tuple[dict[str, list[bytes]], int]:
        """The header fields from `start` (lower-case name -> raw values) and the position of the body."""
        octets = self.octets
        limit = start + MAX_HEADER_BLOCK
        block = _HEADER_BLOCK.match(octets, start, limit)
        end = block.end() if block else start
        fields: dict[str, list[bytes]] = {}
        for name, value in _FIELD.findall(octets, start, end):
            fields.setdefault(name.decode("ascii").lower(), []).append(value)
        return fields, self._body_start(end, limit)

    def _body_start(self, end: int, limit: int) -> int:
        octets = self.octets
        if octets.startswith(b"\n", end):
            return end + 1
        if octets.startswith(b"\r\n", end):
            return end + 2
        if end >= len(octets):
            return end
        if end >= limit - 1:
            self.defect(DefectCode.HEADERS_TOO_LARGE, str(MAX_HEADER_BLOCK))
            blank = _BLANK_LINE.search(octets, end - 1)
            return blank.end() if blank else len(octets)
        self.defect(DefectCode.HEADER_MALFORMED)
        return end

    # -- structure

    def _enter(self, entity: _Entity) -> int:
        """Take one entity in; return where the search for the next delimiter goes on."""
        self.entities += 1
        kind = entity.media_type
        if kind.startswith("multipart/") and self._push(entity):
            return entity.body
        if kind in _MESSAGES and _encoding(entity.fields) in _IDENTITY and len(self.stack) < MAX_DEPTH:
            return self._enter_message(entity)
        stop, following = self._leaf_end(entity.body)
        self._leaf(entity, stop)
        return following

    def _enter_message(self, entity: _Entity) -> int:
        """A forwarded message: its subject is read as quoted text, and so is what it holds."""
        depth = 0
        while entity.media_type in _MESSAGES and depth < MAX_DEPTH:
            entity = self._entity(entity.body, digest=False, quoted=True)
            depth += 1
        if depth == MAX_DEPTH:
            self.defect(DefectCode.TOO_DEEP, str(MAX_DEPTH))
            return self._leaf_end(entity.body)[1]
        return self._enter(entity)

    def _push(self, entity: _Entity) -> bool:
        """Open a multipart; False when it has no usable boundary and must be read as text."""
        boundary = entity.parameters.get("boundary", "").encode("utf-8", "surrogateescape").rstrip()
        if not boundary or len(boundary) > MAX_BOUNDARY:
            self.defect(DefectCode.BOUNDARY_MISSING, entity.media_type)
            return False
        if len(self.stack) >= MAX_DEPTH:
            self.defect(DefectCode.TOO_DEEP, str(MAX_DEPTH))
            return False
        if entity.media_type == "multipart/encrypted":
            self.defect(DefectCode.ENCRYPTED, entity.media_type)
        alternative = self.stack[-1].alternative if self.stack else 0
        if entity.media_type == "multipart/alternative" and not alternative:
            self.alternatives += 1
            alternative = self.alternatives
        self.stack.append(_Open(entity, boundary, alternative))
        self.boundaries.add(boundary)
        return True

    def _close_to(self, depth: int, end: int) -> None:
        """Close the multiparts above `depth`, which end at `end`; one that never showed its boundary is read as text."""
        while len(self.stack) > depth:
            top = self.stack.pop()
            if not top.seen:
                self.defect(DefectCode.BOUNDARY_MISSING, top.entity.media_type)
                self._leaf(top.entity, end)
        self.boundaries = {part.boundary for part in self.stack}

    def _next_entity(self, position: int) -> _Entity | None:
        """Go on from `position` to the next part; None at the end of the message or at a cap."""
        while self.stack:
            found = self._delimiter(position)
            if found is None:
                return None
            depth, closing, line, position = found
            self._close_to(depth + 1, line)
            self.stack[-1].seen = True
            if closing:
                self._close_to(depth, line)
                continue
            if self.entities >= MAX_PARTS:
                self.defect(DefectCode.TOO_MANY_PARTS, str(MAX_PARTS))
                return None
            top = self.stack[-1]
            return self._entity(position, digest=top.digest, quoted=top.entity.quoted)
        return None

    def _leaf_end(self, start: int) -> tuple[int, int]:
        """Where the body from `start` ends, and where to look for its delimiter again."""
        found = self._delimiter(start) if self.stack else None
        if found is None:
            return len(self.octets), len(self.octets)
        line = found[2]
        if line < start:
            return start, start
        return line - (self.octets[line - 1 : line] == b"\r"), line + 1

    def _delimiter(self, position: int) -> tuple[int, bool, int, int] | None:
        """The next line that is an open boundary: its level, whether it closes, where it starts (LF before) and ends."""
        octets, at = self.octets, max(position - 1, 0)
        while True:
            at = octets.find(b"\n--", at)
            if at < 0:
                return None
            if self.compared >= MAX_DELIMITERS:
                self.defect(DefectCode.TOO_MANY_PARTS, "delimiters")
                return None
            self.compared += 1
            end = octets.find(b"\n", at + 3)
            end = len(octets) if end < 0 else end
            line = octets[at + 3 : min(end, at + 3 + MAX_BOUNDARY + 8)].rstrip(b" \t\r")
            closing = line not in self.boundaries
            if not closing or (line.endswith(b"--") and line[:-2] in self.boundaries):
                return self._level(line[:-2] if closing else line), closing, at, min(end + 1, len(octets))
            at = end

    def _level(self, boundary: bytes) -> int:
        return max(level for level, part in enumerate(self.stack) if part.boundary == boundary)

    # -- leaves

    def _leaf(self, entity: _Entity, end: int) -> None:
        kind, encoding = entity.media_type, _encoding(entity.fields)
        if kind.startswith("multipart/"):
            kind = "text/plain"
        attached = _first(entity.fields, "content-disposition").strip().lower().startswith(b"attachment")
        if kind not in TEXT_TYPES:
            self._not_text(entity, kind, attached=attached)
        elif encoding not in _IDENTITY and encoding not in ("base64", "quoted-printable"):
            self.defect(DefectCode.ENCODING_UNKNOWN, encoding[:40])
        else:
            group = self.stack[-1].alternative if self.stack else 0
            part = Part(kind, entity.parameters, encoding, entity.body, end, group, entity.quoted, attached)
            self.parts.append(part)

    def _not_text(self, entity: _Entity, kind: str, *, attached: bool) -> None:
        if kind in _SIGNATURES:
            return
        if kind in _ENCRYPTED:
            self.defect(DefectCode.ENCRYPTED, kind)
        elif kind.startswith("image/") and not attached and self._is_related(entity):
            return  # the page shows it through <img>, which is counted there
        else:
            self.pictures += kind.startswith("image/")
            self.defect(DefectCode.ATTACHMENT, kind[:80])

    def _is_related(self, entity: _Entity) -> bool:
        related = any(part.entity.media_type == "multipart/related" for part in self.stack)
        return related or "content-id" in entity.fields


def _first(fields: dict[str, list[bytes]], name: str) -> bytes:
    values = fields.get(name)
    return values[0] if values else b""


def _encoding(fields: dict[str, list[bytes]]) -> str:
    words = _first(fields, "content-transfer-encoding").split(None, 1)
    return words[0].decode("ascii", "replace").lower().rstrip(";") if words else ""


def parse_content_type(value: bytes, default: str = "text/plain") -> tuple[str, dict[str, str]]:
    """Media type (lower-case) and parameters (lower-case names; RFC 2231 pieces joined). RFC 2045 §5.2 for a bad type."""
    text = value.decode("utf-8", "surrogateescape")
    media_type = text.partition(";")[0].strip().lower()
    if "(" in media_type:
        media_type = media_type.partition("(")[0].strip()
    if media_type.count("/") != 1 or " " in media_type:
        media_type = default if not media_type else "text/plain"
    return media_type, _parameters(text) if ";" in text else {}


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(text):
        value = re.sub(r"\\(.)", r"\1", quoted) if "\\" in quoted else quoted or plain
        base, star, piece = name.lower().partition("*")
        if star and piece.rstrip("*").isdigit() and piece.rstrip("*") != "0":
            found[base] = found.get(base, "") + value
        else:
            found.setdefault(base, value.rpartition("'")[2] if star and "'" in value else value)
    return found

"""Raw octets of a message -> header fields and text parts: our own bounded scanner of RFC 5322, 2045-2047 and 2231.

Never raises on bad mail; what is odd or left unread becomes a `Defect`. Nothing recurses, header fields that nobody
needs are not decoded, and bodies are only located here.

Chosen by measurement (tests/bench/bench_message.py, its statement of 26 kB; `email` with its compat32 policy = 1):
`email` with its default policy takes 3.5, is quadratic on headers and recurses on nesting; this scanner takes 0.09, and
0.15 with decoding; fast-mail-parser (Rust) takes 0.07, but it decodes every attachment, has no caps to set, and does
not say what was damaged.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from io import IncrementalNewlineDecoder
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
MAX_PASSES = 8
"""How often every octet may be looked at again for a nested structure, on average."""

_HEADER = re.compile(rb"(?:(?!--)[!-9;-~]*[ \t]*:[^\n]*(?:\n|\Z)|[ \t][^\n]*(?:\n|\Z))*(\r?\n)?")
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)
_END_OF_HEADER = b"\r\n\r\n"
_BLANK_LINES = (b"\n\n", b"\n\r\n")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;\s"]*))')

HTML_TYPES = frozenset(
    {
        *("text/html", "application/xhtml+xml", "text/x-amp-html"),
        *("text/xml", "application/xml", "text/enriched", "text/richtext"),
    }
)
"""Types read as a page: what else has tags is near enough to it."""
_CODED_TEXT = frozenset({"text/rtf", "application/rtf", "text/x-rtf"})
_NAMED_TEXT = {
    **dict.fromkeys(("html", "htm", "xhtml", "shtml", "xml"), "text/html"),
    **dict.fromkeys(("txt", "text", "md", "markdown", "csv", "asc"), "text/plain"),
    **dict.fromkeys(("ics", "vcs", "ical"), "text/calendar"),
}
_SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
_ENCRYPTED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted"})
_MESSAGES = frozenset({"message/rfc822", "message/global"})
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_DECODED = frozenset({"base64", "quoted-printable"})
_DELIMITER_END = re.compile(rb"(--)?[ \t]*+(?:\r?\n|\r?\Z)")
_MBOX = re.compile(rb">?From (?![ \t]*:)")
_NEAR_MISS = 0.2  # a line that only begins like a delimiter, in parts
_CR = 0x0D
_SHORT_HEADER = 400  # octets


class Part(NamedTuple):
    """A text part: where its encoded octets lie and how to read them.

    `alternative` numbers the outermost multipart/alternative around it (0: none); `quoted` is inside message/rfc822;
    `attached` asks to be shown as a file.
    """

    media_type: str
    parameters: Mapping[str, str]
    encoding: str
    start: int
    end: int
    alternative: int = 0
    quoted: bool = False
    attached: bool = False


class Scan(NamedTuple):
    """A message taken apart: `octets` (line ends repaired if need be), top header fields and parts; `pictures` counts
    those that readers show after the text, `attached_pictures` those that ask to be files, `page_pictures` those that
    a page is expected to show.
    """

    octets: bytes
    fields: dict[str, list[bytes]]
    parts: list[Part]
    pictures: int
    attached_pictures: int
    page_pictures: int
    defects: list[Defect]


class _Place(NamedTuple):
    """Where an entity (message or part) lies, and what is around it."""

    start: int
    end: int
    depth: int = 0
    alternative: int = 0
    quoted: bool = False
    digest: bool = False
    related: bool = False


class _Entity(NamedTuple):
    """The header of an entity, and where it and its body lie."""

    fields: dict[str, list[bytes]]
    media_type: str
    parameters: Mapping[str, str]
    body: int
    place: _Place


def scan(raw: bytes) -> Scan:
    """Take a message apart. Work is bounded by `MAX_PASSES` times its size; see the caps above."""
    return _Scanner(raw).run()


class _Scanner:
    """The state of one scan: the entities still to be read (last first), and what was found."""

    def __init__(self, raw: bytes) -> None:
        self.defects: list[Defect] = []
        self.octets = self._repair_line_ends(raw)
        self.parts: list[Part] = []
        self.waiting: list[_Place] = []
        self.alternatives = 0
        self.pictures = self.attached_pictures = self.page_pictures = 0
        self.delimiters = 0.0
        self.room = MAX_PASSES * max(len(raw), MAX_HEADER_BLOCK)

    def run(self) -> Scan:
        start = 0
        if _MBOX.match(self.octets):
            start = self.octets.find(b"\n") + 1  # mbox separator
        fields = self._read(_Place(start, len(self.octets)))
        while self.waiting:
            self._read(self.waiting.pop())
        return Scan(
            self.octets,
            fields,
            self.parts,
            self.pictures,
            self.attached_pictures,
            self.page_pictures,
            self.defects,
        )

    def defect(self, code: DefectCode, detail: str = "") -> None:
        note(self.defects, Defect(code, detail))

    def _repair_line_ends(self, raw: bytes) -> bytes:
        """A bare CR ends a line for readers, and a bare LF among CRLFs too; a file with LF only is no defect."""
        if b"\r" not in raw:
            return raw
        text = raw.decode("latin-1")
        ends = IncrementalNewlineDecoder(None, translate=False)  # looks once, in C, and remembers the line ends it saw
        ends.decode(text, final=True)
        if ends.newlines == "\r\n":
            return raw
        self.defect(DefectCode.BARE_LINE_END)
        if "\r" not in (ends.newlines or ()):
            return raw
        return IncrementalNewlineDecoder(None, translate=True).decode(text, final=True).encode("latin-1")

    # -- headers

    def _fields(self, start: int, stop: int) -> tuple[dict[str, list[bytes]], int]:
        """The header fields from `start` (lower-case name -> raw values) and the position of the body."""
        octets, limit = self.octets, min(stop, start + MAX_HEADER_BLOCK)
        blank = octets.find(_END_OF_HEADER, start, min(limit, start + _SHORT_HEADER)) if start else -1
        if blank >= 0:
            body = blank + len(_END_OF_HEADER)
            if (known := _short_header(octets[start:body])) is not None:
                return known, body
        header = _HEADER.match(octets, start, limit)
        end = header.end() if header else start
        return _named(octets, start, end), end if header and header[1] else self._body_start(end, limit, stop)

    def _body_start(self, end: int, limit: int, stop: int) -> int:
        """Where the body begins when no blank line was seen before `limit`."""
        octets = self.octets
        if end >= stop:
            return stop
        if octets.startswith(b"\n", end):
            return end + 1
        if octets.startswith(b"\r\n", end):
            return end + 2
        if end < limit - 1:
            self.defect(DefectCode.HEADER_MALFORMED)
            return end
        self.defect(DefectCode.HEADERS_TOO_LARGE, str(MAX_HEADER_BLOCK))
        start = max(end - 1, 0)
        ends = [at + len(line) for line in _BLANK_LINES if (at := octets.find(line, start, stop)) >= 0]
        return min(ends, default=stop)

    # -- structure

    def _read(self, place: _Place) -> dict[str, list[bytes]]:
        """Read the entity at a place: note what it holds and what is still to be read; its header fields."""
        fields, body = self._fields(place.start, place.end)
        kind, parameters = parse_content_type(
            _first(fields, "content-type"), "message/rfc822" if place.digest else "text/plain"
        )
        entity = _Entity(fields, kind, parameters, body, place)
        if kind.startswith("multipart/"):
            self._multipart(entity)
        elif kind in _MESSAGES and _encoding(fields) in _IDENTITY and self._may_descend(entity):
            self.waiting.append(_Place(body, place.end, place.depth + 1, place.alternative, quoted=True))
        else:
            self._leaf(entity, kind)
        return fields

    def _may_descend(self, entity: _Entity) -> bool:
        place = entity.place
        self.room -= place.end - entity.body
        if place.depth < MAX_DEPTH and self.room > 0:
            return True
        self.defect(DefectCode.TOO_DEEP, str(MAX_DEPTH))
        return False

    def _multipart(self, entity: _Entity) -> None:
        kind, place = entity.media_type, entity.place
        boundary = entity.parameters.get("boundary", "").encode("utf-8", "surrogateescape").rstrip()
        if kind == "multipart/encrypted":
            self.defect(DefectCode.ENCRYPTED, kind)
        if not self._may_descend(entity):
            return self._leaf(entity, "text/plain")
        inside = self._split(boundary, entity.body, place.end) if 0 < len(boundary) <= MAX_BOUNDARY else []
        if not inside:
            self.defect(DefectCode.BOUNDARY_MISSING, kind)
            return self._leaf(entity, "text/plain")
        alternative = place.alternative
        if kind == "multipart/alternative" and not alternative:
            self.alternatives = alternative = self.alternatives + 1
        digest, related = kind == "multipart/digest", place.related or kind == "multipart/related"
        self.waiting += [
            _Place(start, end, place.depth + 1, alternative, place.quoted, digest, related)
            for start, end in reversed(inside)
        ]
        return None

    def _split(self, boundary: bytes, start: int, stop: int) -> list[tuple[int, int]]:
        """Where the parts between delimiter lines lie; what is before the first and after the last is no part."""
        octets, delimiter = self.octets, b"\n--" + boundary
        found: list[tuple[int, int]] = []
        opened, at = -1, max(start - 1, 0)
        while (at := octets.find(delimiter, at, stop)) >= 0:
            if self.delimiters >= MAX_PARTS:
                self.defect(DefectCode.TOO_MANY_PARTS, str(MAX_PARTS))
                return found
            line = _DELIMITER_END.match(octets, at + len(delimiter), stop)
            if line is None:
                self.delimiters += _NEAR_MISS
                at += len(delimiter)
                continue
            self.delimiters += 1
            if opened >= 0:
                found.append((opened, max(opened, at - (octets[at - 1] == _CR))))
            if line[1]:
                return found
            opened, at = line.end(), line.end() - 1
        self.defect(DefectCode.BOUNDARY_MISSING, "closing")
        return [*found, (opened, stop)] if opened >= 0 else found

    # -- leaves

    def _leaf(self, entity: _Entity, kind: str) -> None:
        encoding, place = _encoding(entity.fields), entity.place
        disposition = _first(entity.fields, "content-disposition")
        attached = disposition.strip().lower().startswith(b"attachment")
        if kind.startswith("application/"):
            kind = _named_type(kind, entity.parameters, disposition)
        if kind in _CODED_TEXT:
            self.defect(DefectCode.TEXT_UNREAD, kind)
        elif not kind.startswith("text/") and kind not in HTML_TYPES:
            self._not_text(entity, kind, attached=attached)
        elif encoding in _IDENTITY or encoding in _DECODED:
            part = (entity.body, place.end, place.alternative, place.quoted, attached)
            self.parts.append(Part(kind, entity.parameters, encoding, *part))
        else:
            self.defect(DefectCode.ENCODING_UNKNOWN, encoding[:40])

    def _not_text(self, entity: _Entity, kind: str, *, attached: bool) -> None:
        if kind in _SIGNATURES:
            return
        if kind in _ENCRYPTED:
            self.defect(DefectCode.ENCRYPTED, kind)
            return
        picture = kind.startswith("image/")
        if picture and not attached and (entity.place.related or "content-id" in entity.fields):
            self.page_pictures += 1  # counted where the page has its <img>
            return
        if picture and attached:
            self.attached_pictures += 1
        else:
            self.pictures += picture
        self.defect(DefectCode.ATTACHMENT, kind[:80])


def _named(octets: bytes, start: int, end: int) -> dict[str, list[bytes]]:
    fields: dict[str, list[bytes]] = {}
    for name, value in _FIELD.findall(octets, start, end):
        fields.setdefault(name.decode("ascii").lower(), []).append(value)
    return fields


@lru_cache(maxsize=256)
def _short_header(header: bytes) -> dict[str, list[bytes]] | None:
    """The fields of a part's header, which few senders vary; None when there is more to it than fields."""
    found = _HEADER.match(header)
    return _named(header, 0, len(header)) if found and found[1] and found.end() == len(header) else None


def _named_type(kind: str, parameters: Mapping[str, str], disposition: bytes) -> str:
    """The type that a file's name tells, when the given one tells no more than that it is a file."""
    name = parameters.get("name") or parse_content_type(disposition)[1].get("filename", "")
    return _NAMED_TEXT.get(name.rpartition(".")[2].strip().lower(), kind)


def _first(fields: dict[str, list[bytes]], name: str) -> bytes:
    values = fields.get(name)
    return values[0] if values else b""


def _encoding(fields: dict[str, list[bytes]]) -> str:
    return _first_word(_first(fields, "content-transfer-encoding"))


@lru_cache(maxsize=64)
def _first_word(value: bytes) -> str:
    words = value.split(None, 1)
    return words[0].decode("ascii", "replace").lower().rstrip(";") if words else ""


@lru_cache(maxsize=256)
def parse_content_type(value: bytes, default: str = "text/plain") -> tuple[str, Mapping[str, str]]:
    """Media type (lower-case) and parameters (lower-case names, RFC 2231 pieces joined); RFC 2045 §5.2 if bad."""
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

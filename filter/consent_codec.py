"""How consent events are laid out in the index: a few octets each, self-checking, without loss.

What many records share (capture, arrival time of the batch, which fields they carry and how those are spelt) is a
*template*, stored once. A record is then: template number, event time, and the fields the template lists. A value is
all records of one wide subject key, in order of arrival, and a check sum.

    value   := record+ check(4)
    record  := template(3) event_time(6) [exact key(16)] field* [received_at(6)]      all numbers big-endian

`exact key` is there when it differs from the wide key. Text fields are spelt out unless they are UUIDs, 32 hex digits
or a short prefix with a number ("ORD-0012345"), which take 16 octets or as few as the digits need.

Raises `ConsentDataError` for a damaged value or template: never "no record", never a guess. No I/O.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID
from zlib import crc32

import orjson

from .address import Subject
from .errors import ConsentDataError
from .evidence import OPT_OUTS, Capture, ConsentEvent, EventKind, Grade, Scope

MAX_TEXT: Final = 255  # octets of a per-record reference
MAX_TIME: Final = (1 << 48) - 1  # milliseconds; the year 10889
MAX_TEMPLATES: Final = 1 << 24

TIME = 6
KEY = 16
HEAD = 3 + TIME
_UNDATED = bytes(TIME)
CHECK = 4
RESIDUE = crc32(b"" + crc32(b"").to_bytes(4, "little"))  # the CRC of anything followed by its own CRC

# Six octets, high and low; on a hot path half the time of int.from_bytes on a slice.
read_time = Struct(">HI").unpack_from

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_HEX = re.compile(r"[0-9a-f]{32}").fullmatch
_NUMBERED = re.compile(r"((?:[A-Za-z]{1,8}[-_:/.])?)([0-9]{1,18})").fullmatch
_DIGIT_OCTETS = [0, *(((10**width - 1).bit_length() + 7) // 8 for width in range(1, 19))]

_TEXT_FIELDS: Final = ("id", "evidence_ref", "transaction_ref", "request_ref", "subscriber_evidence")
_NUMBER_FIELDS: Final = ("source_seq", "expires_at", "valid_until")
_DEFAULTS: Final = tuple(ConsentEvent._field_defaults.values())
_DEFAULT: Final[dict[str, Any]] = ConsentEvent._field_defaults
_OPTIONAL: Final = tuple(
    (position, name, name in _TEXT_FIELDS, ConsentEvent._field_defaults.get(name, ""))
    for position, name in enumerate(ConsentEvent._fields)
    if name in _TEXT_FIELDS or name in _NUMBER_FIELDS
)
_POSITIONS: Final = {name: index for index, name in enumerate(ConsentEvent._fields)}

_new = tuple.__new__  # what a named tuple's own constructor calls, at a third of the time

_Reader = Callable[[bytes, int], tuple[Any, int]]
Layout = tuple[tuple[str, str], ...]


class Record(NamedTuple):
    """One decoded record: the exact subject key it was made for, and the event."""

    exact: bytes
    event: ConsentEvent


@dataclass(frozen=True)
class Template:
    """What records share.

    `received_at` 0: each record has its own. `layout` pairs each field that records carry with its spelling. `narrow`:
    each record carries its exact key. Records without an `id` field have one derived from their content.
    """

    capture: Capture
    received_at: int = 0
    layout: Layout = ()
    narrow: bool = False
    identity: bytes = field(init=False, repr=False, compare=False)
    undated_identity: bytes = field(init=False, repr=False, compare=False)
    readers: tuple[tuple[int, _Reader], ...] = field(init=False, repr=False, compare=False)
    has_id: bool = field(init=False, repr=False, compare=False)
    length: int = field(init=False, repr=False, compare=False)  # octets of a record; 0 when they differ
    short: bool = field(init=False, repr=False, compare=False)  # records carry nothing but the event time
    wide: bool = field(init=False, repr=False, compare=False)  # concerns every spelling of the address

    def __post_init__(self) -> None:
        """Compile the layout; name the content apart from when and with which batch it came."""
        terms = _capture_to_json(self.capture)
        # One's own act is not the same event as a list's assertion of it: only the former can lift an opt-out.
        object.__setattr__(self, "identity", self._name_content({**terms, "batch": bool(self.capture.batch)}))
        # The same undated opt-out in a later list is a new act: it must count again after a grant in between.
        object.__setattr__(self, "undated_identity", self._name_content(terms))
        readers = tuple((_POSITIONS[name], _reader(spelling)) for name, spelling in self.layout)
        object.__setattr__(self, "length", self._common_length())
        object.__setattr__(self, "short", self.length == HEAD)
        object.__setattr__(self, "wide", self.capture.kind in OPT_OUTS or self.capture.kind is EventKind.BLOCK)
        object.__setattr__(self, "readers", readers)
        object.__setattr__(self, "has_id", any(name == "id" for name, _ in self.layout))

    def _common_length(self) -> int:
        octets = [_octets(spelling) for _, spelling in self.layout]
        return 0 if 0 in octets else HEAD + KEY * self.narrow + sum(octets) + (0 if self.received_at else TIME)

    def _name_content(self, terms: dict[str, Any]) -> bytes:
        return blake2b(orjson.dumps([terms, self.layout, self.narrow]), digest_size=8).digest()

    def decode(self, value: bytes, start: int, end: int, wide: bytes) -> tuple[bytes, ConsentEvent]:
        """Exact key and event of the record from `start` to `end`; the length has been checked."""
        high, low = read_time(value, start + 3)
        made = (high << 32) | low
        at = start + HEAD
        if self.short and made:
            named = (wide[:8] + self.identity + value[start + 3 : at]).hex()  # as in _derived_id
            return wide, _new(ConsentEvent, (self.capture, named, made, self.received_at, *_DEFAULTS))
        exact = wide
        if self.narrow:
            exact = value[at : at + KEY]
            at += KEY
        received = self.received_at or int.from_bytes(value[end - TIME : end])
        given = [self.capture, "", made, received, *_DEFAULTS]
        for position, read in self.readers:
            given[position], at = read(value, at)
        if not self.has_id:
            given[1] = self._derived_id(value[start:end], exact)
        return exact, _new(ConsentEvent, given)

    def _derived_id(self, record: bytes, exact: bytes) -> str:
        """The identity of an event that came without one; short content is spelt out, longer content hashed."""
        name, body = identity(self, record)
        content = exact[:8] + name + body
        return content.hex() if len(body) <= KEY else blake2b(content, digest_size=22).hexdigest()

    def to_json(self) -> bytes:
        """The stored form."""
        return orjson.dumps(
            {
                "capture": _capture_to_json(self.capture),
                "received_at": self.received_at,
                "layout": self.layout,
                "narrow": self.narrow,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> "Template":
        """The inverse of `to_json`."""
        try:
            stored = orjson.loads(data)
            layout = tuple((name, spelling) for name, spelling in stored["layout"])
            return cls(_capture_from_json(stored["capture"]), stored["received_at"], layout, stored["narrow"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConsentDataError("consent index is damaged: a record template cannot be read") from error


class Templates:
    """The numbered templates of one index; numbers are given in order and never reused."""

    def __init__(self) -> None:
        self._listed: list[Template] = []
        self._numbers: dict[Template, int] = {}

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, number: int) -> Template:
        return self._listed[number]

    def number(self, template: Template) -> int:
        """The number of `template`, a new one if need be."""
        known = self._numbers.setdefault(template, len(self._listed))
        if known == len(self._listed):
            if known >= MAX_TEMPLATES:
                raise ConsentDataError(f"consent index is full: more than {MAX_TEMPLATES} different record templates")
            self._listed.append(template)
        return known

    def truncate(self, count: int) -> None:
        """Forget all but the first `count` (a transaction was undone)."""
        for template in self._listed[count:]:
            del self._numbers[template]
        del self._listed[count:]

    def records(self, value: bytes, wide: bytes) -> list[Record]:
        """Decode a value; `ConsentDataError` when it is damaged, `UnknownTemplateError` when it is newer than us."""
        return [Record(*template.decode(value, start, end, wide)) for template, start, end in self.spans(value)]

    def events(self, value: bytes, subject: Subject) -> Sequence[ConsentEvent]:
        """The events in a value that concern one spelling of the address.

        Opt-outs and blocks of any spelling do; everything else only of this very spelling.
        """
        decoded = [
            (template.wide, *template.decode(value, start, end, subject.wide))
            for template, start, end in self.spans(value)
        ]
        return [event for wide, exact, event in decoded if wide or exact == subject.exact]

    def _template(self, value: bytes, start: int) -> Template:
        number = int.from_bytes(value[start : start + 3])
        if number >= len(self._listed):
            raise UnknownTemplateError(number)
        return self._listed[number]

    def spans(self, value: bytes) -> Iterator[tuple[Template, int, int]]:
        """Where each record of a value lies, once the check sum is found right."""
        limit = len(value) - CHECK
        if limit < HEAD or crc32(value) != RESIDUE:
            raise ConsentDataError("consent index is damaged: a record fails its check sum; restore it or import again")
        start = 0
        while start < limit:
            template = self._template(value, start)
            end = start + template.length if template.length else record_end(template, value, start)
            if end > limit:
                raise ConsentDataError("consent index is damaged: a record is cut short; restore it or import again")
            yield template, start, end
            start = end


class UnknownTemplateError(ConsentDataError):
    """A record refers to a template that has not been read yet, or never was written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"consent index is damaged: record template {number} is missing")


def check(body: bytes) -> bytes:
    """The check sum of a value."""
    return crc32(body).to_bytes(CHECK, "little")


def identity(template: Template, record: bytes) -> tuple[bytes, bytes]:
    """What makes a record the same act as another, whenever and in whichever batch it arrived."""
    body = record[3:] if template.received_at else record[3:-TIME]
    return (template.undated_identity if body.startswith(_UNDATED) else template.identity), body


def spell(text: str) -> tuple[str, bytes]:
    """The shortest lossless spelling of a reference: its name for the layout, and the octets."""
    if numbered := _NUMBERED(text):
        prefix, digits = numbered.groups()
        return f"{prefix}#{len(digits)}", int(digits).to_bytes(_DIGIT_OCTETS[len(digits)])
    if _UUID(text):
        return "uuid", bytes.fromhex(text.replace("-", ""))
    if _HEX(text):
        return "hex", bytes.fromhex(text)
    octets = text.encode()
    if len(octets) > MAX_TEXT:
        raise ConsentDataError(f"reference of {len(octets)} octets; allowed are {MAX_TEXT}")
    return "text", bytes((len(octets),)) + octets


def spell_number(value: int) -> tuple[str, bytes]:
    """The spelling of a whole number: as many octets as it takes."""
    size = max(1, (value.bit_length() + 7) // 8)
    return f"int{size}", value.to_bytes(size)


def time_octets(milliseconds: int) -> bytes:
    """An instant as stored; refuses what does not fit."""
    if not 0 <= milliseconds <= MAX_TIME:
        raise ConsentDataError(f"time {milliseconds} is outside 0 to {MAX_TIME} milliseconds")
    return milliseconds.to_bytes(TIME)


def encode(event: ConsentEvent, narrow: bytes = b"") -> tuple[Template, bytes]:
    """A template and the rest of the record (all but the template number).

    `narrow` is the exact key where it differs from the wide one. An event of a batch shares its arrival time.
    """
    layout: list[tuple[str, str]] = []
    parts = [time_octets(event.event_time), narrow]
    for position, name, is_text, default in _OPTIONAL:
        given: Any = event[position]
        if given != default:
            spelling, octets = spell(given) if is_text else spell_number(given)
            layout.append((name, spelling))
            parts.append(octets)
    shared = event.received_at if event.capture.batch else 0
    if not shared:
        parts.append(time_octets(event.received_at))
    return template_of(event.capture, shared, tuple(layout), bool(narrow)), b"".join(parts)


@lru_cache(maxsize=20_000)
def template_of(capture: Capture, received_at: int, layout: Layout, narrow: bool) -> Template:
    """One template for all that it fits: making one takes longer than encoding ten records."""
    return Template(capture, received_at, layout, narrow)


def record_end(template: Template, value: bytes, start: int) -> int:
    """Where the record at `start` ends."""
    at = start + HEAD + (KEY if template.narrow else 0)
    try:
        for _, read in template.readers:
            _, at = read(value, at)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ConsentDataError("consent index is damaged: a record cannot be read") from error
    return at if template.received_at else at + TIME


def _reader(spelling: str) -> _Reader:
    fixed: dict[str, _Reader] = {"text": _read_text, "uuid": _read_uuid, "hex": _read_hex, **_INTEGERS}
    if spelling in fixed:
        return fixed[spelling]
    prefix, mark, width = spelling.rpartition("#")
    if not mark or not width.isdigit() or not 1 <= int(width) < len(_DIGIT_OCTETS):
        raise ValueError(spelling)
    return partial(_read_numbered, prefix, int(width))


def _octets(spelling: str) -> int:
    """How many octets a spelling takes, 0 when that depends on the text."""
    fixed = {"text": 0, "uuid": KEY, "hex": KEY, **{f"int{size}": size for size in range(1, 9)}}
    return fixed[spelling] if spelling in fixed else _DIGIT_OCTETS[int(spelling.rpartition("#")[2])]


def _read_text(value: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + value[at]
    return value[at + 1 : end].decode(), end


def _read_uuid(value: bytes, at: int) -> tuple[str, int]:
    return str(UUID(bytes=value[at : at + KEY])), at + KEY


def _read_hex(value: bytes, at: int) -> tuple[str, int]:
    return value[at : at + KEY].hex(), at + KEY


def _read_int(size: int, value: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(value[at : at + size]), at + size


_INTEGERS: Final = {f"int{size}": partial(_read_int, size) for size in range(1, 9)}


def _read_numbered(prefix: str, width: int, value: bytes, at: int) -> tuple[str, int]:
    end = at + _DIGIT_OCTETS[width]
    return f"{prefix}{int.from_bytes(value[at:end]):0{width}}", end


_CAPTURE_FIELDS: Final = tuple(one.name for one in fields(Capture) if one.init)
_CAPTURE_DEFAULTS: Final = {one.name: one.default for one in fields(Capture) if one.init}


def _capture_to_json(capture: Capture) -> dict[str, Any]:
    given = {name: getattr(capture, name) for name in _CAPTURE_FIELDS}
    kept = {name: thing for name, thing in given.items() if thing != _CAPTURE_DEFAULTS[name]}
    return {**kept, "scope": list(capture.scope)}


def _capture_from_json(stored: dict[str, Any]) -> Capture:
    given: dict[str, Any] = {name: tuple(thing) if isinstance(thing, list) else thing for name, thing in stored.items()}
    given["kind"] = EventKind(stored["kind"])
    given["grade"] = Grade(stored.get("grade", Grade.NONE))
    given["scope"] = Scope(*_four(stored["scope"]))
    return Capture(**given)


def _four(parts: Sequence[str]) -> tuple[str, str, str, str]:
    channel, controller, brand, topic = parts
    return channel, controller, brand, topic

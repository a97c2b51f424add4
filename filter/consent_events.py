"""Consent events as records of a Kafka topic: key and value octets <-> event, heartbeat, erasure.

    key      MAILBOX:ACT         a consent event: the mailbox's (wide) subject key, and what names the act, both in hex
             MAILBOX:erase       everything on record about the mailbox before this record is to be forgotten
             heartbeat           the data is complete as of a time; one in each partition
    value    JSON object; for an event the fields of `consent export`, and `v` and `key_id`

The topic is compacted, which keeps the last record of each key. ACT is made of what an act is (who, terms, event time,
references), not of when or in which list it was told, as in the index (`consent_codec.identity`): told again, it
replaces itself, and no other act of the same person is ever lost. Records go to the partition of their mailbox
(`partition_key`), so those of one person stay in order. A record without a value (a tombstone) says nothing.

Opt-outs and blocks are never refused for a bad value: it is left out, which only makes them wider or undated. A record
that may be an opt-out and cannot be read counts as an objection to everything by whomever it names (`Refused.stops`);
one with somebody else's subject key can name nobody. Pure; raises nothing while reading.
"""

import re
from dataclasses import fields
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from .address import Subject
from .consent_codec import MAX_TEXT, MAX_TIME, encode, identity
from .evidence import BASES, OPT_OUTS, Capture, ConsentEvent, EventKind, Grade, Scope

VERSION: Final = 1
MAX_VALUE: Final = 64 << 10  # octets
MAX_CAPTURES: Final = 100_000  # remembered; then all are forgotten

_HEARTBEAT: Final = b"heartbeat"
_ERASE: Final = b"erase"
TERMS_BEGIN: Final = b',"kind":'
_HEX: Final = 32
_KEY: Final = re.compile(rb"([0-9a-f]{32})(?::([!-~]{1,200}))?").fullmatch
_new = tuple.__new__  # what a named tuple's own constructor calls, at a third of the time
_NAMELESS: Final = bytes(3)  # in place of a template number
_NEVER_REFUSED: Final = OPT_OUTS | {EventKind.BLOCK}
_KINDS: Final = {str(kind): kind for kind in EventKind}
_GRADES: Final = {str(grade): grade for grade in Grade}
_MAX_NUMBER: Final = (1 << 63) - 1
_MAX_SHARED: Final = 10_000  # characters of a term or items of a list


class Because(StrEnum):
    """Why a record was refused."""

    BAD_KEY = "bad_key"
    TOO_LARGE = "too_large"
    BAD_JSON = "bad_json"
    UNKNOWN_VERSION = "unknown_version"
    FOREIGN_KEY_ID = "foreign_key_id"  # made with another subject key than ours
    KEY_MISMATCH = "key_mismatch"  # key and value name different mailboxes
    UNKNOWN_KIND = "unknown_kind"
    BAD_FIELD = "bad_field"


class Told(NamedTuple):
    """A consent event and whom it concerns."""

    subject: Subject
    event: ConsentEvent


class Heartbeat(NamedTuple):
    """Everything known at this time (epoch milliseconds) had been published."""

    at: int


class Erasure(NamedTuple):
    """What is on record about this mailbox (wide subject key) is to be forgotten."""

    mailbox: bytes


class Tombstone(NamedTuple):
    """A record without a value: what had this key needs no keeping in the topic."""


class Refused(NamedTuple):
    """A record that cannot be read. `stops` are the mailboxes for which it counts as an objection to everything.

    `field` names what was wrong; it is one of our own names, or empty, and never quotes the record.
    """

    because: Because
    field: str = ""
    stops: tuple[bytes, ...] = ()


Read = Told | Heartbeat | Erasure | Tombstone | Refused


class _BadFieldError(Exception):
    """A value that cannot be used, and the name of its field."""


def event_record(subject: Subject, event: ConsentEvent) -> tuple[bytes, bytes]:
    """Key and value of a consent event. Raises `ConsentDataError` for what no index could hold."""
    document: dict[str, Any] = {"v": VERSION, "key_id": subject.key_id, "subject": subject.exact.hex()}
    if subject.wide != subject.exact:
        document["mailbox"] = subject.wide.hex()
    for (name, default), given in zip(OWN.items(), event[1:], strict=True):
        if given != default:
            document[name] = given
    # The terms come last and begin with the kind: `Reader` knows them again without reading them.
    value = orjson.dumps(document)[:-1] + _terms(event.capture)
    return b"%s:%s" % (subject.wide.hex().encode(), _act(subject, event)), value


@lru_cache(maxsize=20_000)
def _terms(capture: Capture) -> bytes:
    """The end of a value: what many people's events have in common."""
    terms = {name: getattr(capture, name) for name, default in _TERMS.items() if getattr(capture, name) != default}
    kind = terms.pop("kind")
    return b"," + orjson.dumps({"kind": kind, **capture.scope._asdict(), **terms})[1:]


def _act(subject: Subject, event: ConsentEvent) -> bytes:
    """The name of an act: the same whenever, and in whichever list, it is told.

    Where the time of arrival matters to what an event means (it has no time, or a later one), it is part of the name.
    """
    narrow = b"" if subject.exact == subject.wide else subject.exact
    template, rest = encode(event, narrow)
    named = b"".join(identity(template, _NAMELESS + rest))
    if not 0 < event.event_time <= event.received_at:
        named += event.received_at.to_bytes(8)
    return blake2b(named, digest_size=16).hexdigest().encode()


def heartbeat_record(at: int) -> tuple[bytes, bytes]:
    """Key and value of a heartbeat; for every partition."""
    return _HEARTBEAT, orjson.dumps({"v": VERSION, "at": at})


def erasure_record(subject: Subject) -> tuple[bytes, bytes]:
    """Key and value that have every node forget a mailbox; kept in the topic, for nodes that come back later."""
    value = {"v": VERSION, "key_id": subject.key_id, "mailbox": subject.wide.hex()}
    return b"%s:%s" % (subject.wide.hex().encode(), _ERASE), orjson.dumps(value)


def partition_key(key: bytes) -> bytes:
    """The part of a record's key that decides its partition."""
    return key[:_HEX]


class Reader:
    """Reads the records of a topic for the node with this subject key id; remembers terms that many events share."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._captures: dict[bytes, Capture] = {}

    def read(self, key: bytes | None, value: bytes | None) -> Read:
        """What a record says."""
        named = _KEY(key or b"")
        if named is None:
            return _read_unnamed(key, value)
        if value is None:
            return Tombstone()
        mailbox = bytes.fromhex(named[1].decode())
        at = value.find(TERMS_BEGIN)
        known = self._captures.get(value[at:]) if at > 0 and len(value) <= MAX_VALUE else None
        document = _document(value[:at] + b"}") if known else _document(value)
        if known and (isinstance(document, Because) or not document.keys() <= _HEAD_NAMES):
            known, document = None, _document(value)
        if isinstance(document, Because):
            return Refused(document, stops=(mailbox,))
        read: Read | None = self._check_maker(mailbox, document)
        if read is None:
            read = (
                _read_erasure(mailbox, document) if named[2] == _ERASE else self._read_event(mailbox, document, known)
            )
        if known is None and at > 0 and isinstance(read, Told):
            self._remember(value[at:], read.event.capture)
        return read

    def known(self, end: bytes) -> Capture | None:
        """The terms that these octets, the end of a value from `TERMS_BEGIN` on, were found to be and nothing else."""
        return self._captures.get(end)

    def _check_maker(self, mailbox: bytes, document: dict[str, Any]) -> Refused | None:
        """Why we cannot read what made this value; takes what tells it out of the document."""
        key_id, version = document.pop("key_id", None), document.pop("v", None)
        if key_id != self.key_id:
            if type(key_id) is str:
                return Refused(Because.FOREIGN_KEY_ID)
            return Refused(Because.BAD_FIELD, "key_id", (mailbox,))
        return None if version == VERSION else Refused(Because.UNKNOWN_VERSION, stops=(mailbox,))

    def _read_event(self, mailbox: bytes, document: dict[str, Any], known: Capture | None) -> Read:
        exact = _subject(document.pop("subject", None))
        wide = _subject(document.pop("mailbox")) if "mailbox" in document else exact
        kind = known.kind if known else _kind(document.get("kind"))
        if exact is None or wide is None:
            return Refused(Because.BAD_FIELD, "subject", () if kind in BASES else (mailbox,))
        if wide != mailbox:
            return Refused(Because.KEY_MISMATCH, "mailbox", () if kind in BASES else (mailbox, wide))
        if kind is None:
            return Refused(Because.UNKNOWN_KIND, "kind", (mailbox,))
        lenient = kind in _NEVER_REFUSED
        own: list[Any] = [known, *OWN.values()]
        try:
            for name in OWN:
                if name in document:
                    own[_POSITIONS[name]] = _checked(name, document[name], lenient=lenient)
            if known is None:
                terms = {name: value for name, value in document.items() if name not in OWN}
                own[0] = _read_capture(terms, kind, lenient=lenient)
        except _BadFieldError as error:
            return Refused(Because.BAD_FIELD, str(error))
        return Told(_new(Subject, (exact, wide, self.key_id)), _new(ConsentEvent, own))

    def _remember(self, end: bytes, capture: Capture) -> None:
        """Know these octets again as these terms, if they say nothing else: they end a value, whatever its beginning.

        A comma and a name in quotes stand between fields and never within text, where quotes are escaped.
        """
        terms = _document(b"{" + end[1:])
        if isinstance(terms, Because) or terms.keys() - _TERM_NAMES:
            return
        if len(self._captures) >= MAX_CAPTURES:
            self._captures.clear()
        self._captures[end] = capture


def _document(value: bytes) -> dict[str, Any] | Because:
    if len(value) > MAX_VALUE:
        return Because.TOO_LARGE
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return Because.BAD_JSON
    return document if type(document) is dict else Because.BAD_JSON


def _read_unnamed(key: bytes | None, value: bytes | None) -> Read:
    """A record of no mailbox."""
    if key != _HEARTBEAT:
        return Refused(Because.BAD_KEY)
    if value is None:
        return Tombstone()
    try:
        document = orjson.loads(value)
        return Heartbeat(_time(document["at"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Refused(Because.BAD_FIELD, "at")


def _read_erasure(mailbox: bytes, document: dict[str, Any]) -> Read:
    if _subject(document.get("mailbox")) != mailbox:
        return Refused(Because.KEY_MISMATCH, "mailbox", (mailbox,))
    return Erasure(mailbox)


def _read_capture(terms: dict[str, Any], kind: EventKind, *, lenient: bool) -> Capture:
    unknown = set(terms) - _TERM_NAMES
    if unknown and not lenient:  # it may be a condition that we do not know
        raise _BadFieldError("(unknown)")
    given = {name: _checked(name, terms[name], lenient=lenient) for name in _TERMS if name in terms and name != "kind"}
    channel, controller, brand, topic = (_checked(name, terms.get(name, ""), lenient=lenient) for name in Scope._fields)
    if terms.get("topics") and not given["topics"]:  # unreadable: left out, they would make an opt-out narrower
        topic = ""
    return Capture(kind=kind, scope=Scope(channel, controller, brand, topic), **given)


def _checked(name: str, value: Any, *, lenient: bool) -> Any:
    try:
        return _CHECKS[name](value)
    except (TypeError, ValueError):
        if lenient:
            return _DEFAULTS[name]
        raise _BadFieldError(name) from None


def _kind(value: Any) -> EventKind | None:
    return _KINDS.get(value) if type(value) is str else None


def _subject(value: Any) -> bytes | None:
    if type(value) is not str or len(value) != _HEX:
        return None
    try:
        key = bytes.fromhex(value)
    except ValueError:
        return None
    return key if 2 * len(key) == _HEX else None  # else there were spaces


def _time(value: Any) -> int:
    return _whole(value, 0, MAX_TIME)


def _number(value: Any) -> int:
    return _whole(value, -1, _MAX_NUMBER)


def _duration(value: Any) -> int:
    return _whole(value, 0, _MAX_NUMBER)


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(value)
    return value


def _reference(value: Any) -> str:
    """Text of one event, which the index limits."""
    if type(value) is not str or len(value.encode()) > MAX_TEXT:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > _MAX_SHARED:
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > _MAX_SHARED:
        raise ValueError
    return tuple(_text(each) for each in value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _grade(value: Any) -> Grade:
    if value not in _GRADES:
        raise ValueError
    return _GRADES[value]


OWN: Final = {"id": "", "event_time": 0, "received_at": 0, **ConsentEvent._field_defaults}
_POSITIONS: Final = {name: position for position, name in enumerate(ConsentEvent._fields)}
_TERMS: Final = {
    one.name: one.default for one in fields(Capture) if one.init and one.name != "scope"
}  # `kind` is never its default: there is none
_TERM_NAMES: Final = {*_TERMS, *Scope._fields}
_HEAD_NAMES: Final = {"v", "key_id", "subject", "mailbox", *OWN}
_DEFAULTS: Final = {**_TERMS, **OWN, **dict.fromkeys(Scope._fields, "")}
_CHECKS: Final[dict[str, Any]] = {
    **dict.fromkeys(Scope._fields, _text),
    **dict.fromkeys(("source", "method", "reason", "wording_id", "wording_sha256"), _text),
    **dict.fromkeys(("third_party", "collector", "batch"), _text),
    **dict.fromkeys(("topics", "bundled_with", "named_controllers"), _texts),
    **dict.fromkeys(("affirmative", "conditional", "refusal_offered", "charity", "pending", "bulk"), _flag),
    "told_duration": _duration,
    "grade": _grade,
    **dict.fromkeys(("id", "evidence_ref", "transaction_ref", "request_ref", "subscriber_evidence"), _reference),
    **dict.fromkeys(("event_time", "received_at", "expires_at", "valid_until"), _time),
    "source_seq": _number,
}

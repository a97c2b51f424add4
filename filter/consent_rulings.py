"""Answers from stored values, without decoding what the answer does not depend on.

Nearly every subject has one record, and what it amounts to depends on its template, the scope and two comparisons of
times. That ruling (consent.rule) is worked out once per template and scope; the record itself is decoded when somebody
asks the answer for its events. Whatever is less ordinary is decoded and merged in full.

Raises `ConsentDataError` for a damaged value. No I/O, no clock.
"""

from typing import Final
from zlib import crc32

from .address import Subject
from .consent import ConsentAnswer, Ruling, Scope, resolve, rule
from .consent_codec import CHECK, HEAD, KEY, MAX_TIME, RESIDUE, TIME, Template, Templates, read_time, record_end

MAX_RULINGS: Final = 100_000  # a few hundred octets each; then we start afresh


# A template, from when its undated records count (0: unknown), the latest date that the ruling on its records covers
# (0: the arrival of each), and that ruling in a scope, if any.
_Known = tuple[Template, int, int, Ruling | None]


class Rulings:
    """The rulings on the templates of one index."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._known: dict[tuple[bytes, Scope, int], _Known] = {}

    def answer(self, value: bytes, subject: Subject, scope: Scope, at: int, max_age: int) -> ConsentAnswer:
        """What `resolve` says of the events in `value` that concern `subject`."""
        key = value[:3], scope, max_age
        template, undated, latest, ruling = self._known.get(key) or self._learn(key, value, subject.wide)
        if ruling is not None and crc32(value) == RESIDUE and _is_all(template, value):
            high, low = read_time(value, 3)
            since = (high << 32) | low or undated
            covered = 0 < since <= (latest or _arrival(value)) and since <= at < since + ruling[3]
            if covered and _concerns(template, value, subject):
                return ConsentAnswer.deferred(ruling, self._merge, value, subject, scope, at, max_age)
        return self._merge(value, subject, scope, at, max_age)

    def _merge(self, value: bytes, subject: Subject, scope: Scope, at: int, max_age: int) -> ConsentAnswer:
        return resolve(self._templates.events(value, subject), scope, at, max_age=max_age)

    def _learn(self, key: tuple[bytes, Scope, int], value: bytes, wide: bytes) -> _Known:
        """Work out the ruling on records like the first of `value`."""
        template, start, end = next(self._templates.spans(value))
        _, event = template.decode(value, start, end, wide)
        permits = template.capture.permits
        undated, latest = (0, template.received_at) if permits else (template.received_at, MAX_TIME)
        if len(self._known) >= MAX_RULINGS:
            self._known.clear()
        self._known[key] = known = template, undated, latest, rule(event, key[1], key[2])
        return known


def _is_all(template: Template, value: bytes) -> bool:
    """Whether the first record of a value is its only one."""
    return (template.length or record_end(template, value, 0)) + CHECK == len(value)


def _arrival(value: bytes) -> int:
    """When the only record of a value arrived, where each record tells."""
    high, low = read_time(value, len(value) - CHECK - TIME)
    return int((high << 32) | low)


def _concerns(template: Template, value: bytes, subject: Subject) -> bool:
    """Whether the first record of a value is about this spelling of the address."""
    exact, wide, _ = subject
    return template.wide or exact == (value[HEAD : HEAD + KEY] if template.narrow else wide)

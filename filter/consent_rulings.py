"""Answers from stored values, without decoding what the answer does not depend on.

Nearly every subject has one record, and what it amounts to depends on its template, the scope and two comparisons of
times. That ruling (consent.rule) is worked out once per template and scope; the record itself is decoded when somebody
asks the answer for its events. Whatever is less ordinary is decoded and merged in full.

Raises `ConsentDataError` for a damaged value. No I/O, no clock.
"""

from typing import Final
from zlib import crc32

from .address import Subject
from .consent import ConsentAnswer, ConsentState, Ruling, Scope, resolve, rule
from .consent_codec import CHECK, RESIDUE, Templates, read_time

MAX_RULINGS: Final = 100_000  # a few hundred octets each; then we start afresh


# What is known of a template in a scope: octets of a value with one such record (0: no ruling), and the ruling.
_Known = tuple[int, Ruling]
_NO_RULING: Final[_Known] = (0, Ruling(ConsentState.UNKNOWN, (), blocked=False, life=0))


class Rulings:
    """The rulings on the templates of one index."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._known: dict[tuple[bytes, Scope, int], _Known] = {}

    def answer(self, value: bytes, subject: Subject, scope: Scope, at: int, max_age: int) -> ConsentAnswer:
        """What `resolve` says of the events in `value` that concern `subject`."""
        exact, wide, _ = subject
        if exact == wide:
            key = value[:3], scope, max_age
            octets, ruling = self._known.get(key) or self._learn(key, value, wide)
            if octets == len(value) and crc32(value) == RESIDUE:
                high, low = read_time(value, 3)
                made = (high << 32) | low
                if 0 < made <= at < made + ruling[3]:
                    return ConsentAnswer.deferred(ruling, self._merge, value, subject, scope, at, max_age)
        return self._merge(value, subject, scope, at, max_age)

    def _merge(self, value: bytes, subject: Subject, scope: Scope, at: int, max_age: int) -> ConsentAnswer:
        return resolve(self._templates.events(value, subject), scope, at, max_age=max_age)

    def _learn(self, key: tuple[bytes, Scope, int], value: bytes, wide: bytes) -> _Known:
        """Work out the ruling on the first record of `value`, unless such records have to be looked at one by one."""
        template, start, end = next(self._templates.spans(value))
        known = _NO_RULING
        if template.length and not template.narrow:
            _, event = template.decode(value, start, end, wide)
            if ruling := rule(event, key[1], key[2]):
                known = template.length + CHECK, ruling
        if len(self._known) >= MAX_RULINGS:
            self._known.clear()
        self._known[key] = known
        return known

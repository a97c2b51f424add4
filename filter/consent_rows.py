"""Rows of generic columns -> index records, fast: what rows share is read once, what is their own is read per row.

Raises `BadRowError` with every fault of a row; opt-outs are taken with the faulty values left out and counted as
repaired. Raises `InputError` when a file has too many different terms. No I/O.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from .address import Subject, SubjectKeyer
from .consent_build import Runs
from .consent_codec import Layout, Template, spell, spell_number, time_octets
from .consent_formats import (
    OWN_COLUMNS,
    SHARED_COLUMNS,
    Fault,
    Terms,
    TermsError,
    guess_channel,
    instant,
    number,
    read_terms,
)
from .errors import AddressError, ConsentDataError, InputError
from .evidence import ConsentEvent, EventKind, validate

MAX_TERMS: Final = (
    50_000  # different combinations of shared columns in one file; each is kept in memory by every reader
)

_TIMES: Final = frozenset({"expires_at", "valid_until"})


class BadRowError(Exception):
    """A row that cannot be imported, with its faults."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(faults)
        self.faults = faults


class _Known:
    """Terms met before, and the templates made of them."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.repairs = bool(terms.faults)
        self.numbers: dict[tuple[Layout, bool], bytes] = {}


class RowReader:
    """Reads the rows under one header into `runs` as records of one batch that arrived at `now`.

    `repaired` counts opt-outs taken with values left out, `kinds` the rows by kind, `not_evidence` those bases that
    will not count, by reason.
    """

    def __init__(
        self,
        header: Sequence[str],
        runs: Runs,
        *,
        keyer: SubjectKeyer,
        defaults: Mapping[str, str],
        batch: str,
        now: int,
    ) -> None:
        where = {name: position for position, name in enumerate(header)}
        self._runs, self._keyer, self._defaults, self._batch, self._now = runs, keyer, defaults, batch, now
        self._address = where["address"]
        self._time = where.get("event_time", -1)
        self._own = [(name, where[name]) for name in OWN_COLUMNS if name in where and name != "event_time"]
        self._names = [name for name in SHARED_COLUMNS if name in where]
        self._shared: Callable[[Sequence[str]], Any] = itemgetter(*(where[name] for name in self._names))
        self._known: dict[Any, _Known] = {}
        self.repaired = 0
        self.kinds: Counter[str] = Counter()
        self.not_evidence: Counter[str] = Counter()

    def add(self, row: Sequence[str]) -> None:
        """Add one row, or raise `BadRowError` and add nothing."""
        shared = self._shared(row)
        known = self._known.get(shared) or self._learn(shared)
        terms = known.terms
        subject = self._subject(row[self._address], terms)
        made, own, faults = self._read_own(row)
        if faults:
            if terms.capture.permits or terms.capture.kind is EventKind.LIFT:
                raise BadRowError(*faults)
            self.repaired += 1
        elif known.repairs:
            self.repaired += 1
        narrow = b"" if subject.exact is subject.wide else subject.exact
        layout = tuple([(name, spelling) for name, spelling, _, _ in own])
        template = known.numbers.get((layout, bool(narrow))) or self._number(known, layout, bool(narrow))
        octets = b"".join([one[2] for one in own])
        self._runs.add(subject.wide + template + time_octets(made) + narrow + octets)
        self.kinds[terms.capture.kind] += 1
        if terms.capture.permits:
            self._judge(terms, made, own)

    def _learn(self, shared: Any) -> _Known:
        """Read shared columns met for the first time."""
        if len(self._known) >= MAX_TERMS:
            raise InputError(self._too_many_terms())
        values = (shared,) if len(self._names) == 1 else shared
        given = {name: value for name, value in zip(self._names, values, strict=True) if value.strip()}
        try:
            known = _Known(read_terms({**self._defaults, **given}, self._batch))
        except TermsError as error:
            raise BadRowError(*error.faults) from None
        self._known[shared] = known
        return known

    def _too_many_terms(self) -> str:
        columns = zip(*(key if isinstance(key, tuple) else (key,) for key in self._known), strict=True)
        different = {name: len(set(values)) for name, values in zip(self._names, columns, strict=True)}
        worst = max(different, key=different.__getitem__)
        return (
            f"more than {MAX_TERMS} different combinations of shared columns; most differ in {worst!r}: "
            "put what differs from person to person into evidence_ref"
        )

    def _subject(self, address: str, terms: Terms) -> Subject:
        try:
            return self._keyer.subject(address, terms.channel or guess_channel(address))
        except (AddressError, ValueError) as error:
            raise BadRowError(Fault("address", "", str(error))) from None

    def _read_own(self, row: Sequence[str]) -> tuple[int, list[tuple[str, str, bytes, Any]], list[Fault]]:
        """Event time; name, spelling, octets and value of each further column that is filled; faults."""
        made, own, faults = 0, [], []
        try:
            made = instant(row[self._time].strip()) if self._time >= 0 else 0
        except ValueError as error:
            faults.append(Fault("event_time", row[self._time], str(error)))
        for name, position in self._own:
            text = row[position].strip()
            if text:
                try:
                    own.append(_read_one(name, text))
                except (ValueError, ConsentDataError) as error:
                    faults.append(Fault(name, text, _allowed(error)))
        return made, own, faults

    def _number(self, known: _Known, layout: Layout, narrow: bool) -> bytes:
        template = Template(known.terms.capture, self._now, layout, narrow)
        found = known.numbers[layout, narrow] = self._runs.templates.number(template).to_bytes(3)
        return found

    def _judge(self, terms: Terms, made: int, own: list[tuple[str, str, bytes, Any]]) -> None:
        """Count a basis that is no evidence, so that the report can say so at once."""
        if terms.capture.kind is EventKind.GRANT and not terms.capture.faults and made > 0:
            return
        values = {"id": "derived", **{name: value for name, _, _, value in own}}
        self.not_evidence.update(
            validate(ConsentEvent(terms.capture, event_time=made, received_at=self._now, **values))
        )


def read_event(values: Mapping[str, str], received_at: int) -> tuple[Terms, ConsentEvent]:
    """One event from generic columns, not as part of a list. Raises `TermsError` for any value that cannot be used."""
    terms = read_terms(values, "")
    faults = list(terms.faults)
    given: dict[str, Any] = {"id": "", "event_time": 0}
    for name in OWN_COLUMNS:
        text = values.get(name, "").strip()
        if text:
            try:
                given[name] = instant(text) if name == "event_time" else _read_one(name, text)[3]
            except (ValueError, ConsentDataError) as error:
                faults.append(Fault(name, text, _allowed(error)))
    if faults:
        raise TermsError(tuple(faults))
    return terms, ConsentEvent(terms.capture, received_at=received_at, **given)


def _read_one(name: str, text: str) -> tuple[str, str, bytes, Any]:
    if name == "source_seq":
        value = number(text)
        return name, *spell_number(value), value
    if name in _TIMES:
        value = instant(text)
        return name, *spell_number(value), value
    return name, *spell(text), text


def _allowed(error: Exception) -> str:
    return "text in UTF-8" if isinstance(error, UnicodeError) else str(error)

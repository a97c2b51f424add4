"""Rows of generic columns -> index records, fast: what rows share is read once, what is their own is read per row.

Raises `BadRowError` with every fault of a row; opt-outs are taken with the faulty values left out and counted as
repaired. Raises `InputError` when a file has too many different terms. No I/O.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from .address import SubjectKeyer
from .consent_build import Runs
from .consent_codec import Layout, Template, spell, spell_number
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
    shown,
)
from .errors import AddressError, ConsentDataError, InputError
from .evidence import OPT_OUTS, ConsentEvent, EventKind, Invalidity, validate

MAX_TERMS: Final = (
    50_000  # different combinations of shared columns in one file; each is kept in memory by every reader
)

_NEVER_REFUSED: Final = OPT_OUTS | {EventKind.BLOCK}
_Own = tuple[str, str, bytes, Any]  # a column that is filled: name, spelling, octets, value
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
        self.capture = terms.capture
        self.channel = terms.channel
        self.numbers: dict[tuple[Layout, bool], bytes] = {}
        # Whether presence of columns and a time tell all there is to know about validity.
        self.judged_by_layout = terms.capture.kind not in (EventKind.CHARITY_SOFT_OPT_IN, EventKind.SOLICITED)


class RowReader:
    """Reads the rows under one header into `runs` as records of one batch that arrived at `now`.

    `repaired` counts opt-outs taken with values left out.
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
        self._runs, self._subject, self._defaults, self._batch, self._now = runs, keyer.subject, defaults, batch, now
        self._address = where["address"]
        self._time = where.get("event_time", -1)
        self._own = [(name, where[name]) for name in OWN_COLUMNS if name in where and name != "event_time"]
        self._names = [name for name in SHARED_COLUMNS if name in where]
        self._shared = _picker([where[name] for name in self._names])
        self._known: dict[Any, _Known] = {}
        self.repaired = 0
        self._rows: Counter[bytes] = Counter()
        self._faults: dict[bytes, tuple[Invalidity, ...]] = {}
        self._other_faults: Counter[Invalidity] = Counter()

    def add(self, row: Sequence[str]) -> None:
        """Add one row, or raise `BadRowError` and add nothing."""
        shared = self._shared(row)
        known = self._known.get(shared) or self._learn(shared)
        address = row[self._address]
        try:
            exact, wide, _ = self._subject(address, known.channel or guess_channel(address))
        except (AddressError, ValueError) as error:
            raise BadRowError(Fault("address", "", str(error))) from None
        made, own, faults = self._read_own(row)
        if faults and known.capture.kind not in _NEVER_REFUSED:
            raise BadRowError(*faults)
        narrow = b"" if exact == wide else exact
        layout: Layout = ()
        record = made.to_bytes(6) + narrow
        if own:
            layout = tuple([one[:2] for one in own])
            record += b"".join([one[2] for one in own])
        template = known.numbers.get((layout, bool(narrow))) or self._number(known, layout, narrow, own)
        self._runs.add(wide + template + record)
        self._rows[template] += 1
        if faults or known.terms.faults:
            self.repaired += 1
        if known.capture.permits and not (0 < made <= self._now and known.judged_by_layout):
            self._judge(known, template, made, own)

    def kinds(self) -> dict[str, int]:
        """Good rows by kind."""
        counted: Counter[str] = Counter()
        for template, rows in self._rows.items():
            counted[str(self._runs.templates[int.from_bytes(template)].capture.kind)] += rows
        return dict(counted)

    def not_evidence(self) -> dict[str, int]:
        """Good rows that are no evidence of the basis they claim, by reason; a row may have several."""
        counted = Counter(self._other_faults)
        for template, faults in self._faults.items():
            counted.update(dict.fromkeys(faults, self._rows[template]))
        return {str(code): rows for code, rows in counted.items() if rows}

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

    def _read_own(self, row: Sequence[str]) -> tuple[int, list[_Own], list[Fault]]:
        """Event time, what stands in further columns, and faults."""
        own: list[_Own] = []
        faults: list[Fault] = []
        try:
            made = instant(row[self._time]) if self._time >= 0 else 0
        except ValueError as error:
            made = 0
            faults.append(Fault("event_time", shown(row[self._time]), str(error)))
        for name, position in self._own:
            if text := row[position].strip():
                try:
                    own.append(_read_one(name, text))
                except (ValueError, ConsentDataError) as error:
                    faults.append(Fault(name, shown(text), _allowed(error)))
        return made, own, faults

    def _number(self, known: _Known, layout: Layout, narrow: bytes, own: list[_Own]) -> bytes:
        """A template for rows of these terms and columns, and what is wrong with all of them."""
        template = Template(known.capture, self._now, layout, bool(narrow))
        number = self._runs.templates.number(template).to_bytes(3)
        known.numbers[layout, bool(narrow)] = number
        self._faults[number] = validate(self._event(known, self._now, own)) if known.judged_by_layout else ()
        return number

    def _judge(self, known: _Known, template: bytes, made: int, own: list[_Own]) -> None:
        """Count the faults of a row that its template does not tell."""
        faults = validate(self._event(known, made, own))
        self._other_faults.update(fault for fault in faults if fault not in self._faults[template])

    def _event(self, known: _Known, made: int, own: list[_Own]) -> ConsentEvent:
        values = {"id": "derived", **{one[0]: one[3] for one in own}}
        return ConsentEvent(known.capture, event_time=made, received_at=self._now, **values)


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
                faults.append(Fault(name, shown(text), _allowed(error)))
    if faults:
        raise TermsError(tuple(faults))
    return terms, ConsentEvent(terms.capture, received_at=received_at, **given)


def _picker(positions: list[int]) -> Callable[[Sequence[str]], Any]:
    """What takes the shared columns out of a row: a tuple, or the value itself when there is one such column."""
    return itemgetter(*positions) if positions else lambda _: ()


def _read_one(name: str, text: str) -> _Own:
    if name == "source_seq":
        value = number(text)
        return name, *spell_number(value), value
    if name in _TIMES:
        value = instant(text)
        return name, *spell_number(value), value
    return name, *spell(text), text


def _allowed(error: Exception) -> str:
    return "text in UTF-8" if isinstance(error, UnicodeError) else str(error)

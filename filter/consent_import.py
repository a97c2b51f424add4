"""Importing consent data: a CSV or JSON-lines file becomes events in the index, the whole file or nothing.

A row is a line, and every line but blank ones is accounted for: accepted + duplicates + rejected = lines. One rejected
line stops the import with the faults listed, unless a file for rejects is named, which must not exist yet: then the
good rows are imported and the bad lines written there as they are, to be corrected and imported. Importing a file again
changes no consent. Rows that are missing from a later file lift nothing, and no imported grant lifts an opt-out (law
rules R46, R47, R49). Columns and formats: consent_formats.

Raises `InputError` when the file as a whole is not in the format. Memory: about a million records, whatever the size.
"""

import csv
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Final, Self

import orjson

from .address import SubjectKeyer
from .consent_build import Runs
from .consent_formats import COLUMNS, EXPORTS, SHARED_COLUMNS, Export, Fault, TermsError, guess_channel, shown
from .consent_rows import BadRowError, RowReader, read_event
from .consent_store import Applied, ConsentStore
from .errors import ConsentDataError, InputError, Problem
from .evidence import ConsentEvent
from .labels import Channel

MAX_PROBLEMS: Final = 100  # listed; all are counted
FORMATS: Final = ("csv", "jsonl", *EXPORTS)
PROGRESS_EVERY: Final = 20_000  # rows

Progress = Callable[[int, int], None]
_Row = Sequence[str]
_Rows = Iterator[tuple[int, bytes, _Row | BadRowError]]  # number and octets of a line, and the row it holds

_EXPORT_COLUMNS: Final = ("address", "event_time", "kind", "channel", "topic", "method", "reason", "pending", "grade")


@dataclass(slots=True)
class ImportReport:
    """What an import did, for people and for the record.

    `imported` is False when rejected lines stopped it; then `accepted` counts the good rows, and nothing was written.
    `lines` counts all lines but blank ones. `repaired` counts opt-outs that were taken although some of their values
    could not be used, `kinds` the good rows by kind, `not_evidence` the bases among them that will not count, by reason
    (`Invalidity`). `problems` holds the first 100 of `problem_total`; `rejects` is the file with the rejected lines.
    """

    path: Path
    format: str
    batch: str
    imported: bool = False
    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    repaired: int = 0
    new_subjects: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    not_evidence: Mapping[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_total: int = 0
    rejects: Path | None = None


def import_file(
    store: ConsentStore,
    path: Path,
    *,
    now: int,
    file_format: str = "",
    defaults: Mapping[str, str] = MappingProxyType({}),
    topics: Mapping[str, str] = MappingProxyType({}),
    batch: str = "",
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import `path` into `store`; it arrived at `now` (epoch milliseconds).

    `file_format` is one of `FORMATS`, by default told by the file name. `defaults` fills blank columns (an export names
    no controller). `topics` maps another system's list names to our topics. `batch` names the import, by default after
    the content of the file. `rejects` names a new file for rejected lines. `progress` is called with the lines and
    octets read.
    """

    def load(runs: Runs, report: ImportReport) -> Applied:
        return store.load(runs, now, about(report, now))

    return take_in(
        path,
        load,
        keyer=store.keyer,
        directory=store.directory,
        now=now,
        file_format=file_format,
        defaults=defaults,
        topics=topics,
        batch=batch or digest(path),
        rejects=rejects,
        progress=progress,
    )


def take_in(
    path: Path,
    deliver: Callable[[Runs, ImportReport], Applied],
    *,
    keyer: SubjectKeyer,
    directory: Path,
    now: int,
    file_format: str,
    defaults: Mapping[str, str],
    topics: Mapping[str, str],
    batch: str,
    rejects: Path | None,
    progress: Progress | None,
) -> ImportReport:
    """Read and check a file as `import_file` does, and deliver what is good in it if no line was rejected or `rejects`
    is given. Memory fills into private files in `directory`. Without a `batch` each row is somebody's own act.
    """
    file_format = file_format or ("jsonl" if path.suffix in (".jsonl", ".ndjson") else "csv")
    _check_arguments(file_format, defaults, rejects)
    report = ImportReport(path, file_format, batch)
    if file_format in EXPORTS:
        defaults = {"source": file_format, **defaults}
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        runs = stack.enter_context(Runs(directory))
        rejected = stack.enter_context(_Rejects(report, rejects))
        rejected.head, header, rows = _open_rows(file, path, file_format, topics)
        reader = RowReader(header, runs, keyer=keyer, defaults=defaults, batch=batch, now=now)
        _read_all(rows, reader, rejected, _ticker(file, progress))
        report.accepted, report.repaired = runs.total, reader.repaired
        report.kinds, report.not_evidence = reader.kinds(), reader.not_evidence()
        if not report.rejected or rejects is not None:
            _finish(report, deliver(runs, report))
    return report


def parse_event(columns: Mapping[str, str], received_at: int) -> tuple[str, Channel, ConsentEvent]:
    """One event given by generic columns: address, channel, event. Raises `ConsentDataError`.

    Unlike an imported event it is taken as an individual's own act, so a valid grant lifts an earlier opt-out.
    """
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise ConsentDataError(f"no such column: {', '.join(unknown)}; allowed are {', '.join(COLUMNS)}")
    address = columns.get("address", "")
    try:
        terms, event = read_event(columns, received_at)
        return address, terms.channel or guess_channel(address), event
    except TermsError as error:
        told = (f"{fault.column}: {fault.value!r}; allowed is {fault.allowed}" for fault in error.faults)
        raise ConsentDataError("\n".join(told)) from None
    except ValueError as error:
        raise ConsentDataError(f"channel: allowed is {error}") from None


def _check_arguments(file_format: str, defaults: Mapping[str, str], rejects: Path | None) -> None:
    if file_format not in FORMATS:
        raise InputError(f"format {file_format!r}; allowed are {', '.join(FORMATS)}")
    unknown = sorted(set(defaults) - set(SHARED_COLUMNS))
    if unknown:
        raise InputError(f"default for {', '.join(unknown)}; allowed are {', '.join(SHARED_COLUMNS)}")
    if rejects is not None and os.path.lexists(rejects):
        raise InputError(f"{rejects}: exists already; name a new file for rejected lines")


def digest(path: Path) -> str:
    """A name for the content of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def about(report: ImportReport, now: int) -> dict[str, Any]:
    """What the index remembers of an import."""
    return {
        "name": report.batch,
        "file": report.path.name,
        "digest": digest(report.path),
        "format": report.format,
        "received_at": now,
        "lines": report.lines,
        "rejected": report.rejected,
    }


def _finish(report: ImportReport, applied: Applied) -> None:
    report.accepted, report.duplicates, report.new_subjects = applied.added, applied.duplicates, applied.new_subjects
    report.imported = True


def _ticker(file: IO[bytes], progress: Progress | None) -> Callable[[int], None]:
    def tick(lines: int) -> None:
        if progress is not None:
            progress(lines, file.tell())

    return tick


def _read_all(rows: _Rows, reader: RowReader, rejects: "_Rejects", tick: Callable[[int], None]) -> None:
    lines, add = 0, reader.add
    for lines, (line, octets, row) in enumerate(rows, 1):
        try:
            if isinstance(row, BadRowError):
                raise row
            add(row)
        except BadRowError as error:
            rejects.take(line, octets, error.faults)
        if lines % PROGRESS_EVERY == 0:
            tick(lines)
    rejects.report.lines = lines
    tick(lines)


class _Rejects:
    """Where rejected lines go: into the report, and as they are to a new file readable by its owner only.

    The file begins with `head`, so that it can be corrected and imported. A failed import leaves none behind.
    """

    def __init__(self, report: ImportReport, path: Path | None) -> None:
        self.report = report
        self.head = b""
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._path is not None:
            self._file.close()
            if kind is not None:
                self._path.unlink()

    def take(self, line: int, octets: bytes, faults: Sequence[Fault]) -> None:
        """Count, list and write one rejected line."""
        report = self.report
        report.rejected += 1
        report.problem_total += len(faults)
        for fault in faults[: MAX_PROBLEMS - len(report.problems)]:
            place = f"{report.path.name}:{line}" + (f": {fault.column}" if fault.column else "")
            report.problems.append(Problem(place, fault.value, f"allowed is {fault.allowed}"))
        if self._path is not None:
            self._open(self._path).write(_ended(octets))

    def _open(self, path: Path) -> IO[bytes]:
        if self._file is None:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise InputError(f"{path}: rejected lines cannot be written there: {error.strerror}") from error
            self._file = os.fdopen(descriptor, "wb")
            self._file.write(_ended(self.head))
            self.report.rejects = path
        return self._file


def _ended(line: bytes) -> bytes:
    """A line with its end, which the last of a file may lack; nothing stays nothing."""
    return line if line.endswith(b"\n") or not line else line + b"\n"


def _open_rows(file: IO[bytes], path: Path, file_format: str, topics: Mapping[str, str]) -> tuple[bytes, _Row, _Rows]:
    """The header line, empty for JSON; the generic columns that rows will have; and the rows."""
    if file.read(len(BOM_UTF8)) != BOM_UTF8:
        file.seek(0)
    if file_format == "jsonl":
        return b"", COLUMNS, _json_rows(file)
    rows = _csv_rows(file)
    _, head, names = next(rows, (0, b"", BadRowError()))
    if isinstance(names, BadRowError):
        raise InputError(f"{path}: no header line" + "".join(f": {fault.value}" for fault in names.faults))
    header = [name.strip() for name in names]
    export = EXPORTS.get(file_format)
    _check_header(path, header, export)
    if export is None:
        return head, header, rows
    return head, _EXPORT_COLUMNS, _export_rows(rows, header, export, topics)


def _check_header(path: Path, header: list[str], export: Export | None) -> None:
    required = frozenset({"address"}) if export is None else export.required
    missing = sorted(required - set(header))
    unknown = [name for name in header if name not in COLUMNS] if export is None else []
    twice = sorted({name for name in header if header.count(name) > 1})
    for what, names in (("misses", missing), ("has unknown", unknown), ("repeats", twice)):
        if names:
            allowed = f"; allowed are {', '.join(COLUMNS)}" if what == "has unknown" else ""
            raise InputError(f"{path}: header {what} column {shown(', '.join(names))}{allowed}")


def _csv_rows(file: IO[bytes]) -> _Rows:
    """The rows of a CSV file, each with as many fields as the first; blank lines are left out.

    A row ends with its line, even within quotes: else one stray quote would swallow the rows after it.
    """
    width = 0
    row: _Row | BadRowError
    for line, octets in enumerate(file, 1):
        if octets.isspace():
            continue
        text = octets.decode("utf-8", "surrogateescape")
        row = text.rstrip("\r\n").split(",") if '"' not in text else _quoted_row(text)
        if not isinstance(row, BadRowError):
            width = width or len(row)
            if len(row) != width:
                row = BadRowError(Fault("", f"{len(row)} fields", f"{width} fields as in the header"))
        yield line, octets, row


def _quoted_row(text: str) -> _Row | BadRowError:
    try:
        return next(csv.reader((text,), strict=True))
    except csv.Error as error:
        return BadRowError(Fault("", str(error), "well-formed CSV, each row on one line"))


def _json_rows(file: IO[bytes]) -> _Rows:
    for line, octets in enumerate(file, 1):
        if not octets.isspace():
            yield line, octets, _json_row(octets)


def _json_row(octets: bytes) -> _Row | BadRowError:
    try:
        given = orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        return BadRowError(Fault("", str(error), "one JSON object per line"))
    if not isinstance(given, dict):
        return BadRowError(Fault("", type(given).__name__, "one JSON object per line"))
    unknown = [name for name in given if name not in COLUMNS]
    if unknown:
        return BadRowError(*(Fault(name, "", f"one of {', '.join(COLUMNS)}") for name in unknown))
    nested = [name for name, value in given.items() if _is_nested(value)]
    if nested:
        return BadRowError(*(Fault(name, "", "text, a number, true, false, or a list of these") for name in nested))
    return [_text(given.get(name)) for name in COLUMNS]


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value))


def _text(value: Any) -> str:
    """A JSON value as it would stand in CSV."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(_text(part) for part in value) if isinstance(value, list) else str(value)


def _export_rows(rows: _Rows, header: list[str], export: Export, topics: Mapping[str, str]) -> _Rows:
    for line, octets, row in rows:
        if isinstance(row, BadRowError):
            yield line, octets, row
            continue
        try:
            generic = export.convert(dict(zip(header, row, strict=True)), topics)
        except TermsError as error:
            yield line, octets, BadRowError(*error.faults)
        else:
            yield line, octets, [generic.get(name, "") for name in _EXPORT_COLUMNS]

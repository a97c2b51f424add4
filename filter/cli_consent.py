"""`consentry consent`: import, export, show and count consent records."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from . import app, console
from .cli_options import AsJson, ConfigFile
from .consent_import import FORMATS, ImportReport, import_file, parse_event
from .consent_store import Account, ConsentStore, Stats
from .display import visible
from .documents import answer_document, event_document
from .errors import InputError
from .evidence import Invalidity
from .explain import consent_lines, describe, moment
from .labels import Channel
from .law import load_law

consent_commands = typer.Typer(help="Consent records: import, show, record, count.", no_args_is_help=True)

OnChannel = Annotated[Channel, typer.Option(help="Channel of the address.")]
Pairs = Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.", show_default=False)]


def _store(config: Path | None, *, readonly: bool = True) -> ConsentStore:
    return app.consent_store(app.settings(config), readonly=readonly)


@consent_commands.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A consent file (CSV or JSON lines).", exists=True, dir_okay=False)],
    *,
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.", show_default="by the file name")
    ] = "",
    default: Pairs = None,
    topic: Pairs = None,
    batch: Annotated[str, typer.Option(help="Name of this import.", show_default="digest of the file")] = "",
    skip_bad: Annotated[
        Path | None,
        typer.Option(help="Import the good lines, write the bad ones to this new file.", show_default="import nothing"),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="The data is complete as of now, even if this file brings nothing new.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Import consent records; the whole file or, if any line is bad, nothing.

    --default fills blank columns (--default controller=bank), --topic maps another system's list to a topic of ours.
    """
    size = file.stat().st_size
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with _store(config, readonly=False) as store, Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task(file.name, total=size)
        report = import_file(
            store,
            file,
            now=console.now(),
            file_format=file_format,
            defaults=pairs(default, "--default"),
            topics=pairs(topic, "--topic"),
            batch=batch,
            rejects=skip_bad,
            progress=lambda _lines, octets: bar.update(task, completed=octets),
        )
        if complete and report.imported:
            store.touch(console.now())
    if as_json:
        console.write_json(report_document(report))
    else:
        print_report(report)
    if report.rejected:
        raise console.found_something()


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """What NAME=VALUE options say; InputError for one that is none."""
    given = [text.partition("=") for text in texts or ()]
    for name, equals, _ in given:
        if not (name and equals):
            raise InputError(f"{option} {name}: write NAME=VALUE")
    return {name: value for name, _, value in given}


def report_document(report: ImportReport) -> dict[str, object]:
    """What was done with a file, as JSON has it."""
    return {
        "file": str(report.path),
        "format": report.format,
        "batch": report.batch,
        "imported": report.imported,
        "lines": report.lines,
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "rejected": report.rejected,
        "repaired": report.repaired,
        "new_subjects": report.new_subjects,
        "kinds": report.kinds,
        "not_evidence": report.not_evidence,
        "problems": [str(problem) for problem in report.problems],
        "problem_total": report.problem_total,
    }


def print_report(report: ImportReport, done: str = "imported") -> None:
    """What was done with a file, for people."""
    for problem in report.problems:
        console.err.print(visible(str(problem), "red"))
    if report.problem_total > len(report.problems):
        console.err.print(f"... and {report.problem_total - len(report.problems)} more")
    done = done if report.imported else f"nothing {done}; use --skip-bad FILE for the good lines"
    console.out.print(visible(f"{report.path.name}: {done} (batch {report.batch})", "bold"))
    console.out.print(
        f"{report.lines} lines = {report.accepted} accepted + {report.duplicates} duplicates"
        f" + {report.rejected} rejected; {report.new_subjects} addresses seen for the first time"
    )
    if report.kinds:
        console.out.print("Kinds: " + ", ".join(f"{kind} {count}" for kind, count in sorted(report.kinds.items())))
    if report.repaired:
        console.out.print(f"{report.repaired} opt-outs were taken although some of their values could not be used")
    for fault in Invalidity:
        if not (count := report.not_evidence.get(fault)):
            continue
        console.out.print(f"{count} will not count as evidence: {fault.sentence} [{fault.rule}]", markup=False)
    if report.rejects:
        console.out.print(visible(f"Rejected lines: {report.rejects}"))


@consent_commands.command()
def show(
    address: str, *, channel: OnChannel = Channel.EMAIL, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Show what is on record about an address, and what it amounts to."""
    with _store(config) as store:
        account = store.show(address, channel, console.now())
    if as_json:
        console.write_json(_account_document(account))
    else:
        _print_account(address, account)


def _account_document(account: Account) -> dict[str, object]:
    return {
        "subject": account.subject.exact.hex(),
        "key_id": account.subject.key_id,
        "events": [event_document(event) for event in account.events],
        "other_spellings": account.other_spellings,
        "answers": [{"scope": scope._asdict(), **answer_document(answer)} for scope, answer in account.answers],
    }


def _print_account(address: str, account: Account) -> None:
    subject = account.subject
    console.out.print(
        Text.assemble(visible(address, "bold"), f"  subject {subject.exact.hex()} (key {subject.key_id})")
    )
    if not account.events:
        console.out.print("No record. Marketing to this address is held.")
    for event in account.events:
        console.out.print(Text.assemble("- ", describe(event)))
    if account.other_spellings:
        console.out.print(
            f"{account.other_spellings} more for other spellings of the mailbox; they permit nothing here."
        )
    if account.events and not account.answers:
        console.out.print("Nothing on record permits marketing to this address.")
    law = load_law()
    for scope, answer in account.answers:
        console.out.print()
        console.out.print(visible(f"{scope.channel} from {scope.controller} / {scope.brand} / {scope.topic}", "bold"))
        console.out.print(*consent_lines(answer, law), sep="\n")


@consent_commands.command()
def record(
    address: str,
    value: Annotated[
        list[str], typer.Argument(help="COLUMN=VALUE, as in an import file: kind=object controller=bank …")
    ],
    *,
    config: ConfigFile = None,
) -> None:
    """Record one event about an address, such as an objection made on the telephone."""
    with _store(config, readonly=False) as store:
        columns = {"address": address, **pairs(value, "value")}
        at = console.now()
        columns.setdefault("source", "recorded by hand")
        columns.setdefault("event_time", datetime.fromtimestamp(at / 1000, UTC).isoformat())
        address, channel, event = parse_event(columns, at)
        applied = store.record(address, channel, event)
    console.out.print(Text.assemble("Recorded: " if applied.added else "Already on record: ", describe(event)))


@consent_commands.command()
def stats(*, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Count what is in the index, by kind, source and import."""
    with _store(config) as store:
        figures = store.stats()
    if as_json:
        console.write_json(_stats_document(figures))
    else:
        _print_stats(figures)


def _stats_document(figures: Stats) -> dict[str, object]:
    return {
        "subjects": figures.subjects,
        "records": figures.records,
        "kinds": dict(figures.kinds),
        "sources": {source: dict(values) for source, values in figures.sources.items()},
        "batches": [dict(batch) for batch in figures.batches],
        "octets": figures.octets,
        "key_id": figures.key_id,
        "as_of": figures.as_of,
    }


def _print_stats(figures: Stats) -> None:
    console.out.print(
        f"{figures.records:,} records about {figures.subjects:,} addresses, {figures.octets / 1e6:,.1f} MB on disk"
    )
    console.out.print(f"Data as of {moment(figures.as_of)}; subject key {figures.key_id}")
    table = Table("kind", "records", box=None, header_style="dim")
    for kind, count in sorted(figures.kinds.items()):
        table.add_row(kind, f"{count:,}")
    console.out.print(table)
    sources = Table("source", "records", "latest event", "last received", box=None, header_style="dim")
    for source, values in sorted(figures.sources.items()):
        times = (moment(values["event_time"]), moment(values["received_at"]))
        sources.add_row(visible(source or "(none)"), f"{values['records']:,}", *times)
    console.out.print(sources)


@consent_commands.command()
def export(*, config: ConfigFile = None) -> None:
    """Write every record as JSON lines: the subject key of the address, that of its mailbox, and the event."""
    with _store(config) as store:
        for wide, one in store.export():
            console.write_json({"subject": one.exact.hex(), "mailbox": wide.hex(), **event_document(one.event)})
    sys.stdout.flush()

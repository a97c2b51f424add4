"""`consentry consent publish` and `erase`: what every machine learns from the consent topic.

Files are read and checked as `consent import` does. Exit status: 0 when all is acknowledged by the brokers, 1 when
lines were rejected, 2 when nothing or not everything could be published.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import app, console, kafka_client
from .cli_consent import OnChannel, Pairs, consent_commands, pairs, print_report, report_document
from .cli_options import AsJson, ConfigFile
from .config import Config
from .consent_build import Runs
from .consent_events import erasure_record, event_record, heartbeat_record
from .consent_import import FORMATS, ImportReport, digest, take_in
from .consent_publisher import Publisher, Record
from .consent_store import Applied
from .errors import ConsentDataError, InputError
from .evidence import Capture, ConsentEvent, EventKind, Scope
from .labels import Channel

__all__ = ["consent_commands"]

STDIN: Final = "-"
_ERASED: Final = Capture(kind=EventKind.OBJECT, scope=Scope("", "", "", ""), source="erasure")


@dataclass(frozen=True, slots=True)
class Topic:
    """Where to publish, and how to get there."""

    name: str
    options: dict[str, Any]

    @classmethod
    def of(cls, config: Config) -> "Topic":
        """The consent topic of a configuration; InputError if it has none."""
        kafka = config.kafka
        if not kafka.follows:
            raise InputError("kafka.bootstrap_servers and kafka.consent_topic: give both to publish")
        return cls(kafka.follows, {**kafka_client.connection(kafka), **kafka_client.producer(kafka), "linger_ms": 5})

    def write(
        self,
        records: Iterable[Record],
        progress: Callable[[int], None] = lambda _: None,
        *,
        heartbeat: int = 0,
    ) -> int:
        """Publish records, and then a heartbeat as of a time if one is given; how many records were written."""
        return asyncio.run(self._write(records, progress, heartbeat))

    async def _write(self, records: Iterable[Record], progress: Callable[[int], None], heartbeat: int) -> int:
        async with Publisher(self.name, self.options) as publisher:
            await publisher.publish(records, progress)
            written = publisher.written
            if heartbeat:
                await publisher.heartbeat(heartbeat_record(heartbeat))
        return written


@consent_commands.command()
def publish(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]…", help="Consent files (CSV or JSON lines); - for stdin.")
    ] = None,
    *,
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.", show_default="by the file name")
    ] = "",
    default: Pairs = None,
    topic: Pairs = None,
    batch: Annotated[str, typer.Option(help="Name of this list.", show_default="digest of the file")] = "",
    own_acts: Annotated[
        bool, typer.Option("--own-acts", help="Each row is what a person did, not an assertion of a list.")
    ] = False,
    skip_bad: Annotated[
        Path | None,
        typer.Option(
            help="Publish the good lines, write the bad ones to this new file.", show_default="publish nothing"
        ),
    ] = None,
    heartbeat: Annotated[
        bool, typer.Option("--heartbeat", help="Say as well that all that is known by now was published.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Publish consent records to the consent topic; of each file all, or nothing if any line is bad.

    Every machine that follows the topic takes them in, this one as well if it does. Publishing again is harmless.
    """
    if not files and not heartbeat:
        raise InputError("nothing to publish: name a FILE, - for standard input, or --heartbeat")
    if skip_bad and len(files or ()) > 1:
        raise InputError("--skip-bad: one FILE at a time")
    began = console.now()
    settings = app.settings(config)
    target = Topic.of(settings)
    keyer = app.keyer(settings, create=False)
    rejected = 0
    with tempfile.TemporaryDirectory(prefix="consentry-") as scratch:
        for name in files or ():
            path = _spooled(Path(scratch)) if name == STDIN else _file(name)
            told = file_format or _format(path, name)
            with _Bar(name) as bar:
                report = take_in(
                    path,
                    partial(_deliver, target, keyer.key_id, bar),
                    keyer=keyer,
                    directory=Path(scratch),
                    now=console.now(),
                    file_format=told,
                    batch="" if own_acts else batch or digest(path),
                    defaults=pairs(default, "--default"),
                    topics=pairs(topic, "--topic"),
                    rejects=skip_bad,
                    progress=None,
                )
            rejected += report.rejected
            _tell(report, as_json=as_json)
    if heartbeat and not rejected:
        target.write((), heartbeat=began)
    if rejected:
        raise console.found_something()


@consent_commands.command()
def erase(address: str, *, channel: OnChannel = Channel.EMAIL, config: ConfigFile = None) -> None:
    """Have every machine forget what is on record about a mailbox, but for a bare objection to everything."""
    settings = app.settings(config)
    target = Topic.of(settings)
    keyer = app.keyer(settings, create=False)
    subject = keyer.subject(address, channel)
    objection = ConsentEvent(_ERASED, "", 0, console.now())
    try:
        with app.consent_store(settings) as store:
            known = store.about(subject)
    except ConsentDataError as error:
        known = []
        console.err.print(f"Without a consent index here the topic keeps the events: {error}", markup=False)
    forgotten = {event_record(one, event)[0] for one, event in known}
    target.write([erasure_record(subject), event_record(subject, objection)])
    target.write([(key, None) for key in sorted(forgotten)])
    console.out.print(f"Published: forget this mailbox, and send it no marketing; {len(forgotten)} events removed.")


def _deliver(target: Topic, key_id: str, bar: "_Bar", runs: Runs, _report: ImportReport) -> Applied:
    bar.begin(runs.total)
    records = (event_record(subject, event) for subject, event in runs.events(key_id))
    return Applied(target.write(records, bar.done), 0, 0)


class _Bar:
    """Progress of one file."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console.err, transient=True)
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, records: int) -> None:
        """The file was read and checked."""
        self._progress.update(self._task, total=records)

    def done(self, records: int) -> None:
        """So many are written."""
        self._progress.update(self._task, completed=records)


def _tell(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        document = report_document(report)
        console.write_json({**document, "published": document.pop("imported")})
    else:
        print_report(report, "published")


def _spooled(directory: Path) -> Path:
    """Standard input as a file for us only, which goes with its directory: a file is checked before it is published."""
    path = directory / "standard-input"
    with path.open("xb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    return path


def _format(path: Path, name: str) -> str:
    if name != STDIN:
        return ""
    with path.open("rb") as file:
        return "jsonl" if file.read(4096).lstrip().startswith(b"{") else "csv"

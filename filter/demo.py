"""`consentry demo`: a mailbox of realistic messages, judged for recipients in every consent state.

Everything comes from `config/demo`: the mailbox, the consent records and the configuration. The consent index is built
anew in a directory of its own, and the clock is fixed (`AS_OF`), so that the table is the same on every run.
"""

import shutil
import sys
from collections.abc import Sequence
from email.utils import getaddresses
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from . import app, console
from .config import load_config
from .consent_import import import_file
from .decision import Decider, Decision
from .display import visible
from .errors import ConsentDataError
from .explain import BECAUSE, DONE, MEANING
from .message import parse_message
from .policy import Disposition, Reason
from .resources import config_dir

_MARK: Final = ".consentry-demo"
AS_OF: Final = 1_795_165_200_000  # 2026-11-20T09:00Z; the consent records are dated around it


def run_demo(directory: Path) -> None:
    """Build the index in `directory` (emptied first), judge the mailbox, and print who gets what."""
    source = config_dir() / "demo"
    config_file = _prepare(directory, source)
    config = load_config(config_file)
    with app.consent_store(config, readonly=False) as store:
        report = import_file(store, source / "consents.csv", now=AS_OF)
        if not report.imported:
            raise ConsentDataError("; ".join(str(problem) for problem in report.problems))
        console.out.print(f"{report.accepted} consent records imported for the demo, as of 20 November 2026.\n")
        with console.busy("Reading the rules (compiled once, then cached) …"):
            loaded = app.rules(None)
        decider = app.decider(config, loaded, store)
        decided = [(file, _decide(file, decider)) for file in sorted((source / "mailbox").glob("*.eml"))]
    console.out.print(_table(decided))
    _closing(decided, config_file)


def _prepare(directory: Path, source: Path) -> Path:
    """An empty demo directory with its configuration; anything that is not a demo's own is left alone."""
    mark = directory / _MARK
    if directory.exists() and any(directory.iterdir()) and not mark.is_file():
        raise ConsentDataError(f"{directory}: not empty and no demo directory; name another with --dir")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch()
    shutil.rmtree(directory / "store", ignore_errors=True)
    return Path(shutil.copyfile(source / "filter.toml", directory / "filter.toml"))


def _decide(file: Path, decider: Decider) -> Decision:
    raw = file.read_bytes()
    message = parse_message(raw)
    return decider.decide(message, message.from_address or None, recipients(raw), AS_OF)


def recipients(raw: bytes) -> list[str]:
    """The addresses in the To field of a demo message."""
    head = raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    unfolded = head.replace(b"\n ", b" ").replace(b"\n\t", b" ")
    fields = [line[3:].decode() for line in unfolded.split(b"\n") if line.lower().startswith(b"to:")]
    return [address for _, address in getaddresses(fields)]


def _table(decided: Sequence[tuple[Path, Decision]]) -> Table:
    table = Table(header_style="dim", pad_edge=False, show_edge=False)
    table.add_column("message", max_width=36)
    table.add_column("judged", no_wrap=True)
    table.add_column("recipient", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("because", min_width=36)
    for file, decision in decided:
        first = True
        for one in decision.recipients:
            word, style = DONE[one.verdict.disposition]
            # That it is disguised stands beside the label; here what the recipient has said is of interest.
            disguised = one.verdict.reason is Reason.DISGUISED_MARKETING
            because = BECAUSE[one.verdict.notes[0] if disguised else one.verdict.reason]
            table.add_row(
                _message(file, decision) if first else "",
                _label(decision) if first else "",
                visible(one.recipient),
                Text(word, style=style),
                visible(because),
                end_section=one is decision.recipients[-1],
            )
            first = False
    return table


def _message(file: Path, decision: Decision) -> Text:
    return Text.assemble((file.name.partition("-")[0] + " ", "dim"), visible(decision.message.subject, "bold"))


def _label(decision: Decision) -> Text:
    classification = decision.classification
    style = "red" if classification.label.promotional else "green"
    declared = "\ndeclared service" if classification.disguised else ""
    return Text.assemble((MEANING[classification.label][0], style), (declared, "yellow"))


def _closing(decided: Sequence[tuple[Path, Decision]], config_file: Path) -> None:
    verdicts = [one.verdict.disposition for _, decision in decided for one in decision.recipients]
    held = sum(verdict is not Disposition.RELAY for verdict in verdicts)
    console.out.print(
        f"\n{len(decided)} messages, {len(verdicts)} copies: {len(verdicts) - held} relayed, {held} held."
    )
    shown = next(((f, d) for f, d in decided if d.classification.disguised), decided[0])
    rcpt = " ".join(f"--rcpt {one.recipient}" for one in shown[1].recipients[:2])
    command = f"{_program()} explain {_short(shown[0])} {rcpt} --at 2026-11-20T09:00 -c {config_file}"
    console.out.print("To see why, in words a lawyer can read:\n")
    console.out.print(Text(f"  {command}"), soft_wrap=True)


def _program() -> str:
    """How the user starts this command again."""
    return str(_short(Path(sys.argv[0]))) if Path(sys.argv[0]).name == "consentry" else "consentry"


def _short(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path

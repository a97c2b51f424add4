"""The command line: `consentry classify`, `explain`, `config check`, `demo`.

Each command reads its input, calls one function and shows the result; nothing is decided here. The others stand in
`cli_run`, `cli_consent`, `cli_publish`, `cli_rules`, `cli_held`, `cli_orders` and `cli_campaign`.
"""

import base64
import binascii
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.table import Table

from . import __version__, app, console, hold_stores
from .allocator import keep_freed_memory
from .classification import Classification
from .classify import Classifier
from .cli_campaign import campaign_commands
from .cli_held import held_commands
from .cli_learning import learning_commands
from .cli_options import AsJson, ConfigFile, NeededConfigFile
from .cli_publish import consent_commands
from .cli_rules import rules_commands
from .cli_run import run_commands
from .config import Config, load_config
from .consent_store import ConsentStore
from .display import visible
from .documents import classification_document, decision_document
from .errors import ConsentDataError, InputError
from .explain import page
from .labels import Channel
from .law import load_law
from .message import Message, message_from_json, message_from_text, parse_message

cli = typer.Typer(
    name="consentry",
    help="The consent gate for outbound messages: judges content, checks consent, decides for each recipient.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the other modes keep the line ends of docstrings
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_commands = typer.Typer(help="Check configuration files.", no_args_is_help=True)
cli.add_typer(run_commands)
cli.add_typer(config_commands, name="config")
cli.add_typer(rules_commands, name="rules")
cli.add_typer(consent_commands, name="consent")
cli.add_typer(held_commands, name="held")
cli.add_typer(campaign_commands, name="campaign")
cli.add_typer(learning_commands)


_TIMES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"consentry {__version__}")
        raise typer.Exit


@cli.callback()
def common(
    version: Annotated[  # noqa: ARG001 -- acts in its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Judge outbound messages by their content and decide for each recipient."""
    keep_freed_memory()


@cli.command()
def classify(
    files: Annotated[list[Path] | None, typer.Argument(help="Messages (RFC 5322), - for standard input.")] = None,
    *,
    as_json: AsJson = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", help="Read JSON messages from standard input, one a line, and write a JSON line for each."
        ),
    ] = False,
    text: Annotated[str | None, typer.Option(help="Judge this text instead of files.")] = None,
    channel: Annotated[Channel, typer.Option(help="Channel of --text.")] = Channel.EMAIL,
    config: ConfigFile = None,
) -> None:
    """Say what messages are: service, marketing, mixed, re-permission or survey, with the evidence."""
    if jsonl == bool(files or text is not None) or (files and text is not None):
        raise typer.BadParameter("give message files, --text, or --jsonl with messages on standard input")
    classifier = _classifier(config)
    if jsonl:
        if not _classify_lines(classifier):
            raise console.found_something()
        return
    if text is not None:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        judged = [("text", classifier.classify(message_from_text(text, channel=channel)))]
    else:
        judged = [(str(file), classifier.classify(parse_message(console.read_file(file)))) for file in files or []]
    if as_json:
        for name, classification in judged:
            console.write_json(classification_document(name, classification))
    else:
        console.out.print(_table(judged))


def _classifier(config: Path | None) -> Classifier:
    with console.busy("Reading the rules …"):
        return Classifier(app.rules(load_config(config) if config else None).rules)


def _classify_lines(classifier: Classifier) -> bool:
    """Judge every line of standard input, in order; a bad line gets an error line. False if any was bad."""
    good = True
    for number, line in enumerate(sys.stdin.buffer, 1):
        if not line.strip():
            continue
        name: Any = number
        try:
            document = _json_object(line)
            given = document.get("id")
            name = number if given is None else given
            result = classification_document(name, classifier.classify(_message(document)))
        except InputError as error:
            result, good = {"id": name, "error": str(error)}, False
        console.write_json(result)
        sys.stdout.flush()  # a program that feeds us through a pipe waits for each answer
    return good


def _json_object(line: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError("not a JSON object")
    return document


def _message(document: Mapping[str, Any]) -> Message:
    """A message of `--jsonl`: `raw_base64` holds RFC 5322 octets, anything else is a JSON message."""
    if "raw_base64" not in document:
        return message_from_json({**document, "id": None})
    try:
        return parse_message(base64.b64decode(document["raw_base64"], validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError(f"raw_base64: not base64 ({error})") from error


def _table(judged: list[tuple[str, Classification]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("message", "label", "score", "because of"):
        table.add_column(heading, no_wrap=heading != "because of")
    for name, classification in judged:
        style = "bold red" if classification.label.promotional else "green"
        decisive = {rule: place for place, rule in enumerate(classification.decisive_rules)}
        telling = sorted((e for e in classification.evidence if e.rule in decisive), key=lambda e: decisive[e.rule])
        words = list({e.text.lower(): f'"{e.text}"' for e in telling}.values())[:3]
        table.add_row(
            visible(name),
            visible(classification.label, style),
            f"{classification.score:.3f}",
            visible(", ".join(words) or "no evidence of promotion"),
        )
    return table


@cli.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A message (RFC 5322), - for standard input.", show_default=False)],
    *,
    rcpt: Annotated[list[str], typer.Option(help="Recipient; may be repeated.", show_default=False, metavar="ADDRESS")],
    mail_from: Annotated[
        str | None, typer.Option(help="Envelope sender; empty for a null sender.", show_default="the From address")
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            help="Decide as of this time (UTC), 2026-11-20T09:00.", show_default="now", formats=_TIMES, metavar="TIME"
        ),
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Explain what would happen to a message, for each recipient, in words a lawyer can read."""
    settings = app.settings(config)
    message = parse_message(console.read_file(file))
    with console.busy("Reading the rules …"):
        loaded = app.rules(settings if config else None)
    sender = (message.from_address or None) if mail_from is None else mail_from
    when = _milliseconds(at)
    with hold_stores.decided(settings.store, when) as decisions:
        decider = app.decider(settings, loaded, _consent(settings), decisions)
        decision = decider.decide(message, sender, rcpt, when)
    if as_json:
        console.write_json(decision_document(str(file), decision))
    else:
        console.out.print(page(decision, load_law(), str(file)))


def _milliseconds(at: datetime | None) -> int:
    return console.now() if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1000)


def _consent(settings: Config) -> ConsentStore | None:
    """The consent index; without one, every look-up is `unavailable`, and the page says so."""
    try:
        return app.consent_store(settings)
    except ConsentDataError as error:
        console.err.print(visible(f"consentry: {error}", "yellow"))
        return None


@config_commands.command("check")
def config_check(config: NeededConfigFile) -> None:
    """Check a configuration file, the rules and every file it names; every problem is listed."""
    with console.busy("Reading the rules …"):
        checked = app.check(config)
    settings, (rules, patterns) = checked.config, checked.counts
    for concern in settings.concerns():
        console.err.print(visible(f"{config}: {concern}", "yellow"))
    console.out.print(f"{config}: fine. Streams: {len(settings.streams())}, workers: {settings.workers}.", markup=False)
    console.out.print(f"Rules {checked.version}: {rules} rules, {patterns} patterns.")


@cli.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where the demo keeps its files.")] = Path("var/demo"),
    *,
    once: Annotated[bool, typer.Option("--once", help="Exit when everything is shown.")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="By the Kafka door, and a broker of its own.")] = False,
) -> None:
    """Run the relay on a mailbox of realistic messages, and show where every copy went."""
    if kafka:
        from .demo_kafka import run_demo_kafka  # noqa: PLC0415 - see below

        run_demo_kafka(directory, once=once)
        return
    from .demo import run_demo  # noqa: PLC0415 - loads the whole relay, which no other command needs

    run_demo(directory, once=once)


def main() -> None:
    """Entry point of the `consentry` command."""
    console.run(cli)

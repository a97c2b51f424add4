"""`consentry rules`: lint rule files, and test them against labelled messages."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.table import Table

from . import console
from .app import user_cache
from .classification import Classification
from .classify import Classifier
from .display import visible
from .errors import InputError
from .labels import Label
from .law import citation_problems, load_law
from .message import message_from_json
from .rule_files import load, load_rules
from .rules import check_examples

rules_commands = typer.Typer(help="Check and test rules.", no_args_is_help=True)

Paths = Annotated[
    list[Path] | None, typer.Argument(help="Rule files or directories.", show_default="the rules that come with it")
]
Rules = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="Rule files or directories.", show_default="the rules that come with it"),
]


@rules_commands.command()
def lint(paths: Paths = None) -> None:
    """Compile the rules and run every rule's own examples; every problem is listed."""
    with console.busy("Compiling …"):
        loaded = load(paths or (), cache=user_cache())
        rules = loaded.rules
        problems = check_examples(rules) + citation_problems(rules.rules, load_law())
    if problems:
        for problem in problems:
            console.out.print(visible(str(problem), "red"), soft_wrap=True)
        console.out.print(f"{len(problems)} of the rules' examples or citations are wrong.")
        raise console.found_something()
    examples = sum(len(rule.match) + len(rule.no_match) for rule in rules.rules)
    console.out.print(f"{len(rules.rules)} rules, {len(rules.patterns)} patterns, {examples} examples: fine.")
    console.out.print(
        f"version {rules.version}, {rules.database.size() / 1e6:.1f} MB compiled ({loaded.note})", style="dim"
    )


@rules_commands.command("test")
def run_cases(
    cases: Annotated[list[Path], typer.Argument(help="JSON messages, one a line, each with a `label`.")],
    *,
    rules: Rules = None,
) -> None:
    """Judge labelled messages and list those that come out otherwise."""
    with console.busy("Reading the rules …"):
        classifier = Classifier(load_rules(rules or (), cache=user_cache()))
    outcomes: Counter[tuple[Label, Label]] = Counter()
    for path in cases:
        for number, line in enumerate(console.read_file(path).splitlines(), 1):
            wanted, classification = _case(f"{path}:{number}", line, classifier)
            outcomes[wanted, classification.label] += 1
            if wanted is not classification.label:
                _wrong(f"{path}:{number}", wanted, classification)
    wrong = sum(count for (wanted, got), count in outcomes.items() if wanted is not got)
    console.out.print(_confusion(outcomes))
    console.out.print(f"{outcomes.total() - wrong} of {outcomes.total()} as labelled.")
    if wrong:
        raise console.found_something()


def _case(place: str, line: bytes, classifier: Classifier) -> tuple[Label, Classification]:
    try:
        document = orjson.loads(line)
        wanted = Label(document.pop("label"))
        return wanted, classifier.classify(message_from_json(document))
    except (InputError, orjson.JSONDecodeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"{place}: a JSON message with a label ({', '.join(Label)}) is needed: {error}") from error


def _wrong(place: str, wanted: Label, classification: Classification) -> None:
    evidence = "; ".join(f'{e.rule} "{e.text}"' for e in classification.evidence[:4])
    console.out.print(
        visible(f"{place}: {wanted}, judged {classification.label} ({classification.score:.2f}): {evidence}")
    )


def _confusion(outcomes: Counter[tuple[Label, Label]]) -> Table:
    table = Table("labelled", *(f"judged {label}" for label in Label), box=None, header_style="dim")
    for wanted in Label:
        table.add_row(wanted, *(str(outcomes[wanted, got] or "") for got in Label))
    return table

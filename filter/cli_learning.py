"""`consentry train` and `consentry evaluate`: fit the learned weights, and measure judgements on labelled messages.

`train` needs the extra `train` (scikit-learn); so do `evaluate --references` and `evaluate --html`. Both read only the
files they are given and write only the one they are told to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from . import console
from .app import user_cache
from .classify import Classifier
from .errors import ExampleError, InputError, Problem
from .evaluation import Judged, mistakes
from .examples import LabelledMessage, LabelledSentence, read_messages, read_sentences
from .learned import NOTHING_LEARNED
from .report import document, page, printed
from .rule_files import LEARNED_FILE, load_rules, shipped_rules

learning_commands = typer.Typer()

_DATA: Final = Path("tests/data")
_KEPT_BACK: Final = ["heldout", "unseen"]

Messages = Annotated[
    list[Path] | None,
    typer.Option(
        "--messages", help="Labelled messages, JSON lines: files or directories.", show_default="tests/data/messages"
    ),
]
Sentences = Annotated[
    list[Path] | None,
    typer.Option(help="Labelled sentences: files or directories.", show_default="tests/data/sentences"),
]
KeepBack = Annotated[list[str], typer.Option("--keep-back", help="A source that weights must not be fitted to.")]


@learning_commands.command()
def train(
    output: Annotated[
        Path | None, typer.Option(help="Where the weights go.", show_default="beside the rules that come with it")
    ] = None,
    *,
    messages: Messages = None,
    sentences: Sentences = None,
    keep_back: KeepBack = _KEPT_BACK,
    specificity: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Share of service mail that must not be taken for promotion.")
    ] = 0.98,
) -> None:
    """Fit the learned weights to labelled messages and sentences (minutes). The same data give the same weights."""
    training = _extra("training")
    output = output or shipped_rules() / LEARNED_FILE
    fitted = [one for one in _messages(messages) if one.source not in keep_back]
    rules = replace(load_rules(cache=user_cache()), learned=NOTHING_LEARNED)
    content = training.fit(rules, fitted, _sentences(sentences), specificity=specificity, tell=_tell)
    _write(output, content)
    console.out.print(f"{output}: {len(content):,} octets")


@learning_commands.command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Labelled messages, JSON lines: files or directories.")],
    *,
    rules: Annotated[
        list[Path] | None,
        typer.Option("--rules", help="Rule files or directories.", show_default="the rules that come with it"),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Leave out messages marked as borderline.")] = False,
    worst: Annotated[int, typer.Option(min=0, help="How many mistakes to show.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
    references: Annotated[
        bool, typer.Option("--references", help="Fit slower classifiers to the training data, to compare with.")
    ] = False,
    messages: Messages = None,
    sentences: Sentences = None,
    keep_back: KeepBack = _KEPT_BACK,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Judge labelled messages and print how good the judgements are, by label, channel, source and language."""
    with console.busy("Reading the rules …"):
        classifier = Classifier(load_rules(rules or (), cache=user_cache()))
    measured = [one for one in _messages(files) if not (clear and one.borderline)]
    if not measured:
        raise ExampleError("nothing can be measured", [Problem(str(files[0]), "", "at least one labelled message")])
    judged = [Judged(one, classifier.classify(one.message)) for one in measured]
    others: dict[str, list[float]] = {}
    if references:
        known = {one.id for one in measured}
        fitted = [m for m in _messages(messages) if m.source not in keep_back and m.id not in known]
        with console.busy("Fitting the references …"):
            others = dict(_extra("references").references(fitted, _sentences(sentences), measured))
    shown = mistakes(judged, worst)
    if html:
        _extra("matplotlib", ours=False)
        title = f"How consentry judges {len(judged)} messages: rules {classifier.rules.version}"
        _write(html, page(judged, shown, others, title).encode())
    if as_json:
        console.write_json(document(judged, classifier.rules.version))
    else:
        console.out.print(f"{len(judged)} messages, rules {classifier.rules.version}", style="dim")
        console.out.print(printed(judged, shown, others))


def _extra(module: str, *, ours: bool = True) -> Any:
    """A module that needs the extra `train`."""
    from importlib import import_module  # noqa: PLC0415 -- only these commands

    try:
        return import_module(f"{__package__}.{module}" if ours else module)
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'consentry[train]'") from error


def _tell(step: str) -> None:
    console.err.print(step, style="dim")


def _messages(paths: Sequence[Path] | None) -> list[LabelledMessage]:
    given = paths or [_DATA / "messages", _DATA / "first-look.jsonl"]
    return [one for path in _files(given, "*.jsonl") for one in read_messages(path)]


def _sentences(paths: Sequence[Path] | None) -> list[LabelledSentence]:
    return [one for path in _files(paths or [_DATA / "sentences"], "*.txt") for one in read_sentences(path)]


def _files(paths: Iterable[Path], pattern: str) -> list[Path]:
    found = []
    for path in paths:
        inside = sorted(path.glob(pattern)) if path.is_dir() else [path]
        if not inside:
            raise ExampleError("the examples cannot be read", [Problem(str(path), "", f"a directory with {pattern}")])
        found += inside
    return found


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error

"""The reference is what the program is: made documents are up to date, and guides name nothing that is not there."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.howto import GUIDES, blocks
from typer.testing import CliRunner

from filter import policy
from filter.cli import cli
from filter.config import Config
from filter.config_errors import setting_paths

ROOT = Path(__file__).parents[2]
GUIDE_NAMES = sorted(path.name for path in GUIDES.glob("*.md") if path.name != "README.md")
TYPED = [*sorted(GUIDES.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "README.md"]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The program behind `make reference`."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "deploy" / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["deploy/commands.md", "deploy/man/consentry.1", "deploy/rules.md"])
def test_made_documents_are_up_to_date(reference: ModuleType, page: str) -> None:
    """`make reference` would change nothing."""
    assert (ROOT / page).read_text() == reference.PAGES[page](), "run: make reference"


def test_every_command_is_in_the_manual(reference: ModuleType) -> None:
    """The manual page names each command, and roff reads it without a complaint."""
    text = reference.man_page()
    for command in reference.commands():
        assert command.group or f'.SS "{command.name.replace("-", chr(92) + "-")}' in text
    groff = shutil.which("groff")
    if groff:  # its warnings tell more than the look at the text above and below
        done = subprocess.run([groff, "-man", "-Tutf8", "-ww"], input=text.encode(), capture_output=True, check=True)
        assert done.stderr == b""
    macros = {line.split()[0] for line in text.splitlines() if line.startswith(".")}
    assert macros <= {'.\\"', ".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".BR"}
    assert max(map(len, text.splitlines())) < 1000


def _typed(document: Path) -> Iterator[list[str]]:
    """The words of each `consentry …` that a document shows, in blocks or within a sentence."""
    text = document.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:^|[`/ ])consentry ((?:[a-z][^\n`#|<>;)&]*))", text, flags=re.MULTILINE):
        try:
            yield shlex.split(line)
        except ValueError:  # a quote that the end of the match has cut
            yield line.split()


@pytest.mark.parametrize("document", TYPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(reference: ModuleType, document: Path) -> None:
    """Every command that a document shows is one, and so is every option that stands behind it."""
    known = {command.name: command for command in reference.commands()}
    for words in _typed(document):
        name, rest = "consentry", words
        while rest and f"{name} {rest[0].strip(',.:')}" in known:
            name, rest = f"{name} {rest[0].strip(',.:')}", rest[1:]
        if name == "consentry":
            continue  # it is the service, or a word of a sentence
        options = {word for one in known[name].parameters for word in one.written.replace(",", "").split()}
        given = {word.partition("=")[0].strip(",.:…") for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= options | {"--help"}, f"{name}: {sorted(given - options)}"


@pytest.mark.parametrize("guide", GUIDE_NAMES)
def test_every_guide_is_run(guide: str) -> None:
    """Each guide is listed, has commands, and a test that follows it."""
    assert f"({guide})" in (GUIDES / "README.md").read_text()
    assert any(block.kind == "sh" for block in blocks(GUIDES / guide))
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "integration").glob("test_howto_*.py"))
    assert f'"{guide}"' in tests


@pytest.mark.parametrize("guide", GUIDE_NAMES)
def test_metrics_and_settings_of_guides_exist(guide: str) -> None:
    """Guides name metrics that deploy/metrics.md has, and settings that there are."""
    text = (GUIDES / guide).read_text()
    known = set(re.findall(r"consentry_[a-z_]+", (ROOT / "deploy" / "metrics.md").read_text()))
    metrics = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bconsentry_[a-z_]+", text)}
    assert {name for name in metrics if name not in known and f"{name}_total" not in known} == set()
    settings = set(setting_paths(Config))
    sections = {path.partition(".")[0] for path in settings}
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text))
    assert {name for name in named if name.partition(".")[0] in sections} <= settings


def test_the_run_book_knows_the_reasons() -> None:
    """Every reason in the table of the run-book for held mail is one."""
    table = (GUIDES / "held-mail.md").read_text().partition("| reason |")[2].partition("\n\n")[0]
    reasons = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert {"objected", "no_consent"} <= reasons <= set(policy.Reason)


@pytest.mark.parametrize(("figure", "script"), [("machine", "bench_relay.py"), ("held_rate", "bench_hold.py")])
def test_capacity_goes_by_the_readme(figure: str, script: str) -> None:
    """The calculation starts from figures of the README."""
    text = (GUIDES / "capacity.md").read_text()
    (value,) = re.findall(rf"\b{figure} = ([\d.]+)", text)
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if f"`{script}` |" in line]
    assert value in row.replace(",", ""), f"{script} in the README no longer says {value}"


def test_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns no line of any help page is longer, and each command says in its list what it does."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("run", "classify", "explain", "held", "campaign", "consent", "rules", "config", "demo", "users"):
        assert re.search(rf"^. {name} +[A-Z]", shown, flags=re.MULTILINE), name


@pytest.mark.parametrize(("typed", "offered"), [("consentry he", "held"), ("consentry held rel", "release")])
def test_the_shell_completes(typed: str, offered: str) -> None:
    """Completion of bash offers commands, below commands too."""
    environment = {"_CONSENTRY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = CliRunner().invoke(cli, [], prog_name="consentry", env=environment)
    assert done.stdout.split() == [offered]

"""Documents agree with the code, and nothing in the repository speaks of one machine."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from filter import __version__
from filter.config import Config
from filter.config_errors import setting_paths
from filter.consent_formats import COLUMNS
from filter.labels import Label

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config/README.md", "tests/README.md"),
    *("deploy/README.md", "deploy/commands.md", "deploy/rules.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy" / "howto").glob("*.md")),
)
LIMITS = {"README.md": 120, "CONTRIBUTING.md": 130}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

# Written in pieces, so that this file does not find itself.
REGISTRY = re.compile(
    r"[a-z]+://[^\s\"'<>)]*(?:py"
    r"pi|python"
    r"hosted|/sim"
    r"ple\b|arti"
    r"factory|nexus|jfrog)|files\.python"
    r"hosted"
)
SOMEBODYS_PATH = re.compile(r"(?<![\w.~/-])/(?:ro" r"ot|ho" r"me/\w+|Us" r"ers/\w+|wo" r"rk|tmp/bash" r"_jobs)/")


def tracked() -> list[Path]:
    """The files of the repository as git knows them, without binary ones."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout, or there is no git")
    return [path for name in os.fsdecode(listed).split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    """Every `make …` in a document is a target of the Makefile."""
    text = (ROOT / document).read_text()
    named = re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)
    assert set(named) <= TARGETS


def test_the_two_commands():
    """The README says how to try it and how to test it, and both targets prepare what they need."""
    assert re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE) == ["demo", "test"]
    for target in ("demo", "test"):
        assert re.search(rf"^{target}: \$\(VENV\)/\.", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """Every link to a file of the repository leads to one."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text()):
        assert (ROOT / document).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document):
    """Every file of the repository that a document names in code marks is there."""
    for name in re.findall(r"`((?:config|filter|tests|deploy|\.ci)/[\w./-]+)`", (ROOT / document).read_text()):
        assert (ROOT / name).exists(), name


def test_every_setting_is_explained():
    """config/README.md explains every setting, and no other."""
    text = (ROOT / "config" / "README.md").read_text()
    explained = set(re.findall(r"^\| `([a-z_.\[\]]+)` \|", text.partition("## Consent files")[0], flags=re.MULTILINE))
    rows = {f"policy.{label}" for label in Label}
    settings = {path for path in setting_paths(Config) if path.rpartition(".")[0] not in rows}
    assert explained == settings | rows


def test_every_column_is_explained():
    """config/README.md explains every column of a consent file, and no other."""
    table = (ROOT / "config" / "README.md").read_text().partition("## Consent files")[2].partition("## Rules")[0]
    first_cells = re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
    assert set(re.findall(r"`([a-z0-9_]+)`", " ".join(first_cells))) == set(COLUMNS)


def test_explained_defaults_are_the_defaults():
    """The defaults in config/README.md load to the default configuration."""
    text = (ROOT / "config" / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(.+?)` \|", text, flags=re.MULTILINE)
    document: dict = {}
    for path, value in rows:
        *tables, name = path.split(".")
        table = document
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = tomllib.loads(f"value = {value}")["value"]
    assert len(rows) > 15
    assert Config.model_validate(document, context={"base": ROOT}) == Config.default(ROOT)


def test_the_explained_table_is_the_default_table():
    """The policy table in config/README.md is the default one."""
    text = (ROOT / "config" / "README.md").read_text()
    (header,) = re.findall(r"^\| setting \|((?: `\w+` \|){6})$", text, flags=re.MULTILINE)
    states = re.findall(r"`(\w+)`", header)
    policy = Config.default().policy
    for label in Label:
        (row,) = re.findall(rf"^\| `policy\.{label}` \|(.+)\|$", text, flags=re.MULTILINE)
        cells = dict(zip(states, (cell.strip() for cell in row.split("|")), strict=True))
        assert cells == getattr(policy, label).model_dump()


@pytest.mark.parametrize(("document", "limit"), LIMITS.items())
def test_documents_stay_short(document, limit):
    """What everybody should read stays short enough to be read."""
    assert len((ROOT / document).read_text().splitlines()) <= limit


def test_the_changelog_knows_this_version():
    """The changelog speaks of the version at hand, or of what is not released yet."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{__version__}]" in text
    assert text.index("### Incompatible changes") < text.index("### Added")


def test_no_file_names_a_registry_or_a_machine():
    """No tracked file holds a registry's address or a path of somebody's machine."""
    here = re.compile(rf"{re.escape(str(ROOT))}/")
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        for pattern in (REGISTRY, SOMEBODYS_PATH, here):
            found = pattern.search(text)
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_locks_are_hashed_and_complete():
    """Every requirement in a lock file is pinned with hashes, and the dependencies of the package are all there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    for name in ("requirements.lock", "requirements-dev.lock"):
        blocks = re.split(
            r"\n(?=[a-z])", re.sub(r"^#.*\n|^    #.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
        )
        assert all(re.match(r"[\w.-]+==\S+", block) and "--hash=sha256:" in block for block in blocks)
        assert wanted <= {re.match(r"[\w.-]+", block)[0] for block in blocks}

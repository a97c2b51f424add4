"""What users install: the wheel alone, with locked dependencies, away from the checkout."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from filter import __version__

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MARKETING = """\
From: Shop <news@shop.example>
To: alex@customer.example
Subject: 20% off everything this weekend
Content-Type: text/plain; charset=utf-8

Get 20% off everything in our store until Sunday. Shop now and don't miss out!
"""
# Asked with retries left out: no network is a reason, not a wait.
PIP = [
    sys._base_executable,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "--retries",
    "1",
    "--timeout",
    "60",
]
COMMANDS = re.findall(r"^\| `consentry ([a-z]+(?: [a-z]+)?)\b", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError")


def run(command, cwd, **environment):
    """Run a program with a bare environment: no PYTHONPATH, no virtual environment, no checkout."""
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin directory of a clean environment that holds the wheel and the locked dependencies."""
    directory = tmp_path_factory.mktemp("clean")
    python = directory / "bin" / "python"
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", directory], check=True)
    install(python, "--require-hashes", "--only-binary=:all:", "--requirement", ROOT / "requirements.lock")
    install(python, "--no-deps", "--no-index", wheel)
    return python.parent


def install(python, *what):
    """Install with the pip of the interpreter under test; pip's own settings (index, cache) stay in force."""
    command = [*PIP, "--python", python, "install", "--quiet", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if any(word in done.stderr for word in NO_NETWORK):
        pytest.skip("the packages of requirements.lock cannot be fetched: no network")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def consentry(installed, tmp_path):
    """Run the installed `consentry` in an empty directory; in its home rules stay once they are compiled."""

    def consentry(*arguments):
        return run([installed / "consentry", *arguments], tmp_path, PATH=os.defpath, HOME=str(installed.parent))

    return consentry


def test_the_wheel_holds_the_package_and_its_data(wheel):
    """The wheel carries code, rules, default configuration and licence, and nothing of tests or state."""
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"consentry-{__version__}-py3-none-any.whl"
    for shipped in (*ROOT.glob("config/*.toml"), *ROOT.glob("config/rules/*"), *ROOT.glob("config/demo/**/*.*")):
        assert f"filter/{shipped.relative_to(ROOT)}" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"filter", f"consentry-{__version__}.dist-info"}
    assert f"consentry-{__version__}.dist-info/licenses/LICENSE" in names
    assert not [
        name for name in names if name.startswith("filter/config/var") or name.endswith((".key", ".pyc", ".mdb"))
    ]


def test_it_runs_from_its_own_files(installed, tmp_path):
    """Code and configuration come from the clean environment, not from the checkout."""
    script = "import filter.config, filter.resources; print(filter.config.__file__, filter.resources.config_dir())"
    done = run([installed / "python", "-c", script], tmp_path)
    code, configuration = done.stdout.split()
    assert Path(code).is_relative_to(installed.parent)
    assert Path(configuration).is_relative_to(installed.parent)


def test_classify(consentry, tmp_path):
    """The installed command judges a message by the shipped rules."""
    (tmp_path / "some.eml").write_text(MARKETING)
    done = consentry("classify", "--json", "some.eml")
    assert (done.returncode, done.stderr) == (0, "")
    judged = json.loads(done.stdout)
    assert judged["label"] == "marketing"
    assert judged["ruleset"]
    assert any(segment["evidence"] for segment in judged["segments"])


def test_rules_lint(consentry):
    """The shipped rules pass their own examples where they are installed."""
    done = consentry("rules", "lint")
    assert (done.returncode, done.stderr) == (0, "")


def test_config_check(consentry, installed):
    """The shipped configuration is fit for use where it is installed."""
    (file,) = installed.parent.glob("lib/python3*/site-packages/filter/config/filter.toml")
    done = consentry("config", "check", "-c", str(file))
    assert done.returncode == 0
    assert "nobody may send mail through this relay" in " ".join(done.stderr.split())  # until somebody is named


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_documented_commands_exist(consentry, command):
    """Every command in the README's table is there and explains itself."""
    done = consentry(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")

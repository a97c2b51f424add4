"""What the Dockerfile builds, built by the same steps without a container engine, and run as a container would run it.

The instructions of the build stage are carried out in a directory that stands for the root of the image; the program
then runs by the environment, entry point and health check of the last stage. As root it runs as the user of the image,
with nothing to write to but the store; otherwise as whoever runs the tests.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import confined, parts
from support.processes import Done, Process, free_port, run, wait_until
from support.script_sink import ScriptSink

from filter import __version__

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError")
MARKETING = b"From: news@bank.example\r\nTo: a@home.example\r\nSubject: Save 20%\r\n\r\nGet 20% off. Shop now!\r\n"
SERVICE = b"From: help@bank.example\r\nTo: a@home.example\r\nSubject: Your card\r\n\r\nYour card was posted today.\r\n"
CONFIG = """\
[smtp]
listen = ["127.0.0.1:{smtp}"]
relay_networks = ["127.0.0.0/8"]
[next_hop]
hosts = ["127.0.0.1:{sink}"]
[store]
dir = "{root}/var/lib/consentry"
[http]
listen = "127.0.0.1:{http}"
"""


@dataclass
class Stage:
    """One stage of a Dockerfile: its instructions in their order, those that set something by name."""

    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The arguments of every instruction of this name."""
        return [value for one, value in self.steps if one == name]

    def last(self, name: str) -> str:
        """The arguments of the one that counts."""
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets; not what it is put together of."""
        return dict(word.split("=", 1) for value in self.all("ENV") for word in shlex.split(value))


def stages() -> list[Stage]:
    """The Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, value = line.partition(" ")
        if name == "FROM":
            found.append(Stage())
        if found:
            found[-1].steps.append((name, value.strip()))
    return found


BUILD, LAST = stages()


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root of the image. Others may look into it, as the user of the image must."""
    directory = Path(tempfile.mkdtemp(prefix="consentry-image-"))
    directory.chmod(0o755)
    try:
        for place in ("bin", "src", "opt", "etc/consentry", "var/lib", "tmp"):
            (directory / place).mkdir(parents=True)
        interpreter = directory / "bin" / "python"
        interpreter.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" "$@"\n')
        interpreter.chmod(0o755)
        build(directory)
        store = directory / "var/lib/consentry"
        store.mkdir(mode=0o700)
        if parts.is_root():
            os.chown(store, *user())
        yield directory
    finally:
        shutil.rmtree(directory)


def build(root: Path) -> None:
    """Carry out the build stage; in its commands, /opt and /src are below `root`."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()
    }
    environment |= {"PATH": f"{root}/bin:{os.defpath}", "HOME": os.environ.get("HOME", "/")}
    for name, value in BUILD.steps:
        if name == "COPY":
            *sources, target = value.split()
            for source in sources:
                assert sent(source, ignored), f".dockerignore keeps {source} away"
                copy(ROOT / source, root / "src" / target / ("" if target == "./" else "."), ignored)
        elif name == "RUN":
            script = re.sub(r"(?<![\w.])/(opt|src)/", rf"{root}/\1/", value)
            command = ["/bin/sh", "-ec", script]
            done = subprocess.run(
                command, cwd=root / "src", env=environment, capture_output=True, text=True, check=False
            )
            if any(word in done.stderr for word in NO_NETWORK):
                parts.without("the packages of requirements.lock cannot be fetched: no network")
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def sent(source: str, ignored: list[str]) -> bool:
    """Whether the engine is given a file of the top directory, by .dockerignore: the last line that matches counts."""
    away = False
    for line in ignored:
        if line and not line.startswith("#") and fnmatch.fnmatch(source, line.removeprefix("!")):
            away = not line.startswith("!")
    return not away


def copy(source: Path, target: Path, ignored: list[str]) -> None:
    """Copy a file into a directory, or a directory's content, without what .dockerignore names further down."""
    if source.is_file():
        shutil.copy(source, target)
        return
    assert "**/__pycache__" in ignored
    assert "config/var" in ignored
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "var"), dirs_exist_ok=True)


def user() -> tuple[int, int]:
    """User and group of the image."""
    number, group = LAST.last("USER").split(":")
    return int(number), int(group)


class Container:
    """How the program runs in an image: environment, user and files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        set_there = {name: value.replace("/opt/", f"{root}/opt/") for name, value in LAST.environment.items()}
        self.environment = {
            **set_there,
            "PATH": set_there["PATH"].replace("$PATH", os.defpath),
            "CONSENTRY_CONFIG": f"{root}{LAST.environment['CONSENTRY_CONFIG']}",
            "HOME": f"{root}/var/lib/consentry",
            "LANG": "C.UTF-8",
        }
        self.prefix: list[str] = []
        if parts.is_root():
            self.prefix = confined.prefix(writable=[root / "var/lib/consentry"], user=user()[0])
        self.entry = [str(root / "opt/consentry/bin" / word) for word in json.loads(LAST.last("ENTRYPOINT"))]

    def configure(self, sink: int = 2525, smtp: int = 2625, http: int = 9625) -> None:
        """Mount a configuration that nobody can write to."""
        file = self.root / "etc/consentry/filter.toml"
        file.unlink(missing_ok=True)
        file.write_text(CONFIG.format(root=self.root, sink=sink, smtp=smtp, http=http))
        file.chmod(0o444)

    def run(self, *command: str | Path) -> Done:
        """Run a command in it to its end."""
        return run([*self.prefix, *command], self.environment, seconds=60)

    def consentry(self, *arguments: str | Path) -> Done:
        """Run the entry point with these arguments instead of CMD."""
        return self.run(*self.entry, *arguments)

    def files(self) -> dict[Path, int]:
        """Every file but those of the store, and when it changed."""
        places = (self.root / "opt", self.root / "etc", self.root / "tmp")
        return {path: path.lstat().st_mtime_ns for place in places for path in place.rglob("*")}


@pytest.fixture
def container(image: Path) -> Container:
    """The image, ready to run."""
    container = Container(image)
    container.configure()
    return container


def test_it_is_small_and_unprivileged() -> None:
    """The last stage has a user by number, a volume, ports, a health check, and nothing but the environment copied."""
    assert min(user()) > 0
    assert [value.split()[-2:] for value in LAST.all("COPY")] == [["/opt/consentry", "/opt/consentry"]]
    assert LAST.last("VOLUME") == "/var/lib/consentry"
    assert LAST.last("EXPOSE").split() == ["2625", "9625"]
    assert "CMD" in LAST.last("HEALTHCHECK")
    assert json.loads(LAST.last("CMD")) == ["run"]
    assert "ADD" not in {name for stage in (BUILD, LAST) for name, _ in stage.steps}
    made = " ".join(LAST.all("RUN"))
    assert f"--uid {user()[0]} " in made
    assert f"install -d -m 0700 -o {user()[0]} -g {user()[1]} /var/lib/consentry" in made
    assert not re.search(r"apt|pip", made)


def test_everything_in_it_is_locked() -> None:
    """Whatever is fetched has a hash in the lock file, and is no source archive."""
    installs = [command for run in BUILD.all("RUN") for command in run.split("&&") if " install " in command]
    assert len(installs) == 2
    for command in installs:
        locked = {"--require-hashes", "--only-binary=:all:", "-r", "requirements.lock"} <= set(command.split())
        assert locked or {"--no-deps", "--no-index"} <= set(command.split())


def test_it_says_its_version(container: Container) -> None:
    """The entry point is consentry, of this version."""
    done = container.consentry("--version")
    assert (done.code, done.output.split()[-1]) == (0, __version__)


def test_it_holds_what_it_needs_and_no_more(container: Container) -> None:
    """Dependencies are complete without what built the wheel; everything is compiled, as nothing can be written."""
    check = [
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(container.root / "opt/consentry/bin/python"),
        "check",
    ]
    assert run([container.root / "bin" / "python", *check], {"PATH": os.defpath}).code == 0
    (packages,) = (container.root / "opt/consentry/lib").glob("python3*/site-packages")
    assert not list(packages.glob("hatchling*"))
    assert not list(packages.glob("pip*"))
    sources = list((packages / "filter").glob("*.py"))
    assert len(sources) > 100
    assert len(list((packages / "filter" / "__pycache__").glob("*.pyc"))) == len(sources)


def test_it_checks_its_configuration(container: Container) -> None:
    """`config check` finds nothing wrong with the mounted configuration, which the image names in its environment."""
    done = container.consentry("config", "check", "-c", container.environment["CONSENTRY_CONFIG"])
    assert done.code == 0, done.output


def test_it_judges(container: Container) -> None:
    """`classify` judges a mounted message by the rules inside."""
    (container.root / "etc" / "some.eml").write_bytes(MARKETING)
    done = container.consentry("classify", "--json", container.root / "etc" / "some.eml")
    assert (done.code, json.loads(done.output)["label"]) == (0, "marketing")


def test_it_relays_and_holds_and_says_how_it_is(container: Container) -> None:
    """`run` takes mail, keeps what it holds in the volume, answers the health check, and ends as told; it writes to
    nothing but the volume.
    """
    smtp, http = free_port(), free_port()
    health = [word.replace(":9625", f":{http}") for word in json.loads(LAST.last("HEALTHCHECK").partition("CMD ")[2])]
    with ScriptSink() as sink:
        container.configure(sink.port, smtp, http)
        before = container.files()
        command = [*container.prefix, *container.entry, *json.loads(LAST.last("CMD"))]
        with Process(command, container.environment, container.root / "output") as process:

            def ready() -> bool:
                assert not process.ended, process.output.read_text()
                return "\nready\n" in process.output.read_text()

            wait_until(ready, "ready", seconds=120)
            with smtplib.SMTP("127.0.0.1", smtp, timeout=30) as client:
                client.sendmail("help@bank.example", ["a@home.example"], SERVICE)
                client.sendmail("news@bank.example", ["a@home.example"], MARKETING)
            assert container.run(container.root / "opt/consentry/bin" / health[0], *health[1:]).code == 0
            held = container.consentry("held", "list", "--json")
            assert held.code == 0, held.output
            assert "no_consent" in held.output or "consent_unavailable" in held.output
            os.kill(process.pid, signal.Signals[LAST.last("STOPSIGNAL")])
            wait_until(lambda: process.ended, "the end", seconds=60)
            assert process.stop() == 0, process.output.read_text()
        assert len(sink.delivered) == 1
    assert container.run(container.root / "opt/consentry/bin" / health[0], *health[1:]).code != 0
    assert container.files() == before

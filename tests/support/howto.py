"""How-to guides as programs: the fenced blocks of a guide are run, in order, on a machine that lies in a directory.

    ```sh            run by bash, which stops at the first command that fails; `sh status=1`: it ends with that status;
                     `sh repeat`: it may have to be run again until it prints what follows
    ```toml          (or any other name) whose first line is `# /some/file`: written there; `# /file (added)`: added
    ```text          what the block of commands before it prints; `…` stands for anything, on a line or for lines
    ```console       not run, nor is a block without a name

A section of a guide (`## `) is run after what stands before the first one. Paths below /etc, /var, /opt and /srv mean
directories of the machine, ports of 127.0.0.1 are exchanged for free ones, relays have one worker, to start quickly,
and exported variables are kept from block to block; nothing else is changed. `systemctl` and `journalctl` are played by
support/howto_service.py. A block that does not do what the guide says raises AssertionError with guide, line and all
that was printed.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from support import parts
from support.parts import Part
from support.postfix import Postfix
from support.processes import free_port, wait_until

GUIDES = Path(__file__).parents[2] / "deploy" / "howto"
SERVICE = Path(__file__).with_name("howto_service.py")
SECONDS = 90.0  # for one block, on a busy machine
REPEAT_SECONDS = 30.0
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACES = re.compile(r"(?<![\w./])/(etc|var|opt|srv)/")
_PORTS = re.compile(r"(127\.0\.0\.1[\].]*[:.]|localhost:|\bport = |\bport |received_port\}\{)(\d+)\b")
_FILE = re.compile(r"# (/\S+)( \(added\))?")
_ANSWERS = b"y\n" * 20  # what a reader types where a command asks


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its kind, what else stands beside that, its text, where it begins, and the section it is in."""

    kind: str
    words: str
    text: str
    line: int
    section: str


def blocks(guide: Path) -> list[Block]:
    """The blocks of a guide, in order."""
    text = guide.read_text("utf-8")
    headings = [(found.start(), found[1]) for found in re.finditer(r"^## (.+)$", text, re.MULTILINE)]
    return [
        Block(
            found[1],
            found[2].strip(),
            found[3],
            text.count("\n", 0, found.start()) + 1,
            next((name for place, name in reversed(headings) if place < found.start()), ""),
        )
        for found in _FENCE.finditer(text)
    ]


class Machine:
    """A machine for one guide, in a directory of its own; it and all that was started there end with `with`."""

    def __init__(self, *, cache: Path) -> None:
        self._cache = cache
        self.root = Path(tempfile.mkdtemp(prefix="howto-"))
        self.root.chmod(0o755)  # for servers that run as somebody else, unlike pytest's directories
        self.bin = self.root / "bin"
        self._state = self.root / "exported"
        self._services = self.root / "services"
        self._ports: dict[str, str] = {}
        self.exchange: dict[str, str] = {}  # words of the guide, such as a host's name, and what stands for them here
        for place in ("bin", "services", "home", "tmp", "etc/consentry", "var/lib/consentry"):
            (self.root / place).mkdir(parents=True)
        (self.root / "var/lib/consentry").chmod(0o700)
        (self.root / "var/lib/consentry/cache").symlink_to(cache)
        self._state.write_text("")
        self.unit("consentry", ["consentry", "run", "-c", self.path("/etc/consentry/filter.toml")], ready="\nready\n")
        for name in ("systemctl", "journalctl"):
            self.program(name, [sys.executable, SERVICE, self._services, name])

    def path(self, name: str) -> Path:
        """Where a file of the guide is."""
        return self.root / name.removeprefix("/")

    def port(self, number: int) -> int:
        """The port that stands for one of the guide's."""
        return int(self._ports.setdefault(str(number), str(free_port())))

    def be(self, number: int, port: int) -> None:
        """Let a port of the guide be one that is there."""
        self._ports[str(number)] = str(port)

    def program(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Have a program of this name."""
        words = [*(f"{key}={value}" for key, value in (environment or {}).items()), *map(str, command)]
        file = self.bin / name
        file.write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n')
        file.chmod(0o755)

    def venv(self, name: str) -> None:
        """Have consentry installed in /opt/NAME: this one, whatever the name."""
        directory = self.path(f"/opt/{name}/bin")
        directory.mkdir(parents=True)
        for program in ("consentry", "python"):
            file = directory / program
            file.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).with_name(program)}" "$@"\n')
            file.chmod(0o755)

    def install(self, part: str, *programs: str) -> Part:
        """Have programs of a part, with what they must be started with."""
        found = parts.need(part)
        for name in programs:
            self.program(name, [found.program(name)], found.extra)
        return found

    def unit(self, name: str, start: Sequence[str | Path], *, ready: str = "", port: int = 0) -> None:
        """Have a service: `ready` is what it prints when it serves, `port` where it listens then."""
        document = {"start": list(map(str, start)), "ready": ready, "port": port}
        (self._services / f"{name}.json").write_text(json.dumps(document))

    def follow(self, guide: str, *sections: str) -> None:
        """Do what a guide says before its first section, and then in these, or in all if none is named."""
        file = GUIDES / guide
        found = blocks(file)
        known = {block.section for block in found}
        assert known >= set(sections), f"{guide} has only sections {known}"
        before, printed = None, ""
        for block in found:
            place = f"{guide}:{block.line}"
            if sections and block.section not in ("", *sections):
                continue
            if block.kind == "sh":
                before, printed = block, self._run(block, place)
            elif block.kind == "text":
                self._compare(block, before, printed, place)
            elif block.kind not in ("", "console"):
                self._write(block, place)

    def _compare(self, expected: Block, commands: Block | None, printed: str, place: str) -> None:
        end = monotonic() + REPEAT_SECONDS
        while commands and commands.words == "repeat" and not _agrees(expected.text, printed) and monotonic() < end:
            sleep(0.3)
            printed = self._run(commands, place)
        assert _agrees(expected.text, printed), f"{place}\n{expected.text}--- printed was:\n{printed}"

    def sh(self, commands: str) -> str:
        """Run commands of a test as if the guide had them; what they print."""
        return self._run(Block("sh", "", commands, 0, ""), "test")

    def json(self, command: str) -> list[dict[str, Any]]:
        """The documents that a command prints."""
        return [json.loads(line) for line in self.sh(command).splitlines() if line.startswith("{")]

    def here(self, text: str) -> str:
        """The guide's text with the machine's places and ports."""
        text = _PORTS.sub(lambda found: found[1] + str(self.port(int(found[2]))), text)
        text = _PLACES.sub(lambda found: f"{self.root}/{found[1]}/", text)
        for there, here in self.exchange.items():
            text = text.replace(there, here)
        return text

    def _there(self, text: str) -> str:
        """What was printed, with the guide's places and ports."""
        ports = {here: there for there, here in self._ports.items()}
        text = text.replace(f"{self.root}/", "/")
        return _PORTS.sub(lambda found: found[1] + ports.get(found[2], found[2]), text)

    def _run(self, block: Block, place: str) -> str:
        script = f'. "{self._state}"\n{self.here(block.text)}\nexport -p > "{self._state}"\n'
        status = int(block.words.removeprefix("status=")) if block.words.startswith("status=") else 0
        started = monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            cwd=self.root / "home",
            input=_ANSWERS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        printed = self._there(done.stdout.decode("utf-8", "replace"))
        spent = f"{place}: status {done.returncode}, {monotonic() - started:.1f} s"
        print(f"--- {spent}\n{block.text}{printed}")
        assert done.returncode == status, f"{spent}, expected {status}\n{block.text}---\n{printed}"
        return printed

    @property
    def environment(self) -> dict[str, str]:
        """What commands of a guide are started with: programs of the machine first, then ours, then the system's."""
        path = [str(self.bin), str(Path(sys.executable).parent), parts.SYSTEM_PATH]
        home = str(self.root / "home")
        # Compiled rules are kept from test to test; cache is where `Machine` was told that they are.
        kept = {
            "HOME": home,
            "XDG_CACHE_HOME": str(self._cache.parent),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "TMPDIR": str(self.root / "tmp"),
        }
        return {**kept, "PATH": os.pathsep.join(path)}

    def _write(self, block: Block, place: str) -> None:
        first, _, rest = block.text.partition("\n")
        named = _FILE.fullmatch(first)
        assert named, f"{place}: the first line of a {block.kind} block is # and the file's name"
        file = self.path(named[1])
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text("utf-8") if named[2] else ""
        one_worker = "workers = 1\n" if file.name == "filter.toml" else ""
        file.write_text(before + one_worker + self.here(rest), "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for file in self._services.glob("*.started"):
            _end(int(file.read_text()))
        shutil.rmtree(self.root, ignore_errors=True)


def have_postfix(machine: Machine, postfix: Postfix) -> None:
    """Let `postconf` and `postfix reload` of the guide mean this Postfix, and port 25 its own."""
    etc, log = postfix.home / "etc", postfix.home / "log"
    part = parts.need("postfix", as_root=True)
    machine.be(25, postfix.port)
    machine.exchange["smtp/inet"] = f"127.0.0.1:{postfix.port}/inet"
    machine.program("postconf", [part.program("postconf"), "-c", etc], part.extra)
    # As the script that `postfix reload` runs; it also waits, because the guide goes on at once.
    reload = f"""\
touch -d '1 minute ago' {etc}/*.cf
count() {{ grep -c 'reload -- version' {log} || true; }}
before=$(count)
kill -HUP $(cat {postfix.home}/queue/pid/master.pid)
for _ in $(seq 200); do [ "$(count)" = "$before" ] || break; sleep 0.05; done
"""
    machine.program("postfix", ["sh", "-c", reload])


def _end(pid: int) -> None:
    """End a program that was started here, and all that belongs to its group."""
    for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 5)):
        try:
            os.killpg(pid, number)
            wait_until(lambda: not _lives(pid), "its end", seconds=seconds)
        except (ProcessLookupError, AssertionError):
            continue


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _agrees(expected: str, printed: str) -> bool:
    """Each line of the guide was printed, in this order; between lines only what `…` stands for."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            words = [r"\s+".join(map(re.escape, part.split())) for part in line.split("…")]
            pattern += r"\s*" + r"\s*.*?\s*".join(words) + r"[^\S\n]*\n"
    return bool(re.fullmatch(pattern + r"\s*", printed.rstrip() + "\n"))

"""The systemd unit: understood by systemd, hardly exposed, and the relay works with what it leaves to it."""

import functools
import os
import re
import shutil
import signal
import smtplib
import stat
import sys
from pathlib import Path

import pytest
from support import confined, parts
from support.processes import Process, run, wait_until
from support.running import SETTINGS, environment
from support.script_sink import ScriptSink

from filter import flights
from filter.config import Config

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "deploy" / "systemd"
UNIT = DIRECTORY / "consentry.service"
MOST_EXPOSED = 20  # tenths on systemd's scale from 0 (hardly) to 10
SERVICE = (
    b"From: Bank <service@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Your new card\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\nYour new debit card was posted today.\r\n"
)
MARKETING = (
    b"From: Bank <news@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Save 20%% today\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\nGet 20%% off your next order. Shop now and save!\r\n"
)


def settings() -> dict[str, list[str]]:
    """What the unit says, by name; a name may be said several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def analyze() -> str:
    """The program systemd-analyze."""
    return shutil.which("systemd-analyze") or parts.without("systemd-analyze is not on this machine")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the command that is installed here."""
    file = tmp_path / UNIT.name
    command = Path(sys.executable).with_name("consentry")
    file.write_text(UNIT.read_text().replace("/opt/consentry/bin/consentry", str(command)))
    return file


def test_systemd_understands_it(analyze: str, unit: Path) -> None:
    """`systemd-analyze verify` finds nothing."""
    done = run([analyze, "verify", "--man=no", unit], environment())
    assert (done.code, done.output) == (0, "")


def test_it_is_hardly_exposed(analyze: str, unit: Path) -> None:
    """`systemd-analyze security` gives it an exposure of at most 2 of 10."""
    done = run(
        [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit], environment()
    )
    assert done.code == 0, done.output


def test_it_ends_after_a_drain() -> None:
    """A drain has longer than it takes, and the supervisor alone is told, who tells the workers."""
    assert int(settings()["TimeoutStopSec"][0]) > max(Config.default().smtp.drain_time, 60) + 5
    assert settings()["KillMode"] == ["mixed"]
    assert settings()["Restart"] == ["on-failure"]
    assert settings()["StartLimitIntervalSec"] == ["0"]


def test_what_it_names_is_what_the_documents_name() -> None:
    """Command, configuration, store and user are those of deploy/systemd.md and of the files beside it."""
    said = settings()
    text = (ROOT / "deploy" / "systemd.md").read_text()
    assert said["StateDirectoryMode"] == ["0700"]
    (user,) = re.findall(r'^u (\w+) - "[^"]+" (\S+)', (DIRECTORY / "consentry.sysusers.conf").read_text(), re.MULTILINE)
    assert user == (said["User"][0], f"/var/lib/{said['StateDirectory'][0]}")
    for name in (UNIT.name, "consentry.sysusers.conf", "consentry.tmpfiles.conf", "/etc/consentry/filter.toml"):
        assert name in text, name
    assert said["ExecReload"][-1] == "/bin/kill -HUP $MAINPID"
    for command in (*said["ExecStart"], said["ExecReload"][0]):
        assert command.startswith("/opt/consentry/bin/consentry ")
        assert command.endswith("-c /etc/consentry/filter.toml")


def test_user_and_directory_are_made(tmp_path: Path) -> None:
    """The user of the unit and the directory of the configuration are made from the files beside it."""
    sysusers, tmpfiles = shutil.which("systemd-sysusers"), shutil.which("systemd-tmpfiles")
    if not sysusers or not tmpfiles or not parts.is_root():
        parts.without("making users in a directory needs systemd-sysusers, systemd-tmpfiles and root")
    (tmp_path / "etc").mkdir()
    for program, name in ((sysusers, "sysusers"), (tmpfiles, "tmpfiles")):
        action = ["--create"] if name == "tmpfiles" else []
        done = run([program, f"--root={tmp_path}", *action, DIRECTORY / f"consentry.{name}.conf"], environment())
        assert done.code == 0, done.output
    made = (tmp_path / "etc" / "passwd").read_text()
    (line,) = [line for line in made.splitlines() if line.startswith("consentry:")]
    assert line.endswith(":/var/lib/consentry:/usr/sbin/nologin")
    directory = (tmp_path / "etc" / "consentry").stat()
    assert stat.S_IMODE(directory.st_mode) == 0o750
    assert f"consentry:x:{directory.st_gid}:" in (tmp_path / "etc" / "group").read_text()


def test_the_relay_works_under_it(analyze: str, tmp_path: Path, rules_cache: Path) -> None:
    """With the unit's system calls and no memory that is written and run, it relays, holds, reloads and drains."""
    said = settings()
    assert said["MemoryDenyWriteExecute"] == ["yes"]
    assert "ProcSubset" not in said or not flights.boot_id()  # which is read from beyond it
    prefix = confined.prefix(syscalls=allowed(analyze, said["SystemCallFilter"]), no_new_code=True)
    for forbidden in ("import os; os.chroot('/')", "import mmap; mmap.mmap(-1, 4096, prot=7)"):
        assert run([*prefix, sys.executable, "-c", forbidden], environment()).code == 1
    store = tmp_path / "var"
    store.mkdir(mode=0o700)
    (store / "cache").symlink_to(rules_cache)
    with ScriptSink() as sink:
        parts_of = dict.fromkeys(("top", "smtp", "next_hop", "store", "rest"), "")
        parts_of["smtp"] = 'relay_networks = ["127.0.0.0/8"]'
        (tmp_path / "filter.toml").write_text(SETTINGS.format(sink=sink.port, workers=2, **parts_of))
        command = [*prefix, sys.executable, "-m", "filter", "run", "-c", str(tmp_path / "filter.toml")]
        with Process(command, environment(), tmp_path / "output") as process:

            def printed(words: str) -> bool:
                assert not process.ended, process.output.read_text()
                return words in process.output.read_text()

            def send(number: int) -> None:
                (address,) = re.findall(
                    r"^listening smtp 127\.0\.0\.1:(\d+)$", process.output.read_text(), re.MULTILINE
                )
                with smtplib.SMTP("127.0.0.1", int(address), timeout=30) as client:
                    client.sendmail("news@bank.example", ["a@home.example"], SERVICE % number)
                    client.sendmail("news@bank.example", ["a@home.example"], MARKETING % (number + 1))

            def workers() -> set[str]:
                return set(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())

            wait_until(functools.partial(printed, "\nready\n"), "ready", seconds=60)
            send(1)
            before = workers()
            os.kill(process.pid, signal.SIGHUP)
            wait_until(functools.partial(printed, " reloaded "), "a reload", seconds=60)
            wait_until(lambda: not before & workers(), "the old workers to leave", seconds=60)  # they answer 421
            send(3)
            os.kill(process.pid, signal.SIGTERM)
            wait_until(lambda: process.ended, "the end", seconds=60)
            assert process.stop() == 0, process.output.read_text()
        assert len(sink.delivered) == 2
        assert "fault" not in process.output.read_text()


def allowed(analyze: str, filters: list[str]) -> list[str]:
    """The system calls that are left by these values of SystemCallFilter, as systemd itself tells its groups."""
    listed = run([analyze, "--no-pager", "syscall-filter"], environment()).output
    groups: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())

    def expanded(name: str) -> set[str]:
        return {call for one in groups[name] for call in expanded(one)} if name.startswith("@") else {name}

    left = expanded("@default")
    for value in filters:
        for name in value.removeprefix("~").split():
            left = left - expanded(name) if value.startswith("~") else left | expanded(name)
    return sorted(left | expanded("@default"))

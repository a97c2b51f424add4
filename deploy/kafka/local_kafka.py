#!/usr/bin/env python3
"""An Apache Kafka on loopback, for trying out and for tests. Never for production: no TLS, no passwords, small.

    local_kafka.py start [--brokers 1|3] [--port 9092] [--home DIR]   prints the bootstrap servers when all are ready
    local_kafka.py stop [--remove] [--home DIR]                       ends exactly those; removes their data if told
    local_kafka.py fetch                                              only gets the jars

Needs Java 17 and, the first time, Maven; of Python nothing but the standard library. Tests use the same functions:
`install` gives an `Install`, `plan` the brokers, `prepare` formats them, `Install.broker` is the command that runs one.
Raises NotThereError when this machine cannot have a Kafka, StartError when a broker does not come up; both say why. As
a program it then ends with status 1 and that sentence.
"""

import argparse
import base64
import contextlib
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kafka_jars import NotThereError, fetch, find_java

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "kafka"
LOOPBACK = "127.0.0.1"
BROKER, STORAGE_TOOL = "kafka.Kafka", "kafka.tools.StorageTool"
READY = b"Kafka Server started"
ARCHIVE = "classes.jsa"
FORMAT_SECONDS, START_SECONDS, STOP_SECONDS = 60, 60, 15
CONTROLLER_PORTS = 100  # the controllers of a `start` listen so far above the brokers
QUICK = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")
"""Options of Java for a start of few seconds and little memory. For measuring throughput give others."""


class StartError(Exception):
    """A broker was not formatted or did not start; the text holds the last of what it said."""


@dataclass(frozen=True, slots=True)
class Install:
    """The jars of a broker and the Java that runs them."""

    java: str
    jars: Path

    def command(self, program: str, *arguments: str | Path, options: Sequence[str] = QUICK) -> list[str]:
        """The command line of a class with a `main`: one of Kafka's tools, or the broker."""
        archive = self.jars / ARCHIVE
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        return [
            *(self.java, *options, *shared, "-Xlog:disable", "-Xlog:all=error:stderr"),
            "-Djava.net.preferIPv4Stack=true",  # what listens on 127.0.0.1 is then seen to do so
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            *("-cp", os.pathsep.join(map(str, sorted(self.jars.glob("*.jar"))))),
            *(program, *map(str, arguments)),
        ]

    def broker(self, node: "Node", options: Sequence[str] = QUICK) -> list[str]:
        """The command line that runs a broker which `prepare` has formatted."""
        return self.command(BROKER, node.settings, options=options)

    @property
    def environment(self) -> dict[str, str]:
        """What Java is started with: nothing of the caller's own."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Node:
    """One broker, which is a controller too. Files are below `home`; both ports are of 127.0.0.1."""

    number: int
    port: int
    controller_port: int
    home: Path

    @property
    def settings(self) -> Path:
        """Its server.properties."""
        return self.home / "server.properties"

    @property
    def output(self) -> Path:
        """What it said since it was last started."""
        return self.home / "output"

    @property
    def pid_file(self) -> Path:
        """Its process, where `start` started it."""
        return self.home / "pid"


# What there is to run.


def install(cache: Path = CACHE) -> Install:
    """Kafka, from `cache` or fetched into it. Raises NotThereError."""
    java = find_java()  # first: without it there is no use in fetching anything
    found = Install(java, fetch(cache.resolve()))
    if not (found.jars / ARCHIVE).exists():
        _archive_classes(found, cache.resolve())
    return found


def _archive_classes(install: Install, cache: Path) -> None:
    """Let Java keep the classes of a broker that has started, parsed: later ones start in half the time.

    Only a shortcut: what goes wrong is said on stderr, and brokers start without it. Another Java ignores the archive.
    """
    with tempfile.TemporaryDirectory(dir=cache) as work:
        archive = Path(work) / ARCHIVE
        (node,) = plan(Path(work), 1, free_ports)
        try:
            prepare(install, [node])
            command = install.broker(node, (*QUICK, f"-XX:ArchiveClassesAtExit={archive}"))
            with _running(command, node, install) as process:
                wait_ready(node, partial(_gone, process))
                process.terminate()
                process.wait(START_SECONDS)
            archive.rename(install.jars / archive.name)
        except (StartError, OSError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"No archive of Kafka's classes, so that brokers start slowly: {error}\n")


@contextlib.contextmanager
def _running(command: Sequence[str], node: Node, install: Install) -> Iterator[subprocess.Popen[bytes]]:
    process = launch(command, node, install)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# Brokers.


def plan(home: Path, brokers: int, ports: Callable[[int], Sequence[int]]) -> list[Node]:
    """The brokers of a cluster below `home`. `ports` gives as many ports as it is asked for."""
    given = ports(2 * brokers)
    return [
        Node(number, given[number - 1], given[brokers + number - 1], home.resolve() / f"broker-{number}")
        for number in range(1, brokers + 1)
    ]


def bootstrap(nodes: Sequence[Node]) -> str:
    """The brokers' addresses, as clients want them."""
    return ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)


def prepare(
    install: Install,
    nodes: Sequence[Node],
    settings: Mapping[str, object] | None = None,
    *,
    storage: Sequence[str] = (),
) -> None:
    """Write the settings of every broker and format its log directory. Raises StartError.

    `settings` go over those of server.properties and over what is worked out here; `storage` are further arguments for
    formatting, such as `--add-scram`.
    """
    name = bytes([secrets.randbelow(128)]) + secrets.token_bytes(15)  # below 128: a name must not begin with a hyphen
    cluster = base64.urlsafe_b64encode(name).decode().rstrip("=")
    formatting = []
    for node in nodes:
        node.home.mkdir(parents=True)
        node.settings.write_text(_settings(node, nodes, settings or {}))
        arguments: list[str | Path] = ["format", "--cluster-id", cluster, "--config", node.settings, *storage]
        formatting.append(launch(install.command(STORAGE_TOOL, *arguments), node, install))
    codes = [_code(process) for process in formatting]
    for node, code in zip(nodes, codes, strict=True):
        if code:
            raise StartError(f"{node.home} was not formatted: {last_words(node)}")


def _gone(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _code(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(FORMAT_SECONDS)
    process.kill()
    return process.wait()


def _settings(node: Node, nodes: Sequence[Node], more: Mapping[str, object]) -> str:
    copies = min(3, len(nodes))
    enough = max(1, copies - 1)  # of three, one may be down
    own: dict[str, object] = {
        "node.id": node.number,
        "controller.quorum.voters": ",".join(f"{one.number}@{LOOPBACK}:{one.controller_port}" for one in nodes),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "log.dirs": node.home / "data",
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": enough,
        **more,
    }
    lines = (HERE / "server.properties").read_text().splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in own]
    return "\n".join([*kept, "", *(f"{name}={value}" for name, value in own.items()), ""])


def launch(command: Sequence[str], node: Node, install: Install) -> subprocess.Popen[bytes]:
    """Start a program of a node in the background, in a session of its own; what it says goes to `node.output`."""
    with node.output.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 -- our own program
            command,
            env=install.environment,
            cwd=node.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_ready(node: Node, ended: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
    """Return when a broker takes clients; StartError with its last words when it ended or takes too long."""
    end = time.monotonic() + seconds
    while READY not in node.output.read_bytes():
        if ended():
            raise StartError(f"broker {node.number} has ended: {last_words(node)}")
        if time.monotonic() > end:
            raise StartError(f"broker {node.number} is not ready after {seconds} s: {last_words(node)}")
        time.sleep(0.05)


def last_words(node: Node) -> str:
    """What is most likely the reason in what a program said: its first error, or its last lines."""
    lines = node.output.read_text(errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if re.search(r"\b(ERROR|FATAL|Exception|Error)\b", line)]
    first = errors[0] if errors else max(0, len(lines) - 5)
    return "\n".join(lines[first : first + 5]) or "(nothing said)"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    with contextlib.ExitStack() as stack:
        trials = [stack.enter_context(socket.socket()) for _ in range(count)]
        for trial in trials:
            trial.bind((LOOPBACK, 0))
        return [trial.getsockname()[1] for trial in trials]


# The program: brokers that outlive it, found again by their pid files.


def start(home: Path, brokers: int, port: int, cache: Path = CACHE) -> str:
    """Start brokers in the background, on the data that is there; gives their addresses. One that runs stays."""
    nodes = plan(home, brokers, lambda _: _ports(brokers, port))
    there = sorted(path.name for path in home.glob("broker-*"))
    if there and there != [node.home.name for node in nodes]:
        raise StartError(f"{home} has data of {len(there)} broker(s), not of {brokers}; remove it: stop --remove")
    if there and f"listeners=PLAINTEXT://{LOOPBACK}:{port}," not in nodes[0].settings.read_text():
        raise StartError(f"{home} has data of brokers on other ports; remove it: stop --remove")
    found = install(cache)
    waiting = [node for node in nodes if not _process(node)]
    for number in (number for node in waiting for number in (node.port, node.controller_port)):
        _want_free(number)
    if not there:
        try:
            prepare(found, nodes)
        except BaseException:
            shutil.rmtree(home)
            raise
    try:
        started = [(node, launch(found.broker(node), node, found)) for node in waiting]
        for node, process in started:
            node.pid_file.write_text(f"{process.pid}\n")
        for node, process in started:
            wait_ready(node, partial(_gone, process))
    except BaseException:
        stop(home, remove=False)
        raise
    return bootstrap(nodes)


def stop(home: Path, *, remove: bool) -> int:
    """End the brokers that `start` has started below `home`; gives their number."""
    nodes = [Node(0, 0, 0, path.resolve()) for path in sorted(home.glob("broker-*"))]
    running = [handle for node in nodes if (handle := _process(node)) is not None]
    for handle in running:
        _send(handle, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    for handle in running:
        if not _ended(handle, end - time.monotonic()):  # the last of three cannot say goodbye to anybody
            _send(handle, signal.SIGKILL)
            _ended(handle, STOP_SECONDS)
        os.close(handle)
    for node in nodes:
        node.pid_file.unlink(missing_ok=True)
    if remove:
        shutil.rmtree(home, ignore_errors=True)
    return len(running)


def _ports(brokers: int, port: int) -> list[int]:
    return [first + number for first in (port, port + CONTROLLER_PORTS) for number in range(brokers)]


def _want_free(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed just now is free
        try:
            trial.bind((LOOPBACK, port))
        except OSError as error:
            raise StartError(f"{LOOPBACK}:{port}: {error.strerror}; choose others by --port") from None


def _process(node: Node) -> int | None:
    """A handle of the process in the pid file, if it is this very broker: numbers of processes are used again."""
    try:
        pid = int(node.pid_file.read_text())
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if {BROKER.encode(), os.fsencode(node.settings)} <= set(words):
            return handle
    os.close(handle)
    return None


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _ended(handle: int, seconds: float) -> bool:
    return bool(select.select([handle], [], [], max(0.0, seconds))[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(description="An Apache Kafka on loopback, for trying out and for tests.")
    parser.add_argument("what", choices=("start", "stop", "fetch"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the jars are kept")
    parser.add_argument("--home", type=Path, default=CACHE / "cluster", help="where brokers keep their data")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--port", type=int, default=9092, help="of the first broker; the others follow")
    parser.add_argument("--remove", action="store_true", help="stop: remove the data")
    parser.add_argument("--after-input", action="store_true", help="stop: when standard input has ended")
    given = parser.parse_args(arguments)
    try:
        if given.what == "start":
            sys.stderr.write("Starting Apache Kafka …\n")
            sys.stdout.write(start(given.home, given.brokers, given.port, given.cache) + "\n")
        elif given.what == "stop":
            if given.after_input:
                sys.stdin.buffer.read()
            sys.stderr.write(f"Stopped {stop(given.home, remove=given.remove)} broker(s)\n")
        else:
            sys.stdout.write(f"{install(given.cache).jars}\n")
    except (NotThereError, StartError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starting programs and waiting for them, with an end to every wait.

`run` and `Process` take a bare environment, never the caller's. A wait that ends without success raises AssertionError
naming what was waited for; nothing else is raised but what starting a program raises.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 5.0
PORTS = range(20_000, 32_000)  # below the kernel's own range, 32768 and up
# Where tests run in several processes each has its own: what is to listen on a port that was given may not do so yet.
_WORKER, _WORKERS = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
_OURS = PORTS[int(_WORKER.removeprefix("gw")) :: int(_WORKERS)]
_given: set[int] = set()


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended: its exit code, and what it wrote to stdout and stderr together."""

    code: int
    output: str


def run(command: Sequence[str | Path], environment: Mapping[str, str], *, seconds: float = 30) -> Done:
    """Run a program to its end; AssertionError when it takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"{Path(command[0]).name} has not ended after {seconds} s: {late.output!r}") from None
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"))


class Process:
    """A program in the background, alone in its process group; what it prints goes to the file `output`."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], output: Path) -> None:
        self.output = output
        with output.open("wb") as file:
            self._child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._child.pid
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether the program has ended by itself."""
        return self._child.poll() is not None

    def stop(self, *, seconds: float = STOP_SECONDS) -> int:
        """End the program and all it started, by SIGTERM, then by SIGKILL; gives the exit code. May be repeated."""
        if not self._stopped:
            self._stopped = True  # the group's number may belong to somebody else afterwards
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
            self._signal(signal.SIGKILL)
        return self._child.wait(seconds)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now, never the same twice in a run.

    It is not one of those that the kernel gives to outgoing connections, which might take it before its program does.
    """
    for _ in range(1000):
        port = secrets.choice(_OURS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError(f"no free port from {PORTS[0]} to {PORTS[-1]}")


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 15) -> None:
    """Return as soon as `condition` is true; AssertionError naming `what` when it never becomes true."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        assert waited < seconds, f"waited {seconds} s in vain: {what}"
        time.sleep(min(max(waited / 20, 0.01), 0.05))  # asking may cost those a lot who are waited for


def listening(port: int) -> bool:
    """Whether something listens on a TCP port of 127.0.0.1, found out without connecting: a counter must not see us."""
    wanted = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == wanted and row[3] == "0A" for row in rows)


def wait_for_port(port: int, process: Process, *, seconds: float = 15) -> None:
    """Return when the program listens; AssertionError with what it printed when it ended or takes too long."""

    def up() -> bool:
        assert not process.ended, f"ended before it listened: {process.output.read_text(errors='replace')}"
        return listening(port)

    wait_until(up, f"a listener on port {port}", seconds=seconds)

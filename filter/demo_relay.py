"""`consentry run` as the demo's child process: started, asked where it listens, and drained.

It stands in a session of its own, so that Ctrl-C reaches the demo alone, which then ends it. Raises `DemoError` with
the last lines of its log when it does not start or does not stay.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from .demo_mailbox import DemoError
from .worker_process import environment

HOST: Final = "127.0.0.1"
_DRAIN: Final = 30.0  # seconds for messages under way; then it is told to hurry
_HURRY: Final = 10.0
_LINES: Final = 10  # of the log, when something goes wrong


def port_or_any(port: int) -> int:
    """This port of the loopback if nobody listens there, else 0: one that the system chooses."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return 0
    return port


class DemoRelay:
    """The running relay; `addresses` says where it listens: "smtp" and "http" to "HOST:PORT"."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        self.addresses: dict[str, str] = {}
        self._config = config
        self._child: subprocess.Popen[str]

    def _start(self) -> None:
        with self.log.open("wb") as file:
            self._child = subprocess.Popen(  # noqa: S603 -- our own program
                [sys.executable, "-P", "-m", __package__ or "", "run", "-c", str(self._config.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment({}),
                start_new_session=True,
                text=True,
            )

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return self._child.poll() is None

    def wait_ready(self) -> None:
        """Return when it serves; it gives up by itself when a worker takes too long."""
        for line in self._child.stdout or ():
            words = line.split()
            if words == ["ready"]:
                return
            if words[:1] == ["listening"]:
                self.addresses[words[1]] = words[-1]
        raise self.failure("did not start")

    def failure(self, what: str) -> DemoError:
        """The error that says so, with the end of the log."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_HURRY)
        lines = self.log.read_text("utf-8", "replace").splitlines()[-_LINES:]
        return DemoError("\n".join([f"the relay {what}; its log, {self.log}, ends:", *(f"  {line}" for line in lines)]))

    def stop(self) -> None:
        """Let it finish what is under way and end; a second Ctrl-C hurries it."""
        for seconds in (_DRAIN, _HURRY):
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._child.wait(seconds)
                return
        self._child.kill()
        self._child.wait()

    def __enter__(self) -> Self:
        # An interrupted start would leave a process of which nobody knows.
        started = False
        try:
            with _put_off() as signals:
                self._start()
                started = True
            if signals:
                signal.raise_signal(signals[0])
        except BaseException:
            if started:
                self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._child.stdout:
            self._child.stdout.close()


@contextmanager
def _put_off() -> Iterator[list[int]]:
    """Only note the signals that end a demo, while this lasts."""
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

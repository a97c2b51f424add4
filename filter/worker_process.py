"""One worker as its supervisor sees it: a fresh interpreter, a control line to it, and its end.

The child gets the listening sockets and its end of the control line, nothing else that is open here, and no state of
ours (no fork). It stands in a session of its own, so that Ctrl-C reaches the supervisor alone. Whoever starts one must
await `ended`, which also kills a worker that falls silent. Raises `WorkerError` when a worker cannot start.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

from . import control, logs
from .control import Assignment, Do
from .errors import ConsentryError
from .health import NotReady, Report

_STARTING: Final = Report((NotReady.STARTING,))
_OLD: Final = 5.0  # seconds after which a report says nothing any more
_LAST_WORDS: Final = 0.5  # seconds a hung worker gets to say where it hangs


class WorkerError(ConsentryError):
    """A worker cannot start; the text is the worker's own where it could say why."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may take to start, and how long it may say nothing afterwards, in seconds."""

    start: float = 120.0
    silence: float = 30.0


def command() -> list[str]:
    """What to start: this interpreter with this package, wherever we stand."""
    return [sys.executable, "-P", "-m", f"{__package__}.worker"]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment and `extra`, with this package importable."""
    package = str(Path(__file__).parents[1])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **extra}


class WorkerProcess:
    """A running worker. `version` is that of its rule set once it is ready, `failure` why it will never be."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._report = _STARTING
        self._heard_at = monotonic()
        self.version = ""
        self.failure = ""
        self.silent = False
        self._process, self._reader, self._writer = process, reader, writer
        self._told = asyncio.Event()  # ready, failed or gone

    @classmethod
    async def start(
        cls,
        assignment: Assignment,
        inherit: Sequence[socket.socket],
        arguments: Sequence[str],
        environ: Mapping[str, str],
    ) -> Self:
        """Start a worker and hand it its assignment. Raises WorkerError."""
        ours, theirs = socket.socketpair()
        try:
            descriptors = [theirs.fileno(), *(one.fileno() for one in inherit)]
            process = await asyncio.create_subprocess_exec(
                *arguments,
                "--control",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise WorkerError(f"a worker cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=control.MAX_LINE)
        worker = cls(process, reader, writer)
        worker._send(assignment.line())
        return worker

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def report(self) -> Report:
        """Its last report; one that is too old says that it is silent."""
        if self.ready and monotonic() - self._heard_at > _OLD:
            return replace(self._report, reasons=(*self._report.reasons, NotReady.WORKER_SILENT))
        return self._report

    @property
    def ready(self) -> bool:
        """Whether it ever said that it serves."""
        return bool(self.version)

    async def started(self) -> None:
        """Wait until the worker serves. Raises WorkerError. `ended` must run at the same time."""
        await self._told.wait()
        if not self.ready:
            raise WorkerError(self.failure or "a worker ended before it was ready; its log says why")

    async def ended(self, patience: Patience) -> int:
        """Listen to the worker until its end, and give its exit status (negative: the signal that killed it)."""
        try:
            await self._listen(patience)
            if not self.silent:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), patience.silence)
        finally:
            self._told.set()
            self._writer.close()
            self.kill()
            await self._process.wait()
        return self._process.returncode or 0

    async def _listen(self, patience: Patience) -> None:
        while True:
            limit = patience.silence if self.ready else patience.start
            try:
                line = await asyncio.wait_for(self._reader.readline(), limit)
            except TimeoutError:
                self.silent = True
                self.failure = f"no sign of life for {limit:g} s" if self.ready else f"not ready within {limit:g} s"
                await self._last_words()
                return
            except (ConnectionError, ValueError):  # a line beyond every limit is no line of ours
                return
            if not line:
                return
            self._hear(line)

    def _hear(self, line: bytes) -> None:
        try:
            document: dict[str, Any] = control.decode(line)
            if "report" in document:
                self._report = Report.read(document["report"])
                self._heard_at = monotonic()
        except ValueError:
            logs.event(logs.ERROR, "worker_line_unreadable", pid=self.pid)
            return
        if "ready" in document:
            self.version = str(document["ready"])
            self._report = Report() if self._report is _STARTING else self._report
            self._told.set()
        elif "failed" in document:
            self.failure = str(document["failed"])
            self._told.set()

    async def _last_words(self) -> None:
        """Let a hung worker print where it hangs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR2)
            await asyncio.sleep(_LAST_WORDS)

    def tell(self, what: Do) -> None:
        """Say something to the worker, if it still listens."""
        if what is Do.DRAIN:
            self._report = Report((NotReady.DRAINING,))
        self._send(control.encode({"do": what}))

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line)

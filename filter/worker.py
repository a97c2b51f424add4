"""One worker process: takes its assignment, starts the relay, reports every second, drains when told or left alone.

The supervisor starts it as `python -m filter.worker --control DESCRIPTOR`, without what the command line needs.

Exit status: 0 after a drain, 1 when the relay had to stop (the hold store failed for good, or a fault of ours), 2 when
it could not start; then the reason went to the supervisor, who shows it. Faults are logged without their text, which
may quote mail. SIGTERM drains as well, since service managers send it to everybody.
"""

import asyncio
import faulthandler
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, Protocol

import uvloop

from . import control, logs, relay
from .allocator import keep_freed_memory
from .config import parse_config
from .control import Assignment, Do
from .errors import ConsentryError
from .health import NotReady, Report
from .metrics import Metrics
from .relay import Relay

BEAT: Final = 1.0  # seconds
_OTHER_FILES: Final = 100  # store, journal, metrics, libraries
_KAFKA_FILES: Final = 1000  # each partition has connections of its own to some brokers
_COLLECT: Final = (50_000, 20, 100)  # objects more than before, and how many looks at the young for one at the older
SLOW: Final = 2.0  # seconds that a heartbeat is late when the event loop is too slow for mail
DRAINED, STOPPED, NOT_STARTED = 0, 1, 2


class Work(Protocol):
    """What a worker does once it was started: a relay, or something else that lives as long."""

    @property
    def version(self) -> str:
        """Of what it works by; not empty."""

    @property
    def broken(self) -> bool:
        """Whether only a new process can help."""

    @property
    def metrics(self) -> Metrics:
        """What it counts."""

    def report(self) -> Report:
        """How it is."""

    async def stop(self) -> None:
        """Finish what is under way."""


Start = Callable[[Assignment], Awaitable[Work]]


def main(descriptor: int, start: Start | None = None) -> int:
    """Work for the supervisor at the other end of this inherited socket, as a relay if not told otherwise; gives the
    exit status.
    """
    logs.configure(pid=os.getpid())
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # the supervisor asks a hung worker where it hangs
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor's business
    keep_freed_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this memory holds mail
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_work(descriptor, start or _start))
    except Exception as error:  # noqa: BLE001 -- the last door: what comes here ends the process, and is said
        logs.fault("worker_fault", error)
        return STOPPED


async def _work(descriptor: int, start: Start) -> int:
    asyncio.get_running_loop().set_exception_handler(_log_fault)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=control.MAX_LINE)
    line = await reader.readline()
    if not line:
        return NOT_STARTED  # the supervisor is gone already
    assignment = Assignment.read(control.decode(line))
    try:
        started = await start(assignment)
    except (ConsentryError, OSError) as error:
        writer.write(control.encode({"failed": str(error)}))
        await writer.drain()
        writer.close()
        return NOT_STARTED
    writer.write(control.encode({"report": started.report().document()}))  # first: ready is not yet fit for mail
    writer.write(control.encode({"ready": started.version}))
    return await Worker(started, reader, writer).run()


def _log_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited; the default would print the exception's text."""
    error = context.get("exception")
    if isinstance(error, Exception):
        logs.fault("loop_fault", error, message=context.get("message"))
    else:
        logs.event(logs.ERROR, "loop_fault", message=context.get("message"))


async def _start(assignment: Assignment) -> Relay:
    """The relay of this assignment, serving."""
    config = parse_config(assignment.text.encode(), assignment.file)
    connections = config.smtp.max_connections + 2 * config.next_hop.max_connections + config.hold.release_connections
    _allow_files(connections + _OTHER_FILES + (_KAFKA_FILES if config.kafka.serves else 0))
    sockets = [(socket.socket(fileno=number), tls) for number, tls in assignment.sockets]
    built = relay.build(config, assignment.slot)
    if built.version != assignment.version:
        # The rest of this generation may still judge by the rules as they were.
        logs.event(logs.WARNING, "rules_changed", checked=assignment.version, loaded=built.version)
    await built.start(sockets)
    _spare_the_collector()
    return built


def _spare_the_collector() -> None:
    """Have the cycle collector leave alone what was loaded, which lives as long as the process.

    A look at all of it, mostly rules, would stop the mail for about 30 ms each time. What comes after is looked at less
    often than usual: cycles are few among many objects, and the looks took a twentieth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def _allow_files(wanted: int) -> None:
    """Raise the limit on open files as far as connections may need it, or say that it cannot be raised so far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return
    allowed = wanted if hard == unlimited else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logs.event(logs.WARNING, "file_limit_low", wanted=wanted, allowed=allowed)


class Worker:
    """Work that was started, and the line to the supervisor."""

    def __init__(self, started: Work, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._work = started
        self._reader, self._writer = reader, writer
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()
        self._status = DRAINED

    async def run(self) -> int:
        """Serve until it is time to leave; gives the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave.set)
        async with _running(self._obey()), _running(self._beat()):
            await self._leave.wait()
            async with _running(self._work.stop()) as drained:
                hurried = asyncio.create_task(self._hurry.wait())
                await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
                if drained.done():
                    drained.result()
        self._writer.close()
        return self._status

    async def _obey(self) -> None:
        """Do what the supervisor says; without one there is nothing to stay for."""
        with suppress(ConnectionError, ValueError):
            while line := await self._reader.readline():
                if control.decode(line).get("do") == Do.HURRY:
                    self._hurry.set()
                self._leave.set()
        self._leave.set()

    async def _beat(self) -> None:
        """Say every second how we are, as long as anybody listens."""
        clock = asyncio.get_running_loop().time
        due = clock() + BEAT
        while True:
            await asyncio.sleep(due - clock())
            lag = clock() - due
            self._work.metrics.event_loop_lag_seconds.observe(max(0.0, lag))
            self._work.metrics.flush()  # times that no message came with: look-ups of copies that are checked again
            due = clock() + BEAT
            report = replace(self._work.report(), lag_ms=int(lag * 1000))
            if lag > SLOW:
                report = replace(report, reasons=(*report.reasons, NotReady.EVENT_LOOP_SLOW))
                logs.event(logs.WARNING, "event_loop_slow", seconds=round(lag, 1))
            if self._leave.is_set():
                report = replace(report, reasons=(*report.reasons, NotReady.DRAINING))
            elif self._work.broken:
                logs.event(logs.ERROR, "worker_stopping", reason=report.reasons)
                self._status = STOPPED
                self._leave.set()
            if not self._writer.is_closing():
                self._writer.write(control.encode({"report": report.document()}))


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Have this done in the background, at most as long as the block lasts."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[-1])))

"""What is done now and then beside the mail: by one process of a machine at a time, in turn, and never in its way.

A chore that fails is reported and done again at its next time. The turn is a lock on a file, which the kernel gives
free when its process ends, so that another takes over within `LOOK_EVERY`. Nothing raises but CancelledError.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

from .durable import make_directory
from .ports import Journal, Report

LOOK_EVERY: Final = 5.0  # seconds between looks whether it is our turn
STOP_WITHIN: Final = 10.0  # seconds that a chore may take to end


class Turn:
    """Whose turn it is, among the processes that know the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def take(self) -> bool:
        """Whether it is ours, from now on if it was nobody's. Raises OSError."""
        if self._file >= 0:
            return True
        make_directory(self._path.parent)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def give_up(self) -> None:
        """It is somebody else's; nothing if it was not ours."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Chore(NamedTuple):
    """What is to be done, how often (seconds), and by which name a failure is reported."""

    name: str
    every: float
    work: Callable[[], Awaitable[object]]


class Service(NamedTuple):
    """What goes on for as long as it is our turn, and how it is told to end."""

    name: str
    serve: Callable[[], Awaitable[None]]
    stop: Callable[[], None]


class Housekeeper:
    """Does the chores, and keeps the services going, while it is the turn of this process."""

    def __init__(self, turn: Turn, chores: Sequence[Chore], services: Sequence[Service], report: Report) -> None:
        self._turn = turn
        self._chores = chores
        self._services = services
        self._report = report
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Wait for our turn, in the background, and do what is to be done."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self, seconds: float = STOP_WITHIN) -> None:
        """Begin nothing more, let what was begun end for so long, and let others have their turn."""
        self._stopping.set()
        for service in self._services:
            service.stop()
        if self._task:
            await asyncio.wait((self._task,), timeout=seconds)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._turn.give_up()

    async def _keep(self) -> None:
        while not self._is_our_turn():
            if await self._stops_within(LOOK_EVERY):
                return
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._repeat(chore))
            for service in self._services:
                group.create_task(self._serve(service))

    def _is_our_turn(self) -> bool:
        try:
            return self._turn.take()
        except OSError as error:
            self._report("housekeeping", error)
            return False

    async def _repeat(self, chore: Chore) -> None:
        while not self.stopping:
            await self._guarded(chore.name, chore.work)
            if await self._stops_within(chore.every):
                return

    async def _serve(self, service: Service) -> None:
        while not self.stopping:
            await self._guarded(service.name, service.serve)
            if await self._stops_within(LOOK_EVERY):
                return

    async def _guarded(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and mail goes on
            self._report(name, error)

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self.stopping


class SharedJournal:
    """A journal that several threads write to, one at a time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = Lock()

    def write(self, events: Sequence[Mapping[str, object]]) -> None:
        """Append one line for each event."""
        with self._lock:
            self._journal.write(events)

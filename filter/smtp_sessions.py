"""All SMTP sessions of a worker: who is connected, one timer that looks at every deadline, and the drain.

And what a session leaves to be done in the background.

Raises nothing. Time is the event loop's.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from . import logs
from .ports import Report
from .smtp_limits import Limits, Usage


class Watched(Protocol):
    """A session as seen from here."""

    def check(self, now: float) -> None:
        """End what is overdue at this instant (event loop time)."""

    def drain(self) -> None:
        """Take no further mail; end at once if idle."""


class Sessions:
    """The sessions there are. A session is one of them until its last delivery is over, connected or not."""

    def __init__(self, limits: Limits, report: Report = logs.fault) -> None:
        """`report` is told of every fault of a session, as "smtp"."""
        self.limits = limits
        self.report = report
        self.usage = Usage(limits)
        self.draining = False
        self._all: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._all)

    def add(self, session: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a session from now on."""
        self._all.add(session)
        if self._timer is None:
            self._timer = loop.call_later(self.limits.tick, self._tick, loop)

    def remove(self, session: Watched) -> None:
        """The session is over."""
        self._all.discard(session)
        if not self._all:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._empty is not None:
                self._empty.set()

    async def drain(self) -> None:
        """End idle sessions now and the others after their message; returns when the last one is over."""
        self.draining = True
        for session in tuple(self._all):
            session.drain()
        if self._all:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = loop.call_later(self.limits.tick, self._tick, loop)
        for session in tuple(self._all):
            session.check(now)


class Background:
    """What goes on for one session without its waiting; faults are reported, and `done` is called after each."""

    __slots__ = ("_done", "_loop", "_report", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report, done: Callable[[], object]) -> None:
        self._loop = loop
        self._report = report
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._report("smtp", error)
        self._done()

"""Time limits for what tasks do, all watched by one timer: one for each would cost more than most of what it limits.

`with limits.until(deadline):` does what `async with asyncio.timeout_at(deadline)` does: what its block still waits for
at the deadline is cancelled, and the block raises TimeoutError. Entering it outside a task raises RuntimeError.
"""

import asyncio
import math
from types import TracebackType


class TimeLimits:
    """Limits of any number of tasks. The timer is set to the first deadline: it costs little if all are as long."""

    __slots__ = ("_loop", "_next", "_open", "_timer")

    def __init__(self) -> None:
        self._open: set[_Limit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when it goes off

    def until(self, deadline: float) -> "_Limit":
        """A limit for the block that it is entered for; `deadline` is a time of the loop, in seconds."""
        return _Limit(self, deadline)

    def watch(self, limit: "_Limit", loop: asyncio.AbstractEventLoop) -> None:
        """Watch a limit from now on."""
        self._open.add(limit)
        if limit.deadline < self._next or loop is not self._loop:
            self._wake(loop, limit.deadline)

    def leave(self, limit: "_Limit") -> None:
        """Watch it no more."""
        self._open.discard(limit)

    def _wake(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None and loop is self._loop:
            self._timer.cancel()
        self._loop, self._next = loop, deadline
        self._timer = loop.call_at(deadline, self._end_late, loop)

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """What was to be done by the first deadline mostly is: then wait for what is the first one now."""
        now = loop.time()
        for limit in [limit for limit in self._open if limit.deadline <= now]:
            self._open.remove(limit)
            limit.end()
        self._timer, self._next = None, math.inf
        if self._open:
            self._wake(loop, min(limit.deadline for limit in self._open))


class _Limit:
    """The limit of one block."""

    __slots__ = ("_cancelling", "_late", "_limits", "_task", "deadline")

    _task: "asyncio.Task[object]"
    _cancelling: int

    def __init__(self, limits: TimeLimits, deadline: float) -> None:
        self._limits = limits
        self._late = False
        self.deadline = deadline

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit outside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._limits.watch(self, task.get_loop())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._limits.leave(self)
        # Somebody else may have cancelled the task as well: then that is what it hears.
        if self._late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        """The time is up."""
        self._late = True
        self._task.cancel()

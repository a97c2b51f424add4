"""The workers of one generation: started together, kept at their number, drained together.

A worker that ends is started again, after a pause that grows while lives are short. `start` raises `WorkerError` when a
worker of a new generation does not get ready, and then none is left. Nothing else is raised.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

from . import logs
from .backoff import Backoff
from .control import Do
from .health import Report
from .worker_process import Patience, WorkerError, WorkerProcess

Start = Callable[[int], Awaitable[WorkerProcess]]


class Crew:
    """`count` workers; `start_worker` starts the one of a slot.

    `grace` is how many seconds they may take to drain. `on_exit` is told the pid of each that ended, `on_restart` that
    one is about to be started again.
    """

    def __init__(
        self,
        count: int,
        start_worker: Start,
        *,
        patience: Patience,
        grace: float,
        on_exit: Callable[[int], None],
        on_restart: Callable[[], None],
        backoff: Callable[[], Backoff] = Backoff,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._start_worker = start_worker
        self._patience = patience
        self._grace = grace
        self._on_exit = on_exit
        self._on_restart = on_restart
        self._backoff = backoff
        self._clock = clock
        self._workers: list[WorkerProcess | None] = [None] * count
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = asyncio.Event()

    async def start(self) -> None:
        """Start everybody and wait until all are ready. Raises WorkerError, with nobody left."""
        first: list[asyncio.Future[WorkerProcess]] = [asyncio.Future() for _ in self._workers]
        self._tasks = [asyncio.create_task(self._keep(slot, tried)) for slot, tried in enumerate(first)]
        try:
            workers = await asyncio.gather(*first)
            await asyncio.gather(*(worker.started() for worker in workers))
        except BaseException:
            await self.drain()  # some may serve already
            raise

    def reports(self) -> list[Report | None]:
        """The last report of the worker in each slot; None where there is none now."""
        return [worker.report if worker else None for worker in self._workers]

    @property
    def gone(self) -> bool:
        """Whether nobody is left, or nobody was ever started."""
        return all(task.done() for task in self._tasks)

    def tell(self, what: Do) -> None:
        """Say something to everybody; after this, whoever ends is not started again."""
        self._leaving.set()
        for worker in self._workers:
            if worker:
                worker.tell(what)

    async def drain(self) -> None:
        """Let everybody finish, for as long as grace lasts, and wait for their end."""
        self.tell(Do.DRAIN)
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._grace)
        if late:
            self.kill()
        await asyncio.gather(*self._tasks)

    def kill(self) -> None:
        """End everybody who is still there."""
        for worker in self._workers:
            if worker:
                logs.event(logs.WARNING, "worker_drain_overdue", pid=worker.pid)
                worker.kill()

    async def _keep(self, slot: int, first: asyncio.Future[WorkerProcess]) -> None:
        """Keep a worker in this slot until we leave; `first` becomes the first one."""
        backoff = self._backoff()
        while not self._leaving.is_set():
            since = self._clock()
            try:
                worker = await self._start_worker(slot)
            except WorkerError as error:
                logs.event(logs.ERROR, "worker_not_started", slot=slot, reason=error)
                if not first.done():
                    first.set_exception(error)
            else:
                if not first.done():
                    first.set_result(worker)
                await self._live(slot, worker)
            if self._leaving.is_set():
                return
            pause = backoff.pause(self._clock() - since)
            self._on_restart()
            logs.event(logs.WARNING, "worker_restarting", slot=slot, pause=round(pause, 1))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause)

    async def _live(self, slot: int, worker: WorkerProcess) -> None:
        """See a worker to its end."""
        self._workers[slot] = worker
        if self._leaving.is_set():
            worker.tell(Do.DRAIN)
        try:
            status = await worker.ended(self._patience)
        finally:
            self._workers[slot] = None
            self._on_exit(worker.pid)
        if status or not self._leaving.is_set():
            logs.event(
                logs.ERROR if status else logs.WARNING,
                "worker_ended",
                slot=slot,
                pid=worker.pid,
                status=_status(status),
                silent=worker.silent or None,
                reason=worker.failure or None,
            )


def _status(status: int) -> str:
    """An exit status in words."""
    with suppress(ValueError):
        return signal.Signals(-status).name
    return str(status)

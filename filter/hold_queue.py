"""A thread that writes for callers in event loops: one transaction for all who wait, each told what became of it.

What comes while it writes goes into the next batch. `close` writes what waits. If the await is cancelled, the write may
still take place. `submit` raises what the batch's writer says became of the job.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, Generic, NamedTuple, TypeVar

from .ports import HoldUnavailableError

MOST_JOBS: Final = 256  # in one batch
MOST_OCTETS: Final = 32 << 20  # of content in one batch

W = TypeVar("W")
Told = list[tuple[asyncio.Future[None], HoldUnavailableError | None]]


class Job(NamedTuple, Generic[W]):
    """What one caller waits for, and for how many octets of content it stands."""

    work: W
    octets: int
    future: asyncio.Future[None]


class HoldQueue(Generic[W]):
    """The jobs and their thread. `write` does a batch and says for each job what went wrong, if anything; `rest` does
    what is due between batches, and is called after each and every `every` seconds. Neither may raise.
    """

    def __init__(
        self,
        write: Callable[[Sequence[W]], Sequence[HoldUnavailableError | None]],
        rest: Callable[[], None],
        *,
        every: float,
        name: str,
    ) -> None:
        self.closed = False
        self._write, self._rest, self._every = write, rest, every
        self._jobs: SimpleQueue[Job[W] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, work: W, octets: int = 0) -> None:
        """Have it written, and return when it is."""
        if self.closed:
            raise HoldUnavailableError("hold store is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put(Job(work, octets, future))
        await future

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if not self.closed:
            self.closed = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._next_batch()
            if batch:
                _answer(batch, self._write([job.work for job in batch]))
            self._rest()

    def _next_batch(self) -> tuple[list[Job[W]], bool]:
        """What waits, up to a limit, and whether to go on after it."""
        batch: list[Job[W]] = []
        octets = 0
        with suppress(Empty):
            job = self._jobs.get(timeout=self._every)
            while job is not None:
                batch.append(job)
                octets += job.octets
                if len(batch) >= MOST_JOBS or octets >= MOST_OCTETS:
                    return batch, True
                job = self._jobs.get_nowait()
            return batch, False
        return batch, True


def _answer(batch: list[Job[W]], outcomes: Sequence[HoldUnavailableError | None]) -> None:
    """Tell every caller, with one call into each event loop."""
    told: dict[asyncio.AbstractEventLoop, Told] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        told.setdefault(job.future.get_loop(), []).append((job.future, outcome))
    for loop, pairs in told.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Told) -> None:
    for future, outcome in pairs:
        if future.done():
            continue
        if outcome is None:
            future.set_result(None)
        else:
            future.set_exception(outcome)

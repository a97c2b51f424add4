"""The supervisor with scripted workers: starts, restarts, reloads, drains, and what it says over HTTP meanwhile."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import scripted_worker

from filter.app import Checked
from filter.config import parse_config
from filter.errors import ConfigError
from filter.supervisor import Supervisor
from filter.worker_process import Patience, WorkerError

pytestmark = pytest.mark.integration

LIMIT = 20.0  # seconds for anything that must happen
PATIENT = Patience(LIMIT, LIMIT)


class Run:
    """A supervisor at work, and what can be seen of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan: dict[str, Any] = {"lives": str(directory)}
        self.settings = ""
        self.workers = 2
        self.problem = ""
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.smtp = self.http = ("", 0)
        self.task: asyncio.Task[None]

    def check(self, file: Path) -> Checked:
        """The configuration of now, or its problem."""
        if self.problem:
            raise ConfigError(self.problem, [])
        ports = "[smtp]\nlisten = ['127.0.0.1:0']\n[http]\nlisten = '127.0.0.1:0'\n"
        text = f"workers = {self.workers}\n{self.settings}{ports}"
        return Checked(parse_config(text.encode(), file), json.dumps(self.plan), "v1", (0, 0))

    def start(self, patience: Patience) -> None:
        """Run it in the background."""
        supervisor = Supervisor(
            self.directory / "filter.toml",
            announce=self.said.put_nowait,
            check=self.check,
            arguments=[sys.executable, scripted_worker.__file__],
            follower=[sys.executable, scripted_worker.__file__],
            patience=patience,
        )
        self.task = asyncio.create_task(supervisor.run())

    async def until_ready(self) -> None:
        """Wait for "ready" and note the addresses; if the run ends before, its error comes out."""
        while True:
            waiting = asyncio.create_task(self.said.get())
            await asyncio.wait({waiting, self.task}, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                await self.task
            word, *rest = waiting.result().split()
            if word == "ready":
                return
            kind, address = rest
            host, _, port = address.rpartition(":")
            setattr(self, kind, (host, int(port)))

    async def ask(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        reader, writer = await asyncio.open_connection(*self.http)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), LIMIT)).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body.decode()

    async def health(self) -> dict[str, Any]:
        """What /readyz says."""
        return dict(json.loads((await self.ask("/readyz"))[1]))

    async def generation(self) -> int:
        """Which generation answers a new connection."""
        reader, writer = await asyncio.open_connection(*self.smtp)
        answer = await asyncio.wait_for(reader.read(), LIMIT)
        writer.close()
        return int(answer)

    def lives(self) -> list[int]:
        """The generation of every worker that was ever started."""
        return [int(line) for line in (self.directory / "lives").read_text().split()]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that must happen."""
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110 -- it happens in other processes
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(run: Run, patience: Patience = PATIENT) -> AsyncIterator[None]:
    """Start, and stop in order at the end."""
    run.start(patience)
    await run.until_ready()
    try:
        yield
    finally:
        if not run.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(run.task, LIMIT)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in a directory of its own."""
    return Run(tmp_path)


def test_two_workers_serve_and_leave(run: Run) -> None:
    """All workers serve the port that was said; SIGTERM ends them and the run, and lets the port go (D21)."""

    async def story() -> None:
        async with running(run):
            assert (await run.ask("/livez"))[0] == 200
            assert await run.health() == {
                "ready": True,
                "reasons": [],
                "notices": [],
                "workers": {"wanted": 2, "ready": 2},
            }
            assert {await run.generation() for _ in range(8)} == {1}
        with pytest.raises(ConnectionRefusedError):
            await run.generation()

    asyncio.run(story())


def test_a_worker_that_dies_is_replaced(run: Run) -> None:
    """The other goes on, connections of the dead one wait for its successor, and the restart is counted."""
    run.plan["first"] = "die"

    async def story() -> None:
        async with running(run):
            assert [await run.generation() for _ in range(8)] == [1] * 8
            await until(lambda: _has_lived(run, 3))
            await until(lambda: _is_ready(run))
            status, page = await run.ask("/metrics")
            assert status == 200
            assert "consentry_worker_restarts_total 1.0" in page
            assert "consentry_workers_ready 2.0" in page
        assert run.lives() == [1, 1, 1]

    asyncio.run(story())


def test_a_worker_that_hangs_is_replaced(run: Run) -> None:
    """A worker that says nothing for too long is killed and started again."""
    run.plan["first"] = "hang"

    async def story() -> None:
        async with running(run, Patience(start=LIMIT, silence=3.0)):
            await until(lambda: _has_lived(run, 3))
            await until(lambda: _is_ready(run))

    asyncio.run(story())


def test_reasons_come_through(run: Run) -> None:
    """What a worker lacks makes the whole not ready, and /readyz says what it is (I1)."""
    run.plan["reasons"] = ["hold_no_room"]

    async def story() -> None:
        async with running(run):
            await until(lambda: _is_unready(run))
            status, body = await run.ask("/readyz")
            assert status == 503
            assert json.loads(body)["reasons"] == ["hold_no_room"]
            assert 'consentry_not_ready{reason="hold_no_room"} 1.0' in (await run.ask("/metrics"))[1]

    asyncio.run(story())


def test_a_start_that_fails_ends_the_run(run: Run) -> None:
    """If a worker cannot start in the beginning, nothing runs, and its reason is the run's."""
    run.plan["fail"] = "held.sqlite: damaged"

    async def story() -> None:
        run.start(PATIENT)
        with pytest.raises(WorkerError, match=r"held\.sqlite: damaged"):
            await asyncio.wait_for(run.task, LIMIT)

    asyncio.run(story())


def test_a_reload_replaces_the_workers(run: Run) -> None:
    """After SIGHUP a new generation serves the same port, and connections never find it closed (I4)."""

    async def story() -> None:
        async with running(run):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _all_answer(run, 2))
            assert (await run.health())["workers"] == {"wanted": 2, "ready": 2}
            assert 'consentry_reloads_total{outcome="done"} 1.0' in (await run.ask("/metrics"))[1]

    asyncio.run(story())


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reload_changes_the_number_of_workers(run: Run, workers: int) -> None:
    """With fewer or more workers every connection to the port is still answered (I4)."""

    async def story() -> None:
        async with running(run):
            run.workers = workers
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _all_answer(run, 2))
            assert (await run.health())["workers"] == {"wanted": workers, "ready": workers}
            assert [await run.generation() for _ in range(20)] == [2] * 20

    asyncio.run(story())


@pytest.mark.parametrize("obstacle", ["problem", "fail", "store"])
def test_a_bad_reload_changes_nothing(run: Run, obstacle: str) -> None:
    """A bad configuration, workers that cannot start with it, another store: the old generation stays (I4)."""

    async def story() -> None:
        async with running(run):
            if obstacle == "problem":
                run.problem = "filter.toml cannot be used"
            elif obstacle == "fail":
                run.plan["fail"] = "no"
            else:
                run.settings = "store.dir = 'elsewhere'\n"
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _refused(run))
            assert {await run.generation() for _ in range(8)} == {1}
            assert (await run.health())["ready"]

    asyncio.run(story())


def test_a_second_signal_hurries(run: Run) -> None:
    """Workers that do not drain are ended by a second SIGTERM."""
    run.plan["stubborn"] = True

    async def story() -> None:
        async with running(run):
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: _is_unready(run))
            assert "draining" in (await run.health())["reasons"]
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(run.task, LIMIT)

    asyncio.run(story())


async def _is_ready(run: Run) -> bool:
    return bool((await run.health())["ready"])


async def _is_unready(run: Run) -> bool:
    return not (await run.health())["ready"]


async def _has_lived(run: Run, count: int) -> bool:
    return len(run.lives()) >= count


async def _all_answer(run: Run, generation: int) -> bool:
    """Whether the generations before it have left."""
    return {await run.generation() for _ in range(8)} == {generation}


async def _refused(run: Run) -> bool:
    return 'consentry_reloads_total{outcome="refused"} 1.0' in (await run.ask("/metrics"))[1]


FOLLOWING = "[kafka]\nbootstrap_servers = ['127.0.0.1:9']\ntopic = ''\n"


def test_the_follower_is_one_more_process_and_speaks_for_the_consent_data(run: Run) -> None:
    """With a consent topic there is one process more; what it says counts, and it outlives reloads that leave it be."""

    async def story() -> None:
        run.settings = FOLLOWING
        run.plan["reasons"] = ["consent_loading"]
        async with running(run):
            assert run.lives() == [0, 1, 1]
            run.plan["reasons"] = []
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _all_answer(run, 2))
            health = await run.health()
            assert health["reasons"] == ["consent_loading"]
            assert health["workers"] == {"wanted": 2, "ready": 2}
            run.settings = ""
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: _all_answer(run, 3))
            assert (await run.health())["ready"]
            assert run.lives() == [0, 1, 1, 2, 2, 3, 3]

    asyncio.run(story())


def test_a_follower_that_cannot_start_keeps_the_program_from_starting(run: Run) -> None:
    """Where consent data would never be read, nobody runs, and the reason is told."""

    async def story() -> None:
        run.settings = FOLLOWING
        run.plan["fail"] = "no such index"
        run.start(PATIENT)
        with pytest.raises(WorkerError, match="no such index"):
            await asyncio.wait_for(run.task, LIMIT)
        assert set(run.lives()) == {0}

    asyncio.run(story())

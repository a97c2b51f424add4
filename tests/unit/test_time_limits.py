"""A time limit ends what is late as `asyncio.timeout_at` does, and lets alone what is not."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from filter.time_limits import TimeLimits

SOON = 0.02  # seconds
NEVER = 3600.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine, within ten seconds."""

    def running(task: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(task, 10))

    return running


async def limited(limits: TimeLimits, seconds: float, work: Awaitable[object]) -> str:
    """How it ended."""
    try:
        with limits.until(asyncio.get_running_loop().time() + seconds):
            await work
    except TimeoutError:
        return "late"
    except asyncio.CancelledError:
        return "cancelled"
    return "done"


def test_what_is_late_is_ended(run: Callable) -> None:
    """Each block has its own deadline, whatever the order they are entered in; what is done in time is not touched."""
    limits = TimeLimits()

    async def all_at_once() -> list[str]:
        return await asyncio.gather(
            limited(limits, NEVER, asyncio.sleep(3 * SOON)),
            limited(limits, 2 * SOON, asyncio.sleep(NEVER)),
            limited(limits, NEVER, asyncio.sleep(0)),
            limited(limits, SOON, asyncio.sleep(NEVER)),
            limited(limits, 3 * SOON, asyncio.sleep(NEVER)),
        )

    assert run(all_at_once()) == ["done", "late", "done", "late", "late"]


def test_one_after_the_other(run: Callable) -> None:
    """A limit that was kept leaves nothing behind that would end what comes later; loops may follow each other."""
    limits = TimeLimits()

    async def in_turn() -> list[str]:
        kept = [await limited(limits, SOON, asyncio.sleep(0)) for _ in range(3)]
        await asyncio.sleep(2 * SOON)
        return [*kept, await limited(limits, SOON, asyncio.sleep(NEVER))]

    for _ in range(2):
        assert run(in_turn()) == ["done", "done", "done", "late"]


def test_a_deadline_that_has_passed(run: Callable) -> None:
    """It ends the block as soon as that waits."""
    assert run(limited(TimeLimits(), -1.0, asyncio.sleep(NEVER))) == "late"


def test_who_is_cancelled_hears_that(run: Callable) -> None:
    """Being cancelled by somebody else is no timeout, also when both happen at once."""
    limits = TimeLimits()

    async def cancelled(seconds: float) -> str:
        task = asyncio.create_task(limited(limits, seconds, asyncio.sleep(NEVER)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert run(cancelled(NEVER)) == "cancelled"
    assert run(cancelled(-1.0)) in ("cancelled", "late")


def test_limits_within_limits(run: Callable) -> None:
    """The inner one ends the inner block only; the outer one ends both."""
    limits = TimeLimits()

    async def nested(outer: float, inner: float) -> list[str]:
        ended: list[str] = []

        async def within() -> None:
            ended.append(await limited(limits, inner, asyncio.sleep(NEVER)))

        return [await limited(limits, outer, within()), *ended]

    assert run(nested(NEVER, SOON)) == ["done", "late"]


def test_other_errors_pass(run: Callable) -> None:
    """What the block raises itself is not changed."""

    async def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        run(limited(TimeLimits(), NEVER, fail()))

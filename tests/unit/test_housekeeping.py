"""Housekeeping: one process at a time does it, a failure is told and tried again, and it ends when it is told to."""

import asyncio
from pathlib import Path

import pytest

from filter import housekeeping
from filter.housekeeping import Chore, Housekeeper, Service, Turn


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds."""
    monkeypatch.setattr(housekeeping, "LOOK_EVERY", 0.001)


class Reported(list[str]):
    """Where faults were."""

    def __call__(self, where: str, error: Exception) -> None:
        """Note one."""
        self.append(f"{where}: {error}")


class Work:
    """A chore that counts, and fails the first times."""

    def __init__(self, *, failures: int = 0) -> None:
        self.done = 0
        self.failures = failures
        self.enough = asyncio.Event()

    async def __call__(self) -> None:
        """Do it."""
        self.done += 1
        if self.done > self.failures + 2:
            self.enough.set()
        if self.done <= self.failures:
            raise OSError("no")


def test_a_turn_is_one_holders_at_a_time(tmp_path: Path) -> None:
    """A second one gets it when the first gives it up; asking again keeps it."""
    first, second = Turn(tmp_path / "locks" / "turn"), Turn(tmp_path / "locks" / "turn")
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    first.give_up()
    assert [second.take(), first.take()] == [True, False]
    second.give_up()


def test_chores_are_repeated_whatever_fails(tmp_path: Path) -> None:
    """A failure is reported under the name of the chore, which is done again; another one is not touched by it."""
    reported = Reported()

    async def keep() -> tuple[int, int]:
        bad, good = Work(failures=2), Work()
        chores = [Chore("bad", 0.001, bad), Chore("good", 0.001, good)]
        keeper = Housekeeper(Turn(tmp_path / "turn"), chores, [], reported)
        keeper.start()
        await asyncio.gather(bad.enough.wait(), good.enough.wait())
        await keeper.stop()
        return bad.done, good.done

    bad, good = asyncio.run(keep())
    assert min(bad, good) > 2
    assert reported == ["bad: no", "bad: no"]


def test_whoever_has_not_the_turn_waits_for_it(tmp_path: Path) -> None:
    """The second process does nothing until the first ends, and then takes over."""

    async def keep() -> list[int]:
        first, second = Work(), Work()
        keepers = [
            Housekeeper(Turn(tmp_path / "turn"), [Chore("one", 0.001, work)], [], Reported())
            for work in (first, second)
        ]
        keepers[0].start()
        await first.enough.wait()
        keepers[1].start()
        for _ in range(20):
            await asyncio.sleep(0)
        before = second.done
        await keepers[0].stop()
        done = first.done
        await second.enough.wait()
        await keepers[1].stop()
        return [before, first.done - done]

    assert asyncio.run(keep()) == [0, 0]


def test_a_service_is_told_to_stop_and_waited_for(tmp_path: Path) -> None:
    """What it is doing comes to its end."""

    async def keep() -> list[str]:
        told: list[str] = []
        begun, ending = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            begun.set()
            await ending.wait()
            told.append("ended")

        keeper = Housekeeper(Turn(tmp_path / "turn"), [], [Service("one", serve, ending.set)], Reported())
        keeper.start()
        await begun.wait()
        await keeper.stop()
        return told

    assert asyncio.run(keep()) == ["ended"]


def test_what_does_not_end_is_not_waited_for(tmp_path: Path) -> None:
    """A chore that hangs is cancelled, and the turn is free."""

    async def keep() -> bool:
        begun = asyncio.Event()

        async def hang() -> None:
            begun.set()
            await asyncio.Event().wait()

        keeper = Housekeeper(Turn(tmp_path / "turn"), [Chore("hang", 1.0, hang)], [], Reported())
        keeper.start()
        await begun.wait()
        await keeper.stop(0.001)
        return Turn(tmp_path / "turn").take()

    assert asyncio.run(keep())


def test_a_keeper_that_never_had_its_turn_stops(tmp_path: Path) -> None:
    """A lock that cannot be made is reported, and nothing is done."""
    (tmp_path / "file").touch()
    reported = Reported()

    async def keep() -> int:
        work = Work()
        keeper = Housekeeper(Turn(tmp_path / "file" / "turn"), [Chore("one", 1.0, work)], [], reported)
        keeper.start()
        await asyncio.sleep(0)
        await keeper.stop()
        return work.done

    assert asyncio.run(keep()) == 0
    assert reported
    assert reported[0].startswith("housekeeping: ")

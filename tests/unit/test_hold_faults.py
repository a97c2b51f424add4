"""The hold store on a disk that fails: what was confirmed is there, what was refused is not, whatever call fails."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest
from support.faulty_disk import Fault, FaultyDisk
from support.held import NOW, VAULT, held_copy, held_message

from filter import hold_writer
from filter.held import CopyState
from filter.hold_codec import HoldDataError
from filter.hold_store import HoldStore
from filter.policy import Disposition
from filter.ports import HoldUnavailableError

KEYS = [bytes([number]) * 16 for number in range(4)]
MOST_CALLS = 400


class Ledger:
    """What the callers of a store were told, until the disk died."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self.messages = {}
        self.failed = ""
        self.struck = False  # while the store was used
        self.done = {}  # what was asked for -> True: returned, False: refused, None: nobody can know

    async def ask(self, name, awaitable) -> None:
        """Await, and note the outcome under this name."""
        self.done[name] = None
        if self._disk.dead:
            awaitable.close()
            return
        try:
            await awaitable
        except HoldUnavailableError:
            self.done[name] = None if self._disk.dead else False
        else:
            self.done[name] = True

    async def store(self, held: HoldStore, message) -> None:
        """Store a message."""
        self.messages[message.queue_id] = message
        await self.ask(("store", message.queue_id), held.store(message))


async def _use(held: HoldStore, ledger: Ledger) -> None:
    """All that is done to a store, alone and at the same time, with enough of it to empty the log more than once."""
    await ledger.store(held, held_message("alone"))
    several = [held_message(f"several{number}", octets=200 + 5000 * number) for number in range(4)]
    await asyncio.gather(*(ledger.store(held, message) for message in several))
    await ledger.ask(("void", "several1"), held.void("several1"))
    divert = held_message("divert", held_copy(1, Disposition.DIVERT), held_copy(2))
    await ledger.store(held, divert)
    await ledger.ask(("diverted", "divert"), held.diverted("divert", [0]))
    await asyncio.gather(
        ledger.ask(("settle", KEYS[0]), held.settle(KEYS[0], NOW)),
        ledger.ask(("settle", KEYS[1]), held.settle(KEYS[1], NOW)),
        ledger.store(held, held_message("beside", octets=25_000)),
    )
    await ledger.ask(("forget", KEYS[1]), held.forget(KEYS[1]))
    await ledger.ask(("void", "beside"), held.void("beside"))
    await ledger.store(held, held_message("last"))


def _run(directory: Path, disk: FaultyDisk) -> Ledger:
    ledger = Ledger(disk)
    with contextlib.suppress(HoldDataError):
        held = HoldStore(directory, vault=VAULT, clock=lambda: NOW, vfs=disk.name)
        asyncio.run(_use(held, ledger))
        held._queue.close()
        ledger.failed = held.failed
        ledger.struck = disk.struck
        disk.dead |= disk.struck  # a process that has trouble does not get to tidy up when it ends
        held.close()
    return ledger


def _verify(directory: Path, ledger: Ledger) -> None:
    """What a new start finds agrees with all that callers were told."""
    disk = FaultyDisk()
    held = HoldStore(directory, vault=VAULT, vfs=disk.name)
    try:
        assert held.check().sound
        for queue_id, message in ledger.messages.items():
            _verify_message(held, ledger, queue_id, message)
        for key in KEYS:
            settled, forgotten = ledger.done.get(("settle", key), False), ledger.done.get(("forget", key), False)
            if settled is not None and forgotten is not None:
                assert bool(held.known(key)) == (settled and not forgotten)
    finally:
        held.close()


def _verify_message(held: HoldStore, ledger: Ledger, queue_id: str, message) -> None:
    stored, outcome = held.get(queue_id), ledger.done["store", queue_id]
    if outcome is not None:
        assert (stored is not None) == outcome
    if stored is None:
        return
    void, diverted = ledger.done.get(("void", queue_id), False), ledger.done.get(("diverted", queue_id), False)
    states = [record.state for record in stored.records]
    if void is not None:
        assert (CopyState.VOID in states) == void
    if diverted is not None:
        assert (CopyState.DIVERTED in states) == diverted
    if CopyState.VOID in states:
        assert not stored.has_content
    else:
        assert stored.message == message  # whole, whatever happened


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A store that is in use for a while already."""
    directory = tmp_path_factory.mktemp("begun") / "hold"
    held = HoldStore(directory, vault=VAULT)
    asyncio.run(held.store(held_message("early")))
    held.close()
    return directory


@pytest.fixture(autouse=True)
def _short_log(monkeypatch) -> None:
    """Empty the log after a few pages, so that this too happens under every fault."""
    monkeypatch.setattr(hold_writer, "LOG_PAGES", 8)


def _sweep(
    begun: Path, scratch: Path, fault: Fault, *, power_cut: bool = False, first: int = 0, step: int = 1
) -> list[Ledger]:
    """Let every call fail in turn (or every `step`-th), and verify after each run."""
    ledgers = []
    for calls in range(first, MOST_CALLS, step):
        directory = scratch / str(calls)
        shutil.copytree(begun, directory)
        disk = FaultyDisk()
        disk.arm(fault, calls)
        ledger = _run(directory, disk)
        if power_cut:
            disk.power_cut()
        _verify(directory, ledger)
        shutil.rmtree(directory)
        if not disk.struck:
            assert all(ledger.done.values())
            return ledgers
        ledgers.append(ledger)
    raise AssertionError("the sweep did not reach the end of the work")


EVERY = pytest.param(0, 1, marks=pytest.mark.soak)


@pytest.mark.parametrize(("first", "step"), [(0, 3), EVERY])
def test_a_process_that_ends_at_any_call(begun, tmp_path, first, step):
    """Confirmed messages are there and whole, refused ones are not, whichever call was the last (E1)."""
    assert len(_sweep(begun, tmp_path, Fault.DEAD, first=first, step=step)) > 20


@pytest.mark.parametrize(("first", "step"), [(1, 3), EVERY])
def test_a_power_cut_at_any_call(begun, tmp_path, first, step):
    """The same when the disk also forgets everything that was not synced (E3)."""
    assert len(_sweep(begun, tmp_path, Fault.DEAD, power_cut=True, first=first, step=step)) > 20


@pytest.mark.parametrize(
    ("fault", "first", "step"),
    [
        (Fault.IO_ERROR, 0, 3),
        (Fault.FULL, 1, 3),
        (Fault.SHORT_WRITE, 2, 3),
        *(
            pytest.param(fault, 0, 1, marks=pytest.mark.soak)
            for fault in (Fault.IO_ERROR, Fault.FULL, Fault.SHORT_WRITE)
        ),
    ],
)
def test_a_call_that_fails(begun, tmp_path, fault, first, step):
    """A failed write refuses what it was for, and nothing else is lost by it (E2)."""
    ledgers = _sweep(begun, tmp_path, fault, first=first, step=step)
    assert any(False in ledger.done.values() for ledger in ledgers)


def test_a_sync_that_fails(begun, tmp_path):
    """After a failed sync nothing is confirmed any more, and a restart finds nothing that was refused (E5)."""
    for ledger in _sweep(begun, tmp_path, Fault.SYNC_ERROR):
        assert bool(ledger.failed) == ledger.struck
        outcomes = list(ledger.done.values())
        if False in outcomes:
            assert not any(outcomes[outcomes.index(False) :])


def test_a_failed_sync_ends_the_store(tmp_path):
    """The worker is told the reason once, and the store takes nothing more, though the disk would (E5)."""
    disk, told = FaultyDisk(), []
    held = HoldStore(tmp_path, vault=VAULT, vfs=disk.name, on_failed=told.append)
    disk.arm(Fault.SYNC_ERROR, 0)
    for name in ("one", "two"):
        with pytest.raises(HoldUnavailableError, match="could not be synced"):
            asyncio.run(held.store(held_message(name)))
    assert not held.has_room(0)
    assert told == [held.failed]
    assert str(tmp_path) in held.failed
    held.close()


def test_a_sync_that_fails_between_commits_ends_the_store(tmp_path):
    """A sync that fails while the log is emptied is noticed, though nobody waits for it (E5)."""
    disk = FaultyDisk()
    held = HoldStore(tmp_path, vault=VAULT, vfs=disk.name)
    disk.arm(Fault.SYNC_ERROR, 2)  # the first two are those of a new log and of the commit
    asyncio.run(held.store(held_message("one", octets=200_000)))
    held.close()
    assert "could not be synced" in held.failed


def test_a_full_disk_is_used_again_when_there_is_space(tmp_path):
    """A full disk refuses mail and keeps what is there; without a restart it takes mail when space is back (E6)."""
    disk = FaultyDisk()
    held = HoldStore(tmp_path, vault=VAULT, min_free_space=0, vfs=disk.name)
    asyncio.run(held.store(held_message("before")))
    disk.capacity = 20_000
    with pytest.raises(HoldUnavailableError, match="FullError"):
        asyncio.run(held.store(held_message("refused", octets=50_000)))
    assert not held.has_room(0)
    disk.capacity = None
    asyncio.run(held.store(held_message("after", octets=50_000)))
    assert held.get("before").message == held_message("before")
    assert held.get("refused") is None
    assert held.get("after").message == held_message("after", octets=50_000)
    held._blocked_until = 0.0  # a second later
    assert held.has_room(0)
    held.close()


def test_one_bad_message_does_not_fail_the_others(tmp_path):
    """Messages that are written together are refused one by one: here a queue id that is there already."""
    held = HoldStore(tmp_path, vault=VAULT)

    async def run() -> list[object]:
        return await asyncio.gather(
            *(held.store(held_message(name)) for name in ("one", "two", "one", "three")), return_exceptions=True
        )

    outcomes = asyncio.run(run())
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), HoldUnavailableError, type(None)]
    assert sum(held.check().copies.values()) == 3
    held.close()


def test_a_file_that_was_removed_is_not_written_to(tmp_path):
    """Mail is not confirmed into a file that has no name any more."""
    held = HoldStore(tmp_path, vault=VAULT)
    (tmp_path / "held.sqlite").unlink()
    with pytest.raises(HoldUnavailableError, match="removed or replaced"):
        asyncio.run(held.diverted("one", [0]))
    assert held.failed
    held.close()
    with pytest.raises(HoldDataError, match="gone, though it was made before"):
        HoldStore(tmp_path, vault=VAULT)

"""Review on a disk that fails: whatever call fails, each copy is in one state, and none is lost or half moved."""

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from support.faulty_disk import Fault, FaultyDisk
from support.held import NOW, VAULT, held_copy, held_message

from filter import hold_writer
from filter.held import OPEN, Action, CopyState, HeldQuery, Order, Outcome, Place
from filter.hold_codec import HoldDataError
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.ports import HeldMessage, HoldUnavailableError
from filter.sealing import Vault

MOST_CALLS = 400
RELEASE = Order("release", Action.RELEASE, NOW, "jane", "asked for")
DISCARD = Order("discard", Action.DISCARD, NOW, "jane", "an offer")
PENDING, HELD, RELEASED = CopyState.PENDING, CopyState.HELD, CopyState.RELEASED
DELIVERED, DISCARDED = CopyState.DELIVERED, CopyState.DISCARDED
GONE = "gone"
NEWER = Vault.of([bytes([7]) * 32, bytes(range(32))])

MESSAGES = {
    message.queue_id: message
    for message in (
        *(held_message(f"m{number}", held_copy(number), held_copy(10 + number), octets=900) for number in range(4)),
        dataclasses.replace(held_message("pending", held_copy(5)), pending=True),
        held_message("erased", held_copy(6), octets=9000),
        held_message("person", held_copy(7), held_copy(8)),
        held_message("alone", held_copy(7)),
    )
}
Copy = tuple[str, int]
Answer = TypeVar("Answer")


class Ledger:
    """What became of each copy, as far as those were told who moved it."""

    def __init__(self, disk: FaultyDisk, review: HeldReview) -> None:
        self._disk = disk
        self.review = review
        self.may_be: dict[Copy, set[str]] = {
            (queue_id, number): {PENDING if message.pending else HELD}
            for queue_id, message in MESSAGES.items()
            for number in range(len(message.copies))
        }
        self.refused = 0

    def ask(self, act: Callable[[], Answer], to: str, copies: Sequence[Copy], was: str) -> Answer | None:
        """Do it, and note what may have become of these copies if they were in that state."""
        answer, done = None, None
        if self._disk.dead:
            return None
        with contextlib.suppress(HoldUnavailableError):
            answer, done = act(), True
        if done is None and not self._disk.dead:
            self.refused += 1
            return None
        for copy in copies:
            may_be = self.may_be[copy]
            moved = {to if was in (state, GONE) else state for state in may_be}
            self.may_be[copy] = moved if done else may_be | moved
        return answer


def _places(review: HeldReview) -> dict[Copy, Place]:
    with contextlib.suppress(HoldUnavailableError):
        lines = review.lines(HeldQuery(states=frozenset()))
        return {(line.queue_id, line.place.number): line.place for line in lines}
    return {}


def _use(review: HeldReview, ledger: Ledger) -> None:
    """All that is done in review: released, delivered, held again, discarded, confirmed, erased, pruned."""
    places = _places(review)
    if len(places) < len(ledger.may_be):
        return
    released = [("m0", 0), ("m0", 1), ("m1", 0), ("m2", 1)]
    discarded = [("m1", 1), ("m3", 0), ("m3", 1)]
    ledger.ask(lambda: review.order(RELEASE), HELD, [], HELD)
    ledger.ask(lambda: review.move([places[c] for c in released], RELEASED, RELEASE, NOW), RELEASED, released, HELD)
    ledger.ask(lambda: review.move([places[c] for c in discarded], DISCARDED, DISCARD, NOW), DISCARDED, discarded, HELD)
    claims = ledger.ask(lambda: review.claim(NOW, NOW + 10, 9), RELEASED, [], RELEASED) or ()
    claimed = [(one.message.queue_id, number) for one in claims for number in one.numbers]
    for state, copies in ((DELIVERED, claimed[:2]), (RELEASED, claimed[2:3]), (HELD, claimed[3:])):
        outcomes = [Outcome(places[copy], state, NOW + 50, "as told") for copy in copies]
        ledger.ask(lambda outcomes=outcomes: review.finish(outcomes, NOW + 5), state, copies, RELEASED)
    ledger.ask(lambda: review.confirm_pending(NOW + 1, NOW + 6), HELD, [("pending", 0)], PENDING)
    ledger.ask(lambda: review.erase_message("erased"), GONE, [("erased", 0)], GONE)
    ledger.ask(lambda: review.erase_subjects([f"{7:032x}"]), GONE, [("person", 0), ("alone", 0)], GONE)
    ledger.ask(lambda: review.rewrap(3), HELD, [], HELD)
    ledger.ask(lambda: review.prune_ended(NOW + 1), GONE, [("m3", 0), ("m3", 1)], DISCARDED)
    ledger.ask(lambda: review.prune_orders(NOW + 1), HELD, [], HELD)


def _run(directory: Path, disk: FaultyDisk) -> Ledger | None:
    ledger = None
    with contextlib.suppress(HoldDataError):
        review = HeldReview(directory, NEWER, clock=lambda: NOW, vfs=disk.name)
        ledger = Ledger(disk, review)
        _use(review, ledger)
        disk.dead |= disk.struck  # a process that has trouble does not get to tidy up when it ends
        review.close()
    return ledger


def _verify(directory: Path, ledger: Ledger | None) -> None:
    """What a new start finds agrees with all that was told, and is whole."""
    held = HoldStore(directory, vault=NEWER)
    try:
        findings = held.check()
        assert findings.sound, findings
        for copy, may_be in (ledger.may_be if ledger else {}).items():
            assert _state(held, *copy) in may_be, copy
        for queue_id, message in MESSAGES.items():
            _verify_content(held, queue_id, message)
    finally:
        held.close()


def _state(held: HoldStore, queue_id: str, number: int) -> str:
    stored = held.get(queue_id)
    subject = MESSAGES[queue_id].copies[number].subject_key
    found = zip(stored.message.copies, stored.records, strict=True) if stored else ()
    return next((record.state for copy, record in found if copy.subject_key == subject), GONE)


def _verify_content(held: HoldStore, queue_id: str, message: HeldMessage) -> None:
    """As long as somebody may get it, it is there to the octet."""
    stored = held.get(queue_id)
    if stored and any(record.state in OPEN for record in stored.records):
        assert stored.message.content == message.content
        assert set(stored.message.copies) <= set(message.copies)
    elif stored:
        assert not stored.has_content


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with held mail."""
    directory = tmp_path_factory.mktemp("begun") / "hold"
    held = HoldStore(directory, vault=VAULT)

    async def run() -> None:
        for message in MESSAGES.values():
            await held.store(message)

    asyncio.run(run())
    held.close()
    return directory


@pytest.fixture(autouse=True)
def _short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the log after a few pages, so that this too happens under every fault."""
    monkeypatch.setattr(hold_writer, "LOG_PAGES", 16)


def _sweep(begun: Path, scratch: Path, fault: Fault, first: int, step: int, *, power_cut: bool = False) -> int:
    """Let every `step`-th call fail in turn, and verify after each run; how many calls were refused."""
    refused = 0
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
            assert ledger
            assert not ledger.refused
            assert all(len(may_be) == 1 for may_be in ledger.may_be.values())
            return refused
        refused += ledger.refused if ledger else 1
    raise AssertionError("the sweep did not reach the end of the work")


EVERY = pytest.param(0, 1, marks=pytest.mark.soak)


@pytest.mark.parametrize(("first", "step"), [(0, 3), EVERY])
def test_a_process_that_ends_at_any_call(begun, tmp_path, first, step):
    """What was told is there, and what was not told is whole or undone, whichever call was the last (E1)."""
    _sweep(begun, tmp_path, Fault.DEAD, first, step)


@pytest.mark.parametrize(("first", "step"), [(1, 3), EVERY])
def test_a_power_cut_at_any_call(begun, tmp_path, first, step):
    """The same when the disk also forgets everything that was not synced (E3)."""
    _sweep(begun, tmp_path, Fault.DEAD, first, step, power_cut=True)


@pytest.mark.parametrize(
    ("fault", "first", "step"),
    [
        (Fault.IO_ERROR, 0, 4),
        (Fault.FULL, 1, 4),
        (Fault.SHORT_WRITE, 2, 4),
        *(
            pytest.param(fault, 0, 1, marks=pytest.mark.soak)
            for fault in (Fault.IO_ERROR, Fault.FULL, Fault.SHORT_WRITE)
        ),
    ],
)
def test_a_call_that_fails(begun, tmp_path, fault, first, step):
    """What fails is refused whole, and what comes after it is done (E2)."""
    assert _sweep(begun, tmp_path, fault, first, step)


def test_a_sync_that_fails(begun, tmp_path):
    """After a failed sync nothing is told to be done any more, and a restart finds nothing that was refused (E5)."""
    assert _sweep(begun, tmp_path, Fault.SYNC_ERROR, 0, 1)


def test_a_file_that_was_removed_is_not_written_to(begun, tmp_path):
    """Nothing is moved in a file that has no name any more."""
    shutil.copytree(begun, tmp_path / "hold")
    review = HeldReview(tmp_path / "hold", VAULT)
    places = list(_places(review).values())
    (tmp_path / "hold" / "held.sqlite").unlink()
    with pytest.raises(HoldUnavailableError, match="gone, though it was made before"):
        review.move(places, DISCARDED, DISCARD, NOW)
    shutil.copy(begun / "held.sqlite", tmp_path / "hold")
    with pytest.raises(HoldUnavailableError, match="removed or replaced"):
        review.move(places, DISCARDED, DISCARD, NOW)
    review.close()

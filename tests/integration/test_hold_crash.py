"""Processes that write held mail are killed at random moments: what they confirmed is there, whole."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.held import VAULT, held_message

from filter.flights import recovered
from filter.held import OPEN, CopyState
from filter.hold_store import HoldStore
from filter.ports import Stage

TESTS = Path(__file__).parents[1]
WORKERS = 2
SIZES = (300, 3000, 12_000, 40_000)
Process = subprocess.Popen[bytes]

# Confirms on standard output, line by line, what a caller was told. Every fourth message is voided again.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from filter.flights import Flights
from filter.hold_store import HoldStore
from filter.ports import Stage
from support.held import VAULT, held_message
directory, name, sizes = Path(sys.argv[1]), sys.argv[2], [int(size) for size in sys.argv[3:]]
held = HoldStore(directory / "hold", vault=VAULT)
flights = Flights(directory / "flights", 0, slots=64)
os.write(1, b"ready\\n")
async def send(sender):
    for number in range(100_000):
        queue_id = f"{name}.{sender}.{number}"
        flight = flights.begin(queue_id, bytes(16))
        flight.reach(Stage.STORING)
        os.write(1, f"begun {queue_id}\\n".encode())
        await held.store(held_message(queue_id, octets=sizes[number % len(sizes)]))
        os.write(1, f"stored {queue_id}\\n".encode())
        if number % 4 == 3:
            await held.void(queue_id)
            os.write(1, f"void {queue_id}\\n".encode())
        flight.land()
async def main():
    await asyncio.gather(*(send(sender) for sender in range(8)))
asyncio.run(main())
"""


# Releases, discards and delivers what is held, and tells what it was told: the copies and what they are now.
REVIEWER = """
import os, random, sys
from pathlib import Path
from filter.held import Action, CopyState, HeldQuery, Order, Outcome
from filter.hold_review import HeldReview
from support.held import NOW, VAULT
directory, name = Path(sys.argv[1]), sys.argv[2]
review, chooser = HeldReview(directory / "hold", VAULT), random.Random(name)
os.write(1, b"ready\\n")
def tell(what, copies):
    for queue_id, number in copies:
        os.write(1, f"{what} {queue_id}/{number}\\n".encode())
for turn in range(100_000):
    order = Order(f"{name}.{turn}", Action.RELEASE, NOW, name, "turn")
    review.order(order)
    lines = review.lines(HeldQuery(received_from=chooser.choice([0, NOW])), None, 30)
    named = {line.place: (line.queue_id, line.place.number) for line in chooser.sample(lines, len(lines) // 2)}
    to = chooser.choice([CopyState.RELEASED, CopyState.RELEASED, CopyState.DISCARDED])
    tell(to, (named[place] for place in review.move(list(named), to, order, NOW)))
    claims = review.claim(NOW, NOW + 1, 10)  # the lease is over when another looks, so that nothing waits for ever
    copies = {place: (claim.message.queue_id, place.number) for claim in claims for place in claim.places}
    tell("attempt", copies.values())
    review.finish([Outcome(place, CopyState.DELIVERED) for place in copies], NOW)
    tell("delivered", copies.values())
"""


@contextmanager
def _writers(directory: Path, turn: int, programs: Sequence[str] = (WRITER,) * WORKERS) -> Iterator[list[Process]]:
    """Processes that write, until the block ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(directory), f"{turn}.{number}", *map(str, SIZES)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for number, program in enumerate(programs)
    ]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def _told(output: bytes) -> dict[str, set[str]]:
    """Queue ids by what was said of them; a last line that was cut says nothing."""
    told: dict[str, set[str]] = {"begun": set(), "stored": set(), "void": set()}
    for line in output.split(b"\n")[:-1]:
        what, _, queue_id = line.decode().partition(" ")
        told.setdefault(what, set()).add(queue_id)
    return told


def _octets(queue_id: str) -> int:
    return SIZES[int(queue_id.rpartition(".")[2]) % len(SIZES)]


def _verify(directory: Path, told: dict[str, set[str]]) -> int:
    """Everything confirmed is there and whole; what was not confirmed is found by its flight. How many were stored."""
    with recovered(directory / "flights") as found:
        left = {one.queue_id for one in found.left}
        assert not found.damaged
        assert {one.stage for one in found.left} <= {Stage.JUDGING, Stage.STORING}
    assert told["begun"] - told["stored"] <= left
    held = HoldStore(directory / "hold", vault=VAULT)
    try:
        for queue_id in told["begun"]:
            stored = held.get(queue_id)
            if queue_id not in told["stored"]:
                continue
            states = {record.state for record in stored.records}
            if queue_id in told["void"]:
                assert states == {CopyState.VOID}
            elif states == {CopyState.HELD}:
                assert stored.message == held_message(queue_id, octets=_octets(queue_id))
            else:
                assert queue_id in left  # being voided when the process was killed
        return len(told["stored"])
    finally:
        held.close()


def _rounds(directory: Path, rounds: int, chooser: random.Random) -> None:
    stored = 0
    for turn in range(rounds):
        told: dict[str, set[str]] = {"begun": set(), "stored": set(), "void": set()}
        with _writers(directory, turn) as writers:
            for writer in writers:
                assert writer.stdout.readline() == b"ready\n"
            for writer in writers:
                time.sleep(chooser.uniform(0.0, 0.15))  # that the moment is any moment is the point
                writer.send_signal(signal.SIGKILL)
            for writer in writers:
                for what, queue_ids in _told(writer.stdout.read()).items():
                    told[what] |= queue_ids
        stored += _verify(directory, told)
    assert stored
    held = HoldStore(directory / "hold", vault=VAULT)
    assert held.check().sound
    held.close()


@pytest.mark.integration
def test_writers_that_are_killed(tmp_path):
    """Two processes write and are killed in the middle of it, ten times over: nothing confirmed is missing (E4)."""
    _rounds(tmp_path, 10, random.Random(1))


@pytest.mark.integration
@pytest.mark.soak
def test_writers_that_are_killed_often(tmp_path):
    """The same 200 times (E4)."""
    _rounds(tmp_path, 200, random.Random(2))


def _review_rounds(directory: Path, rounds: int, chooser: random.Random) -> None:
    """Store, review and kill, and compare what is there with what was told."""
    stored: set[str] = set()
    moved: dict[str, set[str]] = {}
    for turn in range(rounds):
        with _writers(directory, turn, (WRITER, REVIEWER, REVIEWER)) as processes:
            for process in processes:
                assert process.stdout.readline() == b"ready\n"
            # The rounds begin with something to lose.
            early = b"" if moved else b"".join(_until_delivered(processes[-1]))
            for process in processes:
                time.sleep(chooser.uniform(0.05, 0.2))  # that the moment is any moment is the point
                process.send_signal(signal.SIGKILL)
            told = [process.stdout.read() for process in processes]
            for output in (*told[:-1], early + told[-1]):
                for what, those in _told(output).items():
                    if what in ("begun", "stored", "void"):
                        stored |= those if what == "stored" else set()
                    else:
                        moved.setdefault(what, set()).update(those)
    _compare(directory, stored, moved)


def _until_delivered(reviewer: Process) -> Iterator[bytes]:
    """What a reviewer tells until something was delivered, however slow the machine is."""
    for line in reviewer.stdout:
        yield line
        if line.startswith(b"delivered"):
            return


def _compare(directory: Path, stored: set[str], moved: dict[str, set[str]]) -> None:
    held = HoldStore(directory / "hold", vault=VAULT)
    try:
        findings = held.check()
        assert findings.sound, findings
        assert not moved["delivered"] & moved["discarded"]
        assert moved["delivered"]
        for queue_id in stored:
            found = held.get(queue_id)
            (state,) = [record.state for record in found.records]
            copy = f"{queue_id}/0"
            if copy in moved["delivered"]:
                assert state is CopyState.DELIVERED
            elif copy in moved["discarded"]:
                assert state is CopyState.DISCARDED
            elif copy in moved["released"]:
                assert state in (CopyState.RELEASED, CopyState.DELIVERED)
            if state in OPEN:
                assert found.message == held_message(queue_id, octets=_octets(queue_id))
    finally:
        held.close()


@pytest.mark.integration
def test_reviewers_that_are_killed(tmp_path):
    """A process that stores and two that release are killed, five times over: every copy is where it was told (E4)."""
    _review_rounds(tmp_path, 5, random.Random(3))


@pytest.mark.integration
@pytest.mark.soak
def test_reviewers_that_are_killed_often(tmp_path):
    """The same 100 times (E4)."""
    _review_rounds(tmp_path, 100, random.Random(4))

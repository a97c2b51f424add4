"""Messages in flight: what a successor finds after its predecessor ended, however that happened."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.flights import Flights, FlightsFullError, Left, recovered
from filter.ports import Stage

KEY = bytes(range(16))
BOOT = "4b4b0f5e-0000-4000-8000-000000000001"
NEXT_BOOT = "4b4b0f5e-0000-4000-8000-000000000002"
NOW = 1_790_000_000_000

CHILD = """
import os, signal, sys
from pathlib import Path
from filter.flights import Flights
from filter.ports import Stage
flights = Flights(Path(sys.argv[1]), 0, slots=8)
flights.begin("judging", b"a" * 16)
flights.begin("sending", b"b" * 16).reach(Stage.SENDING)
landed = flights.begin("landed", b"c" * 16)
landed.reach(Stage.TAKEN)
landed.land()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _flights(directory: Path, slots: int = 4) -> Flights:
    return Flights(directory, 0, slots=slots, clock=lambda: NOW, boot=BOOT)


def _abandon(flights: Flights) -> None:
    """What a killed process leaves: no lock, and the file as it is."""
    fcntl.flock(flights._file, fcntl.LOCK_UN)
    os.close(flights._file)


def _left(directory: Path, boot: str = BOOT) -> tuple[Left, ...]:
    with recovered(directory, boot=boot) as found:
        return found.left


def test_a_killed_worker_leaves_its_messages(tmp_path):
    """After kill -9 a successor finds every message that was in flight with its stage, and no other."""
    ended = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    with recovered(tmp_path) as found:
        assert {(one.queue_id, one.key, one.stage) for one in found.left} == {
            ("judging", b"a" * 16, Stage.JUDGING),
            ("sending", b"b" * 16, Stage.SENDING),
        }
    assert list(tmp_path.iterdir()) == []


def test_a_message_is_told_in_full(tmp_path):
    """Queue id, key, stage and time come back as they were given."""
    flights = _flights(tmp_path)
    flights.begin("q" * 32, KEY).reach(Stage.TAKEN)
    _abandon(flights)
    assert _left(tmp_path) == (Left("q" * 32, KEY, Stage.TAKEN, NOW),)


def test_a_living_worker_is_left_alone(tmp_path):
    """Recovery reads no file of a process that lives: old and new workers run side by side after a reload."""
    old = _flights(tmp_path)
    flight = old.begin("one", KEY)
    new = _flights(tmp_path)
    assert _left(tmp_path) == ()
    flight.land()
    old.close()
    new.close()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_ends_in_order_leaves_no_file(tmp_path):
    """Closing removes the file, but not while a message is in flight."""
    flights = _flights(tmp_path)
    flights.begin("one", KEY)
    flights.close()
    assert [one.queue_id for one in _left(tmp_path)] == ["one"]


def test_landing_twice_frees_one_slot(tmp_path):
    """A second landing does not touch the message that has the slot now."""
    flights = _flights(tmp_path, slots=1)
    first = flights.begin("first", KEY)
    first.land()
    flights.begin("second", KEY)
    first.land()
    first.reach(Stage.TAKEN)
    assert len(flights) == 1
    _abandon(flights)
    assert [(one.queue_id, one.stage) for one in _left(tmp_path)] == [("second", Stage.JUDGING)]


def test_no_slot_left_is_an_error(tmp_path):
    """More messages than slots are refused in words, and a landing makes room."""
    flights = _flights(tmp_path, slots=2)
    flight = flights.begin("one", KEY)
    flights.begin("two", KEY)
    with pytest.raises(FlightsFullError, match="2 messages are in flight already"):
        flights.begin("three", KEY)
    flight.land()
    flights.begin("three", KEY)


@pytest.mark.parametrize(("queue_id", "key"), [("", KEY), ("q" * 33, KEY), ("q", KEY[:15]), ("q", KEY + b"x")])
def test_what_does_not_fit_is_an_error(tmp_path, queue_id, key):
    """An id or key of the wrong length is refused, not cut."""
    with pytest.raises(ValueError, match="queue id of"):
        _flights(tmp_path).begin(queue_id, key)


def test_a_file_of_an_earlier_boot_is_not_used(tmp_path):
    """After a power cut a file may show any earlier moment: acting on it could undo what was acknowledged."""
    flights = _flights(tmp_path)
    flights.begin("one", KEY).reach(Stage.STORING)
    _abandon(flights)
    with recovered(tmp_path, boot=NEXT_BOOT) as found:
        assert (found.left, found.outdated, found.damaged) == ((), 1, ())
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_recovering_keeps_the_files(tmp_path):
    """Files are removed only when their messages were dealt with; the next successor finds them again."""
    flights = _flights(tmp_path)
    flights.begin("one", KEY)
    _abandon(flights)
    with pytest.raises(OSError, match="disk"), recovered(tmp_path, boot=BOOT):
        raise OSError("disk")
    assert [one.queue_id for one in _left(tmp_path)] == ["one"]
    assert _left(tmp_path) == ()


def test_two_successors_share_no_message(tmp_path):
    """What one successor deals with, another does not see."""
    flights = _flights(tmp_path)
    flights.begin("one", KEY)
    _abandon(flights)
    with recovered(tmp_path, boot=BOOT) as first, recovered(tmp_path, boot=BOOT) as second:
        assert (len(first.left), len(second.left)) == (1, 0)


@pytest.mark.parametrize("content", [b"x", b"CNSTFLT9" + bytes(200), b"CNSTFLT1" + b"\xff" * 56, b"CNSTFLT1" * 32])
def test_a_damaged_file_is_set_aside(tmp_path, content):
    """A file that is not ours is kept under another name and reported, once."""
    (tmp_path / "worker-0-1-00").write_bytes(content)
    with recovered(tmp_path, boot=BOOT) as found:
        assert found.damaged == (tmp_path / "worker-0-1-00.damaged",)
    assert (tmp_path / "worker-0-1-00.damaged").read_bytes() == content
    with recovered(tmp_path, boot=BOOT) as found:
        assert found.damaged == ()


def test_a_file_that_never_reached_the_disk_says_nothing(tmp_path):
    """Empty files and files of zeros are what a power cut leaves of a new file."""
    (tmp_path / "worker-0-1-00").touch()
    (tmp_path / "worker-0-2-00").write_bytes(bytes(640))
    with recovered(tmp_path, boot=BOOT) as found:
        assert (found.left, found.damaged) == ((), ())
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_may_read(tmp_path):
    """Directory and files are private."""
    directory = tmp_path / "flights"
    flights = _flights(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert flights.path.stat().st_mode & 0o777 == 0o600


@given(steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["begin", "land", *Stage])), max_size=60))
def test_the_file_says_what_was_told(tmp_path_factory, steps):
    """Whatever the order of begin, reach and land, a successor finds exactly what is in flight."""
    directory = tmp_path_factory.mktemp("flights")
    flights = _flights(directory, slots=6)
    expected = {}
    flying = {}
    for number, (which, what) in enumerate(steps):
        if what == "begin":
            if which not in flying:
                flying[which] = (f"q{number}", flights.begin(f"q{number}", KEY))
                expected[which] = (f"q{number}", Stage.JUDGING)
        elif which in flying and what == "land":
            flying.pop(which)[1].land()
            del expected[which]
        elif which in flying:
            flying[which][1].reach(what)
            expected[which] = (flying[which][0], what)
    _abandon(flights)
    assert sorted((one.queue_id, one.stage) for one in _left(directory)) == sorted(expected.values())

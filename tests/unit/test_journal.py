"""The journal keeps whole lines, through crashes, full disks and midnight, and never stops the mail."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from filter.events import Event, Line, plain
from filter.journal import FileJournal, read_journal

DAY = 86_400_000
NOON = 20_000 * DAY + DAY // 2  # 2024-10-04
TODAY = "2024-10-04.0.jsonl"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        """Epoch milliseconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Noon."""
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[FileJournal]:
    """An open journal that is synced by hand."""
    opened = FileJournal(tmp_path / "journal", "0", clock)
    yield opened
    opened.close()


def line(queue_id: str) -> Line:
    """An event."""
    return plain(Event.UNACKNOWLEDGED, queue_id, NOON)


def ids(*paths: Path) -> list[str]:
    """The queue ids in some files."""
    return [event["queue_id"] for event in read_journal(paths)]


def test_each_event_is_a_line_that_starts_with_its_queue_id(journal: FileJournal, tmp_path: Path) -> None:
    """Events are JSON lines with the queue id first, then the event, in the file of the worker and the day."""
    journal.write([line("A"), line("B")])
    text = (tmp_path / "journal" / TODAY).read_text().splitlines()
    assert [one.split(":")[:3] for one in text] == [
        ['{"queue_id"', f'"{one}","event"', '"unacknowledged","at"'] for one in "AB"
    ]


def test_only_the_owner_may_read(journal: FileJournal, tmp_path: Path) -> None:
    """Directory and files are private."""
    journal.write([line("A")])
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "journal" / TODAY).stat().st_mode) == 0o600


def test_a_call_is_one_write(journal: FileJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines of a call go out together, so that a crash cannot part them."""
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, octets: written.append(octets) or write(file, octets))
    journal.write([line("A"), line("B"), line("C")])
    assert [octets.count(b"\n") for octets in written] == [3]


def test_a_day_has_its_own_file(journal: FileJournal, clock: Clock, tmp_path: Path) -> None:
    """At midnight (UTC) the next file is begun, and both are synced and closed in the end."""
    journal.write([line("A")])
    clock.now += DAY
    journal.write([line("B")])
    journal.sync()
    paths = sorted((tmp_path / "journal").iterdir())
    assert [path.name for path in paths] == [TODAY, "2024-10-05.0.jsonl"]
    assert ids(*paths) == ["A", "B"]


def test_a_torn_line_is_left_behind(tmp_path: Path, clock: Clock) -> None:
    """After a crash within a line the next event begins its own; the torn one is told, the others are read."""
    path = tmp_path / TODAY
    path.write_bytes(b'{"queue_id":"A"}\n{"queue_id":"B","ev')
    journal = FileJournal(tmp_path, "0", clock)
    journal.write([line("C")])
    journal.close()
    torn: list[tuple[Path, int]] = []
    events = list(read_journal([path], on_torn=lambda *where: torn.append(where)))
    assert [event["queue_id"] for event in events] == ["A", "C"]
    assert torn == [(path, 2)]


@pytest.mark.parametrize("cut", range(1, 30, 3))
def test_a_torn_last_line_is_tolerated(tmp_path: Path, cut: int) -> None:
    """Wherever the last line was cut off, those before it are read."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"queue_id":"A"}\n' + b'{"queue_id":"B","event":"held"}\n'[:cut])
    assert ids(path) == ["A"]


def test_a_full_disk_is_counted_and_gets_over(
    journal: FileJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails raises nothing, is counted and ends readiness; with space again the journal goes on."""
    journal.write([line("A")])
    with monkeypatch.context() as full:
        full.setattr(os, "write", _raise(errno.ENOSPC))
        journal.write([line("B"), line("C")])
        journal.write([line("D")])
        assert (journal.failed, journal.lost) == (True, 3)
    journal.write([line("E")])
    assert (journal.failed, journal.lost) == (False, 3)
    assert ids(tmp_path / "journal" / TODAY) == ["A", "E"]


def test_a_short_write_does_not_spoil_the_next_line(
    journal: FileJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line on a disk that ran full is a torn line, and the next event begins behind it."""
    write = os.write
    with monkeypatch.context() as filling:
        filling.setattr(os, "write", lambda file, octets: write(file, octets[:10]))
        journal.write([line("A")])
        assert journal.failed
    journal.write([line("B")])
    assert ids(tmp_path / "journal" / TODAY) == ["B"]


def test_a_failed_disk_does_not_use_up_descriptors(journal: FileJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often writing fails, no descriptor is left open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    write = os.write
    with monkeypatch.context() as filling:
        filling.setattr(os, "write", lambda file, octets: write(file, octets[:10]))
        for _ in range(50):
            journal.write([line("A")])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_failed_sync_is_told_and_the_file_opened_anew(
    journal: FileJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fsync failed nothing is appended through the same descriptor."""
    journal.write([line("A")])
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", _raise(errno.EIO))
        journal.sync()
        assert journal.failed
    opened = []
    open_ = os.open
    monkeypatch.setattr(os, "open", lambda *how: opened.append(how[0]) or open_(*how))
    journal.write([line("B")])
    assert opened == [tmp_path / "journal" / TODAY]
    assert not journal.failed


def test_what_is_no_json_is_counted(journal: FileJournal) -> None:
    """An event that cannot be written as JSON is lost and counted, and raises nothing."""
    journal.write([{"queue_id": object()}])
    assert (journal.failed, journal.lost) == (True, 1)


def test_failures_are_told(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure is told to whoever counts them."""
    told: list[str] = []
    journal = FileJournal(tmp_path, "0", clock, on_failure=lambda: told.append("failed"))
    with monkeypatch.context() as full:
        full.setattr(os, "write", _raise(errno.EIO))
        journal.write([line("A")])
    journal.close()
    assert told == ["failed"]


def test_only_what_is_new_is_synced(journal: FileJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet journal leaves the disk alone."""
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or fsync(file))
    journal.write([line("A")])
    journal.sync()
    journal.sync()
    assert len(synced) == 1


def test_closing_syncs(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is on the disk once the journal is closed, with its thread ended."""
    journal = FileJournal(tmp_path, "0", clock, sync_every=3600)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or fsync(file))
    with journal:
        journal.write([line("A")])
        assert not synced
    assert len(synced) == 1
    assert ids(tmp_path / TODAY) == ["A"]


def test_a_journal_that_cannot_be_made_is_known_at_the_start(tmp_path: Path, clock: Clock) -> None:
    """A directory that is a file stops the start, not the mail later."""
    (tmp_path / "journal").write_text("")
    with pytest.raises(OSError, match="journal"):
        FileJournal(tmp_path / "journal", "0", clock)


def _raise(number: int) -> Any:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail

"""The journal on disk: one JSON line for each event, one file for each worker and day.

    DIR/2026-03-01.0.jsonl   events of the UTC day, written by worker 0, for their owner only

A line is whole or torn off at its end: files are only appended to, each call with one write. A thread of its own syncs
them, so that the event loop never waits for the disk; after a power cut the last `sync_every` seconds may be missing.
A journal that is opened behind a torn line begins a new one.

Raises OSError at the start when the directory or today's file cannot be made. Later on only `assure` does: lines that
could not be written are counted in `lost`, `failed` says that the last try did not succeed, and each write tries to
open the file again. `deploy/journal.md` explains the events.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final, Self

import orjson

from .durable import sync_directory
from .events import Line

_DAY: Final = 86_400_000  # milliseconds
_NONE: Final = -1  # no file open
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class FileJournal:
    """The journal of one worker. `clock` gives epoch milliseconds; `sync_every` is in seconds.

    Write from one thread. `start` begins the syncing, `close` ends it with a last one.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        clock: Callable[[], int],
        *,
        sync_every: float = 1.0,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.failed = False
        self.lost = 0  # lines
        self._directory = directory
        self._worker = worker
        self._clock = clock
        self._sync_every = sync_every
        self._on_failure = on_failure
        self._files = Lock()  # held while descriptors change hands with the syncing thread, never while it syncs
        self._file = _NONE
        self._stale = (
            False  # the open file has failed: what it holds is unknown, only a fresh descriptor can be trusted
        )
        self._unsynced = False
        self._finished: list[int] = []  # descriptors of earlier days, to be synced and closed
        self._day = 0
        self._closing = Event()
        self._syncer = Thread(target=self._keep_syncing, name="journal-sync", daemon=True)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open(clock() // _DAY)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to sync in the background."""
        self._syncer.start()

    def close(self) -> None:
        """Sync and close the files; nothing is written after."""
        self._closing.set()
        if self._syncer.is_alive():
            self._syncer.join()
        self._put_aside()
        self.sync()

    def write(self, events: Sequence[Line]) -> None:
        """Append one line for each event, all of them by one write."""
        try:
            lines = b"".join([orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events])
            self._append(lines)
        except (OSError, TypeError):  # TypeError: what cannot be written as JSON
            self.lost += len(events)
            self._fail()
        else:
            self.failed = False

    def sync(self) -> None:
        """Bring everything written so far to the disk; blocks until it is there."""
        with self._files:
            descriptors, self._finished = self._finished, []
            if self._unsynced and self._file != _NONE:
                descriptors.append(os.dup(self._file))
                self._unsynced = False
        failed = [descriptor for descriptor in descriptors if not _sync_and_close(descriptor)]
        if failed:
            self._stale = True
            self._fail()

    def assure(self) -> None:
        """Sync, for who does nothing that is not on record: raises OSError if a line was lost or cannot be synced."""
        self.sync()
        if self.failed or self.lost:
            raise OSError(errno.EIO, "the journal cannot be written; nothing further was done", str(self._directory))

    def _append(self, lines: bytes) -> None:
        """Write to today's file. Raises OSError."""
        day = self._clock() // _DAY
        if day != self._day or self._stale or self._file == _NONE:
            self._open(day)
        written = os.write(self._file, lines)
        self._unsynced = True
        if written != len(lines):
            self._stale = True
            raise OSError(f"{written} of {len(lines)} octets written")

    def _keep_syncing(self) -> None:
        while not self._closing.wait(self._sync_every):
            self.sync()

    def _open(self, day: int) -> None:
        """Open the file of a day, behind a whole line. Raises OSError."""
        self._put_aside()
        name = f"{datetime.fromtimestamp(day * _DAY / 1000, UTC):%Y-%m-%d}.{self._worker}.jsonl"
        path = self._directory / name
        new = not path.exists()
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")
            if new:
                sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        self._file, self._day, self._stale = descriptor, day, False

    def _put_aside(self) -> None:
        """Leave the open file to the next sync; one that failed is closed, as the file will be opened anew."""
        with self._files:
            if self._file == _NONE:
                return
            if self._stale:
                os.close(self._file)
            else:
                self._finished.append(self._file)
            self._file = _NONE

    def _fail(self) -> None:
        self.failed = True
        self._on_failure()


def _sync_and_close(descriptor: int) -> bool:
    """Whether everything in the file is on the disk now."""
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def read_journal(
    paths: Iterable[Path], *, on_torn: Callable[[Path, int], None] = lambda _path, _number: None
) -> Iterator[dict[str, Any]]:
    """The events of journal files, file by file; a line torn by a crash is left out and told to `on_torn`.

    `on_torn` gets the file and the number of the line, from 1. Raises OSError for a file that cannot be read.
    """
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    event = orjson.loads(line)
                except orjson.JSONDecodeError:
                    on_torn(path, number)
                    continue
                yield event

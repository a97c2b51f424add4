"""The hold store as the pipeline sees it: one thread that writes, one transaction and one sync for all who wait.

Whoever stores, voids or settles waits for the commit that holds it; what comes meanwhile goes into the next one. Every
worker process has its own store on the same file, opened after forking.

Opening raises `HoldDataError`. Writing raises `HoldUnavailableError` (ports) for whatever keeps it from the disk; a
full disk is tried again after a second. A failed sync is for good (`failed`): the kernel may have dropped what it could
not write, so nothing later can be believed, and the worker must end. Reading raises as `HoldDatabase` does.

If the await is cancelled, the write may still take place.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, NamedTuple

import apsw

from .envelope import RcptTo
from .flights import now
from .hold_check import Findings, backup, check
from .hold_codec import HoldDataError, StoredMessage, pack
from .hold_database import Damage, HoldDatabase, StoredCopy
from .hold_schema import BUSY_TIMEOUT, CHECK_TIME, FILE_NAME, refuse_damage
from .ports import HeldMessage, HoldUnavailableError, Known

MIN_FREE_SPACE: Final = 1 << 30  # octets
SETTLE_WINDOW: Final = 5 * 86_400_000  # milliseconds: as long as clients try again (RFC 5321 section 4.5.4.1)
MOST_JOBS: Final = 256  # in one transaction
MOST_OCTETS: Final = 32 << 20  # of content in one transaction
LOOK_AGAIN: Final = 1.0  # seconds between looks at the free space, and from a failed write to the next try
PRUNE_EVERY: Final = 600.0  # seconds
PRUNE_ROWS: Final = 1000  # at a time
READ_TIMEOUT: Final = 20  # milliseconds that `known` may wait while another process repairs the log
LOG_PAGES: Final = 2000  # in the log before they are copied into the file
LONG_LOG_PAGES: Final = 8 * LOG_PAGES  # readers have kept the log from being emptied: wait for them a little
LOG_TIMEOUT: Final = 500  # milliseconds of that, which every worker's writing waits
WAIT_EVERY: Final = 60.0  # seconds from one such wait to the next: a backup may read for long

_SYNC_FAILURES: Final = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})

Action = Callable[[HoldDatabase], object]


class _Job(NamedTuple):
    """What one caller waits for. `prepare` is the costly part, done before the transaction begins."""

    prepare: Callable[[], Action]
    octets: int
    future: asyncio.Future[None]


class HoldStore:
    """Copies that are not relayed, on this machine; fulfils `ports.HoldStore`.

    The constructor opens the store, starts the thread, and looks over the structure of the file for `check_time`
    seconds at most. `on_failed` is called with the reason, in the thread that writes, when the store fails for good.
    """

    def __init__(
        self,
        directory: Path,
        *,
        min_free_space: int = MIN_FREE_SPACE,
        settle_window: int = SETTLE_WINDOW,
        clock: Callable[[], int] = now,
        check_time: float = CHECK_TIME,
        on_failed: Callable[[str], None] | None = None,
        vfs: str | None = None,
    ) -> None:
        self.directory = directory
        self.failed = ""
        self._min_free_space = min_free_space
        self._settle_window = settle_window
        self._clock = clock
        self._on_failed = on_failed
        self._vfs = vfs
        self._free = 0
        self._look_at = 0.0  # monotonic seconds
        self._blocked_until = 0.0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._writer = HoldDatabase.open(directory, vfs=vfs)
        try:
            if check_time:
                refuse_damage(self._writer.connection, check_time)
            self._reader = HoldDatabase.open(directory, vfs=vfs)
        except BaseException:
            self._writer.close()
            raise
        self._reader.connection.set_busy_timeout(READ_TIMEOUT)
        self._prepare_writer()
        self._file = self._identity()
        self._prune_at = time.monotonic() + PRUNE_EVERY
        self._wait_at = 0.0
        self._thread = Thread(target=self._work, name="hold writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and close."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()
            with suppress(apsw.Error):  # the last one to close tidies up, which the next one to open does as well
                self._reader.close()

    # Writing

    def has_room(self, size: int) -> bool:
        """Whether a message of so many octets may be accepted."""
        moment = time.monotonic()
        if self.failed or moment < self._blocked_until:
            return False
        if moment >= self._look_at:
            self._free = self._free_space()
            self._look_at = moment + LOOK_AGAIN
        return self._free >= self._min_free_space + size + size // 2

    async def store(self, message: HeldMessage) -> None:
        """Keep the message; on return it is on the disk."""
        await self._submit(lambda: partial(HoldDatabase.insert, packed=pack(message)), len(message.content))

    async def void(self, queue_id: str) -> None:
        """Undo `store`, durably; nothing if there is no such message."""
        await self._write(lambda database: database.void(queue_id, self._clock()))

    async def confirm(self, queue_id: str) -> None:
        """Take the pending copies of the message as held; nothing if there is no such message."""
        await self._write(lambda database: database.confirm(queue_id, self._clock()))

    async def diverted(self, queue_id: str, recipients: Sequence[RcptTo]) -> None:
        """Mark these copies as delivered to where they were diverted."""
        await self._write(lambda database: database.diverted(queue_id, recipients, self._clock()))

    async def settle(self, key: bytes, at: int) -> None:
        """Remember that this message was taken, though the client may not know; for the settle window."""
        await self._write(lambda database: database.remember(key, Known.TAKEN, at))

    async def forget(self, key: bytes) -> bool:
        """The client is told now; whether the key was remembered until then. Of callers at once one is told so."""
        found: list[bool] = []  # of each try, of which the last was committed
        await self._write(lambda database: found.append(database.forget(key, Known.TAKEN)))
        return found[-1]

    async def suspect(self, key: bytes, at: int) -> None:
        """Remember that a worker died judging this message; after the second time none tries again for a while."""
        await self._write(lambda database: database.suspect(key, at))

    async def prune(self) -> None:
        """Begin to remove what is remembered for longer than the settle window; also done now and then by itself."""
        await self._write(self._prune)
        self._prune_at = 0.0

    # Reading. The first is for the thread of the event loop; the others open the file for themselves, and may be
    # called in any thread.

    def known(self, key: bytes) -> frozenset[Known]:
        """What is remembered of this key; nothing if that cannot be told."""
        with suppress(apsw.Error, ValueError):  # ValueError: a damaged word
            return self._reader.known(key)
        return frozenset()

    def get(self, queue_id: str) -> StoredMessage | None:
        """The message, verified; None if there is none. Raises DamagedMessageError."""
        with self._reading() as database:
            return database.get(queue_id)

    def copies(self) -> Iterator[StoredCopy | Damage]:
        """Every copy, and what is damaged among them."""
        with self._reading() as database:
            yield from database.copies()

    def check(self) -> Findings:
        """Read and verify everything."""
        with self._reading() as database:
            return check(database)

    def backup(self, path: Path) -> None:
        """Copy the store, as it is now, to a new file."""
        with self._reading() as database:
            backup(database, path)

    def _reading(self) -> closing[HoldDatabase]:
        return closing(HoldDatabase.open(self.directory, vfs=self._vfs, readonly=True))

    def _free_space(self) -> int:
        try:
            found = os.statvfs(self.directory)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    async def _write(self, action: Action) -> None:
        await self._submit(lambda: action, 0)

    async def _submit(self, prepare: Callable[[], Action], octets: int) -> None:
        if self.failed or self._closed:
            raise HoldUnavailableError(self.failed or f"{self.directory}: hold store is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(prepare, octets, future))
        await future

    # The thread that writes

    def _work(self) -> None:
        going = True
        while going:
            batch, going = self._next_batch()
            if batch:
                _answer(batch, self._commit_each(batch))
            with suppress(Exception):  # nobody waits for it, and the thread must live; _guarded notes a failed sync
                self._guarded(self._tidy)
        with suppress(Exception):
            self._writer.close()

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """What waits, up to a limit, and whether to go on after it."""
        batch: list[_Job] = []
        octets = 0
        try:
            job = self._jobs.get(timeout=min(max(0.0, self._prune_at - time.monotonic()), PRUNE_EVERY))
            while job is not None:
                batch.append(job)
                octets += job.octets
                if len(batch) >= MOST_JOBS or octets >= MOST_OCTETS:
                    return batch, True
                job = self._jobs.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _commit_each(self, batch: list[_Job]) -> list[HoldUnavailableError | None]:
        """Write a batch in one transaction; if one job is at fault, each in its own, so that it fails alone."""
        try:
            self._commit(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if len(batch) == 1 or self.failed or isinstance(error, (apsw.FullError, apsw.IOError, apsw.BusyError)):
                return [self._refusal(error) for _ in batch]
            return [outcome for job in batch for outcome in self._commit_each([job])]
        return [None] * len(batch)

    def _refusal(self, error: Exception) -> HoldUnavailableError:
        why = self.failed or f"{self.directory / FILE_NAME}: cannot be written: {type(error).__name__} {error}".rstrip()
        refusal = HoldUnavailableError(why)
        refusal.__cause__ = error
        return refusal

    def _commit(self, batch: list[_Job]) -> None:
        if self.failed:
            raise HoldUnavailableError(self.failed)
        actions = [job.prepare() for job in batch]
        if self._identity() != self._file:
            self._fail("the file was removed or replaced while in use")
            raise HoldUnavailableError(self.failed)
        self._guarded(lambda: self._transact(actions))

    def _transact(self, actions: list[Action]) -> None:
        self._writer.begin()
        for action in actions:
            action(self._writer)
        try:
            self._writer.commit()
        except apsw.Error:
            self._overwrite_log()
            raise

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; after an error leave no transaction open, and note what the error means for later writes."""
        try:
            work()
        except apsw.Error as error:
            if not isinstance(error, apsw.ConstraintError):  # which is the message's fault, not the disk's
                self._blocked_until = time.monotonic() + LOOK_AGAIN
            self._note_sync_failure(error)
            raise
        finally:
            self._clear()

    def _overwrite_log(self) -> None:
        """What a failed commit wrote may stand in the log, and a restart would find it. Put a note in its place."""
        try:
            self._writer.rollback()
            self._writer.begin()
            self._writer.note("commit_failed_at", str(self._clock()))
            self._writer.commit()
        except apsw.Error as error:
            self._note_sync_failure(error)

    def _note_sync_failure(self, error: apsw.Error) -> None:
        if getattr(error, "extendedresult", 0) in _SYNC_FAILURES:
            self._fail(f"held mail could not be synced to the disk ({type(error).__name__} {error}); check the disk")

    def _fail(self, why: str) -> None:
        if not self.failed:
            self.failed = f"{self.directory / FILE_NAME}: {why}"
            self._prune_at = math.inf
            if self._on_failed is not None:
                self._on_failed(self.failed)

    def _identity(self) -> tuple[int, int]:
        """Which file has the name of ours now."""
        try:
            found = (self.directory / FILE_NAME).stat()
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    def _clear(self) -> None:
        """No transaction is open; a connection that cannot end one is replaced."""
        try:
            self._writer.rollback()
        except apsw.Error:
            with suppress(HoldDataError, OSError):
                fresh = HoldDatabase.open(self.directory, vfs=self._vfs, create=False)
                with suppress(apsw.Error):
                    self._writer.close()
                self._writer = fresh
                self._prepare_writer()

    def _prepare_writer(self) -> None:
        """Empty the log ourselves, between commits: SQLite would do it within one, and pass over a failed sync."""
        self._log_pages = 0
        self._writer.connection.set_wal_hook(self._note_log)

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _tidy(self) -> None:
        """Copy a long log into the file, and now and then remove what is remembered for too long."""
        if self.failed:
            return
        if self._log_pages >= LOG_PAGES:
            self._empty_log()
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_EVERY
            removed: list[int] = []
            self._transact([lambda database: removed.append(self._prune(database))])
            if sum(removed) >= PRUNE_ROWS:
                self._prune_at = 0.0  # there is more: after what waits, or at once

    def _empty_log(self) -> None:
        connection, moment = self._writer.connection, time.monotonic()
        wait = self._log_pages >= LONG_LOG_PAGES and moment >= self._wait_at
        self._log_pages = 0  # the next commit tells anew
        if wait:
            self._wait_at = moment + WAIT_EVERY
            connection.set_busy_timeout(LOG_TIMEOUT)
        try:
            mode = apsw.SQLITE_CHECKPOINT_RESTART if wait else apsw.SQLITE_CHECKPOINT_PASSIVE
            connection.wal_checkpoint("main", mode)
        except apsw.BusyError:
            pass
        finally:
            connection.set_busy_timeout(BUSY_TIMEOUT)

    def _prune(self, database: HoldDatabase) -> int:
        return database.prune(self._clock() - self._settle_window, PRUNE_ROWS)


def _answer(batch: list[_Job], outcomes: list[HoldUnavailableError | None]) -> None:
    """Tell every caller, with one call into each event loop."""
    told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], HoldUnavailableError | None]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        told.setdefault(job.future.get_loop(), []).append((job.future, outcome))
    for loop, pairs in told.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: list[tuple[asyncio.Future[None], HoldUnavailableError | None]]) -> None:
    for future, outcome in pairs:
        if future.done():
            continue
        if outcome is None:
            future.set_result(None)
        else:
            future.set_exception(outcome)

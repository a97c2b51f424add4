"""The connection that writes held mail: durable transactions, and what a disk that fails means for the next ones.

`transact` raises `apsw.Error` for whatever kept the actions from the disk: then none of them was done. A failed sync is
for good (`failed`): the kernel may have dropped what it could not write, so nothing later can be believed; from then on
`transact` raises HoldUnavailableError, as it does for a file that is not the one that was opened. One thread at a time.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw

from .hold_codec import HoldDataError
from .hold_database import HoldDatabase
from .hold_schema import FILE_NAME, refuse_damage
from .ports import HoldUnavailableError
from .sealing import Vault
from .sqlite_file import BUSY_TIMEOUT

LOG_PAGES: Final = 2000  # in the log before they are copied into the file
LONG_LOG: Final = 8  # times as many: readers have kept the log from being emptied, wait for them a little
LOG_TIMEOUT: Final = 500  # milliseconds of that, which every worker's writing waits
WAIT_EVERY: Final = 60.0  # seconds from one such wait to the next: a backup may read for long

_SYNC_FAILURES: Final = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})

Action = Callable[[HoldDatabase], object]


class HoldWriter:
    """Writes through one connection. `on_failed` is called once with the reason, when writing fails for good.

    The constructor opens the file and looks over its structure for `check_time` seconds at most; it raises as
    `HoldDatabase.open` does. `file` is which one it must be (`identity`), if that is known.
    """

    def __init__(
        self,
        directory: Path,
        vault: Vault,
        *,
        clock: Callable[[], int],
        check_time: float = 0.0,
        on_failed: Callable[[str], None] | None = None,
        vfs: str | None = None,
        file: tuple[int, int] | None = None,
    ) -> None:
        self.path = directory / FILE_NAME
        self.failed = ""
        self._directory, self._vault, self._vfs = directory, vault, vfs
        self._clock = clock
        self._on_failed = on_failed
        self._log_pages = 0
        self._wait_at = 0.0
        self.database = HoldDatabase.open(directory, vault, vfs=vfs)
        try:
            if check_time:
                refuse_damage(self.database.connection, check_time)
        except BaseException:
            self.database.close()
            raise
        self._prepare()
        self._file = identity(self.path) if file is None else file

    def close(self) -> None:
        """Close the connection."""
        with suppress(apsw.Error):  # the last one to close tidies up, which the next one to open does as well
            self.database.close()

    def transact(self, actions: Sequence[Action]) -> None:
        """Do all of these or none, durably."""
        if self.failed:
            raise HoldUnavailableError(self.failed)
        if identity(self.path) != self._file:
            self._fail("the file was removed or replaced while in use")
            raise HoldUnavailableError(self.failed)
        self._guarded(lambda: self._transact(actions))

    def tidy(self) -> None:
        """Copy a long log into the file; after a transaction, while nobody waits."""
        if self._log_pages >= LOG_PAGES and not self.failed:
            self._guarded(self._empty_log)

    def clear_log(self) -> bool:
        """Whether the log is empty now and what was in it gone; waits for readers as long as for another writer."""

        def clear() -> None:
            self.database.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)

        try:
            self._guarded(clear)
        except apsw.BusyError:
            return False
        return True

    def refusal(self, error: Exception) -> HoldUnavailableError:
        """What to tell whoever wanted to write."""
        why = self.failed or f"{self.path}: cannot be written: {type(error).__name__} {error}".rstrip()
        refusal = HoldUnavailableError(why)
        refusal.__cause__ = error
        return refusal

    def _transact(self, actions: Sequence[Action]) -> None:
        self.database.begin()
        for action in actions:
            action(self.database)
        try:
            self.database.commit()
        except apsw.Error:
            self._overwrite_log()
            raise

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; after an error leave no transaction open, and note what the error means for later writes."""
        try:
            work()
        except apsw.Error as error:
            self._note_sync_failure(error)
            raise
        finally:
            self._clear()

    def _overwrite_log(self) -> None:
        """What a failed commit wrote may stand in the log, and a restart would find it. Put a note in its place."""
        try:
            self.database.rollback()
            self.database.begin()
            self.database.note("commit_failed_at", str(self._clock()))
            self.database.commit()
        except apsw.Error as error:
            self._note_sync_failure(error)

    def _note_sync_failure(self, error: apsw.Error) -> None:
        if getattr(error, "extendedresult", 0) in _SYNC_FAILURES:
            self._fail(f"held mail could not be synced to the disk ({type(error).__name__} {error}); check the disk")

    def _fail(self, why: str) -> None:
        if not self.failed:
            self.failed = f"{self.path}: {why}"
            if self._on_failed is not None:
                self._on_failed(self.failed)

    def _clear(self) -> None:
        """No transaction is open; a connection that cannot end one is replaced."""
        try:
            self.database.rollback()
        except apsw.Error:
            with suppress(HoldDataError, OSError):
                fresh = HoldDatabase.open(self._directory, self._vault, vfs=self._vfs, create=False)
                self.close()
                self.database = fresh
                self._prepare()

    def _prepare(self) -> None:
        """Empty the log ourselves, between commits: SQLite would do it within one, and pass over a failed sync."""
        self._log_pages = 0
        self.database.connection.set_wal_hook(self._note_log)

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _empty_log(self) -> None:
        connection, moment = self.database.connection, time.monotonic()
        wait = self._log_pages >= LONG_LOG * LOG_PAGES and moment >= self._wait_at
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


def identity(path: Path) -> tuple[int, int]:
    """Which file has this name now."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino

"""The hold store as the pipeline sees it: one thread that writes, one transaction and one sync for all who wait.

Whoever stores, voids or settles waits for the commit that holds it; what comes meanwhile goes into the next one. Every
worker process has its own store on the same file, opened after forking.

Opening raises `HoldDataError`. Writing raises `HoldUnavailableError` (ports) for whatever keeps it from the disk; a
full disk is tried again after a second. A failed sync is for good (`failed`, see `hold_writer`), and the worker must
end. Reading raises as `HoldDatabase` does.

If the await is cancelled, the write may still take place.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from . import hold_scan
from .flights import now
from .hold_check import Findings, backup, check
from .hold_codec import Packed, StoredMessage, pack
from .hold_database import HoldDatabase
from .hold_erase import finish_erasing
from .hold_queue import HoldQueue
from .hold_scan import Damage, StoredCopy
from .hold_schema import CHECK_TIME
from .hold_writer import Action, HoldWriter
from .ports import HeldMessage, HoldUnavailableError, Known
from .sealing import Vault

MIN_FREE_SPACE: Final = 1 << 30  # octets
SETTLE_WINDOW: Final = 5 * 86_400_000  # milliseconds: as long as clients try again (RFC 5321 section 4.5.4.1)
LOOK_AGAIN: Final = 1.0  # seconds between looks at the free space, and from a failed write to the next try
REST: Final = 1.0  # seconds from one look at what is due to the next, while nothing is written
PRUNE_EVERY: Final = 600.0  # seconds
PRUNE_ROWS: Final = 1000  # at a time
READ_TIMEOUT: Final = 20  # milliseconds that `known` may wait while another process repairs the log

Prepare = Callable[[], Action]  # the costly part, done before the transaction begins


class HoldStore:
    """Copies that are not relayed, on this machine; fulfils `ports.HoldStore`.

    The constructor opens the store, starts the thread, and looks over the structure of the file for `check_time`
    seconds at most. `vault` has the keys that seal what is stored. `on_failed` is called with the reason, in the thread
    that writes, when the store fails for good.
    """

    def __init__(
        self,
        directory: Path,
        *,
        vault: Vault,
        min_free_space: int = MIN_FREE_SPACE,
        settle_window: int = SETTLE_WINDOW,
        clock: Callable[[], int] = now,
        check_time: float = CHECK_TIME,
        on_failed: Callable[[str], None] | None = None,
        vfs: str | None = None,
    ) -> None:
        self.directory = directory
        self._vault = vault
        self._min_free_space = min_free_space
        self._settle_window = settle_window
        self._clock = clock
        self._vfs = vfs
        self._free = 0
        self._look_at = 0.0  # monotonic seconds
        self._blocked_until = 0.0
        self._prune_at = time.monotonic() + PRUNE_EVERY
        self._writer = HoldWriter(directory, vault, clock=clock, check_time=check_time, on_failed=on_failed, vfs=vfs)
        try:
            self._reader = HoldDatabase.open(directory, vault, vfs=vfs)
        except BaseException:
            self._writer.close()
            raise
        self._reader.connection.set_busy_timeout(READ_TIMEOUT)
        self._queue = HoldQueue(self._write_all, self._rest, every=REST, name="hold writer")

    def close(self) -> None:
        """Write what waits, and close."""
        self._queue.close()
        self._writer.close()
        with suppress(apsw.Error):  # the last one to close tidies up, which the next one to open does as well
            self._reader.close()

    @property
    def failed(self) -> str:
        """Why nothing can be written any more; empty while it can."""
        return self._writer.failed

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
        await self._submit(
            lambda: partial(HoldDatabase.insert, packed=pack(message, self._vault)), len(message.content)
        )

    async def keep(self, message: HeldMessage) -> bool:
        """Keep a message unless there is one of its queue id; whether it was new. On return one is on the disk."""
        new: list[bool] = []  # of each try, of which the last was committed
        await self._submit(
            lambda: partial(_insert_new, packed=pack(message, self._vault), new=new), len(message.content)
        )
        return new[-1]

    async def void(self, queue_id: str) -> None:
        """Undo `store`, durably; nothing if there is no such message."""
        await self._write(lambda database: database.void(queue_id, self._clock()))

    async def confirm(self, queue_id: str) -> None:
        """Take the pending copies of the message as held; nothing if there is no such message."""
        await self._write(lambda database: database.confirm(queue_id, self._clock()))

    async def diverted(self, queue_id: str, numbers: Collection[int]) -> None:
        """Mark the copies with these positions in the message as delivered to where they were diverted."""
        await self._write(lambda database: database.diverted(queue_id, numbers, self._clock()))

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
        """The message, verified; None if there is none. Raises DamagedMessageError, UnknownKeyError."""
        with self._reading() as database:
            return database.get(queue_id)

    def copies(self) -> Iterator[StoredCopy | Damage]:
        """Every copy, and what is damaged among them."""
        with self._reading() as database:
            yield from hold_scan.copies(database)

    def check(self) -> Findings:
        """Read and verify everything."""
        with self._reading() as database:
            return check(database)

    def backup(self, path: Path) -> None:
        """Copy the store, as it is now, to a new file."""
        with self._reading() as database:
            backup(database, path)

    def _reading(self) -> closing[HoldDatabase]:
        return closing(HoldDatabase.open(self.directory, self._vault, vfs=self._vfs, readonly=True))

    def _free_space(self) -> int:
        try:
            found = os.statvfs(self.directory)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    async def _write(self, action: Action) -> None:
        await self._submit(lambda: action, 0)

    async def _submit(self, prepare: Prepare, octets: int) -> None:
        if self.failed:
            raise HoldUnavailableError(self.failed)
        await self._queue.submit(prepare, octets)

    # In the thread that writes

    def _write_all(self, batch: Sequence[Prepare]) -> list[HoldUnavailableError | None]:
        """Write a batch in one transaction; if one job is at fault, each in its own, so that it fails alone."""
        try:
            self._commit([prepare() for prepare in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if len(batch) == 1 or self.failed or isinstance(error, (apsw.FullError, apsw.IOError, apsw.BusyError)):
                return [self._writer.refusal(error) for _ in batch]
            return [outcome for prepare in batch for outcome in self._write_all([prepare])]
        return [None] * len(batch)

    def _commit(self, actions: Sequence[Action]) -> None:
        try:
            self._writer.transact(actions)
        except apsw.Error as error:
            if not isinstance(error, apsw.ConstraintError):  # which is the message's fault, not the disk's
                self._blocked_until = time.monotonic() + LOOK_AGAIN
            raise

    def _rest(self) -> None:
        """Between batches; nobody waits for it, and the thread must live: the writer notes a failed sync."""
        with suppress(Exception):
            self._writer.tidy()
            if time.monotonic() >= self._prune_at and not self.failed:
                self._prune_at = time.monotonic() + PRUNE_EVERY
                removed: list[int] = []
                self._commit([lambda database: removed.append(self._prune(database))])
                if sum(removed) >= PRUNE_ROWS:
                    self._prune_at = 0.0  # there is more
                finish_erasing(self._writer)

    def _prune(self, database: HoldDatabase) -> int:
        return database.prune(self._clock() - self._settle_window, PRUNE_ROWS)


def _insert_new(database: HoldDatabase, packed: Packed, new: list[bool]) -> None:
    new.append(database.number(packed.message.queue_id) is None)
    if new[-1]:
        database.insert(packed)

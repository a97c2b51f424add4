"""A disk below SQLite that fails at the n-th call, and that forgets at a power cut what was not synced.

It stands between SQLite and the real files (an apsw VFS). Memory shared by connections (the -shm file) is not the
disk's business and goes to the system as ever.
"""

import itertools
from enum import StrEnum
from pathlib import Path

import apsw

_names = itertools.count()


class Fault(StrEnum):
    """What happens at the n-th call that changes something on the disk."""

    DEAD = "dead"  # this call and all later ones do nothing: the process was killed
    IO_ERROR = "io_error"
    SYNC_ERROR = "sync_error"  # counts syncs only
    FULL = "full"
    SHORT_WRITE = "short_write"  # half of it is written, then the disk is full


class FaultyDisk(apsw.VFS):
    """Counts the calls that change something, from the moment `arm` is called."""

    def __init__(self) -> None:
        self.name = f"faulty-{next(_names)}"
        self.files: dict[str, _Unsynced] = {}
        self._fault: Fault | None = None
        self._left = 0
        self.struck = False
        self.dead = False
        self.capacity: int | None = None  # octets that may still be added to files; None: no limit
        self.unreadable: set[int] = set()  # offsets in the file itself, not its log, that cannot be read now
        super().__init__(self.name, "")

    def arm(self, fault: Fault, calls: int) -> None:
        """Let the call after so many others fail."""
        self._fault, self._left, self.struck = fault, calls, False

    def strike(self, *, sync: bool = False) -> Fault | None:
        """Count a call; the fault if it is the one that fails."""
        if self.dead:
            raise _error(apsw.SQLITE_IOERR)
        if self._fault is None or self.struck or (self._fault is Fault.SYNC_ERROR and not sync):
            return None
        self._left -= 1
        if self._left >= 0:
            return None
        self.struck = True
        if self._fault is Fault.DEAD:
            self.dead = True
            raise _error(apsw.SQLITE_IOERR)
        if self._fault is Fault.IO_ERROR:
            raise _error(apsw.SQLITE_IOERR_FSYNC if sync else apsw.SQLITE_IOERR_WRITE)
        if self._fault is Fault.SYNC_ERROR:
            raise _error(apsw.SQLITE_IOERR_FSYNC)
        if self._fault is Fault.FULL or sync:
            raise _error(apsw.SQLITE_FULL)
        return self._fault

    def power_cut(self) -> None:
        """Undo on the disk whatever was not synced. Call it when every connection is closed."""
        for path, unsynced in self.files.items():
            unsynced.undo(Path(path))

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        """Open a file."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        fresh = name is not None and not Path(path).exists()
        file = _File(self, path, name, flags)
        if name is not None:
            self.files.setdefault(path, _Unsynced()).created |= fresh
        return file

    def xDelete(self, filename, syncdir):  # noqa: N802 - apsw's name
        """Delete a file; without `syncdir` a power cut may bring it back."""
        self.strike()
        unsynced = self.files.setdefault(filename, _Unsynced())
        if unsynced.deleted is None and not syncdir:
            unsynced.deleted = Path(filename).read_bytes() if Path(filename).exists() else None
        super().xDelete(filename, syncdir)


class _Unsynced:
    """How to undo what was done to one file since its last sync."""

    def __init__(self) -> None:
        self.created = False
        self.deleted: bytes | None = None
        self.steps: list[tuple[int, bytes, int]] = []  # offset, octets there before, size before

    def synced(self) -> None:
        """What was done is on the disk."""
        self.steps.clear()
        self.created = False

    def undo(self, path: Path) -> None:
        """Bring the file back to its last sync."""
        if self.deleted is not None and not path.exists():
            path.write_bytes(self.deleted)
        if not path.exists():
            return
        if self.created:
            path.unlink()
            return
        with path.open("r+b") as file:
            for offset, octets, size in reversed(self.steps):
                file.seek(offset)
                file.write(octets)
                file.truncate(size)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, path: str, name, flags) -> None:
        self._disk = disk
        self._path = path
        super().__init__("", name, flags)

    def xRead(self, amount, offset):  # noqa: N802 - apsw's name
        bad = self._disk.unreadable
        if bad and not self._path.endswith("-wal") and any(offset <= one < offset + amount for one in bad):
            raise _error(apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)

    def xWrite(self, data, offset):  # noqa: N802 - apsw's name
        size = super().xFileSize()
        growth = max(0, offset + len(data) - size)
        if self._disk.capacity is not None:
            if growth > self._disk.capacity:
                raise _error(apsw.SQLITE_FULL)
            self._disk.capacity -= growth
        fault = self._disk.strike()
        with Path(self._path).open("rb") as file:
            file.seek(offset)
            self._disk.files[self._path].steps.append((offset, file.read(len(data)), size))
        if fault is not Fault.SHORT_WRITE:
            return super().xWrite(data, offset)
        super().xWrite(bytes(data)[: len(data) // 2], offset)
        raise _error(apsw.SQLITE_FULL)

    def xTruncate(self, newsize):  # noqa: N802 - apsw's name
        self._disk.strike()
        with Path(self._path).open("rb") as file:
            file.seek(newsize)
            self._disk.files[self._path].steps.append((newsize, file.read(), super().xFileSize()))
        super().xTruncate(newsize)

    def xSync(self, flags):  # noqa: N802 - apsw's name
        """Only noted: the tests tell a disk that forgets from one that does not, and need not wait for a real one."""
        self._disk.strike(sync=True)
        self._disk.files[self._path].synced()

    def excepthook(self, etype, evalue, etraceback):
        """Faults are meant: SQLite is told of them, nobody else."""


def _error(code: int) -> Exception:
    return apsw.exception_for(code)

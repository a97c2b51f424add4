"""The store directory: for its owner only, of one installation, on a file system that keeps what it is given.

`own` is for the process that supervises the workers. The lock goes with it: it is an flock on an open file, which the
kernel releases when the last process that inherited the file has ended, so that no stale lock is ever left.

`own` raises `StoreDirectoryError`; other errors of the operating system pass through.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .durable import make_directory
from .errors import ConsentryError

OWNER_FILE: Final = "owner"
MOUNTS: Final = Path("/proc/self/mountinfo")

_UNFIT: Final = {
    "tmpfs": "it is kept in memory and gone after a restart",
    "ramfs": "it is kept in memory and gone after a restart",
    "overlay": "it belongs to the container and goes with it; mount a volume",
    "nfs": "its locks and syncs do not hold across machines",
    "nfs4": "its locks and syncs do not hold across machines",
    "cifs": "its locks and syncs do not hold across machines",
    "smb3": "its locks and syncs do not hold across machines",
    "9p": "its locks and syncs do not hold across machines",
}


class StoreDirectoryError(ConsentryError):
    """The store directory cannot be used."""


@contextmanager
def own(directory: Path) -> Iterator[None]:
    """Be the one installation that uses `directory` (made if missing); a second one raises StoreDirectoryError."""
    make_directory(directory)
    with locked(directory / OWNER_FILE, wait=False) as descriptor:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock that the file `path` stands for; gives its descriptor. If not to `wait`: StoreDirectoryError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreDirectoryError(
                f"{path.parent}: in use by another installation (process {owner}); stop it or set another store.dir"
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def concerns(directory: Path, mounts: Path = MOUNTS) -> tuple[str, ...]:
    """What an operator should know about an existing directory: a file system that loses mail, or open permissions."""
    found = []
    kind = _file_system(directory, mounts)
    if kind in _UNFIT:
        found.append(f"{directory}: on {kind}: {_UNFIT[kind]}")
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        found.append(f"{directory}: mode {mode:04o} lets others look into it; run: chmod 700 {directory}")
    return tuple(found)


def _file_system(directory: Path, mounts: Path) -> str:
    """The type of the file system that `directory` is on, empty if that cannot be told (proc(5), mountinfo)."""
    best, kind = -1, ""
    place = str(directory.resolve())
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) > 4 and _within(place, point := _unescaped(fields[4])) and len(point) >= best:  # noqa: PLR2004 - the fifth field is the mount point
            best, kind = len(point), source.partition(" ")[0]
    return kind


def _within(place: str, point: str) -> bool:
    return place == point or place.startswith(point.rstrip("/") + "/")


def _unescaped(point: str) -> str:
    """A mount point with the escapes of mountinfo undone."""
    for escape, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(escape, char)
    return point

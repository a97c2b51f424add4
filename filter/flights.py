"""Messages in flight in one worker, in a memory-mapped file that outlives the process.

    DIR/worker-SLOT-PID-RANDOM   header, then fixed slots of 64 octets; locked (flock) while its worker lives
    DIR/worker-*.damaged         a file that could not be read, kept to be looked at

A note costs a memory write. The kernel keeps the page when the process is killed at any instruction, so a successor
sees how far every message came. Nothing is synced: after a power cut the file shows some earlier moment, and is
therefore not used (its header names the boot it belongs to). A message that was in flight then, and that its client
offers again, may be relayed twice or held twice; nothing is lost.

A stage stands behind the other fields of its slot and is written last, so no half-written slot is ever seen.
`begin` raises `FlightsFullError` when every slot is taken; opening and recovery let errors of the system pass through.
"""

import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Final

from .durable import make_directory
from .errors import ConsentryError
from .ports import Stage

KEY_SIZE: Final = 16  # octets
QUEUE_ID_SIZE: Final = 32  # octets, at most

_MAGIC: Final = b"CNSTFLT1"  # the last octet is the version of the format
_HEADER: Final = struct.Struct("<8s36sI16x")  # magic, boot id, number of slots
_SLOT: Final = struct.Struct(f"<7sBq{KEY_SIZE}s{QUEUE_ID_SIZE}s")  # spare, stage, time, key, queue id
_STAGE: Final = 7  # where in a slot the stage is
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class FlightsFullError(ConsentryError):
    """More messages are in flight than the file has slots; the next one must wait."""


@dataclass(frozen=True, slots=True)
class Left:
    """A message that was in flight when its worker ended. `at` is when it began, in epoch milliseconds."""

    queue_id: str
    key: bytes
    stage: Stage
    at: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the files of workers that have ended say.

    `outdated` counts files of an earlier boot, whose content is not used; `damaged` are files set aside.
    """

    left: tuple[Left, ...]
    outdated: int
    damaged: tuple[Path, ...]


def now() -> int:
    """The time in epoch milliseconds."""
    return time_ns() // 1_000_000


def boot_id() -> str:
    """The kernel's name of this boot; empty where it has none, and then no file is ever outdated."""
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return ""


class Flights:
    """The messages in flight in this process; for one thread."""

    def __init__(
        self, directory: Path, slot: int, *, slots: int, clock: Callable[[], int] = now, boot: str | None = None
    ) -> None:
        make_directory(directory)
        self._clock = clock
        self.path, self._file, self._map = _create(directory, slot, slots, boot_id() if boot is None else boot)
        self._free = [_HEADER.size + _SLOT.size * number for number in reversed(range(slots))]
        self._slots = slots

    def __len__(self) -> int:
        """How many messages are in flight."""
        return self._slots - len(self._free)

    def begin(self, queue_id: str, key: bytes) -> "Flight":
        """Follow a message from stage JUDGING on. Raises FlightsFullError, and ValueError for an id or key too long."""
        name = queue_id.encode("ascii")
        if not 0 < len(name) <= QUEUE_ID_SIZE or len(key) != KEY_SIZE:
            raise ValueError(f"queue id of {len(name)} and key of {len(key)} octets; slots take {QUEUE_ID_SIZE} and 16")
        if not self._free:
            raise FlightsFullError(f"{self._slots} messages are in flight already")
        at = self._free.pop()
        _SLOT.pack_into(self._map, at, b"", 0, self._clock(), key, name)
        self._map[at + _STAGE] = Stage.JUDGING
        return Flight(self._map, self._free, at)

    def close(self) -> None:
        """End in order: the file goes, unless messages are in flight, which a successor then finds in it."""
        if not len(self):
            self.path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)  # the map stays, so that a flight that lands later raises nothing
        os.close(self._file)


class Flight:
    """One message in flight."""

    __slots__ = ("_at", "_free", "_map")

    def __init__(self, file: mmap.mmap, free: list[int], at: int) -> None:
        self._map = file
        self._free = free
        self._at = at

    def reach(self, stage: Stage) -> None:
        """Note that the message is now at this stage; nothing once it has landed."""
        if self._at:
            self._map[self._at + _STAGE] = stage

    def land(self) -> None:
        """Forget the message; may be called twice."""
        if at := self._at:
            self._at = 0  # the slot may belong to another message from now on
            self._map[at + _STAGE] = 0
            self._free.append(at)


@contextmanager
def recovered(directory: Path, *, boot: str | None = None) -> Iterator[Recovered]:
    """What workers that have ended left in `directory`; their files are removed when the block ends without an error.

    A file of a living worker is locked and not looked at; so is one that another successor is dealing with.
    """
    boot = boot_id() if boot is None else boot
    taken: list[tuple[int, Path]] = []
    try:
        for path in sorted(directory.glob("worker-*")):
            file = None if path.name.endswith(".damaged") else _take(path)
            if file is not None:
                taken.append((file, path))
        yield _read_all([path for _, path in taken], boot)
        for _, path in taken:
            path.unlink(missing_ok=True)
    finally:
        for file, _ in taken:
            os.close(file)


def _create(directory: Path, slot: int, slots: int, boot: str) -> tuple[Path, int, mmap.mmap]:
    """A new file, locked; once more if a successor was quicker to lock it and removed it as an empty one."""
    while True:
        path = directory / f"worker-{slot}-{os.getpid()}-{secrets.token_hex(4)}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                break
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    try:
        size = _HEADER.size + _SLOT.size * slots
        os.posix_fallocate(file, 0, size)  # a full disk is an error now, not a SIGBUS at a write to the map
        os.pwrite(file, _HEADER.pack(_MAGIC, boot.encode("ascii"), slots), 0)
        return path, file, mmap.mmap(file, size)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(file)
        raise


def _take(path: Path) -> int | None:
    """The file, locked; None if its worker lives or somebody else dealt with it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None


def _read_all(paths: list[Path], boot: str) -> Recovered:
    left: list[Left] = []
    damaged: list[Path] = []
    outdated = 0
    for path in paths:
        content = path.read_bytes()
        if not any(content):
            continue  # never written back before a power cut
        try:
            theirs, slots = _read(content)
        except (ValueError, struct.error):
            damaged.append(path.rename(path.with_name(path.name + ".damaged")))
            continue
        if theirs == boot:
            left += slots
        else:
            outdated += 1
    return Recovered(tuple(left), outdated, tuple(damaged))


def _read(content: bytes) -> tuple[str, list[Left]]:
    """The boot id and the messages in flight. Raises ValueError and struct.error for what is no such file."""
    magic, boot, slots = _HEADER.unpack_from(content)
    if magic != _MAGIC or len(content) != _HEADER.size + _SLOT.size * slots:
        raise ValueError("no file of messages in flight")
    left = []
    for number in range(slots):
        _, stage, at, key, name = _SLOT.unpack_from(content, _HEADER.size + _SLOT.size * number)
        if stage:
            left.append(Left(name.rstrip(b"\0").decode("ascii"), key, Stage(stage), at))
    return boot.rstrip(b"\0").decode("ascii"), left

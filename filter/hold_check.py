"""Looking over held mail from end to end, and copying it while it is in use.

`check` reads everything and changes nothing; what is damaged is named and stays where it is. `backup` writes a copy
that a store can be started on. Both raise `apsw.Error` and errors of the system for a disk that fails; for a file that
is there already `backup` raises FileExistsError.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from .durable import sync_directory
from .hold_codec import DamagedMessageError
from .hold_counts import LOT_COLUMNS, miscounted
from .hold_database import HoldDatabase
from .hold_scan import Damage, lost, numbers
from .hold_schema import UNREADABLE
from .sealing import UnknownKeyError

MOST_LISTED: Final = 1000  # damaged messages, and lines about the structure; more are counted only
_STEP: Final = 2048  # pages
_IN_COPY: Final = ("reason", "evidence")
_ALIKE: Final = " AND ".join(f"lot.{name} = {'copy' if name in _IN_COPY else 'message'}.{name}" for name in LOT_COLUMNS)
_MISPLACED: Final = (
    "SELECT 1 FROM copy JOIN message ON message.id = copy.message LEFT JOIN lot ON lot.id = copy.lot"  # noqa: S608 - names are ours
    f" WHERE copy.message = ? AND NOT coalesce({_ALIKE}, 0) LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What `check` found. `structure` is what SQLite says of the file, and what is miscounted; empty if all is well.

    `copies` is by state, `locked` counts messages by the id of a master key that is not there: no damage, but nobody
    can tell.
    """

    messages: int
    copies: Mapping[str, int]
    damaged: int
    damage: tuple[Damage, ...]
    structure: tuple[str, ...]
    locked: Mapping[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether every octet of every message is as it was stored."""
        return not self.damaged and not self.structure and not self.locked


def check(database: HoldDatabase) -> Findings:
    """Read and verify every message, its content, its copies, what is counted, and the structure of the file."""
    states: Counter[str] = Counter()
    locked: Counter[str] = Counter()
    damage: list[Damage] = []
    messages = damaged = 0
    for number, queue_id in numbers(database.connection):
        messages += 1
        try:
            states.update(_states(database, number))
        except UnknownKeyError as error:
            locked[error.key_id] += 1
        except DamagedMessageError as error:
            damaged += 1
            damage += [Damage(queue_id, str(error))][: MOST_LISTED - len(damage)]
    for queue_id in lost(database.connection):
        damaged += 1
        damage += [Damage(queue_id, "its row is gone")][: MOST_LISTED - len(damage)]
    return Findings(
        messages, dict(states), damaged, tuple(damage), tuple(_structure(database.connection)), dict(locked)
    )


def _states(database: HoldDatabase, number: int) -> list[str]:
    stored = database.read(number)
    try:
        misplaced = database.connection.execute(_MISPLACED, (number,)).fetchone()
    except UNREADABLE as error:
        raise DamagedMessageError(f"the file is damaged where its lot is kept: {error}") from error
    if misplaced:
        raise DamagedMessageError("a copy is in a lot that it does not belong to")
    return [str(record.state) for record in stored.records]


def backup(database: HoldDatabase, path: Path) -> None:
    """Copy the store as it is at this moment to a new file; other connections go on reading and writing."""
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    source = database.connection
    try:
        with closing(apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)) as target:
            source.execute("BEGIN")  # one view of the source for all steps: a write meanwhile starts nothing anew
            try:
                source.execute("SELECT 1 FROM note").fetchall()
                with target.backup("main", source, "main") as copying:
                    while not copying.done:
                        copying.step(_STEP)
            finally:
                source.execute("ROLLBACK")
        os.link(draft, path)  # unlike rename, never replaces a file
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def _structure(connection: apsw.Connection) -> Iterator[str]:
    try:
        for (line,) in connection.execute(f"PRAGMA integrity_check({MOST_LISTED})"):
            if line != "ok":
                yield " ".join(str(line).split())
        yield from miscounted(connection)
    except UNREADABLE as error:
        yield str(error)

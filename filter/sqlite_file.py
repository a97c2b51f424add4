"""What every SQLite file of ours has in common: made once, under its name only when complete, and brought up to date.

A lock file beside it says by its content that the file was made, so that none is made in place of a lost one. Errors of
SQLite and of the system pass through.
"""

import os
from pathlib import Path
from typing import Final

import apsw

from .durable import sync_directory

LEAST_SQLITE: Final = 3_051_003  # versions before can damage a file in WAL mode that several connections write
BUSY_TIMEOUT: Final = 10_000  # milliseconds to wait for another process's commit


def was_made(path: Path, lock: int) -> bool:
    """Whether there was a file at `path` before: its lock file (open) says so, or its log is there."""
    log = path.with_name(path.name + "-wal")
    return bool(os.fstat(lock).st_size) or (log.exists() and log.stat().st_size > 0)


def note_made(lock: int) -> None:
    """Have the lock file (open) say, durably, that the file was made."""
    if not os.fstat(lock).st_size:
        os.pwrite(lock, b"made\n", 0)
        os.fsync(lock)


def make(
    path: Path, migrations: tuple[str, ...], application_id: int, *, pragmas: str = "", vfs: str | None = None
) -> None:
    """A new file, in WAL mode, under its name only when it is complete. `pragmas` come first. Called under the lock."""
    draft = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        connection.execute(f"{pragmas}PRAGMA synchronous=FULL")
        migrate(connection, migrations, application_id)
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close(True)
    draft.rename(path)
    sync_directory(path.parent)


def migrate(connection: apsw.Connection, migrations: tuple[str, ...], application_id: int) -> None:
    """Bring the file up to date, all or nothing; each entry leads from the version that is its position to the next."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[version(connection) :]:
            connection.execute(migration)
        connection.execute(f"PRAGMA application_id={application_id}; PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def version(connection: apsw.Connection) -> int:
    """Which version of its tables the file has."""
    return int(connection.pragma("user_version"))


def too_new(path: Path, found: int, newest: int) -> str:
    """What is said of a file that newer code wrote."""
    return (
        f"{path}: version {found} was written by a newer consentry; this one reads up to version {newest}: "
        "use the newer one, or put back the backup made before the update"
    )

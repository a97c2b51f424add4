"""The file of campaigns: made, opened, and brought up to date.

    DIR/campaigns.sqlite (-wal, -shm)    SQLite in WAL mode, opened by every worker and the command line
    DIR/campaigns.lock                   held while the file is made or brought up to date; says that it was made

Every commit is on the disk when it returns (synchronous=FULL). A file that newer code wrote is refused, so is one that
is no file of campaigns, and none is made in place of a lost one: decisions would be gone in silence. `open_file` raises
HoldDataError naming the file; errors of the system pass through.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import apsw

from . import sqlite_file
from .campaigns import Decided
from .durable import make_directory
from .hold_codec import HoldDataError
from .sqlite_file import BUSY_TIMEOUT, LEAST_SQLITE
from .store_directory import locked

FILE_NAME: Final = "campaigns.sqlite"
LOCK_NAME: Final = "campaigns.lock"
APPLICATION_ID: Final = 0x436F4361  # "CoCa"
TALLIES: Final = ("labels", "recipients", "declared")  # names of what `campaigns.Seen` counts by value
_TABLES: Final = ("campaign", "tally", "alert", "decision", "counter")


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_FIRST: Final = f"""
CREATE TABLE campaign (
    campaign TEXT PRIMARY KEY,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    disguised INTEGER NOT NULL,
    subject TEXT NOT NULL,
    sample TEXT NOT NULL,
    sender TEXT NOT NULL,
    client TEXT NOT NULL,
    user TEXT NOT NULL,
    controller TEXT NOT NULL,
    brand TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX campaign_last ON campaign (last_at);
CREATE TABLE tally (
    campaign TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ({_words(TALLIES)})),
    value TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (campaign, kind, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE alert (campaign TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE decision (
    id INTEGER PRIMARY KEY,
    campaign TEXT NOT NULL,
    decided TEXT NOT NULL CHECK (decided IN ({_words(Decided)})),
    why TEXT NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    needs_second INTEGER NOT NULL,
    approver TEXT NOT NULL,
    approved_at INTEGER NOT NULL,
    withdrawn_at INTEGER NOT NULL,
    withdrawn_by TEXT NOT NULL,
    evidence TEXT NOT NULL
) STRICT;
CREATE INDEX decision_campaign ON decision (campaign, id);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counter (name, value) VALUES ('decisions', 0);
"""  # noqa: S608 - names are ours
# Each entry leads from the version that is its position to the next. Add; never change one that was released.
MIGRATIONS: Final = (_FIRST,)


def open_file(
    directory: Path, *, create: bool = True, migrations: tuple[str, ...] = MIGRATIONS
) -> tuple[apsw.Connection, apsw.Connection]:
    """Two connections to the file of campaigns in `directory`, to write and to read; made if missing and `create`."""
    if apsw.SQLITE_VERSION_NUMBER < LEAST_SQLITE:
        raise HoldDataError(f"SQLite {apsw.sqlite_lib_version()}: campaigns need 3.51.3 or newer; update apsw")
    path = directory / FILE_NAME
    try:
        if create:
            make_directory(directory)
            with locked(directory / LOCK_NAME) as lock:
                _make_first(path, lock, migrations)
        writer = _connect(path, lambda connection: _bring_up(connection, path, migrations))
        return writer, _connect(path, lambda connection: connection.execute("PRAGMA query_only=ON"))
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _damaged(path, error) from error
    except apsw.Error as error:
        raise HoldDataError(f"{path}: the file of campaigns cannot be opened: {error}") from error


def _make_first(path: Path, lock: int, migrations: tuple[str, ...]) -> None:
    """Make the file if there never was one. Called under the lock, an open file."""
    if not path.exists():
        if sqlite_file.was_made(path, lock):
            raise HoldDataError(
                f"{path}: gone, though it was made before: decisions on campaigns may be lost. "
                f"Put it back from a backup, or remove {path.with_name(LOCK_NAME)} to begin without any"
            )
        sqlite_file.make(path, migrations, APPLICATION_ID)
    sqlite_file.note_made(lock)


def _connect(path: Path, prepare: Callable[[apsw.Connection], object]) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.pragma("synchronous", "full")
        prepare(connection)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _bring_up(connection: apsw.Connection, path: Path, migrations: tuple[str, ...]) -> None:
    """Refuse what is not our file or of a version we do not know; bring up to date what is older."""
    if connection.pragma("application_id") != APPLICATION_ID:
        raise _damaged(path, "not a file of campaigns")
    found = sqlite_file.version(connection)
    if found > len(migrations):
        raise HoldDataError(sqlite_file.too_new(path, found, len(migrations)))
    connection.pragma("journal_mode", "wal")  # a file that was restored by other means may have lost it
    if found < len(migrations):
        with locked(path.with_name(LOCK_NAME)):
            sqlite_file.migrate(connection, migrations, APPLICATION_ID)
    for table in _TABLES:
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608 - a closed list of names


def _damaged(path: Path, found: object) -> HoldDataError:
    return HoldDataError(
        f"{path}: damaged: {' '.join(str(found).split())}; nothing was changed. "
        "Keep the file with its -wal beside it, put a backup in its place, and start again"
    )

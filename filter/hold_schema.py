"""The file of held mail: made, opened, brought up to date, and looked over.

    DIR/held.sqlite (-wal, -shm)    SQLite in WAL mode, opened by every worker
    DIR/lock                        held while the file is made or brought up to date; says that it was made

Every commit is on the disk when it returns (synchronous=FULL). A version of the schema is a migration; a file that
newer code wrote is refused, so is one that is damaged in its structure, and a file is never made in place of a lost
one. `open_file` raises `HoldDataError` naming the file; errors of the system pass through.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import apsw

from . import sqlite_file
from .durable import make_directory
from .held import ENDED, Action, CopyState
from .hold_codec import HoldDataError
from .policy import Disposition
from .ports import Known
from .sqlite_file import BUSY_TIMEOUT, LEAST_SQLITE, version
from .store_directory import locked

FILE_NAME: Final = "held.sqlite"
APPLICATION_ID: Final = 0x436F4864  # "CoHd"
PAGE_SIZE: Final = 8192  # a typical body is 5 to 15 kB compressed: fewer overflow pages than with 4096
UNREADABLE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, UnicodeDecodeError)  # what damage looks like
CHECK_TIME: Final = 2.0  # seconds for looking over the structure when a worker starts
_LAYOUT: Final = f"PRAGMA page_size={PAGE_SIZE}; PRAGMA auto_vacuum=INCREMENTAL; "
MAX_LOG: Final = 64 << 20  # octets that a log file keeps after it was emptied


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_FIRST: Final = f"""
CREATE TABLE message (
    id INTEGER PRIMARY KEY,  -- received_at * 2^20 and more: in the order of arrival
    queue_id TEXT NOT NULL UNIQUE,
    received_at INTEGER NOT NULL,
    mail BLOB NOT NULL,
    mail_size INTEGER NOT NULL,
    mail_eight_bit INTEGER NOT NULL,
    mail_smtputf8 INTEGER NOT NULL,
    trace BLOB NOT NULL,
    origin BLOB NOT NULL,
    label TEXT NOT NULL,
    score REAL NOT NULL,
    ruleset TEXT NOT NULL,
    declared TEXT NOT NULL,
    controller TEXT NOT NULL,
    brand TEXT NOT NULL,
    topic TEXT NOT NULL,
    campaign TEXT NOT NULL,
    facts TEXT NOT NULL,
    size INTEGER NOT NULL,
    copies INTEGER NOT NULL,
    digest BLOB NOT NULL,
    key_id TEXT NOT NULL,
    wrapped_key BLOB NOT NULL
) STRICT;
CREATE INDEX message_by_key_id ON message (key_id);
CREATE TABLE content (
    message INTEGER PRIMARY KEY REFERENCES message (id),
    codec INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
-- Copies that are alike in all that may be asked of many: what is counted is counted by lot (hold_counts).
CREATE TABLE lot (
    id INTEGER PRIMARY KEY,
    campaign TEXT NOT NULL,
    label TEXT NOT NULL,
    declared TEXT NOT NULL,
    controller TEXT NOT NULL,
    brand TEXT NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT NOT NULL,
    UNIQUE (campaign, label, declared, controller, brand, topic, reason, evidence)
) STRICT;
CREATE TABLE lot_count (
    lot INTEGER NOT NULL REFERENCES lot (id),
    state TEXT NOT NULL,
    copies INTEGER NOT NULL,
    PRIMARY KEY (lot, state)
) STRICT, WITHOUT ROWID;
CREATE TABLE mix_count (members TEXT PRIMARY KEY, messages INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE copy (
    message INTEGER NOT NULL REFERENCES message (id),
    number INTEGER NOT NULL,
    lot INTEGER NOT NULL REFERENCES lot (id),
    recipient BLOB NOT NULL,
    subject_key BLOB NOT NULL,
    disposition TEXT NOT NULL
        CHECK (disposition IN ({_words((Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT))})),
    reason TEXT NOT NULL,
    notes TEXT NOT NULL,
    consent TEXT NOT NULL,
    evidence TEXT NOT NULL,
    digest BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({_words(CopyState)})),
    changed_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    order_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    mark INTEGER NOT NULL,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX copy_by_lot ON copy (lot, state);
CREATE INDEX copy_by_subject ON copy (subject_key) WHERE subject_key != x'';
CREATE INDEX copy_due ON copy (order_id, due_at) WHERE state = 'released';
CREATE INDEX copy_void ON copy (changed_at) WHERE state = 'void';
CREATE TABLE message_key (
    key BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ({_words(Known)})),
    at INTEGER NOT NULL,
    PRIMARY KEY (key, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_key_at ON message_key (at);
CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    action TEXT NOT NULL CHECK (action IN ({_words(Action)})),
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    why TEXT NOT NULL,
    despite INTEGER NOT NULL,
    waiting INTEGER NOT NULL  -- copies that are released by it
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_waiting ON orders (id) WHERE waiting > 0;
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
TABLES: Final = ("message", "content", "copy", "lot", "lot_count", "mix_count", "message_key", "orders", "note")
_PRUNING: Final = f"""
CREATE INDEX copy_ended ON copy (changed_at) WHERE state IN ({_words(sorted(ENDED))});
CREATE INDEX copy_by_order ON copy (order_id) WHERE order_id != '';
"""
# Each entry leads from the version that is its position to the next. Add; never change one that was released.
MIGRATIONS: Final = (_FIRST, _PRUNING)


def open_file(
    directory: Path,
    *,
    vfs: str | None = None,
    readonly: bool = False,
    create: bool = True,
    migrations: tuple[str, ...] = MIGRATIONS,
) -> apsw.Connection:
    """A connection to the file of held mail in `directory`; made if there was none and `create`, unless `readonly`."""
    if apsw.SQLITE_VERSION_NUMBER < LEAST_SQLITE:
        raise HoldDataError(f"SQLite {apsw.sqlite_lib_version()}: held mail needs 3.51.3 or newer; update apsw")
    path = directory / FILE_NAME
    try:
        if create and not readonly:
            make_directory(directory)
            with locked(directory / "lock") as lock:
                if not path.exists():
                    _refuse_loss(path, lock)
                    sqlite_file.make(path, migrations, APPLICATION_ID, pragmas=_LAYOUT, vfs=vfs)
                sqlite_file.note_made(lock)
        return _open(path, vfs, migrations, readonly=readonly)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _damaged(path, error) from error
    except apsw.Error as error:
        raise HoldDataError(f"{path}: held mail cannot be opened: {error}") from error


def look_over(connection: apsw.Connection, seconds: float = CHECK_TIME) -> str:
    """What is wrong with the structure of the file, empty for nothing found in that time."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except apsw.InterruptError:
        return ""
    except UNREADABLE as error:
        return str(error)
    finally:
        connection.set_progress_handler(None)
    return "" if found == ["ok"] else found[0]


def refuse_damage(connection: apsw.Connection, seconds: float = CHECK_TIME) -> None:
    """Write to no file whose structure is damaged: raises HoldDataError. Reading from it may still be possible."""
    path = Path(connection.filename)
    try:
        found = look_over(connection, seconds)
    except apsw.Error as error:
        raise HoldDataError(f"{path}: held mail cannot be read: {error}") from error
    if found:
        raise _damaged(path, found)


def _open(path: Path, vfs: str | None, migrations: tuple[str, ...], *, readonly: bool) -> apsw.Connection:
    connection = _connect(path, vfs, readonly=readonly)
    try:
        _inspect(connection, path, len(migrations), readonly=readonly)
        if not readonly:
            connection.pragma("journal_mode", "wal")  # a file that was restored by other means may have lost it
        if version(connection) < len(migrations):
            with locked(path.parent / "lock"):
                sqlite_file.migrate(connection, migrations, APPLICATION_ID)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _damaged(path: Path, found: object) -> HoldDataError:
    return HoldDataError(
        f"{path}: damaged: {' '.join(str(found).split())}; nothing was changed. "
        "Keep the file with its -wal beside it, put a backup in its place or move both away, and start again"
    )


def _connect(path: Path, vfs: str | None, *, readonly: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    if readonly:
        connection.execute("PRAGMA writable_schema=ON")  # opens a file that lost its end, to read what is left
    connection.execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=FAST").fetchall()  # no row leaves octets in its page
    connection.execute(f"PRAGMA journal_size_limit={MAX_LOG}").fetchall()
    return connection


def _inspect(connection: apsw.Connection, path: Path, newest: int, *, readonly: bool) -> None:
    """Whether this is our file, of a version we know, and its tables can be reached."""
    if connection.pragma("application_id") != APPLICATION_ID:
        raise _damaged(path, "not a file of held mail")
    found = version(connection)
    if found > newest:
        raise HoldDataError(sqlite_file.too_new(path, found, newest))
    if readonly and found < newest:
        raise HoldDataError(f"{path}: version {found} was written by an older consentry; start this one to update it")
    for table in TABLES:
        try:
            connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608 - a closed list of names
        except apsw.SQLError as error:
            raise _damaged(path, error) from error
        except UNREADABLE:
            if not readonly:
                raise


def _refuse_loss(path: Path, lock: int) -> None:
    """Make no file in place of one that was there."""
    if sqlite_file.was_made(path, lock):
        raise HoldDataError(
            f"{path}: gone, though it was made before: held mail may be lost. "
            f"Put it back from a backup, or move {path.parent} away to begin anew"
        )

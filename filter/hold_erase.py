"""Held mail removed so that nothing of it can be read any more, and its keys wrapped anew.

What is erased is overwritten in the file (SQLite's secure_delete), and the log, which has it from before, is emptied.
Somebody who reads meanwhile may keep the log from being emptied: then a note stays, and the workers' store empties it
when it can (`finish_erasing`). Backups are not reached.

Raises `apsw.Error`, and HoldUnavailableError as `HoldWriter.transact` does.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast

import apsw

from .held import Place
from .hold_database import HoldDatabase
from .hold_lines import by_message
from .hold_writer import Action, HoldWriter
from .ports import HoldUnavailableError
from .sealing import SealError, UnknownKeyError

_NOTE: Final = "erased"  # the log may still have something
_MOST: Final = 1000  # copies in one transaction

_OF_SUBJECT: Final = (
    "SELECT message, number FROM copy INDEXED BY copy_by_subject WHERE subject_key = ? AND subject_key != x'' LIMIT ?"
)
_OLD_KEY: Final = "SELECT min(key_id) FROM message WHERE key_id > ? AND key_id != ?"
_OLD_KEYS: Final = (
    "SELECT id, wrapped_key FROM message INDEXED BY message_by_key_id WHERE key_id = ? AND id > ? ORDER BY id LIMIT ?"
)


def erase_message(writer: HoldWriter, queue_id: str) -> bool:
    """Erase a message; whether there was one."""
    found: list[int] = []

    def action(database: HoldDatabase) -> None:
        found.clear()
        number = database.number(queue_id)
        if number is not None:
            database.remove(number)
            database.note(_NOTE, "log")
            found.append(number)

    _securely(writer, action)
    if found:
        _try_to_finish(writer)
    return bool(found)


def erase_subjects(writer: HoldWriter, subjects: Sequence[str]) -> int:
    """Erase the copies of a recipient, and messages that have none left; how many copies."""
    erased: list[Place] = []
    for key in {bytes.fromhex(subject) for subject in subjects if subject}:
        while True:
            found: list[Place] = []

            def action(database: HoldDatabase, key: bytes = key, found: list[Place] = found) -> None:
                found.clear()
                rows = cast("list[tuple[int, int]]", database.connection.execute(_OF_SUBJECT, (key, _MOST)).fetchall())
                found.extend(Place(*row) for row in rows)
                _remove(database, found)
                if found:
                    database.note(_NOTE, "log")

            _securely(writer, action)
            erased += found
            if len(found) < _MOST:
                break
    if erased:
        _try_to_finish(writer)
    return len(erased)


def finish_erasing(writer: HoldWriter) -> None:
    """Empty the log if something was erased that may still be in it; nothing if readers keep it from being emptied."""
    if _NOTE in writer.database.notes() and writer.clear_log():
        writer.transact([lambda database: database.forget_note(_NOTE)])


def _try_to_finish(writer: HoldWriter) -> None:
    with suppress(apsw.Error, HoldUnavailableError):  # it is erased already, and the note stays
        finish_erasing(writer)


def rewrap(database: HoldDatabase, limit: int) -> int:
    """Wrap the keys of up to so many messages with the current master key, within a transaction; how many were.

    Those that cannot be opened are passed over.
    """
    connection, current = database.connection, database.vault.current
    done, key_id = 0, ""
    while done < limit:
        key_id = cast("str | None", connection.execute(_OLD_KEY, (key_id, current)).get) or ""
        if not key_id:
            break
        done += _rewrap_from(database, key_id, limit - done)
    return done


def _rewrap_from(database: HoldDatabase, key_id: str, limit: int) -> int:
    """The same for the messages whose key is wrapped by one master key."""
    done, last = 0, -1
    while done < limit:
        rows = database.connection.execute(_OLD_KEYS, (key_id, last, limit)).fetchall()
        if not rows:
            break
        for last, wrapped in cast("list[tuple[int, bytes]]", rows):
            try:
                fresh, current = database.vault.rewrap(key_id, wrapped)
            except UnknownKeyError:
                return done
            except SealError:
                continue
            database.connection.execute(
                "UPDATE message SET wrapped_key = ?, key_id = ? WHERE id = ?", (fresh, current, last)
            )
            done += 1
            if done == limit:
                break
    return done


def _remove(database: HoldDatabase, places: Sequence[Place]) -> None:
    """Remove these copies, and messages that have none left."""
    for message, numbers in by_message(places).items():
        database.remove_copies(message, numbers)


def _securely(writer: HoldWriter, action: Action) -> None:
    """Do it, and overwrite every page that becomes free by it."""
    writer.database.connection.execute("PRAGMA secure_delete=ON").fetchall()
    try:
        writer.transact([action])
    finally:
        writer.database.connection.execute("PRAGMA secure_delete=FAST").fetchall()

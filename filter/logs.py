"""The log: one line on standard error for each event, `TIME level event key=value ...`; never an address or content.

`event` is what our own code calls. Records of libraries go through the same formatter, from WARNING on. An exception is
written as its type and where it was raised, without its text, which may quote mail. Never raises.
"""

import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, equals sign and backslash
_MAX_TEXT: Final = 2000
_MAX_FRAMES: Final = 12
_log: Final = logging.getLogger("consentry")


def event(level: int, name: str, /, **fields: object) -> None:
    """Write one event; `name` is lower case with underscores, a `None` field is left out."""
    if _log.isEnabledFor(level):
        _log.log(level, name, extra={"fields": fields})


def fault(name: str, error: BaseException, /, **fields: object) -> None:
    """Write an event about an exception nobody expected: its type and the places it came through."""
    event(ERROR, name, **fields, error=type(error).__name__, at=_places(error))


def configure(stream: TextIO | None = None, *, pid: int | None = None) -> None:
    """Send every record of this process to `stream` (standard error); `pid` stands in each line if given."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LineFormatter(pid))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a closed standard error must not stop the mail


class _LineFormatter(logging.Formatter):
    """A record as one line."""

    def __init__(self, pid: int | None) -> None:
        super().__init__()
        self._pid = pid

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name, fields = record.msg, getattr(record, "fields", None)
        if fields is None:  # a library's
            name, fields = "library", {"logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[1]:
                fields |= {"error": type(record.exc_info[1]).__name__, "at": _places(record.exc_info[1])}
        if self._pid is not None:
            fields = {"pid": self._pid, **fields}
        shown = (f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
        return " ".join([at, record.levelname.lower(), str(name), *shown])


def _places(error: BaseException) -> str:
    """`module:line function` for each frame of the traceback, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def _shown(value: Any) -> str:
    """A value bare if that is unmistakable, else in quotes with everything unprintable escaped."""
    text = str(value)[:_MAX_TEXT]
    if _BARE.fullmatch(text):
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else character.encode("unicode_escape").decode()

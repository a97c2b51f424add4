"""What the demo starts from: a directory of its own, consent records dated relative to today, and the mail to send.

The records in `config/demo` are written as seen on `AS_OF`. They are moved by whole days, so that what has run out or
was said last week has done so on whatever day the demo runs. Raises `DemoError`, and OSError from the disk.
"""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import getaddresses
from pathlib import Path
from typing import Final

from .durable import write_file
from .errors import ConsentryError
from .evidence import CHARITY_START, EventKind
from .message import parse_message
from .resources import config_dir
from .store_directory import OWNER_FILE, StoreDirectoryError, locked

AS_OF: Final = date(2026, 11, 20)  # the day from which the records look back
SOURCE: Final = config_dir() / "demo"
CACHE: Final = "cache"  # kept from run to run, as it only saves time
_MARK: Final = ".consentry-demo"
_DATE: Final = re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)")
_CHARITY_START: Final = datetime.fromtimestamp(CHARITY_START / 1000, UTC).date()


class DemoError(ConsentryError):
    """The demo cannot be shown."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A message of the mailbox with the envelope it is sent with; `content` has CRLF lines."""

    file: Path
    sender: str
    recipients: tuple[str, ...]
    subject: str
    message_id: str
    content: bytes


def prepare(directory: Path, today: date) -> Path:
    """Make the demo directory anew, but for compiled rules; gives the file with consent records.

    A directory that is not the demo's own is left alone, and so is one in which a demo is running.
    """
    mark, store = directory / _MARK, directory / "store"
    if directory.exists() and any(directory.iterdir()) and not mark.is_file():
        raise DemoError(f"{directory}: not empty and no demo directory; name another with --dir")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch()
    store.mkdir(mode=0o700, exist_ok=True)
    _empty(store)
    records = directory / "consents.csv"
    write_file(records, moved((SOURCE / "consents.csv").read_text("utf-8"), today).encode(), replace=True)
    return records


def _empty(store: Path) -> None:
    try:
        with locked(store / OWNER_FILE, wait=False):
            for old in store.iterdir():
                if old.is_dir() and old.name != CACHE:
                    shutil.rmtree(old)
                elif old.name not in (CACHE, OWNER_FILE):
                    old.unlink()
    except StoreDirectoryError as error:  # somebody has the lock
        raise DemoError(f"{store.parent}: a demo is running there; end it, or name another with --dir") from error


def moved(records: str, today: date) -> str:
    """The consent records with every date moved by the days from `AS_OF` to `today`.

    One date is law and stands still: a charity's record from before its soft opt-in existed stays before that day.
    """
    return "".join(_moved(line, today - AS_OF) for line in records.splitlines(keepends=True))


def _moved(line: str, by: timedelta) -> str:
    first = _DATE.search(line)
    if first and f",{EventKind.CHARITY_SOFT_OPT_IN}," in line and date.fromisoformat(first[0]) < _CHARITY_START:
        return line
    return _DATE.sub(lambda found: str(date.fromisoformat(found[0]) + by), line)


def mailbox() -> list[Mail]:
    """The messages to send, in order."""
    return [_mail(file) for file in sorted((SOURCE / "mailbox").glob("*.eml"))]


def _mail(file: Path) -> Mail:
    raw = file.read_bytes().replace(b"\r\n", b"\n")
    message = parse_message(raw)
    identity = _field(raw, "message-id")[0]
    to = tuple(address for _, address in getaddresses(_field(raw, "to")))
    return Mail(file, message.from_address, to, message.subject, identity, raw.replace(b"\n", b"\r\n"))


def _field(raw: bytes, name: str) -> list[str]:
    """The values of a header field of a demo message."""
    head = raw.partition(b"\n\n")[0].replace(b"\n ", b" ").replace(b"\n\t", b" ").decode()
    pairs = (line.partition(":") for line in head.split("\n"))
    return [value.strip() for found, _, value in pairs if found.lower() == name]

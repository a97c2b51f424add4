"""Files that hold secret keys: made once and whole, for their owner only, read as hexadecimal or base64.

What a key is called and which error tells of it is the caller's to say. Operating system errors pass through. No key
ever appears in a message.
"""

import base64
import binascii
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .durable import make_directory, write_file
from .errors import ConsentryError

MAX_SIZE: Final = 1 << 16  # octets: some hundred keys


def read_private(path: Path, what: str, error: Callable[[str], ConsentryError]) -> str:
    """The text of `path`; refuses a file that group or others may read or write, or that is no file of keys."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise error(f"{path}: mode {mode:04o} lets others read the {what}; run: chmod 600 {path}")
        octets = file.read(MAX_SIZE + 1)
    if len(octets) > MAX_SIZE:
        raise error(f"{path}: more than {MAX_SIZE} octets: no {what}")
    return octets.decode("ascii", "replace")


def create_private(path: Path, text: str) -> None:
    """Write a new file, complete or not at all; leaves one that another process wrote first."""
    make_directory(path.parent)
    with suppress(FileExistsError):
        write_file(path, text.encode(), replace=False)


def decoded(text: str) -> bytes:
    """Hexadecimal or base64 (either alphabet, padded or not) to octets; nothing if it is neither."""
    stripped = text.strip()
    try:
        return bytes.fromhex(stripped)
    except ValueError:
        return _decode_base64(stripped)


def _decode_base64(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        return b""

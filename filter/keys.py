"""The secret key behind subject keys: read from the environment or a file, created on the first run.

Losing the key makes the consent index unreadable; leaking it makes the index guessable. So: created once, atomically,
mode 0600, synced to disk; a file that others may read is refused. Raises `ConsentDataError` that says what to do;
operating system errors other than "exists" and "missing" pass through. No key ever appears in a message.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import ConsentDataError
from .key_files import create_private, decoded, read_private

VARIABLE: Final = "CONSENTRY_SUBJECT_KEY"
KEY_SIZE: Final = 32  # octets of a key we create
_ALLOWED: Final = range(16, 65)  # BLAKE2b takes up to 64 octets; fewer than 16 can be searched


def load_key(path: Path, environ: Mapping[str, str] = os.environ, *, create: bool = True) -> bytes:
    """The subject key: from the environment if set there, else from `path`, created there if missing and `create`."""
    if VARIABLE in environ:
        return _decode(environ[VARIABLE], f"environment variable {VARIABLE}")
    with suppress(FileNotFoundError):
        return read_key(path)
    if not create:
        raise ConsentDataError(f"{path}: no subject key there; set {VARIABLE} or restore the key file")
    create_key(path)
    return read_key(path)


def read_key(path: Path) -> bytes:
    """The key in `path`; refuses a file that group or others may read or write."""
    return _decode(read_private(path, "subject key", ConsentDataError), str(path))


def create_key(path: Path) -> None:
    """Write a new random key to `path`, complete or not at all; leaves a key that another process wrote first."""
    create_private(path, secrets.token_hex(KEY_SIZE) + "\n")


def _decode(text: str, place: str) -> bytes:
    key = decoded(text)
    if len(key) not in _ALLOWED:
        raise ConsentDataError(f"{place}: not a subject key; allowed are 16 to 64 octets in hexadecimal or base64")
    return key

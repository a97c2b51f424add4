"""The master keys of held mail: read from the environment or a file, created on the first run, rotated.

One key of 32 octets for each line, in hexadecimal or base64; the first is current and wraps the keys of new messages,
the others only open what they wrapped once. Empty lines and those that begin with # say nothing. Losing a key makes
what it wrapped unreadable, so keep a copy of the file where you keep other keys.

Raises `HoldKeyError` that says what to do; operating system errors other than "exists" and "missing" pass through. No
key ever appears in a message.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from .durable import write_file
from .errors import ConsentryError
from .key_files import create_private, decoded, read_private
from .sealing import KEY_SIZE, Vault, key_id
from .store_directory import locked

VARIABLE: Final = "CONSENTRY_HOLD_KEYS"


class HoldKeyError(ConsentryError):
    """The keys of held mail cannot be used."""


def load_vault(path: Path, environ: Mapping[str, str] = os.environ, *, create: bool = True) -> Vault:
    """The vault: keys from the environment if set there, else from `path`, made there if missing and `create`.

    Do not `create` where mail is held already: what its lost key wrapped would not open. A vault from a file looks into
    it again when it meets an unknown key, so that a rotation elsewhere needs no restart.
    """
    if VARIABLE in environ:
        text = environ[VARIABLE].replace(",", "\n")
        return Vault.of(_parsed("\n".join(text.split()), f"environment variable {VARIABLE}"))
    with suppress(FileNotFoundError):
        return _vault(path)
    if not create:
        raise HoldKeyError(f"{path}: no hold key there; set {VARIABLE} or restore the key file")
    create_private(path, _new_line())
    return _vault(path)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in `path`, the current one first; refuses a file that group or others may read or write."""
    return _parsed(read_private(path, "hold keys", HoldKeyError), str(path))


def add_key(path: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Put a new current key into the file, before those that are there; its id. The file is whole at any time."""
    if VARIABLE in environ:
        raise HoldKeyError(f"environment variable {VARIABLE}: is set, so no key of a file counts; put a new one there")
    with locked(path.with_name(f".{path.name}.lock")):
        text = read_private(path, "hold keys", HoldKeyError)
        _parsed(text, str(path))
        line = _new_line()
        write_file(path, (line + text).encode(), replace=True)
    return key_id(decoded(line))


def _vault(path: Path) -> Vault:
    return Vault.of(read_keys(path), more=partial(_keys_now, path))


def _keys_now(path: Path) -> Sequence[bytes]:
    """The keys in the file as it is now; none if it cannot be used, which leaves those that are known."""
    with suppress(HoldKeyError, OSError):
        return read_keys(path)
    return ()


def _new_line() -> str:
    return secrets.token_hex(KEY_SIZE) + "\n"


def _parsed(text: str, place: str) -> tuple[bytes, ...]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = decoded(line)
            if len(key) != KEY_SIZE:
                raise HoldKeyError(
                    f"{place}: line {number}: not a hold key; allowed are {KEY_SIZE} octets in hexadecimal or base64"
                )
            keys.append(key)
    if not keys:
        raise HoldKeyError(
            f"{place}: no hold key; give one of {KEY_SIZE} octets in hexadecimal or base64 for each line"
        )
    return tuple(keys)

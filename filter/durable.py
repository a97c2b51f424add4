"""What outlives a crash: a new or renamed file is there after one only when its directory was synced too.

Files and directories made here are for their owner only. Operating system errors pass through.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make `directory`, mode 0700, and the ones above it, and their names durable; leaves one that is there."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    sync_directory(directory.parent)


def write_file(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file of mode 0600, whole or not at all, and durably.

    Without `replace` a file that is there already stays as it is, and FileExistsError is raised.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)  # unlike rename, never replaces a file
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)

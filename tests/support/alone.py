"""One process at a time: tests run in several, and what takes seconds to make or to fetch is to be made once.

    with alone("rules"):
        ...  # who comes second waits, and then finds what the first has made

Raises what the file system raises.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

LOCKS = Path(__file__).parents[2] / ".cache" / "locks"


@contextlib.contextmanager
def alone(name: str, *, directory: Path = LOCKS) -> Iterator[None]:
    """Have the lock of this name in `directory`; a process that ends, however, has it no longer."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

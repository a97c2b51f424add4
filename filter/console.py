"""What every command shares: where output goes, how errors end, how JSON is written.

Results go to standard output, everything else to standard error. Exit status: 0 fine, 1 something was found (a bad
line, a wrong label, a failed example), 2 the command could not do its work.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.status import Status

from .display import visible
from .errors import ConsentryError, InputError

FOUND: Final = 1
FAILED: Final = 2
_WIDE: Final = 160  # columns when nobody watches: lines of a log should not be cut at 80

out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)


def now() -> int:
    """The wall clock in epoch milliseconds; the one place where commands read it."""
    return time_ns() // 1_000_000


def write_json(document: Any) -> None:
    """One JSON document on a line of standard output; what is not printable stands in it as digits.

    JSON allows controls from U+007F on as they are, and some terminals obey them.
    """
    octets = orjson.dumps(document)
    if not octets.isascii() or b"\x7f" in octets:
        octets = _harmless(octets.decode()).encode()
    sys.stdout.buffer.write(octets + b"\n")


def _harmless(text: str) -> str:
    """JSON with nothing unprintable in its strings, which is the only place where such can stand."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def read_file(path: Path) -> bytes:
    """The octets of a file a command was given, `-` for standard input; InputError if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that work is going on; yields a function that changes the words."""
    if not err.is_terminal:
        yield lambda _words: None
        return
    with Status(what, console=err) as status:
        yield status.update


def run(command: Callable[[], None]) -> None:
    """Run the command line: an error becomes one message and exit status 2; a closed pipe ends quietly.

    A bug of ours keeps its traceback, and status 2: status 1 means that something was found.
    """
    try:
        command()
        sys.stdout.flush()
    except ConsentryError as error:
        _fail(str(error))
    except BrokenPipeError:
        _discard_output()  # the reader (head, less) has seen enough
        sys.exit(0)
    except OSError as error:
        _discard_output()
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except Exception:  # noqa: BLE001 -- printed in full, and told apart from a finding
        traceback.print_exc()
        sys.exit(FAILED)


def _fail(message: str) -> None:
    for line in f"consentry: {message}".splitlines():
        err.print(visible(line, "red"), soft_wrap=True)
    sys.exit(FAILED)


def _discard_output() -> None:
    """Send what is still to be written nowhere, or the interpreter would try again at exit, and complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def found_something() -> typer.Exit:
    """The way to end with status 1."""
    return typer.Exit(FOUND)

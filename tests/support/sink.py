"""Postfix's smtp-sink: a next hop that takes, refuses, delays or drops by command, and counts.

It is a fast and independent receiver, not an exact one: it drops every CR, so that CRLF, bare LF and a CR in a line can
no longer be told apart. Octets are compared with `support.script_sink`. A wait without success raises AssertionError.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support import parts
from support.processes import Process, free_port, wait_for_port, wait_until

COUNTERS = re.compile(rb"mesg=(\d+)\r")
BACKLOG = 100


@dataclass(frozen=True, slots=True)
class Received:
    """One message as smtp-sink wrote it: envelope arguments as sent, content with LF line ends and unstuffed dots."""

    helo: bytes
    mail: bytes
    rcpts: tuple[bytes, ...]
    content: bytes


class Sink:
    """smtp-sink on a port of its own, recording in `directory`. Options go to it as they are, for example
    `"-r", "RCPT"` (450), `"-f", "."` (500), `"-q", "DATA"` (drop), `"-Q", "MAIL"` (421), `"-W", "DATA:1"` (wait 1 s),
    `"-M", "5"` (end after five messages); all of them are in smtp-sink(1).
    """

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        part = parts.need("postfix")
        self.port = port or free_port()
        self._dump = directory / f"sink-{self.port}.messages"
        self._mark = f"--- {secrets.token_hex(16)}"  # content is not to be mistaken for the start of a message
        program = [part.program("smtp-sink"), "-c", "-S", f"{self._mark}\\n", "-D", str(self._dump).replace("%", "%%")]
        privileges = ["-u", "root"] if parts.is_root() else []  # it demands a user when it is started by root
        where = [f"127.0.0.1:{self.port}", str(BACKLOG)]
        self._process = Process(
            [*program, *privileges, *options, *where], part.environment, directory / f"sink-{self.port}.counters"
        )
        try:
            wait_for_port(self.port, self._process)
        except BaseException:
            self.stop()
            raise

    def count(self) -> int:
        """How many messages it has taken, whether or not it answered 250 (its own counter, which may be
        a moment behind `messages`).
        """
        counters = COUNTERS.findall(self._process.output.read_bytes() + b"\r")
        return int(counters[-1]) if counters else 0

    def messages(self) -> list[Received]:
        """Every message that came to its end, in that order; each is on file before its final reply is sent."""
        written = self._dump.read_bytes() if self._dump.exists() else b""
        return [_received(text) for text in written.split(f"{self._mark}\n".encode())[1:]]

    def wait(self, messages: int, *, seconds: float = 15) -> list[Received]:
        """Return the messages as soon as there are so many."""
        wait_until(lambda: len(self.messages()) >= messages, f"{messages} messages at smtp-sink", seconds=seconds)
        return self.messages()

    def stop(self) -> None:
        """End it; what it recorded stays readable."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


def _received(text: bytes) -> Received:
    """Take a dump apart: named lines of smtp-sink, its Received field of three lines, content, an empty line."""
    own, _, rest = text.partition(b"\nReceived: ")
    named: dict[bytes, list[bytes]] = {}
    for line in own.splitlines():
        name, _, value = line.partition(b": ")
        named.setdefault(name, []).append(value)
    content = rest.split(b"\n", 3)[3].removesuffix(b"\n")
    (mail,) = named[b"X-Mail-Args"]
    return Received(_first(named.get(b"X-Helo-Args", [])), mail, tuple(named.get(b"X-Rcpt-Args", [])), content)


def _first(values: Sequence[bytes]) -> bytes:
    return values[0] if values else b""

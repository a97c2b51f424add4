"""The words of a scripted SMTP server: what it is told to answer, and what it has recorded. Computation only.

`path_of` raises AssertionError for a line without a path; nothing else is raised here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

PATH = re.compile(rb'<((?:"(?:\\.|[^"\\])*"|[^">])*)>')


@dataclass(frozen=True, slots=True)
class Reply:
    """What happens when a command has come: wait, send these octets (in one piece or one by one), go on or close.

    `reset` closes with RST instead of FIN. `cut_after` is for DATA: having replied, read that many octets and close.
    """

    octets: bytes
    delay: float = 0.0
    close: bool = False
    reset: bool = False
    one_by_one: bool = False
    cut_after: int | None = None

    @property
    def good(self) -> bool:
        """Whether it says that the command was completed (2yz)."""
        return self.octets[:1] == b"2"


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it came: its verb, the whole line without CRLF, the number of its connection, and how often this
    verb has come before, both counted over the life of the server from 0.
    """

    verb: str
    line: bytes
    connection: int
    occurrence: int


Script = Mapping[str, Reply | Sequence[Reply | None] | Callable[[Command], Reply | None]]


@dataclass(slots=True)
class Transaction:
    """What one MAIL command began. `mail` and `rcpts` are lines as sent, `accepted` the RCPT lines answered by 2yz.

    `data` is what came between 354 and the line with the dot, octet by octet, dots still stuffed; None if that line
    never came. `answered` is the first digit of the reply to it, noted just before it is sent (b"" if there is none).
    """

    connection: int
    helo: bytes
    tls: bool
    user: bytes | None
    mail: bytes
    rcpts: list[bytes] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    data: bytes | None = None
    answered: bytes = b""

    @property
    def message(self) -> bytes | None:
        """The content with its dots unstuffed (RFC 5321 section 4.5.2)."""
        return None if self.data is None else re.sub(rb"(\A|\r\n)\.", rb"\1", self.data)

    @property
    def mail_from(self) -> bytes:
        """The reverse-path between its brackets."""
        return path_of(self.mail)

    @property
    def rcpt_tos(self) -> list[bytes]:
        """The accepted forward-paths between their brackets."""
        return [path_of(line) for line in self.accepted]


def reply(*lines: str | bytes, **how: Any) -> Reply:
    """Lines as given, CRLF after each; `how` are fields of Reply: `reply("421 Bye", close=True, delay=0.2)`."""
    octets = b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines)
    return replace(Reply(octets), **how)


def drop(**how: Any) -> Reply:
    """Close without an answer: `drop()`, `drop(delay=1)`, `drop(reset=True)`."""
    return replace(Reply(b"", close=True), **how)


def path_of(line: bytes) -> bytes:
    """The path of a MAIL or RCPT line, without brackets."""
    found = PATH.search(line)
    assert found, line
    return found[1]


def scripted(script: Script, command: Command) -> Reply | None:
    """What a script says to a command; None where it leaves the server its usual reply."""
    said = script.get(command.verb)
    if said is None or isinstance(said, Reply):
        return said
    if callable(said):
        return said(command)
    return said[command.occurrence] if command.occurrence < len(said) else None

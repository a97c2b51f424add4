"""Postfix's smtp-source: a client that sends many messages, in parallel sessions if asked.

AssertionError on its time limit.
"""

from pathlib import Path

from support import parts
from support.processes import Done, run


def smtp_source(
    port: int,
    *extra: str,
    messages: int = 1,
    sessions: int = 1,
    sender: str = "news@bank.example",
    recipient: str = "alex@customer.example",
    recipients: int = 1,
    file: Path | None = None,
    length: int | None = None,
    reuse: bool = True,
    seconds: float = 30,
) -> Done:
    """Send messages to 127.0.0.1 and wait for the end; exit code 0 when every reply was the expected one.

    Several `recipients` of a transaction are numbered downwards (3alex@…, 2alex@…, alex@…); `extra=("-N",)` numbers
    every recipient anew. `file` is a whole message with LF line ends, to which smtp-source adds an empty line; without
    it, it makes up `length` octets of text. `reuse` sends one message after the other over one connection.
    """
    part = parts.need("postfix")
    command = [part.program("smtp-source"), "-m", str(messages), "-s", str(sessions), "-r", str(recipients)]
    command += ["-f", sender, "-t", recipient, "-M", "source.example"]
    command += ["-d"] if reuse else []
    command += ["-F", str(file)] if file else []
    command += ["-l", str(length)] if length is not None else []
    return run([*command, *extra, f"127.0.0.1:{port}"], part.environment, seconds=seconds)

"""swaks, the scriptable SMTP client. AssertionError on its time limit."""

from pathlib import Path

from support import parts
from support.processes import Done, run

# What its exit codes say, as far as tests ask (swaks manual, EXIT CODES).
CONNECTION_FAILED, MAIL_REFUSED, RCPT_REFUSED, DATA_REFUSED, TLS_FAILED = 2, 23, 24, 26, 29


def swaks(
    port: int,
    *arguments: str,
    sender: str = "news@bank.example",
    recipients: str = "alex@customer.example",
    message: Path | None = None,
    seconds: float = 30,
) -> Done:
    """Send one message to 127.0.0.1; gives swaks' exit code and its transcript of the session.

    `recipients` may be several, with commas. `message` is a file with a whole message, otherwise swaks makes one; it
    ends lines by CRLF and adds one, so that an LF at the end of the file becomes an empty line.
    `arguments` are swaks' own, for example `"--tls"`, `"--pipeline"`, `"--quit-after", "RCPT"`.
    """
    part = parts.need("swaks")
    command = [part.program("swaks"), "--server", "127.0.0.1", "--port", str(port), "--helo", "swaks.example"]
    command += ["--from", sender, "--to", recipients, "--timeout", str(int(seconds))]
    command += ["--data", f"@{message}"] if message else []
    # HOME holds a .swaksrc on the machines of those who use it.
    return run([*command, *arguments], {**part.environment, "HOME": "/nonexistent"}, seconds=seconds)

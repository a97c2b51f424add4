"""`consentry run` and `consentry users`.

What runs the relay is loaded by the command that needs it, so that all others start quickly.
"""

import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from . import logs
from .cli_options import NeededConfigFile
from .errors import InputError
from .users import hash_password

run_commands = typer.Typer()
users_commands = typer.Typer(help="Users who may log in to relay mail.", no_args_is_help=True)
run_commands.add_typer(users_commands, name="users")


@run_commands.command()
def run(config: NeededConfigFile) -> None:
    """Run the relay: takes mail by SMTP, judges it, hands it on. SIGHUP reloads the configuration, SIGTERM drains."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload that comes now finds nothing read yet
    from . import supervisor  # noqa: PLC0415 -- see the top

    logs.configure()
    supervisor.run(config, _announce)


def _announce(line: str) -> None:
    with suppress(OSError):  # nobody reads it: that is no reason not to serve
        print(line, flush=True)  # noqa: T201 -- whoever waits for "ready" reads it


@users_commands.command("hash")
def users_hash(
    name: Annotated[
        str | None, typer.Argument(help="User; with it a whole line is printed.", show_default=False)
    ] = None,
) -> None:
    """Print the hash of a password for the users file; asks for the password, or reads a line of standard input."""
    if sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        hashed = hash_password(password)
    except ValueError as error:
        raise InputError(f"password: {error}") from None
    typer.echo(f"{name}:{hashed}" if name else hashed)

"""The options that several commands have in common, and what they stand for when they are not given."""

import os
import pwd
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("-c", "--config", envvar="CONSENTRY_CONFIG", help="Configuration file.", show_default="every default"),
]
NeededConfigFile = Annotated[
    Path,
    typer.Option("-c", "--config", envvar="CONSENTRY_CONFIG", help="Configuration file.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output, one JSON document a line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Why = Annotated[str, typer.Option(help="The reason, which is kept with the order or decision.", show_default=False)]
Author = Annotated[str, typer.Option(help="Who says so.", show_default="login name")]


def login_name() -> str:
    """Who runs the command: whoever called sudo, or the owner of the process."""
    caller = os.environ.get("SUDO_USER", "")
    if caller:
        return caller
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

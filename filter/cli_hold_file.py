"""`consentry held check` and `held backup`: the file of held mail as a whole, while the relay runs or not.

Both read only. Held mail in PostgreSQL has that server's own tools for it.
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import apsw
import typer

from . import app, console, hold_check, hold_stores
from .cli_options import AsJson, ConfigFile
from .config import Config
from .display import counted, visible
from .errors import InputError
from .hold_codec import HoldDataError
from .hold_database import HoldDatabase

hold_file_commands = typer.Typer()


@hold_file_commands.command()
def check(*, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Read every held message and verify every octet; says what is damaged, and ends with status 1 if anything is.

    What is damaged stays where it is, and stands in no list or count.
    """
    with closing(_open(app.settings(config))) as database, console.busy("Reading held mail …"):
        try:
            found = hold_check.check(database)
        except apsw.Error as error:
            raise HoldDataError(f"{database.connection.filename}: cannot be read: {error}") from error
    if as_json:
        console.write_json(
            {
                "sound": found.sound,
                "messages": found.messages,
                "copies": dict(found.copies),
                "damaged": found.damaged,
                "damage": [{"queue_id": one.queue_id, "what": one.what} for one in found.damage],
                "structure": list(found.structure),
                "locked": dict(found.locked),
            }
        )
    else:
        _tell(found)
    if not found.sound:
        raise console.found_something()


def _tell(found: hold_check.Findings) -> None:
    read = counted(found.messages, "message was", "messages were")
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(found.copies.items()))
    console.out.print(f"{read} read{f'; copies: {states}' if states else ''}.")
    for one in found.damage:
        console.out.print(visible(f"{one.queue_id or 'a message without a name'}: {one.what}", "bold red"))
    if found.damaged > len(found.damage):
        console.out.print(f"… and {found.damaged - len(found.damage):,} more.")
    for line in found.structure:
        console.out.print(visible(line, "bold red"))
    for key_id, count in sorted(found.locked.items()):
        sealed = counted(count, "message is", "messages are")
        console.out.print(visible(f"{sealed} sealed under the master key {key_id}, which is not there.", "bold red"))
    if found.sound:
        console.out.print("Every octet is as it was stored.")
    else:
        console.out.print("Put a backup in its place, or release what can be read: consentry held list")


@hold_file_commands.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.", show_default=False)],
    *,
    config: ConfigFile = None,
) -> None:
    """Copy held mail, as it is at this moment, into a new file; it stays sealed, so keep the master keys as well."""
    with closing(_open(app.settings(config))) as database, console.busy("Copying …"):
        try:
            hold_check.backup(database, file)
        except FileExistsError:
            raise InputError(f"{file}: is there already; name a new file") from None
        except apsw.Error as error:
            raise HoldDataError(f"{database.connection.filename}: cannot be copied: {error}") from error
    console.out.print(visible(f"Held mail is in {file}. Without its master keys nobody can read it."))


def _open(config: Config) -> HoldDatabase:
    """The file, to read from."""
    if config.store.url:
        raise InputError("held mail is in PostgreSQL (store.url): check it and back it up with that server's tools")
    hold_stores.refuse_nothing(config.store)
    return HoldDatabase.open(hold_stores.directory(config.store), app.vault(config), readonly=True)

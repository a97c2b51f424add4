"""`consentry held`: look at held mail, count it, erase it, and change the key it is sealed under.

What moves copies (release, discard, expire) stands in `cli_orders`. Nothing here fetches or runs what a message names.
"""

import sys
from typing import Annotated, Final

import typer
from rich.prompt import Confirm

from . import app, console, events
from .campaigns import RARE
from .cli_hold_file import hold_file_commands
from .cli_options import AsJson, Author, ConfigFile, Yes, login_name
from .cli_orders import order_commands
from .cli_query import AnyState, query, subjects, with_options
from .display import counted, visible
from .errors import InputError
from .held import By, HeldQuery
from .held_documents import held_document, line_document, order_document, tally_document
from .held_view import lines_table, message_page, orders_table, tally_table
from .master_keys import add_key
from .reviewing import ReviewStores, command_journal, judge, review_stores

held_commands = typer.Typer(help="Held mail: look, count, release, discard, expire, erase.", no_args_is_help=True)

_PAGE: Final = 1000  # copies read at a time
_SHOWN: Final = 100  # copies in a table
_TOP: Final = 20  # values of each property
_COUNTED: Final = (By.STATE, By.LABEL, By.REASON, By.DECLARED, By.CONTROLLER, By.BRAND, By.TOPIC, By.RULE, By.CAMPAIGN)


@held_commands.command("list")
@with_options(AnyState)
def list_(
    *,
    conditions: AnyState,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Most copies to list; 0: all.", show_default=f"{_SHOWN}, with --json all")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List held copies, the oldest first."""
    settings = app.settings(config)
    default = 0 if as_json else _SHOWN
    most = default if limit is None else limit
    with review_stores(settings) as stores:
        asked = query(conditions, settings, stores.held, stores.ledger, console.now())
        more = _list(stores, asked, most, as_json=as_json)
    if more:
        console.err.print(f"There are more; --limit says how many to list (now {most}).")


def _list(stores: ReviewStores, asked: HeldQuery, most: int, *, as_json: bool) -> bool:
    """Write the copies that match; whether there are more than were asked for."""
    left, last, found = most, None, False
    while page := stores.held.lines(asked, last, _PAGE):
        shown = page[:left] if most else page
        found = True
        if as_json:
            for line in shown:
                console.write_json(line_document(line))
        else:
            console.out.print(lines_table(shown, console.now()))
        left, last = left - len(shown), page[-1].place
        if most and left <= 0:
            return len(shown) < len(page) or bool(stores.held.lines(asked, last, 1))
    if not found and not as_json:
        console.out.print("No copy matches.")
    return False


@held_commands.command()
def show(
    queue_id: Annotated[str, typer.Argument(help="The message, as listed.", show_default=False)],
    *,
    whole: Annotated[bool, typer.Option("--whole", help="All of its text, however long.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Its octets as received, into a file or a pipe.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show a held message: its envelope, the verdict on each copy, its header and text. Nothing is fetched."""
    if raw and _to_terminal():
        raise InputError("--raw writes what the message holds, which may take over a terminal: send it into a file")
    settings = app.settings(config)
    with review_stores(settings) as stores:
        found = stores.held.message(queue_id)
    if found is None:
        raise InputError(f"{queue_id}: no such message is held")
    held, lines = found
    if raw:
        if not held.content:
            raise InputError(f"{queue_id}: its content is gone")
        sys.stdout.buffer.write(held.content)
        return
    judged = judge(settings, held) if held.content else None
    if as_json:
        console.write_json(held_document(held, lines, judged))
    else:
        console.out.print(message_page(held, lines, judged, whole=whole))


def _to_terminal() -> bool:
    """Whether somebody's terminal would get what is written."""
    return sys.stdout.isatty()


@held_commands.command()
@with_options(AnyState)
def stats(
    *,
    conditions: AnyState,
    by: Annotated[list[By] | None, typer.Option(help="Count by this; may be repeated.", show_default="each")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Count held copies by what is known of them."""
    settings = app.settings(config)
    with review_stores(settings) as stores:
        asked = query(conditions, settings, stores.held, stores.ledger, console.now())
        counted = [(one, stores.held.tally(asked, one)) for one in by or _COUNTED]
    if as_json:
        for one, tallies in counted:
            for tally in tallies:
                console.write_json(tally_document(one, tally))
        return
    if not any(tallies for _, tallies in counted):
        console.out.print("No copy matches.")
        return
    for one, tallies in counted:
        shown = tallies if by else tallies[:_TOP]
        console.out.print(tally_table(one, shown, console.now()))
        if len(shown) < len(tallies):
            console.out.print(f"… {len(tallies) - len(shown)} more; --by {one} lists all")
        console.out.print()


@held_commands.command()
def orders(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Most orders to list.")] = _TOP,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the orders that were given, the newest first, and how many of their copies wait to be delivered."""
    with review_stores(app.settings(config)) as stores:
        given = stores.held.orders()
        found = [(order, stores.held.waiting(order.id)[0]) for order in given[:limit]]
    if as_json:
        for order, waiting in found:
            console.write_json({**order_document(order), "waiting": waiting})
    elif found:
        console.out.print(orders_table(found, console.now()))
        if len(found) < len(given):
            console.err.print(f"There are more; --limit says how many to list (now {limit}).")
    else:
        console.out.print("No order was given.")


held_commands.registered_commands += order_commands.registered_commands + hold_file_commands.registered_commands


@held_commands.command()
def erase(
    *,
    recipient: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Erase every copy for this address, +number or push:TOKEN; -: from stdin.",
            show_default=False,
        ),
    ] = "",
    queue_id: Annotated[str, typer.Option(metavar="ID", help="Erase this message.", show_default=False)] = "",
    author: Author = "",
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Erase held mail for good, in any state: nothing of it can be read or released afterwards.

    The journal keeps its lines, which hold subject keys and neither addresses nor content.
    """
    if bool(recipient) == bool(queue_id):
        raise InputError("give one of --recipient ADDRESS and --queue-id ID")
    settings = app.settings(config)
    keys = subjects(settings, recipient) if recipient else ()
    with review_stores(settings) as stores:
        asked = HeldQuery(states=frozenset(), subjects=keys, queue_id=queue_id)
        copies = sum(one.copies for one in stores.held.tally(asked, By.STATE))
        if copies:
            _confirm_erasing(copies, recipient or queue_id, yes=yes)
            campaigns = [one.value for one in stores.held.tally(asked, By.CAMPAIGN) if one.value]
            named = keys or [line.subject for line in stores.held.lines(asked, None, _PAGE)]
            with command_journal(settings) as journal:
                journal.write([events.erased(queue_id, console.now(), named, copies, author.strip() or login_name())])
            stores.ledger.erase(campaigns, RARE)  # first: afterwards nobody knows which they were
            if recipient:
                copies = stores.held.erase_subjects(keys)
            elif not stores.held.erase_message(queue_id):
                copies = 0
    if as_json:
        console.write_json({"erased": copies})
    else:
        console.out.print(
            f"Erased {counted(copies, 'copy', 'copies')}." if copies else "No copy matches; nothing was erased."
        )


def _confirm_erasing(copies: int, what: str, *, yes: bool) -> None:
    if yes:
        return
    console.err.print(visible(f"To be erased for good: {counted(copies, 'copy', 'copies')}, {what}"))
    if not sys.stdin.isatty():
        raise InputError("--yes is needed where nobody can be asked")
    if not Confirm.ask("Erase?", console=console.err, default=False):
        raise typer.Exit(console.FAILED)


@held_commands.command("rotate-key")
def rotate_key(
    *,
    rewrap_only: Annotated[
        bool, typer.Option("--rewrap-only", help="Make no new key; wrap the rest with the current one.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make a new master key, and wrap the keys of all held messages with it.

    Workers that run wrap new messages with the earlier key until they are reloaded (SIGHUP). Reload, run this again
    with --rewrap-only, and then the earlier key may be taken out of the file.
    """
    settings = app.settings(config)
    with review_stores(settings):
        pass  # a key is made only where there is something that it can wrap
    made = "" if rewrap_only else add_key(settings.hold_key_file)
    wrapped = 0
    with review_stores(settings) as stores, console.busy("Wrapping …") as say:
        while done := stores.held.rewrap():
            wrapped += done
            say(f"Wrapping … {wrapped:,} messages")
    if as_json:
        console.write_json({"key_id": made, "wrapped": wrapped})
        return
    console.out.print(f"New master key {made} in {settings.hold_key_file}." if made else "No new key was made.")
    console.out.print(f"Wrapped the keys of {counted(wrapped, 'message', 'messages')} with the current one.")

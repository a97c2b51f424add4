"""`consentry held release|discard|expire`: orders about held mail, placed, carried out and told.

An order is kept before anything moves, and the same one can be given again: it goes on where it stopped. Every released
copy is checked again right before it goes; who objected does not get it, whatever the order says.
"""

import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm

from . import app, console
from .cli_options import AsJson, Author, ConfigFile, Yes, login_name
from .cli_query import Conditions, query, with_options
from .config import Config
from .display import counted, visible
from .errors import InputError
from .held import Action, By, CopyState, HeldLine, HeldQuery, Order
from .held_documents import order_document
from .held_view import in_words
from .ports import Journal
from .reviewing import ReviewStores, command_journal, command_metrics, review_stores

if TYPE_CHECKING:
    from .metrics import Metrics

order_commands = typer.Typer()

OrderId = Annotated[
    str, typer.Option("--order", metavar="ID", help="Go on with this order, given before.", show_default=False)
]
OptionalWhy = Annotated[str, typer.Option(help="The reason; kept with the order. Required.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Everything that is held, if no condition is given.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Leave the delivery to the relay that runs, and do not wait for it.")
]
Despite = Annotated[
    bool,
    typer.Option(
        "--despite",
        help="Release what is held only because something is not known: no consent on record, stale data, unsure. "
        "On your responsibility, and kept in the journal. Objections and blocks stop a copy all the same.",
    ),
]
TellSenders = Annotated[bool, typer.Option("--tell-senders", help="Send a report to their senders, where one is due.")]

_DONE: Final = {
    Action.RELEASE: "{} to be delivered by order {} of {}: {}",
    Action.DISCARD: "Discarded {} by order {} of {}: {}",
    Action.EXPIRE: "Expired {} by order {} of {}: {}",
}
CHECKED: Final = (
    "Each is checked again right before it goes: what promotes does not go to those who object. "
    "What was delivered cannot be called back."
)
_OUTCOMES: Final = {
    CopyState.DELIVERED: "{} were delivered to the next hop.",
    CopyState.EXPIRED: "{} expired, after their senders were told where that is due.",
    CopyState.BOUNCED: "{} were refused for good; their senders were told where that is due.",
    CopyState.RELEASED: "{} could not be delivered now; the relay tries again while it runs.",
    CopyState.HELD: "{} were stopped by the check:",
}
_ENDS: Final = frozenset(_OUTCOMES)
_RECHECK: Final = "recheck: "  # before the reason, in the outcome of a copy that was stopped
_PAGE: Final = 1000
_LOOK_EVERY: Final = 0.5  # seconds
_PATIENCE: Final = 30.0  # seconds in which a relay should get on with what it took


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How an order is placed: by whom and why, asked before or not, waited for or not, or the one placed before."""

    why: str
    author: str
    yes: bool = False
    no_wait: bool = False
    despite: bool = False
    tell_senders: bool = False
    order: str = ""


@dataclass(slots=True)
class Placed:
    """What became of an order; `order` is None if nothing matched. Counts are copies.

    `states` and `stopped` (by reason) are those of all that it ever moved, whoever delivered them; empty if nobody
    waited for that.
    """

    order: Order | None = None
    moved: int = 0  # in this run
    passed_over: int = 0  # which an earlier run had released, and were stopped
    states: Counter[CopyState] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    left: bool = False  # to the relay
    unreachable: bool = False  # the next hop
    unavailable: bool = False  # the hold store

    @property
    def whole(self) -> bool:
        """Whether everything went as ordered."""
        waits = self.waiting and not self.left
        away = self.unreachable or self.unavailable
        return not (self.stopped or away or self.states[CopyState.BOUNCED] or waits)


@order_commands.command()
@with_options(Conditions)
def release(
    *,
    conditions: Conditions,
    why: OptionalWhy = "",
    author: Author = "",
    everything: Everything = False,
    despite: Despite = False,
    no_wait: NoWait = False,
    order: OrderId = "",
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Release held copies: consent and policy are checked again for each, right before it goes.

    What may not go stays held. What the next hop cannot take now is tried again by the relay.
    """
    how = How(why=why, author=author, yes=yes, no_wait=no_wait, despite=despite, order=order)
    _place_and_tell(Action.RELEASE, conditions, how, app.settings(config), everything=everything, as_json=as_json)


@order_commands.command()
@with_options(Conditions)
def discard(
    *,
    conditions: Conditions,
    why: OptionalWhy = "",
    author: Author = "",
    everything: Everything = False,
    order: OrderId = "",
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Discard held copies: they are never delivered, and their content goes. Senders are not told."""
    how = How(why=why, author=author, yes=yes, order=order)
    _place_and_tell(Action.DISCARD, conditions, how, app.settings(config), everything=everything, as_json=as_json)


@order_commands.command()
@with_options(Conditions)
def expire(
    *,
    conditions: Conditions,
    why: OptionalWhy = "",
    author: Author = "",
    everything: Everything = False,
    tell_senders: TellSenders = False,
    no_wait: NoWait = False,
    order: OrderId = "",
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Expire held copies before their time (hold.retention): they are never delivered, and their content goes."""
    how = How(why=why, author=author, yes=yes, no_wait=no_wait, tell_senders=tell_senders, order=order)
    _place_and_tell(Action.EXPIRE, conditions, how, app.settings(config), everything=everything, as_json=as_json)


def _place_and_tell(
    action: Action, conditions: Conditions, how: How, settings: Config, *, everything: bool, as_json: bool
) -> None:
    _refuse_unclear(conditions, how, everything=everything)
    with review_stores(settings) as stores:
        asked = query(conditions, settings, stores.held, stores.ledger, console.now())
        placed = place(settings, stores, action, asked, how)
    tell(placed, as_json=as_json)
    if not placed.whole:
        raise console.found_something()


def _refuse_unclear(conditions: Conditions, how: How, *, everything: bool) -> None:
    """Which copies are meant has to be said, in one way."""
    if everything and conditions.given():
        raise InputError("--all is for everything that is held: leave it out, or the conditions")
    if how.order and not everything and not conditions.given():
        raise InputError(f"--order {how.order}: give the same conditions as before with it, or --all if that was given")
    if not everything and not conditions.given():
        raise InputError("say which copies: give conditions such as --campaign, or --all for everything that is held")


def place(settings: Config, stores: ReviewStores, action: Action, asked: HeldQuery, how: How) -> Placed:
    """Give an order about the copies that match, see it carried out, and say what became of it."""
    from .release import Orders  # noqa: PLC0415 - what counts takes a while to load, and most commands need none of it

    order = _order(stores, action, how)
    copies = sum(one.copies for one in stores.held.tally(asked, By.STATE))
    waiting, _ = stores.held.waiting(order.id) if how.order else (0, 0)
    if not copies and not waiting:
        return Placed()
    if not how.yes:
        agree(stores, asked, action, _warning(order, how))
    again = f"Order {order.id}; to go on with it after an interruption, the same command with --order {order.id}"
    console.err.print(visible(again, "dim"), soft_wrap=True)
    placed, metrics = Placed(order, left=how.no_wait), command_metrics()
    with command_journal(settings) as journal:
        orders = Orders(stores.held, journal, metrics, console.now)
        orders.keep(order)
        journal.assure()  # nothing is moved that is not on record
        with _bar("Moving", copies) as (bar, task):
            done = orders.carry_out(
                order,
                asked,
                told=how.tell_senders,
                progress=lambda moved: bar.update(task, completed=moved.visited),
            )
        placed.moved, placed.passed_over = done.moved, done.passed_over
        if not how.no_wait and (action is Action.RELEASE or how.tell_senders):
            import uvloop  # noqa: PLC0415 - as above: only what delivers needs it

            uvloop.run(_deliver(settings, stores, journal, metrics, placed))
            _see_to_its_end(stores, asked, placed)
    placed.waiting, _ = stores.held.waiting(order.id)
    return placed


def _order(stores: ReviewStores, action: Action, how: How) -> Order:
    """A new order, or the one that was given before."""
    if how.order:
        given = next((one for one in stores.held.orders() if one.id == how.order), None)
        if given is None:
            raise InputError(f"--order {how.order}: no such order was given")
        if given.action is not action:
            raise InputError(f"--order {how.order}: this is an order to {given.action}")
        if how.despite and not given.despite:
            raise InputError(f"--order {how.order}: was given without --despite, which needs an order of its own")
        return given
    if not how.why.strip():
        raise InputError("--why: say why; the reason is kept with the order")
    at = console.now()
    day = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y%m%d")
    name = f"{action}-{day}-{secrets.token_hex(4)}"
    author = how.author.strip() or login_name()
    return Order(name, action, at, author, how.why.strip(), how.despite)


def agree(stores: ReviewStores, asked: HeldQuery, action: Action, warning: str) -> None:
    """Say what the copies are that match, and ask whether it is meant; does not return if it is not."""
    by_reason = stores.held.tally(asked, By.REASON)
    messages = sum(one.messages for one in stores.held.tally(asked, By.STATE))
    copies = counted(sum(one.copies for one in by_reason), "held copy", "held copies")
    reasons = ", ".join(f"{one.value or 'no reason'} {one.copies:,}" for one in by_reason)
    console.err.print(visible(f"{copies} of {counted(messages, 'message', 'messages')} ({reasons})."))
    console.err.print(visible(warning, "bold"))
    if not sys.stdin.isatty():
        raise InputError("--yes is needed where nobody can be asked; nothing was done")
    if not Confirm.ask(f"{action.capitalize()} them?", console=console.err, default=False):
        console.err.print("Nothing was done.")
        raise typer.Exit(console.FAILED)


def _warning(order: Order, how: How) -> str:
    """What cannot be undone."""
    if order.action is not Action.RELEASE:
        told = "are told where that is due" if how.tell_senders else "are not told"
        return f"They are gone for good, and their senders {told}."
    return f"{CHECKED} Those of whom no consent is known GET it." if order.despite else CHECKED


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar:
        yield bar, bar.add_task(what, total=total)


async def _deliver(
    settings: Config, stores: ReviewStores, journal: Journal, metrics: "Metrics", placed: Placed
) -> None:
    """Deliver what is due of the order, in this process."""
    from . import releasing  # noqa: PLC0415 - loads the way to the next hop, which no other command needs

    name = placed.order.id if placed.order else ""
    with _bar("Delivering", stores.held.waiting(name)[0]) as (bar, task):
        async with releasing.for_command(settings, stores, journal, metrics, console.now) as releaser:
            done = await releaser.run(name, lambda so_far: bar.update(task, completed=so_far.copies))
    placed.unreachable, placed.unavailable = done.unreachable, done.unavailable


def _see_to_its_end(stores: ReviewStores, asked: HeldQuery, placed: Placed) -> None:
    """Wait for what a relay took out of our hands, as long as it gets on; then look what became of everything."""
    name = placed.order.id if placed.order else ""
    before, since = -1, monotonic()
    while not (placed.unreachable or placed.unavailable) and (under_way := _under_way(stores, asked, name)):
        if under_way != before:
            before, since = under_way, monotonic()
        elif monotonic() - since > _PATIENCE:
            break
        sleep(_LOOK_EVERY)
    for line in _moved_by(stores, replace(asked, states=_ENDS), name):
        placed.states[line.state] += 1
        if line.state is CopyState.HELD:
            placed.stopped[line.outcome.removeprefix(_RECHECK)] += 1


def _under_way(stores: ReviewStores, asked: HeldQuery, name: str) -> int:
    """How many copies nobody has tried to deliver yet."""
    released = _moved_by(stores, replace(asked, states=frozenset({CopyState.RELEASED})), name)
    return sum(not line.attempts for line in released)


def _moved_by(stores: ReviewStores, asked: HeldQuery, name: str) -> Iterator[HeldLine]:
    """The copies that match and were moved by this order, page by page."""
    last = None
    while page := stores.held.lines(asked, last, _PAGE):
        last = page[-1].place
        yield from (line for line in page if line.order == name)


def tell(placed: Placed, *, as_json: bool) -> None:
    """Write what became of an order."""
    if as_json:
        console.write_json(placed_document(placed))
    elif placed.order is None:
        console.out.print("No held copy matches; nothing was done.")
    else:
        for line in _lines(placed, placed.order):
            console.out.print(visible(line), soft_wrap=True)


def placed_document(placed: Placed) -> dict[str, object]:
    """What became of an order; counts are copies."""
    return {
        "order": order_document(placed.order) if placed.order else None,
        "moved": placed.moved,
        "passed_over": placed.passed_over,
        "states": {str(state): count for state, count in sorted(placed.states.items())},
        "stopped": dict(placed.stopped),
        "waiting": placed.waiting,
        "unreachable": placed.unreachable,
        "unavailable": placed.unavailable,
    }


def _lines(placed: Placed, order: Order) -> Iterator[str]:
    yield _DONE[order.action].format(counted(placed.moved, "copy", "copies"), order.id, order.author, order.why)
    if placed.passed_over:
        yield f"{placed.passed_over:,} were stopped by an earlier run of this order and stay held."
    for state, words in _OUTCOMES.items():
        if count := placed.states[state]:
            yield words.format(f"{count:,}")
    for reason, count in placed.stopped.most_common():
        yield f"  {count:,} stay held: {in_words(reason)}"
    if placed.unreachable:
        yield "None of next_hop.hosts could be reached."
    if placed.unavailable:
        yield "The hold store could not be used."
    if placed.waiting and placed.waiting != placed.states[CopyState.RELEASED]:
        yield f"{placed.waiting:,} wait to be delivered; the relay sees to them while it runs."

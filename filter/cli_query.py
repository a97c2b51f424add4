"""The options by which commands are told which held copies are meant, and the query that they amount to.

`with_options` gives a command these options besides its own, as one value. Raises InputError for values that cannot be
used, and what the stores raise when a campaign is looked up by the beginning of its name.
"""

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from typing import Annotated, Any, Final, get_type_hints

import typer

from . import app
from .campaigns import CampaignLedger
from .config import Config
from .config_values import duration
from .errors import AddressError, InputError
from .held import By, CopyState, HeldMail, HeldQuery
from .labels import Channel, Label
from .policy import Reason

CAMPAIGN_DIGITS: Final = 32
_CAMPAIGN: Final = re.compile(r"[0-9a-f]{1,32}")
EVERY_STATE: Final = "all"


def _asked(text: str, metavar: str | None = None) -> Any:
    """An option that is a condition."""
    return typer.Option(help=text, metavar=metavar, show_default=False, rich_help_panel="Which copies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Which held copies: each that is given must hold."""

    campaign: Annotated[str, _asked("Campaign, or how its name begins.")] = ""
    label: Annotated[Label | None, _asked("What the message was judged to be.")] = None
    reason: Annotated[Reason | None, _asked("Why it is held, as listed.", "REASON")] = None
    rule: Annotated[str, _asked("Rule in the evidence.")] = ""
    declared: Annotated[str, _asked("What the sender claimed.")] = ""
    controller: Annotated[str, _asked("Controller of the stream.")] = ""
    brand: Annotated[str, _asked("Brand of the stream.")] = ""
    topic: Annotated[str, _asked("Topic of the stream.")] = ""
    recipient: Annotated[str, _asked("Copies for this address, +number or push:TOKEN; -: from stdin.", "ADDRESS")] = ""
    queue_id: Annotated[str, _asked("Copies of this message.", "ID")] = ""
    older_than: Annotated[str, _asked("Received before that: 36h, 7d.", "DURATION")] = ""
    newer_than: Annotated[str, _asked("Received since then.", "DURATION")] = ""

    def states(self) -> frozenset[CopyState]:
        """The states that are asked for."""
        return frozenset({CopyState.HELD})

    def given(self) -> dict[str, str]:
        """What was given, by the names of the options."""
        named = {name.replace("_", "-"): value for name, value in asdict(self).items() if value}
        return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in named.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyState(Conditions):
    """The same, of copies that are not held any more as well."""

    state: Annotated[
        list[str] | None,
        typer.Option(
            help=f"State of the copy, or {EVERY_STATE}; may be repeated.",
            show_default="held",
            rich_help_panel="Which copies",
        ),
    ] = None

    def states(self) -> frozenset[CopyState]:
        """The states that are asked for; none means every state."""
        if not self.state:
            return frozenset({CopyState.HELD})
        if EVERY_STATE in self.state:
            return frozenset()
        unknown = set(self.state) - set(CopyState)
        if unknown:
            allowed = ", ".join([*CopyState, EVERY_STATE])
            raise InputError(f"--state {', '.join(sorted(unknown))}: must be one of {allowed}")
        return frozenset(CopyState(state) for state in self.state)


def with_options(kind: type[Conditions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `kind`, handed to its parameter `conditions` as one value."""
    hints = get_type_hints(kind, include_extras=True)
    offered = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(kind)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)

        @wraps(command)
        def called(**values: Any) -> None:
            conditions = kind(**{one.name: values.pop(one.name) for one in offered})
            command(conditions=conditions, **values)

        parameters = [one for one in own.parameters.values() if one.name != "conditions"]
        called.__dict__["__signature__"] = own.replace(parameters=[*parameters, *offered])  # what the library asks for
        called.__annotations__ = {one.name: one.annotation for one in (*parameters, *offered)}
        return called

    return decorate


def query(conditions: Conditions, config: Config, held: HeldMail, ledger: CampaignLedger, at: int) -> HeldQuery:
    """The query that the options amount to, at that time (epoch milliseconds)."""
    return HeldQuery(
        states=conditions.states(),
        campaign=campaign_name(conditions.campaign, held, ledger) if conditions.campaign else "",
        label=conditions.label or "",
        rule=conditions.rule,
        reason=conditions.reason or "",
        declared=conditions.declared,
        controller=conditions.controller,
        brand=conditions.brand,
        topic=conditions.topic,
        subjects=subjects(config, conditions.recipient) if conditions.recipient else (),
        queue_id=conditions.queue_id,
        received_from=at - milliseconds("--newer-than", conditions.newer_than) if conditions.newer_than else 0,
        received_before=at - milliseconds("--older-than", conditions.older_than) if conditions.older_than else 0,
    )


def subjects(config: Config, address: str) -> tuple[str, ...]:
    """The subject keys under which copies for an address are kept, one for each key in use.

    It is a mail address, a number that begins with "+", or one of another channel behind its name: "push:TOKEN".
    For `-` it is the first line of standard input: the arguments of a command are for every user of a machine to see.
    """
    if address == "-":
        address = sys.stdin.readline().strip()
    try:
        return (app.keyer(config, create=False).subject(*_with_channel(address)).exact.hex(),)
    except AddressError as error:
        raise InputError(f"--recipient {address}: {error}") from None


def _with_channel(address: str) -> tuple[str, Channel]:
    """The address itself, and for which channel it is one; channels that share numbers share keys."""
    name, colon, rest = address.partition(":")
    if colon and name in tuple(Channel):
        return rest, Channel(name)
    return address, Channel.SMS if address.startswith("+") and "@" not in address else Channel.EMAIL


def campaign_name(beginning: str, held: HeldMail, ledger: CampaignLedger) -> str:
    """The campaign whose name begins so; a whole name may be that of one nobody has seen."""
    name = beginning.lower()
    if not _CAMPAIGN.fullmatch(name):
        raise InputError(f"campaign {beginning}: must be 1 to {CAMPAIGN_DIGITS} hexadecimal digits")
    if len(name) == CAMPAIGN_DIGITS:
        return name
    line = ledger.campaign(name)
    found = {one.value for one in held.tally(HeldQuery(states=frozenset()), By.CAMPAIGN) if one.value.startswith(name)}
    found |= {line.campaign} if line else set()
    if len(found) != 1:
        what = f"{len(found)} campaigns begin so; give more of its name" if found else "no campaign begins so"
        raise InputError(f"campaign {beginning}: {what}")
    return found.pop()


def milliseconds(option: str, text: str) -> int:
    """A duration such as 36h or 7d; `option` names it where it cannot be read."""
    try:
        return int(duration(text).total_seconds() * 1000)
    except ValueError as error:
        raise InputError(f"{option} {text}: must be {error}") from None

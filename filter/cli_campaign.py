"""`consentry campaign`: what is known of each campaign, one sample of it, and what reviewers decide about it."""

from collections.abc import Collection
from time import sleep
from typing import Annotated, Final

import typer

from . import app, console
from .campaigns import CampaignDecision, CampaignLine, Decided, as_of
from .cli_options import AsJson, Author, ConfigFile, Why, Yes, login_name
from .cli_orders import How, NoWait, Placed, agree, place, tell
from .cli_query import campaign_name, milliseconds
from .config import Config
from .decision_evidence import evidence_of
from .display import counted, visible
from .errors import InputError
from .explain import decided_line
from .held import Action, By, CopyState, HeldQuery
from .held_documents import campaign_document, decision_line_document, held_document
from .held_view import SHORT, campaign_page, campaigns_table, message_page, next_steps
from .ports import HeldMessage
from .reviewing import ReviewStores, judge, review_stores

campaign_commands = typer.Typer(
    help="Campaigns: list, show a sample, decide for all copies of one.", no_args_is_help=True
)

CampaignName = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="The campaign, or how its name begins.", show_default=False)
]
_COUNTS_WITHIN: Final = 1.0  # seconds until a decision counts everywhere

ApplyToHeld = Annotated[
    bool, typer.Option("--apply-to-held", help="Release the copies that are held already, each checked again.")
]
_SHOWN: Final = 50
_MOST: Final = 100_000
_TOP: Final = 10
_HELD: Final = frozenset({CopyState.HELD})
_WARNING: Final = (
    "As service mail they go to those who had objected, too; each is checked again right before it goes, and those who "
    "objected since do not get it. What was delivered cannot be called back."
)


@campaign_commands.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Most campaigns to list.")] = _SHOWN,
    newest: Annotated[bool, typer.Option("--newest", help="Those seen last first.")] = False,
    undecided: Annotated[bool, typer.Option("--undecided", help="Only those on which no decision counts.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List campaigns, those with most held copies first."""
    at = console.now()
    with review_stores(app.settings(config)) as stores:
        decided = {one.campaign for one in stores.ledger.decisions() if one.in_force(at)} if undecided else set[str]()
        found = _campaigns(stores, limit, decided)
    found.sort(key=lambda one: (-one[0].last_at, one[0].campaign) if newest else (-one[1], -one[0].last_at))
    if as_json:
        for line, held in found[:limit]:
            console.write_json(campaign_document(line, held))
    elif found:
        console.out.print(campaigns_table(found[:limit], at))
        if len(found) > limit:
            console.err.print(f"There are more; --limit says how many to list (now {limit}).")
    else:
        console.out.print("No campaign was seen." if not undecided else "No campaign waits for a decision.")


def _campaigns(stores: ReviewStores, limit: int, without: Collection[str]) -> list[tuple[CampaignLine, int]]:
    """The campaigns seen last, and those of which most is held, each with its held copies, one more than `limit`."""
    most = limit + 1
    held = {one.value: one for one in stores.held.tally(HeldQuery(), By.CAMPAIGN) if one.value}
    seen = [line for line in stores.ledger.campaigns(most + len(without)) if line.campaign not in without]
    lines = {line.campaign: line for line in seen[:most]}
    for name in [name for name in held if name not in without][:most]:
        if name not in lines:
            lines[name] = stores.ledger.campaign(name) or CampaignLine(
                campaign=name, first_at=held[name].oldest, last_at=held[name].newest, messages=held[name].messages
            )
    return [(line, held[name].copies if name in held else 0) for name, line in lines.items()]


@campaign_commands.command()
def show(
    campaign: CampaignName,
    *,
    whole: Annotated[bool, typer.Option("--whole", help="All text of the sample, however long.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show a campaign: what was seen of it, what is held, every decision about it, and one held message."""
    settings = app.settings(config)
    with review_stores(settings) as stores:
        name = campaign_name(campaign, stores.held, stores.ledger)
        line = stores.ledger.campaign(name)
        history = stores.ledger.history(name)
        asked = HeldQuery(campaign=name)
        tallies = {by: stores.held.tally(asked, by)[:_TOP] for by in (By.LABEL, By.REASON, By.RULE)}
        sample = _sample(stores, line, asked)
    at = console.now()
    if line is None and not history and not any(tallies.values()):
        raise InputError(f"campaign {campaign}: never seen, and nobody has decided about it")
    line = line or CampaignLine(campaign=name, first_at=0, last_at=0, messages=0)
    held = sum(one.copies for one in tallies[By.LABEL])
    judged = judge(settings, sample) if sample else None
    if as_json:
        document = campaign_document(line, held)
        document["history"] = [decision_line_document(one) for one in history]
        document["sample_message"] = held_document(sample, {}, judged) if sample else None
        console.write_json(document)
        return
    console.out.print(campaign_page(line, tallies, history, at))
    if sample is None:
        console.out.print("\nThere is no held message to show.")
    else:
        console.out.print("\nOne of its messages:")
        console.out.print(message_page(sample, {}, judged, whole=whole))
    if held and as_of(history[::-1], at) is None:
        console.out.print(next_steps(name))


def _sample(stores: ReviewStores, line: CampaignLine | None, asked: HeldQuery) -> HeldMessage | None:
    """A message of the campaign whose content is still there: the one in the ledger, or the oldest that is held."""
    candidates = [line.sample] if line and line.sample else []
    candidates += [one.queue_id for one in stores.held.lines(asked, None, 1)]
    for queue_id in candidates:
        found = stores.held.message(queue_id)
        if found and found[0].content:
            return found[0]
    return None


@campaign_commands.command()
def decide(
    campaign: CampaignName,
    decided: Annotated[
        Decided, typer.Argument(metavar="DECISION", help=f"What it is: {' or '.join(Decided)}.", show_default=False)
    ],
    *,
    why: Why,
    author: Author = "",
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="For how long it counts: 90d.", show_default="until withdrawn")
    ] = "",
    apply_to_held: ApplyToHeld = False,
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Decide what a campaign is: all workers apply it to later copies within a second.

    is_service lets its copies through as service mail, to objectors as well, as long as the rules find no other
    promotion in them than in those held so far; is_marketing has them judged as marketing.
    """
    if apply_to_held and decided is not Decided.IS_SERVICE:
        raise InputError("--apply-to-held releases copies, which is_marketing never does: they stay held")
    settings = app.settings(config)
    at = console.now()
    with review_stores(settings) as stores:
        name = campaign_name(campaign, stores.held, stores.ledger)
        held = _held(stores, name)
        ever = _held(stores, name, frozenset())  # released and discarded ones too: they make it no smaller
        bound = settings.campaign.second_approver_from
        decision = CampaignDecision(
            campaign=name,
            decided=decided,
            why=_said(why, "--why"),
            author=_said(author or login_name(), "--author"),
            at=at,
            expires_at=at + milliseconds("--expires", expires) if expires else 0,
            needs_second=bool(bound) and ever >= bound,
            evidence=evidence_of(stores.held, name, settings.decision_policy(), settings.streams()),
        )
        if apply_to_held and not yes and not decision.waits:
            _agree(stores, name)
        stores.ledger.decide(decision)
        placed = _apply(settings, stores, decision, no_wait=no_wait) if apply_to_held else None
    _tell(decision, placed, held=held, as_json=as_json)


@campaign_commands.command()
def approve(
    campaign: CampaignName,
    *,
    author: Author = "",
    apply_to_held: ApplyToHeld = False,
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Approve a decision that waits for a second person; that person is not its author."""
    settings = app.settings(config)
    with review_stores(settings) as stores:
        name = campaign_name(campaign, stores.held, stores.ledger)
        line = stores.ledger.campaign(name)
        if apply_to_held and not yes and line and line.waiting and line.waiting.decided is Decided.IS_SERVICE:
            _agree(stores, name)
        decision = stores.ledger.approve(name, _said(author or login_name(), "--author"), console.now())
        placed = _apply(settings, stores, decision, no_wait=no_wait) if apply_to_held else None
        held = _held(stores, name)
    _tell(decision, placed, held=held, as_json=as_json)


@campaign_commands.command()
def withdraw(
    campaign: CampaignName, *, author: Author = "", as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Take a decision back: later copies are judged by their content again."""
    with review_stores(app.settings(config)) as stores:
        name = campaign_name(campaign, stores.held, stores.ledger)
        decision = stores.ledger.withdraw(name, _said(author or login_name(), "--author"), console.now())
    _tell(decision, None, held=0, as_json=as_json)


def _said(text: str, option: str) -> str:
    """What somebody has to say, and did."""
    if not text.strip():
        raise InputError(f"{option}: must not be empty")
    return text.strip()


def _held(stores: ReviewStores, campaign: str, states: frozenset[CopyState] = _HELD) -> int:
    """How many copies of a campaign are held; or in one of these states, empty for any."""
    return sum(one.copies for one in stores.held.tally(HeldQuery(campaign=campaign, states=states), By.STATE))


def _agree(stores: ReviewStores, campaign: str) -> None:
    """Ask before anything is kept whether what is held is to go; does not return if it is not."""
    if _held(stores, campaign):
        agree(stores, HeldQuery(campaign=campaign), Action.RELEASE, _WARNING)


def _apply(settings: Config, stores: ReviewStores, decision: CampaignDecision, *, no_wait: bool) -> Placed | None:
    """Release what is held of the campaign, if the decision counts; each copy is checked again."""
    if not decision.in_force(console.now()) or decision.decided is not Decided.IS_SERVICE:
        return None
    # Whoever releases checks each copy by the decisions it has read, and every worker reads them within a second.
    sleep(_COUNTS_WITHIN)
    why = f"campaign decided {decision.decided}: {decision.why}"
    how = How(why=why, author=decision.approver or decision.author, yes=True, no_wait=no_wait)
    return place(settings, stores, Action.RELEASE, HeldQuery(campaign=decision.campaign), how)


def _tell(decision: CampaignDecision, placed: Placed | None, *, held: int, as_json: bool) -> None:
    """Write what was decided, and what became of held copies; ends with status 1 if not all of them went.

    `held` copies were held before.
    """
    if as_json:
        console.write_json(decision_line_document(decision))
    else:
        console.out.print(visible(f"Campaign {decision.campaign}: {decision.decided}", "bold"))
        console.out.print(decided_line(decision))
        console.out.print(_effect(decision))
        if placed is None and held and not decision.waits:
            console.out.print(_left(decision, counted(held, "copy", "copies")))
    if placed is not None:
        tell(placed, as_json=as_json)
        if not placed.whole:
            raise console.found_something()


def _effect(decision: CampaignDecision) -> str:
    if decision.waits:
        return f"It counts when somebody else approves it: consentry campaign approve {decision.campaign[:SHORT]}"
    if decision.withdrawn_at:
        return "It does not count any more."
    return "All workers apply it within a second."


def _left(decision: CampaignDecision, copies: str) -> str:
    """What can be done about the copies that are held already."""
    do = "let them go" if decision.decided is Decided.IS_SERVICE else "be rid of them"
    command = "release" if decision.decided is Decided.IS_SERVICE else "discard"
    return f"Still held: {copies}. To {do}: consentry held {command} --campaign {decision.campaign[:SHORT]} --why …"

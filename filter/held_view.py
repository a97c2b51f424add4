"""Held mail and campaigns as a terminal shows them: tables, and a message that somebody reviews.

Builds rich renderables; prints nothing, fetches nothing, runs nothing. What came with a message is shown as `Text`,
never as markup; control characters, escape sequences and direction marks in it are shown as codes. Raises nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule as Line
from rich.text import Text

from .campaigns import CampaignDecision, CampaignLine, Decided
from .classification import Classification, Evidence, JudgedSegment
from .config_values import size_text
from .display import ago, visible
from .explain import BECAUSE, decided_line, moment
from .held import Action, By, CopyState, HeldLine, Order, Tally, Unread
from .held_content import is_mail
from .held_documents import header_block
from .labels import Label, SegmentLabel
from .policy import Reason
from .ports import HeldCopy, HeldMessage
from .recheck import FAULT, OBJECTED_MEANWHILE
from .tables import Column, FittingTable

SHORT: Final = 8  # digits of a campaign or subject key that tell it apart in a table
MOST_TEXT: Final = 20_000  # characters of a message that are shown unless all are asked for
MOST_HEADERS: Final = 100  # lines
_STYLES: Final = {CopyState.HELD: "yellow", CopyState.DELIVERED: "green", CopyState.BOUNCED: "red"}
_LABELS: Final = frozenset(str(label) for label in Label)
_REASONS: Final = frozenset(str(reason) for reason in Reason)
_MEANWHILE: Final = {
    OBJECTED_MEANWHILE: "the person objected after it was held",
    FAULT: "the check itself failed; see the log",
    Unread.DAMAGED: "it is damaged in the hold store; see `consentry held check`",
    Unread.KEY_MISSING: "the master key that it is sealed under is not among ours",
}
_PROMOTIONAL: Final = frozenset({SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION})
_INDENT: Final = (0, 0, 0, 4)


_LINES: Final = (
    Column("queue id"),
    Column("received"),
    Column("state"),
    Column("label", 3),
    Column("reason"),
    Column("consent", 5),
    Column("campaign"),
    Column("recipient", 4),
    Column("size", 6, right=True),
    Column("outcome", 2, 20),
)
_CAMPAIGNS: Final = (
    Column("campaign"),
    Column("held", right=True),
    Column("messages", 4, right=True),
    Column("last seen", 1),
    Column("label"),
    Column("declared", 2),
    Column("sender", 3),
    Column("decision"),
    Column("subject", least=20),
)


def lines_table(lines: Sequence[HeldLine], at: int) -> RenderableType:
    """Copies in a list, one a line; `at` is now."""
    rows = [
        [
            visible(line.queue_id),
            Text(ago(line.received_at, at)),
            Text(line.state, _STYLES.get(line.state, "")),
            visible(line.label or "not judged"),
            visible(line.reason),
            visible(line.consent),
            visible(line.campaign[:SHORT]),
            visible(line.subject[:SHORT]),
            Text(size_text(line.size) if line.size < 1 << 10 else f"{line.size / 1024:,.1f} KiB"),
            visible(line.outcome),
        ]
        for line in lines
    ]
    columns = _LINES if any(line.outcome for line in lines) else _LINES[:-1]
    return FittingTable(columns, rows)


def orders_table(orders: Sequence[tuple[Order, int]], at: int) -> RenderableType:
    """Orders with how many of their copies wait to be delivered, the newest first; `at` is now."""
    rows = [
        [
            visible(order.id),
            Text(ago(order.at, at)),
            Text(f"{waiting:,}", "yellow" if waiting else ""),
            visible(order.author),
            Text("yes" if order.despite else ""),
            visible(order.why),
        ]
        for order, waiting in orders
    ]
    columns = (Column("order"), Column("given"), Column("waiting", right=True), Column("author"), Column("despite", 1))
    return FittingTable((*columns, Column("why", least=12)), rows)


def tally_table(by: By, tallies: Sequence[Tally], at: int) -> RenderableType:
    """Counts by one property, the largest first; `at` is now."""
    counts = (Column("copies", right=True), Column("messages", right=True))
    rows = [
        [visible(one.value or "(none)"), Text(f"{one.copies:,}"), Text(f"{one.messages:,}"), *_ages(one, at)]
        for one in tallies
    ]
    return FittingTable((Column(by), *counts, Column("oldest"), Column("newest", 1)), rows)


def _ages(tally: Tally, at: int) -> tuple[Text, Text]:
    return Text(ago(tally.oldest, at)), Text(ago(tally.newest, at))


def campaigns_table(lines: Sequence[tuple[CampaignLine, int]], at: int) -> RenderableType:
    """Campaigns with how many of their copies are held now; `at` is now."""
    rows = [
        [
            visible(line.campaign[:SHORT], "bold"),
            Text(f"{held:,}"),
            Text(f"{line.messages:,}"),
            Text(ago(line.last_at, at) if line.last_at else ""),
            visible(_most(line.labels)),
            visible(_most(line.declared), "yellow" if line.disguised else ""),
            visible(line.sender),
            Text.assemble(_decision(line, at), *([("  ALERT", "bold red")] if line.alerted_at else [])),
            visible(line.subject),
        ]
        for line, held in lines
    ]
    return FittingTable(_CAMPAIGNS, rows)


def _most(counts: Mapping[str, int]) -> str:
    """The commonest, and whether there are others."""
    if not counts:
        return ""
    first = max(counts, key=lambda name: counts[name])
    return (first or "none") + (f" +{len(counts) - 1}" if len(counts) > 1 else "")


def _decision(line: CampaignLine, at: int) -> Text:
    if line.waiting:
        return visible(f"{line.waiting.decided} (waits)", "yellow")
    if not line.decision:
        return Text("-", "dim")
    in_force = line.decision.in_force(at)
    return visible(line.decision.decided + ("" if in_force else " (run out)"), "bold" if in_force else "dim")


def campaign_page(
    line: CampaignLine, held: Mapping[By, Sequence[Tally]], history: Sequence[CampaignDecision], at: int
) -> Group:
    """What is known of one campaign; `held` counts its held copies, `at` is now."""
    parts: list[RenderableType] = [Text.assemble("Campaign ", visible(line.campaign, "bold"))]
    if line.messages:
        parts += _seen(line)
    else:
        parts.append(Text("It is not in the ledger."))
    for by, tallies in held.items():
        if tallies:
            parts += [Text(""), Text(f"Held, by {by}:", "dim"), tally_table(by, tallies, at)]
    if not any(held.values()):
        parts.append(Text("None of its copies is held now."))
    parts += [Text(""), Text("Decisions, the newest first:" if history else "Nobody has decided about it.", "dim")]
    for decision in history:
        parts.append(Text.assemble((str(decision.decided), "bold"), "  ", decided_line(decision)))
    return Group(*parts)


def _seen(line: CampaignLine) -> Iterable[RenderableType]:
    yield visible(f'"{line.subject}"' if line.subject else "(no subject)", "bold")
    who = [f"from {line.sender or 'an unknown domain'}", f"handed in by {line.client or 'a local client'}"]
    who += [f"logged in as {line.user}"] if line.user else []
    yield visible(", ".join(who) + f"; controller {line.controller}, brand {line.brand}")
    yield Text(f"{line.messages:,} messages, first {moment(line.first_at)}, last {moment(line.last_at)}")
    for name, counts in (("Judged", line.labels), ("Copies", line.recipients), ("Declared", line.declared)):
        if counts:
            ordered = sorted(counts.items(), key=lambda one: -one[1])
            yield visible(f"{name}: " + ", ".join(f"{value or 'none'} {count:,}" for value, count in ordered))
    if line.disguised:
        yield visible(f"{line.disguised:,} copies promote and were declared as service.", "bold red")
    if line.alerted_at:
        yield visible(f"Alert raised {moment(line.alerted_at)}.", "bold red")


def next_steps(campaign: str) -> Group:
    """What a reviewer can do about the held copies of a campaign."""
    decide, move = "consentry campaign decide {} {} --why …", "consentry held {} --campaign {} --why …"
    named = campaign[:SHORT]
    ways = (
        (
            f"{decide.format(named, Decided.IS_SERVICE)} --apply-to-held",
            "later copies go, and held ones, to objectors too",
        ),
        (decide.format(named, Decided.IS_MARKETING), "later copies go only to those who have agreed"),
        (move.format(Action.RELEASE, named), "those held go to recipients who have agreed by now"),
        (move.format(Action.DISCARD, named), "those held are gone for good"),
        (f"consentry held list --campaign {named}", "each of them, with its reason"),
    )
    told = [Text.assemble(command, "\n    ", (what, "dim")) for command, what in ways]
    return Group(Text(""), _rule("What can be done"), *told)


def message_page(
    held: HeldMessage,
    lines: Mapping[int, HeldLine],
    classification: Classification | None,
    *,
    whole: bool = False,
) -> Group:
    """One held message for review; `classification` is its content judged by the rules in force, None if that is gone.

    What promotes is marked. `whole` shows all its text. Without `lines` it is a sample, and its copies are not shown.
    """
    parts = [*_envelope(held), *([_rule("Copies")] if lines else [])]
    parts += [_copy(copy, lines.get(number)) for number, copy in enumerate(held.copies) if lines]
    if classification is None:
        parts.append(Text("\nThe content is gone: no copy needs it any more."))
        return Group(*parts)
    other = (
        "" if classification.ruleset == held.ruleset else f", marked by rules {classification.ruleset}, now in force"
    )
    parts += [_rule("Header"), *_headers(held.content, whole=whole)] if is_mail(held) else []
    parts.append(_rule(f"Text{other}"))
    return Group(*parts, *_segments(classification, whole=whole))


def _rule(title: str) -> RenderableType:
    return Line(title, style="dim", align="left")


def _envelope(held: HeldMessage) -> Iterable[RenderableType]:
    params = b" ".join(held.mail.params).decode("utf-8", "replace")
    yield Text.assemble("Message ", visible(held.queue_id, "bold"), f", received {moment(held.received_at)}")
    if held.kafka is not None:
        yield Text(f"By Kafka, channel {held.channel}")
    if held.mail.path or held.null_sender:
        yield visible(f"Sender <{held.mail.path.decode('utf-8', 'replace')}> {params}".rstrip())
    promotional = held.label in _LABELS and Label(held.label).promotional
    label = visible(held.label or "not judged", "bold red" if promotional else "bold green")
    yield Text.assemble(
        "Judged ", label, f" ({held.score:.3f}) ", visible(f"by rules {held.ruleset or '(none)'}", "dim")
    )
    if held.declared:
        yield visible(f"Declared by its sender: {held.declared}")
    yield visible(
        f"Controller {held.controller}, brand {held.brand}, topic {held.topic}; campaign {held.campaign or '-'}"
    )


def _copy(copy: HeldCopy, line: HeldLine | None) -> RenderableType:
    state = str(line.state) if line else "unknown"
    recipient = copy.recipient.path.decode("utf-8", "replace")
    because = in_words(copy.reason)
    parts: list[RenderableType] = [
        Text.assemble((state.upper(), _STYLES.get(CopyState(state)) or "bold" if line else "bold"), "  ",
                      visible(recipient, "bold"), "  ", visible(because))
    ]  # fmt: skip
    details = [f"consent: {copy.state or 'not looked up'}"]
    if copy.notes:
        details.append(f"also: {', '.join(copy.notes)}")
    if copy.evidence:
        details.append(f"rules: {', '.join(copy.evidence)}")
    parts.append(Padding(visible("; ".join(details), "dim"), _INDENT))
    if line and (line.order or line.outcome):
        moved = f"order {line.order or '-'}, {line.attempts} attempts, {line.outcome or 'no outcome yet'}"
        parts.append(Padding(visible(moved), _INDENT))
    return Group(*parts)


def in_words(reason: str) -> str:
    """Why a copy is held, or was stopped."""
    return _MEANWHILE.get(reason) or (BECAUSE[Reason(reason)] if reason in _REASONS else reason)


def _headers(content: bytes, *, whole: bool) -> Iterable[RenderableType]:
    found = header_block(content).split("\r\n")
    for line in found if whole else found[:MOST_HEADERS]:
        yield visible(line.replace("\t", " "))
    if len(found) > MOST_HEADERS and not whole:
        yield Text(f"… {len(found) - MOST_HEADERS} more lines; --whole shows them", "dim")


def _segments(classification: Classification, *, whole: bool) -> Iterable[RenderableType]:
    segments, left = classification.segments, MOST_TEXT
    for number, segment in enumerate(segments):
        if not whole and left <= 0:
            yield Text(f"… {len(segments) - number} more passages; --whole shows them", "dim")
            break
        room = len(segment.text) if whole else left
        left -= len(segment.text)
        yield from _segment(segment, room)
    if not segments:
        yield Text("No text could be read.", "yellow")
    for defect in classification.message.defects:
        yield visible(f"Not as it should be: {defect.code} {defect.detail}".rstrip(), "yellow")


def _segment(segment: JudgedSegment, room: int) -> Iterable[RenderableType]:
    """A passage; if it promotes its words are marked, and the rules named that found them."""
    promotes = segment.label in _PROMOTIONAL
    found = [one for one in segment.evidence if promotes and one.label in _PROMOTIONAL]
    hidden = ", hidden from readers" if segment.hidden else ""
    kind = f"[{segment.kind}{hidden}{f', {segment.label}' if promotes else ''}] "
    cut = " …" if room < len(segment.text) else ""
    yield Text.assemble((kind, "bold red" if promotes else "dim"), _marked(segment.text[:room], found), cut)
    if found:
        named = dict.fromkeys(f'{one.rule} ("{one.text}")' for one in found)
        yield Padding(visible(", ".join(named), "red"), _INDENT)


def _marked(text: str, evidence: Iterable[Evidence]) -> Text:
    """Text in which evidence stands out."""
    shown, at = Text(), 0
    for start, end in sorted((one.start, one.end) for one in evidence):
        shown.append(visible(text[at:start]))
        shown.append(visible(text[max(at, start) : end], "bold red"))
        at = max(at, end)
    return shown.append(visible(text[at:]))

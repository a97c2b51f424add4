"""What the demo prints. Builds rich renderables that fit 80 columns and more; prints nothing, raises nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from .demo_copies import Copy, Followed, Place
from .display import visible
from .explain import BECAUSE, MEANING
from .labels import Label
from .policy import Reason

_STYLE: Final = {
    Place.RELAYED: "bold green",
    Place.HELD: "bold red",
    Place.DIVERTED: "bold yellow",
    Place.REFUSED: "bold yellow",
    Place.MISSING: "bold white on red",
    Place.TWICE: "bold white on red",
}
_PLACE_WIDTH: Final = max(map(len, Place))
# Shorter than on the page for lawyers, so that a line has room in 80 columns.
_BECAUSE: Final = {
    Reason.SERVICE: "service mail goes to everyone",
    Reason.SURVEY: "research goes to everyone",
    Reason.CONSENT: "has agreed, and it can be shown",
    Reason.SOFT_OPT_IN: "soft opt-in: own customer",
    Reason.SOLICITED: "asked for this very message",
    Reason.CORPORATE: "a company that has not objected",
    Reason.OBJECTED: "promotional; has said no",
    Reason.NO_CONSENT: "promotional; no valid consent",
    Reason.BLOCKED: "address blocked for all mail",
}
_PICTURE: Final = """\

                  ┌──────────────────────┐   RELAY   ┌─────────────────────┐
  {messages:>2} messages ──► │ {name:<20} │ ────────► │ the demo's next hop │
     by SMTP      │ {smtp:<20} │           │ {hop:<19} │
                  └──────────┬───────────┘           └─────────────────────┘
                             │ HOLD
                             └─────► hold store

What each message is by its content, and where each recipient's copy went:
"""


def picture(messages: int, workers: int, smtp: str, hop: str) -> RenderableType:
    """The way of the demo's mail."""
    return Text(_PICTURE.format(messages=messages, name=f"consentry, {workers} workers", smtp=smtp, hop=hop))


def page(followed: Sequence[Followed]) -> RenderableType:
    """Every message with what it was judged to be, and each of its copies."""
    width = max(len(copy.recipient) for one in followed for copy in one.copies)
    return Group(*(part for one in followed for part in (_heading(one), *(_line(c, width) for c in one.copies), "")))


def _heading(one: Followed) -> RenderableType:
    number = one.sent.mail.file.name.partition("-")[0]
    disguised = (", sent as service", "yellow") if one.disguised else ""
    subject = visible(one.sent.mail.subject, "bold")
    return Text.assemble((number + "  ", "dim"), subject, " [", _label(one.label), disguised, "]")


def _label(label: Label | None) -> Text:
    if label is None:
        return Text("not judged", "yellow")
    return Text(MEANING[label][0], "red" if label.promotional else "green")


def arrival(copy: Copy, label: Label | None) -> RenderableType:
    """A copy of a message that somebody else sent."""
    return Text.assemble(_place(copy), "  ", visible(copy.recipient), "  ", _label(label), ": ", visible(because(copy)))


def _line(copy: Copy, width: int) -> Text:
    recipient = visible(f"{copy.recipient:<{width}}")
    return Text.assemble("    ", recipient, "  ", _place(copy), "  ", visible(because(copy)))


def _place(copy: Copy) -> Text:
    return Text(f"{copy.place.upper():<{_PLACE_WIDTH}}", _STYLE[copy.place])


def because(copy: Copy) -> str:
    """Why a copy is where it is."""
    if copy.said:
        return copy.said
    # That it is disguised stands beside the label; here what the recipient has said is of interest.
    reason = copy.notes[0] if copy.reason is Reason.DISGUISED_MARKETING and copy.notes else copy.reason
    return _BECAUSE.get(reason) or BECAUSE[reason] if reason else "the journal does not say why"


def sound(followed: Sequence[Followed]) -> bool:
    """Whether every copy is in one place, and the journal says the same."""
    return all(_in_place(copy) for one in followed for copy in one.copies)


def balance(followed: Sequence[Followed]) -> RenderableType:
    """The copies counted: what was accepted is what is in its one place."""
    counted = Counter(copy.place for one in followed for copy in one.copies)
    accepted = counted.total() - counted[Place.REFUSED]
    parts = [f"{counted[Place.RELAYED]} at the next hop", f"{counted[Place.HELD]} held"]
    if counted[Place.DIVERTED]:
        parts.append(f"{counted[Place.DIVERTED]} diverted")
    sum_ = f"{accepted} accepted = {' + '.join(parts)}"
    first = Text(f"{counted.total()} copies sent: {counted[Place.REFUSED]} refused, {sum_}.", "bold")
    return _checked(first, followed)


def kafka_balance(followed: Sequence[Followed], topic: str) -> RenderableType:
    """The copies counted, by topic."""
    counted = Counter(copy.place for one in followed for copy in one.copies)
    relayed = f"{counted[Place.RELAYED]} in {topic}.relay"
    waiting = f"{counted[Place.HELD]} in {topic}.held and in the hold store"
    return _checked(Text(f"{counted.total()} copies = {relayed}\n  + {waiting}.", "bold"), followed)


def _checked(first: Text, followed: Sequence[Followed]) -> RenderableType:
    lines = [first]
    if sound(followed):
        lines.append(Text("Checked: every accepted copy is in exactly one place, and the journal agrees.", "green"))
        return Group(*lines)
    lines.append(Text("CHECK FAILED; these copies are not in one place, or the journal says otherwise:", "bold red"))
    lines += [
        visible(f"  {one.sent.mail.file.name}, {copy.recipient}: {copy.place}", "red")
        for one in followed
        for copy in one.copies
        if not _in_place(copy)
    ]
    return Group(*lines)


def _in_place(copy: Copy) -> bool:
    return copy.agrees and copy.place not in (Place.MISSING, Place.TWICE)

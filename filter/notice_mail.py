"""The text of a notice: what is held, what needs attention and what expires soon, for those who review held mail.

Nothing personal stands in it: campaigns are named with their masked subject and the domain of their sender; there are
no addresses, no logins and no text of messages. Times are epoch milliseconds. Pure; never raises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .campaigns import CampaignLine
from .held import Tally
from .own_mail import OwnMail, addressed, domain, fields, paragraph, printable, quoted_printable
from .trace import date

_MINUTE: Final = 60_000
_UNITS: Final = ((24 * 60 * _MINUTE, "day"), (60 * _MINUTE, "hour"), (_MINUTE, "minute"))
_NAMED: Final = 12  # hex digits of a campaign that are shown: enough to name it to a command


class Fresh(NamedTuple):
    """A campaign with copies that were held since the last notice: these, all that are held, what is known of it."""

    new: Tally
    held: Tally
    about: CampaignLine | None


class Expiring(NamedTuple):
    """Copies held for one reason that expire soon, `entered` of them since the last notice; the first at `first_at`."""

    reason: str
    copies: int
    entered: int
    first_at: int
    told: bool  # whether their senders get a report


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Everything a notice says. `since` is the time of the last one, 0 if there was none.

    `fresh` are the campaigns with the most new copies, of `campaigns` in all. `troubles` are sentences, such as "held
    mail cannot be read now"; `again` says that the last notice had the same.
    """

    at: int
    since: int
    copies: int = 0
    campaigns: int = 0
    fresh: Sequence[Fresh] = ()
    held: int = 0
    oldest: int = 0
    waiting: int = 0  # released and not delivered yet
    alerts: Sequence[CampaignLine] = ()
    expiring: Sequence[Expiring] = ()
    troubles: Sequence[str] = ()
    again: bool = False

    @property
    def news(self) -> bool:
        """Whether it says anything that the last one did not."""
        entered = any(expiring.entered for expiring in self.expiring)
        return bool(self.copies or self.alerts or entered or (self.troubles and not self.again))


def notice(digest: Digest, *, to: str, sender: str, hostname: str) -> OwnMail:
    """The digest as a message to the address `to`, from the address `sender`, ready to be sent."""
    text = _text(digest, hostname)
    smtputf8 = not (to + sender).isascii()
    charset, encoding = (b"us-ascii", b"7bit") if text.isascii() else (b"utf-8", b"quoted-printable")
    host = domain(hostname)
    head = fields(
        [
            (b"Date", date(digest.at // 1000)),
            (b"From", f"Consentry <{printable(sender, utf8=True)}>".encode()),
            (b"To", f"<{printable(to, utf8=True)}>".encode()),
            (b"Subject", f"Held mail at {host}: {_headline(digest)}".encode()),
            (b"Message-ID", f"<{digest.at}.notice@{host}>".encode()),
            (b"Auto-Submitted", b"auto-generated"),
            (b"MIME-Version", b"1.0"),
            (b"Content-Type", b"text/plain; charset=" + charset),
            (b"Content-Transfer-Encoding", encoding),
        ]
    )
    body = text if text.isascii() else quoted_printable(text)
    return addressed(to.encode(), head + b"\r\n" + body, smtputf8=smtputf8)


def _headline(digest: Digest) -> str:
    if digest.troubles:
        return "needs attention"
    said = []
    if digest.alerts:
        said.append(_counted(len(digest.alerts), "alert"))
    if digest.copies:
        said.append(f"{_counted(digest.copies, 'new copy', 'new copies')} of {_counted(digest.campaigns, 'campaign')}")
    if not said and digest.expiring:
        copies = sum(expiring.copies for expiring in digest.expiring)
        said.append(f"{_counted(copies, 'copy expires', 'copies expire')} soon")
    return ", ".join(said) or "nothing new"


def _text(digest: Digest, hostname: str) -> bytes:
    """All sections that have something to say."""
    fresh = [_fresh(one, digest.at) for one in digest.fresh]
    if digest.campaigns > len(fresh):
        fresh.append(f"and {_counted(digest.campaigns - len(fresh), 'more campaign')}")
    sections = (
        (f"Held mail at {domain(hostname)} on {_date(digest.at)}", _summary(digest)),
        ("Needs attention", [printable(trouble) for trouble in digest.troubles]),
        ("Alerts: promoted under a claim to be service", [_about(line) for line in digest.alerts]),
        ("Campaigns with most copies since the last notice", fresh),
        ("Expires soon", [_expiring(one) for one in digest.expiring]),
        ("Look at it", ["consentry held stats", "consentry campaign list", "consentry campaign show CAMPAIGN"]),
    )
    return b"\r\n".join(
        [
            paragraph(title) + b"".join([paragraph(f"- {item}", "  ") for item in items])
            for title, items in sections
            if items
        ]
    )


def _summary(digest: Digest) -> list[str]:
    last = f"since the last notice of {_date(digest.since)}" if digest.since else "so far; this is the first notice"
    copies = _counted(digest.copies, "copy was", "copies were")
    said = [f"{copies} held {last}"]
    if digest.held:
        oldest = f"the oldest was received {_age(digest.at - digest.oldest)} ago"
        said.append(f"{_counted(digest.held, 'copy is', 'copies are')} held now; {oldest}")
    if digest.waiting:
        said.append(f"{_counted(digest.waiting, 'copy is', 'copies are')} released and not delivered yet")
    return said


def _fresh(one: Fresh, at: int) -> str:
    counts = f"{_counted(one.new.copies, 'copy', 'copies')} of {_counted(one.new.messages, 'message')}"
    held = f"{one.held.copies:,} held in all, the oldest for {_age(at - one.held.oldest)}"
    what = _about(one.about) if one.about else f"campaign {_name(one.new.value)}"
    return f"{counts}: {what}; {held}"


def _about(line: CampaignLine) -> str:
    """What is known of a campaign, without anything personal."""
    said = [f"campaign {_name(line.campaign)}"]
    if line.subject:
        said.append(f'"{printable(line.subject, utf8=True)}"')
    if line.sender:
        said.append(f"from {printable(line.sender)}")
    said += [f"judged {printable(_most(line.labels))}"] if line.labels else []
    said += [f"declared {printable(_most(line.declared))}"] if line.declared else []
    said.append(f"first seen {_date(line.first_at)}")
    return ", ".join(said)


def _expiring(one: Expiring) -> str:
    end = "discarded, and their senders get a report" if one.told else "discarded"
    copies = _counted(one.copies, "copy", "copies")
    return f"{copies} held for {printable(one.reason)}, from {_date(one.first_at)} on: then they are {end}"


def _most(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda value: (counts[value], value))


def _name(campaign: str) -> str:
    return printable(campaign[:_NAMED]) or "without a name"


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _age(milliseconds: int) -> str:
    size, unit = next((one for one in _UNITS if milliseconds >= one[0]), _UNITS[-1])
    return _counted(max(0, milliseconds) // size, unit)


def _date(at: int) -> str:
    return date(at // 1000).decode()

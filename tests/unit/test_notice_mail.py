"""The text of a notice: one for people, which nothing from outside gives a line or a field."""

import email
import email.policy
from dataclasses import replace

import pytest

from filter.campaigns import CampaignLine
from filter.held import Tally
from filter.notice_mail import Digest, Expiring, Fresh, notice

AT = 1_700_000_000_000
LINE = CampaignLine(campaign="ab" * 16, first_at=AT, last_at=AT, messages=10)
TALLY = Tally(LINE.campaign, 1, 1, AT, AT)


def read(content):
    """A message as the standard library reads it."""
    return email.message_from_bytes(content, policy=email.policy.default)


@pytest.mark.parametrize(
    ("digest", "news"),
    [
        (Digest(at=AT, since=0), False),
        (Digest(at=AT, since=0, held=5, oldest=AT, waiting=3), False),
        (Digest(at=AT, since=0, copies=1), True),
        (Digest(at=AT, since=0, alerts=[LINE]), True),
        (Digest(at=AT, since=0, expiring=[Expiring("x", 5, 0, AT, told=False)]), False),
        (Digest(at=AT, since=0, expiring=[Expiring("x", 5, 1, AT, told=False)]), True),
        (Digest(at=AT, since=0, troubles=["x"]), True),
        (Digest(at=AT, since=0, troubles=["x"], again=True), False),
    ],
)
def test_what_is_news(digest, news):
    """New copies, alerts, copies that begin to expire soon, and new trouble; not what was told before."""
    assert digest.news is news


@pytest.mark.parametrize(
    ("held_for", "said"),
    [
        (0, "0 minutes"),
        (-5, "0 minutes"),
        (119_000, "1 minute"),
        (7_200_000, "2 hours"),
        (200 * 86_400_000, "200 days"),
    ],
)
def test_ages_are_told_in_the_largest_unit(held_for, said):
    """Minutes, hours or days; a clock that was put back is no age below nothing."""
    digest = Digest(at=AT, since=0, held=1, oldest=AT - held_for)
    own = notice(digest, to="a@b.example", sender="c@d.example", hostname="filter.example")
    assert f"1 copy is held now; the oldest was received {said} ago" in " ".join(own.content.decode().split())


def test_nothing_from_outside_gets_a_line():
    """A subject, a domain or a label with line ends in it begins no field and no line."""
    line = replace(LINE, subject="a\r\nBcc: x@y.example\u202e", sender="b\nc", labels={"d\re": 1}, declared={"\0": 1})
    tally = TALLY._replace(value="ab\r\ncd")
    digest = Digest(
        at=AT,
        since=0,
        copies=1,
        campaigns=1,
        fresh=[Fresh(tally, tally, line), Fresh(tally, tally, None)],
        alerts=[line],
        expiring=[Expiring("x\r\ny", 1, 1, AT, told=False)],
        troubles=["one\r\ntwo"],
    )
    own = notice(digest, to="a@b.example", sender="c@d.example", hostname="h\r\nBcc: x")
    parsed = read(own.content)
    assert parsed["Bcc"] is None
    text = parsed.get_content()
    assert "a??Bcc: x@y.example?" in " ".join(text.split())
    assert not any(text.splitlines().count(line) for line in ("cd", "two", "y", "Bcc: x@y.example"))


def test_mailbox_beyond_ascii():
    """A mailbox with an international address gets its notice by SMTPUTF8."""
    own = notice(Digest(at=AT, since=0), to="prüfung@bank.example", sender="c@d.example", hostname="filter.example")
    assert own.mail.smtputf8
    assert own.recipient.path == "prüfung@bank.example".encode()
    assert "To: <prüfung@bank.example>\r\n".encode() in own.content

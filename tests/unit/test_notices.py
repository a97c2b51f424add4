"""Notices: one for all workers and restarts, never too often, with nothing personal, and loud when something fails."""

import asyncio
import email
import email.policy
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry
from support.fakes import NextHop, Script
from support.held import NOW, held_message
from support.held_backends import BACKENDS

from filter.campaign_store import SqliteLedger
from filter.campaigns import CampaignLine
from filter.delivery import Sender
from filter.envelope import Client
from filter.held import By, HeldQuery, Tally
from filter.metrics import Metrics
from filter.notices import AGAIN, HEARTBEAT, HELD_UNREADABLE, REPEAT, NoticeTo, Notifier, Ran
from filter.ports import HoldUnavailableError, InDoubtError, NextHopUnavailableError
from filter.replies import Reply
from filter.retention import OTHERS, Rule

HOUR, DAY = 3_600_000, 86_400_000
AT = 1_700_000_000_000
TO = NoticeTo(
    to="review@bank.example",
    sender="consentry@filter.example",
    hostname="filter.example",
    every=HOUR,
    max_campaigns=2,
)
LINE = CampaignLine(
    campaign="ab" * 16,
    first_at=AT - DAY,
    last_at=AT,
    messages=10,
    labels={"marketing": 8, "service": 2},
    declared={"service": 10},
    subject="Your … is waiting",
    sample="Q1",
    sender="bank.example",
    client="192.0.2.7",
    user="alice",
)


@dataclass
class Held:
    """Held mail as a notice asks for it: copies as (campaign, reason, received_at)."""

    copies: list[tuple[str, str, int]] = field(default_factory=list)
    released: int = 0
    error: Exception | None = None

    def tally(self, query: HeldQuery, by: By) -> list[Tally]:
        """Copies that match, the most first."""
        if self.error:
            raise self.error
        found: dict[str, list[int]] = {}
        for campaign, reason, received_at in self.copies:
            before = not query.received_before or received_at < query.received_before
            if before and received_at >= query.received_from and query.reason in ("", reason):
                found.setdefault(campaign if by is By.CAMPAIGN else reason, []).append(received_at)
        tallies = [Tally(value, len(ats), len(ats), min(ats), max(ats)) for value, ats in found.items()]
        return sorted(tallies, key=lambda tally: -tally.copies)

    def waiting(self, order: str = "") -> tuple[int, int]:
        """How many are released."""
        return self.released, 0


@dataclass
class Ledger:
    """A campaign ledger that is only read."""

    lines: list[CampaignLine] = field(default_factory=list)
    error: Exception | None = None

    def campaigns(self, limit: int = 1000) -> list[CampaignLine]:
        """All of them."""
        if self.error:
            raise self.error
        return self.lines[:limit]

    def campaign(self, campaign: str) -> CampaignLine | None:
        """One of them."""
        return next((line for line in self.campaigns() if line.campaign == campaign), None)


class World:
    """Held mail, a ledger, a next hop and as many notifiers on one store directory as are wanted."""

    def __init__(self, directory):
        self.directory = directory
        self.held = Held()
        self.ledger = Ledger([LINE])
        self.script = Script()
        self.hop = NextHop("hop", self.script)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.reports = []
        self.troubles = []

    def notifier(self, **changed):
        """One more worker's notifier, or that of one that was started again."""
        return Notifier(
            settings=replace(TO, **changed),
            directory=self.directory,
            mail=self.held,
            ledger=self.ledger,
            rules={OTHERS: Rule(30 * DAY), "objected": Rule(8 * DAY, tell=True)},
            sender=Sender(self.hop, Client(""), self.report),
            metrics=self.metrics,
            report=self.report,
            troubles=lambda: self.troubles,
        )

    def run(self, at=AT, **changed):
        """One call of a fresh notifier."""
        return asyncio.run(self.notifier(**changed).run_once(at))

    def report(self, where, error):
        """Keep what was reported."""
        self.reports.append((where, error))

    def metric(self, name):
        """The value of a metric."""
        return self.registry.get_sample_value(f"consentry_{name}")

    @property
    def texts(self):
        """The texts of the notices that the next hop took, each on one line."""
        return [" ".join(read(content).get_content().split()) for _, _, content in self.hop.delivered]


@pytest.fixture
def world(tmp_path):
    """Three copies of one campaign are held."""
    world = World(tmp_path)
    world.held.copies = [(LINE.campaign, "unknown", AT - HOUR)] * 3
    return world


def read(content):
    """A message as the standard library reads it."""
    return email.message_from_bytes(content, policy=email.policy.default)


def test_notice_says_what_is_held(world):
    """By campaign: how many, judged and declared as what, since when; and where to look."""
    world.held.released = 4
    assert world.run() is Ran.SENT
    (text,) = world.texts
    assert "3 copies were held so far; this is the first notice" in text
    assert "3 copies are held now; the oldest was received 1 hour ago" in text
    assert "4 copies are released and not delivered yet" in text
    assert '3 copies of 3 messages: campaign abababababab, "Your … is waiting", from bank.example' in text
    assert "judged marketing, declared service, first seen Mon, 13 Nov 2023 22:13:20 +0000" in text
    assert "consentry campaign show CAMPAIGN" in text


def test_notice_starts_no_loop(world):
    """Null sender, Auto-Submitted, and no report wanted; to the mailbox that is set and nobody else."""
    world.run()
    ((mail, recipient, content),) = world.hop.delivered
    assert (mail.path, recipient.path, recipient.params) == (b"", b"review@bank.example", (b"NOTIFY=NEVER",))
    parsed = read(content)
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["From"] == "Consentry <consentry@filter.example>"
    assert parsed["To"].addresses[0].addr_spec == "review@bank.example"
    assert parsed["Subject"] == "Held mail at filter.example: 3 new copies of 1 campaign"
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 78
    assert not parsed.defects


def test_notice_holds_nothing_personal(world):
    """Who handed the mail in, and which message is the sample, is left to commands that ask who is asking."""
    world.run()
    assert not any(personal in world.texts[0] for personal in ("192.0.2.7", "alice", "Q1"))


def test_notices_are_never_sent_too_often(world):
    """Within `every` there is one, whatever is new; then the next, which tells only what came since."""
    assert world.run() is Ran.SENT
    world.held.copies += [("cd" * 16, "unknown", AT + 1)] * 2
    assert world.run(AT + HOUR - 1) is Ran.NOT_DUE
    assert world.run(AT + HOUR) is Ran.SENT
    assert "2 copies were held since the last notice of Tue, 14 Nov 2023 22:13:20 +0000" in world.texts[1]
    assert "2 copies of 2 messages: campaign cdcdcdcdcdcd; 2 held in all" in world.texts[1]
    assert "abababababab" not in world.texts[1]


def test_many_workers_send_one(world):
    """Workers that look at the same instant agree on who sends it."""

    async def together():
        return await asyncio.gather(*[world.notifier().run_once(AT) for _ in range(6)])

    assert Counter(asyncio.run(together())) == {Ran.SENT: 1, Ran.NOT_DUE: 5}
    assert len(world.hop.delivered) == 1


def test_silence_when_nothing_is_new(world):
    """Nothing new is no mail, however often it is looked; but all went well, and the metric says so."""
    world.run()
    for hour in range(1, 24):
        assert world.run(AT + hour * HOUR) is Ran.NOTHING_NEW
    assert len(world.hop.delivered) == 1
    assert world.metric("notice_last_success_timestamp_seconds") == (AT + 23 * HOUR) / 1000


def test_heartbeat_every_week(world):
    """After a week without a notice one says that nothing is new, and that is also the first one ever."""
    world.held.copies = []
    assert world.run() is Ran.SENT
    assert world.run(AT + HEARTBEAT - 1) is Ran.NOTHING_NEW
    assert world.run(AT + HEARTBEAT + HOUR) is Ran.SENT
    assert read(world.hop.delivered[1][2])["Subject"] == "Held mail at filter.example: nothing new"


def test_restart_shows_the_last_success(world):
    """A worker that has just started tells when notices last went well, not zero."""
    world.run()
    world.metrics.notice_last_success.set(0)
    assert world.run(AT + 1) is Ran.NOT_DUE
    assert world.metric("notice_last_success_timestamp_seconds") == AT / 1000


@pytest.mark.parametrize(
    "fault", [{"hop.rcpt": NextHopUnavailableError()}, {"hop.data": NextHopUnavailableError()}, {"hop.rcpt": OSError()}]
)
def test_notice_that_failed_is_tried_again_soon(world, fault):
    """After five minutes, with everything it would have said; the failure is counted."""
    world.script.fail = fault
    assert world.run() is Ran.FAILED
    assert world.metric("notice_failures_total") == 1
    assert world.metric("notice_last_success_timestamp_seconds") == 0
    world.script.fail = {}
    assert world.run(AT + AGAIN - 1) is Ran.NOT_DUE
    assert world.run(AT + AGAIN) is Ran.SENT
    assert "3 copies were held" in world.texts[0]


def test_notice_that_is_refused_is_a_failure(world):
    """A mailbox that does not exist shows in the metrics."""
    world.hop.replies = {b"review@bank.example": Reply(550, "5.1.1", ("no such user",))}
    assert world.run() is Ran.FAILED
    assert world.metric("notice_failures_total") == 1


def test_notice_in_doubt_is_not_repeated_at_once(world):
    """It may have arrived: the next comes when it is due, and says it again."""
    world.script.fail = {"hop.data": InDoubtError()}
    assert world.run() is Ran.IN_DOUBT
    world.script.fail = {}
    assert world.run(AT + HOUR - 1) is Ran.NOT_DUE
    assert world.run(AT + HOUR) is Ran.SENT
    assert "3 copies were held" in world.texts[0]


def test_worker_that_dies_while_it_sends_leaves_the_next_time(world):
    """What was claimed and never finished is not sent twice at once, and not lost."""

    async def cut_off():
        world.script.fail = {"hop.data": "hang"}
        task = asyncio.create_task(world.notifier().run_once(AT))
        await world.script.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())
    world.script.fail = {}
    assert world.run(AT + 1) is Ran.NOT_DUE
    assert world.run(AT + HOUR) is Ran.SENT
    assert "3 copies were held" in world.texts[0]


def test_alert_is_told_once(world):
    """A campaign with an alert since the last notice has its own section, and is not told again."""
    world.run()
    world.ledger.lines = [replace(LINE, alerted_at=AT + 5)]
    assert world.run(AT + HOUR) is Ran.SENT
    assert "Alerts: promoted under a claim to be service - campaign abababababab" in world.texts[1]
    assert read(world.hop.delivered[1][2])["Subject"].endswith(": 1 alert")
    assert world.run(AT + 2 * HOUR) is Ran.NOTHING_NEW


def test_what_expires_soon_is_told_when_it_begins_to(world):
    """Three days before, or a quarter of the time: with the reason, the day, and what happens then."""
    world.held.copies = [("", "unknown", AT - 26 * DAY), ("", "objected", AT - 5 * DAY), ("", "objected", AT - HOUR)]
    world.run()
    assert "Expires soon" not in world.texts[0]
    assert world.run(AT + DAY) is Ran.NOTHING_NEW
    assert world.run(AT + DAY + HOUR) is Ran.SENT
    text = world.texts[1]
    assert "1 copy held for unknown, from Sat, 18 Nov 2023 22:13:20 +0000 on: then they are discarded" in text
    assert "1 copy held for objected, from Fri, 17 Nov 2023 22:13:20 +0000 on: then they are discarded, and" in text
    assert read(world.hop.delivered[1][2])["Subject"].endswith(": 2 copies expire soon")
    assert world.run(AT + DAY + 2 * HOUR) is Ran.NOTHING_NEW


def test_store_that_cannot_be_read_is_told(world):
    """The notice says so and loses nothing: what was held meanwhile is in the one after."""
    world.run()
    world.held.copies += [(LINE.campaign, "unknown", AT + 5)]
    world.held.error = HoldUnavailableError("disk I/O error")
    assert world.run(AT + HOUR) is Ran.SENT
    assert f"Needs attention - {HELD_UNREADABLE}" in world.texts[1]
    assert read(world.hop.delivered[1][2])["Subject"].endswith(": needs attention")
    assert world.run(AT + 2 * HOUR) is Ran.NOTHING_NEW
    world.held.error = None
    assert world.run(AT + 3 * HOUR) is Ran.SENT
    assert "1 copy was held since" in world.texts[2]


def test_ledger_that_cannot_be_read_leaves_the_rest(world):
    """Without the ledger campaigns are listed by name."""
    world.ledger.error = HoldUnavailableError("busy")
    world.run()
    assert "the campaign ledger cannot be read now" in world.texts[0]
    assert "3 copies of 3 messages: campaign abababababab; 3 held in all" in world.texts[0]


def test_trouble_is_told_again_each_day(world):
    """What cannot be used is told when it begins, and once a day while it lasts."""
    world.run()
    world.troubles = ["the consent index is missing"]
    assert world.run(AT + HOUR) is Ran.SENT
    assert "Needs attention - the consent index is missing" in world.texts[1]
    assert world.run(AT + 2 * HOUR) is Ran.NOTHING_NEW
    assert world.run(AT + HOUR + REPEAT) is Ran.SENT
    world.troubles = []
    assert world.run(AT + 2 * HOUR + REPEAT) is Ran.NOTHING_NEW


def test_long_lists_are_cut(world):
    """The campaigns with the most new copies are named, the others counted."""
    world.held.copies = [(f"{number:02x}" * 16, "unknown", AT - 1) for number in range(5) for _ in range(number + 1)]
    world.run()
    assert "5 copies of 5 messages: campaign 040404040404" in world.texts[0]
    assert "and 3 more campaigns" in world.texts[0]
    assert "020202020202" not in world.texts[0]


def test_unknown_failures_are_reported(world):
    """Whatever the stores raise, the caller goes on, and it is counted and tried again."""
    world.held.error = ZeroDivisionError()
    assert world.run() is Ran.FAILED
    assert [where for where, _ in world.reports] == ["notice"]
    assert world.metric("notice_failures_total") == 1
    world.held.error = None
    assert world.run(AT + HOUR) is Ran.SENT


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"next_at": "soon"}', b'{"next_at": 1}', b"null"])
def test_damaged_state_costs_a_notice_too_many(world, state):
    """It is reported, and a notice is sent rather than none."""
    (world.directory / "notice.json").write_bytes(state)
    assert world.run() is Ran.SENT
    assert [where for where, _ in world.reports] == ["notice"]
    assert world.run(AT + 1) is Ran.NOT_DUE


def test_clock_put_back_does_not_silence(world):
    """A clock that was a year ahead when the last notice was sent does not stop the next ones."""
    world.run(AT + 365 * DAY)
    assert world.run() is Ran.NOTHING_NEW
    world.held.copies += [(LINE.campaign, "unknown", AT + 5)]
    assert world.run(AT + HOUR) is Ran.SENT
    assert "1 copy was held since" in world.texts[1]


def test_state_is_private(world):
    """Files in the store directory are for their owner only."""
    world.run()
    assert {path.name: path.stat().st_mode & 0o777 for path in world.directory.iterdir()} == {
        "notice.json": 0o600,
        "notice.lock": 0o600,
    }


@pytest.mark.parametrize("store", BACKENDS)
def test_notice_of_the_stores_themselves(world, tmp_path, store):
    """What the stores of held mail and campaigns answer is what the notice says."""
    backend = BACKENDS[store](tmp_path)
    ledger = SqliteLedger(tmp_path / "ledger")
    try:
        ledger.add([LINE])
        made = [replace(held_message(f"Q{number}"), campaign=LINE.campaign) for number in range(3)]
        backend.store(*made, replace(made[0], queue_id="Q9", received_at=NOW - 7 * DAY))
        world.held, world.ledger = backend.mail, ledger
        assert world.run(NOW + HOUR) is Ran.SENT
        backend.store(replace(made[0], queue_id="Q10", received_at=NOW + HOUR + 1))
        assert world.run(NOW + 2 * HOUR) is Ran.SENT
    finally:
        backend.close()
        ledger.close()
    assert '4 copies of 4 messages: campaign abababababab, "Your … is waiting", from bank.example' in world.texts[0]
    assert "the oldest was received 7 days ago" in world.texts[0]
    assert "1 copy held for objected, from" in world.texts[0]
    assert "1 copy was held since" in world.texts[1]
    assert "5 held in all" in world.texts[1]

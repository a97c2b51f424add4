"""Senders are told of copies that the policy rejects, where copies for others were taken."""

import dataclasses

import pytest
from support import fakes
from support.release import NOON, ReleaseWorld

from filter.envelope import MailFrom
from filter.events import Event
from filter.held import CopyState
from filter.policy import Disposition, Reason
from filter.ports import HoldUnavailableError
from filter.rejections import Rejections
from filter.replies import Reply
from filter.retention import Retention, Rule
from filter.retry import DAY, MINUTE
from filter.steady_clock import SteadyClock


class World(ReleaseWorld):
    """One in which some copies are rejected."""

    def __init__(self) -> None:
        super().__init__()
        self.rejections = Rejections(self.mail, self.orders, now=self.clock)

    def reject(self, *names: str, **message: object) -> None:
        """Keep rejected copies of a message for these, as `judging.held_message` does."""
        self.hold(*names, **message)
        number = len(self.mail.messages)
        message_ = self.mail.messages[number]
        copies = tuple(
            dataclasses.replace(one, disposition=Disposition.REJECT, reason=Reason.REJECTED) for one in message_.copies
        )
        self.mail.messages[number] = dataclasses.replace(message_, copies=copies)
        for place, row in self.mail.rows.items():
            if place.message == number:
                row.copy = copies[place.number]


@pytest.fixture
def world() -> World:
    """A new one."""
    return World()


def test_the_sender_is_told_once(world: World) -> None:
    """One report on all of a message, by the policy's status; then the copies have ended, and nothing was delivered."""
    world.reject("ann", "bob")
    world.hold("carl")
    assert world.rejections.run_once() == 2
    world.deliver()
    (report,) = world.reports
    assert report.count(b"Status: 5.7.1") == 2
    assert b"the mail policy of this site does not let it pass" in report
    assert world.reached == []
    assert world.mail.states() == {"bounced": 2, "held": 1}
    lines = world.journal.of(Event.BOUNCED)
    assert [(line["why"], line["code"], line["told"], line["order"]) for line in lines] == [
        ("policy", 0, "sent", "rejected")
    ] * 2
    assert world.rejections.run_once() == 0
    world.deliver()
    assert len(world.reports) == 1


def test_a_report_that_cannot_be_sent_is_sent_later(world: World) -> None:
    """The copy waits for it, whichever process goes on."""
    world.reject("ann")
    world.rejections.run_once()
    world.hop.final = Reply(451, "4.3.0", ("Later",))
    world.deliver()
    assert world.state("ann") is CopyState.RELEASED
    world.hop.final = fakes.TAKEN
    world.pass_time(MINUTE)
    world.deliver()
    assert world.state("ann") is CopyState.BOUNCED
    assert len(world.reports) == 1


@pytest.mark.parametrize(("mail", "params"), [(MailFrom(b""), ()), (MailFrom(b"s@x.example"), (b"NOTIFY=NEVER",))])
def test_nobody_is_told_who_must_not_be(world: World, mail: MailFrom, params: tuple[bytes, ...]) -> None:
    """The copies end all the same."""
    world.reject("ann", mail=mail, params=params)
    world.rejections.run_once()
    world.deliver()
    assert world.reports == []
    assert world.state("ann") is CopyState.BOUNCED


def test_what_comes_later_is_told_too(world: World) -> None:
    """The order stands; also for a copy that a wrong clock dated ahead."""
    for received_at in (NOON, NOON + 3, NOON + 400 * DAY):
        world.reject("ann", received_at=received_at)
        assert world.rejections.run_once() == 1


def test_a_store_that_fails_loses_nothing(world: World) -> None:
    """What was not handed over is the next time."""
    world.reject("ann")
    world.mail.fail["move"] = HoldUnavailableError("full")
    with pytest.raises(HoldUnavailableError):
        world.rejections.run_once()
    world.mail.fail.clear()
    assert world.rejections.run_once() == 1


def test_retention_discards_no_copy_whose_sender_was_not_told(world: World) -> None:
    """However old it is."""
    world.reject("ann")
    clock = SteadyClock(lambda: NOON + DAY, lambda: 0.0, watch=0.0)
    assert Retention(world.mail, world.orders, world.metrics, clock, {"*": Rule(MINUTE)}).run_once() == 0
    assert world.state("ann") is CopyState.HELD

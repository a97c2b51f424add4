"""Held mail expires after the time that its reason allows, told by a clock that does not run ahead."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.release import NOON, ReleaseWorld

from filter.events import Event
from filter.held import CopyState
from filter.retention import Retention, Rule
from filter.retry import DAY, HOUR, MINUTE
from filter.steady_clock import SteadyClock

YEAR = 365 * DAY
RULES = {"*": Rule(30 * DAY), "unsure": Rule(7 * DAY, tell=True)}


class Clocks:
    """A wall clock that may be set, and time that passes."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOON, 0.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.monotonic)

    def pass_time(self, milliseconds: int) -> None:
        """Time passes."""
        self.wall += milliseconds
        self.monotonic += milliseconds / 1000


class World(ReleaseWorld):
    """Held mail and its retention; the process has watched its clock for long enough."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks = Clocks()
        self.retention = Retention(self.mail, self.orders, self.metrics, self.clocks.clock, RULES)
        self.clocks.clock.now()
        self.days(1)

    def days(self, days: float) -> int:
        """Days pass; what expires then."""
        self.clocks.pass_time(int(days * DAY))
        self.now = self.clocks.wall
        return self.retention.run_once()

    def hold_for(self, reason: str, *names: str) -> None:
        """Hold a message for that reason from now on."""
        self.hold(*names, received_at=self.clocks.wall)
        number = len(self.mail.messages)
        for place, row in self.mail.rows.items():
            if place.message == number:
                row.copy = dataclasses.replace(row.copy, reason=reason)


@pytest.fixture
def world() -> World:
    """A new one."""
    return World()


def test_mail_expires_after_its_time(world: World) -> None:
    """Not before, and then with a line in the journal and without its content."""
    world.hold_for("no_consent", "ann", "bob")
    assert world.days(29) == 0
    assert world.days(1.1) == 2
    assert world.mail.states() == {"expired": 2}
    (line,) = world.journal.of(Event.EXPIRED)
    assert (line["recipients"], line["told"], line["order"]) == (2, "not_wanted", "retention-no_consent-2592000")
    (ordered,) = world.journal.of(Event.ORDERED)
    assert (ordered["author"], ordered["action"]) == ("retention", "expire")
    assert world.reports == []


def test_each_reason_has_its_own_time(world: World) -> None:
    """Only what was held for that reason goes."""
    world.hold_for("unsure", "ann")
    world.hold_for("no_consent", "bob")
    assert world.days(8) == 1
    assert world.state("bob") is CopyState.HELD


def test_the_sender_is_told_first_where_that_is_wanted(world: World) -> None:
    """The copy expires when the next hop has the report."""
    world.hold_for("unsure", "ann")
    world.days(8)
    assert world.state("ann") is CopyState.RELEASED
    world.deliver()
    assert world.state("ann") is CopyState.EXPIRED
    assert len(world.reports) == 1
    assert world.reached == []


def test_a_standing_order_goes_on(world: World) -> None:
    """What is held after an order was first carried out expires in its turn."""
    for _ in range(3):
        world.hold_for("no_consent", "ann")
        assert world.days(31) == 1
    assert len(world.journal.of(Event.ORDERED)) == 1


def test_nothing_expires_because_a_clock_jumps(world: World) -> None:
    """Set forward by a year, nothing is a year old; time that really passes counts on."""
    world.hold_for("no_consent", "ann")
    world.clocks.wall += YEAR
    assert world.days(1) == 0
    assert world.days(28) == 0
    assert world.days(2) == 1


def test_a_clock_that_is_set_back_delays(world: World) -> None:
    """What was received in the future is not old."""
    world.hold_for("no_consent", "ann")
    world.clocks.wall -= YEAR
    assert world.days(31) == 0


def test_a_new_process_watches_first() -> None:
    """One that started with a wrong clock, which is put right, expires nothing."""
    world = World()
    world.hold_for("no_consent", "ann")
    world.clocks.wall += YEAR
    world.clocks.clock = SteadyClock(lambda: world.clocks.wall, lambda: world.clocks.monotonic)
    fresh = Retention(world.mail, world.orders, world.metrics, world.clocks.clock, RULES)
    assert fresh.run_once() == 0
    world.clocks.pass_time(10 * MINUTE)
    assert fresh.run_once() == 0
    world.clocks.wall -= YEAR
    world.clocks.pass_time(2 * HOUR)
    assert fresh.run_once() == 0
    assert world.mail.states() == {"held": 1}


@given(st.lists(st.tuples(st.integers(0, 40 * DAY), st.integers(-YEAR, YEAR)), max_size=8))
def test_the_time_that_is_believed_never_runs_ahead(steps: list[tuple[int, int]]) -> None:
    """Whatever the wall clock does: neither ahead of it, nor quicker than time passes (by more than a thousandth)."""
    clocks = Clocks()
    clocks.pass_time(2 * HOUR)
    before = clocks.clock.now()
    assert before == clocks.wall
    for passed, jump in steps:
        clocks.pass_time(passed)
        clocks.wall += jump
        now = clocks.clock.now()
        assert now is not None
        assert now <= clocks.wall
        assert now <= before + passed * 1.001 + 1
        before = now


def test_the_gauges_are_set(world: World) -> None:
    """How much waits, and for how long the oldest has."""
    world.hold_for("no_consent", "ann", "bob")
    world.hold_for("unsure", "cat")
    world.days(7.5)
    world.days(0)  # gauges are set before anything is expired
    value = world.registry.get_sample_value
    assert value("consentry_held_copies", {"state": "held", "reason": "no_consent"}) == 2
    assert value("consentry_held_copies", {"state": "held", "reason": "unsure"}) == 0
    assert value("consentry_held_copies", {"state": "released", "reason": "unsure"}) == 1
    assert value("consentry_held_oldest_seconds", {"reason": "no_consent"}) == pytest.approx(7.5 * 86400, rel=0.01)
    assert value("consentry_held_oldest_seconds", {"reason": "unsure"}) == 0

"""Copies whose recipients have agreed since are released by themselves, where the operator wants that."""

import asyncio
import dataclasses

import pytest
from support.release import NEW_RULES, ReleaseWorld, blocked, path

from filter.auto_release import AutoRelease
from filter.campaigns import Decided
from filter.consent import ConsentState
from filter.errors import ConsentryError
from filter.events import Event
from filter.held import CopyState
from filter.ports import HoldUnavailableError

AGREED, OBJECTED = ConsentState.CONSENT, ConsentState.OBJECTED


class World(ReleaseWorld):
    """Held mail, and what looks for copies that may go."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.auto = AutoRelease(
            self.mail,
            self.orders,
            self.rechecker,
            now=self.clock,
            version=lambda: self.version,
            report=self.report,
        )

    def say(self, name: str, state: ConsentState) -> None:
        """Somebody's consent changes."""
        self.consents.states[path(name).decode()] = state
        self.version += 1

    def look(self) -> int:
        """One pass."""
        return asyncio.run(self.auto.run_once())


@pytest.fixture
def world() -> World:
    """A new one."""
    return World()


def test_who_agrees_later_gets_it(world: World) -> None:
    """And nobody else; delivery checks once more."""
    world.hold("ann", "bob")
    world.say("ann", AGREED)
    assert world.look() == 1
    assert world.state("bob") is CopyState.HELD
    world.deliver()
    assert world.reached == [path("ann")]
    (line,) = world.journal.of(Event.ORDERED)
    assert (line["order"], line["author"]) == ("auto", "auto")


def test_an_objection_after_the_pass_still_stops_it(world: World) -> None:
    """What was found is not what counts at delivery; a later change of mind is found again."""
    world.hold("ann")
    world.say("ann", AGREED)
    world.look()
    world.say("ann", OBJECTED)
    world.deliver()
    assert world.reached == []
    world.say("ann", AGREED)
    assert world.look() == 1


def test_a_pass_costs_nothing_while_nothing_changed(world: World) -> None:
    """Until consent changes the store is not even asked; an interrupted pass is made again."""
    world.hold("ann")
    world.look()
    asked = world.mail.calls["lines"]
    world.look()
    assert world.mail.calls["lines"] == asked
    world.say("ann", AGREED)
    world.mail.fail["lines"] = HoldUnavailableError("full")
    with pytest.raises(HoldUnavailableError):
        world.look()
    world.mail.fail.clear()
    assert world.look() == 1


def test_nothing_goes_that_nobody_agreed_to(world: World) -> None:
    """Other rules and a reviewer's word may let a copy go; that is for an order, not for this one."""
    world.hold("ann")
    world.decide(Decided.IS_SERVICE)
    world.classifier = NEW_RULES
    assert world.look() == 0


def test_other_reasons_are_left_to_people(world: World) -> None:
    """A block that was lifted, and a message that nobody judged, are not cured by consent."""
    world.consents.states["ann@x.example"] = blocked()
    world.hold("ann")
    world.hold("bob")
    world.say("ann", AGREED)
    world.say("bob", AGREED)
    (row,) = [row for row in world.mail.rows.values() if row.copy.recipient.path == path("bob")]
    row.copy = dataclasses.replace(row.copy, reason="unscanned")
    assert world.look() == 0


def test_who_was_erased_leaves_the_others_as_they_were(world: World) -> None:
    """A message that has fewer copies than it once had is checked for those that it has."""
    world.hold("ann", "bob", "cora")
    (first, *_) = [row for row in world.mail.rows.values() if row.copy.recipient.path == path("ann")]
    world.mail.erase_subjects([first.copy.subject_key])
    world.say("cora", AGREED)
    assert world.look() == 1
    world.deliver()
    assert world.reached == [path("cora")]


def test_a_message_that_cannot_be_read_keeps_no_other(world: World) -> None:
    """It is reported, and the others go."""
    world.hold("ann")
    world.say("ann", AGREED)
    world.mail.fail["message"] = ConsentryError("damaged")
    assert world.look() == 0
    assert world.reported == ["auto_release"]


def test_many_are_looked_at_in_turns(world: World) -> None:
    """Batch after batch, and none twice."""
    for number in range(130):
        world.hold(f"p{number}", f"q{number}")
        world.say(f"p{number}", AGREED)
    assert world.look() == 130
    assert world.mail.states() == {"released": 130, "held": 130}


def test_one_bad_message_keeps_no_other(world: World) -> None:
    """A check that fails is counted, and the rest goes on."""
    world.hold("ann")
    world.hold("bob")
    world.mail.messages[1] = dataclasses.replace(world.mail.messages[1], facts="nonsense")
    world.say("ann", AGREED)
    world.say("bob", AGREED)
    assert world.look() == 1
    assert world.reported == ["recheck"]

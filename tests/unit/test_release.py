"""Orders about held mail: kept first, carried out copy by copy, once each, and again where they were interrupted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.release import NOON, ReleaseWorld, path

from filter.errors import InputError
from filter.events import Event
from filter.held import Action, CopyState, HeldQuery
from filter.ports import HoldUnavailableError
from filter.release import Moved
from filter.retry import DAY


@pytest.fixture
def world() -> ReleaseWorld:
    """Five messages of one recipient each, of which one is of another campaign."""
    world = ReleaseWorld()
    for number in range(4):
        world.hold(f"p{number}")
    world.hold("other", campaign="c2")
    return world


@pytest.mark.parametrize(
    ("action", "state", "event"),
    [
        (Action.RELEASE, "released", None),
        (Action.DISCARD, "discarded", Event.DISCARDED),
        (Action.EXPIRE, "expired", Event.EXPIRED),
    ],
)
def test_an_order_moves_what_matches(world: ReleaseWorld, action: Action, state: str, event: Event | None) -> None:
    """What it orders happens to every copy that matches and to no other, with a line for each message."""
    assert world.orders.carry_out(world.order(action), HeldQuery(campaign="c1")) == Moved(4, 4, 0)
    assert world.mail.states() == {state: 4, "held": 1}
    ordered, *moved = world.journal.events
    assert (ordered["event"], ordered["order"], ordered["action"], ordered["author"]) == (
        "ordered",
        "o1",
        action,
        "ann",
    )
    assert [line["event"] for line in moved] == [event] * (4 if event else 0)
    assert world.count(str(event)) == len(moved)


def test_an_order_is_kept_before_anything_is_moved(world: ReleaseWorld) -> None:
    """A store that cannot keep it is not changed, and the journal says nothing."""
    world.mail.fail["order"] = HoldUnavailableError("full")
    with pytest.raises(HoldUnavailableError):
        world.release()
    assert world.mail.states() == {"held": 5}
    assert not world.journal.events


@given(st.integers(1, 7), st.integers(0, 5))
def test_an_interrupted_order_goes_on(batch: int, failures: int) -> None:
    """Whenever it is interrupted and however large the batches: in the end each copy was moved once."""
    world = ReleaseWorld()
    for number in range(6):
        world.hold(f"p{number}", f"q{number}")
    moved = 0

    def interrupted(progress: Moved) -> bool:
        nonlocal moved
        moved += progress.moved
        return False

    for _ in range(failures):
        world.orders.carry_out(world.order(), HeldQuery(), batch=batch, progress=interrupted)
    moved += world.orders.carry_out(world.order(), HeldQuery(), batch=batch).moved
    assert moved == 12
    assert [row.history for row in world.mail.rows.values()] == [[CopyState.RELEASED]] * 12
    assert len(world.journal.of(Event.ORDERED)) == 1


def test_memory_is_bounded_and_progress_told(world: ReleaseWorld) -> None:
    """Batch by batch, from where the one before ended."""
    heard: list[Moved] = []
    world.orders.carry_out(world.order(), HeldQuery(), batch=2, progress=heard.append)
    assert heard == [Moved(2, 2, 0), Moved(4, 4, 0), Moved(5, 5, 0)]


def test_what_is_received_later_is_not_meant(world: ReleaseWorld) -> None:
    """An order is about what was held when it was given; the query may say otherwise."""
    order = world.order()
    world.hold("late", received_at=NOON + 1)
    world.pass_time(60_000)
    assert world.orders.carry_out(order, HeldQuery()).moved == 5
    assert world.state("late") is CopyState.HELD
    assert world.orders.carry_out(order, HeldQuery(received_before=NOON + 2)).moved == 1


def test_what_a_wrong_clock_dated_ahead_is_meant(world: ReleaseWorld) -> None:
    """Nobody has received anything tomorrow: such copies are in reach of every order, and not only years later."""
    world.hold("ann", received_at=world.now + 400 * DAY)
    world.hold("bob", received_at=world.now + 1)
    assert world.release().moved == 6
    assert (world.state("ann"), world.state("bob")) == (CopyState.RELEASED, CopyState.HELD)
    young = HeldQuery(received_before=world.now - DAY)
    world.hold("dora", received_at=world.now + 400 * DAY)
    assert world.release(name="o2", query=young).moved == 0


def test_the_first_word_of_an_order_counts(world: ReleaseWorld) -> None:
    """Carried out again later it is about what it was about then; another order under its id is refused."""
    world.release()
    world.hold("late", received_at=NOON + 1)
    world.pass_time(60_000)
    assert world.release().moved == 0
    with pytest.raises(InputError, match="o1: was given before to release, not to discard"):
        world.orders.carry_out(world.order(Action.DISCARD), HeldQuery())
    with pytest.raises(InputError, match="despite"):
        world.release(despite=True)


def test_only_held_copies_are_moved(world: ReleaseWorld) -> None:
    """Whatever states the query names."""
    world.release(query=HeldQuery(campaign="c2"))
    every = HeldQuery(states=frozenset(CopyState))
    assert world.orders.carry_out(world.order(Action.DISCARD, name="o2"), every).moved == 4
    assert world.state("other") is CopyState.RELEASED


def test_double_clicks_release_once(world: ReleaseWorld) -> None:
    """Two orders for the same copies deliver each once."""
    world.consents.states.update({path(f"p{n}").decode(): "consent" for n in range(4)})
    world.release(name="o1")
    world.release(name="o2")
    world.deliver()
    assert len(world.reached) == len(set(world.reached)) == 4

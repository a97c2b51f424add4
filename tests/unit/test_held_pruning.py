"""What is known of held mail that is over goes when it has been over for long enough, and nothing else goes.

The first part is what every store promises; those of the fleet run it too.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.held import NOW, VAULT, held_copy, held_message
from support.held_backends import BACKENDS, Backend
from support.release import NOON, ReleaseWorld
from unit.test_held_mail import DAY, DISCARD, EVERY, EXPIRE, RELEASE, finish, message, places, release, states

from filter.events import Event
from filter.held import By, CopyState, HeldQuery, Order, Place, Pruned
from filter.held_pruning import REST, Pruner
from filter.hold_check import check
from filter.hold_database import HoldDatabase
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.ports import HoldUnavailableError
from filter.steady_clock import SteadyClock

KEEP = 90 * DAY


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path) -> Iterator[Backend]:
    """An empty store."""
    opened = BACKENDS[request.param](tmp_path)
    yield opened
    opened.close()


def discard(backend: Backend, queue_id: str, at: int, numbers: tuple[int, ...] = (0,)) -> None:
    """Discard copies of a message at that time after NOW."""
    backend.mail.order(DISCARD)
    there = places(backend, HeldQuery(queue_id=queue_id))
    backend.mail.move([one for one in there if one.number in numbers], CopyState.DISCARDED, DISCARD, NOW + at)


def test_what_ended_before_goes_with_all_that_is_known_of_it(backend):
    """A message that is over is neither found nor counted any more; others are as they were."""
    backend.store(message("old", held_copy(1), held_copy(2)), message("new"), message("held"))
    discard(backend, "old", 100, (0, 1))
    discard(backend, "new", 200)
    assert backend.mail.prune_ended(NOW + 200) == Pruned(1, 2, None)
    assert backend.mail.message("old") is None
    assert states(backend, "new") == [CopyState.DISCARDED]
    assert backend.mail.message("held")[0].content
    assert [tally[:3] for tally in backend.mail.tally(EVERY, By.STATE)] == [("discarded", 1, 1), ("held", 1, 1)]
    assert backend.mail.prune_ended(NOW + 200) == Pruned(0, 0, None)


@pytest.mark.parametrize("state", [CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED])
def test_however_it_ended(backend, state):
    """Delivered, bounced and expired copies are over, from when they were; released ones are not."""
    backend.store(message("one"))
    release(backend)
    assert backend.mail.prune_ended(NOW + DAY) == Pruned(0, 0, None)
    finish(backend, backend.mail.claim(NOW + 10, NOW + 20, 10), state, NOW + 15)
    assert backend.mail.prune_ended(NOW + 15) == Pruned(0, 0, None)
    assert backend.mail.prune_ended(NOW + 16) == Pruned(1, 1, None)


@pytest.mark.parametrize("last", ["held", "released", "later"])
def test_a_message_stays_for_its_last_copy(backend, last):
    """While one copy is open, or ended later, nothing of its message goes."""
    backend.store(message("one", held_copy(1), held_copy(2)))
    discard(backend, "one", 100)
    if last == "released":
        release(backend)
    elif last == "later":
        discard(backend, "one", 300, (1,))
    assert backend.mail.prune_ended(NOW + 300) == Pruned(0, 0, None)
    assert len(states(backend, "one")) == 2


def test_steps_are_bounded_and_go_on(backend):
    """A step looks at so many copies, also where they may not go, and the next begins behind them."""
    backend.store(*(message(f"m{number}", held_copy(1), held_copy(2)) for number in range(3)))
    discard(backend, "m0", 100)
    discard(backend, "m1", 101, (0, 1))
    discard(backend, "m2", 102, (0, 1))
    first = backend.mail.prune_ended(NOW + 300, None, 2)
    assert first[:2] == (1, 2)  # m0 is looked at, and has a copy that is held; m1 goes by its first
    second = backend.mail.prune_ended(NOW + 300, first.after, 2)
    assert second[:2] == (1, 2)
    assert second.after is None or backend.mail.prune_ended(NOW + 300, second.after, 2) == Pruned(0, 0, None)
    assert [line.queue_id for line in backend.mail.lines(EVERY)] == ["m0", "m0"]


def test_orders_go_when_no_copy_names_them(backend):
    """Old ones; also a copy that came back to be held names its order, so that this does not take it again."""
    backend.store(message("one", held_copy(1), held_copy(2)), message("two"))
    discard(backend, "two", 100)
    release(backend)
    finish(backend, backend.mail.claim(NOW + 10, NOW + 20, 10), CopyState.HELD, NOW + 15)
    backend.mail.order(EXPIRE)
    young = Order("y1", EXPIRE.action, NOW + 500, "ann", "why")
    backend.mail.order(young)
    assert backend.mail.prune_orders(NOW + 400) == 1
    assert {order.id for order in backend.mail.orders()} == {RELEASE.id, DISCARD.id, young.id}
    backend.mail.prune_ended(NOW + 400)
    assert backend.mail.prune_orders(NOW + 400) == 1
    assert {order.id for order in backend.mail.orders()} == {RELEASE.id, young.id}
    assert backend.mail.waiting() == (0, 0)


def test_an_order_that_went_is_kept_anew_by_what_it_moves(backend):
    """Whoever still carries it out moves copies under it, and it is there again with them."""
    backend.mail.order(EXPIRE)
    backend.store(message("one"))
    assert backend.mail.prune_orders(NOW + 400) == 1
    backend.mail.move(places(backend), CopyState.RELEASED, EXPIRE, NOW + 500)
    (claim,) = backend.mail.claim(NOW + 500, NOW + 600, 10)
    assert claim.orders == (EXPIRE,)
    assert backend.mail.prune_orders(NOW + 600) == 0


def test_late_outcomes_of_what_went_are_nothing(backend):
    """Whoever finishes a copy that was delivered by another, and has gone since, brings nothing back."""
    backend.store(message("one"))
    release(backend)
    late = backend.mail.claim(NOW + 10, NOW + 20, 10)
    finish(backend, backend.another().claim(NOW + 20, NOW + 50, 10), CopyState.DELIVERED, NOW + 30)
    backend.mail.prune_ended(NOW + 31)
    finish(backend, late, CopyState.RELEASED, NOW + 40, due_at=NOW + 50)
    assert not backend.mail.lines(EVERY)


def test_lists_go_on_over_what_went(backend):
    """Somebody who lists page by page goes on behind a place that is gone."""
    backend.store(*(message(f"m{number}") for number in range(3)))
    (first,) = backend.mail.lines(EVERY, None, 1)
    discard(backend, "m0", 100)
    backend.mail.prune_ended(NOW + 300)
    assert [line.queue_id for line in backend.mail.lines(EVERY, first.place, 9)] == ["m1", "m2"]


CONTRACT = {name: value for name, value in vars().items() if name.startswith("test_")}


# The file of one machine


def test_space_is_used_again(tmp_path):
    """A store that takes as much mail as it forgets does not grow, and stays sound."""
    with closing(HoldStore(tmp_path, vault=VAULT, min_free_space=0)) as store, closing(_review(tmp_path)) as mail:
        sizes = []
        for turn in range(6):
            asyncio.run(_fill(store, turn))
            mail.order(DISCARD)
            mail.move([line.place for line in mail.lines(HeldQuery())], CopyState.DISCARDED, DISCARD, NOW + turn)
            mail.prune_ended(NOW + turn + 1)
            sizes.append(_pages(tmp_path))
        assert store.check().sound
    assert sizes[-1] <= sizes[1] * 1.1


def test_a_damaged_record_stays(tmp_path):
    """Nobody knows when a copy ended whose record is damaged: it stays, and `check` tells of it."""
    with closing(HoldStore(tmp_path, vault=VAULT, min_free_space=0)) as store, closing(_review(tmp_path)) as mail:
        asyncio.run(store.store(held_message("one", held_copy(1), held_copy(2))))
        mail.order(DISCARD)
        mail.move([line.place for line in mail.lines(HeldQuery())], CopyState.DISCARDED, DISCARD, NOW)
        with closing(apsw.Connection(str(tmp_path / "held.sqlite"))) as connection:
            connection.execute("UPDATE copy SET changed_at = 5 WHERE number = 1")
        assert mail.prune_ended(NOW + DAY) == Pruned(0, 0, None)
        assert [one.queue_id for one in store.check().damage] == ["one"]


def test_a_record_is_known_again_until_it_went(tmp_path):
    """What is kept by its queue id (from Kafka) is not held twice while its record is there; afterwards it is new."""
    with closing(HoldStore(tmp_path, vault=VAULT, min_free_space=0)) as store, closing(_review(tmp_path)) as mail:
        one = held_message("one")
        assert asyncio.run(store.keep(one))
        mail.order(DISCARD)
        mail.move([line.place for line in mail.lines(HeldQuery())], CopyState.DISCARDED, DISCARD, NOW)
        assert not asyncio.run(store.keep(one))
        mail.prune_ended(NOW + 1)
        assert asyncio.run(store.keep(one))
        assert [line.state for line in mail.lines(EVERY)] == [CopyState.HELD]


@given(st.lists(st.lists(st.sampled_from(["held", "early", "late", "released"]), min_size=1, max_size=3), max_size=6))
@settings(max_examples=25, deadline=None)
def test_counts_stay_right(tmp_path_factory, fates):
    """Whatever copies became, exactly the messages of early ones go, and what is counted is what is there."""
    directory = tmp_path_factory.mktemp("hold")
    with closing(HoldStore(directory, vault=VAULT, min_free_space=0)) as store, closing(_review(directory)) as mail:
        for number, copies in enumerate(fates):
            asyncio.run(store.store(held_message(f"m{number}", *(held_copy(one) for one in range(len(copies))))))
        there = [line.place for line in mail.lines(HeldQuery())]
        chosen = dict(zip(there, [fate for copies in fates for fate in copies], strict=True))
        mail.order(DISCARD)
        mail.order(RELEASE)
        for fate, order, to, at in (
            ("early", DISCARD, CopyState.DISCARDED, NOW),
            ("late", DISCARD, CopyState.DISCARDED, NOW + DAY),
            ("released", RELEASE, CopyState.RELEASED, NOW),
        ):
            mail.move(_chosen(chosen, fate), to, order, at)
        gone = [number for number, copies in enumerate(fates) if set(copies) == {"early"}]
        assert mail.prune_ended(NOW + 1, None, 1000)[:2] == (len(gone), sum(len(fates[number]) for number in gone))
        left = {line.queue_id for line in mail.lines(EVERY)}
        assert left == {f"m{number}" for number in range(len(fates)) if number not in gone}
        with closing(HoldDatabase.open(directory, VAULT, readonly=True)) as database:
            assert check(database).sound


def _chosen(chosen: dict[Place, str], fate: str) -> list[Place]:
    return [place for place, one in chosen.items() if one == fate]


def _review(directory):
    return HeldReview(directory, VAULT)


async def _fill(store: HoldStore, turn: int) -> None:
    for number in range(30):
        await store.store(held_message(f"t{turn}n{number}", held_copy(1), held_copy(2), octets=20_000))


def _pages(directory) -> int:
    with closing(apsw.Connection(str(directory / "held.sqlite"))) as connection:
        return connection.pragma("page_count")


# Who does it


class World(ReleaseWorld):
    """Held mail, and who removes what is over; time is in our hands."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.going = True
        self.steady = SteadyClock(self.clock, lambda: self.passed)
        self.pruner = Pruner(
            *(self.mail, self.journal, self.metrics, self.steady, KEEP), goes_on=lambda: self.going, step=2, steps=3
        )
        self.days(1)

    def days(self, days: float) -> int:
        """Days pass; how many copies went then."""
        self.now += int(days * DAY)
        self.passed += days * 86_400
        return self.pruner.run_once()

    def end(self, count: int, copies: int = 1) -> None:
        """Hold so many messages, and discard them now."""
        for _ in range(count):
            self.hold(*(f"r{number}" for number in range(copies)), received_at=self.now)
        self.mail.order(Order("d1", DISCARD.action, self.now, "jo", "why"))
        order = self.mail.orders()[0]
        self.mail.move([line.place for line in self.mail.lines(HeldQuery())], CopyState.DISCARDED, order, self.now)

    @property
    def pruned(self) -> float:
        """The metric."""
        return self.registry.get_sample_value("consentry_held_pruned_total")


@pytest.fixture
def world() -> World:
    """A new one; the process has watched its clock for long enough."""
    return World()


def test_the_record_goes_after_its_time(world):
    """Not before; a line in the journal for each step, and a counter, say how much."""
    world.end(2, 3)
    assert world.days(89.9) == 0
    assert not world.journal.of(Event.PRUNED)
    assert world.days(0.2) == 6
    lines = world.journal.of(Event.PRUNED)
    assert {line["queue_id"] for line in lines} == {""}
    assert [sum(line[what] for line in lines) for what in ("messages", "copies", "orders")] == [2, 6, 1]
    assert world.pruned == 6
    assert not world.mail.lines(EVERY)
    assert not world.mail.orders()
    world.days(1)
    assert world.journal.of(Event.PRUNED) == lines


def test_what_is_held_never_goes(world):
    """However old it is."""
    world.hold("ann")
    world.days(4000)
    assert world.days(4000) == 0
    assert world.mail.states() == {"held": 1}


def test_a_clock_that_jumps_forward_removes_nothing(world):
    """Time that has not passed makes nothing old."""
    world.end(1)
    world.days(0.01)
    world.now += 1000 * DAY
    world.passed += REST / 500
    assert world.pruner.run_once() == 0
    assert world.mail.states() == {"discarded": 1}


def test_a_run_is_bounded_and_the_next_goes_on(world):
    """A run removes a bounded number and the next the rest; then nothing is looked at for an hour."""
    world.end(8)
    assert world.days(91) == 6
    assert world.days(0.001) == 2
    looks = world.mail.calls["prune_ended"]
    world.days(0.001)
    assert world.mail.calls["prune_ended"] == looks
    world.days(0.05)
    assert world.mail.calls["prune_ended"] == looks + 1


def test_what_a_step_removed_is_told_before_the_next(world):
    """A process that is killed between two steps has told of the first: each has a line of its own, in its order."""
    world.end(5)
    told: list[int] = []

    def goes_on() -> bool:
        told.append(sum(line["copies"] for line in world.journal.of(Event.PRUNED)))
        return True

    world.pruner._goes_on = goes_on
    assert world.days(91) == 5
    assert told == [0, 2, 4]
    assert [(line["copies"], line["orders"]) for line in world.journal.of(Event.PRUNED)] == [
        (2, 0),
        (2, 0),
        (1, 0),
        (0, 1),
    ]
    assert world.pruned == 5


def test_nothing_is_begun_when_the_process_ends(world):
    """Who is told to stop begins no further step."""
    world.end(1)
    world.going, looks = False, world.mail.calls["prune_ended"]
    assert world.days(91) == 0
    assert world.mail.calls["prune_ended"] == looks
    assert world.mail.states() == {"discarded": 1}


def test_a_store_that_fails_in_between(world):
    """What went until then is in the journal, and the rest goes later."""
    world.end(1)
    world.mail.fail["prune_orders"] = HoldUnavailableError("down")
    with pytest.raises(HoldUnavailableError):
        world.days(91)
    (line,) = world.journal.of(Event.PRUNED)
    assert (line["copies"], line["orders"]) == (1, 0)
    assert line["at"] > NOON

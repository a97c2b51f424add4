"""What every store of held mail promises to review (filter/held.py), whichever it is.

The store comes from the fixture `backend`. Another one runs these tests by importing them into a module with a fixture
of that name of its own; `support.held_backends.Backend` says what it has to give.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import pytest
from support.held import NOW, held_copy, held_message
from support.held_backends import BACKENDS, Backend

from filter.held import Action, By, Claim, CopyState, HeldQuery, Order, Outcome, Place
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage

DAY = 86_400_000
RELEASE = Order("r1", Action.RELEASE, NOW + 10, "jane", "asked for")
DISCARD = Order("d1", Action.DISCARD, NOW + 20, "jo", "an offer")
EXPIRE = Order("e1", Action.EXPIRE, NOW + 30, "retention", "too old")
EVERY = HeldQuery(states=frozenset())
HELD = HeldQuery()
RELEASED = HeldQuery(states=frozenset({CopyState.RELEASED}))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path) -> Iterator[Backend]:
    """An empty store."""
    opened = BACKENDS[request.param](tmp_path)
    yield opened
    opened.close()


def message(queue_id: str, *copies: HeldCopy, at: int = 0, octets: int = 300, **fields: object) -> HeldMessage:
    """A message received so many milliseconds after NOW."""
    made = held_message(queue_id, *copies, octets=octets)
    return dataclasses.replace(made, received_at=NOW + at, **fields)


def copy(number: int, **fields: object) -> HeldCopy:
    """A copy with other fields than usual."""
    return dataclasses.replace(held_copy(number), **fields)


def places(backend: Backend, query: HeldQuery = HELD) -> list[Place]:
    """The places of all that match."""
    return [line.place for line in backend.mail.lines(query)]


def states(backend: Backend, queue_id: str) -> list[CopyState]:
    """Where the copies of a message are."""
    _, lines = backend.mail.message(queue_id)
    return [line.state for _, line in sorted(lines.items())]


def release(backend: Backend, order: Order = RELEASE, query: HeldQuery = HELD) -> list[Place]:
    """Release all that match."""
    backend.mail.order(order)
    return list(backend.mail.move(places(backend, query), CopyState.RELEASED, order, order.at))


def claimed(claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """Queue id and position of each copy that was claimed."""
    return [(claim.message.queue_id, number) for claim in claims for number in claim.numbers]


def finish(backend: Backend, claims: Sequence[Claim], state: CopyState, at: int, **fields: object) -> None:
    """Say the same of all that was claimed."""
    backend.mail.finish([Outcome(place, state, **fields) for claim in claims for place in claim.places], at)


# Asking


def test_a_line_says_all_but_content_and_address(backend):
    """A line has what was stored, and nothing has become of the copy yet."""
    backend.store(message("one", held_copy(1), held_copy(2), campaign="ab" * 16))
    first, second = backend.mail.lines(HELD)
    assert first._replace(place=None) == (
        *(None, "one", CopyState.HELD, NOW, NOW, "ab" * 16, "marketing", 0.98, "objected", "objected"),
        *(("offer.discount", "offer.deadline"), "service", "shop", "shop", "offers", f"{1:032x}", 319, 0, 0, "", ""),
    )
    assert (first.place.number, second.place.number) == (0, 1)
    assert first.place < second.place


def test_an_empty_store_says_so(backend):
    """Nothing is there, whatever is asked."""
    assert not backend.mail.lines(EVERY)
    assert not backend.mail.orders()
    assert not backend.mail.claim(NOW, NOW + 1, 10)
    assert not any(backend.mail.tally(EVERY, by) for by in By)
    assert backend.mail.waiting() == (0, 0)
    assert backend.mail.message("one") is None
    assert not backend.mail.erase_message("one")
    assert backend.mail.erase_subjects([f"{1:032x}"]) == 0
    assert backend.mail.rewrap() == 0


MIXED = (
    message("a", held_copy(1), copy(2, reason="no_consent"), campaign="aa", at=0),
    message("b", copy(1, evidence=("offer.deadline",)), campaign="bb", label="mixed", at=DAY),
    message("c", copy(3, evidence=()), campaign="aa", declared="", controller="bank", brand="card", at=2 * DAY),
    message("d", held_copy(1), copy(4, reason="no_consent"), held_copy(1), campaign="bb", topic="news", at=3 * DAY),
    message("e", held_copy(5), campaign="", pending=True, at=4 * DAY),
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (HeldQuery(), ["a0", "a1", "b0", "c0", "d0", "d1", "d2"]),
        (EVERY, ["a0", "a1", "b0", "c0", "d0", "d1", "d2", "e0"]),
        (HeldQuery(states=frozenset({CopyState.PENDING, CopyState.VOID})), ["e0"]),
        (HeldQuery(campaign="aa"), ["a0", "a1", "c0"]),
        (HeldQuery(label="mixed"), ["b0"]),
        (HeldQuery(rule="offer.deadline"), ["a0", "a1", "b0", "d0", "d1", "d2"]),
        (HeldQuery(rule="offer"), []),
        (HeldQuery(reason="no_consent"), ["a1", "d1"]),
        (HeldQuery(declared="service", topic="news"), ["d0", "d1", "d2"]),
        (HeldQuery(controller="bank"), ["c0"]),
        (HeldQuery(brand="card", campaign="bb"), []),
        (HeldQuery(subjects=(f"{1:032x}",)), ["a0", "b0", "d0", "d2"]),
        (HeldQuery(subjects=(f"{1:032x}", f"{3:032x}"), campaign="aa"), ["a0", "c0"]),
        (HeldQuery(subjects=(f"{9:032x}",)), []),
        (HeldQuery(queue_id="d", reason="objected"), ["d0", "d2"]),
        (HeldQuery(queue_id="nobody"), []),
        (HeldQuery(received_from=NOW + DAY, received_before=NOW + 3 * DAY), ["b0", "c0"]),
        (HeldQuery(received_before=NOW + 1, subjects=(f"{2:032x}",)), ["a1"]),
        (HeldQuery(received_from=NOW + 3 * DAY, rule="offer.discount"), ["d0", "d1", "d2"]),
    ],
)
def test_all_that_is_asked_must_hold(backend, query, found):
    """Lines are those that match, in the order they were stored; every tally counts the same."""
    backend.store(*MIXED)
    lines = backend.mail.lines(query)
    assert [f"{line.queue_id}{line.place.number}" for line in lines] == found
    for by in By:
        tallies = backend.mail.tally(query, by)
        assert [tally[1:3] for tally in tallies] == sorted((tally[1:3] for tally in tallies), key=lambda one: -one[0])
        for value, copies, messages, oldest, newest in tallies:
            those = [line for line in lines if value in (line.rules if by is By.RULE else (getattr(line, by),))]
            assert copies == len(those)
            assert messages == len({line.queue_id for line in those})
            assert (oldest, newest) == (those[0].received_at, those[-1].received_at)
        values = {value for line in lines for value in (line.rules if by is By.RULE else (getattr(line, by),))}
        assert {tally.value for tally in tallies} == values


def test_lines_go_on_where_they_ended(backend):
    """However the pages are cut, every copy comes once."""
    backend.store(*(message(f"m{number}", held_copy(1), held_copy(2), held_copy(3)) for number in range(5)))
    whole = places(backend)
    assert len(whole) == 15
    for limit in (1, 2, 4, 7, 15, 16):
        found: list[Place] = []
        while page := backend.mail.lines(HELD, found[-1] if found else None, limit):
            assert len(page) <= limit
            found += [line.place for line in page]
        assert found == whole


def test_a_message_and_its_lines(backend):
    """A message comes with its content if that is asked for, and a line for each copy."""
    stored = message("one", held_copy(1), copy(2, disposition=Disposition.REJECT), facts='{"score":1}')
    backend.store(stored)
    found, lines = backend.mail.message("one")
    assert found == stored
    assert [lines[number].subject for number in range(2)] == [f"{1:032x}", f"{2:032x}"]
    found, lines = backend.mail.message("one", content=False)
    assert found == dataclasses.replace(stored, content=b"")
    assert len(lines) == 2


# Orders and moves


def test_orders_are_kept(backend):
    """An order is kept once, and the newest comes first, for others too."""
    despite = Order("r2", Action.RELEASE, NOW + 50, "jane", "they know us", despite=True)
    for order in (RELEASE, DISCARD, RELEASE, despite):
        backend.mail.order(order)
    assert list(backend.another().orders()) == [despite, DISCARD, RELEASE]


def test_held_copies_are_moved(backend):
    """What is HELD moves and is told; what is not there or not HELD any more is left alone."""
    backend.store(message("one", held_copy(1), held_copy(2)), message("two", pending=True))
    first, second = places(backend)
    pending = places(backend, HeldQuery(states=frozenset({CopyState.PENDING})))[0]
    backend.mail.order(DISCARD)
    nowhere = Place(first.message, 7), Place(first.message + 10**9, 0)
    asked = [second, pending, *nowhere]
    assert list(backend.mail.move(asked, CopyState.DISCARDED, DISCARD, NOW + 21)) == [second]
    assert list(backend.mail.move(asked, CopyState.DISCARDED, DISCARD, NOW + 22)) == []
    line = backend.mail.message("one")[1][1]
    assert (line.state, line.changed_at, line.order, line.due_at) == (CopyState.DISCARDED, NOW + 21, "d1", 0)
    assert states(backend, "one") == [CopyState.HELD, CopyState.DISCARDED]
    assert states(backend, "two") == [CopyState.PENDING]
    assert not backend.mail.move([], CopyState.DISCARDED, DISCARD, NOW)


@pytest.mark.parametrize(("to", "order"), [(CopyState.DISCARDED, DISCARD), (CopyState.EXPIRED, EXPIRE)])
def test_the_content_goes_with_the_last_open_copy(backend, to, order):
    """As long as one copy may be delivered the content stays."""
    stored = message("one", held_copy(1), held_copy(2))
    backend.store(stored)
    backend.mail.order(order)
    first, second = places(backend)
    backend.mail.move([first], to, order, order.at)
    assert backend.mail.message("one")[0] == stored
    backend.mail.move([second], to, order, order.at)
    assert backend.mail.message("one")[0] == dataclasses.replace(stored, content=b"")


def test_moved_copies_are_counted_where_they_are(backend):
    """Every tally follows what was moved."""
    backend.store(*(message(f"m{number}", held_copy(1), held_copy(2)) for number in range(3)))
    backend.mail.order(DISCARD)
    backend.mail.move(places(backend)[:3], CopyState.DISCARDED, DISCARD, DISCARD.at)
    assert [tally[:3] for tally in backend.mail.tally(EVERY, By.STATE)] == [("discarded", 3, 2), ("held", 3, 2)]
    assert [tally[:3] for tally in backend.mail.tally(EVERY, By.TOPIC)] == [("offers", 6, 3)]
    assert [tally[:3] for tally in backend.mail.tally(HELD, By.RULE)] == [
        ("offer.deadline", 3, 2),
        ("offer.discount", 3, 2),
    ]


def test_several_movers_take_each_copy_once(backend):
    """Of two that move the same copies one is told of each."""
    backend.store(*(message(f"m{number}") for number in range(10)))
    every, other = places(backend), backend.another()
    backend.mail.order(RELEASE)
    backend.mail.order(DISCARD)
    one = backend.mail.move(every[:6], CopyState.RELEASED, RELEASE, NOW)
    two = other.move(every, CopyState.DISCARDED, DISCARD, NOW)
    assert sorted([*one, *two]) == every
    assert backend.mail.waiting() == (6, NOW)


# Delivery


def test_released_copies_are_claimed_with_all_they_need(backend):
    """A claim has the message, which of its copies, by whose order, and how often it was tried."""
    stored = message("one", held_copy(1), held_copy(2), held_copy(3))
    backend.store(stored)
    backend.mail.order(RELEASE)
    _, second, third = places(backend)
    backend.mail.move([third, second], CopyState.RELEASED, RELEASE, NOW + 12)
    (claim,) = backend.mail.claim(NOW + 12, NOW + 100, 10)
    assert claim.message == stored
    assert tuple(claim.places) == (second, third)
    assert tuple(claim.numbers) == (1, 2)
    assert tuple(claim.orders) == (RELEASE, RELEASE)
    assert tuple(claim.attempts) == (0, 0)
    assert tuple(claim.released_at) == (NOW + 12, NOW + 12)


def test_a_lease_keeps_others_away_until_it_ends(backend):
    """What is claimed nobody else gets; when nobody finished it in time, it is due again."""
    backend.store(*(message(f"m{number}") for number in range(5)))
    release(backend)
    other = backend.another()
    first = backend.mail.claim(NOW + 10, NOW + 100, 3)
    second = other.claim(NOW + 11, NOW + 100, 3)
    assert (len(first), len(second)) == (3, 2)
    assert not set(claimed(first)) & set(claimed(second))
    assert not other.claim(NOW + 99, NOW + 200, 10)
    assert backend.mail.waiting()[0] == 5
    finish(backend, first, CopyState.DELIVERED, NOW + 50)
    assert claimed(other.claim(NOW + 100, NOW + 200, 10)) == claimed(second)


def test_nothing_is_claimed_before_it_is_due(backend):
    """Copies are due when they are released, and then when the last attempt said."""
    backend.store(message("one"))
    release(backend)
    assert backend.mail.waiting() == (1, NOW + 10)
    assert not backend.mail.claim(NOW + 9, NOW + 50, 10)
    claims = backend.mail.claim(NOW + 10, NOW + 50, 10)
    finish(backend, claims, CopyState.RELEASED, NOW + 20, due_at=NOW + 40, outcome="451 4.3.0")
    assert backend.mail.waiting() == (1, NOW + 40)
    line = backend.mail.lines(RELEASED)[0]
    assert line[-5:] == (319, 1, NOW + 40, "451 4.3.0", "r1")
    assert line.changed_at == NOW + 10
    assert not backend.mail.claim(NOW + 39, NOW + 90, 10)
    (again,) = backend.mail.claim(NOW + 40, NOW + 90, 10)
    assert (tuple(again.attempts), tuple(again.released_at)) == ((1,), (NOW + 10,))


@pytest.mark.parametrize("state", [CopyState.DELIVERED, CopyState.BOUNCED, CopyState.EXPIRED, CopyState.HELD])
def test_what_became_of_an_attempt_is_kept(backend, state):
    """A finished copy has its state, the time and the outcome, and its order stays noted; it is waited for no more."""
    stored = message("one", held_copy(1), held_copy(2))
    backend.store(stored)
    release(backend)
    finish(backend, backend.mail.claim(NOW + 10, NOW + 50, 10), state, NOW + 20, outcome="250 2.0.0")
    line = backend.mail.message("one")[1][0]
    assert (line.state, line.changed_at, line.attempts, line.due_at) == (state, NOW + 20, 1, 0)
    assert (line.outcome, line.order) == ("250 2.0.0", "r1")
    assert backend.mail.waiting() == backend.mail.waiting("r1") == (0, 0)
    assert backend.mail.message("one")[0].content == (stored.content if state is CopyState.HELD else b"")
    assert not backend.mail.claim(NOW + 10**9, NOW + 2 * 10**9, 10)


def test_what_was_held_again_can_be_released_again(backend):
    """It then belongs to the other order, and its attempts begin anew."""
    backend.store(message("one"))
    release(backend)
    finish(backend, backend.mail.claim(NOW + 10, NOW + 50, 10), CopyState.HELD, NOW + 20, outcome="recheck: objected")
    assert [line.outcome for line in backend.mail.lines(HELD)] == ["recheck: objected"]
    other = Order("r2", Action.RELEASE, NOW + 60, "jo", "it is service")
    assert len(release(backend, other)) == 1
    assert (backend.mail.waiting("r1"), backend.mail.waiting("r2")) == ((0, 0), (1, NOW + 60))
    (claim,) = backend.mail.claim(NOW + 60, NOW + 90, 10)
    assert (tuple(claim.orders), tuple(claim.attempts), tuple(claim.released_at)) == ((other,), (0,), (NOW + 60,))


def test_a_clock_that_ran_ahead_keeps_no_copy_waiting(backend: Backend) -> None:
    """Nothing is leased or put off for longer than a day: what is due later than that is due."""
    backend.store(message("one", copy(1), copy(2)))
    release(backend)
    year = 365 * DAY
    (claim,) = backend.mail.claim(NOW + year, NOW + year + 100, 1)
    finish(backend, [claim], CopyState.RELEASED, NOW + year, due_at=NOW + year + DAY // 6, outcome="unreachable")
    assert backend.mail.claim(NOW + year, NOW + year + 100, 10)  # leased, and never finished
    assert len(claimed(backend.mail.claim(NOW + 20, NOW + 100, 10, "r1"))) == 2
    assert not backend.mail.claim(NOW + 99, NOW + 200, 10)


def test_what_was_finished_stays_so(backend):
    """Somebody whose lease has ended may be late: what another one has finished stays as it is."""
    backend.store(message("one"))
    release(backend)
    late = backend.mail.claim(NOW + 10, NOW + 20, 10)
    finish(backend, backend.another().claim(NOW + 20, NOW + 50, 10), CopyState.DELIVERED, NOW + 30)
    finish(backend, late, CopyState.RELEASED, NOW + 40, due_at=NOW + 50)
    assert states(backend, "one") == [CopyState.DELIVERED]
    assert backend.mail.waiting() == (0, 0)


def test_claims_of_one_order(backend):
    """Whoever waits for an order claims what it released, and nothing else."""
    backend.store(message("a", campaign="aa"), message("b", campaign="bb"))
    other = Order("r2", Action.RELEASE, NOW + 5, "jo", "service")
    release(backend, RELEASE, HeldQuery(campaign="aa"))
    release(backend, other, HeldQuery(campaign="bb"))
    assert (backend.mail.waiting("r1"), backend.mail.waiting()) == ((1, NOW + 10), (2, NOW + 5))
    assert claimed(backend.mail.claim(NOW + 90, NOW + 99, 10, "r1")) == [("a", 0)]
    assert claimed(backend.mail.claim(NOW + 90, NOW + 99, 10)) == [("b", 0)]
    assert backend.mail.waiting("nobody") == (0, 0)


def test_claims_have_bounded_content(backend):
    """The messages of one claim have no more octets than wanted, but for one that has more alone."""
    backend.store(*(message(f"m{number}", held_copy(1), held_copy(2), octets=1000) for number in range(4)))
    release(backend)
    at = NOW + 10
    assert claimed(backend.mail.claim(at, at + 9, 10, octets=1)) == [("m0", 0), ("m0", 1)]
    assert claimed(backend.mail.claim(at, at + 9, 3, octets=5000)) == [("m1", 0), ("m1", 1), ("m2", 0)]
    assert claimed(backend.mail.claim(at, at + 9, 10, octets=5000)) == [("m2", 1), ("m3", 0), ("m3", 1)]


# Pending, erased, wrapped


def test_pending_copies_that_nobody_confirmed(backend):
    """Those of messages received before a time are HELD then; younger ones may still turn out to be their client's."""
    backend.store(
        message("old", held_copy(1), held_copy(2), pending=True), message("new", pending=True, at=DAY), message("held")
    )
    assert backend.mail.confirm_pending(NOW, NOW + DAY) == 0
    assert backend.mail.confirm_pending(NOW + 1, NOW + DAY) == 2
    assert backend.mail.confirm_pending(NOW + 1, NOW + DAY) == 0
    line = backend.mail.message("old")[1][1]
    assert (line.state, line.changed_at) == (CopyState.HELD, NOW + DAY)
    assert states(backend, "new") == [CopyState.PENDING]


def test_a_message_is_erased(backend):
    """In whatever state its copies are, nothing of it is left, and nothing of others is gone."""
    backend.store(message("one", held_copy(1), held_copy(2)), message("two"))
    release(backend, query=HeldQuery(subjects=(f"{1:032x}",)))
    assert backend.mail.erase_message("one")
    assert not backend.mail.erase_message("one")
    assert backend.mail.message("one") is None
    assert [tally[:3] for tally in backend.mail.tally(EVERY, By.STATE)] == [("released", 1, 1)]
    assert backend.mail.waiting("r1")[0] == 1
    assert claimed(backend.mail.claim(NOW + 10, NOW + 20, 10)) == [("two", 0)]


def test_a_recipient_is_erased(backend):
    """Every copy for one of the keys goes; messages with other copies stay, and those can still be released."""
    backend.store(
        message("both", held_copy(1), held_copy(2)),
        message("one", held_copy(1)),
        message("other", held_copy(3)),
        message("nobody", copy(1, subject_key="")),
    )
    assert backend.mail.erase_subjects([f"{1:032x}", f"{9:032x}", ""]) == 2
    assert backend.mail.message("one") is None
    assert [line.subject for line in backend.mail.lines(EVERY)] == [f"{2:032x}", f"{3:032x}", ""]
    assert [tally[:3] for tally in backend.mail.tally(HELD, By.LABEL)] == [("marketing", 3, 3)]
    (moved, *_) = release(backend)
    claim = backend.mail.claim(NOW + 10, NOW + 20, 10)[0]
    assert claim.places == (moved,)
    assert [claim.message.copies[number].subject_key for number in claim.numbers] == [f"{2:032x}"]
    finish(backend, [claim], CopyState.DELIVERED, NOW + 15)
    assert backend.mail.message("both")[0].content == b""

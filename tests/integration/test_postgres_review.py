"""Held mail in PostgreSQL keeps what every store of it promises (unit/test_held_mail.py), and what a fleet needs."""

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.held import NOW, VAULT, held_copy, held_message
from support.held_memory import MemoryHeldMail
from support.held_postgres import PostgresBackend
from support.postgres import PASSWORD, Cutting, Postgres, running
from support.processes import wait_until
from unit import test_held_mail as contract
from unit import test_held_pruning as pruning
from unit import test_hold_review as model

from filter.held import Action, By, CopyState, HeldQuery, Order, Outcome, Unread, Unreadable
from filter.ports import HoldUnavailableError
from filter.postgres_link import Server
from filter.postgres_review import PostgresReview
from filter.sealing import UnknownKeyError, Vault

pytestmark = pytest.mark.integration

postgres = pytest.fixture(scope="module")(running)
globals().update({name: value for name, value in vars(contract).items() if name.startswith("test_")})
globals().update(pruning.CONTRACT)


@pytest.fixture(scope="module")
def shared(postgres):
    """A database that is emptied before each use."""
    opened = PostgresBackend(postgres)
    yield opened
    opened.close()


@pytest.fixture
def backend(postgres):
    """An empty database."""
    opened = PostgresBackend(postgres)
    yield opened
    opened.close()


@given(
    st.lists(model.MESSAGES, max_size=5),
    model.CHOICES,
    st.lists(model.QUERIES, min_size=1, max_size=4),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_the_database_agrees_with_a_plain_model(shared, messages, choices, queries):
    """Whatever is stored and done to it, lines and tallies are those of a model that looks at everything."""
    with psycopg.connect(shared.server.url, password=PASSWORD) as connection:
        connection.execute("TRUNCATE consentry.message, consentry.orders CASCADE")
    named = [dataclasses.replace(message, queue_id=str(number)) for number, message in enumerate(messages)]
    plain = MemoryHeldMail(*named)
    shared.store(*named)
    for mail in (plain, shared.mail):
        mail.order(model.ORDER)
        mail.order(model.DISCARD)
    for what, choice in choices:
        assert model._act(shared.mail, what, choice) == model._act(plain, what, choice)
    for query in [model.EVERY, *queries]:
        found = shared.mail.lines(query)
        assert [line.place for line in found] == sorted(line.place for line in found)
        assert sorted(map(model._known, found), key=str) == sorted(map(model._known, plain.lines(query)), key=str)
        for by in By:
            assert shared.mail.tally(query, by) == plain.tally(query, by)
    assert shared.mail.waiting()[0] == plain.waiting()[0]


# What only a fleet has.

RELEASE = Order("r1", Action.RELEASE, NOW, "jane", "asked for")


def fill(backend, messages, copies=1):
    """Store so many messages at once, each with so many copies."""

    async def run():
        each = [held_copy(number) for number in range(copies)]
        await asyncio.gather(*(backend.hold.store(held_message(f"m{n}", *each, octets=200)) for n in range(messages)))

    asyncio.run(run())


def places(mail, **query):
    """The places of all that match."""
    return [line.place for line in mail.lines(HeldQuery(**query), limit=10_000)]


def test_machines_that_claim_at_once_never_get_the_same_copy(backend):
    """However many ask at the same time, every released copy is claimed by one of them."""
    fill(backend, 60, copies=3)
    every = places(backend.mail)
    backend.mail.move(every, CopyState.RELEASED, RELEASE, NOW)

    def claim_all(mail):
        got = []
        while claims := mail.claim(NOW, NOW + 60_000, 7):
            got += [place for claim in claims for place in claim.places]
        return got

    machines = [backend.another() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        claimed = [place for got in pool.map(claim_all, machines) for place in got]
    assert sorted(claimed) == every
    assert backend.mail.waiting() == (180, NOW + 60_000)


def test_machines_that_move_and_finish_at_once_leave_one_state_and_no_content(backend):
    """Reviewers who discard and deliver copies of the same messages at the same time do not stand in each other's way;
    each copy is moved once, and with the last of a message its content goes.
    """
    fill(backend, 40, copies=4)
    every = places(backend.mail)
    backend.mail.move(every[::2], CopyState.RELEASED, RELEASE, NOW)
    claims = backend.mail.claim(NOW, NOW + 60_000, 1000)
    outcomes = [Outcome(place, CopyState.DELIVERED) for claim in claims for place in claim.places]
    discard = Order("d1", Action.DISCARD, NOW, "jo", "an offer")

    def discard_all(mail, order):
        return [place for part in cut(order, 7) for place in mail.move(part, CopyState.DISCARDED, discard, NOW)]

    def finish_all(mail, order):
        for part in cut(order, 5):
            mail.finish(part, NOW)

    one, two, three, four = (backend.another() for _ in range(4))
    with ThreadPoolExecutor(4) as pool:
        moved = [pool.submit(discard_all, one, every), pool.submit(discard_all, two, every[::-1])]
        done = [pool.submit(finish_all, three, outcomes), pool.submit(finish_all, four, outcomes[::-1])]
        assert [each.result() for each in done] == [None, None]
    assert sorted([*moved[0].result(), *moved[1].result()]) == every[1::2]
    tallies = backend.mail.tally(HeldQuery(states=frozenset()), By.STATE)
    assert [tally[:3] for tally in tallies] == [("delivered", 80, 40), ("discarded", 80, 40)]
    assert {line.attempts for line in backend.mail.lines(HeldQuery(states=frozenset({CopyState.DELIVERED})))} == {1}
    assert all(not backend.mail.message(f"m{number}")[0].content for number in range(40))


def cut(items, size):
    """Parts of so many."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def test_a_reviewer_goes_on_when_the_server_is_back():
    """While the server is down every question is refused with its name; then the same object works again."""
    with Postgres() as own:
        backend = PostgresBackend(own)
        fill(backend, 3)
        assert len(places(backend.mail)) == 3
        own.kill()
        for _ in range(2):
            with pytest.raises(HoldUnavailableError, match=rf"127\.0\.0\.1:{own.port}"):
                backend.mail.lines(HeldQuery())
        own.run()
        wait_until(lambda: _answers(backend.mail), "an answer")
        assert len(backend.mail.move(places(backend.mail), CopyState.RELEASED, RELEASE, NOW)) == 3
        own.kill()
        own.run()
        assert backend.mail.waiting() == (3, NOW), "a connection that was lost meanwhile is made again unasked"
        backend.close()


def _answers(mail):
    try:
        mail.orders()
    except HoldUnavailableError:
        return False
    return True


def test_a_lost_commit_is_asked_for_again(postgres, backend):
    """The way to the server is cut between commit and answer: who moved copies is told which, and each attempt that was
    finished is finished once.
    """
    fill(backend, 3)
    every = places(backend.mail)
    with Cutting(postgres.port) as way:
        there = Server(way.url(backend.server.url), lambda: PASSWORD)
        with closing(PostgresReview(there, vault=VAULT)) as mail:
            mail.order(RELEASE)
            way.cut = True
            assert list(mail.move(every, CopyState.RELEASED, RELEASE, NOW)) == every
            assert not way.cut
            claims = mail.claim(NOW, NOW + 60_000, 10)
            way.cut = True
            mail.finish([Outcome(place, CopyState.DELIVERED) for claim in claims for place in claim.places], NOW + 1)
            assert not way.cut
            found = mail.lines(HeldQuery(states=frozenset({CopyState.DELIVERED})))
    assert [(line.place, line.attempts) for line in found] == [(place, 1) for place in every]


def test_what_is_damaged_keeps_nobody_waiting(backend):
    """A damaged copy is in no list and in no claim; all others are, and come first when more is due than wanted."""
    fill(backend, 6)
    every = places(backend.mail)
    backend.mail.move(every[:5], CopyState.RELEASED, RELEASE, NOW)
    damage = "UPDATE consentry.{0} SET {1} WHERE {2} = (SELECT id FROM consentry.message WHERE queue_id = '{3}')"
    with psycopg.connect(backend.server.url, password=PASSWORD) as connection:
        connection.execute(damage.format("copy", "outcome = 'x'", "message", "m0"))
        connection.execute(damage.format("message", "topic = 'x'", "id", "m1"))
        connection.execute(damage.format("content", "body = 'x'", "message", "m2"))
    assert {line.queue_id for line in backend.mail.lines(HeldQuery(states=frozenset()))} == {"m2", "m3", "m4", "m5"}
    assert len(backend.mail.lines(HeldQuery(states=frozenset()), limit=4)) == 4
    told: list[Unreadable] = []
    got = [claim.message.queue_id for _ in range(5) for claim in backend.mail.claim(NOW, NOW + 9, 1, unreadable=told)]
    assert sorted(got) == ["m3", "m4"]
    assert [(one.queue_id, one.why, one.order) for one in told] == [
        ("m0", Unread.DAMAGED, ""),
        ("m1", Unread.DAMAGED, RELEASE.id),
        ("m2", Unread.DAMAGED, RELEASE.id),
    ]
    again = [Outcome(place, CopyState.HELD, 0, "recheck: damaged") for one in told for place in one.places]
    backend.mail.finish(again, NOW)
    assert [(line.queue_id, line.outcome) for line in backend.mail.lines(HeldQuery(queue_id="m2"))] == [
        ("m2", "recheck: damaged")
    ]
    assert not backend.mail.claim(NOW + 8, NOW + 9, 9, unreadable=told)
    assert len(told) == 3
    with closing(PostgresReview(backend.server, vault=Vault.of([bytes(range(1, 33))]))) as keyless:
        assert not keyless.claim(NOW + 9, NOW + 20, 9, unreadable=told)
    assert [(one.queue_id, one.why) for one in told[3:]] == [
        ("m3", Unread.KEY_MISSING),
        ("m4", Unread.KEY_MISSING),
    ]
    assert set(backend.mail.move(every, CopyState.DISCARDED, RELEASE, NOW)) == {every[1], every[2], every[5]}


def test_keys_are_wrapped_anew(backend):
    """Messages are readable by the new master key alone afterwards; one whose key is gone stays as it is."""
    fill(backend, 5)
    new = bytes(range(1, 33))
    both = PostgresReview(backend.server, vault=Vault.of([new, bytes(range(32))]))
    with closing(both), closing(PostgresReview(backend.server, vault=Vault.of([new]))) as only:
        with pytest.raises(UnknownKeyError):
            only.message("m0")
        assert only.rewrap() == 0
        assert [both.rewrap(3), both.rewrap(3), both.rewrap(3)] == [3, 2, 0]
        assert only.message("m0")[0].content == both.message("m0")[0].content != b""


def test_an_order_is_not_pruned_while_somebody_moves_by_it(backend):
    """Whoever prunes orders waits for a move under way: no released copy is ever without its order."""
    order = Order("e1", Action.EXPIRE, NOW, "retention", "too old")
    backend.store(held_message("one", held_copy(1)))
    backend.mail.order(order)
    with psycopg.connect(backend.server.url, password=PASSWORD) as connection, ThreadPoolExecutor(1) as threads:
        connection.execute("INSERT INTO consentry.orders SELECT * FROM consentry.orders ON CONFLICT DO NOTHING")
        pruned = threads.submit(backend.mail.prune_orders, NOW + 1)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'consentry.orders'::regclass"
        with psycopg.connect(backend.server.url, password=PASSWORD, autocommit=True) as watching:
            wait_until(lambda: watching.execute(waits).fetchone() == (1,), "somebody to wait")
        connection.execute("UPDATE consentry.copy SET order_id = 'e1'")
        connection.commit()
        assert pruned.result() == 0
    assert backend.mail.orders() == [order]

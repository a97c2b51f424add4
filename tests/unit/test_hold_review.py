"""Held mail of this machine under review: agrees with a plain model, finds without looking at everything, and leaves
nothing of what is erased.
"""

import asyncio
import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faulty_disk import FaultyDisk
from support.held import NOW, VAULT, held_copy, held_message
from support.held_backends import SqliteBackend
from support.held_memory import MemoryHeldMail

from filter import hold_search
from filter.errors import InputError
from filter.held import (
    LONGEST_WAIT,
    Action,
    By,
    CopyState,
    HeldLine,
    HeldQuery,
    Order,
    Outcome,
    Place,
    Unread,
    Unreadable,
)
from filter.hold_claims import Lease, Leases, claims_of, lease
from filter.hold_codec import DamagedMessageError, HoldDataError
from filter.hold_database import HoldDatabase
from filter.hold_review import HeldReview
from filter.hold_schema import open_file
from filter.hold_store import HoldStore
from filter.ports import HeldMessage, HoldUnavailableError
from filter.sealing import UnknownKeyError, Vault

ORDER = Order("r1", Action.RELEASE, NOW, "jane", "asked for")
DISCARD = Order("d1", Action.DISCARD, NOW, "jo", "an offer")
EVERY = HeldQuery(states=frozenset())
NEWER = Vault.of([bytes([7]) * 32, bytes(range(32))])


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[SqliteBackend]:
    """An empty store."""
    opened = SqliteBackend(tmp_path)
    yield opened
    opened.close()


def _mail(count: int, *, octets: int = 300) -> list[HeldMessage]:
    return [held_message(f"m{number}", held_copy(number), octets=octets) for number in range(count)]


def _places(mail: HeldReview, query: HeldQuery = EVERY) -> list[Place]:
    return [line.place for line in mail.lines(query)]


# Against the model

WORDS = st.sampled_from(["", "a", "b"])
COPIES = st.builds(
    dataclasses.replace,
    st.integers(0, 3).map(held_copy),
    reason=WORDS,
    evidence=st.lists(WORDS, max_size=2, unique=True).map(tuple),
)
MESSAGES = st.builds(
    dataclasses.replace,
    st.just(held_message("x", octets=20)),
    received_at=st.integers(NOW, NOW + 3),
    campaign=WORDS,
    label=WORDS,
    declared=WORDS,
    controller=WORDS,
    brand=WORDS,
    topic=WORDS,
    copies=st.lists(COPIES, min_size=1, max_size=4).map(tuple),
    pending=st.booleans(),
)
QUERIES = st.builds(
    HeldQuery,
    states=st.sets(st.sampled_from(CopyState), max_size=3).map(frozenset) | st.just(frozenset()),
    campaign=WORDS,
    label=WORDS,
    rule=WORDS,
    reason=WORDS,
    declared=st.just("") | WORDS,
    controller=st.just("") | WORDS,
    brand=st.just("") | WORDS,
    topic=st.just("") | WORDS,
    subjects=st.just(()) | st.lists(st.integers(0, 3).map("{:032x}".format), min_size=1, max_size=2).map(tuple),
    queue_id=st.sampled_from(["", "", "", "0", "3"]),
    received_from=st.sampled_from([0, 0, NOW + 1]),
    received_before=st.sampled_from([0, 0, NOW + 2]),
)
CHOICES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**16)), max_size=8)


def _known(line: HeldLine) -> HeldLine:
    """A line as both have it: places are their own, and so is when a lease ends."""
    return line._replace(place=Place(0, line.place.number), due_at=0)


def _act(mail: HeldReview | MemoryHeldMail, what: int, choice: int) -> object:
    """One thing that is done in review; what choices there are is told alike by both."""
    lines = sorted(mail.lines(EVERY), key=lambda line: (line.queue_id, line.place.number))
    chosen = [line for number, line in enumerate(lines) if choice >> number % 16 & 1]
    match what:
        case 0:
            return len(mail.move([line.place for line in chosen], CopyState.RELEASED, ORDER, NOW + 5))
        case 1:
            return len(mail.move([line.place for line in chosen], CopyState.DISCARDED, DISCARD, NOW + 6))
        case 2:
            states = (CopyState.DELIVERED, CopyState.BOUNCED, CopyState.HELD, CopyState.RELEASED)
            claims = mail.claim(NOW + 10, NOW + 20, 100)
            places = sorted((claim.message.queue_id, place) for claim in claims for place in claim.places)
            outcomes = [Outcome(place, states[(choice + n) % 4], NOW + 9) for n, (_, place) in enumerate(places)]
            mail.finish(outcomes, NOW + 11)
            return len(places)
        case 3:
            return mail.confirm_pending(NOW + choice % 4, NOW + 7)
        case 4:
            return mail.erase_message(str(choice % 4))
        case _:
            return mail.erase_subjects([f"{choice % 4:032x}"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(MESSAGES, max_size=5), CHOICES, st.lists(QUERIES, min_size=1, max_size=4), st.sampled_from([-1, 16]))
def test_the_file_agrees_with_a_plain_model(messages, choices, queries, least):
    """Whatever is stored and done to it, lines and tallies are those of a model that looks at everything."""
    named = [dataclasses.replace(message, queue_id=str(number)) for number, message in enumerate(messages)]
    model = MemoryHeldMail(*named)
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hold_search, "_LEAST_PAGE", least)  # -1: look at all copies instead of the index
        backend = SqliteBackend(Path(scratch))
        try:
            backend.store(*named)
            for mail in (model, backend.mail):
                mail.order(ORDER)
                mail.order(DISCARD)
            for what, choice in choices:
                assert _act(backend.mail, what, choice) == _act(model, what, choice)
            for query in [EVERY, *queries]:
                found = backend.mail.lines(query)
                assert [line.place for line in found] == sorted(line.place for line in found)
                assert sorted(map(_known, found), key=str) == sorted(map(_known, model.lines(query)), key=str)
                for by in By:
                    assert backend.mail.tally(query, by) == model.tally(query, by)
            assert backend.mail.waiting()[0] == model.waiting()[0]
            assert backend.hold.check().sound
        finally:
            backend.close()


# Without looking at everything


@pytest.mark.parametrize(
    "ask",
    [
        *(lambda mail, by=by: mail.tally(HeldQuery(), by) for by in By),
        lambda mail: mail.tally(HeldQuery(received_from=NOW), By.CAMPAIGN),
        lambda mail: mail.lines(HeldQuery()),
        lambda mail: mail.lines(HeldQuery(campaign="ab", rule="offer.discount", received_before=NOW)),
        lambda mail: mail.lines(HeldQuery(reason="objected"), Place(5, 5)),
        lambda mail: mail.lines(HeldQuery(subjects=(f"{1:032x}",))),
        lambda mail: mail.lines(HeldQuery(queue_id="m1")),
        lambda mail: mail.message("m1"),
        lambda mail: mail.waiting(),
        lambda mail: mail.waiting("r1"),
        lambda mail: mail.move(_places(mail), CopyState.RELEASED, ORDER, NOW),
        lambda mail: mail.finish([Outcome(_places(mail)[0], CopyState.HELD)], NOW),
        lambda mail: mail.claim(NOW, NOW + 1, 10),
        lambda mail: mail.claim(NOW, NOW + 1, 10, "r1"),
        lambda mail: mail.confirm_pending(NOW + 1, NOW),
        lambda mail: mail.erase_message("m1"),
        lambda mail: mail.erase_subjects([f"{1:032x}"]),
        lambda mail: mail.rewrap(),
    ],
)
def test_nothing_looks_at_every_copy_or_message(backend, ask: Callable[[HeldReview], object]):
    """No statement of the usual questions and orders goes through the whole table of copies, messages or content."""
    backend.store(*_mail(3))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail)[:2], CopyState.RELEASED, ORDER, NOW)
    statements: set[str] = set()

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        statements.add(sql)
        return True

    for connection in (backend.mail._database.connection, backend.mail._writer.database.connection):
        connection.exec_trace = note
    ask(backend.mail)
    assert statements
    planner = open_file(backend.directory, readonly=True)
    for sql in statements - {"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}:
        plan = [
            row[3]
            for row in planner.execute(
                f"EXPLAIN QUERY PLAN {sql}", [1] * (len(set(re.findall(r"\?\d", sql))) or sql.count("?"))
            )
        ]
        for step in plan:
            assert not step.startswith(("SCAN copy", "SCAN message", "SCAN content")), (sql, plan)
    planner.close()


def test_many_lots_are_found_too(backend):
    """Where each copy has evidence of its own there are as many lots as copies, and all is found as ever."""
    messages = [
        held_message(f"m{number:03}", dataclasses.replace(held_copy(number), evidence=(f"rule.{number}", "shop")))
        for number in range(60)
    ]
    backend.store(*messages)
    assert [line.queue_id for line in backend.mail.lines(HeldQuery(rule="shop"))] == [m.queue_id for m in messages]
    assert [line.queue_id for line in backend.mail.lines(HeldQuery(rule="rule.7"))] == ["m007"]
    assert backend.mail.tally(HeldQuery(), By.RULE)[0] == ("shop", 60, 60, NOW, NOW)


def test_lots_that_nothing_is_in_are_removed(backend):
    """What is known of campaigns that are gone does not add up."""
    backend.store(*_mail(2))
    for queue_id in ("m0", "m1"):
        backend.mail.erase_message(queue_id)
    asyncio.run(backend.hold.prune())
    database = backend.mail._database.connection
    assert database.execute("SELECT count(*) FROM lot").get == 0
    assert database.execute("SELECT count(*) FROM mix_count").get == 0


# Orders


def test_another_order_of_the_same_id_is_refused(backend):
    """Who ordered what cannot be changed later."""
    backend.mail.order(ORDER)
    with pytest.raises(InputError, match="order r1: is kept already"):
        backend.mail.order(ORDER._replace(author="jo"))
    assert backend.mail.orders() == [ORDER]


@pytest.mark.parametrize("state", [CopyState.HELD, CopyState.DELIVERED, CopyState.VOID])
def test_held_copies_do_not_move_to_other_states(backend, state):
    """A mistake of a caller moves nothing."""
    backend.store(*_mail(1))
    with pytest.raises(ValueError, match="held copies are moved to discarded, expired, released"):
        backend.mail.move(_places(backend.mail), state, ORDER, NOW)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    with pytest.raises(ValueError, match="a released copy becomes"):
        backend.mail.finish([Outcome(_places(backend.mail)[0], CopyState.VOID)], NOW)


# Damage and keys


def _damage(backend: SqliteBackend, sql: str) -> None:
    writer = open_file(backend.directory)
    writer.execute(f"PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF; {sql}")
    writer.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE message SET label = 'service' WHERE queue_id = 'm1'",
        "UPDATE copy SET reason = 'no_consent' WHERE message = (SELECT id FROM message WHERE queue_id = 'm1')",
        "UPDATE copy SET due_at = due_at - 1 WHERE message = (SELECT id FROM message WHERE queue_id = 'm1')",
        "UPDATE content SET body = zeroblob(50) WHERE message = (SELECT id FROM message WHERE queue_id = 'm1')",
        "DELETE FROM content WHERE message = (SELECT id FROM message WHERE queue_id = 'm1')",
        "UPDATE message SET wrapped_key = zeroblob(60) WHERE queue_id = 'm1'",
    ],
)
def test_what_is_damaged_is_not_delivered_and_keeps_nobody_waiting(backend, sql):
    """A damaged message is left out of claims, stays where it is, and `check` names it (E7)."""
    backend.store(*_mail(3))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    _damage(backend, sql)
    claims = backend.mail.claim(NOW, NOW + 10, 10)
    assert [claim.message.queue_id for claim in claims] == ["m0", "m2"]
    assert backend.mail.waiting()[0] == 3
    with pytest.raises(DamagedMessageError):
        backend.mail.message("m1")
    assert [damage.queue_id for damage in backend.hold.check().damage] == ["m1"]


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("UPDATE message SET label = 'service' WHERE id = {}", []),
        ("UPDATE copy SET reason = 'no_consent' WHERE message = {}", []),
        ("UPDATE content SET body = zeroblob(50) WHERE message = {}", ["recheck: damaged"]),
        ("DELETE FROM content WHERE message = {}", ["recheck: damaged"]),
        ("UPDATE message SET wrapped_key = zeroblob(60) WHERE id = {}", ["recheck: damaged"]),
    ],
)
def test_what_cannot_be_read_is_told_and_held_again(backend, sql, shown):
    """Who claims is told of copies that cannot be read; held again they are due no more, and `check` names them."""
    backend.store(*_mail(3))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    _damage(backend, sql.format("(SELECT id FROM message WHERE queue_id = 'm1')"))
    unreadable: list[Unreadable] = []
    backend.mail.claim(NOW, NOW + 10, 10, unreadable=unreadable)
    (one,) = unreadable
    assert (one.queue_id, one.subjects, one.order, one.why) == ("m1", (f"{1:032x}",), ORDER.id, Unread.DAMAGED)
    backend.mail.finish([Outcome(place, CopyState.HELD, 0, "recheck: damaged") for place in one.places], NOW)
    assert backend.mail.waiting()[0] == 2
    assert [claim.message.queue_id for claim in backend.mail.claim(NOW + 10, NOW + 20, 10)] == ["m0", "m2"]
    assert [line.outcome for line in backend.mail.lines(HeldQuery())] == shown
    assert [damage.queue_id for damage in backend.hold.check().damage] == ["m1"]


def test_damaged_records_keep_nobody_waiting(backend):
    """However many come first: they are told of and put off for a day, and what is due behind them is claimed."""
    backend.store(*_mail(5))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    _damage(
        backend, "UPDATE copy SET due_at = due_at - 1 WHERE message IN (SELECT id FROM message ORDER BY id LIMIT 3)"
    )
    told: list[Unreadable] = []
    claimed = [backend.mail.claim(NOW, NOW + 10, 2, unreadable=told) for _ in range(4)]
    assert [claim.message.queue_id for claims in claimed for claim in claims] == ["m3", "m4"]
    assert [one.queue_id for one in told] == ["m0", "m1", "m2"]
    backend.mail.claim(NOW + LONGEST_WAIT, NOW + LONGEST_WAIT + 10, 10, unreadable=told)
    assert [one.queue_id for one in told[3:]] == ["m0", "m1", "m2"]


def test_a_copy_without_its_message_is_held_again(backend):
    """Nobody can say whose it was, but it is told of, and tried no more."""
    backend.store(*_mail(1))
    backend.mail.order(ORDER)
    (place,) = backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    _damage(backend, "DELETE FROM message")
    told: list[Unreadable] = []
    assert not backend.mail.claim(NOW, NOW + 10, 10, unreadable=told)
    assert told == [Unreadable("", (place,), ("",), ORDER.id, Unread.DAMAGED)]
    backend.mail.finish([Outcome(place, CopyState.HELD, 0, "recheck: damaged")], NOW)
    assert backend.mail.waiting() == (0, 0)


def test_what_was_erased_is_not_called_damaged(backend):
    """A copy that is erased between its lease and its reading is nothing to look at."""
    backend.store(*_mail(1))
    backend.mail.order(ORDER)
    (place,) = backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    backend.mail.erase_message("m0")
    told: list[Unreadable] = []
    with contextlib.closing(HoldDatabase.open(backend.directory, VAULT, readonly=True)) as database:
        assert not list(claims_of(database, {place.message: Lease({place.number})}, told))
    assert not told


def _released_on(disk: FaultyDisk, backend: SqliteBackend, messages: list[HeldMessage]) -> tuple[HeldReview, bytes]:
    """A review, on this disk, of messages that are released; with the octets of the file."""
    backend.store(*messages)
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    backend.close()
    return HeldReview(backend.directory, VAULT, vfs=disk.name), (backend.directory / "held.sqlite").read_bytes()


def test_content_that_the_disk_does_not_give_now_is_not_damaged(backend):
    """It is neither claimed nor told of; others go, and it goes when the lease has ended and the disk is well."""
    disk = FaultyDisk()
    messages = [dataclasses.replace(one, content=os.urandom(60_000)) for one in _mail(3)]
    mail, octets = _released_on(disk, backend, messages)
    body = _secrets(backend, "m1")[20]
    assert octets.count(body) == 1
    disk.unreadable = {octets.index(body)}
    told: list[Unreadable] = []
    claims = mail.claim(NOW, NOW + 10, 10, unreadable=told)
    assert [claim.message.queue_id for claim in claims] == ["m0", "m2"]
    assert not told
    assert not mail.claim(NOW + 9, NOW + 20, 10, unreadable=told)
    mail.finish([Outcome(place, CopyState.DELIVERED) for claim in claims for place in claim.places], NOW + 9)
    disk.unreadable = set()
    (claim,) = mail.claim(NOW + 10, NOW + 20, 10, unreadable=told)
    assert claim.message == messages[1]
    assert not told
    mail.close()


@pytest.mark.parametrize("table", ["message", "copy"])
def test_rows_that_the_disk_does_not_give_now_are_not_damaged(backend, table):
    """What was leased is left out, or all is unavailable; nobody holds it again as damaged."""
    disk = FaultyDisk()
    mail, octets = _released_on(disk, backend, _mail(1))
    (place,) = _places(mail)
    mail.close()
    key, *_, recipient = _secrets(backend, "m0")
    with contextlib.closing(HoldDatabase.open(backend.directory, VAULT, vfs=disk.name)) as database:
        disk.unreadable = {octets.index(key if table == "message" else recipient)}
        told: list[Unreadable] = []
        assert not list(claims_of(database, {place.message: Lease({place.number})}, told))
        assert not told
        with pytest.raises(apsw.IOError):
            lease(database, {}, at=NOW, until=NOW + 10, limit=10, order="", octets=1 << 20)
        disk.unreadable = set()
        assert len(list(claims_of(database, {place.message: Lease({place.number})}, told))) == 1


def test_what_is_erased_after_its_lease_is_not_claimed(backend):
    """Also if it was read before that: neither a copy of a message nor a whole message; others of the lease go."""
    backend.store(held_message("m0", held_copy(0), held_copy(1)), *_mail(3)[2:], held_message("m3", held_copy(3)))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    leases: Leases = {}
    told: list[Unreadable] = []
    with contextlib.closing(HoldDatabase.open(backend.directory, VAULT)) as database:
        database.begin()
        lease(database, leases, at=NOW, until=NOW + 10, limit=10, order="", octets=1 << 20)
        database.commit()
        assert all(one.rows for one in leases.values())
        backend.mail.erase_subjects([held_copy(0).subject_key, held_copy(2).subject_key])
        claims = list(claims_of(database, leases, told))
    addresses = [claim.message.copies[number].subject_key for claim in claims for number in claim.numbers]
    assert addresses == [held_copy(1).subject_key, held_copy(3).subject_key]
    assert not told


def test_a_damaged_record_changes_no_more(backend):
    """A copy of which it is not known where it is stays as it is; the others of the message move."""
    backend.store(held_message("one", held_copy(1), held_copy(2)))
    places = _places(backend.mail)
    _damage(backend, "UPDATE copy SET changed_at = 1 WHERE number = 0")
    assert backend.mail.move(places, CopyState.DISCARDED, DISCARD, NOW) == [places[1]]
    with pytest.raises(DamagedMessageError):
        backend.mail.message("one")
    assert _places(backend.mail) == [places[1]]
    assert backend.hold.check().damage


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE copy SET order_id = CAST(x'ff' AS TEXT) WHERE number = 1",
        "UPDATE copy SET outcome = CAST(x'ff' AS TEXT) WHERE number = 1",
        "UPDATE copy SET state = CAST(x'ff' AS TEXT) WHERE number = 1",
        "UPDATE message SET topic = CAST(x'ff' AS TEXT) WHERE queue_id = 'one'",
    ],
)
def test_others_are_erased_beside_a_copy_that_is_no_text_any_more(backend, damage):
    """A message of which one copy cannot be read as text is not taken for one that has no other copies, and keeps its
    content for that one; nothing is counted below zero.
    """
    backend.store(held_message("one", held_copy(0), held_copy(1)), *_mail(3)[2:])
    _damage(backend, damage)
    assert backend.mail.erase_subjects([held_copy(0).subject_key]) == 1
    with contextlib.closing(open_file(backend.directory, readonly=True)) as connection:
        assert connection.execute("SELECT count(*) FROM copy").get == 2
        assert connection.execute("SELECT count(*) FROM content").get == 2
        assert connection.execute("SELECT min(copies) FROM lot_count").get > 0
        assert connection.execute("SELECT min(messages) FROM mix_count").get > 0
    assert len(backend.mail.lines(EVERY)) == 1
    assert backend.mail.erase_message("one")
    assert [line.queue_id for line in backend.mail.lines(EVERY)] == ["m2"]


def test_what_a_missing_key_sealed_waits_for_it(backend):
    """A message whose master key is not there is not delivered and not damaged; with the key it is as ever."""
    backend.store(*_mail(2))
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    other = HeldReview(backend.directory, Vault.of([bytes(32)]))
    told: list[Unreadable] = []
    assert not other.claim(NOW, NOW + 10, 10, unreadable=told)
    assert [(one.queue_id, one.why) for one in told] == [("m0", Unread.KEY_MISSING), ("m1", Unread.KEY_MISSING)]
    assert len(other.lines(EVERY)) == 2
    with pytest.raises(UnknownKeyError, match=VAULT.current):
        other.message("m1")
    other.close()
    assert len(backend.mail.claim(NOW + 10, NOW + 20, 10)) == 2


def test_keys_are_wrapped_anew(backend):
    """Bit by bit, until the old master key is not needed any more; what no key opens is passed over."""
    messages = _mail(7)
    backend.store(*messages)
    _damage(backend, "UPDATE message SET wrapped_key = zeroblob(60) WHERE queue_id = 'm0'")
    _damage(backend, "UPDATE message SET key_id = 'lost' WHERE queue_id = 'm6'")
    newer = HeldReview(backend.directory, NEWER)
    assert [newer.rewrap(3), newer.rewrap(3), newer.rewrap(3)] == [3, 2, 0]
    newer.close()
    only = HeldReview(backend.directory, Vault.of([bytes([7]) * 32]))
    for message in messages[1:6]:
        assert only.message(message.queue_id)[0] == message
    only.close()


@pytest.mark.parametrize("table", ["message", "copy", "content", "lot", "lot_count", "mix_count", "orders", "note"])
def test_a_changed_octet_never_misleads_review(tmp_path, table):
    """Wherever an octet changes, what is listed and delivered is as it was stored, or the file is unavailable (E7)."""
    backend = SqliteBackend(tmp_path)
    messages = {message.queue_id: message for message in _mail(12, octets=900)}
    backend.store(*messages.values())
    backend.mail.order(ORDER)
    backend.mail.move(_places(backend.mail), CopyState.RELEASED, ORDER, NOW)
    lines = {line.place: line for line in backend.mail.lines(EVERY)}
    backend.close()
    path = backend.directory / "held.sqlite"
    sound = path.read_bytes()
    for offset in _offsets(path, table):
        damaged = bytearray(sound)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        for log in ("held.sqlite-wal", "held.sqlite-shm"):
            (backend.directory / log).unlink(missing_ok=True)
        with contextlib.suppress(HoldDataError, HoldUnavailableError):
            _review_damaged(backend.directory, messages, lines)


def _offsets(path: Path, table: str) -> Iterator[int]:
    """Some of the octets of the pages of a table and its indexes."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    size = connection.pragma("page_size")
    pages = connection.execute(
        "SELECT pageno FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = ?)", (table,)
    ).fetchall()
    connection.close()
    octets = path.read_bytes()
    for (page,) in pages:
        used = [offset for offset in range((page - 1) * size, page * size) if octets[offset]]
        yield from used[:: max(1, len(used) // 25)]


def _review_damaged(directory: Path, messages: dict[str, HeldMessage], lines: dict[Place, HeldLine]) -> None:
    mail = HeldReview(directory, VAULT)
    try:
        for line in mail.lines(EVERY):
            assert line == lines[line.place]
        for by in By:
            mail.tally(EVERY, by)
        for claim in mail.claim(NOW, NOW + 10, 100):
            assert claim.message == messages[claim.message.queue_id]
            assert set(claim.places) <= set(lines)
            assert all(not order.despite for order in claim.orders)
            mail.finish([Outcome(place, CopyState.HELD) for place in claim.places], NOW + 1)
    finally:
        mail.close()


def test_what_is_left_of_a_damaged_file_can_be_read(backend):
    """A file that lost its end is written to no more; what is left can be listed and shown (E7)."""
    messages = {message.queue_id: message for message in _mail(60, octets=9000)}
    backend.store(*messages.values())
    backend.mail.close()
    backend.hold.close()
    path = backend.directory / "held.sqlite"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    mail = backend.another()
    found = 0
    for queue_id, message in messages.items():
        with contextlib.suppress(DamagedMessageError, HoldUnavailableError):
            shown = mail.message(queue_id)
            assert shown is None or shown[0] == message
            found += shown is not None
    assert found > 30


def test_a_review_of_nothing_makes_the_file(tmp_path):
    """Where no mail was held yet, there is none to review."""
    mail = HeldReview(tmp_path / "hold", VAULT)
    assert not mail.lines(EVERY)
    mail.close()


# Erasing


def _octets(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def _secrets(backend: SqliteBackend, queue_id: str) -> list[bytes]:
    """The sealed octets of a message, by which it would be found in the file."""
    connection = open_file(backend.directory, readonly=True)
    number = connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).get
    sealed = connection.execute("SELECT wrapped_key, mail, trace FROM message WHERE id = ?", (number,)).fetchone()
    body = connection.execute("SELECT body FROM content WHERE message = ?", (number,)).get
    recipients = connection.execute("SELECT recipient FROM copy WHERE message = ?", (number,)).fetchall()
    connection.close()
    return [*sealed, *(body[at : at + 500] for at in range(0, len(body), 2000)), *(one for (one,) in recipients)]


@pytest.mark.parametrize("octets", [200, 40_000])
def test_nothing_of_an_erased_message_is_left_in_any_file(backend, octets):
    """Not its key, not its content, not its addresses, neither in the file nor in its log (H12)."""
    others = [held_message(f"other{number}", octets=octets) for number in range(10)]
    backend.store(*_mail(10, octets=octets), held_message("to-erase", octets=octets), *others)
    secrets = [b"to-erase", *_secrets(backend, "to-erase")]
    assert all(secret in _octets(backend.directory) for secret in secrets)
    assert backend.mail.erase_message("to-erase")
    left = _octets(backend.directory)
    assert not any(secret in left for secret in secrets)
    assert all(secret in left for secret in _secrets(backend, "m8"))
    assert backend.hold.check().sound


def test_nothing_of_an_erased_recipient_is_left_in_any_file(backend):
    """Not the address, not the subject key; other recipients of the same message are there as ever."""
    message = held_message("one", held_copy(1), held_copy(2), held_copy(3), octets=5000)
    backend.store(message, *_mail(5))
    secret = _secrets(backend, "one")[-2]
    key = bytes.fromhex(held_copy(2).subject_key)
    assert backend.mail.erase_subjects([held_copy(2).subject_key]) == 2
    left = _octets(backend.directory)
    assert secret not in left
    assert key not in left
    assert backend.mail.message("one")[0] == dataclasses.replace(message, copies=(held_copy(1), held_copy(3)))


def test_a_reader_keeps_the_log_for_a_while_only(backend, monkeypatch):
    """What is erased while somebody reads is out of the log when they have ended and a worker looks after it."""
    monkeypatch.setattr("filter.hold_schema.BUSY_TIMEOUT", 10)
    backend.store(*_mail(3, octets=3000))
    secrets = _secrets(backend, "m1")
    mail = backend.another()
    reader = open_file(backend.directory, readonly=True)
    reader.execute("BEGIN")
    reader.execute("SELECT 1 FROM note").fetchall()
    assert mail.erase_message("m1")
    assert mail.message("m1") is None
    assert any(secret in _octets(backend.directory) for secret in secrets)
    reader.close()
    asyncio.run(backend.hold.prune())
    backend.hold.close()  # after what it does at rest
    assert not any(secret in _octets(backend.directory) for secret in secrets)
    assert HoldStore(backend.directory, vault=VAULT).check().sound


# Beside others


def test_a_writer_that_takes_too_long_is_not_waited_for_for_ever(backend, monkeypatch):
    """Another one that holds the file makes it unavailable, and nothing is half moved."""
    monkeypatch.setattr("filter.hold_schema.BUSY_TIMEOUT", 10)
    backend.store(*_mail(2))
    mail = backend.another()
    other = open_file(backend.directory)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HoldUnavailableError, match="BusyError"):
        mail.move(_places(mail), CopyState.RELEASED, ORDER, NOW)
    other.close()
    assert {line.state for line in mail.lines(EVERY)} == {CopyState.HELD}
    assert len(mail.move(_places(mail), CopyState.RELEASED, ORDER, NOW)) == 2


def test_a_closed_review_is_unavailable(backend):
    """After closing nothing is answered, and closing again is no error."""
    mail = backend.another()
    mail.close()
    mail.close()
    with pytest.raises(HoldUnavailableError):
        mail.lines(EVERY)
    with pytest.raises(HoldUnavailableError):
        mail.confirm_pending(NOW + 1, NOW)

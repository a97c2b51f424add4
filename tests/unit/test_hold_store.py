"""The hold store in use: what was stored comes back, what was voided is gone, and what is damaged is told."""

import asyncio
import dataclasses
import os
import time
from collections import Counter
from contextlib import closing

import apsw
import pytest
from support.held import NOW, VAULT, held_copy, held_message

from filter.held import CopyState, HeldQuery
from filter.hold_check import check
from filter.hold_codec import DamagedMessageError, HoldDataError, pack
from filter.hold_database import HoldDatabase
from filter.hold_review import HeldReview
from filter.hold_scan import Damage, copies
from filter.hold_schema import APPLICATION_ID, MIGRATIONS, look_over, open_file
from filter.hold_store import SETTLE_WINDOW, HoldStore
from filter.policy import Disposition
from filter.ports import HoldUnavailableError, Known
from filter.sealing import UnknownKeyError, Vault

KEY = bytes(range(16))


class Clock:
    """The time, as the test says."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> int:
        """Epoch milliseconds."""
        return self.time


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def held(tmp_path, clock):
    """An empty store."""
    store = HoldStore(tmp_path / "hold", vault=VAULT, min_free_space=0, clock=clock)
    yield store
    store.close()


def _states(stored) -> list[CopyState]:
    return [record.state for record in stored.records]


def test_a_stored_message_comes_back(held):
    """What was stored is there, octet for octet, for this connection and for another one."""
    message = held_message("one", held_copy(1), held_copy(2, Disposition.DIVERT), held_copy(3, Disposition.REJECT))
    asyncio.run(held.store(message))
    other = HoldStore(held.directory, vault=VAULT)
    for store in (held, other):
        stored = store.get("one")
        assert stored.message == message
        assert _states(stored) == [CopyState.HELD] * 3
    other.close()
    assert held.get("two") is None


def test_what_is_kept_twice_is_there_once(held):
    """A message that comes again changes nothing, whatever became of its copies, at once or later."""
    message = held_message("one", held_copy(1), held_copy(2))

    async def keep(*messages) -> list[bool]:
        return await asyncio.gather(*[held.keep(one) for one in messages])

    assert asyncio.run(keep(message, message, held_message("two"))) == [True, False, True]
    asyncio.run(held.void("one"))
    assert asyncio.run(keep(message, held_message("three"))) == [False, True]
    assert _states(held.get("one")) == [CopyState.VOID] * 2
    assert held.get("three").message == held_message("three")


def test_void_undoes(held):
    """A voided message keeps its rows for a while, but not its content; voiding twice or the unknown is no error."""
    asyncio.run(held.store(held_message("one", held_copy(1), held_copy(2))))
    for queue_id in ("one", "one", "unknown"):
        asyncio.run(held.void(queue_id))
    stored = held.get("one")
    assert _states(stored) == [CopyState.VOID] * 2
    assert (stored.has_content, stored.message.content, stored.size) == (False, b"", 3019)


def test_pending_copies_are_held_when_they_are_confirmed(held, clock):
    """Copies of a message that may still be its client's are pending until then; void undoes them too."""
    pending = dataclasses.replace(held_message("one", held_copy(1), held_copy(2)), pending=True, campaign="ab" * 16)
    asyncio.run(held.store(pending))
    assert held.get("one").message == pending
    assert _states(held.get("one")) == [CopyState.PENDING] * 2
    clock.time += 5
    for queue_id in ("one", "unknown"):
        asyncio.run(held.confirm(queue_id))
    assert held.get("one").message == dataclasses.replace(pending, pending=False)
    assert [record.changed_at for record in held.get("one").records] == [NOW + 5] * 2
    asyncio.run(held.store(dataclasses.replace(pending, queue_id="two")))
    asyncio.run(held.void("two"))
    assert _states(held.get("two")) == [CopyState.VOID] * 2


def test_diverted_copies_are_marked(held, clock):
    """Copies are marked by their position; the content goes when no copy needs it any more."""
    divert = [held_copy(number, Disposition.DIVERT) for number in range(3)]
    message = held_message("one", *divert)
    asyncio.run(held.store(message))
    clock.time += 5
    asyncio.run(held.diverted("one", [0, 7]))
    stored = held.get("one")
    assert _states(stored) == [CopyState.DIVERTED, CopyState.HELD, CopyState.HELD]
    assert [record.changed_at for record in stored.records] == [NOW + 5, NOW, NOW]
    assert stored.message == message
    alone = held_message("two", held_copy(1, Disposition.DIVERT))
    asyncio.run(held.store(alone))
    asyncio.run(held.diverted("two", [0]))
    assert not held.get("two").has_content


def test_a_queue_id_is_used_once(held):
    """A second message with the same queue id is refused, and the first one stays."""
    asyncio.run(held.store(held_message("one")))
    with pytest.raises(HoldUnavailableError, match="queue_id"):
        asyncio.run(held.store(held_message("one", octets=50)))
    assert held.get("one").message == held_message("one")


def test_message_keys_are_remembered(held):
    """A key is settled until it is forgotten; what died over it is remembered apart, once from twice (B12, D6)."""
    asyncio.run(held.settle(KEY, NOW))
    assert held.known(KEY) == {Known.TAKEN}
    asyncio.run(held.suspect(KEY, NOW))
    asyncio.run(held.forget(KEY))
    assert held.known(KEY) == {Known.SUSPECT}
    asyncio.run(held.suspect(KEY, NOW))
    assert held.known(KEY) == {Known.SUSPECT, Known.UNSCANNABLE}


def test_what_is_remembered_is_bounded(held, clock):
    """Keys and voided messages go when clients have long stopped trying; held mail does not (D7)."""
    asyncio.run(held.settle(KEY, NOW))
    for queue_id in ("held", "void"):
        asyncio.run(held.store(held_message(queue_id)))
    asyncio.run(held.void("void"))
    clock.time += SETTLE_WINDOW
    asyncio.run(held.prune())
    assert held.known(KEY)
    clock.time += 1
    asyncio.run(held.prune())
    assert not held.known(KEY)
    assert held.get("void") is None
    assert held.get("held").message == held_message("held")
    assert held.check().sound


def test_a_damaged_memory_knows_nothing(held):
    """A store that cannot answer keeps no message from being sent: twice beats never."""
    asyncio.run(held.settle(KEY, NOW))
    other = open_file(held.directory)
    other.execute("PRAGMA ignore_check_constraints=ON; UPDATE message_key SET kind = 'takeN'")
    other.close()
    assert not held.known(KEY)


def test_what_is_remembered_is_forgotten_for_one(held, tmp_path):
    """Of several that forget a key at once, here or in another worker, one is told that it was remembered."""
    other = HoldStore(tmp_path / "hold", vault=VAULT)

    async def forget() -> list[bool]:
        await held.settle(KEY, NOW)
        return await asyncio.gather(held.forget(KEY), held.forget(KEY), other.forget(KEY))

    assert sorted(asyncio.run(forget())) == [False, False, True]
    other.close()


def test_a_long_reading_does_not_hold_up_writing(held, monkeypatch):
    """While somebody reads, the log cannot be emptied: that is tried now and then, and nobody waits for it long."""
    monkeypatch.setattr("filter.hold_writer.LOG_PAGES", 1)
    monkeypatch.setattr("filter.hold_writer.LONG_LOG", 1)
    reader = open_file(held.directory, readonly=True)
    reader.execute("BEGIN")
    reader.execute("SELECT 1 FROM note").fetchall()

    async def store() -> None:
        for number in range(4):
            await held.store(held_message(f"m{number}", held_copy(1)))

    asyncio.run(asyncio.wait_for(store(), 8))  # SQLite would wait ten seconds for each
    reader.close()


def test_much_to_forget_is_forgotten_bit_by_bit(held, clock):
    """However much there is to remove, it goes between other writes, which need not wait for all of it."""
    keys = [number.to_bytes(16, "big") for number in range(2500)]

    async def run() -> None:
        await asyncio.gather(*(held.settle(key, NOW) for key in keys))
        clock.time += SETTLE_WINDOW + 1
        await held.prune()
        for _ in range(5):
            await held.forget(KEY)

    asyncio.run(run())
    assert not any(held.known(key) for key in keys)


def test_many_wait_for_one_sync(held, monkeypatch):
    """Messages that wait together are written in one transaction (a commit each would be a sync each)."""
    commits = []
    commit = HoldDatabase.commit
    monkeypatch.setattr(HoldDatabase, "commit", lambda database: commits.append(commit(database)))

    async def run() -> None:
        await asyncio.gather(*(held.store(held_message(f"m{number}", octets=300)) for number in range(100)))

    asyncio.run(run())
    assert held.check().copies == {"held": 100}
    assert len(commits) < 50


def test_two_processes_share_a_store(held):
    """Two stores write at the same time, as two workers do, and each sees what the other wrote."""
    other = HoldStore(held.directory, vault=VAULT)

    async def run() -> None:
        stores = (held, other)
        await asyncio.gather(*(stores[n % 2].store(held_message(f"m{n}", octets=300)) for n in range(60)))
        await other.settle(KEY, NOW)

    asyncio.run(run())
    assert held.known(KEY)
    assert Counter(copy.state for copy in other.copies()) == {CopyState.HELD: 60}
    other.close()


def test_room_is_free_space(tmp_path, monkeypatch):
    """A message is let in when one and a half times its size is free above the minimum; looked up once a second."""
    held = HoldStore(tmp_path, vault=VAULT, min_free_space=1000)
    looks = []

    def statvfs(path):
        looks.append(path)
        return os.statvfs_result((512, 100, 1000, 999, 40, 1, 1, 1, 1, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)  # 40 blocks of 100 octets for us
    assert held.has_room(2000)
    assert not held.has_room(2002)
    assert len(looks) == 1
    held._look_at = time.monotonic()
    assert held.has_room(0)
    assert len(looks) == 2
    held.close()


def test_a_closed_store_takes_nothing(held):
    """After closing, writing is refused; closing again is no error."""
    held.close()
    held.close()
    with pytest.raises(HoldUnavailableError, match="closed"):
        asyncio.run(held.store(held_message("one")))
    assert not held.known(KEY)


def test_a_caller_that_gives_up_does_not_disturb_the_others(held):
    """A cancelled await leaves the writer and other callers alone."""

    async def run() -> None:
        task = asyncio.create_task(held.store(held_message("one")))
        await asyncio.sleep(0)
        task.cancel()
        await held.store(held_message("two"))

    asyncio.run(run())
    assert held.get("two").message == held_message("two")


def test_only_the_owner_may_read(held):
    """Directory, file, log and copies are private."""
    asyncio.run(held.store(held_message("one")))
    held.backup(held.directory / "copy.sqlite")
    modes = {path.name: path.stat().st_mode & 0o777 for path in held.directory.iterdir()}
    assert held.directory.stat().st_mode & 0o777 == 0o700
    assert {"held.sqlite", "held.sqlite-wal", "copy.sqlite"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_backup_of_a_store_in_use(held, tmp_path):
    """A copy made while messages come in is whole, and a store can be started on it (E12)."""

    async def run() -> None:
        writing = asyncio.gather(*(held.store(held_message(f"later{number}", octets=9000)) for number in range(40)))
        copying = asyncio.create_task(asyncio.to_thread(held.backup, tmp_path / "copy" / "held.sqlite"))
        await held.settle(KEY, NOW)
        while not copying.done():
            assert held.known(KEY)
            await asyncio.sleep(0)
        await copying
        await writing

    asyncio.run(held.store(held_message("one")))
    (tmp_path / "copy").mkdir()
    asyncio.run(run())
    with pytest.raises(FileExistsError):
        held.backup(tmp_path / "copy" / "held.sqlite")
    copy = HoldStore(tmp_path / "copy", vault=VAULT)
    assert copy.check().sound
    assert copy.get("one").message == held_message("one")
    asyncio.run(copy.store(held_message("new")))
    copy.close()
    assert held.check().messages == 41


def test_a_newer_file_is_refused(held):
    """A file that newer code wrote is left alone, and the message says what to do (E11)."""
    held.close()
    open_file(held.directory, migrations=(*MIGRATIONS, "CREATE TABLE later (a TEXT)")).close()
    newest = len(MIGRATIONS)
    told = rf"version {newest + 1} was written by a newer consentry; this one reads up to version {newest}"
    with pytest.raises(HoldDataError, match=told):
        HoldStore(held.directory, vault=VAULT)


def test_an_older_file_is_brought_up_to_date(held):
    """A newer program adds what is new and keeps every message (E11)."""
    asyncio.run(held.store(held_message("one")))
    held.close()
    migrations = (*MIGRATIONS, "ALTER TABLE message ADD COLUMN later BLOB; CREATE INDEX c ON message (later)")
    with pytest.raises(HoldDataError, match="written by an older consentry"):
        open_file(held.directory, readonly=True, migrations=migrations)
    connection = open_file(held.directory, migrations=migrations)
    assert connection.pragma("user_version") == len(migrations)
    assert HoldDatabase(connection, VAULT).get("one").message == held_message("one")
    connection.close()


def test_a_file_from_before_pruning_is_brought_up_to_date(tmp_path):
    """Mail that was stored by the first version is there, and can be pruned like any other."""
    database = HoldDatabase(open_file(tmp_path, migrations=MIGRATIONS[:1]), VAULT)
    database.begin()
    database.insert(pack(held_message("one"), VAULT))
    database.void("one", NOW)
    database.insert(pack(held_message("two"), VAULT))
    database.diverted("two", range(9), NOW)
    database.commit()
    database.close()
    with closing(HeldReview(tmp_path, VAULT)) as mail:
        assert mail.prune_ended(NOW + 1).messages == 1
        assert {line.queue_id for line in mail.lines(HeldQuery(states=frozenset()))} == {"one"}


def test_a_migration_that_fails_changes_nothing(held):
    """A version is reached whole or not at all (E11)."""
    held.close()
    with pytest.raises(HoldDataError, match="no such table: nowhere"):
        open_file(held.directory, migrations=(*MIGRATIONS, "CREATE TABLE later (a TEXT); SELECT 1 FROM nowhere"))
    connection = open_file(held.directory)
    assert connection.pragma("user_version") == len(MIGRATIONS)
    assert not connection.table_exists("main", "later")
    connection.close()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be one" * 100])
def test_another_file_is_refused(tmp_path, content):
    """What is not a file of held mail is named and not touched."""
    (tmp_path / "held.sqlite").write_bytes(content)
    with pytest.raises(HoldDataError, match=r"held\.sqlite: damaged: "):
        HoldStore(tmp_path, vault=VAULT)
    assert (tmp_path / "held.sqlite").read_bytes() == content


def test_a_foreign_database_is_refused(tmp_path):
    """So is a database of something else."""
    connection = apsw.Connection(str(tmp_path / "held.sqlite"))
    connection.execute("CREATE TABLE theirs (a); PRAGMA application_id=7")
    connection.close()
    with pytest.raises(HoldDataError, match="not a file of held mail"):
        HoldStore(tmp_path, vault=VAULT)


def test_a_lost_file_is_not_made_anew(held):
    """Where held mail was, an empty store is never put in its place (E7)."""
    held.close()
    (held.directory / "held.sqlite").unlink()
    with pytest.raises(HoldDataError, match=r"held\.sqlite: gone, though it was made before"):
        HoldStore(held.directory, vault=VAULT)


def _filled(directory, messages: int, octets: int = 0) -> dict[str, object]:
    held = HoldStore(directory, vault=VAULT)

    async def run() -> None:
        for number in range(messages):
            size = octets or 2000 + 1500 * number
            await held.store(held_message(f"m{number:02}", *map(held_copy, range(3)), octets=size))

    asyncio.run(run())
    found = {f"m{number:02}": held.get(f"m{number:02}").message for number in range(messages)}
    held.close()
    return found


def _pages(path) -> tuple[int, dict[int, str]]:
    """The size of a page, and what each page is for: table and kind (SQLite's dbstat)."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    pages = {
        page: f"{name} {kind}" for page, name, kind in connection.execute("SELECT pageno, name, pagetype FROM dbstat")
    }
    size = connection.pragma("page_size")
    connection.close()
    return size, pages


def _read_all(path, expected) -> tuple[int, bool]:
    """How many messages are readable, each exactly as stored, and whether `check` says that all is well."""
    database = HoldDatabase.open(path.parent, VAULT, readonly=True)
    readable = 0
    try:
        for queue_id, message in expected.items():
            try:
                stored = database.get(queue_id)
            except (DamagedMessageError, UnknownKeyError):
                continue
            if stored is not None:
                assert stored.message == message
                readable += 1
        told = sum(1 for copy in copies(database) if not isinstance(copy, Damage))
        assert told <= 3 * len(expected)
        return readable, check(database).sound
    finally:
        database.close()


def test_a_changed_octet_is_found(tmp_path):
    """Wherever an octet of the file changes, no message reads otherwise than it was stored (E7).

    Either nothing is amiss, or `check` says so, or the file is refused by name. Damage in a body costs one message.
    """
    directory = tmp_path / "hold"
    expected = _filled(directory, 12)
    path = directory / "held.sqlite"
    sound = path.read_bytes()
    size, pages = _pages(path)
    for offset in [*range(0, 100, 3), *range(100, len(sound), len(sound) // 200)]:
        damaged = bytearray(sound)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        page = pages.get(offset // size + 1, "")
        try:
            readable, well = _read_all(path, expected)
        except HoldDataError as error:
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right
            continue
        assert readable == len(expected) or not well, f"{offset}: {page}"
        if page == "content overflow":
            assert readable >= len(expected) - 1, f"{offset}: {page}"


@pytest.mark.parametrize(("cut", "least"), [(0.3, 0), (0.6, 10), (0.9, 30)])
def test_a_file_that_was_cut_is_refused_for_writing(tmp_path, cut, least):
    """A file that lost its end takes no new mail; what is left of it can be read (E7)."""
    directory = tmp_path / "hold"
    expected = _filled(directory, 60, octets=9000)
    path = directory / "held.sqlite"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(HoldDataError, match=r"held\.sqlite: damaged: .*put a backup in its place"):
        HoldStore(directory, vault=VAULT)
    readable, well = _read_all(path, expected)
    assert not well
    assert least <= readable < len(expected)


def test_damage_is_told_and_the_rest_is_read(tmp_path):
    """A damaged message is named by its queue id, stays in the file, and hides no other (E7)."""
    directory = tmp_path / "hold"
    expected = _filled(directory, 12)
    path = directory / "held.sqlite"
    size, pages = _pages(path)
    leaf = next(page for page, what in pages.items() if what == "message leaf")
    octets = bytearray(path.read_bytes())
    octets[octets.index(b"m07", (leaf - 1) * size, leaf * size) + 30] ^= 1
    path.write_bytes(octets)
    held = HoldStore(directory, vault=VAULT)
    with pytest.raises(DamagedMessageError, match="envelope differs"):
        held.get("m07")
    findings = held.check()
    assert not findings.sound
    assert (findings.messages, findings.copies, findings.damaged) == (12, {"held": 33}, 1)
    assert findings.damage == (Damage("m07", "envelope differs from what was stored"),)
    copies = list(held.copies())
    assert [copy for copy in copies if isinstance(copy, Damage)] == list(findings.damage)
    assert {copy.queue_id for copy in copies} == set(expected)
    held.close()


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
@pytest.mark.parametrize("what", ["message leaf", "message internal", "copy leaf", "content leaf", "index leaf"])
def test_a_lost_page_costs_what_was_on_it(tmp_path, what, filler):
    """Mail on a page that the disk lost is named; the rest is read; nothing is written to such a file (E7)."""
    directory = tmp_path / "hold"
    expected = _filled(directory, 60, octets=100)
    path = directory / "held.sqlite"
    size, pages = _pages(path)
    page = max(page for page, name in pages.items() if name.replace("sqlite_autoindex_message_1", "index") == what)
    octets = bytearray(path.read_bytes())
    octets[(page - 1) * size : page * size] = filler * size
    path.write_bytes(octets)
    with pytest.raises(HoldDataError, match=r"held\.sqlite: damaged: "):
        HoldStore(directory, vault=VAULT)
    database = HoldDatabase.open(directory, VAULT, readonly=True)
    findings = check(database)
    assert findings.structure
    damaged = {damage.queue_id for damage in findings.damage}
    found = list(copies(database))
    assert {copy.queue_id for copy in found} >= set(expected)
    readable, _ = _read_all(path, expected)
    assert bool(damaged) == (what != "index leaf")
    assert damaged <= set(expected)
    assert readable == len(expected) - len(damaged)
    database.close()


def test_a_connection_that_is_stuck_is_replaced(held, monkeypatch):
    """If a transaction cannot be ended, the writer goes on with another connection."""
    asyncio.run(held.store(held_message("one")))
    stuck, rollback = held._writer.database, HoldDatabase.rollback

    def fail(database):
        if database is stuck:
            raise apsw.IOError
        rollback(database)

    monkeypatch.setattr(HoldDatabase, "rollback", fail)
    with pytest.raises(HoldUnavailableError):
        asyncio.run(held.store(held_message("one")))
    asyncio.run(held.store(held_message("two")))
    assert held._writer.database is not stuck
    assert held.get("two").message == held_message("two")


def test_looking_over_takes_no_longer_than_allowed(tmp_path):
    """The look at the structure ends when its time is over, and then says nothing."""
    directory = tmp_path / "hold"
    _filled(directory, 300, octets=100)
    connection = open_file(directory, readonly=True)
    assert look_over(connection, 0.0) == ""
    assert look_over(connection) == ""
    connection.close()


def test_a_missing_master_key_is_told_as_such(held):
    """Mail that was sealed with a key which is not there is named with the key; it is not called damaged."""
    asyncio.run(held.store(held_message("one")))
    other = HoldStore(held.directory, vault=Vault.of([bytes(32)]))
    asyncio.run(other.store(held_message("two")))
    with pytest.raises(UnknownKeyError, match=VAULT.current):
        other.get("one")
    findings = other.check()
    assert (findings.damaged, findings.locked, findings.sound) == (0, {VAULT.current: 1}, False)
    assert other.get("two").message == held_message("two")
    assert any(isinstance(copy, Damage) and VAULT.current in copy.what for copy in other.copies())
    other.close()


def test_miscounted_copies_are_found(held):
    """What is counted beside the copies is compared with them, and each copy with the lot that it is counted in."""
    asyncio.run(held.store(held_message("one", held_copy(1), held_copy(2))))
    for damage, found in (
        ("UPDATE lot_count SET copies = 3", "copies of a lot"),
        ("UPDATE mix_count SET messages = 2", "messages of a mix"),
    ):
        writer = open_file(held.directory)
        writer.execute(f"BEGIN; {damage}; COMMIT")
        assert any(line.startswith(found) for line in held.check().structure)
        writer.close()
    writer = open_file(held.directory)
    writer.execute("UPDATE lot SET campaign = 'x'")
    writer.close()
    assert held.check().damage == (Damage("one", "a copy is in a lot that it does not belong to"),)


def test_the_file_says_what_it_is(held):
    """The file carries our application id, so that tools can tell it from others."""
    connection = open_file(held.directory, readonly=True)
    assert connection.pragma("application_id") == APPLICATION_ID
    assert connection.pragma("journal_mode") == "wal"
    connection.close()

"""The hold store of a fleet on a real PostgreSQL: what is acknowledged stays, whatever becomes of the server."""

import asyncio
import dataclasses
import io
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg
import pytest
from support.held import NOW, VAULT, held_copy, held_message
from support.postgres import PASSWORD, ROLE, Cutting, Postgres, running
from support.processes import wait_until

from filter.held import CopyState
from filter.hold_codec import DamagedMessageError, HoldDataError
from filter.policy import Disposition
from filter.ports import HoldUnavailableError, Known
from filter.postgres_link import Link, Server
from filter.postgres_schema import MIGRATIONS, migrate
from filter.postgres_store import PostgresHoldStore

pytestmark = pytest.mark.integration

TABLES = ("message", "content", "copy", "lot", "message_key")
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^consentry '"
)
QUEUE_IDS = "SELECT queue_id FROM consentry.message ORDER BY id"
KEY, OTHER_KEY = bytes(range(16)), bytes(range(1, 17))
postgres = pytest.fixture(scope="module")(running)


@pytest.fixture
def server(postgres):
    """An empty database."""
    return Server(postgres.database(), lambda: PASSWORD)


@pytest.fixture
def opens(server):
    """Opens the store; every call as another worker would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(PostgresHoldStore(server, vault=VAULT, clock=lambda: NOW + 5)))


@pytest.fixture
def held(opens):
    """An empty store."""
    return opens()


def states(store, queue_id):
    """Where each copy of a message is."""
    return [record.state for record in store.get(queue_id).records]


def test_what_is_kept_twice_is_there_once(opens):
    """A message that comes again changes nothing, from whichever worker, at once or later."""
    first, second = opens(), opens()
    message = held_message("one", held_copy(1), held_copy(2))

    async def keep(*calls) -> list[bool]:
        return await asyncio.gather(*[store.keep(one) for store, one in calls])

    assert asyncio.run(keep((first, message), (first, message), (first, held_message("two")))) == [True, False, True]
    asyncio.run(first.void("one"))
    assert asyncio.run(keep((second, message), (second, held_message("three")))) == [False, True]
    assert states(first, "one") == [CopyState.VOID] * 2
    assert first.get("three").message == held_message("three")


def rows(server, statement):
    """What a query gives, asked beside the store."""
    with psycopg.connect(server.url, password=PASSWORD, autocommit=True) as connection:
        done = connection.execute(statement)
        return done.fetchall() if done.description else []


# What every hold store does.


def test_a_stored_message_comes_back(opens):
    """What was stored is there, octet for octet, for every worker; text with a NUL and what stands for it as well."""
    one, other = opens(), opens()
    message = held_message("one", held_copy(1), held_copy(2, Disposition.DIVERT), held_copy(3, Disposition.REJECT))
    message = dataclasses.replace(message, declared="a\0b\uf8ff0\uf8ff1 🎉", campaign="ab" * 16)
    asyncio.run(one.store(message))
    for store in (one, other):
        assert store.get("one").message == message
        assert states(store, "one") == [CopyState.HELD] * 3
    assert other.get("two") is None
    nobodys = dataclasses.replace(message, queue_id="two", copies=())
    asyncio.run(one.store(nobodys))
    assert other.get("two").message == nobodys


def test_copies_change_as_their_message_does(held):
    """Pending copies are held when they are confirmed, diverted ones marked, and void undoes what is left."""
    message = held_message("one", held_copy(1, Disposition.DIVERT), held_copy(2))
    asyncio.run(held.store(dataclasses.replace(message, pending=True)))
    assert states(held, "one") == [CopyState.PENDING] * 2
    asyncio.run(held.diverted("one", [0]))
    assert states(held, "one") == [CopyState.DIVERTED, CopyState.PENDING]
    for queue_id in ("one", "unknown"):
        asyncio.run(held.confirm(queue_id))
    assert states(held, "one") == [CopyState.DIVERTED, CopyState.HELD]
    assert held.get("one").records[1].changed_at == NOW + 5
    assert held.get("one").message == message
    for queue_id in ("one", "one", "unknown"):
        asyncio.run(held.void(queue_id))
    assert states(held, "one") == [CopyState.DIVERTED, CopyState.VOID]
    assert not held.get("one").has_content


def test_one_message_at_fault_fails_alone(held):
    """Of many that are stored at once the one whose queue id was used is refused, and nothing of it is kept."""
    asyncio.run(held.store(held_message("5")))

    async def store_all():
        messages = [held_message(str(number), octets=100) for number in range(10)]
        return await asyncio.gather(*map(held.store, messages), return_exceptions=True)

    outcomes = asyncio.run(store_all())
    assert [number for number, outcome in enumerate(outcomes) if outcome] == [5]
    assert "queue_id" in str(outcomes[5])
    assert held.get("5").message == held_message("5")
    assert held.get("9").message == held_message("9", octets=100)


def test_message_keys_are_the_fleets(opens):
    """What one machine settles another knows soon, and forgets soon; of two that forget at once one is told so."""
    one, other = opens(), opens()
    asyncio.run(one.settle(KEY, NOW))
    assert one.known(KEY) == {Known.TAKEN}
    wait_until(lambda: other.known(KEY) == {Known.TAKEN}, "the news of a settled key")
    asyncio.run(one.suspect(OTHER_KEY, NOW))
    asyncio.run(other.suspect(OTHER_KEY, NOW))
    assert other.known(OTHER_KEY) >= {Known.UNSCANNABLE}
    wait_until(lambda: one.known(OTHER_KEY) == {Known.SUSPECT, Known.UNSCANNABLE}, "the news of a second death")
    assert opens().known(OTHER_KEY) == {Known.SUSPECT, Known.UNSCANNABLE}

    async def forget_twice():
        return await asyncio.gather(one.forget(KEY), other.forget(KEY))

    assert sorted(asyncio.run(forget_twice())) == [False, True]
    wait_until(lambda: not one.known(KEY) and not other.known(KEY), "the news of a forgotten key")


def test_what_is_old_goes(server):
    """Keys and void messages from before the settle window are removed, held ones never."""
    time = NOW
    with closing(PostgresHoldStore(server, vault=VAULT, clock=lambda: time, settle_window=1000)) as store:
        for queue_id in ("void", "held"):
            asyncio.run(store.store(held_message(queue_id)))
        asyncio.run(store.void("void"))
        asyncio.run(store.settle(KEY, NOW))
        asyncio.run(store.prune())
        assert store.get("void") is not None
        time += 1001
        asyncio.run(store.prune())
        assert (store.get("void"), states(store, "held")) == (None, [CopyState.HELD])
        wait_until(lambda: not store.known(KEY), "the news of a forgotten key")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consentry.message SET label = 'service'",
        "UPDATE consentry.message SET trace = trace || 'x'",
        "UPDATE consentry.content SET body = set_byte(body, 40, get_byte(body, 40) # 1)",
        "UPDATE consentry.copy SET reason = 'unknown' WHERE number = 1",
        "UPDATE consentry.copy SET state = 'delivered' WHERE number = 1",
        "DELETE FROM consentry.copy WHERE number = 1",
        "DELETE FROM consentry.content",
    ],
)
def test_damage_is_told(held, server, statement):
    """A row that is not what was stored is found when it is read."""
    asyncio.run(held.store(held_message("one", held_copy(1), held_copy(2))))
    rows(server, statement)
    with pytest.raises(DamagedMessageError):
        held.get("one")


def test_nothing_is_readable_in_the_tables(held, server):
    """Addresses and content are sealed: they stand in no row."""
    message = held_message("one", held_copy(7))
    asyncio.run(held.store(message))
    text = str([rows(server, f"SELECT one::text FROM consentry.{table} AS one") for table in TABLES])  # noqa: S608 - names are ours
    assert message.queue_id in text
    for octets in (b"Person.7@Mail.example", b"bounce+1@mail.example", b"Subject: Offers", b"client.example"):
        assert octets in message.content + message.trace + message.mail.path + message.copies[0].recipient.path
        assert octets.hex() not in text


# What can become of the server.


class Traffic:
    """Senders that store messages until told to stop, as fast as answers come, and note each answer."""

    def __init__(self, store, senders):
        self.kept, self.refused = set(), {}
        self._store, self._senders = store, senders
        self._going = True
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()))

    async def _send_all(self):
        await asyncio.gather(*(self._send(sender) for sender in range(self._senders)))

    async def _send(self, sender):
        number = 0
        while self._going:
            queue_id = f"{sender}-{number}"
            number += 1
            try:
                await self._store.store(held_message(queue_id, octets=500))
            except HoldUnavailableError as error:
                self.refused[queue_id] = str(error)
                await asyncio.sleep(0.02)
            else:
                self.kept.add(queue_id)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._going = False
        self._thread.join()


def test_a_killed_server_loses_nothing_it_acknowledged():
    """The server is killed under load, again and again: who was told so is there, who was not is not, and it goes on
    by itself when the server is back.
    """
    with Postgres() as own:
        server = Server(own.database(), lambda: PASSWORD)
        with closing(PostgresHoldStore(server, vault=VAULT)) as store:
            with Traffic(store, senders=8) as traffic:
                for _ in range(3):
                    before = len(traffic.kept)
                    wait_until(lambda before=before: len(traffic.kept) > before + 50, "messages that are kept")
                    refused = len(traffic.refused)
                    own.kill()
                    wait_until(lambda refused=refused: len(traffic.refused) > refused + 8, "messages that are refused")
                    assert not store.has_room(1)
                    own.run()
                before = len(traffic.kept)
                wait_until(lambda: len(traffic.kept) > before + 50, "messages that are kept again")
            assert asyncio.run(store.store(held_message("last"))) is None
            wait_until(lambda: store.has_room(1), "room again")
        there = {queue_id for (queue_id,) in rows(server, "SELECT queue_id FROM consentry.message")}
        assert there == traffic.kept | {"last"}
        assert all("127.0.0.1" in text and PASSWORD not in text for text in traffic.refused.values())


def test_a_server_that_stands_still_gets_no_new_mail():
    """Who waits goes on waiting, but nothing more is accepted; when the server goes on, all that waited is kept."""
    with Postgres() as own:
        server = Server(own.database(), lambda: PASSWORD)
        with closing(PostgresHoldStore(server, vault=VAULT, patience=0.2)) as store:

            async def store_while_frozen():
                await store.store(held_message("one"))
                own.freeze()
                waiting = asyncio.create_task(store.store(held_message("two")))
                await asyncio.to_thread(wait_until, lambda: not store.has_room(1), "no room")
                assert not waiting.done()
                own.freeze(frozen=False)
                await waiting

            asyncio.run(store_while_frozen())
            assert store.has_room(1)
        assert rows(server, QUEUE_IDS) == [("one",), ("two",)]


def test_what_a_lost_commit_did_is_undone(postgres, server):
    """The way to the server is cut between commit and answer: the client hears that nothing is kept, and then nothing
    is, though the server had it.
    """
    with Cutting(postgres.port) as way:
        there = Server(way.url(server.url), lambda: PASSWORD)
        with closing(PostgresHoldStore(there, vault=VAULT)) as store:
            asyncio.run(store.store(held_message("one")))
            way.cut = True
            with pytest.raises(HoldUnavailableError, match="server closed the connection"):
                asyncio.run(store.store(held_message("two")))
            assert not store.has_room(1)
            assert rows(server, QUEUE_IDS) == [("one",), ("two",)]
            asyncio.run(store.store(held_message("three")))
            assert rows(server, QUEUE_IDS) == [("one",), ("three",)]
            assert rows(server, SESSIONS) == [(2,)], "the lost session is left"


# The database: whose it is, and what is in it.


def test_workers_that_start_together_make_one_set_of_tables(server):
    """The tables are made once, however many begin at the same time, and each can be used."""
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: PostgresHoldStore(server, vault=VAULT), range(6)))
    asyncio.run(stores[0].store(held_message("one")))
    assert all(store.get("one") for store in stores)
    for store in stores:
        store.close()


def test_tables_are_brought_up_to_date(server):
    """A later version keeps what is there and adds to it, all or nothing; this version refuses it afterwards."""
    with closing(PostgresHoldStore(server, vault=VAULT)) as store:
        asyncio.run(store.store(held_message("one")))
        assert store.get("one")
        with psycopg.connect(server.url, password=PASSWORD, autocommit=True) as connection:
            connection.execute("SET search_path TO consentry")
            second = "CREATE TABLE second (one integer); INSERT INTO second VALUES (1)"
            with pytest.raises(psycopg.Error):
                migrate(connection, "here", (*MIGRATIONS, second, "CREATE nonsense"))
            assert rows(server, "SELECT to_regclass('consentry.second'), version FROM consentry.version") == [
                (None, len(MIGRATIONS))
            ]
            migrate(connection, "here", (*MIGRATIONS, second))
            migrate(connection, "here", (*MIGRATIONS, second))
        assert rows(server, "SELECT one FROM consentry.second") == [(1,)]
        assert store.get("one").message == held_message("one")  # by the connection that it had
    newest = len(MIGRATIONS)
    told = f"version {newest + 1} was written by a newer consentry; this one reads up to version {newest}"
    with pytest.raises(HoldDataError, match=told):
        PostgresHoldStore(server, vault=VAULT)


def test_somebody_elses_schema_is_left_alone(server):
    """A schema of our name with other tables is refused, and not touched."""
    rows(server, "CREATE SCHEMA consentry; CREATE TABLE consentry.theirs (one integer)")
    with pytest.raises(HoldDataError, match="not those of held mail"):
        PostgresHoldStore(server, vault=VAULT)
    assert rows(server, "SELECT tablename FROM pg_tables WHERE schemaname = 'consentry'") == [("theirs",)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: Server(url, lambda: "not " + PASSWORD), "password authentication failed"),
        (lambda url: Server(url.replace("127.0.0.1", "nowhere.invalid")), "nowhere.invalid"),
        (lambda url: Server(url + "?sslmode=require", lambda: PASSWORD), "does not support SSL"),
        (lambda url: Server(url + "x", lambda: PASSWORD), "does not exist"),
    ],
)
def test_a_server_that_cannot_be_used_is_named(server, change, words):
    """The error says which server and why, and never the password."""
    wrong = change(server.url)
    with pytest.raises(HoldUnavailableError, match=words) as caught:
        PostgresHoldStore(wrong, vault=VAULT)
    assert wrong.url.partition("?")[0] in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_another_encoding_is_refused(postgres):
    """Text must come back as it was: a database of another encoding is not used."""
    postgres.execute("CREATE DATABASE latin OWNER consentry ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(HoldDataError, match="a database in LATIN1: held mail needs one in UTF8"):
        PostgresHoldStore(Server(postgres.url("latin"), lambda: PASSWORD), vault=VAULT)


def test_commits_are_on_the_disk_whatever_the_server_is_set_to(postgres, server):
    """A server that lets commits return early does so for others; one without fsync is told of in the log."""
    postgres.execute(f"ALTER ROLE {ROLE} SET synchronous_commit = off")
    try:
        link = Link(server, limit=5)
        found = link.run(lambda connection: connection.execute("SHOW synchronous_commit").fetchone())
        link.close()
    finally:
        postgres.execute(f"ALTER ROLE {ROLE} RESET synchronous_commit")
    assert found == ("on",)
    with Postgres("fsync = off") as careless:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logging.getLogger("consentry").addHandler(handler)
        try:
            PostgresHoldStore(Server(careless.database(), lambda: PASSWORD), vault=VAULT).close()
        finally:
            logging.getLogger("consentry").removeHandler(handler)
    assert "hold_store_without_fsync" in stream.getvalue()


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://one@db.example/held", "require"),
        ("postgresql://one@127.0.0.1,db.example:6432/held", "require"),
        ("postgresql://one@db.example/held?sslmode=verify-full", None),
        ("postgresql://one@db.example/held?sslmode=disable", None),
        ("postgresql:///held?host=db.example", "require"),
        ("postgresql://one@[::1]:5432/held", None),
        ("postgresql:///held", None),
    ],
)
def test_other_machines_are_spoken_to_by_tls(url, mode):
    """Unless the URL says otherwise, nothing goes to another machine in the clear."""
    assert Server(url).parameters().get("sslmode") == mode

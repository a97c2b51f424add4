"""Consent events through a real Kafka: what is published is in every node's index, whatever happens to the broker."""

import asyncio
import contextlib
import random
import subprocess
import sys
import time

import pytest
from support.captures import grant
from support.kafka import Cluster
from support.processes import wait_until
from support.running import environment

from filter import kafka_client
from filter.address import SubjectKeyer
from filter.config_kafka import KafkaSettings
from filter.consent import Capture, ConsentEvent, ConsentState, EventKind, Scope
from filter.consent_events import erasure_record, event_record, heartbeat_record
from filter.consent_feed import Feed, state_of
from filter.consent_follower import Follower
from filter.consent_publisher import Publisher, PublishError
from filter.consent_store import ConsentStore
from filter.labels import Channel
from filter.metrics import CollectorRegistry, Metrics, generate_latest

pytestmark = pytest.mark.integration

KEYER = SubjectKeyer(b"k" * 32)
SCOPE = Scope("email", "bank", "bank", "offers")
COMPACTED = {"cleanup.policy": "compact"}
PATIENCE = 30
READER = kafka_client.reader(KafkaSettings())
GRANT = grant(SCOPE)
OBJECT = Capture(kind=EventKind.OBJECT, scope=Scope("", "bank", "", ""))


def now():
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def subject(address):
    """The subject keys of a mail address."""
    return KEYER.subject(address, Channel.EMAIL)


def told(address, capture, made=None, ident=""):
    """Key and value of an event of a moment ago."""
    at = now()
    return event_record(subject(address), ConsentEvent(capture, ident, at - 1000 if made is None else made, at))


FOLLOW = """
import asyncio, sys, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from filter import kafka_client
from filter.address import SubjectKeyer
from filter.config_kafka import KafkaSettings
from filter.consent_feed import Feed
from filter.consent_follower import Follower
from filter.consent_store import ConsentStore
from filter.metrics import Metrics

def now():
    return time.time_ns() // 1_000_000

async def main(servers, topic, directory):
    feed = Feed(ConsentStore(Path(directory), SubjectKeyer(b"k" * 32), readonly=False), topic)
    feed.begin("killed")
    connection, reader = {"bootstrap_servers": servers}, kafka_client.reader(KafkaSettings())
    metrics = Metrics(CollectorRegistry())
    options = {"connection": connection, "reader": reader, "clock": now, "journal": None, "metrics": metrics}
    follower = Follower(feed, topic, **options, stall=30)
    print("begins", flush=True)
    await follower.run()

asyncio.run(main(*sys.argv[1:]))
"""


class Lines:
    """A journal in memory."""

    def __init__(self):
        self.lines = []

    def write(self, lines):
        """Keep the lines."""
        self.lines += lines


class Node:
    """The index of one machine, and what keeps it at the end of the topic."""

    def __init__(self, kafka, topic, directory):
        self.kafka, self.topic = kafka, topic
        self.store = ConsentStore(directory, KEYER, readonly=False, stale_after=3_600_000)
        self.journal = Lines()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    @contextlib.asynccontextmanager
    async def following(self, run="run"):
        """Follow as long as the block lasts; nothing may go wrong."""
        feed = Feed(self.store, self.topic)
        feed.begin(run)
        self.follower = Follower(
            feed,
            self.topic,
            connection=self.kafka.connection,
            reader=READER,
            clock=now,
            journal=self.journal,
            metrics=self.metrics,
            stall=PATIENCE,
        )
        task = asyncio.create_task(self.follower.run())
        try:
            yield self
        finally:
            self.follower.stop()
            await asyncio.wait_for(task, PATIENCE)

    async def complete(self):
        """Wait until it has read what there was at the start."""
        await until(lambda: self.follower.complete)

    def state(self, address):
        """What a look-up says."""
        return self.store.lookup(address, SCOPE, now()).state

    async def sees(self, address, state):
        """Wait until a look-up says so."""
        await until(lambda: self.state(address) is state)

    def counted(self, outcome):
        """Records counted under this outcome."""
        sample = self.registry.get_sample_value("consentry_consent_records_total", {"outcome": outcome})
        return int(sample or 0)


async def until(true):
    """Wait for something to be true."""
    await asyncio.to_thread(wait_until, true, "the node", seconds=PATIENCE)


async def publish(kafka, topic, *records):
    """Publish records as the command does."""
    async with Publisher(topic, {**kafka.connection, "acks": "all", "enable_idempotence": True}) as publisher:
        await publisher.publish(records)
        return publisher.written


@pytest.fixture
def topic(kafka):
    """A compacted topic of three partitions."""
    return kafka.topic(3, COMPACTED)


@pytest.fixture
def node(kafka, topic, tmp_path):
    """A machine with an empty index."""
    return Node(kafka, topic, tmp_path / "one")


def test_catch_up_and_live(kafka, topic, node, tmp_path):
    """What was published before counts once all of it was read; what is published then counts in every node."""
    other = Node(kafka, topic, tmp_path / "two")

    async def scenario():
        await publish(kafka, topic, *(told(f"p{number}@example.com", GRANT) for number in range(300)))
        async with node.following(), other.following():
            await node.complete()
            await other.complete()
            assert {one.state("p299@example.com") for one in (node, other)} == {ConsentState.CONSENT}
            await publish(kafka, topic, told("p7@example.com", OBJECT))
            for one in (node, other):
                await one.sees("p7@example.com", ConsentState.OBJECTED)
        assert node.store.stats().records == other.store.stats().records == 301

    asyncio.run(scenario())


def test_an_empty_topic_is_read_at_once(node):
    """Where nothing was published yet, nothing is waited for."""

    async def scenario():
        async with node.following():
            await node.complete()

    asyncio.run(scenario())


def test_restart_goes_on_where_it_was(kafka, topic, node):
    """After a restart only what is new is read, with the last record of each partition as proof."""

    async def scenario():
        await publish(kafka, topic, *(told(f"p{number}@example.com", GRANT) for number in range(300)))
        async with node.following("run 1"):
            await node.complete()
        await publish(kafka, topic, told("p7@example.com", OBJECT))
        async with node.following("run 2"):
            assert not node.follower.complete
            await node.complete()
            assert node.state("p7@example.com") is ConsentState.OBJECTED
        assert node.counted("added") == 301
        assert node.counted("repeated") <= 3

    asyncio.run(scenario())


def test_a_topic_made_anew_is_read_from_its_beginning(kafka, topic, node):
    """Another topic of the same name is noticed, even one that is longer; what was on record stays."""

    async def scenario():
        await publish(kafka, topic, told("ann@example.com", OBJECT))
        async with node.following("run 1"):
            await node.complete()
        await asyncio.to_thread(kafka.delete, topic)
        await asyncio.to_thread(kafka.topic, 3, COMPACTED, topic)
        await publish(kafka, topic, *(told(f"p{number}@example.com", GRANT) for number in range(50)))
        async with node.following("run 2"):
            await node.complete()
            assert {node.state(f"p{number}@example.com") for number in range(50)} == {ConsentState.CONSENT}
            assert node.state("ann@example.com") is ConsentState.OBJECTED

    asyncio.run(scenario())


def test_a_lost_index_is_built_again(kafka, topic, node, tmp_path):
    """A machine without an index reads everything, and then says what the others say."""

    async def scenario():
        await publish(kafka, topic, told("ann@example.com", GRANT), told("bob@example.com", OBJECT))
        async with node.following():
            await node.complete()
        fresh = Node(kafka, topic, tmp_path / "fresh")
        async with fresh.following():
            await fresh.complete()
            assert fresh.state("bob@example.com") is ConsentState.OBJECTED
        assert list(fresh.store.export()) == list(node.store.export())

    asyncio.run(scenario())


def test_very_many_are_loaded_at_once(kafka, topic, node, monkeypatch):
    """Far behind, records are sorted and loaded together; order, repeats, erasures and poison come out the same."""
    monkeypatch.setattr("filter.consent_follower.BULK_FROM", 100)
    bad, _ = told("eve@example.com", GRANT)

    async def scenario():
        people = [f"p{number}@example.com" for number in range(300)]
        await publish(kafka, topic, *(told(who, GRANT, made=1000) for who in people))
        await publish(kafka, topic, *(told(who, OBJECT, made=900) for who in people[:9]))
        await publish(kafka, topic, *(told(who, OBJECT, made=2000) for who in people[9:19]))
        await publish(kafka, topic, (bad, b"{"), erasure_record(subject(people[20])))
        async with node.following():
            await node.complete()
        said = [node.state(who) for who in people]
        assert said == [
            *[ConsentState.CONSENT] * 9,
            *[ConsentState.OBJECTED] * 10,
            ConsentState.CONSENT,
            ConsentState.UNKNOWN,
            *[ConsentState.CONSENT] * 279,
        ]
        assert node.state("eve@example.com") is ConsentState.OBJECTED
        async with node.following("again"):
            await node.complete()
        assert node.counted("added") == 320

    asyncio.run(scenario())


def test_order_and_repeats_change_nothing(kafka, topic, node):
    """An older grant that arrives after an objection lifts nothing, however often it comes."""
    at = now()

    async def scenario():
        grant = told("ann@example.com", GRANT, made=at - 60_000)
        objection = told("ann@example.com", OBJECT, made=at - 30_000)
        async with node.following():
            await publish(kafka, topic, objection, grant, objection, grant, told("end@example.com", OBJECT))
            await node.sees("end@example.com", ConsentState.OBJECTED)
            await until(lambda: node.counted("repeated") == 2)
            assert node.state("ann@example.com") is ConsentState.OBJECTED
            await publish(kafka, topic, told("ann@example.com", GRANT, made=at - 10_000))
            await node.sees("ann@example.com", ConsentState.CONSENT)

    asyncio.run(scenario())


def test_poison_stops_nobody(kafka, topic, node):
    """Records that cannot be read are counted and journalled with their place, and what follows is read."""

    async def scenario():
        key, value = told("eve@example.com", GRANT)
        async with node.following():
            await node.complete()
            await publish(kafka, topic, (key, value))
            await node.sees("eve@example.com", ConsentState.CONSENT)
            await publish(kafka, topic, (key, b"\xff"), (key, value.replace(b'"grant"', b'"gift"')))
            await asyncio.to_thread(kafka.produce, topic, [b"{}"], key=b"nobody", partition=0)
            await asyncio.to_thread(kafka.produce, topic, [None], key=key, partition=0)
            await publish(kafka, topic, told("bob@example.com", OBJECT))
            await node.sees("bob@example.com", ConsentState.OBJECTED)
            await until(lambda: (node.counted("refused"), node.counted("tombstones")) == (3, 1))
            assert node.state("eve@example.com") is ConsentState.OBJECTED
            await publish(kafka, topic, (key, value))
            await node.sees("eve@example.com", ConsentState.CONSENT)
        assert sorted(line["error"] for line in node.journal.lines) == ["bad_json", "bad_key", "unknown_kind"]
        assert {line["input"] for line in node.journal.lines} == {topic}

    asyncio.run(scenario())


def test_heartbeats_keep_the_data_fresh(kafka, topic, node):
    """Without news a heartbeat vouches for the data; how old it is is shown."""

    async def scenario():
        async with node.following():
            await node.complete()
            assert node.store.stale(now())
            before = now()
            async with Publisher(topic, kafka.connection) as publisher:
                await publisher.heartbeat(heartbeat_record(before))
            await until(lambda: not node.store.stale(now()))
            assert node.store.stats().as_of == before
            assert b"consentry_consent_age_seconds" in generate_latest(node.registry)
        assert state_of(node.store).complete

    asyncio.run(scenario())


def test_killed_at_any_moment_nothing_is_lost_or_taken_twice(kafka, topic, node):
    """After kill -9 of the follower at random moments the index holds each event once, and its figures say so."""
    rng = random.Random(7)
    script = [sys.executable, "-c", FOLLOW, kafka.bootstrap, topic, str(node.store.directory)]
    people = [f"p{number}@example.com" for number in range(3_000)]

    async def scenario():
        marks = []
        for first in range(0, 3_000, 500):
            await publish(kafka, topic, *(told(who, GRANT, made=1000) for who in people[first : first + 500]))
            process = await asyncio.create_subprocess_exec(*script, stdout=subprocess.PIPE, env=environment())
            await process.stdout.readline()
            await asyncio.sleep(rng.uniform(0, 0.4))
            process.kill()
            await process.wait()
            marks.append(sum(mark.offset for mark in state_of(node.store).marks.values()))
        assert marks == sorted(marks)
        async with node.following("at last"):
            await node.complete()
        assert node.store.stats().records == node.store.stats().subjects == len(list(node.store.export())) == 3_000
        assert {node.state(who) for who in people} == {ConsentState.CONSENT}

    asyncio.run(scenario())


def test_a_missing_topic_is_an_error_of_the_publisher(kafka):
    """Publishing to a topic that is not there says so, and what was written."""
    options = {**kafka.connection, "request_timeout_ms": 1000}

    async def scenario():
        async with Publisher("no.such.topic", options):
            pass

    with pytest.raises(PublishError, match=r"no\.such\.topic.*0 records are written"):
        asyncio.run(scenario())


def test_a_broker_that_dies_and_comes_back(tmp_path):
    """While the broker is away the index answers as before; afterwards the follower goes on by itself."""

    async def scenario(cluster):
        topic = await asyncio.to_thread(cluster.topic, 2, COMPACTED)
        node = Node(cluster, topic, tmp_path / "index")
        await publish(cluster, topic, told("ann@example.com", GRANT))
        async with node.following():
            await node.complete()
            await asyncio.to_thread(cluster.kill)
            assert node.state("ann@example.com") is ConsentState.CONSENT
            await asyncio.to_thread(cluster.run, 1)
            await publish(cluster, topic, told("ann@example.com", OBJECT))
            await node.sees("ann@example.com", ConsentState.OBJECTED)

    with Cluster() as cluster:
        asyncio.run(scenario(cluster))


def test_opt_outs_are_timed_once(kafka, topic, node):
    """How long an opt-out took to count is measured when it comes; not what was there at the start, nor what is read
    once more after a restart.
    """

    def timed():
        return node.registry.get_sample_value("consentry_consent_opt_out_seconds_count")

    async def scenario():
        await publish(kafka, topic, told("ann@example.com", OBJECT))
        async with node.following():
            await node.complete()
            assert timed() == 0
            await publish(kafka, topic, told("bob@example.com", OBJECT, made=now() - 30_000))
            await until(lambda: timed() == 1)
            total = node.registry.get_sample_value("consentry_consent_opt_out_seconds_sum")
            assert 30 <= total < 30 + PATIENCE
        async with node.following():  # the same run: what comes now was relied on meanwhile
            await publish(kafka, topic, told("eve@example.com", OBJECT))
            await until(lambda: timed() >= 2)
            await node.sees("eve@example.com", ConsentState.OBJECTED)
        assert timed() == 2

    asyncio.run(scenario())

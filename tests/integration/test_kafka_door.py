"""The Kafka door against a real broker: what comes in goes to where its verdict says, and each partition goes on."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from support.kafka import Kafka
from support.kafka_door import Process, Topics, build, processes, sources
from support.processes import wait_until
from support.world import PROMOTION, SERVICE, World

from filter import kafka_client, kafka_partition
from filter.events import Event
from filter.kafka_judging import RecordJudge

pytestmark = pytest.mark.integration

ODD = [b"x" * 10, b"{", None, b"", b'{"channel": "fax", "to": ["relay.1@x.example"], "text": "t"}', b"\x00\xff"]


@pytest.fixture
def doors() -> Iterator[list[Process]]:
    """Doors in processes of their own; none outlives its test."""
    with processes() as started:
        yield started


def to(*recipients: str) -> list[tuple[str, bytes]]:
    """Record headers that name these."""
    return [("rcpt_to", one.encode()) for one in recipients]


def test_every_record_goes_to_where_its_verdict_says(kafka: Kafka, doors) -> None:
    """Bytes out are bytes in, keys keep their order, poison is a dead letter with its octets, and the rest goes on."""
    topics = Topics(kafka, partitions=1)
    for word in ("relay", "hold", "divert", "reject"):
        kafka.produce(topics.topic, [PROMOTION], key=word.encode(), headers=to(f"{word}.1@x.example"))
    kafka.produce(topics.topic, ODD, key=b"odd", headers=to("relay.1@x.example"))
    kafka.produce(
        topics.topic, [b"A: %d\r\n\r\nNote." % n for n in range(20)], key=b"k", headers=to("relay.1@x.example")
    )
    doors.append(Process(topics))
    topics.wait_read({0: 30})
    relayed, held = topics.records("relay"), topics.records("held")
    assert [one.value for one in relayed if one.key == b"k"] == [b"A: %d\r\n\r\nNote." % n for n in range(20)]
    assert [one.value for one in relayed if one.key == b"relay"] == [PROMOTION]
    assert {one.key: one.value for one in held} == {b"hold": PROMOTION, b"reject": PROMOTION}
    assert [one.value for one in topics.records("diverted")] == [PROMOTION]
    dead = topics.records("dead-letter")
    assert [one.value for one in dead] == ODD
    codes = [dict(one.headers)["consentry-error"].decode() for one in dead]
    assert codes == ["bad_mime", "bad_json", "null_value", "empty", "unknown_channel", "bad_mime"]
    decisions = [orjson.loads(one.value) for one in topics.records("decisions")]
    assert Counter(one["disposition"] for one in decisions) == {"relay": 21, "hold": 1, "divert": 1, "reject": 1}
    assert doors[0].stop() == "stopped"


def test_a_null_value_without_a_key(kafka: Kafka, doors) -> None:
    """Even a record that has neither is a dead letter, and no reason to stop."""
    topics = Topics(kafka, partitions=1)
    kafka.produce(topics.topic, [None], key=b"k")
    kafka.produce(topics.topic, [b""])
    doors.append(Process(topics))
    topics.wait_read({0: 2})
    assert [(one.key, one.value) for one in topics.records("dead-letter")] == [(b"k", None), (None, b"")]


def test_results_too_large_for_their_topic(kafka: Kafka, doors) -> None:
    """A record whose results no topic takes becomes a dead letter; those read with it are not held up."""
    topics = Topics(kafka, partitions=1)
    kafka.delete(f"{topics.topic}.relay")
    kafka.topic(1, {"max.message.bytes": 20_000}, name=f"{topics.topic}.relay")
    large = b"A: b\r\n\r\n" + b"large " * 10_000
    kafka.produce(topics.topic, [SERVICE, large, SERVICE, large, SERVICE], headers=to("relay.1@x.example"))
    doors.append(Process(topics))
    topics.wait_read({0: 5})
    assert [one.value for one in topics.records("relay")] == [SERVICE] * 3
    assert [one.value for one in topics.records("dead-letter")] == [large] * 2
    assert sources(topics.records("relay")) + sources(topics.records("dead-letter")) == Counter(
        (0, offset) for offset in range(5)
    )


class _Odd(str):
    """The name of a record header as other client libraries may write it."""

    __slots__ = ()

    def encode(self, *_arguments: object, **_options: object) -> bytes:
        """No UTF-8."""
        return b"\xff\xfe"


def test_a_record_that_the_client_library_cannot_read(kafka: Kafka, doors, monkeypatch) -> None:
    """A header name that is no UTF-8 blocks no partition: the dead letter says where the record is."""
    topics = Topics(kafka, partitions=1)
    named = to("relay.1@x.example")
    kafka.produce(topics.topic, [SERVICE] * 3, headers=named)
    with monkeypatch.context() as patch:
        for module in (producer, message_accumulator):
            patch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
        kafka.produce(topics.topic, [SERVICE], headers=[*named, (_Odd("odd"), b"")])
    kafka.produce(topics.topic, [SERVICE] * 2, headers=named)
    doors.append(Process(topics))
    topics.wait_read({0: 6})
    assert set(sources(topics.records("relay"))) == {(0, offset) for offset in (0, 1, 2, 4, 5)}
    (dead,) = topics.records("dead-letter")
    assert dict(dead.headers)["consentry-error"] == b"unreadable"
    assert sources([dead]) == {(0, 3): 1}


def test_partitions_are_shared_and_handed_over(kafka: Kafka, doors) -> None:
    """Each worker has its share; one that leaves gives it to the others, and nothing is lost or comes twice."""
    topics = Topics(kafka, partitions=4)
    doors += [Process(topics).wait(), Process(topics).wait()]
    for number in range(4):
        kafka.produce(topics.topic, [SERVICE] * 100, partition=number, headers=to("relay.1@x.example"))
    topics.wait_read(dict.fromkeys(range(4), 100))
    assert doors[0].stop() == "stopped"
    kafka.produce(topics.topic, [SERVICE] * 100, partition=1, headers=to("relay.1@x.example"))
    topics.wait_read({0: 100, 1: 200, 2: 100, 3: 100})
    assert doors[1].stop() == "stopped"
    assert set(sources(topics.records("relay")).values()) == {1}
    assert len(sources(topics.records("relay"))) == 500


def test_missing_topics_are_told(kafka: Kafka) -> None:
    """Without its output topics the door takes nothing, says so, and opens when they are there."""

    async def scenario() -> None:
        topic = await asyncio.to_thread(kafka.topic, 1)
        topics = object.__new__(Topics)
        topics.kafka, topics.topic, topics.group = kafka, topic, f"group-{topic}"
        await asyncio.to_thread(kafka.produce, topic, [SERVICE], headers=to("relay.1@x.example"))
        world = World()
        door = build(topics.settings(), world)
        door.start()
        await until(lambda: door.troubles == {"kafka_topics_missing"})
        assert not await asyncio.to_thread(topics.committed)
        for name in ("relay", "held", "diverted", "decisions", "dead-letter"):
            await asyncio.to_thread(lambda name=name: kafka.topic(1, name=f"{topic}.{name}"))
        await until(lambda: world.count("kafka_records", outcome="taken") == 1)
        await until(lambda: door.troubles == set())
        await door.stop(30)
        assert not world.reported

    asyncio.run(scenario())


def test_offsets_that_are_gone_are_never_skipped(kafka: Kafka) -> None:
    """Where records were removed before they were read, the partition waits and says so."""

    async def scenario() -> None:
        topics = await asyncio.to_thread(Topics, kafka, 1)
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE], headers=to("relay.1@x.example"))
        world = World()
        door = build(topics.settings(), world)
        door.start()
        await until(lambda: world.count("kafka_records", outcome="taken") == 1)
        await door.stop(30)
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE] * 5, headers=to("relay.1@x.example"))
        async with kafka._admin() as admin:
            await admin.delete_records({TopicPartition(topics.topic, 0): RecordsToDelete(5)})
        door = build(topics.settings(), world)
        door.start()
        await until(lambda: door.troubles == {"kafka_offset_lost"})
        await door.stop(30)
        assert world.count("kafka_records", outcome="taken") == 1
        assert await asyncio.to_thread(topics.committed) == {0: 1}

    asyncio.run(scenario())


def test_partitions_take_turns(kafka: Kafka, monkeypatch) -> None:
    """A batch of one partition is judged before that of another one, so that it is written while that is judged."""
    judged: list[int] = []
    judge = RecordJudge.judge

    def noted(self, record, **given):
        judged.append(record.partition)
        return judge(self, record, **given)

    monkeypatch.setattr(RecordJudge, "judge", noted)
    monkeypatch.setattr(kafka_partition, "STRETCH", -1.0)  # everybody has a chance to get in between
    topics = Topics(kafka, partitions=2)
    for number in range(2):
        kafka.produce(topics.topic, [SERVICE] * 200, partition=number, headers=to("relay.1@x.example"))

    async def scenario() -> None:
        world = World()
        door = build(topics.settings(batch_records=100), world)
        door.start()
        await until(lambda: world.count("kafka_records", outcome="taken") == 400)
        await door.stop(30)
        assert not world.reported

    asyncio.run(scenario())
    assert len(judged) == 400
    assert sum(one != other for one, other in pairwise(judged)) < 10


async def until(condition, seconds: float = 60) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


def test_a_member_without_partitions_waits(kafka: Kafka, doors) -> None:
    """More workers than partitions: one has none, and takes over when the other is gone."""
    topics = Topics(kafka, partitions=1)
    doors += [Process(topics).wait(), Process(topics).wait()]
    doors[0].kill()
    kafka.produce(topics.topic, [SERVICE] * 10, headers=to("relay.1@x.example"))
    topics.wait_read({0: 10})
    wait_until(lambda: len(topics.records("relay")) == 10, "all relayed")


def test_a_consumer_that_says_nothing_is_made_anew(kafka: Kafka) -> None:
    """When records wait and none comes, without any error, the door makes its connections anew, and says so."""

    async def scenario() -> None:
        topics = await asyncio.to_thread(Topics, kafka, 1)
        world = World()
        door = build(topics.settings(stall_timeout="1s"), world)
        door.start()
        await until(lambda: not door.troubles and not door.idle)
        (worker,) = door._workers.values()
        await until(lambda: worker._consumer.paused() == set())
        worker._consumer.pause(worker._place)  # as if it had stopped to fetch
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE] * 3, headers=to("relay.1@x.example"))
        await until(lambda: "kafka_stalled" in door.troubles)
        await until(lambda: world.count("kafka_records", outcome="taken") == 3)
        await until(lambda: not door.troubles)
        await door.stop(30)
        assert world.count("kafka_events", event="stalled") == 1
        assert not world.reported
        assert set(sources(await asyncio.to_thread(topics.records, "relay")).values()) == {1}

    asyncio.run(scenario())


def test_a_worker_that_is_fenced_writes_nothing_and_comes_back(kafka: Kafka) -> None:
    """Whoever starts the producer of a partition ends every transaction of the one before; that one begins anew."""

    async def scenario() -> None:
        topics = await asyncio.to_thread(Topics, kafka, 1)
        world = World()
        settings = topics.settings()
        door = build(settings, world)
        door.start()
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE], headers=to("relay.1@x.example"))
        await until(lambda: world.count("kafka_records", outcome="taken") == 1)
        async with AIOKafkaProducer(**kafka.connection, **kafka_client.transactional(settings, 0)):
            pass
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE] * 3, headers=to("relay.1@x.example"))
        await until(lambda: world.count("kafka_records", outcome="taken") == 4)
        await door.stop(30)
        assert world.count("kafka_events", event="fenced") == 1
        assert world.count("kafka_records", outcome="aborted") == len(world.journal.of(Event.DEFERRED)) > 0
        relayed = await asyncio.to_thread(topics.records, "relay")
        assert sources(relayed) == Counter((0, offset) for offset in range(4))

    asyncio.run(scenario())


def test_a_new_group_may_begin_at_the_end(kafka: Kafka) -> None:
    """With first_offset = "latest" what was there before is left alone, and what comes while nobody serves is not."""

    async def scenario() -> None:
        topics = await asyncio.to_thread(Topics, kafka, 1)
        await asyncio.to_thread(kafka.produce, topics.topic, [PROMOTION] * 5, headers=to("relay.1@x.example"))
        world = World()
        door = build(topics.settings(first_offset="latest"), world)
        door.start()
        await until(lambda: not door.troubles and not door.idle)
        await asyncio.to_thread(topics.wait_read, {0: 5})
        await door.stop(30)
        await asyncio.to_thread(kafka.produce, topics.topic, [SERVICE] * 2, headers=to("relay.1@x.example"))
        door = build(topics.settings(first_offset="latest"), world)
        door.start()
        await until(lambda: world.count("kafka_records", outcome="taken") == 2)
        await door.stop(30)
        assert set(sources(await asyncio.to_thread(topics.records, "relay"))) == {(0, 5), (0, 6)}

    asyncio.run(scenario())


def test_larger_messages_than_a_batch(kafka: Kafka, doors) -> None:
    """Messages that fill batches of records, and one larger than a batch, keep their order and octets."""
    topics = Topics(kafka, partitions=1, outputs=1, **{"max.message.bytes": 2_000_000})
    mail = [b"A: %d\r\n\r\n" % number + b"x" * size for number, size in enumerate([150_000, 10, 190_000, 100_000] * 4)]
    for content in mail:
        kafka.produce(topics.topic, [content], headers=to("relay.1@x.example"))
    doors.append(Process(topics))
    topics.wait_read({0: len(mail)})
    assert [one.value for one in topics.records("relay")] == mail

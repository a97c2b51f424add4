"""What the Kafka door takes for a stall and for none, and which topic it says takes nothing: a Kafka in memory."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from support.kafka_memory import Broker, QuickLoop, run, until
from support.kafka_records import judge, record
from support.world import PROMOTION, SERVICE, World

from filter.kafka_in import KafkaDoor
from filter.kafka_output import KafkaOptions

RELAYED = record(SERVICE, "relay.1@x.example")
HELD = record(PROMOTION, "hold.1@x.example")
LARGE = record(PROMOTION + b"x" * 50_000, "hold.1@x.example")
STALL_TIMEOUT = 30.0  # seconds


def options(broker: Broker, batch_records: int = 10) -> KafkaOptions:
    """Of a door to these topics."""
    return KafkaOptions(
        topic=broker.topic,
        outputs=(),
        group="group",
        from_beginning=True,
        connection={},
        consumer={},
        producer=lambda _: {},
        batch_records=batch_records,
        stall_timeout=STALL_TIMEOUT,
    )


def build(broker: Broker, world: World, seconds: float = 0.0) -> KafkaDoor:
    """A door that takes so many seconds to judge a record."""

    def judged_at() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, QuickLoop)
        loop.now += seconds
        return world.now

    return KafkaDoor(options(broker), replace(judge(world), clock=judged_at), world.metrics, world._report)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """Six partitions."""
    made = Broker(partitions=6)
    made.install(monkeypatch)
    return made


def test_waiting_for_the_turn_is_no_stall(broker: Broker) -> None:
    """A backlog in many partitions is judged without a stall, though each waits for longer than a stall may last."""
    for number in range(6):
        broker.produce(number, *[RELAYED] * 20)

    async def scenario() -> None:
        world = World()
        door = build(broker, world, seconds=1.0)  # 10 for a batch, 50 until it is a partition's turn again
        door.start()
        await until(lambda: world.count("kafka_records", outcome="taken") == 120)
        await door.stop(30)
        assert world.count("kafka_events", event="stalled") == 0
        assert world.count("kafka_events", event="assigned") == 1
        assert not world.reported

    run(scenario())


def test_a_partition_that_had_its_turn_and_stands_is_a_stall(broker: Broker) -> None:
    """Where nothing more comes of one partition, that is noticed, though the others wait and are judged in turn."""
    for number in range(6):
        broker.produce(number, *[RELAYED] * 40)
    broker.silent[broker.places[0]] = 10

    async def scenario() -> None:
        world = World()
        door = build(broker, world, seconds=1.0)
        door.start()
        await until(lambda: "kafka_stalled" in door.troubles)
        assert broker.committed[broker.places[0]] == 10
        assert 0 < world.count("kafka_records", outcome="taken") < 210  # the others were not done by then
        broker.silent.clear()
        await until(lambda: set(broker.committed.values()) == {40})
        await until(lambda: not door.troubles)
        await door.stop(30)
        assert world.count("kafka_events", event="stalled") == 1
        assert not world.reported

    run(scenario())


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("partitions_for", UnknownTopicOrPartitionError()),
        ("partitions_for", TopicAuthorizationFailedError("outbound.held")),
        ("send_batch", UnknownTopicOrPartitionError()),
    ],
)
def test_the_log_names_the_topic_that_takes_nothing(broker: Broker, caplog, call: str, fault: Exception) -> None:
    """Before anything is on its way, too; and once the topic takes records, the door goes on."""
    broker.produce(0, RELAYED, HELD, RELAYED)
    broker.faults[call, "outbound.held"] = fault

    async def scenario() -> None:
        world = World()
        door = build(broker, world)
        door.start()
        await until(lambda: world.count("kafka_events", event="refused") == 2)
        assert "kafka_output_refused" in door.troubles
        assert refused(caplog) == ["outbound.held"] * 2
        broker.faults.clear()
        await until(lambda: world.count("kafka_records", outcome="taken") == 3)
        await until(lambda: not door.troubles)
        await door.stop(30)
        assert not world.reported

    run(scenario())


def test_the_log_names_the_topic_of_a_record_that_is_too_large(broker: Broker, caplog) -> None:
    """First where it belongs; then, where even the dead letter is too large, the topic of that."""
    broker.largest = 20_000
    broker.produce(0, RELAYED, LARGE)

    async def scenario() -> None:
        door = build(broker, World())
        door.start()
        await until(lambda: len(refused(caplog)) == 3)
        await door.stop(30)

    run(scenario())
    assert refused(caplog) == ["outbound.held", "outbound.held", "outbound.dead-letter"]  # with others, alone, given up


def test_no_output_is_blamed_for_the_input(broker: Broker, caplog) -> None:
    """Where the input may not be read any more, after an output took nothing for a while, none is named."""
    broker.produce(0, HELD)
    broker.faults["partitions_for", "outbound.held"] = UnknownTopicOrPartitionError()

    async def scenario() -> None:
        door = build(broker, World())
        door.start()
        await until(lambda: len(refused(caplog)) == 1)
        broker.faults = {("getmany", broker.topic): TopicAuthorizationFailedError(broker.topic)}
        caplog.clear()
        await until(lambda: len(refused(caplog)) > 0)
        await door.stop(30)

    run(scenario())
    assert set(refused(caplog)) == {"unknown"}


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The outputs that the log says take nothing of the first partition."""
    told = [one.fields for one in caplog.records if one.msg == "kafka_refused"]
    return [one["outputs"] for one in told if one["partition"] == 0]

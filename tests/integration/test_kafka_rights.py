"""The Kafka door with the rights that deploy/kafka.md lists, and without one of them: nothing is lost meanwhile."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kafka_door import QUICK, Topics, build, sources
from support.kafka_secured import LOOPBACK, PASSWORD, USER, Guarded
from support.world import PROMOTION, SERVICE, World

from filter.config_kafka import OUTPUTS, KafkaSettings

pytestmark = pytest.mark.integration

READ, WRITE, DESCRIBE = ("--operation", "Read"), ("--operation", "Write"), ("--operation", "Describe")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """A broker whose user may do nothing at first."""
    with Guarded() as cluster:
        yield cluster


@pytest.fixture
def topics(guarded: Guarded) -> Topics:
    """Topics of a door that has every right but to write to any of its outputs."""
    made = Topics(guarded, partitions=1, outputs=1)
    guarded.allow("--topic", made.topic, *READ)
    guarded.allow("--topic", made.topic, "--resource-pattern-type", "prefixed", *DESCRIBE)
    guarded.allow("--group", made.group, *READ)
    guarded.allow("--transactional-id", "consentry-", "--resource-pattern-type", "prefixed", *WRITE, *DESCRIBE)
    return made


def settings(guarded: Guarded, topics: Topics, directory: Path) -> KafkaSettings:
    """[kafka] for that broker."""
    file = directory / "password"
    file.touch(mode=0o600)
    file.write_text(f"{PASSWORD}\n")
    login = {"sasl": "PLAIN", "user": USER, "password_file": str(file)}
    named = {"bootstrap_servers": [f"{LOOPBACK}:{guarded.port}"], "topic": topics.topic, "group": topics.group}
    return KafkaSettings.model_validate({**QUICK, "batch_records": 50, **named, **login})


def may_write(guarded: Guarded, topics: Topics, *outputs: str) -> None:
    """Give the right to write to these outputs."""
    guarded.allow(*(word for name in outputs for word in ("--topic", f"{topics.topic}.{name}")), *WRITE)


async def until(condition) -> None:
    """Wait for it."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


def fill(topics: Topics) -> None:
    """Ten records that go to `relay`, then one that goes to `held`."""
    topics.kafka.produce(topics.topic, [SERVICE] * 10, headers=[("rcpt_to", b"relay.1@x.example")])
    topics.kafka.produce(topics.topic, [PROMOTION], headers=[("rcpt_to", b"hold.1@x.example")])


def test_an_output_that_may_not_be_written(guarded: Guarded, topics: Topics, tmp_path: Path, caplog) -> None:
    """Nothing is committed, the log names the topic, the door says why it stands; with the right it goes on."""
    may_write(guarded, topics, *(name for name in OUTPUTS if name != "held"))
    fill(topics)

    async def scenario() -> None:
        world = World()
        door = build(settings(guarded, topics, tmp_path), world)
        door.start()
        await until(lambda: door.troubles == {"kafka_output_refused"})
        await until(lambda: world.count("kafka_events", event="refused") > 1)
        assert not await asyncio.to_thread(topics.committed)
        assert not await asyncio.to_thread(topics.records, "relay")
        told = [one.fields for one in caplog.records if one.msg == "kafka_refused"]
        assert {one["outputs"] for one in told} == {f"{topics.topic}.held"}
        await asyncio.to_thread(may_write, guarded, topics, "held")
        await until(lambda: not door.troubles)
        await until(lambda: world.count("kafka_records", outcome="taken") == 11)
        await door.stop(30)
        assert not world.reported

    asyncio.run(scenario())
    assert topics.committed() == {0: 11}
    assert [one.value for one in topics.records("relay")] == [SERVICE] * 10
    assert [one.value for one in topics.records("held")] == [PROMOTION]
    assert set(sources(topics.records("decisions")).values()) == {1}


def test_a_right_that_is_taken_away(guarded: Guarded, topics: Topics, tmp_path: Path) -> None:
    """In the midst of its work the door stands where it was, and goes on from there."""
    may_write(guarded, topics, *OUTPUTS)
    right = ("--topic", f"{topics.topic}.relay", *WRITE)

    async def scenario() -> None:
        world = World()
        door = build(settings(guarded, topics, tmp_path), world)
        door.start()
        await asyncio.to_thread(fill, topics)
        await until(lambda: world.count("kafka_records", outcome="taken") == 11)
        await asyncio.to_thread(guarded.forbid, *right)
        await asyncio.to_thread(fill, topics)
        await until(lambda: door.troubles == {"kafka_output_refused"})
        assert await asyncio.to_thread(topics.committed) == {0: 11}
        await asyncio.to_thread(guarded.allow, *right)
        await until(lambda: world.count("kafka_records", outcome="taken") == 22)
        assert not door.troubles
        await door.stop(30)
        assert not world.reported

    asyncio.run(scenario())
    assert sources(topics.records("relay")) + sources(topics.records("held")) == {
        (0, offset): 1 for offset in range(22)
    }


@pytest.mark.parametrize("what", ["--topic", "--group"])
def test_an_input_that_may_not_be_read(guarded: Guarded, topics: Topics, tmp_path: Path, caplog, what: str) -> None:
    """Without the right to read topic or group the door says that it cannot, and why, and begins when it may."""
    may_write(guarded, topics, *OUTPUTS)
    fill(topics)
    right = (what, topics.topic if what == "--topic" else topics.group, *READ)
    guarded.forbid(*right)

    async def scenario() -> None:
        world = World()
        door = build(settings(guarded, topics, tmp_path), world)
        door.start()
        await until(lambda: any("AuthorizationFailed" in told(one) for one in caplog.records))
        assert door.troubles
        assert not world.count("kafka_records", outcome="taken")
        await asyncio.to_thread(guarded.allow, *right)
        await until(lambda: world.count("kafka_records", outcome="taken") == 11)
        await until(lambda: not door.troubles)
        await door.stop(30)
        assert not world.reported

    def told(record) -> str:
        return getattr(record, "fields", {}).get("error") or ""

    asyncio.run(scenario())

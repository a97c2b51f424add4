"""The Kafka door through TLS and a login, all of it from configuration; and what it says when it is not let in."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kafka_door import QUICK, Topics, build
from support.kafka_secured import LOOPBACK, MECHANISMS, PASSWORD, USER, Secured
from support.world import SERVICE, World

from filter.config_kafka import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """A broker that speaks TLS and wants a password."""
    with Secured() as cluster:
        yield cluster


def settings(secured: Secured, topics: Topics, directory: Path, mechanism: str, password: str) -> KafkaSettings:
    """[kafka] for that broker."""
    file = directory / "password"
    file.touch(mode=0o600)
    file.write_text(f"{password}\n")
    login = {"sasl": mechanism, "user": USER, "password_file": str(file)}
    tls = {"tls": "verify", "tls_ca_file": str(secured.authority_file(directory))}
    named = {"bootstrap_servers": [f"{LOOPBACK}:{secured.port}"], "topic": topics.topic, "group": topics.group}
    return KafkaSettings.model_validate({**QUICK, "batch_records": 50, **named, **tls, **login})


async def until(condition) -> None:
    """Wait for it."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_door_logs_in(secured: Secured, tmp_path: Path, mechanism: str) -> None:
    """Records are judged and written by every connection inside TLS, with each way to log in."""
    topics = Topics(secured, partitions=1, outputs=1)
    secured.produce(topics.topic, [SERVICE] * 3, headers=[("rcpt_to", b"relay.1@x.example")])

    async def scenario() -> None:
        world = World()
        door = build(settings(secured, topics, tmp_path, mechanism, PASSWORD), world)
        door.start()
        await until(lambda: world.count("kafka_records", outcome="taken") == 3)
        await door.stop(30)
        assert not world.reported

    asyncio.run(scenario())
    assert topics.kafka.values(f"{topics.topic}.relay") == [SERVICE] * 3


def test_a_wrong_password_is_told(secured: Secured, tmp_path: Path) -> None:
    """The door is not let in, says so, and goes on trying without a fault."""
    topics = Topics(secured, partitions=1, outputs=1)

    async def scenario() -> None:
        world = World()
        door = build(settings(secured, topics, tmp_path, "SCRAM-SHA-512", "wrong"), world)
        door.start()
        await until(lambda: world.count("kafka_events", event="failed") > 0)
        assert door.troubles == {"kafka_unavailable"}
        await door.stop(30)
        assert not world.reported

    with warnings.catch_warnings():  # aiokafka leaves refused connections to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(scenario())
        gc.collect()

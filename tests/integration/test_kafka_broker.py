"""The Kafka that tests stand on does what they believe of it; and what aiokafka does against it that must be known.

The traps are those of aiokafka 0.14. Where a later version fails such a test, look again at what works around the trap.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import kafka_jars
import local_kafka
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber, ProducerFenced
from support import kafka as kafka_support
from support.kafka import DEPLOY, Cluster, Kafka, need_kafka
from support.processes import free_port, listening, wait_until

pytestmark = pytest.mark.integration

PATIENCE = 30


@contextlib.asynccontextmanager
async def transactional(kafka: Kafka, name: str, **options):
    """A producer of this transactional id. One that was killed or fenced may end as it likes."""
    producer = AIOKafkaProducer(**kafka.connection, transactional_id=name, **options)
    await producer.start()
    try:
        yield producer
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(producer.stop(), PATIENCE)


async def write(producer: AIOKafkaProducer, topic: str, *values: bytes) -> None:
    """One transaction, as it must be done: no commit before every record is known to be written."""
    async with producer.transaction():
        sent = [await producer.send(topic, value, partition=0) for value in values]
        await asyncio.gather(*sent)


# A broker, and transactions in it.


def test_transactions_are_seen_whole_or_not_at_all(kafka):
    """Who reads what is committed sees neither an aborted transaction nor an open one; Kafka's own consumer agrees."""
    topic = kafka.topic()

    async def scenario():
        async with transactional(kafka, topic) as producer:
            await write(producer, topic, b"first", b"second")
            await producer.begin_transaction()
            await (await producer.send(topic, b"aborted"))
            await producer.abort_transaction()
            await write(producer, topic, b"third")
            await producer.begin_transaction()
            await (await producer.send(topic, b"open"))
            seen = await asyncio.to_thread(kafka.values, topic)
            everything = await asyncio.to_thread(kafka.values, topic, committed=False)
            await producer.abort_transaction()
        return seen, everything

    seen, everything = asyncio.run(scenario())
    assert seen == [b"first", b"second", b"third"]
    assert everything == [b"first", b"second", b"aborted", b"third", b"open"]
    assert kafka.console_values(topic) == seen


def test_offsets_are_part_of_a_transaction(kafka):
    """An offset that was sent in a transaction counts when that is committed, and not when it is aborted."""
    topic = kafka.topic()

    async def scenario():
        async with transactional(kafka, topic) as producer:
            for offset, committed in ((7, True), (9, False)):
                await producer.begin_transaction()
                await producer.send_offsets_to_transaction({TopicPartition(topic, 0): offset}, group_id=topic)
                await (producer.commit_transaction() if committed else producer.abort_transaction())

    asyncio.run(scenario())
    wait_until(lambda: bool(kafka.offsets(topic)), "the offset")
    assert kafka.offsets(topic) == {(topic, 0): 7}


def test_a_zombie_is_fenced(kafka):
    """A second producer of the same transactional id ends the transaction of the first, which can write no more."""
    topic = kafka.topic()

    async def scenario():
        async with transactional(kafka, topic) as zombie:
            await zombie.begin_transaction()
            await (await zombie.send(topic, b"zombie"))
            async with transactional(kafka, topic) as owner:
                await write(owner, topic, b"owner")
                with pytest.raises(ProducerFenced):
                    await zombie.commit_transaction()

    asyncio.run(scenario())
    assert kafka.values(topic) == [b"owner"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read_and_written(kafka, codec):
    """What a broker has compressed is read as it was, and what we compress a broker can unpack."""
    packed = kafka.topic(config={"compression.type": codec})
    plain = kafka.topic(config={"compression.type": "uncompressed"})
    values = [b"value %d " % number * 100 for number in range(20)]
    kafka.produce(packed, values)
    kafka.produce(plain, values, compression_type=codec)
    assert kafka.values(packed) == kafka.values(plain) == values


def test_topics_have_the_partitions_and_settings_that_were_asked_for(kafka):
    """A topic is made with its settings, and is gone when it was deleted."""
    topic = kafka.topic(3, {"max.message.bytes": 1000})
    kafka.produce(topic, [b"here"], partition=2)
    with pytest.raises(MessageSizeTooLargeError):
        kafka.produce(topic, [b"x" * 2000])
    assert [(record.partition, record.value) for record in kafka.records(topic)] == [(2, b"here")]
    kafka.delete(topic)
    with pytest.raises(AssertionError, match="UnknownTopicOrPartition"):
        kafka.records(topic)


# Traps of aiokafka.


def test_trap_k1_a_commit_succeeds_after_a_failed_record(kafka):
    """A transaction is committed although a record of it was refused: only the future of that record tells."""
    topic = kafka.topic(2, {"max.message.bytes": 2000})

    async def scenario():
        async with transactional(kafka, topic, max_request_size=100_000) as producer:
            await producer.begin_transaction()
            refused = await producer.send(topic, b"x" * 5000, partition=0)
            await producer.send(topic, b"other", partition=1)
            await producer.commit_transaction()
            return refused.exception()

    assert isinstance(asyncio.run(scenario()), MessageSizeTooLargeError)
    assert kafka.values(topic) == [b"other"]


def test_trap_k2_a_producer_is_of_no_use_after_a_failed_record(kafka):
    """The number of the refused record is used up: the partition takes nothing more from this producer."""
    topic = kafka.topic(1, {"max.message.bytes": 2000})

    async def scenario():
        async with transactional(kafka, topic, max_request_size=100_000) as producer:
            await write(producer, topic, b"good")
            with pytest.raises(MessageSizeTooLargeError):
                await write(producer, topic, b"x" * 5000)
            with pytest.raises(OutOfOrderSequenceNumber):
                await write(producer, topic, b"next")
        async with transactional(kafka, topic) as another:
            await write(another, topic, b"last")

    asyncio.run(scenario())
    assert kafka.values(topic) == [b"good", b"last"]


# Brokers that die.


def test_a_killed_broker_keeps_what_was_committed():
    """After SIGKILL and another start all that was committed is there, and the same producer's successor goes on."""
    with Cluster() as cluster:
        topic = cluster.topic()

        assert listening(cluster.nodes[1].port)

        async def before():
            async with transactional(cluster, topic) as producer:
                await write(producer, topic, *(b"%d" % number for number in range(100)))
                await producer.begin_transaction()
                await (await producer.send(topic, b"open"))
                await asyncio.to_thread(cluster.kill)

        async def after():
            async with transactional(cluster, topic) as producer:
                await write(producer, topic, b"last")

        # One loop for each: the first producer, without its broker, is left to end with it.
        asyncio.run(before())
        cluster.run(1)
        asyncio.run(after())
        assert cluster.values(topic) == [*(b"%d" % number for number in range(100)), b"last"]
    assert not listening(cluster.nodes[1].port)
    assert not cluster.home.exists()


# The program behind `make kafka`.


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it with the interpreter of the tests."""
    command = [sys.executable, DEPLOY / "local_kafka.py", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_make_kafka_and_kafka_stop(tmp_path):
    """It prints the address of a broker that lasts, finds it again, and ends it, and no other process, by its file."""
    need_kafka()
    home, port = tmp_path / "cluster", str(free_port())
    try:
        started = program("start", "--home", home, "--port", port)
        assert (started.returncode, started.stdout) == (0, f"127.0.0.1:{port}\n")
        kafka = Kafka(started.stdout.strip())
        topic = kafka.topic()
        kafka.produce(topic, [b"here"])
        assert program("start", "--home", home, "--port", port).stdout == started.stdout
        pid_file = home / "broker-1" / "pid"
        pid = int(pid_file.read_text())
        pid_file.write_text(f"{os.getpid()}\n")
        assert "Stopped 0" in program("stop", "--home", home).stderr
        assert kafka.values(topic) == [b"here"]
        other = program("start", "--home", tmp_path / "other", "--port", port)
        assert (other.returncode, f"127.0.0.1:{port}: Address already in use" in other.stderr) == (1, True)
        pid_file.write_text(f"{pid}\n")
    finally:
        stopped = program("stop", "--remove", "--home", home)
    assert "Stopped 1" in stopped.stderr
    assert not listening(int(port))
    assert not home.exists()


def test_a_broker_ends_with_whoever_started_it(tmp_path):
    """A test run that is killed leaves neither brokers nor their files."""
    need_kafka()
    script = (
        "from support.kafka import Cluster; c = Cluster(); c.start(); print(c.home, c.bootstrap, flush=True); input()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        home, address = owner.stdout.readline().split()
        port = address.partition(":")[2]
        assert listening(int(port))
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not listening(int(port)), "the end of the broker", seconds=PATIENCE)
        wait_until(lambda: not Path(home).exists(), "the end of its files", seconds=PATIENCE)


def test_a_setting_that_a_broker_cannot_live_with():
    """A broker that does not start says why, and leaves nothing behind."""
    cluster = Cluster(settings={"num.io.threads": "few"})
    with pytest.raises(local_kafka.StartError, match=r"few for configuration num\.io\.threads"):
        cluster.start()
    assert not cluster.home.exists()


# Machines that cannot have it.


def test_jars_are_those_that_are_listed(tmp_path):
    """A jar that is missing, strange or not listed is named, and none of them is used."""
    for name, content in (("good.jar", b"good"), ("changed.jar", b"new"), ("strange.jar", b"?")):
        (tmp_path / name).write_bytes(content)
    digest = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
    listed = "".join(f"{digest}  {name}.jar\n" for name in ("good", "changed", "missing"))
    with pytest.raises(local_kafka.NotThereError, match=r"jars\.sha256: changed\.jar, missing\.jar, strange\.jar$"):
        kafka_jars._check(tmp_path, listed)


def test_a_machine_without_java(monkeypatch, tmp_path):
    """The reason names what is missing."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(local_kafka.NotThereError, match="Kafka needs Java 17, and there is no java in PATH"):
        local_kafka.install(tmp_path)
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n")
    java.chmod(0o755)
    with pytest.raises(local_kafka.NotThereError, match=r'Java 17 or newer; .*java is openjdk version "11\.0\.2"'):
        local_kafka.install(tmp_path)
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.2\" 2022' >&2\n")
    with pytest.raises(local_kafka.NotThereError, match="there is no mvn in PATH"):
        local_kafka.install(tmp_path)


def test_without_a_kafka_a_test_says_so(monkeypatch):
    """A test that needs one is skipped with the reason, and in CI it fails."""
    monkeypatch.setattr(kafka_support, "_found", lambda: "no Java here")
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no Java here"):
        next(kafka_support.any_kafka())
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI=true: no Java here"):
        next(kafka_support.any_kafka())


def test_a_cluster_that_is_there_is_used(monkeypatch):
    """KAFKA_BOOTSTRAP_SERVERS names it, and nothing is started."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    (given,) = kafka_support.any_kafka()
    assert (type(given), given.bootstrap) == (Kafka, "kafka.example:9092")


# Three brokers, last: they take their time and memory.


@pytest.fixture(scope="module")
def three():
    """Three brokers, for tests that leave them as they found them."""
    with Cluster(3) as cluster:
        yield cluster


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_three_brokers_go_on_without_one(three, how):
    """Transactions go on when the broker that leads the topic and coordinates them dies or hangs; nothing is lost."""
    topic = three.topic()
    three.wait_in_sync(topic)
    leader = three.leader(topic)

    async def scenario():
        async with transactional(three, topic, request_timeout_ms=2000) as producer:
            await write(producer, topic, b"before")
            down = three.kill if how == "killed" else three.pause
            await asyncio.to_thread(down, leader)
            async with asyncio.timeout(60):
                await write(producer, topic, b"without")
            up = three.run if how == "killed" else three.resume
            await asyncio.to_thread(up, leader)
            await asyncio.to_thread(three.wait_in_sync, topic)
            await write(producer, topic, b"after")

    asyncio.run(scenario())
    assert three.values(topic) == [b"before", b"without", b"after"]

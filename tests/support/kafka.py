"""A real Apache Kafka for tests: a cluster of its own, killed and paused at will, or the one that is there anyway.

`Kafka` makes topics and reads and writes them, on whatever cluster; `Cluster` is one or three brokers of our own, from
deploy/kafka. Its methods block: inside an event loop call them by `asyncio.to_thread`. A machine without Java and Maven
skips the test with the reason, and fails it where CI=true. Brokers end with the process that started them, even when
that is killed. Waits that end in vain raise AssertionError, a broker that does not start raises StartError.
"""

import asyncio
import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest
from support import parts
from support.alone import alone
from support.processes import free_port, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "kafka"
sys.path.append(str(DEPLOY))

import local_kafka  # noqa: E402 -- where it lies is no package
from local_kafka import Install, Node, NotThereError  # noqa: E402

CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
READ_SECONDS = 30
ASK_MILLISECONDS = 5000
TRANSACTION_COORDINATOR = 1


def need_kafka() -> Install:
    """The jars and the Java of a broker. Ends the test with the reason where there are none."""
    found = _found()
    return found if isinstance(found, Install) else parts.without(found)


@functools.cache  # asked once per run: a machine without a network must not wait for every test
def _found() -> Install | str:
    try:
        with alone("kafka"):
            return local_kafka.install()
    except NotThereError as reason:
        return str(reason)


def any_kafka() -> Iterator["Kafka"]:
    """For a fixture to yield: the cluster of KAFKA_BOOTSTRAP_SERVERS, or else a broker of our own."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield Kafka(servers)
        return
    with Cluster() as cluster:
        yield cluster


class Kafka:
    """What tests do with a cluster. `connection` goes to every client, such as security_protocol."""

    def __init__(self, bootstrap: str, **connection: Any) -> None:
        self.bootstrap = bootstrap
        self._connection = connection

    @property
    def connection(self) -> dict[str, Any]:
        """The arguments with which a client of aiokafka connects."""
        return {"bootstrap_servers": self.bootstrap, **self._connection}

    def topic(self, partitions: int = 1, config: Mapping[str, object] | None = None, name: str = "") -> str:
        """A new topic, by default of a name that nobody has, when all its partitions have leaders."""
        name = name or f"test-{secrets.token_hex(6)}"
        settings = {key: str(value) for key, value in (config or {}).items()}
        asyncio.run(self._create(name, partitions, settings))
        self._wait_everywhere(name, lambda known: len(known) == partitions, "leaders")
        return name

    def delete(self, *topics: str) -> None:
        """Remove topics; those that are not there are left at that."""
        asyncio.run(self._delete(topics))

    def produce(self, topic: str, values: Iterable[bytes | None], **options: Any) -> None:
        """Write values in this order, all or an error. `options`: key, partition, headers; compression_type."""
        asyncio.run(self._produce(topic, values, options))

    def records(self, topic: str, *, committed: bool = True) -> list[ConsumerRecord[bytes, bytes]]:
        """All that is in a topic now, partition by partition; what was never committed too, if told so."""
        return asyncio.run(self._records(topic, "read_committed" if committed else "read_uncommitted"))

    def values(self, topic: str, *, committed: bool = True) -> list[bytes | None]:
        """The values of `records`."""
        return [record.value for record in self.records(topic, committed=committed)]

    def offsets(self, group: str) -> dict[tuple[str, int], int]:
        """What a group has committed, by topic and partition."""
        return asyncio.run(self._offsets(group))

    def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the broker that leads a partition."""
        known: dict[int, dict[str, Any]] = {}

        def found() -> bool:
            known.update(next(iter(self._known(topic, everywhere=False)), {}))
            return partition in known

        wait_until(found, f"a leader of {topic}", seconds=READ_SECONDS)
        return known[partition]["leader"]

    def coordinator(self, name: str, *, transactional: bool = False) -> int:
        """The number of the broker that coordinates a group, or a transactional id."""
        return asyncio.run(self._coordinator(name, TRANSACTION_COORDINATOR if transactional else 0))

    def wait_in_sync(self, topic: str) -> None:
        """Wait until every replica of a topic has all of it, and every broker knows."""

        def whole(known: dict[int, dict[str, Any]]) -> bool:
            return bool(known) and all(len(each["isr"]) == len(each["replicas"]) for each in known.values())

        self._wait_everywhere(topic, whole, "replicas")

    def console_values(self, topic: str, *, committed: bool = True, quiet_seconds: float = 2) -> list[bytes]:
        """The values of text in a topic, as Kafka's own console consumer reads them: it ends when nothing comes."""
        level = "read_committed" if committed else "read_uncommitted"
        options = ["--from-beginning", f"--timeout-ms={quiet_seconds * 1000:.0f}"]
        words = ["--topic", topic, *options, "--command-property", f"isolation.level={level}"]
        return self._console(CONSOLE_CONSUMER, words).stdout.splitlines()

    def console_produce(self, topic: str, values: Iterable[bytes], *, compression: str = "none") -> None:
        """Write lines of text by Kafka's own console producer."""
        words = ["--topic", topic, "--compression-codec", compression]
        self._console(CONSOLE_PRODUCER, words, b"".join(value + b"\n" for value in values))

    def _console(self, program: str, words: Sequence[str], lines: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        install = need_kafka()
        command = install.command(program, "--bootstrap-server", self.bootstrap, *words)
        return subprocess.run(
            command, env=install.environment, input=lines, capture_output=True, timeout=2 * READ_SECONDS, check=True
        )

    async def _create(self, name: str, partitions: int, settings: dict[str, str]) -> None:
        async with self._admin() as admin:
            copies = min(3, len((await admin.describe_cluster())["brokers"]))
            done = await admin.create_topics([NewTopic(name, partitions, copies, topic_configs=settings)])
            for told, code, *words in done.topic_errors:
                assert not code, f"topic {told}: {for_code(code).__name__} {words}"

    async def _delete(self, topics: Sequence[str]) -> None:
        async with self._admin() as admin:
            await admin.delete_topics(list(topics))

    async def _produce(self, topic: str, values: Iterable[bytes | None], options: dict[str, Any]) -> None:
        compression = options.pop("compression_type", None)
        producer = AIOKafkaProducer(**self.connection, enable_idempotence=True, compression_type=compression)
        async with producer:
            sent = [await producer.send(topic, value, **options) for value in values]
            await asyncio.gather(*sent)

    async def _records(self, topic: str, level: str) -> list[ConsumerRecord[bytes, bytes]]:
        (told,) = await self._describe(topic, everywhere=False)
        assert not told["error_code"], f"topic {topic}: {for_code(told['error_code']).__name__}"
        partitions = [
            TopicPartition(topic, number) for number in sorted(each["partition"] for each in told["partitions"])
        ]
        # Not seek_to_beginning: a search for the end that assign() has begun may overtake it (aiokafka 0.14).
        options = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "isolation_level": level}
        consumer = AIOKafkaConsumer(**self.connection, **options)
        async with consumer, asyncio.timeout(READ_SECONDS):
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            read: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = {each: [] for each in partitions}
            while [each for each in partitions if await consumer.position(each) < ends[each]]:
                for each, records in (await consumer.getmany(timeout_ms=200)).items():
                    read[each] += records
        return [record for each in partitions for record in read[each]]

    async def _offsets(self, group: str) -> dict[tuple[str, int], int]:
        async with self._admin() as admin:
            found = await admin.list_consumer_group_offsets(group)
        return {(each.topic, each.partition): meta.offset for each, meta in found.items()}

    async def _coordinator(self, name: str, kind: int) -> int:
        async with self._admin() as admin:
            return await admin.find_coordinator(name, kind)

    def _wait_everywhere(self, topic: str, right: Callable[[dict[int, dict[str, Any]]], bool], what: str) -> None:
        def everywhere() -> bool:
            told = self._known(topic)
            return bool(told) and all(map(right, told))

        wait_until(everywhere, f"{what} of {topic}", seconds=READ_SECONDS)

    def _known(self, topic: str, *, everywhere: bool = True) -> list[dict[int, dict[str, Any]]]:
        """The partitions of a topic that have a leader, as every broker knows them, or one: brokers learn in turn.

        Empty when one of those asked does not answer.
        """
        try:
            told = asyncio.run(self._describe(topic, everywhere=everywhere))
        except (KafkaError, TimeoutError):
            return []
        return [{each["partition"]: each for each in one["partitions"] if each["leader"] >= 0} for one in told]

    async def _describe(self, topic: str, *, everywhere: bool) -> list[dict[str, Any]]:
        async with self._admin() as admin:
            brokers = [broker.nodeId for broker in admin._client.cluster.brokers()] if everywhere else [None]
            requests = [admin._send_request(MetadataRequest([topic]), node_id=broker) for broker in brokers]
            return [answer.to_object()["topics"][0] for answer in await asyncio.gather(*requests)]

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self.connection, request_timeout_ms=ASK_MILLISECONDS)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


class Cluster(Kafka):
    """One broker or three, numbered from 1, inside `with` or from `start` to `stop`.

    `settings` go into every server.properties, `storage` to the formatting, `options` to Java (`local_kafka.QUICK`).
    """

    def __init__(
        self,
        brokers: int = 1,
        settings: Mapping[str, object] | None = None,
        *,
        storage: Sequence[str] = (),
        options: Sequence[str] = local_kafka.QUICK,
    ) -> None:
        super().__init__("")
        self._brokers, self._settings, self._storage, self._options = brokers, settings, storage, options
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Format the log directories and start every broker."""
        self._install = need_kafka()
        self.home = Path(tempfile.mkdtemp(prefix="kafka-"))
        planned = local_kafka.plan(self.home, self._brokers, lambda count: [free_port() for _ in range(count)])
        self.nodes = {node.number: node for node in planned}
        self.bootstrap = local_kafka.bootstrap(planned)
        self._guard = self._guarded()
        try:
            local_kafka.prepare(self._install, planned, self._settings_of(planned), storage=self._storage)
            self.run(*self.nodes)
        except BaseException:
            self.stop()
            raise

    def run(self, *numbers: int) -> None:
        """Start brokers on what data there is, as after `kill`, and wait until they take clients."""
        for number in numbers:
            node = self.nodes[number]
            command = self._install.broker(node, self._options)
            self._processes[number] = process = local_kafka.launch(command, node, self._install)
            node.pid_file.write_text(f"{process.pid}\n")
        for number in numbers:
            local_kafka.wait_ready(self.nodes[number], functools.partial(self._gone, number))

    def kill(self, *numbers: int) -> None:
        """End brokers at once by SIGKILL, all of them if none is named."""
        for number in numbers or tuple(self._processes):
            process = self._processes.pop(number)
            process.kill()
            process.wait()

    def pause(self, number: int) -> None:
        """Stop a broker in its tracks by SIGSTOP: connections stay, nothing is answered."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a paused broker go on."""
        self._processes[number].send_signal(signal.SIGCONT)

    def log(self, number: int = 1) -> str:
        """What a broker said since it was last started."""
        return self.nodes[number].output.read_text(errors="replace")

    def stop(self) -> None:
        """End every broker and remove its files."""
        self.kill(*self._processes)
        shutil.rmtree(self.home, ignore_errors=True)
        self._guard.communicate(timeout=READ_SECONDS)

    def _settings_of(self, nodes: Sequence[Node]) -> Mapping[str, object]:
        """What goes into every server.properties, now that ports are known."""
        return self._settings

    def _gone(self, number: int) -> bool:
        return self._processes[number].poll() is not None

    def _guarded(self) -> subprocess.Popen[bytes]:
        """A process that ends the brokers when this one is gone, however that came about: its input ends then."""
        return subprocess.Popen(
            [sys.executable, DEPLOY / "local_kafka.py", "stop", "--remove", "--after-input", "--home", self.home],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

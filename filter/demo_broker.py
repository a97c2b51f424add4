"""The Kafka of the demo: a cluster that is there (KAFKA_BOOTSTRAP_SERVERS), or a broker of its own from `deploy/kafka`.

The broker of the demo ends with it, however that comes about, and its data go. Topics have names of this run alone.
Raises `DemoError`.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from .config_kafka import OUTPUTS
from .demo_mailbox import DemoError
from .demo_relay import HOST

SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"
PARTITIONS: Final = 2
_PROGRAM: Final = Path(__file__).parents[1] / "deploy" / "kafka" / "local_kafka.py"
_CONTROLLER: Final = 100  # its port is so far above the broker's
_WITHIN: Final = 60.0  # seconds for any answer
_STOP_WITHIN: Final = 40.0  # seconds
_T = TypeVar("_T")


@contextlib.contextmanager
def broker(directory: Path) -> Iterator[str]:
    """The addresses of a cluster, for as long as this lasts."""
    if servers := os.environ.get(SERVERS):
        yield servers
        return
    if not _PROGRAM.is_file():
        raise DemoError(f"{_PROGRAM}: not there; run the demo in the repository, or name a cluster by {SERVERS}")
    home = directory / "kafka"
    command = [sys.executable, str(_PROGRAM)]
    subprocess.run(  # noqa: S603 -- our own program; what a demo before us may have left
        [*command, "stop", "--remove", "--home", str(home)], stderr=subprocess.DEVNULL, check=False
    )
    guard = subprocess.Popen(  # noqa: S603 -- our own program
        [*command, "stop", "--remove", "--after-input", "--home", str(home)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        start = subprocess.run(  # noqa: S603 -- our own program
            [*command, "start", "--home", str(home), "--port", str(_free_port())],
            capture_output=True,
            text=True,
            check=False,
        )
        if start.returncode:
            raise DemoError(f"no Kafka for the demo: {start.stderr.strip()}")
        yield start.stdout.strip()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.communicate(timeout=_STOP_WITHIN)


class Topics:
    """The topics of this run."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.name = f"demo-{secrets.token_hex(3)}.outbound"

    def create(self) -> None:
        """Make them all."""
        _run(self._create())

    def produce(self, records: Iterable[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]]) -> None:
        """Write records (key, value, headers) to the input topic, all or an error."""
        _run(self._produce(records))

    def records(self, suffix: str) -> list[Any]:
        """Everything that is committed in an output topic."""
        return _run(self._records(f"{self.name}.{suffix}"))

    def remove(self) -> None:
        """Remove them all."""
        _run(self._remove())

    @property
    def _all(self) -> list[str]:
        return [self.name, *(f"{self.name}.{suffix}" for suffix in OUTPUTS)]

    async def _create(self) -> None:
        async with self._admin() as admin:
            done = await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in self._all])
            for name, code, *_ in done.topic_errors:
                if code:
                    raise DemoError(f"{self.servers}: topic {name} cannot be made: error {code}")

    async def _remove(self) -> None:
        async with self._admin() as admin:
            await admin.delete_topics(self._all)

    async def _produce(self, records: Iterable[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, enable_idempotence=True)
        async with producer:
            sent = [
                await producer.send(self.name, value, key, headers=list(headers)) for key, value, headers in records
            ]
            await asyncio.gather(*sent)

    async def _records(self, name: str) -> list[Any]:
        places = [TopicPartition(name, number) for number in range(PARTITIONS)]
        options = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "isolation_level": "read_committed"}
        found: list[Any] = []
        consumer = AIOKafkaConsumer(bootstrap_servers=self.servers, **options)
        async with consumer:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while [place for place in places if await consumer.position(place) < ends[place]]:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        return found

    @contextlib.asynccontextmanager
    async def _admin(self) -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    async def limited() -> _T:
        async with asyncio.timeout(_WITHIN):
            return await work

    try:
        return asyncio.run(limited())
    except (KafkaError, TimeoutError) as error:
        raise DemoError(f"Kafka does not answer as it should: {error or 'it takes too long'}") from error


def _free_port() -> int:
    """A port that is free, and so is the one that the controller would have."""
    for _ in range(100):
        with socket.socket() as trial, socket.socket() as other:
            trial.bind((HOST, 0))
            port = int(trial.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                other.bind((HOST, port + _CONTROLLER))
                return port
    raise DemoError("no two free ports for a broker")

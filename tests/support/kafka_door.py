"""A process with a Kafka door that judges as the world of `world` does: by the local part of recipients.

    kafka_door.py SERVERS TOPIC GROUP [SETTING=VALUE …]

serves until SIGTERM; SETTING is one of [kafka]. Prints "begun" when it heeds that, and "ready" when it has joined the
group. Also what tests do in their own process (`settings`, `build`), and what they ask of the topics afterwards.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from aiokafka.errors import KafkaError
from support.kafka_records import judge
from support.processes import wait_until
from support.world import World

from filter import kafka_client, logs
from filter.config_kafka import OUTPUTS, KafkaSettings
from filter.kafka_in import KafkaDoor
from filter.kafka_records import Limits

LIMITS = Limits(message_size=200_000, recipients=50)
QUICK = {"session_timeout": "3s", "batch_records": "50", "batch_time": "20ms"}


def settings(servers: str, topic: str, group: str, **others: Any) -> KafkaSettings:
    """[kafka] with these; the rest quick enough for tests."""
    given = {**QUICK, **others}
    numbers = {name: int(value) for name, value in given.items() if str(value).isdigit()}
    named = {"bootstrap_servers": servers.split(","), "topic": topic, "group": group}
    return KafkaSettings.model_validate({**given, **numbers, **named})


def build(kafka: KafkaSettings, world: World) -> KafkaDoor:
    """A door in this process; what it could not expect is in `world.reported`."""
    return KafkaDoor(kafka_client.options(kafka), judge(world, LIMITS), world.metrics, world._report)


async def _serve(kafka: KafkaSettings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("begun", flush=True)
    world = World()
    world.journal.write = lambda lines: None  # type: ignore[method-assign] # it would grow without end
    door = build(kafka, world)
    door.start()
    announced = False
    while not stop.is_set():
        if not announced and not door.troubles:
            print("ready", flush=True)
            announced = True
        await asyncio.sleep(0.02)
    await door.stop(30)
    print("stopped", *world.reported, flush=True)


class Topics:
    """The topics of one door under test."""

    def __init__(self, kafka: Any, partitions: int = 2, outputs: int = 2, **config: object) -> None:
        self.kafka = kafka
        self.topic = kafka.topic(partitions, config)
        self.group = f"group-{self.topic}"
        for name in OUTPUTS:
            kafka.topic(outputs, config, name=f"{self.topic}.{name}")

    def records(self, name: str = "") -> list[Any]:
        """What is committed in the topic, or in one of its outputs."""
        return self.kafka.records(f"{self.topic}.{name}" if name else self.topic)

    def committed(self) -> dict[int, int]:
        """Up to where the group is, by partition; nothing while nobody coordinates it yet."""
        try:
            found = self.kafka.offsets(self.group)
        except KafkaError:
            return {}
        return {place: offset for (topic, place), offset in found.items() if topic == self.topic and offset >= 0}

    def settings(self, **others: Any) -> KafkaSettings:
        """Of a door to them."""
        return settings(self.kafka.bootstrap, self.topic, self.group, **others)

    def wait_read(self, offsets: dict[int, int], seconds: float = 60) -> None:
        """Wait until the group has committed so much."""
        end = time.monotonic() + seconds
        while (found := self.committed()) != offsets:
            assert time.monotonic() < end, f"{self.topic} was read to {found} in {seconds} s, not to {offsets}"
            time.sleep(0.1)


def sources(records: Sequence[Any]) -> Counter[tuple[int, int]]:
    """How often each input record is the source of one of these."""
    return Counter(
        (int(found["consentry-source-partition"]), int(found["consentry-source-offset"]))
        for found in (dict(record.headers) for record in records)
    )


class Process:
    """A door in a process of its own."""

    def __init__(self, topics: Topics, **others: Any) -> None:
        words = [f"{name}={value}" for name, value in others.items()]
        self._process = subprocess.Popen(
            [sys.executable, __file__, topics.kafka.bootstrap, topics.topic, topics.group, *words],
            stdout=subprocess.PIPE,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self.said = ""

    def heard(self, word: str) -> bool:
        """Whether it has said this."""
        self.said += (self._process.stdout.read() or b"").decode()
        return word in self.said.split()

    def wait(self, word: str = "ready") -> "Process":
        """Wait until it says this."""
        wait_until(lambda: self.heard(word), f"{word} of the door", seconds=60)
        return self

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._end()

    def stop(self) -> str:
        """End it in order; what it said last."""
        self._process.send_signal(signal.SIGCONT)
        self.wait("begun")
        self._process.terminate()
        self.wait("stopped")
        self._end()
        return self.said.splitlines()[-1]

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def _end(self) -> None:
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def processes() -> Iterator[list[Process]]:
    """A list of processes; those that are left at the end are killed."""
    started: list[Process] = []
    try:
        yield started
    finally:
        for process in started:
            if not process.gone:
                process.kill()


if __name__ == "__main__":
    logs.configure()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    pairs = dict(word.split("=", 1) for word in sys.argv[4:])
    asyncio.run(_serve(settings(*sys.argv[1:4], **pairs)))

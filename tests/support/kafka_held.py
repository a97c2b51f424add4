"""A process that takes held copies into a hold store, and what tests ask of both.

    kafka_held.py SERVERS TOPIC GROUP DIRECTORY DIE_AFTER

serves until SIGTERM, or kills itself when the store has taken so many messages and no offset was committed for them
(0: never).
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from support import fakes
from support.held import VAULT
from support.kafka_door import Topics, settings
from support.world import World

from filter import kafka_client
from filter.config_kafka import KafkaSettings
from filter.hold_review import HeldReview
from filter.hold_scan import StoredCopy
from filter.hold_store import HoldStore
from filter.kafka_ingest import HeldIngest, IngestOptions
from filter.kafka_writer import KafkaWriter
from filter.ports import HeldMessage


def options(kafka: KafkaSettings) -> IngestOptions:
    """What a relay would be told."""
    return kafka_client.ingest(kafka)


def writer(kafka: KafkaSettings) -> KafkaWriter:
    """What a relay would write with."""
    return KafkaWriter(kafka.topic, {**kafka_client.connection(kafka), **kafka_client.producer(kafka)})


class Dying:
    """A hold store in a process that ends at the worst of moments."""

    def __init__(self, store: HoldStore, die_after: int) -> None:
        self._store = store
        self._left = die_after or -1

    def has_room(self, size: int) -> bool:
        """As the store says."""
        return self._store.has_room(size)

    async def keep(self, message: HeldMessage) -> bool:
        """Store it, and perhaps die."""
        new = await self._store.keep(message)
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return new


async def _serve(kafka: KafkaSettings, directory: Path, die_after: int) -> None:
    store = HoldStore(directory, vault=VAULT, min_free_space=0)
    world, out = World(), writer(kafka)
    ingest = HeldIngest(
        *(options(kafka), Dying(store, die_after), out.write, fakes.Journal(), world.metrics), clock=lambda: world.now
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ingest.stop)
    await ingest.serve()
    await out.close()
    store.close()


class Taking:
    """Takes the held copies of some topics into the store in `directory`, in a process, inside `with`."""

    def __init__(self, topics: Topics, directory: Path, die_after: int = 0) -> None:
        words = [topics.kafka.bootstrap, topics.topic, topics.group, str(directory), str(die_after)]
        self.process = subprocess.Popen([sys.executable, __file__, *words])

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)


def stored(directory: Path) -> Counter[tuple[str, str]]:
    """How often the store has each copy, by queue id and recipient."""
    store = HoldStore(directory, vault=VAULT, min_free_space=0)
    try:
        found = [one for one in store.copies() if isinstance(one, StoredCopy)]
    finally:
        store.close()
    return Counter((one.queue_id, one.copy.recipient.address) for one in found)


def review(directory: Path) -> HeldReview:
    """The store, for review."""
    return HeldReview(directory, VAULT)


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(_serve(settings(*sys.argv[1:4]), Path(sys.argv[4]), int(sys.argv[5])))

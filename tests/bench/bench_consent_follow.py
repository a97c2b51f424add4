"""Measure the consent topic on a real Kafka: publishing, restoring from nothing, restarting, how soon opt-outs count.

    .venv/bin/python tests/bench/bench_consent_follow.py [--records 500000] [--opt-outs 300] [--load 2000]

Publishes typical events (as `bench_consent.py`, some 400 octets each), restores an index from them, and starts again on
it. Then two machines follow while others are published (`--load` a second): of each opt-out the time from before it is
published until look-ups say so, in two processes of each machine that do nothing but look.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_consent import NOW, address
from prometheus_client import CollectorRegistry
from support.kafka import Cluster

from filter import kafka_client
from filter.address import SubjectKeyer
from filter.config_kafka import KafkaSettings
from filter.consent import Capture, ConsentEvent, ConsentState, EventKind, Grade, Scope
from filter.consent_events import event_record
from filter.consent_feed import Feed
from filter.consent_follower import Follower
from filter.consent_publisher import Publisher
from filter.consent_store import ConsentStore
from filter.consent_view import LateConsent
from filter.errors import ConsentDataError
from filter.labels import Channel
from filter.metrics import Metrics

KEYER = SubjectKeyer(b"k" * 32)
SCOPE = Scope("email", "shop", "shop", "offers")
WORDING = {"wording_id": "join-7", "wording_sha256": "ab" * 32}
GRANT = Capture(
    kind=EventKind.GRANT,
    scope=SCOPE,
    source="shop.example/join",
    method="web form",
    affirmative=True,
    conditional=False,
    grade=Grade.INDIVIDUAL_PROOF,
    batch="bench",
    **WORDING,
)
OBJECT = Capture(kind=EventKind.OBJECT, scope=Scope("email", "shop", "", ""), source="preference centre")
WAIT = 60


def now() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def told(number: int, capture: Capture, made: int, received: int) -> tuple[bytes, bytes]:
    """A record about an address."""
    subject = KEYER.subject(address(number), Channel.EMAIL)
    return event_record(subject, ConsentEvent(capture, "", made, received, evidence_ref=f"row-{number:08}"))


def many(records: int) -> Iterator[tuple[bytes, bytes]]:
    """Nine grants in ten, one opt-out."""
    for number in range(records):
        capture = OBJECT if number % 10 == 5 else GRANT
        yield told(number, capture, 1_760_000_000_000 + number * 1_997 % 20_000_000_000, NOW)


class Quiet:
    """A journal that keeps nothing."""

    def write(self, lines: Any) -> None:
        """Nothing."""


def follower(bootstrap: str, topic: str, directory: Path) -> tuple[Follower, ConsentStore]:
    """What the follower of a machine runs."""
    store = ConsentStore(directory, KEYER, readonly=False)
    feed = Feed(store, topic)
    feed.begin("bench")
    connection = {"bootstrap_servers": bootstrap}
    reader = kafka_client.reader(KafkaSettings())
    metrics = Metrics(CollectorRegistry())
    made = Follower(
        feed, topic, connection=connection, reader=reader, clock=now, journal=Quiet(), metrics=metrics, stall=60
    )
    return made, store


def machine(bootstrap: str, topic: str, directory: Path, ready: Any, stop: Any) -> None:
    """A machine: its index is at the end of the topic until told to stop."""
    gc.set_threshold(50_000, 20, 100)  # as `consent_node` does

    async def run() -> None:
        made, store = follower(bootstrap, topic, directory)
        task = asyncio.create_task(made.run())
        while not made.complete and not task.done():  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.005)
        used = resource.getrusage(resource.RUSAGE_SELF)
        ready.put((time.monotonic(), store.stats().records, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime))
        await asyncio.to_thread(stop.wait)
        made.stop()
        await task

    asyncio.run(run())


def worker(topic: str, directory: Path, wanted: Any, seen: Any) -> None:
    """A worker: looks until an opt-out counts, and says when that was."""
    view = LateConsent(lambda: ConsentStore(directory, KEYER), topic=topic)
    seen.put("here")
    while (number := wanted.get()) is not None:
        while True:
            try:
                if view.lookup(address(number), SCOPE, now()).state is ConsentState.OBJECTED:
                    break
            except ConsentDataError:
                pass
            time.sleep(0.001)
        seen.put((number, time.monotonic()))


class Machine:
    """A machine in a process of its own."""

    def __init__(self, cluster: Cluster, topic: str, directory: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.directory = directory
        self._ready, self._stop = context.Queue(), context.Event()
        given = (cluster.bootstrap, topic, directory, self._ready, self._stop)
        self._process = context.Process(target=machine, args=given)
        self._began = time.monotonic()
        self._process.start()

    def complete(self) -> tuple[float, int, float, float]:
        """Seconds until all was read, with the start of the process; records in the index; peak memory in MB; of these
        seconds those of the processor.
        """
        at, records, peak, used = self._ready.get(timeout=3600)
        return at - self._began, records, peak, used

    def end(self) -> None:
        """Stop it."""
        self._stop.set()
        self._process.join(WAIT)


async def publish(cluster: Cluster, topic: str, records: Any) -> float:
    """Publish these; seconds."""
    options = {**cluster.connection, **kafka_client.producer(KafkaSettings()), "linger_ms": 5}
    began = time.perf_counter()
    async with Publisher(topic, options) as publisher:
        await publisher.publish(records)
    return time.perf_counter() - began


async def load(cluster: Cluster, topic: str, rate: int, first: int, stop: asyncio.Event) -> int:
    """Publish other events steadily; how many."""
    options = {**cluster.connection, **kafka_client.producer(KafkaSettings())}
    made = 0
    began = time.monotonic()
    async with Publisher(topic, options) as publisher:
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate) - made
            at = now()
            await publisher.publish(told(first + made + more, GRANT, at, at) for more in range(due))
            made += due
            await asyncio.sleep(0.02)
    return made


async def opt_outs(cluster: Cluster, topic: str, arguments: argparse.Namespace, workers: Any) -> list[float]:
    """Publish opt-outs one after the other; seconds until each counted in the slowest worker."""
    wanted, seen = workers
    options = {**cluster.connection, **kafka_client.producer(KafkaSettings())}
    stop = asyncio.Event()
    task = asyncio.create_task(load(cluster, topic, arguments.load, arguments.records + 1, stop))
    took = []
    async with Publisher(topic, options) as publisher:
        for number in range(0, 10 * arguments.opt_outs, 10):
            for queue in wanted:
                queue.put(number)
            at = now()
            began = time.monotonic()
            await publisher.publish([told(number, OBJECT, at, at)])
            slowest = 0.0
            for _ in wanted:
                _, when = await asyncio.to_thread(seen.get, timeout=WAIT)
                slowest = max(slowest, when - began)
            took.append(slowest)
    stop.set()
    made = await task
    print(f"  beside {made / (sum(took) or 1):,.0f} other events a second")
    return took


def latency(cluster: Cluster, topic: str, directories: list[Path], arguments: argparse.Namespace) -> None:
    """How soon opt-outs count in two workers of each of two machines."""
    context = multiprocessing.get_context("spawn")
    machines = [Machine(cluster, topic, directory) for directory in directories]
    print("restart on its index, and from nothing beside it, s:", *(round(one.complete()[0], 1) for one in machines))
    seen, wanted, processes = context.Queue(), [], []
    for directory in [*directories, *directories]:
        wanted.append(context.Queue())
        process = context.Process(target=worker, args=(topic, directory, wanted[-1], seen))
        process.start()
        processes.append(process)
    for _ in processes:
        seen.get(timeout=WAIT)
    took = sorted(asyncio.run(opt_outs(cluster, topic, arguments, (wanted, seen))))
    for queue in wanted:
        queue.put(None)
    for process in processes:
        process.join(WAIT)
    for one in machines:
        one.end()
    named = {name: took[min(len(took) - 1, int(len(took) * part))] for name, part in (("p50", 0.5), ("p99", 0.99))}
    print("opt-out counts everywhere, ms:", json.dumps({name: round(1000 * value) for name, value in named.items()}))
    print(f"  slowest of {len(took)}: {1000 * took[-1]:.0f} ms")


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--opt-outs", type=int, default=300)
    parser.add_argument("--load", type=int, default=2_000, help="other events a second meanwhile")
    arguments = parser.parse_args()
    with Cluster() as cluster, tempfile.TemporaryDirectory() as scratch:
        topic = cluster.topic(6, {"cleanup.policy": "compact"})
        took = asyncio.run(publish(cluster, topic, many(arguments.records)))
        print(f"publish {arguments.records:,}: {took:.1f} s, {arguments.records / took:,.0f} a second")
        one = Machine(cluster, topic, Path(scratch) / "one")
        took, records, peak, used = one.complete()
        one.end()
        print(f"restore {records:,} from nothing: {took:.1f} s, of them {used:.1f} s of processor, {peak:.0f} MB")
        latency(cluster, topic, [Path(scratch) / "one", Path(scratch) / "two"], arguments)


if __name__ == "__main__":
    main()

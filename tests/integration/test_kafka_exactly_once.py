"""Exactly once, whatever happens: workers are killed, stopped and let go on, join and leave, brokers are killed.

Three brokers, several doors in processes of their own, records coming in all the time. Afterwards whoever reads what is
committed finds the results of each record once. `make soak` does it for longer.
"""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

import pytest
from support.kafka import Cluster
from support.kafka_door import Process, Topics, processes
from support.world import PROMOTION

pytestmark = pytest.mark.integration

PARTITIONS = 4
DISPOSITIONS = ("relay", "hold", "reject", "divert")
SESSION = 3.0  # seconds, as in `kafka_door.QUICK`
ACTIONS = {"kill": 6, "pause": 2, "join": 1, "leave": 2, "broker": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three brokers of our own, each of which may be killed."""
    with Cluster(3) as brokers:
        yield brokers


class Traffic:
    """Records that come in all the time, and a look at the committed offsets now and then."""

    def __init__(self, topics: Topics, seed: int) -> None:
        self._topics = topics
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._produce), threading.Thread(target=self._look)]
        self.written: Counter[int] = Counter()
        self.copies = 0
        self.backwards: list[tuple[int, int, int]] = []
        self.failed: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _produce(self) -> None:
        try:
            while not self._stop.is_set():
                place, count = self._random.randrange(PARTITIONS), self._random.randint(1, 150)
                words = self._random.sample(DISPOSITIONS, self._random.randint(1, 4))
                headers = [("rcpt_to", f"{word}.1@x.example".encode()) for word in words]
                key = b"%d" % self._random.randrange(9)
                self._topics.kafka.produce(
                    self._topics.topic, [PROMOTION] * count, partition=place, key=key, headers=headers
                )
                self.written[place] += count
                self.copies += count * len(words)
                self._stop.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            self.failed.append(error)

    def _look(self) -> None:
        before: dict[int, int] = {}
        while not self._stop.wait(0.3):
            for place, offset in self._topics.committed().items():
                if offset < before.get(place, 0):
                    self.backwards.append((place, before[place], offset))
                before[place] = offset


class Actors:
    """The doors and brokers, and what befalls them."""

    def __init__(self, cluster: Cluster, topics: Topics, doors: list[Process], seed: int) -> None:
        self._cluster, self._topics, self._doors = cluster, topics, doors
        self._random = random.Random(seed)
        self._down = 0
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """One thing, at a random moment."""
        time.sleep(self._random.uniform(0, 0.8))
        (action,) = self._random.choices(list(ACTIONS), list(ACTIONS.values()))
        if action != "join" and not self._doors:
            action = "join"
        if action == "leave" and len(self._doors) < 2:
            action = "kill"
        self.done[action] += 1
        getattr(self, f"_{action}")()

    def _join(self) -> None:
        if len(self._doors) < 4:
            self._doors.append(Process(self._topics))

    def _kill(self) -> None:
        self._doors.pop(self._random.randrange(len(self._doors))).kill()
        self._doors.append(Process(self._topics))

    def _pause(self) -> None:
        door = self._random.choice(self._doors)
        door.signal(signal.SIGSTOP)
        time.sleep(SESSION * self._random.uniform(0.3, 1.8))
        door.signal(signal.SIGCONT)

    def _leave(self) -> None:
        assert self._doors.pop(self._random.randrange(len(self._doors))).stop() == "stopped"

    def _broker(self) -> None:
        if self._down:
            self._cluster.run(self._down)
            self._cluster.wait_in_sync(self._topics.topic)
            self._down = 0
        else:
            self._down = self._random.choice(list(self._cluster.nodes))
            self._cluster.kill(self._down)

    def settle(self) -> None:
        """Everybody is there who has to be."""
        if self._down:
            self._cluster.run(self._down)
            self._down = 0
        if not self._doors:
            self._join()


def hold(cluster: Cluster, rounds: int, seed: int) -> str:
    """Let things happen so many times, and check that nothing came of it; what happened."""
    topics = Topics(cluster, partitions=PARTITIONS, outputs=3)
    with processes() as doors:
        doors += [Process(topics).wait(), Process(topics).wait()]
        actors = Actors(cluster, topics, doors, seed)
        with Traffic(topics, seed) as traffic:
            for _ in range(rounds):
                actors.act()
            actors.settle()
        assert not traffic.failed
        topics.wait_read(dict(traffic.written), seconds=120)
        said = [door.stop() for door in doors]
    assert set(said) == {"stopped"}
    assert not traffic.backwards, "offsets moved backwards"
    copies = check(topics, traffic.written)
    assert copies == traffic.copies
    return f"{traffic.written.total()} records, {copies} copies, {dict(actors.done)}"


def check(topics: Topics, written: Counter[int]) -> int:
    """Each input record has its results once, in the order of its key; how many copies there are."""
    found: dict[tuple[int, int], Counter[str]] = {}
    orders: dict[tuple[str, int, bytes], list[int]] = {}
    for name in ("relay", "held", "diverted", "dead-letter"):
        for record in topics.records(name):
            headers = dict(record.headers)
            source = int(headers["consentry-source-partition"]), int(headers["consentry-source-offset"])
            found.setdefault(source, Counter())[headers["consentry-disposition"].decode()] += 1
            orders.setdefault((name, source[0], record.key), []).append(source[1])
            assert record.value == PROMOTION
    twice = {source: counts for source, counts in found.items() if max(counts.values()) > 1}
    wanted = {(place, offset) for place, count in written.items() for offset in range(count)}
    print(f"duplicates: {len(twice)}")
    assert not wanted - set(found), "lost"
    assert not set(found) - wanted, "from nowhere"
    assert not twice, "written twice"
    for order in orders.values():
        assert order == sorted(order), "out of order"
    decided = Counter(
        (int(headers["consentry-source-partition"]), int(headers["consentry-source-offset"]))
        for headers in (dict(record.headers) for record in topics.records("decisions"))
    )
    assert decided == Counter({source: counts.total() for source, counts in found.items()}), "decisions do not balance"
    return decided.total()


def test_each_record_has_its_results_once(cluster: Cluster) -> None:
    """Ten rounds of what may happen."""
    print(hold(cluster, rounds=10, seed=7))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_each_record_has_its_results_once_for_long(cluster: Cluster, seed: int) -> None:
    """More than fifty rounds in all."""
    print(hold(cluster, rounds=25, seed=seed))

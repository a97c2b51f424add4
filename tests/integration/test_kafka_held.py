"""Held copies between a real broker and a hold store: each is stored once and released once, whatever ends when."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from support import fakes
from support.held import VAULT
from support.kafka import Kafka
from support.kafka_door import Topics
from support.kafka_held import Taking, options, review, stored, writer
from support.kafka_records import json_record, judge, record
from support.processes import wait_until
from support.release import NOON, ReleaseWorld
from support.world import PROMOTION, World

from filter.consent import ConsentState
from filter.events import Event
from filter.held import Action, CopyState, HeldQuery, Order
from filter.held_content import ReleaseTo
from filter.hold_store import HoldStore
from filter.kafka_ingest import HeldIngest
from filter.kafka_release import Couriers, KafkaCourier
from filter.kafka_results import Output
from filter.ports import HeldMessage, HoldUnavailableError
from filter.release import Orders

pytestmark = pytest.mark.integration

HOLD, REJECT = "hold.1@x.example", "reject.1@x.example"
TEXT = {"channel": "sms", "text": "Our promotion.", "declared": "service"}


def outputs(*incoming) -> list[Output]:
    """What the door writes to the topic of held copies for these records."""
    judging = judge(World())
    return [one for each in incoming for one in judging.judge(each).outputs if one.suffix == "held"]


def produce(topics: Topics, written: Iterable[Output]) -> None:
    """Write it."""
    for number, one in enumerate(written):
        headers, place = list(one.headers), number % 2
        topics.kafka.produce(f"{topics.topic}.held", [one.value], key=one.key, headers=headers, partition=place)


def taken(topics: Topics) -> int:
    """Up to how many records of held copies the offsets are committed."""
    found = topics.kafka.offsets(f"{topics.group}-held")
    return sum(offset for (topic, _), offset in found.items() if topic == f"{topics.topic}.held" and offset > 0)


def copies(written: Iterable[Output]) -> Counter[tuple[str, str]]:
    """What the store must have of these: queue id and recipient."""
    found: Counter[tuple[str, str]] = Counter()
    for one in written:
        headers = dict(one.headers)
        rejected = "r" if headers["consentry-disposition"] == b"reject" else ""
        named = [value.decode() for name, value in one.headers if name == "consentry-rcpt"]
        found.update((headers["consentry-queue-id"].decode() + rejected, name) for name in named)
    return found


def test_each_copy_is_stored_once_whenever_it_ends(kafka: Kafka, tmp_path: Path) -> None:
    """Killed after the store has records and before their offsets are committed: none twice, none lost."""
    topics = Topics(kafka)
    written = outputs(*[record(PROMOTION, HOLD, REJECT, number=str(number)) for number in range(30)])
    produce(topics, written[:50])
    for die_after in (1, 7, 30):
        with Taking(topics, tmp_path / "hold", die_after) as process:
            assert process.wait(60) == -9
        assert taken(topics) == 0 or die_after == 30
    produce(topics, written[50:])
    produce(topics, written[:4])  # the very same records at other offsets
    with Taking(topics, tmp_path / "hold"):
        wait_until(lambda: taken(topics) == 64, "every offset", seconds=60)
    assert stored(tmp_path / "hold") == copies(written)


def test_two_of_them_share_the_work(kafka: Kafka, tmp_path: Path) -> None:
    """Members come and go while records come: each copy is stored once."""
    topics = Topics(kafka)
    written = outputs(*[record(PROMOTION, HOLD, number=str(number)) for number in range(40)])
    with Taking(topics, tmp_path / "hold"):
        produce(topics, written[:20])
        with Taking(topics, tmp_path / "hold"):
            produce(topics, written[20:30])
            wait_until(lambda: taken(topics) == 30, "offsets with two", seconds=60)
        produce(topics, written[30:])
        wait_until(lambda: taken(topics) == 40, "offsets with one", seconds=60)
    assert stored(tmp_path / "hold") == copies(written)


class Unwilling:
    """A hold store that takes nothing at first."""

    def __init__(self, store: HoldStore) -> None:
        self._store = store
        self.refusals = 3

    def has_room(self, size: int) -> bool:
        """Not at first."""
        self.refusals -= 1
        return self.refusals < 2 and self._store.has_room(size)

    async def keep(self, message: HeldMessage) -> bool:
        """Not at first."""
        if self.refusals > 0:
            raise HoldUnavailableError("not now")
        return await self._store.keep(message)


def take(topics: Topics, directory: Path, until: Callable[[], bool], world: World, *, unwilling: bool = False) -> None:
    """Take records in, in this process, until this is so."""

    async def run() -> None:
        kafka, store = topics.settings(), HoldStore(directory, vault=VAULT, min_free_space=0)
        out = writer(kafka)
        where = Unwilling(store) if unwilling else store
        parts = (options(kafka), where, out.write, world.journal, world.metrics)
        ingest = HeldIngest(*parts, clock=lambda: world.now)
        serving = asyncio.create_task(ingest.serve())
        await asyncio.to_thread(wait_until, until, "what is held", seconds=60)
        ingest.stop()
        await serving
        await out.close()
        store.close()

    asyncio.run(run())


def test_poison_is_kept_and_the_partition_goes_on(kafka: Kafka, tmp_path: Path) -> None:
    """What cannot be read is a dead letter with all it had; what the store does not take at first waits for it."""
    topics, world = Topics(kafka), World()
    good = outputs(record(PROMOTION, HOLD), record(PROMOTION, HOLD))
    kafka.produce(f"{topics.topic}.held", [b"odd", None], key=b"k", headers=[("a", b"b")], partition=0)
    produce(topics, good)
    take(topics, tmp_path / "hold", lambda: taken(topics) == 4, world, unwilling=True)
    assert stored(tmp_path / "hold") == copies(good)
    letters = topics.records("dead-letter")
    assert [one.value for one in letters] == [b"odd", None]
    assert [dict(one.headers)["a"] for one in letters] == [b"b", b"b"]
    assert [line["error"] for line in world.journal.of(Event.DEAD_LETTER)] == ["bad_held"] * 2
    assert world.count("kafka_events", event="held_stored") == 2
    assert world.count("kafka_events", event="held_waiting") >= 1


def test_a_topic_that_is_made_anew(kafka: Kafka, tmp_path: Path) -> None:
    """Its offsets begin at 0 again, and its records are not taken for those from before."""
    topics, world = Topics(kafka), World()
    written = outputs(*[record(PROMOTION, HOLD) for _ in range(6)])
    produce(topics, written[:4])
    take(topics, tmp_path / "hold", lambda: taken(topics) == 4, world)
    name = f"{topics.topic}.held"
    kafka.delete(name)
    wait_until(lambda: not _there(kafka, name), "the end of the topic", seconds=30)
    kafka.topic(2, name=name)
    produce(topics, written[4:])
    take(topics, tmp_path / "hold", lambda: stored_so_far(world) == 6, world)
    assert stored(tmp_path / "hold") == copies(written)


def test_records_that_were_removed_are_told_of(kafka: Kafka, tmp_path: Path) -> None:
    """Held copies that retention took before they were stored are lost; that is counted, and the rest is stored."""
    topics, world = Topics(kafka), World()
    written = outputs(*[record(PROMOTION, HOLD) for _ in range(8)])
    produce(topics, written[:2])
    take(topics, tmp_path / "hold", lambda: taken(topics) == 2, world)
    produce(topics, written[2:])
    asyncio.run(_remove(kafka, TopicPartition(f"{topics.topic}.held", 0), 3))
    take(topics, tmp_path / "hold", lambda: stored_so_far(world) == 6, world)
    assert world.count("kafka_events", event="held_offset_lost") == 1
    assert stored(tmp_path / "hold") == copies([one for at, one in enumerate(written) if at not in {2, 4}])


def stored_so_far(world: World) -> float:
    """How many records were new to the store."""
    return world.count("kafka_events", event="held_stored")


async def _remove(kafka: Kafka, place: TopicPartition, before: int) -> None:
    admin = AIOKafkaAdminClient(**kafka.connection)
    await admin.start()
    try:
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


def _there(kafka: Kafka, name: str) -> bool:
    try:
        kafka.records(name)
    except AssertionError:
        return False
    return True


def test_what_is_released_goes_on_once(kafka: Kafka, tmp_path: Path) -> None:
    """Mail and texts go to the relay topic as they came, once; who objected meanwhile gets nothing."""
    topics, world = Topics(kafka), World()
    texts = [json_record({**TEXT, "to": [f"hold.{number}@x.example"]}, number=str(number)) for number in range(3)]
    written = outputs(record(PROMOTION, HOLD, trace="t"), *texts)
    produce(topics, written)
    take(topics, tmp_path / "hold", lambda: taken(topics) == 4, world)
    releasing = ReleaseWorld()
    releasing.consents.states = {f"hold.{number}@x.example": ConsentState.CONSENT for number in range(2)}
    releasing.consents.states["hold.2@x.example"] = ConsentState.OBJECTED
    held = review(tmp_path / "hold")
    order = Order("o1", Action.RELEASE, NOON, "ann", "because")
    Orders(held, fakes.Journal(), releasing.metrics, releasing.clock).carry_out(order, HeldQuery())

    async def run(times: int) -> None:
        out = writer(topics.settings())
        for _ in range(times):
            releaser = releasing.releaser()
            releaser.mail = held
            couriers = Couriers(releaser.handler.courier, KafkaCourier(out, releasing.report), ReleaseTo.ORIGIN)
            releaser.handler = dataclasses.replace(releaser.handler, courier=couriers)
            await releaser.run()
            releaser.close()
        await out.close()

    asyncio.run(run(2))
    released = topics.records("relay")
    named = sorted(dict(one.headers)["consentry-rcpt"].decode() for one in released)
    assert named == ["hold.0@x.example", "hold.1@x.example", "hold.1@x.example"]
    assert {one.value for one in released} == {one.value for one in written[:3]}
    (mail,) = [one for one in released if one.value == PROMOTION]
    assert (mail.key, dict(mail.headers)["trace"], dict(mail.headers)["consentry-release"]) == (b"key", b"t", b"o1")
    states = Counter(line.state for line in held.lines(HeldQuery(states=frozenset(CopyState))))
    held.close()
    assert states == {CopyState.DELIVERED: 3, CopyState.HELD: 1}
    assert releasing.hop.delivered == []
    assert releasing.reported == []

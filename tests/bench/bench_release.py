"""Recipients a second that a bulk release delivers: order, claim, check of consent, delivery, recorded outcome.

    bench_release.py [--recipients 20000] [--octets 4000] [--connections 20] [--processes 1] [--store sqlite|none]
        [--held 0] [--dir DIR]

One copy a message, every recipient with a grant in a real consent index, the next hop is smtp-sink on this machine. The
order and its delivery are timed, and both together; with `--store none` held mail is a list in memory, which shows what
the rest costs. Several `--processes` deliver at once, as a relay and a command do. `--held` puts so many
copies of 40 other campaigns into the store before. The directory should be on the disk that is to be measured.
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_hold
import uvloop
from bench_hold import VAULT, content
from bench_hold import message as held_message
from prometheus_client import CollectorRegistry
from support import parts
from support.captures import grant
from support.processes import Process, free_port, wait_for_port
from support.release import CLASSIFIER
from support.release_process import KEYER, deliver, now

from filter.consent import ConsentEvent, Scope
from filter.consent_store import ConsentStore, Entry
from filter.events import Event
from filter.facts import facts_of
from filter.held import Action, Claim, CopyState, HeldMail, HeldQuery, Order, Outcome, Place
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.journal import FileJournal
from filter.labels import Channel
from filter.message import parse_message
from filter.metrics import Metrics
from filter.ports import HeldMessage
from filter.release import Orders
from filter.releaser import ReleaseSettings

FACTS = facts_of(CLASSIFIER.classify(parse_message(b"Subject: x\r\n\r\nA promotion.\r\n")))
SCOPE = Scope(Channel.EMAIL, "shop", "shop", "offers")
GRANT = grant(SCOPE)
ORDER = Order("bench", Action.RELEASE, 1 << 43, "bench", "to measure")


class ListOfMail:
    """Held mail that costs nothing: all of it is released already."""

    def __init__(self, messages: Sequence[HeldMessage]) -> None:
        self._waiting = deque(enumerate(messages))
        self.finished = 0

    def claim(self, at: int, until: int, limit: int, order: str, octets: int, *, unreadable: object) -> list[Claim]:
        """The next ones."""
        count = min(limit, len(self._waiting))
        taken = [self._waiting.popleft() for _ in range(count)]
        return [Claim(message, (Place(number, 0),), (0,), (ORDER,), (0,), (at,)) for number, message in taken]

    def finish(self, outcomes: Sequence[Outcome], at: int) -> None:
        """Count."""
        self.finished += sum(outcome.state is CopyState.DELIVERED for outcome in outcomes)


def messages(count: int, octets: int) -> list[HeldMessage]:
    """One held copy each, judged by the rules in force."""
    chooser = random.Random(1)
    bodies = [content(chooser, octets).rstrip(b"\r\n") + b"\r\n" for _ in range(200)]
    judged = {
        "ruleset": CLASSIFIER.rules.version,
        "facts": FACTS.to_json(),
        "label": FACTS.label,
        "campaign": "ab" * 16,
    }
    held = [held_message(number, bodies[number % len(bodies)]) for number in range(count)]
    return [
        replace(
            one,
            queue_id=f"release{number:09}",
            received_at=one.received_at + (1 << 30),  # later than whatever else is held
            **judged,
            copies=(replace(one.copies[0], state="unknown", reason="no_consent"),),
        )
        for number, one in enumerate(held)
    ]


def consent(directory: Path, held: Sequence[HeldMessage]) -> ConsentStore:
    """An index in which every recipient has agreed since."""
    with ConsentStore(directory, KEYER, readonly=False) as store:
        at = now() - 1000
        store.apply(
            Entry(
                KEYER.subject(one.copies[0].recipient.address, Channel.EMAIL), ConsentEvent(GRANT, f"e{number}", at, at)
            )
            for number, one in enumerate(held)
        )
    return ConsentStore(directory, KEYER)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--octets", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--store", choices=("sqlite", "none"), default="sqlite")
    parser.add_argument("--held", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=None, help="where to put the stores (default: temporary)")
    options = parser.parse_args()
    postfix, port = parts.find("postfix"), free_port()
    owner = ["-u", "root"] if parts.is_root() else []
    held = messages(options.recipients, options.octets)
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        directory = Path(scratch)
        index = consent(directory / "consent", held)
        journal = FileJournal(directory / "journal", "0", now, sync_every=1.0, on_failure=lambda: None)
        journal.start()
        sink = Process(
            [postfix.program("smtp-sink"), *owner, f"127.0.0.1:{port}", "1024"], postfix.environment, directory / "sink"
        )
        try:
            wait_for_port(port, sink)
            if options.held:
                bench_hold.fill(directory / "hold", options.held)
            mail, ordering = prepared(options.store, directory, held, journal)
            settings = ReleaseSettings(concurrent=options.connections)
            gc.collect()
            gc.freeze()  # as workers do
            if options.processes > 1:
                counts, wall, cpu = at_once(options.processes, directory, port, settings)
            else:
                wall, cpu = time.perf_counter(), time.process_time()
                counts = uvloop.run(deliver(mail, index, journal, port, settings=settings)).counts
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        finally:
            sink.stop()
    count = options.recipients
    print(f"{count} recipients, {options.octets} octets each, {options.connections} connections: {dict(counts)}")
    print(
        f"  delivery            {count / wall:8,.0f} recipients/s  {cpu / count * 1e6:6.0f} us of processor time each"
    )
    print(f"  order and delivery  {count / (wall + ordering):8,.0f} recipients/s  (order: {ordering:.2f} s)")


def at_once(
    processes: int, directory: Path, port: int, settings: ReleaseSettings
) -> tuple[Counter[Event], float, float]:
    """Deliver from several processes: what became of copies, seconds, and seconds of processor time."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(processes + 1), context.Queue()
    several = [
        context.Process(target=one_of_several, args=(directory, port, settings, ready, results), daemon=True)
        for _ in range(processes)
    ]
    for one in several:
        one.start()
    ready.wait()
    started = time.perf_counter()
    found = [results.get() for _ in several]
    wall = time.perf_counter() - started
    return sum((counts for counts, _ in found), Counter()), wall, sum(cpu for _, cpu in found)


def one_of_several(directory: Path, port: int, settings: ReleaseSettings, ready: Barrier, results: Queue) -> None:
    """Deliver in a process of its own."""
    mail, index = HeldReview(directory / "hold", VAULT), ConsentStore(directory / "consent", KEYER)
    journal = FileJournal(directory / "journal", str(os.getpid()), now, sync_every=1.0, on_failure=lambda: None)
    journal.start()
    ready.wait()
    cpu = time.process_time()
    counts = uvloop.run(deliver(mail, index, journal, port, settings=settings)).counts
    results.put((counts, time.process_time() - cpu))


def prepared(kind: str, directory: Path, held: Sequence[HeldMessage], journal: FileJournal) -> tuple[HeldMail, float]:
    """Held mail of which everything is released, and how many seconds the order took."""
    if kind == "none":
        return ListOfMail(held), 0.0
    store = HoldStore(directory / "hold", vault=VAULT)
    asyncio.run(fill(store, held))
    store.close()
    review = HeldReview(directory / "hold", VAULT)
    orders = Orders(review, journal, Metrics(CollectorRegistry()), now)
    started = time.perf_counter()
    moved = orders.carry_out(ORDER, HeldQuery(campaign=held[0].campaign)).moved
    took = time.perf_counter() - started
    assert moved == len(held), moved
    return review, took


async def fill(store: HoldStore, held: Sequence[HeldMessage]) -> None:
    """Store all of it."""
    for start in range(0, len(held), 500):
        await asyncio.gather(*(store.store(one) for one in held[start : start + 500]))


if __name__ == "__main__":
    main()

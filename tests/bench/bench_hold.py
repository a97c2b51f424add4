"""Measure the hold store: durable messages a second, disk per held copy, look-ups of message keys, looking over.

    .venv/bin/python tests/bench/bench_hold.py [--messages 20000] [--senders 20] [--octets 30000] [--dir DIR]
                                               [--recipients 1000000]

Each sender stores one message after the other and waits until it is on the disk. The content is mail-like: a template
with personal words and links with tokens, unlike for every message; every message has one recipient. The directory
should be on the disk that is to be measured. Then so many recipients of 40 campaigns are put into another store (of
little content, and not durably, to save time), and what reviewers ask and order is timed there.
"""

import argparse
import asyncio
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sized
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from filter.envelope import MailFrom, RcptTo
from filter.held import Action, By, CopyState, HeldQuery, Order, Outcome
from filter.hold_codec import Packed, pack
from filter.hold_database import HoldDatabase
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage
from filter.sealing import Vault

VAULT = Vault.of([bytes(range(32))])
NOW = 1_790_000_000_000
TEXT = """
account offer members discover autumn collection delivery statement your order with from this week saving summer
travel points reward card balance online store terms apply until midnight exclusive selected styles
"""


def content(chooser: random.Random, octets: int) -> bytes:
    """Mail-like octets: HTML with running text, table rows and links with tokens."""
    words = TEXT.split()
    lines = [
        b"From: shop@mail.example",
        b"Subject: Autumn offers",
        b"MIME-Version: 1.0",
        b"Content-Type: text/html",
        b"",
    ]
    size = sum(map(len, lines))
    while size < octets:
        text = " ".join(chooser.choices(words, k=9))
        token = f"{chooser.getrandbits(128):032x}"
        line = f'<tr><td style="padding:8px;font-family:Arial"><a href="https://l.example/{token}">{text}</a></td></tr>'
        lines.append(line.encode())
        size += len(line) + 2
    return b"\r\n".join(lines)[:octets]


def message(number: int, body: bytes) -> HeldMessage:
    """A message for one recipient."""
    copy = HeldCopy(
        RcptTo(b"person.%d@mail%d.example" % (number, number % 997)),
        f"{number:032x}",
        Disposition.HOLD,
        "objected",
        ("disguised_marketing",),
        "objected",
        ("offer.discount", "offer.deadline"),
    )
    return HeldMessage(
        queue_id=f"bench{number:09}",
        received_at=NOW + number,
        mail=MailFrom(b"bounce+%d@mail.example" % number, (b"SIZE=30000", b"BODY=8BITMIME")),
        trace=b"Received: from client by relay.example with ESMTP id bench\r\n",
        content=body,
        label="marketing",
        score=0.98,
        ruleset="2026.11-1a2b3c4d",
        declared="service",
        controller="shop",
        brand="shop",
        topic="offers",
        copies=(copy,),
    )


async def store_all(store: HoldStore, messages: int, senders: int, bodies: list[bytes]) -> None:
    """Store with so many senders at once."""
    numbers = iter(range(messages))

    async def send() -> None:
        for number in numbers:
            await store.store(message(number, bodies[number % len(bodies)]))

    await asyncio.gather(*(send() for _ in range(senders)))


async def settle_all(store: HoldStore, keys: list[bytes]) -> None:
    """Remember keys."""
    await asyncio.gather(*(store.settle(key, NOW) for key in keys))


def measure_keys(store: HoldStore) -> None:
    """Look-ups of message keys, hits and misses."""
    keys = [number.to_bytes(16, "big") for number in range(20_000)]
    asyncio.run(settle_all(store, keys[::2]))
    random.shuffle(keys)
    started = time.perf_counter()
    found = sum(bool(store.known(key)) for key in keys)
    took = time.perf_counter() - started
    assert found == len(keys) // 2
    print(f"known():           {took / len(keys) * 1e6:12.1f} µs each ({found:,} of {len(keys):,} known)")


CAMPAIGNS = [f"{number:032x}" for number in range(40)]
REASONS = ("objected", "no_consent", "no_consent", "expired")
RULES = ("offer.discount", "offer.deadline", "offer.free", "shop.link", "event.invite")


def recipient_of(number: int, body: bytes) -> HeldMessage:
    """A message of one of the campaigns, for one recipient, who gets one message of every fifth campaign or so."""
    campaign = number * 7919 % len(CAMPAIGNS)
    evidence = (RULES[campaign % 5], RULES[(campaign + number % 3) % 5])
    copy = replace(
        message(number, body).copies[0],
        subject_key=f"{number % 125_000:032x}",
        reason=REASONS[number * 31 % 4],
        evidence=evidence,
    )
    return replace(
        message(number, body),
        campaign=CAMPAIGNS[campaign],
        brand=("shop", "bank")[campaign % 2],
        label=("marketing", "mixed")[campaign % 3 == 0],
        copies=(copy,),
    )


def packed(span: range) -> list[Packed]:
    """The rows of these messages; in a process of its own."""
    body = b"Subject: Offers\r\n\r\nAutumn offers\r\n" * 4
    return [pack(recipient_of(number, body), VAULT) for number in span]


def fill(directory: Path, recipients: int) -> float:
    """Put in so many messages, packed by other processes; how many seconds it took."""
    started = time.perf_counter()
    HoldStore(directory, vault=VAULT).close()
    database = HoldDatabase.open(directory, VAULT)
    database.connection.execute("PRAGMA synchronous=OFF; PRAGMA cache_size=-200000").fetchall()
    spans = [range(first, min(first + 2000, recipients)) for first in range(0, recipients, 2000)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for rows in pool.imap(packed, spans):
            database.begin()
            for one in rows:
                database.insert(one)
            database.commit()
    database.close()
    return time.perf_counter() - started


def timed(what: str, ask: Callable[[], Sized], times: int = 3) -> None:
    """The slowest of some times of asking."""
    slowest = 0.0
    for _ in range(times):
        started = time.perf_counter()
        found = len(ask())
        slowest = max(slowest, time.perf_counter() - started)
    print(f"{what + ':':34} {slowest * 1e3:8.1f} ms at most ({found:,})")


def orders(mail: HeldReview, moves: int = 20, claims: int = 20) -> None:
    """Release a thousand at a time, claim and finish two hundred at a time."""
    order = Order("bench", Action.RELEASE, NOW, "bench", "to measure")
    mail.order(order)
    took: dict[str, list[float]] = {"move of 1,000": [], "claim of 200": [], "finish of 200": []}
    after = None
    for _ in range(moves):
        lines = mail.lines(HeldQuery(reason="objected"), after, 1000)
        places = [line.place for line in lines]
        after = places[-1]
        started = time.perf_counter()
        assert len(mail.move(places, CopyState.RELEASED, order, NOW)) == len(places)
        took["move of 1,000"].append(time.perf_counter() - started)
    for _ in range(claims):
        started = time.perf_counter()
        found = mail.claim(NOW, NOW + 60_000, 200)
        took["claim of 200"].append(time.perf_counter() - started)
        started = time.perf_counter()
        mail.finish([Outcome(place, CopyState.DELIVERED) for one in found for place in one.places], NOW + 1)
        took["finish of 200"].append(time.perf_counter() - started)
    for what, each in took.items():
        print(f"{what + ':':34} {median(each) * 1e3:8.1f} ms, {max(each) * 1e3:.1f} at most")


def review(directory: Path, recipients: int) -> None:
    """Fill a store, and time what reviewers do."""
    took = fill(directory, recipients)
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{recipients:,} recipients of {len(CAMPAIGNS)} campaigns: put in in {took:.0f} s, {size:,} octets")
    mail = HeldReview(directory, VAULT)
    for by in By:
        timed(f"tally by {by}", partial(mail.tally, HeldQuery(), by))
    span = HeldQuery(received_from=NOW + recipients // 4, received_before=NOW + recipients // 2)
    timed("tally of a span by campaign", partial(mail.tally, span, By.CAMPAIGN))
    asked = {
        "held": HeldQuery(),
        "campaign": HeldQuery(campaign=CAMPAIGNS[7]),
        "label": HeldQuery(label="mixed"),
        "rule": HeldQuery(rule=RULES[4]),
        "reason": HeldQuery(reason="expired"),
        "declared": HeldQuery(declared="service"),
        "controller": HeldQuery(controller="shop"),
        "brand": HeldQuery(brand="bank"),
        "topic": HeldQuery(topic="offers"),
        "recipient": HeldQuery(subjects=(f"{77:032x}",)),
        "queue id": HeldQuery(queue_id=f"bench{recipients // 2:09}"),
        "age": HeldQuery(received_from=NOW + recipients // 2),
        "state": HeldQuery(states=frozenset({CopyState.DELIVERED})),
        "nothing": HeldQuery(campaign="nobody"),
    }
    for what, query in asked.items():
        timed(f"first 100 by {what}", partial(mail.lines, query, None, 100))
    orders(mail)
    timed("tally by campaign", partial(mail.tally, HeldQuery(), By.CAMPAIGN))
    mail.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--octets", type=int, default=30_000)
    parser.add_argument("--dir", type=Path, default=None, help="where to put the store (default: temporary)")
    parser.add_argument("--recipients", type=int, default=1_000_000, help="for review; 0: not measured")
    options = parser.parse_args()
    chooser = random.Random(1)
    bodies = [content(chooser, options.octets) for _ in range(500)]
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        directory = Path(scratch, "hold")
        store = HoldStore(directory, vault=VAULT)
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(store_all(store, options.messages, options.senders, bodies))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"store():           {options.messages / wall:12,.0f} a second, durable, {options.senders} senders"
            f" ({wall:.1f} s; {cpu:.1f} s of processor)"
        )
        measure_keys(store)
        started = time.perf_counter()
        findings = store.check()
        print(f"check():           {findings.messages / (time.perf_counter() - started):12,.0f} messages a second")
        assert findings.sound, findings
        store.close()
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(
            f"on disk:           {size / options.messages:12,.0f} octets a held copy of {options.octets:,} ({size:,})"
        )
        started = time.perf_counter()
        HoldStore(directory, vault=VAULT).close()
        print(f"open:              {time.perf_counter() - started:12.2f} s")
        mail = HeldReview(directory, VAULT)
        orders(mail, min(20, options.messages // 1000), min(20, options.messages // 1000))
        mail.close()
        if options.recipients:
            review(Path(scratch, "review"), options.recipients)
        print(f"peak memory:       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:12,.0f} MiB")


if __name__ == "__main__":
    main()

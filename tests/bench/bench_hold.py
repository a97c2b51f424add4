"""Measure the hold store: durable messages a second, disk per held copy, look-ups of message keys, looking over.

    .venv/bin/python tests/bench/bench_hold.py [--messages 20000] [--senders 20] [--octets 30000] [--dir DIR]

Each sender stores one message after the other and waits until it is on the disk. The content is mail-like: a template
with personal words and links with tokens, unlike for every message; every message has one recipient. The directory
should be on the disk that is to be measured.
"""

import argparse
import asyncio
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from filter.envelope import MailFrom, RcptTo
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--octets", type=int, default=30_000)
    parser.add_argument("--dir", type=Path, default=None, help="where to put the store (default: temporary)")
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
        print(f"peak memory:       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:12,.0f} MiB")


if __name__ == "__main__":
    main()

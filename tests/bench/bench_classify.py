"""Cost of judging a message: octets in, classification out, beside the standard library parsing the same octets.

    bench_classify.py [--message FILE.eml ...] [--runs N]

Without files: 25 kB multipart HTML statements made here (quoted-printable, as senders' libraries write them), each for
another person, with other payments on other days, and none judged before. Prints medians over interleaved runs, the
ratio to `email.message_from_bytes`, how the time divides, and memory. "Cold" is without memory of segments met before.
With files, the same message is judged again and again, so that all but the cold figures flatter.
"""

import argparse
import email
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from itertools import count, islice, repeat
from pathlib import Path

from filter.allocator import keep_freed_memory
from filter.app import user_cache
from filter.classify import Classifier
from filter.message import parse_message
from filter.rule_files import load
from filter.rules import RuleSet

CALLS = 50
COPIES = 400  # judged before anything is measured

FONT = "font-family:Helvetica,Arial,sans-serif;font-size:14px;color:#1d2733"
SHOPS = ("Corner Bakery", "Northern Rail", "Book Nook", "Water Board", "Green Grocer", "City Library")
NAMES = ("Adeyemi", "Brown", "Chen", "Davies", "Evans", "Farouk", "Green", "Hughes", "Ivanov", "Jones", "Khan", "Lloyd")
PLAIN = """Dear {name},

your statement covers 1 to 31 October. The minimum payment of {due} GBP is due on 14 November.

View it at https://online.bank.example/statements

Example Bank plc
"""
TOP = """<!doctype html><html lang="en"><head><meta charset="utf-8"><style>.w{{width:100%}}</style></head><body>
<div style="display:none;max-height:0">Your statement for 1 to 31 October is ready to view.</div>
<table role="presentation" width="100%"><tr><td><h1>Your October statement is ready</h1>
<p>Dear {name}, your statement covers 1 to 31 October. The minimum payment of &pound;{due} is due on 14
November.</p>
<p>If something looks wrong, call the number on the back of your card.</p><table width="100%">
"""
BOTTOM = """</table><p><a href="https://online.bank.example/statements">View your statement</a></p></td></tr>
<tr><td style="font-size:12px">Example Bank plc, registered in England no. 1234567. You receive this because you hold
an account with us.</td></tr></table></body></html>
"""


def statement(rows: int = 62, seed: int = 0) -> bytes:
    """A multipart/alternative bank statement with inline styles and a row a payment; 25 kB at 62 rows.

    Another seed makes one for another person, with other shops, days and amounts.
    """
    chance = random.Random(seed)
    values = {
        "name": f"{chance.choice(('Ms', 'Mr', 'Dr'))} {chance.choice(NAMES)}{chance.choice(NAMES).lower()}",
        "due": f"{chance.randrange(1_000, 90_000) / 100:.2f}",
    }
    cell = f'<td style="{FONT};padding:8px 12px 8px 0">'
    days = sorted(chance.randrange(1, 32) for _ in range(rows))
    cells = [
        (f"{day:02d} Oct", chance.choice(SHOPS), f"&pound;{chance.randrange(100, 40_000) / 100:.2f}") for day in days
    ]
    lines = [f"<tr>{''.join(f'{cell}{text}</td>' for text in row)}</tr>" for row in cells]
    message = EmailMessage()
    message["From"] = "Example Bank <service@bank.example>"
    message["To"] = "someone@elsewhere.example"
    message["Subject"] = "Your October statement is ready"
    message["Date"] = "Sun, 01 Nov 2026 08:00:00 +0000"
    message["Message-ID"] = f"<stmt-2026-10-{seed}@bank.example>"
    message.set_content(PLAIN.format(**values), cte="quoted-printable")
    message.add_alternative(TOP.format(**values) + "\n".join(lines) + BOTTOM, subtype="html", cte="quoted-printable")
    message.set_boundary("statement-part")
    return message.as_bytes(policy=SMTP)


def microseconds(call: Callable[[bytes], object], copies: Iterator[bytes]) -> float:
    """Processor time of one call, averaged over a few copies."""
    taken = list(islice(copies, CALLS))
    start = time.process_time()
    for copy in taken:
        call(copy)
    return (time.process_time() - start) / len(taken) * 1e6


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--message", type=Path, action="append", default=[])
    arguments.add_argument("--runs", type=int, default=21)
    options = arguments.parse_args()
    keep_freed_memory()
    start = time.perf_counter()
    loaded = load(cache=user_cache())
    rules = loaded.rules
    took = time.perf_counter() - start
    print(f"{len(rules.rules)} rules, {len(rules.patterns)} patterns, loaded in {took:.2f} s ({loaded.note})")
    for path in options.message:
        raw = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        measure(str(path), repeat(raw), rules, options.runs)
    if not options.message:
        measure("statements made here", (statement(seed=seed) for seed in count()), rules, options.runs)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def measure(name: str, copies: Iterator[bytes], rules: RuleSet, runs: int) -> None:
    """Print the figures of a stream of messages."""
    remembering, forgetting = Classifier(rules), Classifier(rules, memory=0)
    for raw in islice(copies, COPIES):
        classified = remembering.classify(parse_message(raw))
    calls: dict[str, Callable[[bytes], object]] = {
        "email.message_from_bytes": email.message_from_bytes,
        "classify": lambda raw: remembering.classify(parse_message(raw)),
        "classify, cold": lambda raw: forgetting.classify(parse_message(raw)),
        "  of which parse": parse_message,
    }
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(runs):
        for key, call in calls.items():
            times[key].append(microseconds(call, copies))
    for key, whole in (("  of which judge", "classify"), ("  of which judge, cold", "classify, cold")):
        times[key] = [ours - parse for ours, parse in zip(times[whole], times["  of which parse"], strict=True)]
    segments = classified.message.segments
    print(f"\n{name}: {len(raw)} octets, {len(segments)} segments: {classified.label}")
    for key, values in times.items():
        print(f"{key:28} {statistics.median(values):8.0f} us  ({min(values):.0f}-{max(values):.0f})")
    for key in ("classify", "classify, cold"):
        ratios = [ours / theirs for ours, theirs in zip(times[key], times["email.message_from_bytes"], strict=True)]
        print(f"{key} / email: {statistics.median(ratios):.2f}  ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    main()

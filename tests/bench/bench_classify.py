"""Cost of judging a message: octets in, classification out, beside the standard library parsing the same octets.

    bench_classify.py [--message FILE.eml ...] [--runs N]

Without files: a 25 kB multipart HTML statement made here (quoted-printable, as senders' libraries write it). Prints
medians over interleaved runs, the ratio to `email.message_from_bytes`, how the time divides, and memory.
"""

import argparse
import email
import resource
import statistics
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from filter.allocator import keep_freed_memory
from filter.app import user_cache
from filter.classify import Classifier
from filter.message import parse_message
from filter.rule_files import load
from filter.sheet import sheet

CALLS = 50


FONT = "font-family:Helvetica,Arial,sans-serif;font-size:14px;color:#1d2733"
SHOPS = ("Corner Bakery", "Northern Rail", "Book Nook", "Water Board", "Green Grocer", "City Library")
PLAIN = """Dear Ms Adeyemi,

your statement covers 1 to 31 October. The minimum payment of 25.00 GBP is due on 14 November.

View it at https://online.bank.example/statements

Example Bank plc
"""
TOP = """<!doctype html><html lang="en"><head><meta charset="utf-8"><style>.w{width:100%}</style></head><body>
<div style="display:none;max-height:0">Your statement for 1 to 31 October is ready to view.</div>
<table role="presentation" width="100%"><tr><td><h1>Your October statement is ready</h1>
<p>Dear Ms Adeyemi, your statement covers 1 to 31 October. The minimum payment of &pound;25.00 is due on 14
November.</p>
<p>If something looks wrong, call the number on the back of your card.</p><table width="100%">
"""
BOTTOM = """</table><p><a href="https://online.bank.example/statements">View your statement</a></p></td></tr>
<tr><td style="font-size:12px">Example Bank plc, registered in England no. 1234567. You receive this because you hold
an account with us.</td></tr></table></body></html>
"""


def statement(rows: int = 62) -> bytes:
    """A multipart/alternative bank statement with inline styles and a row a payment; 25 kB at 62 rows."""
    cell = f'<td style="{FONT};padding:8px 12px 8px 0">'
    cells = [
        (f"{i % 28 + 1:02d} Oct", SHOPS[i % 6], f"&pound;{3 + i * 7 % 90}.{i * 13 % 100:02d}") for i in range(rows)
    ]
    lines = [f"<tr>{''.join(f'{cell}{text}</td>' for text in row)}</tr>" for row in cells]
    message = EmailMessage()
    message["From"] = "Example Bank <service@bank.example>"
    message["To"] = "someone@elsewhere.example"
    message["Subject"] = "Your October statement is ready"
    message["Date"] = "Sun, 01 Nov 2026 08:00:00 +0000"
    message["Message-ID"] = "<stmt-2026-10@bank.example>"
    message.set_content(PLAIN, cte="quoted-printable")
    message.add_alternative(TOP + "\n".join(lines) + BOTTOM, subtype="html", cte="quoted-printable")
    message.set_boundary("statement-part")
    return message.as_bytes(policy=SMTP)


def microseconds(call: Callable[[], object]) -> float:
    """Time of one call, averaged over a few."""
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


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
    classifier = Classifier(rules)
    files = {str(path): path.read_bytes() for path in options.message} or {"statement made here": statement()}
    for name, raw in files.items():
        measure(name, raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), classifier, options.runs)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def measure(name: str, raw: bytes, classifier: Classifier, runs: int) -> None:
    """Print the figures of one message."""
    message = parse_message(raw)
    text = sheet([segment.text for segment in message.segments]).encode()
    calls: dict[str, Callable[[], object]] = {
        "email.message_from_bytes": lambda: email.message_from_bytes(raw),
        "classify": lambda: classifier.classify(parse_message(raw)),
        "  of which parse": lambda: parse_message(raw),
        "  of which judge": lambda: classifier.classify(message),
        "    of which scan": lambda: classifier.rules.scan(text),
    }
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(runs):
        for key, call in calls.items():
            times[key].append(microseconds(call))
    classified = classifier.classify(message)
    print(f"\n{name}: {len(raw)} octets, {len(text)} of text, {len(message.segments)} segments: {classified.label}")
    for key, values in times.items():
        print(f"{key:28} {statistics.median(values):8.0f} us  ({min(values):.0f}-{max(values):.0f})")
    ratios = [ours / theirs for ours, theirs in zip(times["classify"], times["email.message_from_bytes"], strict=True)]
    print(
        f"classify / email.message_from_bytes: {statistics.median(ratios):.2f}  ({min(ratios):.2f}-{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()

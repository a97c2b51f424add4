"""Cost of reading a message beside parsers that only take it apart: python tests/bench/bench_message.py [FILE.eml …].

Each round runs every contender a few times in turn, so that load on the machine falls on all; prints the least and the
median time and their ratios to `email.message_from_bytes`. `scan` finds the parts, `scan and decode` decodes them too,
as `fast_mail_parser` (when installed) does; `parse_message` reads everything.
"""

import email
import email.message
import email.policy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from filter.message import parse_message
from filter.mime import scan
from filter.transfer import MAX_TEXT, decode_body, decode_octets

ROUNDS = 100
CALLS = 5


def example() -> bytes:
    """A multipart statement of about 26 kB: a table of payments in styled HTML, and its plain alternative."""
    style = 'style="font-family:Helvetica,Arial,sans-serif;font-size:14px;line-height:20px;color:#1d2733;padding:8px"'
    row = f"<tr><td {style}>{{0:02}} Oct</td><td {style}>Shop {{0}}</td><td {style}>&pound;{{0}}.50</td></tr>\n"
    page = (
        '<html><body><div style="display:none">Your statement is ready</div><h1>Your statement</h1>'
        f"<p {style}>Dear customer, your balance is due.</p>"
        f"<table>{''.join(map(row.format, range(66)))}</table></body></html>"
    )
    parts = email.message.EmailMessage()
    parts["From"], parts["Subject"] = "Bank <service@bank.example>", "Your statement"
    parts.set_content("Dear customer, your balance is due.\n")
    parts.add_alternative(page, subtype="html", cte="quoted-printable")
    return parts.as_bytes()


def scan_and_decode(octets: bytes) -> list[str]:
    """The text of every part, without reading pages."""
    found = scan(octets)
    return [
        decode_octets(
            decode_body(found.octets, (part.start, part.end), part.encoding, MAX_TEXT, found.defects),
            part.parameters.get("charset", ""),
            found.defects,
        )
        for part in found.parts
    ]


def contenders() -> dict[str, Callable[[bytes], object]]:
    """What is measured, by name."""
    found: dict[str, Callable[[bytes], object]] = {
        "email.message_from_bytes": email.message_from_bytes,
        "email, default policy": lambda octets: email.message_from_bytes(octets, policy=email.policy.default),
        "scan": scan,
        "scan and decode": scan_and_decode,
        "parse_message": parse_message,
    }
    try:
        import fast_mail_parser  # noqa: PLC0415 - only compared with
    except ImportError:
        return found
    found["fast_mail_parser"] = fast_mail_parser.parse_email
    return found


def measure(octets: bytes) -> None:
    """Time every contender on one message and print the least and median times."""
    found = contenders()
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        for name, parse in found.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                parse(octets)
            times[name].append((time.perf_counter() - start) / CALLS)
    base = times["email.message_from_bytes"]
    for name, taken in times.items():
        least, median = min(taken), statistics.median(taken)
        ratios = f"{least / min(base):5.2f} {median / statistics.median(base):5.2f}"
        print(f"  {name:26s} {least * 1e6:8.0f} {median * 1e6:8.0f} us  {ratios}")


def main() -> None:
    """Measure the files given, or the example."""
    files = {name: Path(name).read_bytes() for name in sys.argv[1:]} or {"example": example()}
    for name, octets in files.items():
        print(f"{name}: {len(octets)} octets")
        measure(octets)


if __name__ == "__main__":
    main()

"""Cost of reading a message beside parsers that only take it apart: python tests/bench/bench_message.py [FILE.eml …].

Each round runs every contender once in turn, so that load on the machine falls on all; prints medians and the ratio to
`email.message_from_bytes`. `scan` and `fast_mail_parser` (when installed) do the MIME part only, `parse_message` all.
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

ROUNDS = 400


def example() -> bytes:
    """A multipart statement of about 25 kB: a table of payments in styled HTML, and its plain alternative."""
    style = 'style="font-family:Helvetica,Arial,sans-serif;font-size:14px;line-height:20px;color:#1d2733;padding:8px"'
    row = f"<tr><td {style}>{{0:02}} Oct</td><td {style}>Shop {{0}}</td><td {style}>&pound;{{0}}.50</td></tr>\n"
    page = (
        '<html><body><div style="display:none">Your statement is ready</div><h1>Your statement</h1>'
        f"<p {style}>Dear customer, your balance is due.</p>"
        f"<table>{''.join(map(row.format, range(50)))}</table></body></html>"
    )
    parts = email.message.EmailMessage()
    parts["From"], parts["Subject"] = "Bank <service@bank.example>", "Your statement"
    parts.set_content("Dear customer, your balance is due.\n")
    parts.add_alternative(page, subtype="html", cte="quoted-printable")
    return parts.as_bytes()


def contenders() -> dict[str, Callable[[bytes], object]]:
    """What is measured, by name."""
    found: dict[str, Callable[[bytes], object]] = {
        "email.message_from_bytes": email.message_from_bytes,
        "email, default policy": lambda octets: email.message_from_bytes(octets, policy=email.policy.default),
        "scan": scan,
        "parse_message": parse_message,
    }
    try:
        import fast_mail_parser  # noqa: PLC0415 - only compared with
    except ImportError:
        return found
    found["fast_mail_parser"] = fast_mail_parser.parse_email
    return found


def measure(octets: bytes) -> None:
    """Time every contender on one message and print the medians."""
    found = contenders()
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        for name, parse in found.items():
            start = time.perf_counter()
            parse(octets)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    base = medians["email.message_from_bytes"]
    for name, seconds in medians.items():
        print(f"  {name:26s} {seconds * 1e6:8.0f} us  {seconds / base:5.2f}")


def main() -> None:
    """Measure the files given, or the example."""
    files = {name: Path(name).read_bytes() for name in sys.argv[1:]} or {"example": example()}
    for name, octets in files.items():
        print(f"{name}: {len(octets)} octets")
        measure(octets)


if __name__ == "__main__":
    main()

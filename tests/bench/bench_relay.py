"""Messages a second through the whole relay, two workers, between smtp-source and smtp-sink on this machine.

    bench_relay.py [--messages N] [--sessions N] [--runs N] [--workers N] [--file MESSAGE.eml ...]

Every message is another SMTP transaction, judged and journalled; no consent data is needed, because every message is
service mail. smtp-source cannot vary a message: it is the same each time, for another recipient. `direct` is
smtp-source into smtp-sink without a relay. Prints medians of the runs, with least and most.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_classify import statement
from support import parts
from support.processes import Process, free_port, wait_for_port
from support.running import Running
from support.source import smtp_source

ROOT = Path(__file__).parents[2]


def rate(port: int, arguments: argparse.Namespace, body: dict[str, object]) -> float:
    """Messages a second from the first connection to the last reply."""
    started = time.monotonic()
    done = smtp_source(port, "-N", messages=arguments.messages, sessions=arguments.sessions, seconds=600, **body)
    if done.code:
        sys.exit(f"port {port}: {done.output}")
    return arguments.messages / (time.monotonic() - started)


def measure(what: str, ways: dict[str, Callable[[], float]], runs: int) -> None:
    """Take turns, so that what else the machine does meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            found[name].append(way())
    for name, rates in found.items():
        print(f"{what:24} {name:8} {statistics.median(rates):6.0f}/s  ({min(rates):.0f}-{max(rates):.0f})", flush=True)


def main() -> None:
    """Read the arguments, start sink and relay, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    postfix, port = parts.find("postfix"), free_port()
    owner = ["-u", "root"] if parts.is_root() else []
    command = [postfix.program("smtp-sink"), *owner, f"127.0.0.1:{port}", "1024"]
    with tempfile.TemporaryDirectory(prefix="relay-") as directory:
        page = Path(directory) / "25 kB HTML statement"
        page.write_bytes(statement().replace(b"\r\n", b"\n"))
        bodies = {"4 kB text": {"length": 4000}, **{file.name: {"file": file} for file in (page, *arguments.file)}}
        sink = Process(command, postfix.environment, Path(directory) / "sink")
        try:
            wait_for_port(port, sink)
            cache = ROOT / ".cache" / "consentry"
            with Running(Path(directory), port, cache=cache, workers=arguments.workers).wait_ready() as relay:
                ports = {"direct": port, "relay": relay.address("smtp")[1]}
                for what, body in bodies.items():
                    ways = {name: functools.partial(rate, at, arguments, body) for name, at in ports.items()}
                    measure(what, ways, arguments.runs)
        finally:
            sink.stop()


if __name__ == "__main__":
    main()

"""What counting costs: messages a second through two relays that differ in it alone, side by side on this machine.

    bench_metrics.py [--messages N] [--sessions N] [--runs N] [--workers N]

One relay counts as ever. The other is the same program, in whose workers this benchmark has put functions that do
nothing in the place of all that counts; that is no setting. They take turns, a pair of runs each time, each pair in
the other order than the one before. Prints median, least and most of both, and what counting costs: the median of the
pairs, with its quartiles. Processor time of the workers for a message is less moved by what else the machine does.
Each message is 4 kB of text to one recipient, between smtp-source and smtp-sink.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import parts, running
from support.processes import Process, free_port, wait_for_port
from support.running import Running
from support.source import smtp_source

ROOT = Path(__file__).parents[2]
LENGTH = 4000
# Python runs it at the start of each process; workers are those that have a directory for their counts.
STAND_IN = """
import contextlib, os
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    from prometheus_client import Counter, Gauge, Histogram
    from filter import quick_counts
    from filter.metrics import Metrics
    def nothing(*_, **__): pass
    for made in (Counter, Gauge, Histogram): made.inc = made.set = made.observe = nothing
    still = contextlib.nullcontext()
    Histogram.time = lambda _: still
    quick_counts.counter = quick_counts.histogram = lambda _: nothing
    Metrics.finished = Metrics.taken = Metrics.decided = nothing
"""


@contextlib.contextmanager
def relay(directory: Path, sink: int, workers: int, *, counting: bool) -> Iterator[Running]:
    """A relay, ready."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text("" if counting else STAND_IN)
    usual = running.environment
    running.environment = lambda: {**usual(), "PYTHONPATH": str(directory)}
    try:
        started = Running(directory, sink, cache=ROOT / ".cache" / "consentry", workers=workers)
    finally:
        running.environment = usual
    with started:
        yield started.wait_ready()


class Run(NamedTuple):
    """Messages a second from first connection to last reply, and processor time of the workers for each, in us."""

    rate: float
    spent: float


def spent(one: Running) -> float:
    """Seconds of processor time that the workers of a relay have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in one.worker_pids()]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def measure(one: Running, arguments: argparse.Namespace) -> Run:
    """Send messages through a relay."""
    port, before, count = one.address("smtp")[1], spent(one), arguments.messages
    started = time.monotonic()
    done = smtp_source(port, "-N", messages=count, sessions=arguments.sessions, length=LENGTH, seconds=600)
    if done.code:
        sys.exit(f"port {port}: {done.output}")
    return Run(count / (time.monotonic() - started), 1e6 * (spent(one) - before) / count)


def compare(counting: Running, still: Running, arguments: argparse.Namespace) -> None:
    """Measure in turns, and print."""
    for one in (counting, still):  # caches, connections
        measure(one, arguments)
    ways = (counting, still)
    found: tuple[list[Run], list[Run]] = ([], [])
    for number in range(arguments.runs):
        for way in (0, 1) if number % 2 else (1, 0):
            found[way].append(measure(ways[way], arguments))
    for name, runs in zip(("counting", "not counting"), found, strict=True):
        rates = [run.rate for run in runs]
        used = statistics.median(run.spent for run in runs)
        middle, least, most = statistics.median(rates), min(rates), max(rates)
        print(f"{name:14} {middle:6.0f}/s  ({least:.0f}-{most:.0f})  {used:5.0f} us of processor time a message")
    pairs = list(zip(*found, strict=True))
    show("throughput", [1 - one.rate / other.rate for one, other in pairs])
    show("processor time", [one.spent / other.spent - 1 for one, other in pairs])
    sent = arguments.messages * (arguments.runs + 1)
    if (counting.counter("accepted"), still.counter("accepted")) != (sent, 0):
        sys.exit("the one did not count every message, or the other counted one")


def show(what: str, costs: Sequence[float]) -> None:
    """Print the median of the pairs."""
    low, middle, high = statistics.quantiles(costs, n=4) if len(costs) > 1 else [*costs] * 3
    print(f"counting costs {middle:.1%} of {what} (quartiles of {len(costs)} pairs: {low:.1%} to {high:.1%})")


def main() -> None:
    """Read the arguments, start a sink and both relays, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    postfix, port = parts.find("postfix"), free_port()
    owner = ["-u", "root"] if parts.is_root() else []
    command = [postfix.program("smtp-sink"), *owner, f"127.0.0.1:{port}", "1024"]
    with tempfile.TemporaryDirectory(prefix="metrics-") as name:
        home = Path(name)
        with Process(command, postfix.environment, home / "sink") as sink:
            wait_for_port(port, sink)
            with (
                relay(home / "counting", port, arguments.workers, counting=True) as counting,
                relay(home / "still", port, arguments.workers, counting=False) as still,
            ):
                compare(counting, still, arguments)


if __name__ == "__main__":
    main()

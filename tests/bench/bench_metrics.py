"""What counting costs: messages a second through a relay that counts, and through the same that does not for a while.

    bench_metrics.py [--seconds S] [--window S] [--sessions N]

In the worker of the relay this benchmark has put a switch before all that counts, a place in a file; that is no
setting. While mail comes as fast as it goes, the switch is turned after each window: a pair of windows of S seconds
each time, each pair in the other order than the one before. So what else the machine does meets both, and both
are the same process, for two processes of one program differ by more than counting costs. Prints messages a second and
the worker's processor time for each message, over all windows of a kind; and what counting costs: how much more of
either all counting windows took, and the range in which 95 of 100 such measurements would be, were as many pairs drawn
from these again. Each message is 4 kB of text to one recipient, between smtp-source and smtp-sink.
"""

import argparse
import contextlib
import mmap
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import parts, running
from support.processes import Process, free_port, wait_for_port
from support.running import Running

from filter import quick_counts

ROOT = Path(__file__).parents[2]
LENGTH = 4000
MOST = 10_000  # messages a second, more than ever come through
# Python runs it at the start of each process; workers are those that have a directory for their counts.
SWITCH = """
import contextlib, mmap, os
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    from prometheus_client import Counter, Gauge, Histogram
    from filter import quick_counts
    from filter.metrics import Metrics
    with open(os.path.join(os.path.dirname(__file__), "switch"), "r+b") as file:
        switch = memoryview(mmap.mmap(file.fileno(), 16)).cast("q")
    def switched(count):
        return lambda *args, **named: count(*args, **named) if switch[1] else None
    for made, names in (
        (Counter, ["inc"]), (Gauge, ["set"]), (Histogram, ["observe"]), (Metrics, ["finished", "taken", "decided"])
    ):
        for name in names:
            setattr(made, name, switched(getattr(made, name)))
    note = quick_counts.Gathered._note
    quick_counts.Gathered._note = lambda *args: switched(note(*args))
    still, timed = contextlib.nullcontext(), Histogram.time
    Histogram.time = lambda self: timed(self) if switch[1] else still
    messages, finished = 0, Metrics.finished
    def told(*args):
        global messages
        messages += 1
        switch[0] = messages
        finished(*args)
    Metrics.finished = told
"""


class Switch:
    """The file between the benchmark and the worker: how many messages were answered, and whether it is to count."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._shared = memoryview(mmap.mmap(file.fileno(), 16)).cast("q")

    @property
    def messages(self) -> int:
        """How many were answered."""
        return self._shared[0]

    def turn(self, *, counting: bool) -> None:
        """Let the worker count, or not."""
        self._shared[1] = counting


class Window(NamedTuple):
    """Sums over some time: messages, seconds, and seconds of the worker's processor time."""

    messages: float = 0
    seconds: float = 0
    spent: float = 0

    def plus(self, other: "Window") -> "Window":
        """Both together."""
        return Window(*[mine + its for mine, its in zip(self, other, strict=True)])

    @property
    def period(self) -> float:
        """Microseconds a message."""
        return 1e6 * self.seconds / self.messages

    @property
    def work(self) -> float:
        """Microseconds of processor time a message."""
        return 1e6 * self.spent / self.messages


Pair = tuple[Window, Window]  # counting, not counting


@contextlib.contextmanager
def relay(directory: Path, sink: int) -> Iterator[tuple[Running, Switch]]:
    """A relay of one worker with the switch, ready and counting."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(SWITCH)
    switch = Switch(directory / "switch")
    switch.turn(counting=True)
    usual = running.environment
    running.environment = lambda: {**usual(), "PYTHONPATH": str(directory)}
    try:
        started = Running(directory, sink, cache=ROOT / ".cache" / "consentry", workers=1)
    finally:
        running.environment = usual
    with started:
        yield started.wait_ready(), switch


def spent(one: Running) -> float:
    """Seconds of processor time that the worker of a relay has used."""
    tasks = [task for pid in one.worker_pids() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def now(one: Running, switch: Switch) -> Window:
    """Everything until now."""
    return Window(switch.messages, time.monotonic(), spent(one))


def windows(one: Running, switch: Switch, seconds: float, window: float) -> list[Pair]:
    """Measure both in turns."""
    pairs = []
    for number in range(int(seconds / window / 2)):
        found = {}
        for counting in (True, False) if number % 2 else (False, True):
            switch.turn(counting=counting)
            time.sleep(2 * quick_counts.MOMENT)  # until what was gathered before is counted
            begin = now(one, switch)
            time.sleep(window)
            found[counting] = Window(*[at - before for at, before in zip(now(one, switch), begin, strict=True)])
        pairs.append((found[True], found[False]))
    return pairs


def check(one: Running, switch: Switch) -> None:
    """Exit unless the worker counts when it is to, and only then."""
    for counting in (False, True):
        switch.turn(counting=counting)
        counted, came = one.counter("accepted"), switch.messages
        time.sleep(2)
        counted, came = one.counter("accepted") - counted, switch.messages - came
        if counted if not counting else counted < came / 2:
            sys.exit(f"of {came} messages {counted:g} were counted while that was {'on' if counting else 'off'}")


def show(pairs: Sequence[Pair]) -> None:
    """Print what was measured."""
    for name, all_of in zip(("counting", "not counting"), total(pairs), strict=True):
        print(f"{name:14} {1e6 / all_of.period:6.0f}/s  {all_of.work:5.0f} us of processor time a message")
    show_cost("throughput", pairs, lambda counting, still: 1 - still.period / counting.period)
    show_cost("processor time", pairs, lambda counting, still: counting.work / still.work - 1)


def total(pairs: Sequence[Pair]) -> Pair:
    """All windows of either kind together."""
    counting, still = Window(), Window()
    for one, other in pairs:
        counting, still = counting.plus(one), still.plus(other)
    return counting, still


def show_cost(what: str, pairs: Sequence[Pair], cost: Callable[[Window, Window], float]) -> None:
    """Print what counting costs, and how sure that is."""
    draw = random.Random(1)
    again = sorted(cost(*total(draw.choices(pairs, k=len(pairs)))) for _ in range(1000))
    print(f"counting costs {cost(*total(pairs)):.1%} of {what} (95 %: {again[25]:.1%} to {again[-26]:.1%})")


def main() -> None:
    """Read the arguments, start a sink, a relay and a source, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--window", type=float, default=0.4)
    parser.add_argument("--sessions", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.seconds < 10 * arguments.window:
        parser.error("--seconds: at least ten windows")
    postfix, port = parts.find("postfix"), free_port()
    owner = ["-u", "root"] if parts.is_root() else []
    sink_command = [postfix.program("smtp-sink"), *owner, f"127.0.0.1:{port}", "1024"]
    with tempfile.TemporaryDirectory(prefix="metrics-") as name:
        home = Path(name)
        with Process(sink_command, postfix.environment, home / "sink") as sink:
            wait_for_port(port, sink)
            with relay(home / "relay", port) as (one, switch):
                most = str(int(MOST * arguments.seconds))
                source = [postfix.program("smtp-source"), "-d", "-N", "-m", most, "-s", str(arguments.sessions)]
                source += ["-l", str(LENGTH), "-f", "news@bank.example", "-t", "alex@customer.example"]
                source += [f"127.0.0.1:{one.address('smtp')[1]}"]
                with Process(source, postfix.environment, home / "source") as client:
                    time.sleep(5)  # caches, connections
                    check(one, switch)
                    pairs = windows(one, switch, arguments.seconds, arguments.window)
                    if client.ended:
                        sys.exit("smtp-source ended early")
    show(pairs)


if __name__ == "__main__":
    main()

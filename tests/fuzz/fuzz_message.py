"""Feed mutated and hostile messages to `parse_message`: fuzz_message.py [COUNT] [--seed N] [--judge] [--atheris].

Exits 1 when a message needed the last-resort guard or took more than 100 ms of CPU; prints the slowest and peak memory.
With --judge each message is also classified by the shipped rules.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from unit.hostile import CASES, mutations

from filter.app import user_cache
from filter.classify import Classifier
from filter.message import DefectCode, Message, parse_message
from filter.rule_files import load_rules

LIMIT = 0.1
"""Seconds of CPU that one message may take."""


def messages(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Every hostile case, then the mutations."""
    for name, build in CASES.items():
        yield name, build()
    for number, octets in enumerate(mutations(count, seed)):
        yield f"mutation {number} of seed {seed}", octets


def cost(octets: bytes, judge: Callable[[Message], object]) -> tuple[float, bool]:
    """CPU seconds for one message (the better of two when slow: others use the machine too), and whether it failed."""
    best, failed = LIMIT * 100, False
    for _ in range(2):
        start = time.process_time()
        message = parse_message(octets)
        judge(message)
        best = min(best, time.process_time() - start)
        failed = any(defect.code is DefectCode.INTERNAL for defect in message.defects)
        if best < LIMIT / 2:
            break
    return best, failed


def run(count: int, seed: int, judge: Callable[[Message], object]) -> int:
    """Read every message, and do with it what `judge` does; 1 when one failed or was slow."""
    parse_message(b"Content-Type: text/html\n\n<p hidden>warm")
    results: list[tuple[float, bool, str]] = []
    for name, octets in messages(count, seed):
        results.append((*cost(octets, judge), name))
    bad = [result for result in results if result[1] or result[0] > LIMIT]
    for seconds, failed, name in sorted(results, reverse=True)[:10]:
        print(f"{seconds * 1e3:8.1f} ms {'FAILED ' if failed else ''}{name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{len(results)} messages, {len(bad)} over {LIMIT * 1e3:.0f} ms or failed, peak memory {peak} MB")
    return 1 if bad else 0


def endless() -> None:
    """Coverage-guided, until it finds something."""
    import atheris  # noqa: PLC0415 - optional, and heavy

    def one(octets: bytes) -> None:
        message = parse_message(octets)
        if any(defect.code is DefectCode.INTERNAL for defect in message.defects):
            raise AssertionError(message.defects)

    atheris.instrument_all()
    atheris.Setup(sys.argv[:1], one)
    atheris.Fuzz()


def main() -> int:
    """Run as the options say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge", action="store_true", help="classify each message too")
    parser.add_argument("--atheris", action="store_true", help="coverage-guided, endless")
    options = parser.parse_args()
    if options.atheris:
        endless()
    judge = Classifier(load_rules(cache=user_cache())).classify if options.judge else lambda _message: None
    return run(options.count, options.seed, judge)


if __name__ == "__main__":
    sys.exit(main())

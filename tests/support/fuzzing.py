"""The command line of a fuzzer: COUNT mutated inputs of a seed, or coverage-guided ones for as long as it is left."""

import argparse
import random
import sys
from collections.abc import Callable


def fuzz(text: str, one_input: Callable[[bytes], None], mutated: Callable[[random.Random], bytes], count: int) -> int:
    """Run with the arguments of the command line, `text` is their help; how many inputs there were.

    `count` inputs unless said otherwise. The first one that fails is printed, and its error passes through.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("count", type=int, nargs="?", default=count)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    options, further = parser.parse_known_args()
    if options.atheris:
        import atheris  # noqa: PLC0415 - not needed, and not installed, for the plain run

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *further], one_input)
        atheris.Fuzz()
    chance = random.Random(options.seed)
    for number in range(options.count):
        octets = mutated(chance)
        try:
            one_input(octets)
        except Exception:
            print(f"input {number} of seed {options.seed}: {octets!r}", file=sys.stderr)
            raise
    return int(options.count)

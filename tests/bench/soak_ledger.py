"""Kill the relay, or a part of it, again and again under load, and audit the ledger of it all (E4).

    .venv/bin/python tests/bench/soak_ledger.py [ROUNDS] [SEED]

100 rounds of two kills take some ten minutes. The seed decides what is sent, when and what is killed; what is under
way at that moment is chance, so a seed does not repeat a run. Prints a line for each round and what it found at the
end, and exits with 1 if anything is wrong; then the directory with hold store, journal and logs stays.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.kills import rounds  # noqa: E402 - found through the line above


def main(number: int = 100, seed: int | None = None) -> int:
    """Run and report; the exit status."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {seed}", flush=True)
    found = rounds(directory, ROOT / ".cache" / "consentry", number, seed, tell=lambda line: print(line, flush=True))
    for sentence in found.wrong:
        print(sentence)
    if found.wrong:
        print(f"kept: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""Measure the consent index: load, size on disk, look-ups, memory.

    .venv/bin/python tests/bench/bench_consent.py [--records 10000000] [--lookups 300000] [--dir DIR]

Writes a CSV file of typical records (grants, soft opt-ins with an order number, some opt-outs; one event per address),
imports it through the public function, and looks up addresses in random order, every tenth of them unknown.
"""

import argparse
import hashlib
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from filter.address import SubjectKeyer
from filter.consent import Scope
from filter.consent_import import import_file
from filter.consent_store import ConsentStore

NOW = 1_790_000_000_000
HEADER = (
    "address,kind,channel,controller,brand,topic,source,method,affirmative,conditional,wording_id,wording_sha256,"
    "collector,refusal_offered,grade,event_time,transaction_ref"
)
WORDING = hashlib.sha256(b"wording").hexdigest()
GRANT = f"grant,email,shop,shop,offers,shop.example/join,web form,true,false,join-7,{WORDING},,,A"
SOFT = f"soft_opt_in,email,shop,shop,offers,shop.example/checkout,web form,,,checkout-3,{WORDING},shop,true,B"
OBJECT = "object,email,shop,,,preference centre,,,,,,,,"


def address(number: int) -> str:
    """A typical address: 20 to 35 octets, distinct per number."""
    return f"person.{number}@mail{number % 997}.example"


def row(number: int) -> str:
    """Six in ten grants, three soft opt-ins, one opt-out."""
    made = 1_760_000_000_000 + number * 1_997 % 20_000_000_000
    terms = SOFT if number % 10 in (3, 6, 9) else OBJECT if number % 10 == 5 else GRANT
    reference = f"ORD-{number:08}" if terms is SOFT else ""
    return f"{address(number)},{terms},{made},{reference}\n"


def write_file(path: Path, records: int) -> None:
    """The file to import."""
    with path.open("w") as file:
        file.write(HEADER + "\n")
        file.writelines(row(number) for number in range(records))


def measure_lookups(store: ConsentStore, records: int, lookups: int) -> None:
    """Look-ups a second through the public function: normalise, key, read, merge."""
    scope = Scope("email", "shop", "shop", "offers")
    chosen = [address(random.randrange(records * 10 // 9)) for _ in range(lookups)]
    states: dict[str, int] = {}
    for attempt in ("cold", "warm"):
        states.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        for one in chosen:
            state = store.lookup(one, scope, NOW).state
            states[state] = states.get(state, 0) + 1
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"look-ups ({attempt}):   {lookups / wall:12,.0f} a second ({lookups / cpu:,.0f} a second of processor)")
    print(f"states:            {states}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--lookups", type=int, default=300_000)
    parser.add_argument("--dir", type=Path, default=None, help="where to put file and index (default: temporary)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        path = Path(scratch, "records.csv")
        write_file(path, options.records)
        print(f"file:              {options.records:12,} records, {path.stat().st_size:,} octets")
        with ConsentStore(Path(scratch, "index"), SubjectKeyer(b"benchmark key 16"), readonly=False) as store:
            wall, cpu = time.perf_counter(), time.process_time()
            report = import_file(store, path, now=NOW)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            assert report.accepted == options.records, report
            print(
                f"load:              {options.records / wall:12,.0f} a second ({wall:.1f} s; {cpu:.1f} s of processor)"
            )
            stats = store.stats()
            print(f"on disk:           {stats.octets / stats.records:12.1f} octets a record ({stats.octets:,})")
            print(f"peak memory, load: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:12,.0f} MiB")
            measure_lookups(store, options.records, options.lookups)


if __name__ == "__main__":
    main()

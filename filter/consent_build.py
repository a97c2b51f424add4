"""Loading many records at once: sorted runs on disk, then one pass in key order.

Records are spread over buckets by the first bits of their subject key (a hash, so buckets are even), spilt to temporary
files when memory fills, and written bucket by bucket in key order. A large load builds a fresh index file beside the
old one, which fills its pages completely and disturbs no reader; a small one is a single transaction on the old file.
Either way all records are in the index, or none. Memory: `SPILL_AT` records and one bucket.

A record here is: wide subject key (16), local template number (3), rest of the record (consent_codec).
"""

import marshal
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from .address import Subject
from .consent_codec import Templates
from .consent_index import ConsentIndex, Tally
from .evidence import ConsentEvent

BUCKET_BITS: Final = 6
BUCKETS: Final = 1 << BUCKET_BITS
BUCKET_SHIFT: Final = 8 - BUCKET_BITS
SPILL_AT: Final = 1_000_000  # records in memory
KEY: Final = 16
HEAD: Final = KEY + 3


class Runs:
    """Records on their way into an index. A context manager: temporary files go with it."""

    def __init__(self, directory: Path) -> None:
        self.templates = Templates()
        self.buckets: list[list[bytes]] = [[] for _ in range(BUCKETS)]
        self.total = 0
        self._parent = directory
        self._directory: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def add(self, record: bytes) -> None:
        """Take one record."""
        self.buckets[record[0] >> BUCKET_SHIFT].append(record)
        self.total += 1
        if self.total % SPILL_AT == 0:
            self._spill()

    def events(self, key_id: str) -> Iterator[tuple[Subject, ConsentEvent]]:
        """Every record as the event it was made of, by subject. One that came without an identity has none."""
        for bucket in range(BUCKETS):
            for record in sorted(self._read(bucket)):
                template = self.templates[int.from_bytes(record[KEY:HEAD])]
                exact, event = template.decode(record, KEY, len(record), record[:KEY])
                subject = Subject(exact, record[:KEY], key_id)
                yield subject, event if template.has_id else event._replace(id="")

    def groups(self, bucket: int, numbers: dict[bytes, bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
        """The records of a bucket by subject, in key order, with template numbers replaced by those in `numbers`."""
        group: list[bytes] = []
        last = b""
        for record in sorted(self._read(bucket)):
            numbered = numbers[record[KEY:HEAD]] + record[HEAD:]
            if record.startswith(last) and group:
                group.append(numbered)
                continue
            if group:
                yield last, group
            last = record[:KEY]
            group = [numbered]
        if group:
            yield last, group

    def _read(self, bucket: int) -> list[bytes]:
        records = list(self.buckets[bucket])
        if self._directory is not None:
            with (self._directory / str(bucket)).open("rb") as file:
                while True:
                    try:
                        records += marshal.load(file)  # noqa: S302 - written by this process, into a private directory
                    except EOFError:
                        break
        return records

    def _spill(self) -> None:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=".import-", dir=self._parent))
        for bucket, records in enumerate(self.buckets):
            with (self._directory / str(bucket)).open("ab") as file:
                marshal.dump(records, file)
            records.clear()


def add_in_place(index: ConsentIndex, runs: Runs, received_at: int, batch: dict[str, Any] | None) -> Tally:
    """Add all runs to `index` in one transaction."""

    def work(txn: Any) -> Tally:
        tally = Tally()
        numbers = _numbers(index, runs)
        for bucket in range(BUCKETS):
            for key, records in runs.groups(bucket, numbers):
                index.put(txn, key, records, tally)
        index.add_figures(txn, tally, received_at, batch)
        return tally

    return index.write(work)


def build(new: ConsentIndex, old: ConsentIndex, runs: Runs, received_at: int, batch: dict[str, Any] | None) -> Tally:
    """Fill the empty index `new` with everything in `old` and all runs."""
    snapshot = old.begin()
    old.load_templates(snapshot)
    numbers: dict[bytes, bytes] = {}
    tally = Tally()

    def begin(txn: Any) -> None:
        for number in range(len(old.templates)):
            new.templates.number(old.templates[number])
        numbers.update(_numbers(new, runs))
        new.copy_meta(txn, old, snapshot)

    new.write(begin)
    for bucket in range(BUCKETS):
        old_values = dict(old.items(snapshot, *_bounds(bucket)))
        values = _merged(new, old_values, runs.groups(bucket, numbers), tally)
        new.write(partial(new.append, items=values))
    new.write(partial(new.add_figures, tally=tally, received_at=received_at, batch=batch))
    return tally


def _bounds(bucket: int) -> tuple[bytes, bytes]:
    """The first key of a bucket and the first beyond it."""
    first = bytes((bucket << BUCKET_SHIFT,))
    return first, bytes(((bucket + 1) << BUCKET_SHIFT,)) if bucket + 1 < BUCKETS else b"\xff" * (KEY + 1)


def _merged(
    new: ConsentIndex, values: dict[bytes, bytes], groups: Iterator[tuple[bytes, list[bytes]]], tally: Tally
) -> list[tuple[bytes, bytes]]:
    """The values of one bucket with new records added, in key order."""
    if not values:
        return [(key, new.merge(None, records, tally)) for key, records in groups]
    for key, records in groups:
        values[key] = new.merge(values.get(key), records, tally)
    return sorted(values.items())


def _numbers(index: ConsentIndex, runs: Runs) -> dict[bytes, bytes]:
    """Local template numbers -> those of `index`, as octets."""
    local = runs.templates
    return {n.to_bytes(3, "big"): index.templates.number(local[n]).to_bytes(3, "big") for n in range(len(local))}

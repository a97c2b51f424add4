"""Counters and histograms of the library, counted in a fraction of its time; for the few that every message touches.

The library takes a lock, looks whether the process was forked and looks the value up, each time. Here the place of a
value in the file of the process is looked up once. So a value counted here must be counted by one thread alone, and by
nobody else, in a process that does not fork. Where a process counts for itself the library counts. Raises nothing.
"""

from bisect import bisect_left
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from prometheus_client import Counter, Histogram

Add = Callable[[float], None]

_pack: Final = Struct("d").pack_into  # as the library writes the value; the time stamp behind it stays 0


def counter(metric: Counter) -> Add:
    """What adds to a counter, which must have its labels."""
    value: Any = metric
    return _adder(value._value)  # noqa: SLF001 - the library has no other way to a value


def histogram(metric: Histogram) -> Add:
    """What observes a value for a histogram, which must have its labels."""
    parts: Any = metric
    bounds = list(parts._upper_bounds)  # noqa: SLF001 - see above
    total, buckets = _adder(parts._sum), [_adder(bucket) for bucket in parts._buckets]  # noqa: SLF001 - see above

    def observe(value: float) -> None:
        buckets[bisect_left(bounds, value)](1.0)
        total(value)

    return observe


def _adder(value: Any) -> Add:
    file = getattr(value, "_file", None)
    if file is None:
        add: Add = value.inc
        return add
    # When the file grows it is mapped anew; the mapping that we hold goes on to be the same memory.
    memory, place, total = file._m, file._positions[value._key], value.get()  # noqa: SLF001 - see above

    def plus(amount: float) -> None:
        nonlocal total
        total += amount
        _pack(memory, place, total)

    return plus

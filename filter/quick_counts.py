"""Counters and histograms of the library, counted in a fraction of its time; for the few that every message touches.

The library takes a lock, looks whether the process was forked and looks the value up, each time. Here the place of a
value in the file of the process is looked up once. So a value counted here must be counted by one thread alone, and by
nobody else, in a process that does not fork. A value is written by one store of eight octets, so that who reads the
file meanwhile reads it as it was or as it is. Where a process counts for itself the library counts. Raises nothing.

Counting beside each message costs several times what it costs alone, for judging drives all it needs out of the
processor's caches. So `Gathered` notes what is to be counted, and counts what came in a moment together.
"""

import atexit
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from prometheus_client import Counter, Histogram

Add = Callable[[float], None]
Note = Callable[[Any], None]
Later = Callable[[float, Callable[[], None]], object]  # has a function called in some seconds

MOMENT: Final = 0.05  # seconds; a process that is killed has not counted what it noted in so many


class Gathered:
    """What was noted and is not counted yet, at the latest when the process ends; without a `later` all is counted at
    once.
    """

    def __init__(self, later: Later | None) -> None:
        self._later = later
        if later is not None:
            atexit.register(self.flush)
        self._due = False
        self._noted: list[tuple[list[Any], Callable[[Sequence[Any]], None]]] = []

    def each(self, count: Callable[[Any, int], None]) -> Callable[[Hashable], None]:
        """What notes one of several things; `count` is given each of them with how often it came."""

        def count_all(things: Sequence[Any]) -> None:
            for thing, times in Tally(things).items():
                count(thing, times)

        return self._note(count_all)

    def times(self, metric: Histogram) -> Note:
        """What notes a value for a histogram, which must have its labels."""
        return self._note(histogram(metric))

    def _note(self, count_all: Callable[[Sequence[Any]], None]) -> Note:
        if self._later is None:
            return lambda thing: count_all([thing])
        noted: list[Any] = []
        self._noted.append((noted, count_all))
        return noted.append

    def soon(self) -> None:
        """See that what was noted is counted in a moment."""
        if not self._due and self._later is not None:
            self._due = True
            self._later(MOMENT, self.flush)

    def flush(self) -> None:
        """Count what was noted."""
        self._due = False
        for noted, count_all in self._noted:
            if noted:
                things = noted.copy()
                noted.clear()
                count_all(things)


def counter(metric: Counter) -> Add:
    """What adds to a counter, which must have its labels."""
    value: Any = metric
    return _adder(value._value)  # noqa: SLF001 - the library has no other way to a value


def histogram(metric: Histogram) -> Callable[[Sequence[float]], None]:
    """What observes values for a histogram, which must have its labels."""
    parts: Any = metric
    bounds = list(parts._upper_bounds)  # noqa: SLF001 - see above
    total, buckets = _adder(parts._sum), [_adder(bucket) for bucket in parts._buckets]  # noqa: SLF001 - see above

    def observe(values: Sequence[float]) -> None:
        for place, times in Tally([bisect_left(bounds, value) for value in values]).items():
            buckets[place](times)
        total(sum(values))

    return observe


def _adder(value: Any) -> Add:
    file = getattr(value, "_file", None)
    if file is None:
        add: Add = value.inc
        return add
    # When the file grows it is mapped anew; the mapping that we hold goes on to be the same memory.
    # `struct` would write zeros first: whoever read those would take the counter for a new one.
    cells, octet = memoryview(file._m).cast("d"), file._positions[value._key]  # noqa: SLF001 - see above
    place, total = octet // cells.itemsize, value.get()

    def plus(amount: float) -> None:
        nonlocal total
        total += amount
        cells[place] = total

    return plus

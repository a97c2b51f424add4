"""A wall clock that does not run ahead of the time that passes: what deletes mail by its age must not believe a jump.

The wall clock may be set forward, by hand, by a network or by a broken battery; that alone makes no mail old. A jump
forward that this process saw is left out for as long as it lives, so that nothing happens too early, only too late. A
process that has just started has seen nothing, and knows no time until it has watched the clock for a while. Backward
is followed at once. `wall` gives epoch milliseconds, `monotonic` seconds. Never raises.
"""

from collections.abc import Callable
from typing import Final

WATCH: Final = 3600.0
"""Seconds for which the clock is watched before it is believed."""
_DRIFT: Final = 1.001  # how much quicker than time a clock that is being put right may run


class SteadyClock:
    """Gives the time that may be relied on, when asked often: every few minutes."""

    def __init__(self, wall: Callable[[], int], monotonic: Callable[[], float], *, watch: float = WATCH) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._watch = watch
        self._started = self._seen = monotonic()
        self._time = float(wall())

    def now(self) -> int | None:
        """Epoch milliseconds, never ahead of the wall clock; None while the clock is not known well enough."""
        seen = self._monotonic()
        passed = (seen - self._seen) * 1000 * _DRIFT
        self._seen = seen
        self._time = min(float(self._wall()), self._time + passed)
        return int(self._time) if seen - self._started >= self._watch else None

    def age(self, since: int) -> float:
        """Seconds from then (epoch milliseconds) on, by the time that this process has seen pass."""
        return max(self._time - since, 0.0) / 1000

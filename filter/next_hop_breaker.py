"""When a host is left alone: after so many failures in a row it is not tried for a while, then by one at a time.

Pure but for the clock it is given; never raises.
"""

from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """What the breaker of a host lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing
    HALF_OPEN = "half_open"  # one attempt, which decides


class Breaker:
    """Opens after `failures` failures in a row for `pause` seconds; then one attempt decides how it goes on.

    Who was admitted must report one of `succeeded`, `failed`, `gave_up`.
    """

    __slots__ = ("_clock", "_failures", "_in_a_row", "_open_until", "_pause", "_trying")

    def __init__(self, failures: int, pause: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._pause = pause
        self._clock = clock
        self._in_a_row = 0
        self._open_until: float | None = None
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """As it is now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    def admit(self) -> bool:
        """Whether to try this host now."""
        state = self.state
        if state is BreakerState.HALF_OPEN and not self._trying:
            self._trying = True
            return True
        return state is BreakerState.CLOSED

    def succeeded(self) -> bool:
        """The host works; whether this closed the breaker."""
        closed = self._open_until is not None
        self._in_a_row = 0
        self._open_until = None
        self._trying = False
        return closed

    def failed(self) -> bool:
        """The host does not work; whether this opened the breaker (also: again)."""
        self._in_a_row += 1
        self._trying = False
        if self._in_a_row < self._failures:
            return False
        opened = self.state is not BreakerState.OPEN
        if opened:
            self._open_until = self._clock() + self._pause
        return opened

    def gave_up(self) -> None:
        """The attempt ended without a finding, such as by a client that left."""
        self._trying = False

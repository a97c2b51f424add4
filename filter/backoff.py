"""When a worker that ended is started again: at once, then ever later, and at once again after a quiet minute.

Pure: the time is an argument (seconds of any clock that does not go back). Never raises.
"""

from dataclasses import dataclass
from typing import Final

FIRST: Final = 0.1  # seconds
LONGEST: Final = 30.0
QUIET: Final = 60.0  # seconds of life after which a worker's end is nothing to worry about


@dataclass(slots=True)
class Backoff:
    """The pause before the next start; doubles with each life that was short."""

    first: float = FIRST
    longest: float = LONGEST
    quiet: float = QUIET
    _next: float = 0.0

    def pause(self, lived: float) -> float:
        """Seconds to wait after a worker that lived for `lived` seconds."""
        if lived >= self.quiet or not self._next:
            self._next = self.first
        pause = self._next
        self._next = min(pause * 2, self.longest)
        return pause

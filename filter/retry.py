"""When a released copy that could not be delivered is tried again, and when that is given up.

Pure: times are epoch milliseconds and arguments. Never raises.
"""

from dataclasses import dataclass

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The pause after an attempt doubles from `first` up to `longest`; after `give_up` there is no other.

    Five days and pauses up to hours are what RFC 5321 section 4.5.4.1 asks for. All in milliseconds.
    """

    first: int = MINUTE
    longest: int = 4 * HOUR
    give_up: int = 5 * DAY

    def pause(self, attempts: int) -> int:
        """How long to wait after an attempt, of which there were so many before."""
        return min(self.first << min(attempts, 40), self.longest)

    def over(self, attempts: int, released_at: int, at: int) -> bool:
        """Whether another attempt is not worth it, after so many before.

        A clock that jumps, or a machine that was off, is no reason: half of the attempts must have been made.
        """
        return at - released_at >= self.give_up and 2 * (attempts + 1) >= self._planned()

    def _planned(self) -> int:
        """How many attempts there are until it is given up."""
        attempts, waited = 1, 0
        while waited + (pause := self.pause(attempts - 1)) < self.give_up:
            if pause == self.longest:
                return attempts + (self.give_up - waited) // pause
            attempts, waited = attempts + 1, waited + pause
        return attempts

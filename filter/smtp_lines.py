"""Input of a session as lines or as octets, within bounds, however it was cut on the way. Pure.

Lines end in CRLF and in nothing else. `line` raises LineError for a line that is none.
"""

from .envelope import MAX_LINE


class LineError(Exception):
    """Base of what is wrong with a line."""


class LineTooLongError(LineError):
    """A line over the limit has come to its end; it was thrown away as it came."""


class BareLineFeedError(LineError):
    """There is a LF without CR; the CRLF it stands for would be waited for in vain."""


class Input:
    """What a client sent and nobody used so far. `limit` is the octets of a line with its CRLF, and may be changed."""

    __slots__ = ("_at", "_discarding", "_octets", "limit")

    def __init__(self) -> None:
        self.limit = MAX_LINE
        self._octets = b""
        self._at = 0  # where reading goes on
        self._discarding = False  # within the rest of an over-long line

    def __len__(self) -> int:
        return len(self._octets) - self._at

    def add(self, octets: bytes) -> None:
        """Take what came."""
        self._octets = self._octets[self._at :] + octets if self._at < len(self._octets) else octets
        self._at = 0

    def line(self) -> bytes | None:
        """The next line without its CRLF; None for more input wanted. Raises LineError."""
        octets, at = self._octets, self._at
        end = octets.find(b"\r\n", at)
        if end < 0:
            self._check_begun()
            return None
        self._at = end + 2
        if self._discarding or end + 2 - at > self.limit:
            self._discarding = False
            raise LineTooLongError
        return octets[at:end]

    def _check_begun(self) -> None:
        """Bound a line whose end has not come."""
        if self._discarding or len(self) >= self.limit:
            self._discarding = True
            self._at = len(self._octets) - self._octets.endswith(b"\r")  # the CR may begin its end
        elif self._octets.find(b"\n", self._at) >= 0:
            raise BareLineFeedError

    def peek(self) -> bytes:
        """All octets there are; they stay."""
        return self._octets[self._at :] if self._at else self._octets

    def skip(self, count: int) -> None:
        """So many octets were used."""
        self._at += count

    def take(self) -> bytes:
        """All octets there are; they are used up."""
        octets = self.peek()
        self._octets, self._at = b"", 0
        return octets

"""Every SMTP reply this program can send: one closed table, and what becomes of a reply of the next hop.

A reply is ASCII, without control characters, in lines of at most 512 octets (RFC 5321 section 4.5.3.1.5), and never
quotes an address, a file or an exception. Codes: RFC 5321 section 4.2; enhanced: RFC 3463, RFC 5248. Never raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SUCCESS: Final = 2
_PERMANENT: Final = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply: `code` 200-599, `enhanced` such as "2.1.0" or empty, `lines` of text (at least one)."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return self.code // 100 == _SUCCESS

    @property
    def permanent(self) -> bool:
        """Whether it is a 5xx."""
        return self.code // 100 == _PERMANENT

    def encode(self) -> bytes:
        """The octets on the wire, CRLF included."""
        raise NotImplementedError


def relayed(code: int, lines: Sequence[bytes]) -> Reply:
    """A reply of the next hop as our client gets it: class kept, text made safe; 451 for what is no reply."""
    raise NotImplementedError

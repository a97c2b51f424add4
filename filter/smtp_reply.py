"""Replies of an SMTP server, read from its octets: no I/O, bounded, indifferent to how the octets were cut.

RFC 5321 section 4.2. `ReplyReader.feed` never raises: after the first thing that is no reply, or is too long, `broken`
says what is wrong, and nothing more is read. Whoever owns the connection then closes it, because it can no longer be
told which reply belongs to which command.
"""

import re
from typing import Final, NamedTuple

# RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real servers put whole explanations there.
MAX_LINE: Final = 16 << 10  # octets of one line
MAX_LINES: Final = 256  # of one reply; EHLO has the longest
MAX_REPLY: Final = 64 << 10  # octets of one reply

SERVICE_CLOSING: Final = 421  # may come at any time, and the connection is closed after it; RFC 5321 section 3.8
_SUCCESS: Final = 2

# The second digit is 0 to 5 in the grammar; codes such as 571 exist and their class is what counts.
_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
# Most octets that arrive are exactly one reply of one line.
_WHOLE: Final = re.compile(rb"([2-5][0-9]{2}) ([^\r\n]{0,512})\r\n").fullmatch


class ServerReply(NamedTuple):
    """A reply as it came: code 200-599 and the text of each line, octets unchecked but without CRLF and LF."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return self.code // 100 == _SUCCESS


class _MalformedError(Exception):
    """What was read is no reply."""


class ReplyReader:
    """Reads the replies of one connection."""

    __slots__ = ("_code", "_lines", "_rest", "_size", "broken")

    def __init__(self) -> None:
        self.broken = ""  # what was wrong with the octets, in words for a log; empty while all is well
        self._rest = b""  # the line that has not ended yet
        self._code = b""  # of the reply whose last line has not come yet
        self._lines: list[bytes] = []
        self._size = 0  # octets of these lines

    @property
    def partial(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._rest or self._lines)

    def feed(self, octets: bytes) -> list[ServerReply]:
        """Take octets as received; the replies that they complete, in order."""
        if not (self._rest or self._lines or self.broken) and (whole := _WHOLE(octets)):
            return [ServerReply(int(whole[1]), (whole[2],))]
        replies: list[ServerReply] = []
        if self.broken:
            return replies
        lines = (self._rest + octets).split(b"\r\n")
        self._rest = lines.pop()
        try:
            for line in lines:
                reply = self._line(line)
                if reply is not None:
                    replies.append(reply)
            if self._rest:
                self._check_rest()
        except _MalformedError as error:
            self.broken = str(error)
            self._rest = b""
            self._lines.clear()
        return replies

    def _line(self, line: bytes) -> ServerReply | None:
        """Take a line; the reply that ends with it."""
        match = _LINE.fullmatch(line)
        if match is None or b"\n" in line or len(line) > MAX_LINE:
            raise _MalformedError("not a reply line")
        code, separator, text = match.groups(default=b"")
        if not self._lines and separator != b"-":
            return ServerReply(int(code), (text,))
        if self._lines and code != self._code:
            raise _MalformedError("lines of one reply with different codes")
        self._code = code
        self._lines.append(text)
        self._size += len(line)
        if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
            raise _MalformedError("reply too long")
        if separator == b"-":
            return None
        reply = ServerReply(int(code), tuple(self._lines))
        self._lines.clear()
        self._size = 0
        return reply

    def _check_rest(self) -> None:
        if len(self._rest) > MAX_LINE:
            raise _MalformedError("line too long")
        if b"\n" in self._rest:
            raise _MalformedError("line feed without carriage return")  # there may never be a CRLF to wait for

"""The message after 354, out of octets as they arrive: its end found, dots un-stuffed, line ends made regular, bounded.

Only CRLF.CRLF ends a message; the first CRLF may be the one of the DATA command, so that ".CRLF" is the empty message.
A dot is taken off where a line begins after CRLF, because there the sender put it (RFC 5321 section 4.5.2). After that
line ends are made regular, as Postfix 3.9 can: bare LF becomes CRLF, bare CR a space, and NUL is taken out. So the
content never holds a bare CR, a bare LF or a NUL, and no end that the next hop sees and we did not: `stuff` makes dots
safe after that, on the way out. What was not regular is told, for those who refuse it.

Everything is done on whole chunks, never line by line in Python. Nothing here raises. Pure; one thread at a time, as
the two Vectorscan databases have one scratch space each.
"""

from typing import Any, Final, NamedTuple

import hyperscan

MAX_LINE: Final = 998  # octets of a line without its CRLF; RFC 5322 section 2.1.1
_END: Final = b"\r\n.\r\n"
_SMALL: Final = 4096  # octets; smaller chunks are joined as they come, since an object for each would outweigh them
_FLAGS: Final = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL


class Data(NamedTuple):
    """A message as received: `content` has CRLF lines, dots un-stuffed, no bare CR or LF, no NUL.

    The flags say what was seen; `too_big` comes with empty content and without the others. The content ends with CRLF
    or is empty, if it comes from a `DataReader`.
    """

    content: bytes
    too_big: bool = False
    bare_cr: bool = False
    bare_lf: bool = False
    nul: bool = False
    eight_bit: bool = False  # octets over 127

    @property
    def long_line(self) -> bool:
        """Whether a line is over 998 octets; looked for when asked, as it takes longer than all the rest."""
        return _has_long_line(self.content)

    @property
    def irregular(self) -> bool:
        """Whether line ends or NULs were made regular: what `bare_line_endings = "reject"` refuses."""
        return self.bare_cr or self.bare_lf or self.nul


def _database(expression: bytes) -> hyperscan.Database:
    database = hyperscan.Database()
    database.compile(expressions=[expression], ids=[0], flags=[_FLAGS])
    return database


# Several times as fast as searching bytes objects; the first is told once, where it ends first.
_DOTS: Final = _database(rb"\r\n\.")
_IRREGULAR: Final = _database(rb"[^\r]\n|\r[^\n]|\x00")


def _found(_id: int, _start: int, end: int, _flags: int, ends: Any) -> None:
    ends.append(end)


class DataReader:
    """Takes octets until the end of one message of at most `limit` octets.

    The limit is that of SIZE (RFC 1870 section 5: without stuffed dots and the end), and holds again for the content
    after line ends were made regular. Once it is passed, what was kept is let go, `too_big` is set and nothing more is
    kept; the end is still looked for, so that the session can go on. The owner may give up when `received` is past
    twice the limit.
    """

    __slots__ = ("_chunks", "_dots", "_limit", "_small", "_surplus", "_tail", "received", "too_big")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._small = bytearray()  # what came after the last of the chunks
        self._surplus = 0  # octets of the end marker that were kept before they were known as such
        self._tail = b"\r\n"  # the last octets, which may be the beginning of the end
        self._dots = 0  # lines that begin with a dot
        self.received = 0  # octets fed so far, with the end marker and without what came after it
        self.too_big = False

    def feed(self, chunk: bytes) -> bytes | None:
        """Take the next octets; None if the message goes on, else what came after its end (b"" for nothing).

        Not to be called again after the end.
        """
        tail = self._tail
        window = tail + chunk
        ends: list[int] = []
        _DOTS.scan(window, match_event_handler=_found, context=ends)
        end = -1
        if ends:
            first = ends[0] - len(b"\r\n.")
            end = window.find(_END, first)
            if end != first:  # lines before the end, if it is here, begin with dots
                self._dots += window.count(b"\r\n.", first, len(window) if end < 0 else end + 2)
            self._dots -= tail.count(b"\r\n.")  # counted with the octets before, or the end
        if end < 0:
            self.received += len(chunk)
            self._tail = window[-4:]
            self._keep(chunk)
            return None
        size = end + 2 - len(tail)  # of the content in this chunk: its last CRLF is the first of the marker
        self.received += size + len(_END) - 2
        self._surplus = max(0, -size)
        self._keep(chunk[: max(0, size)])
        return window[end + len(_END) :]

    def finish(self) -> Data:
        """The message, once `feed` has met its end; lets go of it, so may be called once."""
        if self.too_big:
            return Data(b"", too_big=True)
        if self._small:
            self._chunks.append(bytes(self._small))
        raw = b"".join(self._chunks)
        self._chunks, self._small = [], bytearray()
        if self._surplus:
            raw = raw[: -self._surplus]
        if self._dots:
            raw = raw[raw.startswith(b".") :].replace(b"\r\n.", b"\r\n")
        data = regular(raw)
        if len(data.content) > self._limit:
            self.too_big = True
            return Data(b"", too_big=True)
        return data

    def _keep(self, chunk: bytes) -> None:
        if self.too_big:
            return
        if self.received > self._limit + self._dots + len(_END) - 2:
            self.too_big = True
            self._chunks, self._small = [], bytearray()
        elif len(chunk) < _SMALL:
            self._small += chunk
        else:
            if self._small:
                self._chunks.append(bytes(self._small))
                self._small = bytearray()
            self._chunks.append(chunk)


def is_regular(raw: bytes) -> bool:
    """Whether octets have no bare CR, no bare LF and no NUL."""
    ends: list[int] = []
    _IRREGULAR.scan(raw, match_event_handler=_found, context=ends)
    # The pattern needs a neighbour, which the first and the last octet lack.
    return not (ends or raw.startswith(b"\n") or raw.endswith(b"\r"))


def regular(raw: bytes) -> Data:
    """Any octets with their line ends made regular (see the module), and what was seen."""
    content, nul, bare_cr, bare_lf = raw, False, False, False
    if not is_regular(raw):
        nul = b"\0" in raw
        content = raw.replace(b"\0", b"")
        pairs = content.count(b"\r\n")
        bare_cr = content.count(b"\r") != pairs
        bare_lf = content.count(b"\n") != pairs
        if bare_cr or bare_lf:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    too_big = False  # in the order of the fields, since keywords take twice as long
    return Data(content, too_big, bare_cr, bare_lf, nul, not content.isascii())


def stuff(content: bytes) -> bytes:
    """Content as it is sent after 354: dots stuffed, the last line ended if it is not, then the end of the message.

    `content` must be regular, as that of `Data` is; parts are joined before.
    """
    ends: list[int] = []
    _DOTS.scan(content, match_event_handler=_found, context=ends)
    if ends:
        content = content.replace(b"\r\n.", b"\r\n..")
    first = b"." if content.startswith(b".") else b""
    last = _END[2:] if not content or content.endswith(b"\r\n") else _END
    return b"".join((first, content, last))


def _has_long_line(content: bytes) -> bool:
    """Whether a line is over 998 octets: goes from line end to the last one in reach, about a thousand at a time."""
    start, size = 0, len(content)
    while size - start > MAX_LINE:
        end = content.rfind(b"\n", start, start + MAX_LINE + 2)
        if end < 0:
            return True
        start = end + 1
    return False

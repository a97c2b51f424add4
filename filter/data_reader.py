r"""The message after 354, out of octets as they arrive: end found, dots un-stuffed, line ends made regular, bounded.

Only CRLF.CRLF ends a message (the first CRLF may be the one of the DATA command, so that ".CRLF" is an empty message).
A dot is taken off where a line begins after CRLF, as the sender put it there (RFC 5321 section 4.5.2). After that, as
Postfix 3.9 does with `smtpd_forbid_bare_newline = normalize` and `message_strip_characters = \0`: bare LF becomes CRLF,
bare CR a space, NUL is taken out; a last line without its end cannot occur. So the content never holds a bare CR, a bare LF or a NUL,
whatever the sender's lines were, and `stuff` makes it safe for the way out. Nothing here raises. Pure.
"""

from typing import Final, NamedTuple

MAX_LINE: Final = 998  # octets of a line without CRLF; RFC 5322 section 2.1.1
_END: Final = b"\r\n.\r\n"


class Data(NamedTuple):
    """A message as received: `content` has CRLF lines (each ended), dots un-stuffed, no bare CR or LF, no NUL.

    The flags say what was seen. With `too_big` content is empty and the other flags are False.
    """

    content: bytes
    too_big: bool = False
    bare_cr: bool = False
    bare_lf: bool = False
    nul: bool = False
    long_line: bool = False  # a line over 998 octets
    eight_bit: bool = False  # octets over 127

    @property
    def irregular(self) -> bool:
        """Whether the line ends or NULs had to be made regular: what `bare_line_endings = "reject"` refuses."""
        return self.bare_cr or self.bare_lf or self.nul


class DataReader:
    """Takes octets until the end of one message. `limit` is in octets of content as sent; memory stays within it.

    Over the limit everything kept is let go at once and `too_big` is set; the end is still looked for, so that the
    session can go on. The owner may give up when `received` is past twice the limit.
    """

    __slots__ = ("_chunks", "_done", "_limit", "_stuffed", "_tail", "received", "too_big")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._tail = b"\r\n"  # the last octets that may be the beginning of the end
        self._stuffed = False
        self._done = False
        self.received = 0  # octets fed so far, without those after the end
        self.too_big = False

    def feed(self, chunk: bytes) -> bytes | None:
        """Take the next octets; None if the message goes on, else what came after its end (b"" for nothing)."""
        window = self._tail + chunk
        known = len(self._tail)
        at = window.find(b"\r\n.")
        end = -1
        if at >= 0:
            self._stuffed = True
            end = window.find(_END, at)
        if end < 0:
            self.received += len(chunk)
            self._tail = window[-4:]
            self._keep(chunk)
            return None
        # What is kept ends with the CRLF before the dot; part of the end may have come with earlier chunks.
        cut = end + 2 - known
        self.received += end + len(_END) - known
        if cut >= 0:
            self._keep(chunk[:cut])
        else:
            self._drop(-cut)
        self._done = True
        return window[end + len(_END) :]

    def finish(self) -> Data:
        """The message, after `feed` gave the end; to be called once."""
        if self.too_big:
            return Data(b"", too_big=True)
        raw = b"".join(self._chunks)
        self._chunks.clear()
        if self._stuffed:
            raw = raw[raw.startswith(b".") :].replace(b"\r\n.", b"\r\n")
        return regular(raw)

    def _keep(self, chunk: bytes) -> None:
        if self.too_big or not chunk:
            return
        if self.received > self._limit + len(_END):
            self.too_big = True
            self._chunks.clear()
            return
        self._chunks.append(chunk)

    def _drop(self, count: int) -> None:
        while count > 0 and self._chunks:
            last = self._chunks.pop()
            if len(last) > count:
                self._chunks.append(last[:-count])
            count -= len(last)


def regular(raw: bytes) -> Data:
    """The octets with line ends made regular (see the module), and what was seen; for doors without dots, too."""
    nul = b"\0" in raw
    if nul:
        raw = raw.replace(b"\0", b"")
    pairs = raw.count(b"\r\n")
    bare_cr = raw.count(b"\r") != pairs
    bare_lf = raw.count(b"\n") != pairs
    if bare_cr or bare_lf:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    return Data(
        raw,
        bare_cr=bare_cr,
        bare_lf=bare_lf,
        nul=nul,
        long_line=_has_long_line(raw),
        eight_bit=not raw.isascii(),
    )


def stuff(content: bytes) -> bytes:
    """The content as it is sent after 354: dots stuffed, the last line ended, and the end of the message.

    `content` must be regular as that of `Data`; parts are joined before.
    """
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    first = b"." if content.startswith(b".") else b""
    last = b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n"
    return b"".join((first, content, last))


def _has_long_line(content: bytes) -> bool:
    """Whether a line is over 998 octets: steps from line end to the last one within reach."""
    start, size = 0, len(content)
    while size - start > MAX_LINE:
        end = content.rfind(b"\n", start, start + MAX_LINE + 2)
        if end < 0:
            return True
        start = end + 1
    return False

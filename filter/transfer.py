"""Undo what was done to text for its journey: encoded-words in headers, base64 and quoted-printable in bodies.

Never raises: damage becomes a `Defect` in the list given. Pure; linear in the octets. RFC 2045 §6, RFC 2047.
"""

import binascii
import re
from collections.abc import Iterator
from itertools import islice

from .charsets import decode, is_known
from .segments import Defect, DefectCode

MAX_TEXT = 1 << 18
"""Octets of decoded text of one message, all parts together."""
MAX_DEFECTS = 100
"""Defects recorded of one message."""

_ENCODED_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
_BASE64_TAIL = re.compile(rb"=+[^=A-Za-z0-9+/]*")
_BASE64_CHUNK = re.compile(rb"[^=]+")
_MAX_RUNS = 1_000


def decode_header(value: bytes, defects: list[Defect]) -> str:
    """A header value as a reader sees it: unfolded, encoded-words decoded (RFC 2047), surrounding space removed."""
    text = decode_octets(value, "", defects) if not value.isascii() else value.decode("ascii")
    if "\n" in text or "\r" in text:
        text = text.replace("\r", "").replace("\n", "")
    text = text.strip()
    return "".join(_decoded_pieces(text, defects)) if "=?" in text else text


def _decoded_pieces(text: str, defects: list[Defect]) -> Iterator[str]:
    """Plain runs and decoded encoded-words; white space between two encoded-words is not part of the text."""
    position, held, held_charset = 0, b"", ""
    for word in _ENCODED_WORD.finditer(text):
        between = text[position : word.start()]
        charset, octets = word[1].lower(), _word_octets(word[2], word[3], defects)
        if held_charset and (charset != held_charset or between.strip()):
            yield decode_octets(held, held_charset, defects)
            held = b""
        if between and not (between.isspace() and held_charset):
            yield between
        held, held_charset, position = held + octets, charset, word.end()
    if held_charset:
        yield decode_octets(held, held_charset, defects)
    yield text[position:]


def _word_octets(encoding: str, encoded: str, defects: list[Defect]) -> bytes:
    octets = encoded.encode("utf-8", "surrogateescape")
    if encoding in "qQ":
        return binascii.a2b_qp(octets, header=True)
    return decode_base64(octets, defects)


def decode_octets(octets: bytes, charset: str, defects: list[Defect]) -> str:
    """Text of octets in a charset, with a defect where it did not fit."""
    decoded = decode(octets, charset)
    if decoded.unknown:
        note(defects, Defect(DefectCode.CHARSET_UNKNOWN, charset[:40]))
    elif decoded.replaced:
        note(defects, Defect(DefectCode.CHARSET_REPLACED, charset[:40] if is_known(charset) else ""))
    return decoded.text


def decode_base64(octets: bytes, defects: list[Defect]) -> bytes:
    """Base64 as readers take it: other characters skipped, a missing end tolerated, several encoded runs joined."""
    try:
        padding = octets.find(b"=")
        if padding < 0 or _BASE64_TAIL.fullmatch(octets, padding):
            return binascii.a2b_base64(octets)
    except binascii.Error:
        pass
    note(defects, Defect(DefectCode.ENCODING_DAMAGED, "base64"))
    return b"".join(_lenient_base64(run[0]) for run in islice(_BASE64_CHUNK.finditer(octets), _MAX_RUNS))


def _lenient_base64(run: bytes) -> bytes:
    for padded in (run + b"==", run + b"A=="):
        try:
            return binascii.a2b_base64(padded)
        except binascii.Error:
            continue
    return b""


def decode_body(octets: bytes, place: tuple[int, int], encoding: str, room: int, defects: list[Defect]) -> bytes:
    """The text octets at `place` (start, end), transfer encoding undone, at most `room` of them."""
    start, end = place
    stop = min(end, start + room * 3)  # base64 with line ends needs 1.37 octets for one, soft breaks 3
    body = octets[start:stop]
    if encoding == "quoted-printable":
        body = binascii.a2b_qp(body)
    elif encoding == "base64":
        body = decode_base64(body, defects)
    if len(body) > room or stop < end:
        note(defects, Defect(DefectCode.TEXT_TOO_LARGE, str(MAX_TEXT)))
        body = body[:room]
    return body


def note(defects: list[Defect], defect: Defect) -> None:
    """Record a defect once, and only the first hundred; its detail in ASCII, for it comes from the message."""
    if not defect.detail.isascii():
        defect = Defect(defect.code, defect.detail.encode("ascii", "replace").decode())
    if len(defects) < MAX_DEFECTS and defect not in defects:
        defects.append(defect)

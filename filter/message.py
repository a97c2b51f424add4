"""Raw bytes or a JSON message -> frozen `Message`: what was said, where it stands, and what could not be read.

Never raises on bad mail: every oddity becomes a `Defect`, and a defect that left content unread says so (`unread`), so
that the verdict can show it. Pure: no I/O, no clock. Linear time, bounded memory; the caps are constants of `mime`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from .labels import Channel, SegmentKind


class DefectCode(StrEnum):
    """What was wrong with a message as received. Codes in `UNREAD` left content that nobody judged."""

    # read all the same
    HEADER_MALFORMED = "header_malformed"
    BARE_LINE_END = "bare_line_end"
    ENCODING_DAMAGED = "encoding_damaged"
    CHARSET_REPLACED = "charset_replaced"
    BOUNDARY_MISSING = "boundary_missing"
    OBFUSCATED = "obfuscated"
    # content not judged
    CHARSET_UNKNOWN = "charset_unknown"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_PARTS = "too_many_parts"
    TOO_DEEP = "too_deep"
    TEXT_TOO_LARGE = "text_too_large"
    ENCRYPTED = "encrypted"
    ATTACHMENT = "attachment"
    IMAGE_ONLY = "image_only"
    EMPTY = "empty"
    INTERNAL = "internal"


UNREAD: Final = frozenset(
    {
        DefectCode.CHARSET_UNKNOWN,
        DefectCode.HEADERS_TOO_LARGE,
        DefectCode.TOO_MANY_PARTS,
        DefectCode.TOO_DEEP,
        DefectCode.TEXT_TOO_LARGE,
        DefectCode.ENCRYPTED,
        DefectCode.ATTACHMENT,
        DefectCode.IMAGE_ONLY,
        DefectCode.EMPTY,
        DefectCode.INTERNAL,
    }
)


class Defect(NamedTuple):
    """One oddity: its code and a short, safe detail (a media type, a charset name, a count; never message text)."""

    code: DefectCode
    detail: str = ""


class Segment(NamedTuple):
    """One piece of text in reading order: NFC, single spaces, no line ends, no zero-width or control characters."""

    kind: SegmentKind
    text: str
    hidden: bool = False


class Link(NamedTuple):
    """A link: host lower-case without port, path with query, index of the segment that shows it (-1: none)."""

    host: str
    path: str
    segment: int = -1


@dataclass(frozen=True, slots=True)
class Message:
    """One outbound message as its recipient would read it.

    `headers` holds the relevant fields only (lower-case name -> decoded values, in order of appearance).
    `declared` is the sender's own claim about the message, word for word; it decides nothing (law rule R14).
    `images` counts pictures shown; `size` is in octets as received.
    """

    channel: Channel
    subject: str = ""
    from_name: str = ""
    from_address: str = ""
    message_id: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    links: tuple[Link, ...] = ()
    declared: str = ""
    defects: tuple[Defect, ...] = ()
    images: int = 0
    size: int = 0
    language: str = ""

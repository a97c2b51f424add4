"""Records of the consent topic as our publisher writes them -> records of the index, without an event in between.

A machine that begins anew reads millions of them, nearly all in one form: what `consent_events.event_record` writes,
with terms that were read before. These are taken apart by where things stand, and spelt as `consent_codec.encode` does,
in a third of the time. Of anything else `read` says nothing, and `consent_events.Reader` has to read it; of what it
does read it says the same as `Reader` and `encode` together. Pure; raises nothing.
"""

from binascii import unhexlify
from typing import Any, Final

import orjson

from .consent_codec import MAX_TIME, TIME, Layout, Template, spell, spell_number, template_of
from .consent_events import MAX_VALUE, OWN, TERMS_BEGIN, VERSION, Reader
from .evidence import Capture

MAX_TEMPLATES: Final = 20_000  # remembered; then all are forgotten

Quick = tuple[bytes, Template, bytes, int]
"""Mailbox (wide subject key), template, rest of the record, when it was received (epoch milliseconds)."""

_HEX: Final = 32
_KEY: Final = 65  # MAILBOX:ACT
_COLON: Final = ord(":")
_DIGITS: Final = b"0123456789abcdef"
_SHORT: Final = 63  # characters that are at most as many octets as the index takes
_MAX_NUMBER: Final = (1 << 63) - 1
_LIMITS: Final = {"source_seq": (0, _MAX_NUMBER), "expires_at": (1, MAX_TIME), "valid_until": (1, MAX_TIME)}
_TIMES: Final = frozenset({"event_time", "received_at"})
# What an event has of its own but for its times, in the order of `encode`: place, and limits if it is a number.
_SPELT: Final = {name: (place, _LIMITS.get(name)) for place, name in enumerate(OWN) if name not in _TIMES}


class QuickReader:
    """Reads for the node that `reader` reads for, and knows the terms that it knows."""

    def __init__(self, reader: Reader) -> None:
        self._known = reader.known
        self._begin = orjson.dumps({"v": VERSION, "key_id": reader.key_id, "subject": ""})[:-2]
        self._own = len(self._begin) + _HEX + len(b'",')  # where what follows the subject key begins
        self._templates: dict[tuple[int, int, Layout], tuple[Capture, Template]] = {}

    def read(self, key: bytes | None, value: bytes | None, now: int) -> Quick | None:
        """What a record becomes that came `now` (epoch milliseconds); None if that takes a closer look."""
        if key is None or value is None or not value.startswith(self._begin) or len(value) > MAX_VALUE:
            return None
        terms = value.find(TERMS_BEGIN)
        capture = self._known(value[terms:])
        if capture is None or not self._names(key, value):
            return None
        try:
            given: dict[str, Any] = orjson.loads(b"{" + value[self._own : terms] + b"}")
        except orjson.JSONDecodeError:
            return None
        made, received = given.pop("event_time", 0), given.pop("received_at", 0)
        if type(made) is not int or type(received) is not int or not 0 <= made <= MAX_TIME or not 0 < received <= now:
            return None
        parts = [made.to_bytes(TIME)]
        layout = _spell(given, parts) if given else ()
        if layout is None:
            return None
        shared = received if capture.batch else 0
        if not shared:
            parts.append(received.to_bytes(TIME))
        known = self._templates.get((id(capture), shared, layout))
        template = known[1] if known else self._template(capture, shared, layout)
        return unhexlify(key[:_HEX]), template, b"".join(parts), received

    def _names(self, key: bytes, value: bytes) -> bool:
        """Whether a key names an act of the subject of the value, which is the mailbox itself."""
        if len(key) != _KEY or key[_HEX] != _COLON or key.translate(None, _DIGITS) != b":":
            return False
        return value[len(self._begin) : self._own] == key[:_HEX] + b'",'

    def _template(self, capture: Capture, shared: int, layout: Layout) -> Template:
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        template = template_of(capture, shared, layout, narrow=False)
        self._templates[id(capture), shared, layout] = capture, template  # kept, so that no other has its id
        return template


def _spell(given: dict[str, Any], parts: list[bytes]) -> Layout | None:
    """Put what an event has of its own at the end of `parts`; how that is spelt. None if anything is unusual."""
    layout = []
    last = -1
    for name, value in given.items():
        place, limits = _SPELT.get(name, (-1, None))
        if place <= last:
            return None
        last = place
        if limits is None:
            if type(value) is not str or not 0 < len(value) <= _SHORT:
                return None
            spelling, octets = spell(value)
        else:
            if type(value) is not int or not limits[0] <= value <= limits[1]:
                return None
            spelling, octets = spell_number(value)
        layout.append((name, spelling))
        parts.append(octets)
    return tuple(layout)

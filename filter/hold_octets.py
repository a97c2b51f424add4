"""Fields of rows of held mail as octets: addresses and how a message came by Kafka, to be sealed; digests of rows.

Reading raises ValueError, TypeError or LookupError for what was not written here. Pure.
"""

import base64
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import orjson

from .labels import Channel
from .ports import KafkaOrigin


def address(path: bytes, params: Sequence[bytes]) -> bytes:
    """A path, its length first, and its ESMTP parameters, none of which holds a space (RFC 5321 section 4.1.2)."""
    joined = b" ".join(params)
    if _split(joined) != tuple(params):
        raise ValueError("an ESMTP parameter is empty or holds a space")
    return len(path).to_bytes(4, "big") + path + joined


def read_address(octets: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Path and parameters."""
    end = 4 + int.from_bytes(octets[:4], "big")
    return octets[4:end], _split(octets[end:])


def origin(kafka: KafkaOrigin) -> bytes:
    """How a message came by Kafka."""
    headers = [[name, _text(value)] for name, value in kafka.headers]
    return orjson.dumps([kafka.channel, kafka.sender_known, _text(kafka.key), headers])


def read_origin(octets: bytes) -> KafkaOrigin:
    """How a message came by Kafka."""
    channel, sender_known, key, headers = orjson.loads(octets)
    return KafkaOrigin(
        Channel(channel),
        bool(sender_known),
        _octets(key),
        tuple([(str(name), _octets(value)) for name, value in headers]),
    )


def digest(fields: tuple[object, ...]) -> bytes:
    """Of text, octets and numbers as Python writes them in ASCII: of no two unlike rows the same, in any version."""
    return blake2b(ascii(fields).encode("ascii"), digest_size=16, person=b"row").digest()


def plain(fields: Iterable[object]) -> tuple[object, ...]:
    """Words of an enumeration as the text that comes back."""
    return tuple([str(field) if isinstance(field, str) else field for field in fields])


def _split(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined.split(b" ")) if joined else ()


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _octets(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)

"""A held message as rows, and rows as a held message, with digests that tell every change of an octet.

The content is stored once per message, compressed; every copy is a row. A digest of the message row covers the
content and the number of copies, a digest of each copy row its own fields, so that a row that is damaged, missing or
put elsewhere is found when it is read. What changes later (`state`, `changed_at`) is outside the digests.

`unpack` raises `DamagedMessageError`, and nothing else, for whatever a damaged file may give it. Pure.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final

import orjson

from .envelope import MailFrom, RcptTo
from .errors import ConsentryError
from .held import CopyState
from .policy import Disposition
from .ports import HeldCopy, HeldMessage

LEVEL: Final = 1  # of zlib: on mail, level 6 saves an eighth of the space for twice the processor time

MESSAGE_COLUMNS: Final = (
    "queue_id", "received_at", "mail_path", "mail_params", "mail_size", "mail_eight_bit", "mail_smtputf8", "trace",
    "label", "score", "ruleset", "declared", "controller", "brand", "topic", "campaign", "facts", "size", "copies",
    "content_digest", "digest",
)  # fmt: skip
CONTENT_COLUMNS: Final = ("codec", "body")
COPY_COLUMNS: Final = (
    "number", "path", "params", "subject_key", "disposition", "reason", "notes", "consent", "evidence", "digest",
    "state", "changed_at",
)  # fmt: skip


class HoldDataError(ConsentryError):
    """The hold store cannot be used; the message names the file and what to do."""


class DamagedMessageError(HoldDataError):
    """A held message is not what was stored; others may be read as ever."""


class Codec(IntEnum):
    """How a body is stored."""

    PLAIN = 0
    ZLIB = 1


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of a message, in the order of the column names above."""

    message: tuple[Any, ...]
    content: tuple[Any, ...]
    copies: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """What became of one copy. `changed_at` is in epoch milliseconds."""

    state: CopyState
    changed_at: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it is in the store, verified. `records` has one for each copy of `message`, in their order.

    The content of a message is gone when no copy can be released any more; `has_content` tells that from an empty one,
    and from not having been asked for.
    """

    message: HeldMessage
    records: tuple[CopyRecord, ...]
    size: int  # octets of the content
    has_content: bool


def pack(message: HeldMessage) -> Packed:
    """The rows to store; every copy is HELD, or PENDING. Takes time in the order of the content's size."""
    body = zlib.compress(message.content, LEVEL)
    codec = Codec.ZLIB
    if len(body) >= len(message.content):
        codec, body = Codec.PLAIN, message.content
    mail = message.mail
    fields = (
        message.queue_id,
        message.received_at,
        mail.path,
        _join(mail.params),
        mail.size,
        int(mail.eight_bit),
        int(mail.smtputf8),
        message.trace,
        message.label,
        float(message.score),
        message.ruleset,
        message.declared,
        message.controller,
        message.brand,
        message.topic,
        message.campaign,
        message.facts,
        len(message.content),
        len(message.copies),
        _content_digest(message.content),
    )
    return Packed(
        (*fields, _digest(fields)),
        (codec, body),
        tuple(_pack_copy(message, number, copy) for number, copy in enumerate(message.copies)),
    )


def unpack(message: Sequence[Any], content: Sequence[Any] | None, copies: Iterable[Sequence[Any]]) -> StoredMessage:
    """The message that these rows say, verified. `content` is None if it is gone or not wanted."""
    try:
        return _unpack(message, content, list(copies))
    except DamagedMessageError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, zlib.error, MemoryError) as error:
        raise DamagedMessageError(f"not in the form it was stored in ({type(error).__name__})") from error


def _unpack(message: Sequence[Any], content: Sequence[Any] | None, copies: list[Sequence[Any]]) -> StoredMessage:
    *fields, digest = message
    if digest != _digest(fields):
        raise DamagedMessageError("envelope differs from what was stored")
    (queue_id, received_at, path, params, mail_size, eight_bit, smtputf8, trace) = fields[:8]
    (label, score, ruleset, declared, controller, brand, topic, campaign, facts, size, count, content_digest) = fields[
        8:
    ]
    if len(copies) != count:
        raise DamagedMessageError(f"{len(copies)} of {count} copies are there")
    pairs = [_unpack_copy(queue_id, number, copy) for number, copy in enumerate(copies)]
    held = HeldMessage(
        queue_id=queue_id,
        received_at=received_at,
        mail=MailFrom(path, _split(params), mail_size, bool(eight_bit), bool(smtputf8)),
        trace=trace,
        content=b"" if content is None else _unpack_content(content, content_digest, size),
        label=label,
        score=score,
        ruleset=ruleset,
        declared=declared,
        controller=controller,
        brand=brand,
        topic=topic,
        copies=tuple(copy for copy, _ in pairs),
        campaign=campaign,
        facts=facts,
        pending=any(record.state is CopyState.PENDING for _, record in pairs),
    )
    return StoredMessage(held, tuple(record for _, record in pairs), size, content is not None)


def _unpack_content(row: Sequence[Any], digest: bytes, size: int) -> bytes:
    codec, body = row
    if Codec(codec) is Codec.ZLIB:
        machine = zlib.decompressobj()
        body = machine.decompress(body, size + 1)  # never more than the message had, whatever the body says
    if len(body) != size or _content_digest(body) != digest:
        raise DamagedMessageError("content differs from what was stored")
    return bytes(body)


def _pack_copy(message: HeldMessage, number: int, copy: HeldCopy) -> tuple[Any, ...]:
    fields = (
        number,
        copy.recipient.path,
        _join(copy.recipient.params),
        bytes.fromhex(copy.subject_key),
        str(copy.disposition),
        copy.reason,
        _json(copy.notes),
        copy.state,
        _json(copy.evidence),
    )
    state = CopyState.PENDING if message.pending else CopyState.HELD
    return (*fields, _digest((message.queue_id, *fields)), str(state), message.received_at)


def _unpack_copy(queue_id: str, expected: int, row: Sequence[Any]) -> tuple[HeldCopy, CopyRecord]:
    *fields, digest, state, changed_at = row
    if fields[0] != expected or digest != _digest((queue_id, *fields)) or type(changed_at) is not int:
        raise DamagedMessageError(f"copy {expected} differs from what was stored")
    _, path, params, subject_key, disposition, reason, notes, consent, evidence = fields
    copy = HeldCopy(
        recipient=RcptTo(path, _split(params)),
        subject_key=subject_key.hex(),
        disposition=Disposition(disposition),
        reason=reason,
        notes=tuple(orjson.loads(notes)),
        state=consent,
        evidence=tuple(orjson.loads(evidence)),
    )
    return copy, CopyRecord(CopyState(state), changed_at)


def _join(params: Sequence[bytes]) -> bytes:
    """ESMTP parameters as they stand on the line: none holds a space (RFC 5321 section 4.1.2)."""
    joined = b" ".join(params)
    if _split(joined) != tuple(params):
        raise ValueError("an ESMTP parameter is empty or holds a space")
    return joined


def _split(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined.split(b" ")) if joined else ()


def _json(words: Sequence[str]) -> str:
    return orjson.dumps(words).decode()


def _content_digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16, person=b"content").digest()


def _digest(fields: Sequence[str | bytes | int | float]) -> bytes:
    """Of typed fields, each with its length before it, so that nothing can move from one into the next."""
    octets = []
    for field in fields:
        if isinstance(field, bytes):
            one = b"b" + field
        elif isinstance(field, str):
            one = b"s" + field.encode()
        else:
            one = b"n" + repr(field).encode()
        octets.append(len(one).to_bytes(4, "big"))
        octets.append(one)
    return blake2b(b"".join(octets), digest_size=16, person=b"row").digest()

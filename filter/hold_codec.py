"""A held message as rows, and rows as a held message, sealed and with digests that tell every change of an octet.

The content is stored once per message, compressed; every copy is a row. Content, trace lines and addresses are sealed
under a key of the message's own (`sealing`), which stands in its row, wrapped by a master key. A digest of the message
row covers it and the number of copies, a digest of each copy row its own fields, what is sealed as it is stored: so a
row that is damaged, missing or put elsewhere is found without a key. What becomes of a copy (`CopyRecord`) changes
later and has a mark of its own; the tag of its cipher guards the wrapped key, which is wrapped anew now and then.

What reads raises `DamagedMessageError`, and nothing else, for whatever a damaged file may give it; what opens seals
raises `sealing.UnknownKeyError` too, for a message whose master key is not among those given. No I/O.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from types import TracebackType
from typing import Final, NamedTuple, cast

import orjson
from isal import isal_zlib

from . import hold_octets
from .envelope import MailFrom, RcptTo
from .errors import ConsentryError
from .held import CopyState, HeldLine, Place
from .policy import Disposition
from .ports import HeldCopy, HeldMessage, KafkaOrigin
from .sealing import MessageKey, SealError, Vault

LEVEL: Final = 1  # of ISA-L: on mail as small as level 3 of zlib, in a third of the time of its level 1


class MessageRow(NamedTuple):
    """A message as it is stored. `mail` (path and parameters), `trace` and `origin` (empty: SMTP) are sealed."""

    queue_id: str
    received_at: int
    mail: bytes
    mail_size: int
    mail_eight_bit: int
    mail_smtputf8: int
    trace: bytes
    origin: bytes
    label: str
    score: float
    ruleset: str
    declared: str
    controller: str
    brand: str
    topic: str
    campaign: str
    facts: str
    size: int
    copies: int
    digest: bytes  # of all before it
    key_id: str
    wrapped_key: bytes


class ContentRow(NamedTuple):
    """The content of a message as it is stored, sealed."""

    codec: int
    body: bytes


class CopyRow(NamedTuple):
    """A copy as it is stored. `recipient` (path and parameters) is sealed; from `state` on it is the record."""

    number: int
    recipient: bytes
    subject_key: bytes
    disposition: str
    reason: str
    notes: str
    consent: str
    evidence: str
    digest: bytes  # of all before it, and the queue id
    state: str
    changed_at: int
    attempts: int
    due_at: int
    order_id: str
    outcome: str
    mark: int  # of the digest and the record


MESSAGE_COLUMNS: Final = MessageRow._fields
CONTENT_COLUMNS: Final = ContentRow._fields
COPY_COLUMNS: Final = CopyRow._fields
RECORD_COLUMNS: Final = COPY_COLUMNS[COPY_COLUMNS.index("state") :]
_MESSAGE_DIGEST: Final = MESSAGE_COLUMNS.index("digest")
_COPY_DIGEST: Final = COPY_COLUMNS.index("digest")
_RECORD: Final = _COPY_DIGEST + 1
_STATES: Final[dict[object, CopyState]] = {str(state): state for state in CopyState}


class HoldDataError(ConsentryError):
    """The hold store cannot be used; the message names the file and what to do."""


class DamagedMessageError(HoldDataError):
    """A held message is not what was stored; others may be read as ever."""


class Codec(IntEnum):
    """How a body is stored."""

    PLAIN = 0
    ZLIB = 1  # RFC 1950, whoever made or reads it


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of a message."""

    message: MessageRow
    content: ContentRow
    copies: tuple[CopyRow, ...]


class CopyRecord(NamedTuple):
    """What became of one copy. Times are epoch milliseconds; `due_at` is of the next attempt, or the end of a lease."""

    state: CopyState
    changed_at: int  # when it came into this state
    attempts: int = 0
    due_at: int = 0
    order: str = ""
    outcome: str = ""


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


def pack(message: HeldMessage, vault: Vault) -> Packed:
    """The rows to store; every copy is HELD, or PENDING. Takes time in the order of the content's size."""
    key, wrapped, key_id = vault.new_key()
    body = isal_zlib.compress(message.content, LEVEL)
    codec = Codec.ZLIB
    if len(body) >= len(message.content):
        codec, body = Codec.PLAIN, message.content
    mail, queue_id = message.mail, message.queue_id
    fields = hold_octets.plain(
        (
            queue_id,
            message.received_at,
            key.seal(hold_octets.address(mail.path, mail.params), _about(queue_id, "mail")),
            mail.size,
            int(mail.eight_bit),
            int(mail.smtputf8),
            key.seal(message.trace, _about(queue_id, "trace")),
            _seal_origin(message, key),
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
        )
    )
    return Packed(
        MessageRow(*fields, hold_octets.digest(fields), key_id, wrapped),  # type: ignore[arg-type, call-arg]
        ContentRow(codec, key.seal(body, _about(queue_id, f"content {codec:d}"))),
        tuple([_pack_copy(message, key, number, copy) for number, copy in enumerate(message.copies)]),
    )


def unpack(
    message: Sequence[object], content: Sequence[object] | None, copies: Iterable[Sequence[object]], vault: Vault
) -> StoredMessage:
    """The message that these rows say, verified and opened. `content` is None if it is gone or not wanted."""
    row = read_message(message)
    return open_message(row, content, read_copies(row, copies), vault)


def open_message(
    row: MessageRow, content: Sequence[object] | None, copies: Sequence[CopyRow], vault: Vault
) -> StoredMessage:
    """The same of rows that are verified, but for that of the content."""
    with _DAMAGE:
        key = vault.open_key(row.key_id, row.wrapped_key)
        records = tuple([_record(copy[_RECORD:-1]) for copy in copies])
        held = HeldMessage(
            queue_id=row.queue_id,
            received_at=row.received_at,
            mail=MailFrom(
                *_open_address(key, row.mail, _about(row.queue_id, "mail")),
                row.mail_size,
                bool(row.mail_eight_bit),
                bool(row.mail_smtputf8),
            ),
            trace=key.open(row.trace, _about(row.queue_id, "trace")),
            content=b"" if content is None else _open_content(key, row, ContentRow(*content)),  # type: ignore[arg-type] # verified inside
            label=row.label,
            score=row.score,
            ruleset=row.ruleset,
            declared=row.declared,
            controller=row.controller,
            brand=row.brand,
            topic=row.topic,
            copies=tuple([_open_copy(key, row.queue_id, copy) for copy in copies]),
            campaign=row.campaign,
            facts=row.facts,
            kafka=_open_origin(key, row),
            pending=any(record.state is CopyState.PENDING for record in records),
        )
    return StoredMessage(held, records, row.size, content is not None)


def read_message(message: Sequence[object]) -> MessageRow:
    """The row of a message, verified; nothing is opened."""
    with _DAMAGE:
        row = MessageRow(*message)  # type: ignore[arg-type] # verified by the digest
        if row.digest != hold_octets.digest(row[:_MESSAGE_DIGEST]):
            raise DamagedMessageError("envelope differs from what was stored")
    return row


def read_copy(queue_id: str, copy: Sequence[object]) -> CopyRow:
    """The row of a copy, verified; nothing is opened."""
    with _DAMAGE:
        row = CopyRow(*copy)  # type: ignore[arg-type] # verified by digest and mark
        if row.digest != hold_octets.digest((queue_id, *row[:_COPY_DIGEST])):
            raise DamagedMessageError(f"copy {row.number!r} differs from what was stored")
        unpack_record(row.digest, row[_RECORD:])
    return row


def read_copies(message: MessageRow, copies: Iterable[Sequence[object]]) -> list[CopyRow]:
    """The rows of all copies of a message, verified. Numbers ascend; those of copies that were erased are left out."""
    rows = [read_copy(message.queue_id, copy) for copy in copies]
    if len(rows) != message.copies:
        raise DamagedMessageError(f"{len(rows)} of {message.copies} copies are there")
    if any(one.number >= other.number for one, other in pairwise(rows)):
        raise DamagedMessageError("the copies are in another order than they were stored")
    return rows


def with_copies(message: MessageRow, copies: int) -> MessageRow:
    """The row of a message that has so many copies from now on."""
    changed = message._replace(copies=copies)
    return changed._replace(digest=hold_octets.digest(changed[:_MESSAGE_DIGEST]))


def pack_record(digest: bytes, record: CopyRecord) -> tuple[str | int, ...]:
    """The columns from `state` to `mark`, for the copy with this digest."""
    return *record, _mark(digest, record)


def unpack_record(digest: bytes, columns: Sequence[object]) -> CopyRecord:
    """What became of the copy with this digest, verified."""
    try:
        record = _record(columns[:-1])
        if columns[-1] == _mark(digest, record):
            return record
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedMessageError(f"not in the form it was stored in ({type(error).__name__})") from error
    raise DamagedMessageError("what became of a copy differs from what was stored")


def _record(columns: Sequence[object]) -> CopyRecord:
    return CopyRecord(_STATES[columns[0]], *columns[1:])  # type: ignore[arg-type] # verified by the mark


def line_of(place: Place, message: MessageRow, copy: CopyRow) -> HeldLine:
    """What is known of a copy without its content and its address, of verified rows."""
    with _DAMAGE:
        return HeldLine(
            place=place,
            queue_id=message.queue_id,
            state=CopyState(copy.state),
            received_at=message.received_at,
            changed_at=copy.changed_at,
            campaign=message.campaign,
            label=message.label,
            score=message.score,
            reason=copy.reason,
            consent=copy.consent,
            rules=tuple(orjson.loads(copy.evidence)),
            declared=message.declared,
            controller=message.controller,
            brand=message.brand,
            topic=message.topic,
            subject=copy.subject_key.hex(),
            size=message.size,
            attempts=copy.attempts,
            due_at=copy.due_at,
            outcome=copy.outcome,
            order=copy.order_id,
        )


def _pack_copy(message: HeldMessage, key: MessageKey, number: int, copy: HeldCopy) -> CopyRow:
    recipient = copy.recipient
    fields = hold_octets.plain(
        (
            number,
            key.seal(
                hold_octets.address(recipient.path, recipient.params), _about(message.queue_id, f"recipient {number}")
            ),
            bytes.fromhex(copy.subject_key),
            str(copy.disposition),
            copy.reason,
            _json(copy.notes),
            copy.state,
            _json(copy.evidence),
        )
    )
    digest = hold_octets.digest((message.queue_id, *fields))
    state = CopyState.PENDING if message.pending else CopyState.HELD
    return CopyRow(*fields, digest, *pack_record(digest, CopyRecord(state, message.received_at)))  # type: ignore[arg-type, call-arg]


def _open_copy(key: MessageKey, queue_id: str, copy: CopyRow) -> HeldCopy:
    return HeldCopy(
        recipient=RcptTo(*_open_address(key, copy.recipient, _about(queue_id, f"recipient {copy.number}"))),
        subject_key=copy.subject_key.hex(),
        disposition=Disposition(copy.disposition),
        reason=copy.reason,
        notes=tuple(orjson.loads(copy.notes)),
        state=copy.consent,
        evidence=tuple(orjson.loads(copy.evidence)),
    )


def _open_content(key: MessageKey, message: MessageRow, content: ContentRow) -> bytes:
    codec = Codec(content.codec)
    body = key.open(content.body, _about(message.queue_id, f"content {codec:d}"))
    if codec is Codec.ZLIB:
        body = isal_zlib.decompressobj().decompress(body, message.size + 1)  # never more than the message had
    if len(body) != message.size:
        raise DamagedMessageError("content differs from what was stored")
    return body


class _Damage:
    """Whatever a damaged row makes of what reads it is told as damage. A class: a generator takes thrice as long."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SealError):
            raise DamagedMessageError("what was sealed differs from what was stored") from error
        if isinstance(error, _SIGNS):
            raise DamagedMessageError(f"not in the form it was stored in ({type(error).__name__})") from error


_NO_DEFLATE: Final = cast("type[Exception]", isal_zlib.error)
_SIGNS: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError, _NO_DEFLATE)
_DAMAGE: Final = _Damage()


def _about(queue_id: str, field: str) -> bytes:
    """What is sealed: opens nowhere else."""
    return f"{queue_id}\0{field}".encode()


def _open_address(key: MessageKey, sealed: bytes, about: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    return hold_octets.read_address(key.open(sealed, about))


def _seal_origin(message: HeldMessage, key: MessageKey) -> bytes:
    kafka = message.kafka
    return b"" if kafka is None else key.seal(hold_octets.origin(kafka), _about(message.queue_id, "origin"))


def _open_origin(key: MessageKey, row: MessageRow) -> KafkaOrigin | None:
    about = _about(row.queue_id, "origin")
    return hold_octets.read_origin(key.open(row.origin, about)) if row.origin else None


def _json(words: Sequence[str]) -> str:
    return orjson.dumps(words).decode()


def _mark(digest: bytes, record: CopyRecord) -> int:
    state, changed_at, attempts, due_at, order, outcome = record
    return zlib.crc32(f"{state}\0{changed_at}\0{attempts}\0{due_at}\0{order}\0{outcome}".encode(), zlib.crc32(digest))

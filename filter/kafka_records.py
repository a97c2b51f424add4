"""A record of the input topic -> the message to be judged and for whom, or why it can be none (`Poison`).

The value is JSON (design section 5), mail as RFC 5322 octets, or for channels other than mail plain text in UTF-8.
`content-type` in the record headers says which (`application/json`, `message/rfc822`, `text/plain`); without it a value
that begins like a JSON object is one. Record headers (`mail_from`, `rcpt_to` for each recipient, `channel`,
`controller`, `brand`, `topic`, `declared`) win over fields of the JSON; where both are given and disagree, nobody knows
what was meant. So it is with addresses that the SMTP door would refuse: better no copy goes than to somebody else.

Mail is never poison for being damaged: what cannot be read is a defect, and shows in the verdict. It is when there is
no header field at its beginning, because then it is something else. Nothing is raised. Pure.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import orjson

from .envelope import MailFrom, RcptTo
from .errors import InputError
from .labels import Channel
from .message import Message, message_from_json, message_from_text, parse_message
from .path import PathError, parse_mail, parse_rcpt
from .segments import clean
from .stream import Said

MAX_NAME: Final = 64  # characters of controller, brand and topic, as in consent records
MAX_ADDRESS: Final = 320  # characters of an address of any channel
MAX_HEADERS: Final = 200  # record headers besides those that name recipients
_JSON, _MAIL, _TEXT = "application/json", "message/rfc822", "text/plain"
_ALLOWED_TYPES: Final = f"must be {_JSON}, {_MAIL} or {_TEXT}"
_RCPT_TO: Final = "rcpt_to"
_OURS: Final = ("content-type", "mail_from", "channel", "controller", "brand", "topic", "declared")
_SAID: Final = ("controller", "brand", "topic")
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:").match  # RFC 5322 section 2.2, with the space of section 4.5.3
_MBOX: Final = b"From "  # a line that mailboxes put before a message
_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_OFFERED: Final = frozenset({"SMTPUTF8"})


class Record(Protocol):
    """A record as the Kafka client gives it."""

    @property
    def topic(self) -> str:
        """Where it stands."""

    @property
    def partition(self) -> int:
        """Where in that."""

    @property
    def offset(self) -> int:
        """Where in that."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers, in order; names may repeat."""


class PoisonCode(StrEnum):
    """Why a record cannot be judged; the header `consentry-error` of dead letters."""

    NULL_VALUE = "null_value"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    BAD_JSON = "bad_json"
    BAD_FIELD = "bad_field"  # of the JSON, or a record header
    BAD_MIME = "bad_mime"  # no header field at its beginning
    BAD_TEXT = "bad_text"  # plain text that is no UTF-8
    UNKNOWN_CHANNEL = "unknown_channel"
    HEADER_CONFLICT = "header_conflict"
    NO_RECIPIENT = "no_recipient"
    BAD_RECIPIENT = "bad_recipient"
    BAD_SENDER = "bad_sender"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    TOO_MANY_HEADERS = "too_many_headers"
    UNREADABLE = "unreadable"  # by the client library; key and value stay in the input topic alone
    DIED_JUDGING = "died_judging"  # two workers died over it
    BAD_HELD = "bad_held"  # of the topic of held copies: what was judged cannot be read


class Poison(NamedTuple):
    """A record that cannot be judged. `detail` names place and what is allowed, and quotes neither text nor address."""

    code: PoisonCode
    detail: str


class Outbound(NamedTuple):
    """A message to be judged. `mail` is a null sender too where `sender_known` is False: nobody said who sends it."""

    message: Message
    mail: MailFrom
    sender_known: bool
    recipients: tuple[RcptTo, ...]
    said: Said


class Limits(NamedTuple):
    """How much a message may have; the size in octets."""

    message_size: int = 1 << 20
    recipients: int = 1000


_NO_LIMITS: Final = Limits(sys.maxsize, sys.maxsize)


class _PoisonError(Exception):
    """The record is poison."""

    def __init__(self, code: PoisonCode, detail: str) -> None:
        super().__init__(code)
        self.poison = Poison(code, detail)


def read(record: Record, limits: Limits) -> Outbound | Poison:
    """What the record is. Never raises."""
    try:
        return _read(record, limits)
    except _PoisonError as error:
        return error.poison
    except InputError as error:
        return Poison(PoisonCode.BAD_FIELD, str(error))


def _read(record: Record, limits: Limits) -> Outbound:
    value = record.value
    if value is None:
        raise _PoisonError(PoisonCode.NULL_VALUE, "value: null: must be a message")
    if not value.strip(_BLANK):
        raise _PoisonError(PoisonCode.EMPTY, "value: empty: must be a message")
    if len(value) > limits.message_size:
        raise _PoisonError(PoisonCode.TOO_LARGE, f"value: {len(value)} octets: allowed are {limits.message_size}")
    told, named = _headers(record.headers, limits)
    if _form(told, value) == _JSON:
        return _from_json(value, told, named, limits)
    message = _told_message(value, told)
    mail, known = _sender(told, message.channel)
    return Outbound(message, mail, known, _recipients(named, message.channel, limits), _said(told))


def read_message(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Message:
    """The message alone, of a record that was read before, for whomever it is. Raises InputError."""
    try:
        told, _ = _headers(headers, _NO_LIMITS)
        if _form(told, value) == _JSON:
            return message_from_json(_document(value, told))
        return _told_message(value, told)
    except _PoisonError as error:
        raise InputError(error.poison.detail) from None


def is_mail(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether the value is mail as SMTP carries it. False for what cannot be read."""
    try:
        told, _ = _headers(headers, _NO_LIMITS)
        email = _channel(told.get("channel") or Channel.EMAIL) is Channel.EMAIL
    except _PoisonError:
        return False
    return email and _form(told, value) in {"", _MAIL}


def _form(told: Mapping[str, str], value: bytes) -> str:
    """What the value is said to be, or looks like: a content type; empty if that depends on the channel."""
    given = told.get("content-type", "").partition(";")[0].strip().lower()
    return _JSON if not given and _looks_like_json(value) else given


def _told_message(value: bytes, told: Mapping[str, str]) -> Message:
    """The message of a value that is not JSON."""
    message = _from_octets(value, _channel(told.get("channel") or Channel.EMAIL), _form(told, value))
    return replace(message, declared=clean(told["declared"])) if told.get("declared") else message


# Record headers


def _headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> tuple[dict[str, str], list[str]]:
    """Those that speak to us, by name, and the recipients they name."""
    if len(headers) > limits.recipients + MAX_HEADERS:
        allowed = f"{len(headers)} record headers: allowed are {limits.recipients + MAX_HEADERS}"
        raise _PoisonError(PoisonCode.TOO_MANY_HEADERS, allowed)
    told: dict[str, str] = {}
    recipients: list[str] = []
    for name, octets in headers:
        if name == _RCPT_TO:
            recipients.append(_decoded(name, octets))
        elif name in _OURS:
            text = _decoded(name, octets)
            if told.setdefault(name, text) != text:
                raise _PoisonError(PoisonCode.HEADER_CONFLICT, f"record header {name}: given twice, and not the same")
    return told, recipients


def _decoded(name: str, octets: bytes | None) -> str:
    try:
        return (octets or b"").decode()
    except UnicodeDecodeError:
        raise _PoisonError(PoisonCode.BAD_FIELD, f"record header {name}: must be UTF-8") from None


def _said(told: Mapping[str, str]) -> Said:
    """For whom the message speaks. A wildcard would be every controller there is."""
    for name in _SAID:
        text = told.get(name, "")
        if text and (len(text) > MAX_NAME or not text.isprintable() or text != text.strip() or "*" in text):
            allowed = (
                f'{name}: must be 1 to {MAX_NAME} printable characters, without "*" and without spaces at its ends'
            )
            raise _PoisonError(PoisonCode.BAD_FIELD, allowed)
    return Said(*[told.get(name, "") for name in _SAID])


def _sender(told: Mapping[str, str], channel: Channel) -> tuple[MailFrom, bool]:
    """The envelope sender, and whether anybody said who it is."""
    address = told.get("mail_from")
    if address is None or channel is not Channel.EMAIL:
        return MailFrom(b""), False
    path = address.removeprefix("<").removesuffix(">")
    try:
        mail = parse_mail(b"FROM:<" + path.encode() + b"> SMTPUTF8", offered=_OFFERED)
    except PathError:
        raise _PoisonError(PoisonCode.BAD_SENDER, "mail_from: must be an address as in MAIL, or empty") from None
    return MailFrom(mail.path, smtputf8=not mail.path.isascii()), True


def _recipients(named: Sequence[str], channel: Channel, limits: Limits) -> tuple[RcptTo, ...]:
    """The recipients, each once, in order."""
    once = dict.fromkeys(named)
    if not once:
        raise _PoisonError(PoisonCode.NO_RECIPIENT, "no recipient: give record headers rcpt_to, or JSON field to")
    if len(once) > limits.recipients:
        allowed = f"{len(once)} recipients: allowed are {limits.recipients}"
        raise _PoisonError(PoisonCode.TOO_MANY_RECIPIENTS, allowed)
    return tuple([_recipient(address, channel, number) for number, address in enumerate(once, 1)])


def _recipient(address: str, channel: Channel, number: int) -> RcptTo:
    if channel is Channel.EMAIL:
        try:
            return parse_rcpt(b"TO:<" + _bare(address).encode() + b">", offered=_OFFERED, smtputf8=True)
        except PathError:
            raise _PoisonError(PoisonCode.BAD_RECIPIENT, f"recipient {number}: must be an address as in RCPT") from None
    text = address.strip()
    if not text or len(text) > MAX_ADDRESS or not text.isprintable():
        allowed = f"recipient {number}: must be 1 to {MAX_ADDRESS} printable characters"
        raise _PoisonError(PoisonCode.BAD_RECIPIENT, allowed)
    return RcptTo(text.encode())


def _bare(address: str) -> str:
    """The address of `Ann <ann@home.example>`; what stands before it tells nothing."""
    text = address.strip()
    named = text.endswith(">") and text.count("<") == 1 and text.isprintable()
    return text[text.index("<") + 1 : -1] if named else text


def _channel(name: Any) -> Channel:
    try:
        return Channel(name)
    except ValueError:
        raise _PoisonError(PoisonCode.UNKNOWN_CHANNEL, f"channel: must be one of {', '.join(Channel)}") from None


# Values


def _looks_like_json(value: bytes) -> bool:
    return value.lstrip(_BLANK)[:1] == b"{" or value.startswith(_BOM)


def _from_octets(value: bytes, channel: Channel, given: str) -> Message:
    if given == _MAIL or (not given and channel is Channel.EMAIL):
        if not _FIELD(value) and not value.startswith(_MBOX):
            raise _PoisonError(
                PoisonCode.BAD_MIME, "value: must begin with a header field of mail, or be a JSON object"
            )
        return parse_message(value, channel=channel)
    if given not in {"", _TEXT}:
        raise _PoisonError(PoisonCode.BAD_FIELD, f"content-type: {_ALLOWED_TYPES}")
    try:
        return message_from_text(value.decode(), channel=channel)
    except UnicodeDecodeError as error:
        raise _PoisonError(PoisonCode.BAD_TEXT, f"value: octet {error.start}: must be UTF-8") from None


def _document(value: bytes, told: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object, with what the record headers say."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _PoisonError(
            PoisonCode.BAD_JSON, f"value: {error.msg}: line {error.lineno} column {error.colno}"
        ) from None
    if not isinstance(document, dict):
        raise _PoisonError(PoisonCode.BAD_JSON, f"value: {type(document).__name__}: must be an object")
    _settle(document, told)
    document["channel"] = _channel(document.get("channel") or Channel.EMAIL)
    return document


def _from_json(value: bytes, told: dict[str, str], named: list[str], limits: Limits) -> Outbound:
    document = _document(value, told)
    channel, listed = document["channel"], _listed(document)
    message = message_from_json(document)
    recipients = _recipients(named or listed, channel, limits)
    if named and listed and set(_recipients(listed, channel, limits)) != set(recipients):
        raise _PoisonError(PoisonCode.HEADER_CONFLICT, "record headers rcpt_to and field to name other recipients")
    mail, known = _sender(told, channel)
    return Outbound(message, mail, known, recipients, _said({name: document.get(name) or "" for name in _SAID}))


def _settle(document: dict[str, Any], told: Mapping[str, str]) -> None:
    """Put what record headers say into the document, unless it says otherwise."""
    for name in ("channel", "declared", *_SAID):
        if text := told.get(name):
            if document.get(name) not in (None, "", text):  # a list compares whatever JSON may hold
                raise _PoisonError(PoisonCode.HEADER_CONFLICT, f"{name}: record header and field disagree")
            document[name] = text


def _listed(document: Mapping[str, Any]) -> list[str]:
    """The recipients that the document names: a list of strings, or one string."""
    value = document.get("to")
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in listed):
        raise _PoisonError(PoisonCode.BAD_FIELD, "to: must be a list of strings")
    return listed

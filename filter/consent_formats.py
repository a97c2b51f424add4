"""What consent files may say: the columns of the generic format, their values, and other systems' suppression exports.

The generic format (CSV with a header, or one JSON object per line) has one row per event and one line per row:

    address                       mail address, number or identifier; required
    kind                          grant, soft_opt_in, charity_soft_opt_in, solicited, corporate,
                                  refuse, withdraw, object, block, lift; required
    channel                       email, sms, mms, push, inapp, social_dm, voicemail; blank or * in an opt-out: all that
                                  the address can take
    controller, brand, topic      blank or * in an opt-out: all
    topics                        further topics of the same act, separated by ;
    source, method, reason        where and how it was collected; why (opt-outs, blocks)
    affirmative, conditional, refusal_offered, charity, pending, bulk
                                  true or false; blank: not on record
    wording_id, wording_sha256    wording shown, and the SHA-256 of its text
    bundled_with                  what else the same act agreed to, separated by ;
    told_duration                 as told to the person: 730 days, 24 months (of 30 days), 2 years (of 365 days)
    third_party, named_controllers, collector
    grade                         A individual proof, B system log, C bulk assertion, D none (blank: D)
    id                            unique per event; blank: derived from the content
    event_time, expires_at, valid_until
                                  ISO 8601 with zone (2026-02-05T09:30:00Z), or seconds (10 digits) or milliseconds (13)
    source_seq                    number of the event within its source
    evidence_ref, transaction_ref, request_ref, subscriber_evidence

An opt-out is never refused for a bad value: the value is dropped, which only makes the opt-out wider or undated. Other
systems' values that this table does not know are refused; none of them ever becomes valid consent by itself, as none
carries the wording. Pure: no I/O, no clock. Raises `ValueError` with what is allowed, for the importer to place.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .evidence import ANY, BASES, DAY, Capture, EventKind, Grade, Scope
from .labels import Channel

OWN_COLUMNS: Final = (
    "id",
    "event_time",
    "source_seq",
    "evidence_ref",
    "transaction_ref",
    "request_ref",
    "subscriber_evidence",
    "expires_at",
    "valid_until",
)
SCOPE_COLUMNS: Final = ("channel", "controller", "brand", "topic")
_CAPTURE_COLUMNS: Final = tuple(
    one.name for one in fields(Capture) if one.init and one.name not in ("kind", "scope", "batch")
)
SHARED_COLUMNS: Final = ("kind", *SCOPE_COLUMNS, *_CAPTURE_COLUMNS)
COLUMNS: Final = ("address", *SHARED_COLUMNS, *OWN_COLUMNS)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_SECONDS_DIGITS, _MILLISECONDS_DIGITS = 10, 13
_UNIX = re.compile(r"[0-9]{9,11}(?:\.[0-9]+)?").fullmatch
_DURATION = re.compile(r"([0-9]{1,5}) ?(days?|months?|years?|d|m|y)").fullmatch
_UNITS = {"d": DAY, "m": 30 * DAY, "y": 365 * DAY}
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
_CHANNELS: Final = {str(channel): channel for channel in Channel}


class Fault(NamedTuple):
    """A value that cannot be used: its column, the value, what is allowed."""

    column: str
    value: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The shared columns of a row, read. `channel` is None when the address has to tell; `faults` were dropped."""

    capture: Capture
    channel: Channel | None
    faults: tuple[Fault, ...]


class TermsError(Exception):
    """Shared columns that cannot be used."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults


def instant(text: str) -> int:
    """Epoch milliseconds of a generic time value; 0 for a blank one."""
    if len(text) == _MILLISECONDS_DIGITS and text.isdigit() and text.isascii():
        return int(text)  # most of a large file
    text = text.strip()
    if text.isdigit() and text.isascii():
        if len(text) == _MILLISECONDS_DIGITS:
            return int(text)
        if len(text) == _SECONDS_DIGITS:
            return int(text) * 1000
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _EPOCH.replace(tzinfo=None)
    if moment.tzinfo is None or not _EPOCH < moment < _LATEST:
        raise ValueError("ISO 8601 with zone (2026-02-05T09:30:00Z), or 10 digits (seconds) or 13 (milliseconds)")
    return round(moment.timestamp() * 1000)


def number(text: str) -> int:
    """A count; -1 for a blank one."""
    if not text:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - fits 8 octets
        raise ValueError("a whole number")
    return int(text)


def guess_channel(address: str) -> Channel:
    """The channel of an address in a row that names none; only the address space matters."""
    stripped = address.strip()
    if "@" in stripped:
        return Channel.EMAIL
    if stripped[:1] == "+" or stripped[:1].isdigit():
        return Channel.SMS
    raise ValueError(f"a channel, as the address does not tell it: {', '.join(_CHANNELS)}")


def read_terms(values: Mapping[str, str], batch: str) -> Terms:
    """The terms that the shared columns of a row state. Raises `TermsError`, except over an opt-out's details."""
    kind = _kind(values.get("kind", ""))
    faults = [Fault(column, "", "text in UTF-8") for column, text in values.items() if not _is_unicode(text)]
    values = {**values, **{fault.column: "" for fault in faults}}
    given: dict[str, Any] = {}
    for column in _CAPTURE_COLUMNS:
        text = values.get(column, "").strip()
        if text:
            given |= _read(column, text, faults)
    channel, scope = _scope(values, faults)
    if faults and kind in BASES | {EventKind.LIFT}:
        raise TermsError(tuple(faults))
    if kind in BASES and channel is None:
        raise TermsError((Fault("channel", values.get("channel", ""), ", ".join(_CHANNELS)),))
    return Terms(Capture(kind=kind, scope=scope, batch=batch, **given), channel, tuple(faults))


def _is_unicode(text: str) -> bool:
    """Whether text came from well-formed UTF-8; octets that did not are surrogates here."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(text: str) -> EventKind:
    try:
        return EventKind(text.strip().lower())
    except ValueError:
        raise TermsError((Fault("kind", shown(text), ", ".join(EventKind)),)) from None


def shown(text: str) -> str:
    """A value fit for a message."""
    return text.encode("utf-8", "backslashreplace").decode()


def _scope(values: Mapping[str, str], faults: list[Fault]) -> tuple[Channel | None, Scope]:
    names = [values.get(column, "").strip() for column in SCOPE_COLUMNS]
    wanted = names[0].lower()
    if wanted not in ("", ANY) and wanted not in _CHANNELS:
        faults.append(Fault("channel", names[0], ", ".join(_CHANNELS)))
        names[0] = ""
    channel, controller, brand, topic = names
    return _CHANNELS.get(wanted), Scope(channel, controller, brand, topic)


def _read(column: str, text: str, faults: list[Fault]) -> dict[str, Any]:
    try:
        return {column: _READERS.get(column, str)(text)}
    except ValueError as error:
        faults.append(Fault(column, text, str(error)))
        return {}


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("true, false, or blank for not on record")
    return lowered in _TRUE


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _duration(text: str) -> int:
    found = _DURATION(text.lower())
    if not found:
        raise ValueError("a number of days, months or years: 730 days, 24 months, 2 years")
    return int(found[1]) * _UNITS[found[2][0]]


def _grade(text: str) -> Grade:
    try:
        return Grade(text.upper())
    except ValueError:
        raise ValueError("A, B, C or D") from None


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "topics": _list,
    "bundled_with": _list,
    "named_controllers": _list,
    "affirmative": _flag,
    "conditional": _flag,
    "refusal_offered": _flag,
    "charity": _flag,
    "pending": _flag,
    "bulk": _flag,
    "told_duration": _duration,
    "grade": _grade,
}


@dataclass(frozen=True)
class Export:
    """Another system's suppression export: which columns it has and what the values in them mean for us (law.md C4).

    `meanings` maps the value of `value_column` to generic columns. `topic_column` holds the system's own name of a
    list, stream or tag; without a mapping to one of our topics the opt-out counts for all topics.
    """

    address: str
    time: str
    meanings: Mapping[str, Mapping[str, str]]
    value_column: str = ""
    topic_column: str = ""

    @property
    def required(self) -> frozenset[str]:
        """Columns without which the file is not this export."""
        return frozenset(filter(None, (self.address, self.value_column)))

    def convert(self, row: Mapping[str, str], topics: Mapping[str, str]) -> dict[str, str]:
        """A row of the export as generic columns. Raises `TermsError` for a value with unknown meaning."""
        value = row.get(self.value_column, "").strip() if self.value_column else ""
        meaning = self.meanings.get(value.replace("-", "_").lower())
        if meaning is None:
            raise TermsError((Fault(self.value_column, shown(value), ", ".join(self.meanings)),))
        return {
            **meaning,
            "address": row.get(self.address, ""),
            "channel": str(Channel.EMAIL),
            "event_time": str(_any_time(row.get(self.time, "")) or ""),
            "topic": topics.get(row.get(self.topic_column, "").strip(), "") if self.topic_column else "",
        }


def _any_time(text: str) -> int:
    """The time an export gives, in any of the ways they do; 0, which is safe for an opt-out, when it cannot be read."""
    stripped = text.strip()
    if _UNIX(stripped):
        return round(float(stripped) * 1000)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(stripped)
        except (ValueError, TypeError, IndexError):
            continue
        return max(0, round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000))
    return 0


def _opt_out(reason: str) -> dict[str, str]:
    return {"kind": "object", "reason": reason}


def _block(reason: str) -> dict[str, str]:
    return {"kind": "block", "reason": reason}


EXPORTS: Final[Mapping[str, Export]] = MappingProxyType(
    {
        "ses": Export(
            address="EmailAddress",
            time="LastUpdateTime",
            value_column="Reason",
            meanings={"complaint": _opt_out("complaint"), "bounce": _block("bounce")},
        ),
        "sendgrid": Export(address="email", time="created", meanings={"": _opt_out("unsubscribe")}),
        "mailgun": Export(
            address="address", time="created_at", topic_column="tags", meanings={"": _opt_out("unsubscribe")}
        ),
        "postmark": Export(
            address="EmailAddress",
            time="CreatedAt",
            value_column="SuppressionReason",
            meanings={
                "hardbounce": _block("bounce"),
                "spamcomplaint": _opt_out("complaint"),
                "manualsuppression": _opt_out("unsubscribe"),
            },
        ),
        "sparkpost": Export(
            address="recipient",
            time="created",
            value_column="type",
            meanings={"non_transactional": _opt_out("unsubscribe"), "transactional": _block("suppressed for all mail")},
        ),
        "mailchimp": Export(
            address="email_address",
            time="last_changed",
            value_column="status",
            meanings={
                "subscribed": {"kind": "grant", "grade": "B", "method": "list status"},
                "pending": {"kind": "grant", "grade": "B", "method": "list status", "pending": "true"},
                "unsubscribed": _opt_out("unsubscribe"),
                "cleaned": _block("bounce"),
                "transactional": {"kind": "grant", "grade": "D", "method": "list status", "reason": "never subscribed"},
                "archived": {"kind": "grant", "grade": "D", "method": "list status", "reason": "archived"},
            },
        ),
    }
)

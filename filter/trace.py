"""The header lines we prepend, and counting those of others to stop loops.

Received: RFC 5321 section 4.4, protocol names RFC 3848 and RFC 6531 section 4.3. We only prepend: fields that a client
sends under our names (X-Consentry...) have no effect and are left as they are, because taking them out would break the
sender's signatures. Never raises. Pure; the instant is an argument.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from .envelope import Client, MailFrom, RcptTo

MAX_HEADER: Final = 1 << 20  # octets of header that are looked through for Received fields
LINE: Final = 78  # octets of a line without CRLF that should not be passed; RFC 5322 section 2.1.1
_MAX_HELO: Final = 255  # octets of a domain
_DAYS: Final = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")  # from 1 January 1970
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FEBRUARY: Final = 1
# What may stand in a domain or an address literal: nothing that could begin a comment, a token or a line.
_STRANGE: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


def prepended(
    client: Client, mail: MailFrom, recipients: Sequence[RcptTo], *, hostname: str, queue_id: str, at: int
) -> bytes:
    """All lines that go before a relayed message: `received` and the queue id."""
    return received(client, mail, recipients, hostname=hostname, queue_id=queue_id, at=at) + (
        b"X-Consentry: " + _domain(queue_id) + b"\r\n"
    )


def received(
    client: Client, mail: MailFrom, recipients: Sequence[RcptTo], *, hostname: str, queue_id: str, at: int
) -> bytes:
    """One Received field, folded, with CRLF. `at` is in epoch milliseconds; the date is in UTC.

    The recipient is named only if there is just one, so that no recipient learns of another.
    """
    tokens = [
        b"Received: from " + _domain(client.helo or "unknown"),
        b"(" + _address(client.address) + b")",
        b"by " + _domain(hostname),
        b"with " + _protocol(client, mail),
        b"id " + _domain(queue_id),
    ]
    if len(recipients) == 1:
        tokens.append(b"for <" + recipients[0].path + b">")
    tokens[-1] += b";"
    tokens.append(date(at // 1000) + b" (UTC)")
    return _folded(tokens)


def original_recipient(recipient: RcptTo) -> bytes:
    """The field that says on a diverted copy whom it was for, with CRLF."""
    return b"X-Consentry-Original-Recipient: <" + recipient.path + b">\r\n"


def released(order: str, at: int) -> bytes:
    """The field that says of a released copy by which order, and when (epoch milliseconds) it was sent, with CRLF."""
    return _released(order, at // 1000)


@lru_cache(maxsize=4)
def _released(order: str, second: int) -> bytes:
    return _folded([b"X-Consentry-Released: " + _domain(order) + b";", date(second) + b" (UTC)"])


def hop_count(content: bytes) -> int:
    """How many Received fields the header has; only its first MiB is looked at, and never the body."""
    if content.startswith(b"\r\n"):
        return 0
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER)
    header = content[: end if end >= 0 else MAX_HEADER].lower()
    return header.count(b"\nreceived:") + header.startswith(b"received:")


def _folded(tokens: Sequence[bytes]) -> bytes:
    """The tokens as one field: on as few lines as they fit on, each at least one token."""
    lines = [tokens[0]]
    for token in tokens[1:]:
        if len(lines[-1]) + 1 + len(token) <= LINE:
            lines[-1] += b" " + token
        else:
            lines.append(b"\t" + token)
    return b"\r\n".join(lines) + b"\r\n"


def _domain(text: str) -> bytes:
    return _STRANGE.sub("?", text[:_MAX_HELO]).encode()


def _address(address: str) -> bytes:
    if not address:
        return b"local"
    return _domain(f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]")


def _protocol(client: Client, mail: MailFrom) -> bytes:
    if not client.esmtp:
        return b"SMTP"
    name = b"UTF8SMTP" if mail.smtputf8 else b"ESMTP"
    return name + (b"S" if client.tls else b"") + (b"A" if client.user else b"")


@lru_cache(maxsize=4)
def date(seconds: int) -> bytes:
    """The instant in UTC as RFC 5322 section 3.3 writes it; the calendar is computed, as the core has no clock."""
    days, second = divmod(seconds, 86400)
    # Years begin in March here, so that the leap day comes last: 719468 days lie between 1 March 0000 and 1970.
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12
    year = era * 400 + year_of_era + (month <= _FEBRUARY)
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{_DAYS[days % 7]}, {day} {_MONTHS[month]} {year} {clock} +0000".encode()

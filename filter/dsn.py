"""Reports that mail was not delivered, to its sender (RFC 3464), and whether one is wanted (RFC 3461).

A report is multipart/report (RFC 6522): plain English, a message/delivery-status, and the header of the original (the
whole of it where the sender asked for RET=FULL and it is small). It is 7-bit, whatever the original was, with two
exceptions: a sender whose address is not ASCII gets the forms of RFC 6533 by SMTPUTF8, and a whole original with 8-bit
text is returned as it is. Everything from outside (addresses, replies, ENVID, ORCPT) is made printable first, so that
none of it begins a field. The same arguments give the same octets: a report that is sent twice can be told to be one.
Pure; never raises.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from .envelope import MailFrom, RcptTo
from .own_mail import OwnMail, addressed, domain, field, fields, paragraph, printable, quoted_printable, stands_plain
from .replies import Reply
from .trace import date

FULL_SIZE: Final = 1 << 20  # octets of an original that is returned whole if asked for
_MAX_HEADER: Final = 1 << 16  # octets of its header that are returned
_HEX: Final = re.compile(rb"\+([0-9A-Fa-f]{2})")
_IN_ADDRESS: Final = re.compile(r"[^!-*,-<>-\[\]-~]")  # what utf-8-addr-xtext writes as \x{...}; RFC 6533 section 3
_EMBEDDED: Final = re.compile(r"(\\x\{[0-9A-Fa-f]{2,6}\})")


class Cause(StrEnum):
    """Why a copy was not delivered."""

    REFUSED = "refused"  # the next hop answered 5xx
    GAVE_UP = "gave_up"  # it answered 4xx, or not at all, until there was no time left
    DISCARDED = "discarded"  # by a reviewer
    EXPIRED = "expired"  # nobody released it in time
    POLICY = "policy"  # rejected by policy, after copies of others had been taken


_SAID: Final = {
    Cause.REFUSED: "the next mail server refused it",
    Cause.GAVE_UP: "it could not be delivered in time, and no further attempt will be made",
    Cause.DISCARDED: "it was held for review, and the reviewer decided not to deliver it.",
    Cause.EXPIRED: "it was held for review, and nobody released it in time.",
    Cause.POLICY: "the mail policy of this site does not let it pass.",
}
# RFC 3463: 5.0.0 other, 5.4.7 delivery time expired, 5.7.1 not authorised by policy.
_STATUS: Final = {Cause.REFUSED: "5.0.0", Cause.GAVE_UP: "5.4.7"}
_POLICY_STATUS: Final = "5.7.1"


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient who did not get the message. `reply` is the last answer of `remote`, if there was any;
    `attempted_at` is when, in epoch milliseconds (0: never).
    """

    recipient: RcptTo
    cause: Cause
    reply: Reply | None = None
    remote: str = ""  # host name or address of the next hop
    attempted_at: int = 0

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463), always a permanent one."""
        if self.cause is Cause.REFUSED and self.reply and self.reply.enhanced.startswith("5."):
            return self.reply.enhanced
        return _STATUS.get(self.cause, _POLICY_STATUS)


class _Returned(NamedTuple):
    """What is returned of the original."""

    kind: bytes
    octets: bytes
    whole: bool


def wanted(mail: MailFrom, recipient: RcptTo) -> bool:
    """Whether the sender is to be told that this recipient did not get the message.

    Never for the null sender (RFC 5321 sections 4.5.5 and 6.1), nor where NOTIFY is NEVER or names no FAILURE (RFC 3461
    section 4.1). Without NOTIFY failures are reported. No other sender is exempt.
    """
    if not mail.path:
        return False
    notify = _parameter(recipient.params, b"NOTIFY")
    return notify is None or b"FAILURE" in notify.upper().split(b",")


def report(
    mail: MailFrom,
    failures: Sequence[Failure],
    *,
    message: bytes,
    hostname: str,
    queue_id: str,
    arrived_at: int,
    at: int,
) -> OwnMail:
    """The report on these recipients (for whom it is `wanted`) to the sender, ready to be sent.

    `message` is the original as it was to be delivered, CRLF lines. `arrived_at` and `at` (now) are epoch milliseconds.
    """
    utf8 = not mail.path.isascii()
    returned = _returned(mail, message, utf8=utf8)
    status = _delivery_status(mail, failures, hostname, queue_id, arrived_at, utf8=utf8)
    text = _text(failures, hostname, whole=returned.whole)
    charset = b"us-ascii" if text.isascii() else b"utf-8"
    machine = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
    mark = hashlib.blake2b(b"\0".join([status, text, b"%d" % at, returned.octets]), digest_size=16).hexdigest()
    boundary = b"=_" + mark.encode()  # a hash of everything between the lines: cannot stand there itself
    parts = [
        _part(b"text/plain; charset=" + charset, b"Notification", text, utf8=utf8),
        _part(machine, b"Delivery report", status, utf8=utf8),
        _part(returned.kind, b"Undelivered message", returned.octets, utf8=utf8, whole=returned.whole),
    ]
    body = b"".join([b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts]) + b"--" + boundary + b"--\r\n"
    head = _header(mail, hostname, mark, at, utf8=utf8)
    kind = b'multipart/report; report-type=delivery-status; boundary="' + boundary + b'"'
    content = head + field(b"Content-Type", kind) + b"\r\n" + b"This is a MIME message.\r\n\r\n" + body
    return addressed(mail.path, content, smtputf8=utf8)


def _header(mail: MailFrom, hostname: str, mark: str, at: int, *, utf8: bool) -> bytes:
    """The header without Content-Type. Auto-Submitted: RFC 3834 section 5."""
    host = domain(hostname).encode()
    return fields(
        [
            (b"Date", date(at // 1000)),
            (b"From", b"Mail Delivery System <MAILER-DAEMON@" + host + b">"),
            (b"To", b"<" + _address(mail.path, utf8=utf8) + b">"),
            (b"Subject", b"Undelivered mail returned to sender"),
            (b"Message-ID", b"<" + mark.encode() + b".report@" + host + b">"),
            (b"Auto-Submitted", b"auto-replied"),
            (b"MIME-Version", b"1.0"),
        ]
    )


def _text(failures: Sequence[Failure], hostname: str, *, whole: bool) -> bytes:
    """What a person reads, in UTF-8."""
    shown = "The message" if whole else "The header of the message"
    lines = [
        f"This is the mail system at {domain(hostname)}.",
        f"Your message was not delivered to {_counted(len(failures))}. {shown} is attached.",
    ]
    return b"\r\n".join([paragraph(line) for line in lines] + [paragraph(_told(one), "    ") for one in failures])


def _counted(number: int) -> str:
    return "one recipient" if number == 1 else f"{number} recipients"


def _told(failure: Failure) -> str:
    address = printable(failure.recipient.path.decode("utf-8", "replace"), utf8=True)
    said = f"<{address}>: {_SAID[failure.cause]}"
    if said.endswith("."):
        return said
    return f"{said}; the last answer was: {_diagnostic(failure.reply)}" if failure.reply else f"{said}."


def _delivery_status(
    mail: MailFrom, failures: Sequence[Failure], hostname: str, queue_id: str, arrived_at: int, *, utf8: bool
) -> bytes:
    """RFC 3464 section 2: fields of the message, then those of each recipient, groups parted by an empty line."""
    groups = [
        fields(
            [
                (b"Reporting-MTA", b"dns; " + domain(hostname).encode()),
                (b"Original-Envelope-Id", _decoded(_parameter(mail.params, b"ENVID") or b"").encode()),
                (b"X-Consentry-Queue-Id", domain(queue_id).encode()),
                (b"Arrival-Date", date(arrived_at // 1000)),
            ]
        )
    ]
    groups += [_recipient_fields(failure, utf8=utf8) for failure in failures]
    return b"\r\n".join(groups)


def _recipient_fields(failure: Failure, *, utf8: bool) -> bytes:
    recipient = failure.recipient
    return fields(
        [
            (b"Original-Recipient", _original_recipient(recipient, utf8=utf8)),
            (b"Final-Recipient", _typed_address(recipient.path, utf8=utf8)),
            (b"Action", b"failed"),
            (b"Status", failure.status.encode()),
            (b"Remote-MTA", b"dns; " + domain(failure.remote).encode() if failure.remote else b""),
            (b"Diagnostic-Code", f"smtp; {_diagnostic(failure.reply)}".encode() if failure.reply else b""),
            (b"Last-Attempt-Date", date(failure.attempted_at // 1000) if failure.attempted_at else b""),
        ]
    )


def _diagnostic(reply: Reply) -> str:
    return printable(" ".join(filter(None, [str(reply.code), reply.enhanced, *reply.lines])))


def _original_recipient(recipient: RcptTo, *, utf8: bool) -> bytes:
    """ORCPT decoded (RFC 3461 section 6.3); empty if there was none."""
    kind, _, value = (_parameter(recipient.params, b"ORCPT") or b"").partition(b";")
    if not value:
        return b""
    if kind.lower() == b"utf-8":
        return b"utf-8; " + _international(_unhexed(value).decode("utf-8", "replace"), utf8=utf8)
    return f"{printable(kind.decode('ascii', 'replace'))}; {_decoded(value)}".encode()


def _typed_address(path: bytes, *, utf8: bool) -> bytes:
    """An address with its kind: RFC 3464 section 2.3.2, beyond ASCII RFC 6533 section 3."""
    if path.isascii():
        return b"rfc822; " + _address(path, utf8=False)
    return b"utf-8; " + _international(path.decode("utf-8", "replace"), utf8=utf8)


def _international(address: str, *, utf8: bool) -> bytes:
    """utf-8-address, or utf-8-addr-xtext where there must be nothing but ASCII; what is written so already stays."""
    if utf8:
        return printable(address, utf8=True).encode()
    pieces = _EMBEDDED.split(address)
    pieces[::2] = [_IN_ADDRESS.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", piece) for piece in pieces[::2]]
    return "".join(pieces).encode()


def _address(path: bytes, *, utf8: bool) -> bytes:
    return printable(path.decode("utf-8", "replace"), utf8=utf8).encode()


def _parameter(params: Sequence[bytes], keyword: bytes) -> bytes | None:
    for param in params:
        name, equals, value = param.partition(b"=")
        if equals and name.upper() == keyword:
            return value
    return None


def _decoded(xtext: bytes) -> str:
    """What xtext means (RFC 3461 section 4); xtext itself if that is not printable ASCII, as it must be."""
    plain = _unhexed(xtext)
    usable = plain.isascii() and plain.decode().isprintable() and plain.strip() == plain
    return printable((plain if usable else xtext).decode("ascii", "replace"))


def _unhexed(xtext: bytes) -> bytes:
    return _HEX.sub(lambda found: bytes([int(found[1], 16)]), xtext)


def _returned(mail: MailFrom, message: bytes, *, utf8: bool) -> _Returned:
    """The original if it was asked for and can be had, else its header."""
    header = _header_of(message)
    world = not header.isascii() and (mail.smtputf8 or utf8)
    if (_parameter(mail.params, b"RET") or b"").upper() == b"FULL" and _returns_whole(mail, header, message, utf8=utf8):
        return _Returned(b"message/global" if world else b"message/rfc822", message, whole=True)
    return _Returned(b"message/global-headers" if world else b"text/rfc822-headers", header, whole=False)


def _header_of(message: bytes) -> bytes:
    """The header with the ends of its lines, and no more of it than may be returned."""
    if message.startswith(b"\r\n"):
        return b""
    head, _, _ = message[:_MAX_HEADER].partition(b"\r\n\r\n")
    whole, end, _ = (head + b"\r\n" if len(head) < _MAX_HEADER else head).rpartition(b"\r\n")
    return whole + end


def _returns_whole(mail: MailFrom, header: bytes, message: bytes, *, utf8: bool) -> bool:
    """Whether the original can stand in a report: a message inside another may not be encoded (RFC 2046 section 5.2.1).

    8-bit text goes where that of the original came from, an 8-bit header only where SMTPUTF8 is used.
    """
    if len(message) > FULL_SIZE or not stands_plain(message):
        return False
    return utf8 or message.isascii() or (mail.eight_bit and header.isascii())


def _part(kind: bytes, description: bytes, octets: bytes, *, utf8: bool, whole: bool = False) -> bytes:
    """One part with its header, encoded only if it must be."""
    encoding = b"7bit" if octets.isascii() else b"8bit"
    if not whole and ((not octets.isascii() and not utf8) or not stands_plain(octets)):
        encoding, octets = b"quoted-printable", quoted_printable(octets)
    about = [(b"Content-Type", kind), (b"Content-Description", description), (b"Content-Transfer-Encoding", encoding)]
    return fields(about) + b"\r\n" + octets

"""The top header fields of a message, decoded when asked for. Never raises; pure."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from .mailbox import first_mailbox
from .segments import Defect, DefectCode, clean
from .transfer import decode_header, note

KEPT_HEADERS = frozenset(
    {
        *("list-unsubscribe", "list-unsubscribe-post", "list-id", "precedence", "feedback-id", "x-mailer"),
        *("auto-submitted", "date", "content-language"),
    }
)
"""Header fields kept as evidence, and every `x-campaign…` besides."""

DECLARING_HEADERS = (
    *("x-consentry-declared", "x-message-type", "x-category", "x-mail-category", "x-email-type", "x-message-category"),
    *("x-mc-metadata", "x-mc-tags", "x-smtpapi-category", "x-mailgun-tag", "x-pm-tag", "x-tag"),
)
"""Fields in which senders claim what a message is; the first that is present becomes `Message.declared`."""
_DECLARING = frozenset(DECLARING_HEADERS)

MAX_VALUE = 2_000
"""Characters of a kept value."""
MAX_TO = 500
"""Octets or characters of To that are read: the names of the first recipients."""
_SHORT = 300


@lru_cache(maxsize=500)
def _short_mailbox(value: bytes) -> tuple[tuple[str, str], tuple[Defect, ...]]:
    """The first mailbox and its defects, remembered: one sender sends many messages."""
    defects: list[Defect] = []
    return first_mailbox(value, defects), tuple(defects)


class Fields:
    """Header fields as scanned (lower-case name -> raw values); `defects` takes what is odd in those asked for."""

    def __init__(self, fields: Mapping[str, list[bytes]], defects: list[Defect]) -> None:
        self._fields = fields
        self._defects = defects

    def raw(self, name: str) -> bytes:
        """The first value as it stands in the message; empty when there is none."""
        values = self._fields.get(name)
        return values[0] if values else b""

    def all(self, name: str) -> list[str]:
        """Every value, decoded, not yet clean."""
        return [decode_header(value, self._defects) for value in self._fields.get(name, ())]

    def one(self, name: str) -> str:
        """The first value, clean."""
        return clean(decode_header(self.raw(name)[:MAX_VALUE], self._defects))

    def sender(self) -> tuple[str, str]:
        """Display name and address of the first mailbox of From."""
        if len(self._fields.get("from", ())) > 1:
            note(self._defects, Defect(DefectCode.HEADER_MALFORMED, "from"))
        value = self.raw("from")
        if len(value) > _SHORT:
            return first_mailbox(value, self._defects)
        mailbox, defects = _short_mailbox(value)
        for defect in defects:
            note(self._defects, defect)
        return mailbox

    def recipients(self) -> str:
        """The beginning of To, clean. What is odd in it is nobody's concern: mail goes where the envelope says."""
        value = self.raw("to")[:MAX_TO]
        return clean(decode_header(value, [])) if value else ""

    def kept(self) -> Mapping[str, tuple[str, ...]]:
        """The fields kept as evidence."""
        names = [name for name in self._fields if name in KEPT_HEADERS or name.startswith("x-campaign")]
        return MappingProxyType({name: tuple(clean(value)[:MAX_VALUE] for value in self.all(name)) for name in names})

    def declared(self) -> str:
        """What the sender claims, word for word."""
        if _DECLARING.isdisjoint(self._fields):
            return ""
        return self.one(next(name for name in DECLARING_HEADERS if name in self._fields))

"""The two names of a message: the queue id we give it, and the key by which we know it when it comes again.

A queue id names one passage through this relay. A message key is the same for every attempt to hand over the same
message to the same recipients, and tells nobody anything without the secret. No I/O; the time is an argument. Raises
ValueError for a secret that is too short or too long, nothing else.
"""

import re
import secrets
import string
from collections.abc import Iterable
from hashlib import blake2b, sha256
from typing import Final

from .address import MIN_KEY
from .envelope import MailFrom, RcptTo

KEY_SIZE: Final = 16  # octets of a message key

_PERSON: Final = b"consentry msgkey"  # keeps these keys apart from everything else that is keyed with the same secret
_LETTERS: Final = string.digits + string.ascii_uppercase
_SUFFIX: Final = 6  # letters that tell processes apart: one chance in two thousand million, and in the same millisecond
_IN_ONE_MILLISECOND: Final = 0x10000
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:(?:[ \t]|\r\n[ \t])*[^ \t\r]", re.IGNORECASE | re.MULTILINE).search


def has_message_id(content: bytes) -> bool:
    """Whether the header has a Message-ID: only then are two equal messages certainly one (RFC 5322 section 3.6.4)."""
    end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n")
    return _MESSAGE_ID(content, 0, len(content) if end < 0 else end) is not None


class QueueIds:
    """Gives out queue ids: 21 characters of 0-9 and A-Z, in the order of time within a process.

    Eleven hexadecimal digits of epoch milliseconds, four of a counter, six letters drawn once for each process. A clock
    that is set back does not set the ids back.
    """

    def __init__(self) -> None:
        self._suffix = "".join(secrets.choice(_LETTERS) for _ in range(_SUFFIX))
        self._at = 0
        self._count = 0

    def next(self, at: int) -> str:
        """A new queue id at an instant (epoch milliseconds)."""
        if at > self._at:
            self._at, self._count = at, 0
        elif self._count == _IN_ONE_MILLISECOND - 1:
            self._at, self._count = self._at + 1, 0
        else:
            self._count += 1
        return f"{self._at:011X}{self._count:04X}{self._suffix}"


class MessageKeyer:
    """Makes message keys: keyed BLAKE2b-128 over the reverse path, the recipients in any order, and the content.

    The content is what the client sent, its Message-ID included, without the header lines we prepend. It goes in as its
    SHA-256, which processors have instructions for. `secret` has 16 to 64 octets.
    """

    def __init__(self, secret: bytes) -> None:
        if not MIN_KEY <= len(secret) <= blake2b.MAX_KEY_SIZE:
            raise ValueError(f"secret has {len(secret)} octets; allowed are {MIN_KEY} to {blake2b.MAX_KEY_SIZE}")
        self._started = blake2b(digest_size=KEY_SIZE, key=secret, person=_PERSON)

    def key(self, mail: MailFrom, recipients: Iterable[RcptTo], content: bytes) -> bytes:
        """The key of a message to these recipients: 16 octets."""
        state = self._started.copy()
        state.update(sha256(content).digest())
        # No path holds a line feed (RFC 5321 section 4.1.2), so the parts cannot run into each other.
        state.update(b"\n".join([mail.path, *sorted(recipient.path for recipient in recipients)]))
        return state.digest()

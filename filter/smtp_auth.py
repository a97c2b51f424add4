"""The AUTH dialogue (RFC 4954): PLAIN (RFC 4616) and LOGIN, from the client's lines to a name and a password checked.

Whether AUTH may be used at all is the session's business. Raises `AuthError` with the reply for what the client got
wrong. No credentials appear in a `repr`, and none are kept after they were checked.
"""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from . import replies
from .replies import RefusedError, Reply
from .users import Users

MECHANISMS: Final = (b"PLAIN", b"LOGIN")
MAX_LINE: Final = 12288  # octets of a line of this dialogue with its CRLF; RFC 4954 section 4
MAX_UNFINISHED: Final = 32  # checks, of one worker: about a second's work
_MAX_WORDS: Final = 2  # mechanism and initial response
_PARTS_OF_PLAIN: Final = 3
_EMPTY: Final = replies.challenge("")
_USERNAME: Final = replies.challenge(base64.b64encode(b"Username:").decode())
_PASSWORD: Final = replies.challenge(base64.b64encode(b"Password:").decode())


class AuthError(RefusedError):
    """The dialogue cannot go on."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What the client claims: a name and a password, as octets."""

    name: bytes
    password: bytes


class Exchange:
    """One AUTH command and the lines after it: each step gives the next challenge, or the credentials at the end."""

    def __init__(self, argument: bytes) -> None:
        """`argument` is all that follows AUTH. Raises AuthError."""
        words = argument.split()
        if not 1 <= len(words) <= _MAX_WORDS:
            raise AuthError(replies.SYNTAX)
        mechanism = words[0].upper()
        if mechanism not in MECHANISMS:
            raise AuthError(replies.AUTH_MECHANISM_UNKNOWN)
        self._plain = mechanism == b"PLAIN"
        self._initial = words[1] if len(words) == _MAX_WORDS else None
        self._name: bytes | None = None

    def begin(self) -> Reply | Credentials:
        """What comes after the command itself. Raises AuthError."""
        if self._initial is None:
            return _EMPTY if self._plain else _USERNAME
        # "=" stands for an initial response that is there and empty (RFC 4954 section 4).
        return self._take(b"" if self._initial == b"=" else _decode(self._initial))

    def step(self, line: bytes) -> Reply | Credentials:
        """What comes after a line of the client, given without its CRLF. Raises AuthError."""
        if line == b"*":
            raise AuthError(replies.AUTH_CANCELLED)
        return self._take(_decode(line))

    def _take(self, answer: bytes) -> Reply | Credentials:
        if self._plain:
            return _split_plain(answer)
        if self._name is None:
            self._name = answer
            return _PASSWORD
        return Credentials(self._name, answer)


class PasswordChecker:
    """Checks passwords in two threads of its own, so that logging in never stops mail that flows.

    Whoever connects may ask for a check, and go away before it is done: so only a few may wait.
    """

    def __init__(self, users: Users) -> None:
        self._users = users
        self._unfinished = 0
        self._threads = ThreadPoolExecutor(2, "password")

    @property
    def busy(self) -> bool:
        """Whether as many wait as may."""
        return self._unfinished >= MAX_UNFINISHED

    async def check(self, claimed: Credentials) -> bool:
        """Whether the password is the user's; not to be asked while `busy`."""
        loop = asyncio.get_running_loop()
        self._unfinished += 1
        try:
            return await loop.run_in_executor(self._threads, self._users.verify, claimed.name, claimed.password)
        finally:
            self._unfinished -= 1

    def close(self) -> None:
        """End the threads; a check that waits is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise AuthError(replies.AUTH_NOT_BASE64) from error


def _split_plain(answer: bytes) -> Credentials:
    """`authorization NUL name NUL password`; acting for somebody else is not offered, so both names must agree."""
    parts = answer.split(b"\0")
    if len(parts) != _PARTS_OF_PLAIN or not parts[1] or parts[0] not in {b"", parts[1]}:
        raise AuthError(replies.AUTH_NOT_BASE64)
    return Credentials(parts[1], parts[2])

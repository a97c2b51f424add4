"""Sealing of held mail: AES-256-GCM under a fresh key for each message, which is kept wrapped by a master key.

A `Vault` holds the master keys; it makes and opens the key of a message. Erasing the wrapped key makes the message
unreadable for good, and a change of master keys wraps 60 octets for a message anew instead of its content.

Bounds, from NIST SP 800-38D <https://doi.org/10.6028/NIST.SP.800-38D>: nonces are random, 96 bits, one for each seal
(section 8.2.2), so that one key may seal 2^32 times (section 8.3). The key of a message seals a handful of fields; a
master key wraps once for each message and should give way to a new one before four thousand million messages. Tags have
128 bits. One seal takes up to 2^31 - 1 octets (the library's bound, below the 2^36 - 32 of section 5.2.1.1).

Computes only; random octets come from the operating system. Raises `UnknownKeyError` for a master key that is not there
and `SealError` for anything that is not what was sealed; neither carries key material or content.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import ConsentryError

KEY_SIZE: Final = 32  # octets, of master keys and of those of messages
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
OVERHEAD: Final = NONCE_SIZE + TAG_SIZE
"""By how many octets what is sealed is longer than what it was."""
WRAPPED_SIZE: Final = KEY_SIZE + OVERHEAD

_WRAPPING: Final = b"consentry hold key "  # what a wrapped key is about: nothing else opens as one


class SealError(ConsentryError):
    """What is sealed was changed, cut, or sealed with another key or about something else."""


class UnknownKeyError(ConsentryError):
    """The master key that is needed is not among those given; `key_id` names it."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f"hold key {_shown(key_id)}: not among the hold keys; put it back into the key file")


class MessageKey:
    """Seals the fields of one message. `about` says which field of which message it is, and must be the same to open:
    what is moved to another place does not open there.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, octets: bytes, about: bytes) -> bytes:
        """Nonce, ciphertext and tag: `OVERHEAD` octets more than `octets`."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, octets, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What was sealed. Raises SealError."""
        return _open(self._cipher, sealed, about)


class Vault:
    """The master keys by id, and which of them wraps new keys. May be used by several threads at once.

    `more` gives the keys as they are now, the current one first (none if that is not known), and is asked when a key is
    met that is not here; it must not raise. Raises ValueError if a key has not `KEY_SIZE` octets or the current one is
    not among them.
    """

    __slots__ = ("_more", "_ring")

    def __init__(
        self, keys: Mapping[str, bytes], current: str, more: "Callable[[], Sequence[bytes]] | None" = None
    ) -> None:
        self._ring = _Ring.of(keys, current)
        self._more = more

    @classmethod
    def of(cls, keys: Sequence[bytes], more: "Callable[[], Sequence[bytes]] | None" = None) -> "Vault":
        """A vault of these keys, the current one first."""
        return cls({key_id(key): key for key in keys}, key_id(keys[0]), more)

    @property
    def current(self) -> str:
        """The id of the master key that wraps new keys."""
        return self._ring.current

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all master keys."""
        return tuple(self._ring.ciphers)

    def new_key(self) -> tuple[MessageKey, bytes, str]:
        """A random key for one message, the same wrapped (`WRAPPED_SIZE` octets), and the id of its master key."""
        key = os.urandom(KEY_SIZE)
        return MessageKey(key), *self._ring.wrap(key)

    def open_key(self, key_id: str, wrapped: bytes) -> MessageKey:
        """The key of a message. Raises UnknownKeyError, SealError."""
        return MessageKey(self._unwrap(key_id, wrapped))

    def rewrap(self, key_id: str, wrapped: bytes) -> tuple[bytes, str]:
        """The key of a message wrapped anew, and the id of the current master key. Raises as `open_key` does."""
        return self._ring.wrap(self._unwrap(key_id, wrapped))

    def _unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        if key_id not in self._ring.ciphers:
            self._look_again()
        cipher = self._ring.ciphers.get(key_id)
        if cipher is None:
            raise UnknownKeyError(key_id)
        return _open(cipher, wrapped, _WRAPPING + key_id.encode())

    def _look_again(self) -> None:
        if self._more and (keys := self._more()):
            self._ring = _Ring.of({key_id(key): key for key in keys}, key_id(keys[0]))


class _Ring(NamedTuple):
    """One set of master keys: taken as a whole, so that a thread never sees half of a change."""

    ciphers: Mapping[str, AESGCM]
    current: str

    @classmethod
    def of(cls, keys: Mapping[str, bytes], current: str) -> "_Ring":
        if current not in keys or any(len(key) != KEY_SIZE for key in keys.values()):
            raise ValueError(f"a vault takes keys of {KEY_SIZE} octets, the current one among them")
        return cls({name: AESGCM(key) for name, key in keys.items()}, current)

    def wrap(self, key: bytes) -> tuple[bytes, str]:
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self.ciphers[self.current].encrypt(nonce, key, _WRAPPING + self.current.encode()), self.current


def key_id(key: bytes) -> str:
    """The name of a master key: 8 hex digits of a hash of it, which tell nothing about a random key."""
    return hashlib.blake2b(key, digest_size=4, person=b"consentry hold").hexdigest()


def _open(cipher: AESGCM, sealed: bytes, about: bytes) -> bytes:
    if len(sealed) < OVERHEAD:
        raise SealError(f"sealed octets: {len(sealed)} of them: at least {OVERHEAD} are needed")
    try:
        return cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], about)
    except InvalidTag:
        raise SealError("sealed octets: changed since, or sealed with another key") from None


def _shown(key_id: str) -> str:
    """A key id as it may be shown, also one that was read from a damaged row."""
    return key_id if key_id.isascii() and key_id.isalnum() and len(key_id) <= 16 else "of another form"  # noqa: PLR2004

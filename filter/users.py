"""Who may log in to send mail: a file of names and salted password hashes (scrypt, RFC 7914), read once.

A line is `name:$scrypt$ln=15,r=8,p=1$SALT$HASH`, salt and hash in base64 without padding; empty lines and lines that
begin with # are left out. `consentry users hash` makes the part after the name. A file that others may read is refused.

Raises `ConfigError` that lists every line that cannot be used, without showing it; operating system errors pass
through.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Final, NamedTuple, Self

from .errors import ConfigError, Problem

_SALT_SIZE: Final = 16
_HASH_SIZE: Final = 32
_MAX_MEMORY: Final = 256 * 1024 * 1024  # of one verification, octets
_MAX_PASSWORD: Final = 1024  # octets
_ALLOWED: Final = "allowed is name:$scrypt$ln=15,r=8,p=1$SALT$HASH as `consentry users hash` prints it"
_HASH: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)


class Cost(NamedTuple):
    """How dear one guess is: 2**`log` rounds over blocks of 128 * `block` octets, `lanes` times."""

    log: int
    block: int
    lanes: int

    @property
    def memory(self) -> int:
        """Octets that one derivation takes."""
        return 128 * self.block * (int(2**self.log) + self.lanes)

    def derive(self, password: bytes, salt: bytes, size: int) -> bytes:
        """`size` octets from the password and the salt."""
        room = self.memory + 1024 * 1024  # what OpenSSL needs beside the blocks
        return hashlib.scrypt(password, salt=salt, n=2**self.log, r=self.block, p=self.lanes, maxmem=room, dklen=size)


_USUAL: Final = Cost(15, 8, 1)  # 32 MiB and about 60 ms for one password


@dataclass(frozen=True, slots=True, repr=False)
class PasswordHash:
    """A salted hash and what it cost."""

    cost: Cost
    salt: bytes
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """The hash in the form of `hash_password`. Raises ValueError."""
        found = _HASH.fullmatch(text)
        if not found:
            raise ValueError(_ALLOWED)
        cost = Cost(*(int(number) for number in found.groups()[:3]))
        if cost.log not in range(10, 21) or cost.block not in range(1, 33) or cost.lanes not in range(1, 17):
            raise ValueError("allowed are ln 10 to 20, r 1 to 32, p 1 to 16")
        if cost.memory > _MAX_MEMORY:
            raise ValueError("needs more than 256 MiB for one login; allowed is less, such as ln=15,r=8,p=1")
        return cls(cost, _from_base64(found[4]), _from_base64(found[5]))

    def matches(self, password: bytes) -> bool:
        """Whether the password is the one that was hashed; takes as long for a wrong one."""
        derived = self.cost.derive(password[:_MAX_PASSWORD], self.salt, len(self.digest))
        return hmac.compare_digest(derived, self.digest) and len(password) <= _MAX_PASSWORD


class Users:
    """The people and programs that may log in. Names are compared octet by octet, as UTF-8."""

    def __init__(self, hashes: Mapping[str, PasswordHash]) -> None:
        self._hashes = {name.encode(): known for name, known in hashes.items()}
        # An unknown name costs what one of the known ones does, always the same one, so that time does not tell which
        # names exist.
        costs = [known.cost for known in hashes.values()] or [_USUAL]
        self._nobodies = [PasswordHash(cost, token_bytes(_SALT_SIZE), token_bytes(_HASH_SIZE)) for cost in costs]
        self._secret = token_bytes(_HASH_SIZE)

    def __len__(self) -> int:
        return len(self._hashes)

    def verify(self, name: bytes, password: bytes) -> bool:
        """Whether this is the password of this user. Takes tens of milliseconds of one core: call it in a thread."""
        known = self._hashes.get(name)
        right = (known or self._nobody(name)).matches(password)
        return right and known is not None

    def _nobody(self, name: bytes) -> PasswordHash:
        digest = hashlib.blake2b(name, key=self._secret, digest_size=8).digest()
        return self._nobodies[int.from_bytes(digest) % len(self._nobodies)]


def load_users(path: Path) -> Users:
    """The users in a file that only its owner may read. Raises ConfigError with every problem, and OSError."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{path} cannot be used:", [Problem(str(path), f"mode {mode:04o}", f"run: chmod 600 {path}")]
            )
        lines = file.read().split(b"\n")
    hashes: dict[str, PasswordHash] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            name, known = _parse_line(line, taken=hashes)
            hashes[name] = known
        except ValueError as error:  # UnicodeDecodeError among them
            problems.append(Problem(f"{path}:{number}", "(not shown)", str(error)))
    if problems:
        raise ConfigError(f"{path} cannot be used:", problems)
    return Users(hashes)


def hash_password(password: str) -> str:
    """The line of a user after `name:`, with a fresh salt. Raises ValueError for an empty or over-long password."""
    octets = password.encode()
    if not 0 < len(octets) <= _MAX_PASSWORD:
        raise ValueError(f"a password has 1 to {_MAX_PASSWORD} octets")
    salt = token_bytes(_SALT_SIZE)
    digest = _USUAL.derive(octets, salt, _HASH_SIZE)
    return f"$scrypt$ln={_USUAL.log},r={_USUAL.block},p={_USUAL.lanes}${_to_base64(salt)}${_to_base64(digest)}"


def _parse_line(line: bytes, taken: Container[str]) -> tuple[str, PasswordHash]:
    try:
        text = line.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    name, colon, hashed = text.partition(":")
    if not name or not colon or not name.isprintable() or name != name.strip():
        raise ValueError(_ALLOWED)
    if name in taken:
        raise ValueError("the name stands in an earlier line; allowed is one line for each")
    return name, PasswordHash.parse(hashed)


def _to_base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(_ALLOWED) from error

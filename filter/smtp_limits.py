"""How much a client may take of this server: settings, what all sessions of a worker share, what one session used up.

Answers are replies to give, or None for "go on". Raises nothing. No I/O and no clock.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from . import replies
from .replies import Reply

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of [smtp]. Times are in seconds, sizes in octets; `connections` and `bytes_in_flight` per worker.

    `data_rate` is in octets a second, averaged over `rate_window`. `tick` is how often deadlines are looked at.
    """

    message_size: int = 50 * _MIB
    recipients: int = 1000
    connections: int = 1000
    connections_per_client: int = 100
    errors: int = 20
    idle_commands: int = 100
    auth_failures: int = 3
    bytes_in_flight: int = 256 * _MIB
    command_timeout: float = 300
    data_timeout: float = 600
    data_rate: int = 1024
    rate_window: float = 30
    tls_timeout: float = 30
    session: float = 3600
    linger: float = 10  # to send the last reply and see the connection closed
    tick: float = 1


class Usage:
    """What the sessions of this worker take together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: Counter[str] = Counter()
        self.connections = 0
        self.bytes_in_flight = 0

    def connect(self, address: str) -> Reply | None:
        """Count a connection of this client, unless there are too many: then the reply to close it with."""
        if self.connections >= self._limits.connections:
            return replies.TOO_MANY_CONNECTIONS
        # A client without an address (a balancer's own health check) counts among all connections only.
        if address and self._clients[address] >= self._limits.connections_per_client:
            return replies.TOO_MANY_FROM_CLIENT
        self.connections += 1
        self._clients[address] += 1
        return None

    def disconnect(self, address: str) -> None:
        """Undo `connect`."""
        self.connections -= 1
        self._clients[address] -= 1
        if not self._clients[address]:
            del self._clients[address]

    def has_room(self, size: int) -> bool:
        """Whether a message of so many octets may come in now."""
        return self.bytes_in_flight + size <= self._limits.bytes_in_flight

    def take(self, size: int) -> bool:
        """Count octets of a message that arrived; whether that is still within the limit."""
        self.bytes_in_flight += size
        return self.bytes_in_flight <= self._limits.bytes_in_flight

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        self.bytes_in_flight -= size


@dataclass(slots=True)
class Conduct:
    """How one session behaved since its last message; each method counts and gives the reply that ends the session."""

    limits: Limits
    errors: int = field(default=0, init=False)
    idle_commands: int = field(default=0, init=False)
    auth_failures: int = field(default=0, init=False)

    def error(self) -> Reply | None:
        """A command that was refused for what the client did, not for what the next hop said."""
        self.errors += 1
        return replies.TOO_MANY_ERRORS if self.errors >= self.limits.errors else None

    def idle_command(self) -> Reply | None:
        """A command that moves no mail."""
        self.idle_commands += 1
        return replies.TOO_MANY_IDLE_COMMANDS if self.idle_commands > self.limits.idle_commands else None

    def auth_failure(self) -> Reply | None:
        """A wrong password; these are never forgotten."""
        self.auth_failures += 1
        return replies.TOO_MANY_AUTH_FAILURES if self.auth_failures >= self.limits.auth_failures else None

    def message(self) -> None:
        """A message was taken: errors before it are forgotten."""
        self.errors = self.idle_commands = 0


class Pace:
    """Whether a message comes in fast enough: times in seconds of any clock, `received` in octets so far."""

    __slots__ = ("_began", "_limits", "_received", "_since")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._began = self._since = now  # of the message, of the window that is measured
        self._received = 0  # at the beginning of the window

    def too_slow(self, now: float, received: int) -> bool:
        """Whether the message takes too long, or too little of it came in the last window."""
        if now - self._began > self._limits.data_timeout:
            return True
        if (window := now - self._since) < self._limits.rate_window:
            return False
        arrived = received - self._received
        self._since, self._received = now, received
        return arrived < self._limits.data_rate * window

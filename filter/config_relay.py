"""The tables of the file that concern the way of a message: doors, next hop, divert, store, journal.

Sizes are octets, durations timedelta. Nothing is checked here beyond each value; `config_checks` looks at what they say
together. Raises nothing of its own.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .config_kinds import (
    LIST,
    Address,
    FilePath,
    Flag,
    Listen,
    Networks,
    OptionalDomain,
    OptionalPath,
    Peer,
    SecretPath,
    Section,
    StoreUrl,
    User,
    counted,
    sized,
    timed,
    word,
)
from .config_values import Endpoint
from .tls_policy import TlsPolicy

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


class BareLineEndings(StrEnum):
    """What is done with a CR or LF that stands alone in a message."""

    NORMALIZE = "normalize"
    REJECT = "reject"


class LongLines(StrEnum):
    """What is done with a message that has lines over 998 octets (RFC 5322 section 2.1.1)."""

    RELAY = "relay"
    REJECT = "reject"


class SmtpSettings(Section):
    """[smtp]: where mail comes in, from whom, and how much of it. Numbers of connections are per worker."""

    hostname: OptionalDomain = ""
    listen: Annotated[tuple[Listen, ...], *LIST] = (Endpoint("127.0.0.1", 2625),)
    tls_listen: Annotated[tuple[Listen, ...], *LIST] = ()
    relay_networks: Networks = ()
    tls_cert_file: OptionalPath = None
    tls_key_file: SecretPath = None
    require_tls: Flag = False
    users_file: OptionalPath = None
    proxy_networks: Networks = ()
    xforward_networks: Networks = ()
    max_message_size: Annotated[int, sized("64 KiB", "1 GiB")] = 50 * _MIB  # RFC 5321 section 4.5.3.1.7: at least 64 K
    max_recipients: Annotated[int, counted(1, 100_000)] = 1000
    max_connections: Annotated[int, counted(1, 100_000)] = 1000
    max_connections_per_client: Annotated[int, counted(1, 100_000)] = 100
    max_errors: Annotated[int, counted(1, 10_000)] = 20
    max_idle_commands: Annotated[int, counted(1, 10_000)] = 100
    max_auth_failures: Annotated[int, counted(1, 100)] = 3
    max_bytes_in_flight: Annotated[int, sized("1 MiB", "1 TiB")] = 256 * _MIB
    max_hops: Annotated[int, counted(1, 1000)] = 50
    command_timeout: Annotated[timedelta, timed("1s", "1h")] = timedelta(minutes=5)
    data_timeout: Annotated[timedelta, timed("1s", "1h")] = timedelta(minutes=10)
    min_data_rate: Annotated[int, sized("1 B", "1 GiB")] = _KIB
    tls_timeout: Annotated[timedelta, timed("1s", "10min")] = timedelta(seconds=30)
    max_session: Annotated[timedelta, timed("1s", "30d")] = timedelta(hours=1)
    # RFC 5321 section 4.5.3.2.6: a client waits ten minutes for the reply to the end of data.
    transaction_timeout: Annotated[timedelta, timed("1s", "9min")] = timedelta(seconds=90)
    bare_line_endings: Annotated[BareLineEndings, word(*BareLineEndings)] = BareLineEndings.NORMALIZE
    long_lines: Annotated[LongLines, word(*LongLines)] = LongLines.RELAY

    @property
    def serves(self) -> bool:
        """Whether there is an SMTP door."""
        return bool(self.listen or self.tls_listen)

    @property
    def drain_time(self) -> float:
        """Seconds that messages under way may take to end, and their clients to hear of it."""
        return self.transaction_timeout.total_seconds() + 10


class NextHopSettings(Section):
    """[next_hop]: the MTA that takes what is relayed."""

    hosts: Annotated[tuple[Peer, ...], *LIST] = (Endpoint("127.0.0.1", 2525),)
    tls: Annotated[TlsPolicy, word(*TlsPolicy)] = TlsPolicy.OPPORTUNISTIC
    tls_ca_file: OptionalPath = None
    user: User = ""
    password_file: SecretPath = None
    max_connections: Annotated[int, counted(1, 10_000)] = 50
    idle_timeout: Annotated[timedelta, timed("1s", "1h")] = timedelta(seconds=30)
    max_age: Annotated[timedelta, timed("1s", "1d")] = timedelta(minutes=5)
    connect_timeout: Annotated[timedelta, timed("100ms", "5min")] = timedelta(seconds=5)
    command_timeout: Annotated[timedelta, timed("100ms", "9min")] = timedelta(seconds=30)
    breaker_failures: Annotated[int, counted(1, 1000)] = 5
    breaker_pause: Annotated[timedelta, timed("100ms", "1h")] = timedelta(seconds=10)
    xforward: Flag = True


class DivertSettings(Section):
    """[divert]: where diverted copies go. Without hosts, to those of [next_hop]; without address, as addressed."""

    hosts: Annotated[tuple[Peer, ...], *LIST] = ()
    address: Address = ""


class StoreSettings(Section):
    """[store]: where everything durable is kept; with `url`, held mail and campaigns are in PostgreSQL instead."""

    dir: FilePath = Field(default="var", validate_default=True)
    url: StoreUrl = ""
    password_file: SecretPath = None
    min_free_space: Annotated[int, sized("0 B", "1 TiB")] = _GIB


class JournalSettings(Section):
    """[journal]: the record of events; `sync` is how often it is made durable."""

    sync: Annotated[timedelta, timed("10ms", "1min")] = timedelta(seconds=1)


class HttpSettings(Section):
    """[http]: health and metrics."""

    listen: Listen = Endpoint("127.0.0.1", 9625)

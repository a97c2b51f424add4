"""The table of the file that concerns Kafka: where it is, who we are there, which topics, how much at once.

Sizes are octets, durations timedelta. Nothing is checked here beyond each value; `config_checks` looks at what they say
together. Raises nothing of its own.
"""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import PlainValidator

from .config_kinds import LIST, OptionalPath, Peer, SecretPath, Section, User, counted, sized, timed, word

OUTPUTS: Final = ("relay", "held", "diverted", "decisions", "dead-letter")
_MIB: Final = 1 << 20
_MAX_TOPIC: Final = 200  # Kafka's own limit of 249 less what the names of our other topics add
_DRAIN_TIME: Final = 60.0  # seconds
_TOPIC: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{_MAX_TOPIC}}}")
_MAX_GROUP: Final = 200


class KafkaTls(StrEnum):
    """How connections to brokers are protected."""

    OFF = "off"
    VERIFY = "verify"  # certificate and name


class Sasl(StrEnum):
    """How we log in with brokers."""

    NONE = ""
    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class FirstOffset(StrEnum):
    """Where a group begins that never committed an offset."""

    EARLIEST = "earliest"
    LATEST = "latest"


def _topic(value: Any) -> str:
    if not isinstance(value, str) or not _TOPIC.fullmatch(value) or not value.strip("."):
        raise ValueError(
            f'the name of a topic: 1 to {_MAX_TOPIC} of the characters A-Z a-z 0-9 . _ -, such as "outbound"'
        )
    return value


def _optional_topic(value: Any) -> str:
    return "" if value == "" else _topic(value)


def _group(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _MAX_GROUP
        or not value.isascii()
        or not value.isprintable()
    ):
        raise ValueError(f"the name of a group: 1 to {_MAX_GROUP} printable ASCII characters")
    return value


OptionalTopic = Annotated[str, PlainValidator(_optional_topic)]
Group = Annotated[str, PlainValidator(_group)]


class KafkaSettings(Section):
    """[kafka]: the Kafka door, and where consent events come from; without servers there is neither."""

    bootstrap_servers: Annotated[tuple[Peer, ...], *LIST] = ()
    topic: OptionalTopic = "outbound"
    group: Group = "consentry"
    first_offset: Annotated[FirstOffset, word(*FirstOffset)] = FirstOffset.EARLIEST
    max_message_size: Annotated[int, sized("64 KiB", "1 GiB")] = _MIB
    max_recipients: Annotated[int, counted(1, 100_000)] = 1000
    batch_records: Annotated[int, counted(1, 10_000)] = 500
    batch_size: Annotated[int, sized("64 KiB", "1 GiB")] = 16 * _MIB
    batch_time: Annotated[timedelta, timed("1ms", "10s")] = timedelta(milliseconds=100)
    tls: Annotated[KafkaTls, word(*KafkaTls)] = KafkaTls.OFF
    tls_ca_file: OptionalPath = None
    tls_cert_file: OptionalPath = None
    tls_key_file: SecretPath = None
    sasl: Annotated[Sasl, word(*Sasl)] = Sasl.NONE
    user: User = ""
    password_file: SecretPath = None
    session_timeout: Annotated[timedelta, timed("1s", "30min")] = timedelta(seconds=45)
    stall_timeout: Annotated[timedelta, timed("1s", "1h")] = timedelta(minutes=2)
    consent_topic: OptionalTopic = "consent.events"

    @property
    def serves(self) -> bool:
        """Whether there is a Kafka door."""
        return bool(self.bootstrap_servers and self.topic)

    @property
    def follows(self) -> str:
        """The topic that consent events come from; empty when they are imported only."""
        return self.consent_topic if self.bootstrap_servers else ""

    @property
    def drain_time(self) -> float:
        """Seconds in which a transaction under way ends, one way or the other."""
        return _DRAIN_TIME if self.bootstrap_servers else 0.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The topics that the Kafka door writes to."""
        return tuple(f"{self.topic}.{name}" for name in OUTPUTS)

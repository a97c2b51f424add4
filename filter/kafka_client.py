"""The configuration as aiokafka takes it: keyword arguments of its clients, safe where its defaults are not.

What is not its default, and why (research on aiokafka 0.14): offsets are committed inside transactions only, never in
the background; an offset that is gone is an error, never a silent jump to the end; nothing is (de)serialised by the
library, where one bad record would block its partition for ever; aborted records are not seen; sessions outlast a busy
event loop, and no time limit of the client's own makes a member leave, which could not come back without partitions.
Reads the files that settings name. Raises ConfigError (see `credentials`).
"""

from datetime import timedelta
from functools import partial
from typing import Any, Final

from . import credentials
from .config_kafka import FirstOffset, KafkaSettings, KafkaTls, Sasl
from .kafka_ingest import IngestOptions
from .kafka_output import KafkaOptions
from .kafka_results import HELD

TRANSACTION_TIMEOUT: Final = 60_000  # milliseconds; brokers allow 15 min by default
_REQUEST_TIMEOUT: Final = 20_000  # milliseconds
_REBALANCE: Final = 60_000  # milliseconds at least that members have to give up their partitions
_MOST_HEARTBEATS: Final = 3_000  # milliseconds between them at most
_FENCE_BEATS: Final = 2  # heartbeats in which a member that was left behind hears of it
_NEVER: Final = 7 * 86_400_000  # milliseconds; a stall is noticed by ourselves
_FETCH_WAIT: Final = 100  # milliseconds; a partition just read to its end waits for so long behind the others
_FETCH: Final = 4 << 20  # octets of one partition in one answer
_BATCH: Final = 256 << 10  # octets of one batch of records: topics with smaller limits than Kafka's default are met
_OVERHEAD: Final = 64 << 10  # octets that our headers may add to a message


def connection(kafka: KafkaSettings) -> dict[str, Any]:
    """What every client needs: servers, TLS, login."""
    context = credentials.kafka_context(kafka)
    options: dict[str, Any] = {
        "bootstrap_servers": [str(server) for server in kafka.bootstrap_servers],
        "client_id": "consentry",
        "security_protocol": _protocol(kafka),
        "ssl_context": context,
        "request_timeout_ms": _REQUEST_TIMEOUT,
        "metadata_max_age_ms": 60_000,
    }
    if kafka.sasl is not Sasl.NONE:
        options["sasl_mechanism"] = str(kafka.sasl)
        options["sasl_plain_username"] = kafka.user
        options["sasl_plain_password"] = credentials.kafka_password(kafka)
    return options


def consumer(kafka: KafkaSettings) -> dict[str, Any]:
    """A consumer of the group, beside `connection`."""
    session = milliseconds(kafka.session_timeout)
    return {
        **reader(kafka),
        "group_id": kafka.group,
        "session_timeout_ms": session,
        "heartbeat_interval_ms": min(_MOST_HEARTBEATS, session // 3),
        "rebalance_timeout_ms": max(_REBALANCE, session),
        "max_poll_interval_ms": _NEVER,
        "max_partition_fetch_bytes": min(kafka.batch_size, max(_FETCH, kafka.max_message_size)),
    }


def reader(_kafka: KafkaSettings) -> dict[str, Any]:
    """A consumer that gets its partitions and offsets from us, beside `connection`."""
    return {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_wait_ms": _FETCH_WAIT,
    }


def producer(kafka: KafkaSettings) -> dict[str, Any]:
    """A producer that loses and repeats nothing, beside `connection`."""
    return {
        "acks": "all",
        "enable_idempotence": True,
        "max_batch_size": _BATCH,
        "max_request_size": kafka.max_message_size + _OVERHEAD,
    }


def transactional(kafka: KafkaSettings, partition: int) -> dict[str, Any]:
    """The producer of one input partition: whoever starts it with this name fences the one before."""
    name = f"consentry-{kafka.group}-{kafka.topic}-{partition}"
    return {**producer(kafka), "transactional_id": name, "transaction_timeout_ms": TRANSACTION_TIMEOUT}


def options(kafka: KafkaSettings) -> KafkaOptions:
    """Everything that the Kafka door is told."""
    heartbeat = consumer(kafka)["heartbeat_interval_ms"] / 1000
    return KafkaOptions(
        topic=kafka.topic,
        outputs=kafka.outputs,
        group=kafka.group,
        from_beginning=kafka.first_offset is FirstOffset.EARLIEST,
        connection=connection(kafka),
        consumer=consumer(kafka),
        producer=partial(transactional, kafka),
        batch_records=kafka.batch_records,
        batch_size=kafka.batch_size,
        batch_time=kafka.batch_time.total_seconds(),
        stall_timeout=kafka.stall_timeout.total_seconds(),
        fence_pause=_FENCE_BEATS * heartbeat,
    )


def ingest(kafka: KafkaSettings) -> IngestOptions:
    """Everything that whoever takes in held copies is told; a group of its own."""
    return IngestOptions(
        topic=f"{kafka.topic}.{HELD}",
        connection=connection(kafka),
        consumer={**consumer(kafka), "group_id": f"{kafka.group}-{HELD}"},
        stall_timeout=kafka.stall_timeout.total_seconds(),
    )


def milliseconds(duration: timedelta) -> int:
    """A duration as Kafka's settings have it."""
    return duration // timedelta(milliseconds=1)


def _protocol(kafka: KafkaSettings) -> str:
    tls = kafka.tls is KafkaTls.VERIFY
    if kafka.sasl is Sasl.NONE:
        return "SSL" if tls else "PLAINTEXT"
    return "SASL_SSL" if tls else "SASL_PLAINTEXT"

"""The content of a held message: mail, or what came by Kafka; read as it was when it was judged, and who can carry it.

Raises InputError for what is no message any more. Pure.
"""

from enum import StrEnum

from . import kafka_records
from .message import Message, parse_message
from .ports import HeldMessage


class ReleaseTo(StrEnum):
    """Where released copies go."""

    ORIGIN = "origin"  # where their message came from
    SMTP = "smtp"  # the next hop; what SMTP cannot carry goes to Kafka
    KAFKA = "kafka"


def read_message(held: HeldMessage) -> Message:
    """The message; its content must be there."""
    if held.kafka is None:
        return parse_message(held.content)
    return kafka_records.read_message(held.content, held.kafka.headers)


def is_mail(held: HeldMessage) -> bool:
    """Whether it has the form of mail, with a header, as SMTP carries it."""
    return held.kafka is None or kafka_records.is_mail(held.content, held.kafka.headers)


def goes_by_smtp(held: HeldMessage, to: ReleaseTo) -> bool:
    """Whether its copies go to the next hop, and not to Kafka. SMTP carries only mail, in the form of mail."""
    if held.kafka is None:
        return to is not ReleaseTo.KAFKA
    return to is ReleaseTo.SMTP and is_mail(held)

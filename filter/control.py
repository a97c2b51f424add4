"""The line between supervisor and worker: one socket pair, JSON lines both ways.

    supervisor -> worker   {"assign": {...}}   once, first: what to be (`Assignment`)
                           {"do": "drain"}     finish what is under way, take nothing new, exit 0
                           {"do": "hurry"}     give up what is under way, exit
    worker -> supervisor   {"ready": "..."}    once: serving; the version of its rule set
                           {"failed": "..."}   once, instead: cannot start, and why
                           {"report": {...}}   every second: `health.Report`

The end of the line means that the other is gone. Raises ValueError for a line that is none of these.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

RUN_VARIABLE: Final = "CONSENTRY_RUN"  # of the environment: names one run of the supervisor
MAX_LINE: Final = 4 << 20  # octets; an assignment holds the whole configuration file


class Do(StrEnum):
    """What a worker can be told."""

    DRAIN = "drain"
    HURRY = "hurry"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker needs to know. The configuration travels as it was checked, whatever the file says by now.

    `version` is that of the rule set as it was checked. `sockets` are inherited descriptors of listening sockets, each
    with whether TLS starts with the first octet.
    """

    file: str
    text: str
    version: str
    slot: int
    generation: int
    sockets: tuple[tuple[int, bool], ...]

    def line(self) -> bytes:
        """As it goes to the worker."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return encode({"assign": fields})

    @classmethod
    def read(cls, document: dict[str, Any]) -> "Assignment":
        """From a decoded line; ValueError if it is none."""
        try:
            fields = document["assign"]
            sockets = tuple((int(number), bool(tls)) for number, tls in fields.pop("sockets"))
            return cls(**fields, sockets=sockets)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not an assignment") from error


def encode(document: dict[str, Any]) -> bytes:
    """A line of the protocol."""
    return orjson.dumps(document) + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The document of a line; ValueError if it is no JSON object."""
    document = orjson.loads(line)
    if not isinstance(document, dict):
        raise ValueError("not a line of the control protocol")  # noqa: TRY004 - one error for every bad line
    return document

"""Sender streams: which controller, brand and topic a message speaks for, and whether verdicts are enforced.

A stream is found by where a message comes from, never by what it claims to be; a door that is told for whom a message
speaks (`Said`) looks consent up there. Pure; never raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from .labels import Disposition


class Mode(StrEnum):
    """What is done with verdicts: `monitor` relays everything and records what would have been done."""

    MONITOR = "monitor"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Match:
    """What a message must show to belong to a stream; an empty field matches everything, all given fields must match.

    `from_domain` holds domains of the From header, `mail_from` domains of the envelope sender; a domain stands for its
    subdomains too.
    """

    from_domain: frozenset[str] = frozenset()
    mail_from: frozenset[str] = frozenset()

    def matches(self, from_domain: str, mail_from_domain: str) -> bool:
        """Whether a message with these domains belongs here."""
        return _within(from_domain, self.from_domain) and _within(mail_from_domain, self.mail_from)


def _within(domain: str, allowed: frozenset[str]) -> bool:
    labels = domain.split(".")
    return not allowed or any(".".join(labels[i:]) in allowed for i in range(len(labels)))


@dataclass(frozen=True, slots=True)
class Stream:
    """One sender's mail: the scope in which consent is looked up, and the mode. Without `match` it takes everything.

    `unsure_from` and `on_unsure` are its own uncertain band (see `policy.Policy`); None: that of the policy.
    """

    controller: str
    brand: str
    topic: str
    mode: Mode = Mode.ENFORCE
    match: Match = Match()
    unsure_from: float | None = None
    on_unsure: Disposition | None = None


class Said(NamedTuple):
    """For whom a message was said to speak by whoever handed it in; empty where nothing was said."""

    controller: str = ""
    brand: str = ""
    topic: str = ""

    def over(self, stream: Stream) -> Stream:
        """The stream with what was said in the place of its own; its mode stays."""
        if self == NOTHING_SAID:
            return stream
        controller, brand, topic = self
        return replace(
            stream,
            controller=controller or stream.controller,
            brand=brand or stream.brand,
            topic=topic or stream.topic,
        )


NOTHING_SAID: Final = Said()


def select(streams: Sequence[Stream], from_domain: str, mail_from_domain: str) -> Stream:
    """The first stream that matches; the last one is the default and matches whatever is left."""
    for stream in streams[:-1]:
        if stream.match.matches(from_domain, mail_from_domain):
            return stream
    return streams[-1]


def meant(streams: Sequence[Stream], controller: str, brand: str, topic: str) -> Sequence[Stream]:
    """The streams that a message of this scope may have come by, as can be told later: all, where none has it."""
    return [s for s in streams if (s.controller, s.brand, s.topic) == (controller, brand, topic)] or streams

"""What is written about a judged record: one record for each disposition group, one decision for each recipient.

`relay`, `held`, `diverted` get the original key and octets, the original record headers, and ours, all of which begin
with `consentry-` (whatever came in under such a name is left out):

    consentry-queue-id          our id of the message
    consentry-disposition       relay, hold, reject, divert
    consentry-rcpt              a recipient of this copy; repeated
    consentry-held              held and diverted: what was judged, JSON (below)
    consentry-source-topic, -partition, -offset   where it came from: a second record of one source is a duplicate

Nobody would send a rejected message again, so it is kept beside the held ones under its own disposition, as the SMTP
door keeps it where other copies go on. Nobody would try again after `tempfail` either: such copies are held.

`consentry-held` has the fields of `ports.HeldMessage` that are not in the record: received_at, label, score, ruleset,
declared, controller, brand, topic, campaign, facts, channel, mail_from (null: nobody said), and `copies` in the order
of consentry-rcpt, each with subject_key, disposition, reason, notes, state, evidence.

`decisions` get the journal's decision lines, under the queue id; `dead-letter` the original key, octets and headers
with `consentry-error` (a code), `consentry-error-detail` and the source. Pure; raises nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson

from .events import Event, Line
from .judging import Copy, Incoming, Judged, held_message
from .kafka_records import Poison, Record
from .policy import Disposition

PREFIX: Final = "consentry-"
RELAY, HELD, DIVERTED, DECISIONS, DEAD_LETTER = "relay", "held", "diverted", "decisions", "dead-letter"
_HELD: Final = f"{PREFIX}held"
_QUEUE_ID, _DISPOSITION, _RCPT = f"{PREFIX}queue-id", f"{PREFIX}disposition", f"{PREFIX}rcpt"
_SOURCE_TOPIC, _SOURCE_PARTITION, _SOURCE_OFFSET = (
    f"{PREFIX}source-{what}" for what in ("topic", "partition", "offset")
)

Header = tuple[str, bytes | None]


class Output(NamedTuple):
    """A record to be written to the topic whose name ends so."""

    suffix: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class _Group(NamedTuple):
    """Copies that go one way: as what, where to, and whether their verdicts go with them."""

    disposition: Disposition
    of: tuple[Disposition, ...]
    suffix: str


_GROUPS: Final = (
    _Group(Disposition.RELAY, (Disposition.RELAY,), RELAY),
    _Group(Disposition.HOLD, (Disposition.HOLD, Disposition.TEMPFAIL), HELD),
    _Group(Disposition.REJECT, (Disposition.REJECT,), HELD),
    _Group(Disposition.DIVERT, (Disposition.DIVERT,), DIVERTED),
)


def results(record: Record, incoming: Incoming, judged: Judged) -> list[Output]:
    """Every record that a judged one becomes."""
    source = _source(record)
    kept = _kept(record.headers)
    queue_id = incoming.queue_id.encode()
    found = []
    for group in _GROUPS:
        copies = judged.those(*group.of)
        if copies:
            headers = [
                *kept,
                (_QUEUE_ID, queue_id),
                (_DISPOSITION, group.disposition.encode()),
                *source,
                *[(_RCPT, copy.recipient.path) for copy in copies],
            ]
            if group.disposition is not Disposition.RELAY:
                headers.append((_HELD, _about(incoming, judged, copies, group.disposition)))
            found.append(Output(group.suffix, record.key, record.value, headers))
    found += [Output(DECISIONS, queue_id, orjson.dumps(line), source) for line in decisions(judged.lines)]
    return found


def decisions(lines: Iterable[Line]) -> list[Line]:
    """The decision lines among those of a message."""
    return [line for line in lines if line["event"] == Event.DECISION]


def dead_letter(record: Record, poison: Poison) -> Output:
    """The record that one becomes that cannot be judged."""
    headers = [
        *_kept(record.headers),
        (f"{PREFIX}error", poison.code.encode()),
        (f"{PREFIX}error-detail", poison.detail.encode("utf-8", "replace")),
        *_source(record),
    ]
    return Output(DEAD_LETTER, record.key, record.value, headers)


def _source(record: Record) -> list[Header]:
    return [
        (_SOURCE_TOPIC, record.topic.encode()),
        (_SOURCE_PARTITION, b"%d" % record.partition),
        (_SOURCE_OFFSET, b"%d" % record.offset),
    ]


def _kept(headers: Sequence[Header]) -> list[Header]:
    return [header for header in headers if not header[0].startswith(PREFIX)]


def _about(incoming: Incoming, judged: Judged, copies: Sequence[Copy], disposition: Disposition) -> bytes:
    held = held_message(incoming, judged, copies, b"")
    return orjson.dumps(
        {
            "received_at": held.received_at,
            "channel": incoming.channel,
            "mail_from": incoming.mail.address if incoming.sender_known else None,
            "label": held.label,
            "score": held.score,
            "ruleset": held.ruleset,
            "declared": held.declared,
            "controller": held.controller,
            "brand": held.brand,
            "topic": held.topic,
            "campaign": held.campaign,
            "facts": held.facts,
            "copies": [
                {
                    "subject_key": copy.subject_key,
                    "disposition": disposition,
                    "reason": copy.reason,
                    "notes": copy.notes,
                    "state": copy.state,
                    "evidence": copy.evidence,
                }
                for copy in held.copies
            ],
        }
    )

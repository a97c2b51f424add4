"""Records of the input topic judged as mail of the SMTP door is: the same judge, journal lines, counters, campaigns.

`judge` says what becomes of a record. Its verdicts are in the journal before anything is sent (`begin`); what became of
it is told when the transaction has ended, as one of `committed`, `aborted` (it is read and judged again) or `doubtful`.
A record over which two workers died is not tried a third time but becomes a dead letter: the flight record knows it by
its place in the topic. Raises nothing but what the flight record raises when it is full.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from time import perf_counter
from typing import Final, NamedTuple

from . import events
from .envelope import Client
from .events import Event, Line, Outcome
from .judging import Copy, Incoming, Judge, Judged
from .kafka_records import Limits, Poison, PoisonCode, Record, read
from .kafka_results import Output, dead_letter, results
from .message_key import KEY_SIZE, QueueIds
from .metrics import DoorName, Metrics
from .policy import Disposition
from .ports import Flights, Journal, Known

_PERSON: Final = b"consentry kafka"
_HELD: Final = (Disposition.HOLD, Disposition.TEMPFAIL)
TAKEN, DEAD_LETTER, ABORTED, IN_DOUBT = "taken", "dead_letter", "aborted", "in_doubt"  # of records, for metrics
_NO_REPLY: Final = 0  # where the journal has the code of a reply


class Passed(NamedTuple):
    """A record judged: what is to be written, and told. `started` is in seconds of a clock that only counts.

    `incoming` and `judged` are None for a dead letter.
    """

    record: Record
    outputs: list[Output]
    started: float
    lines: Sequence[Line]
    incoming: Incoming | None = None
    judged: Judged | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordJudge:
    """Judges records for one worker. `known` is the hold store's memory of what killed workers; `note` follows
    campaigns; `clock` gives epoch milliseconds.
    """

    judging: Judge
    flights: Flights
    known: Callable[[bytes], Collection[Known]]
    journal: Journal
    metrics: Metrics
    note: Callable[[Incoming, Judged], None]
    clock: Callable[[], int]
    limits: Limits
    queue_ids: QueueIds = field(default_factory=QueueIds)

    def judge(self, record: Record, *, suspicious: bool = False, refused: Poison | None = None) -> Passed:
        """Judge a record. A `suspicious` one may have killed a worker; one that was `refused` is poison in any case."""
        started = perf_counter()
        key = _key(record)
        if suspicious and refused is None and Known.UNSCANNABLE in self.known(key):
            refused = Poison(PoisonCode.DIED_JUDGING, "two workers died over it, and nobody tried again")
        at = self.clock()
        queue_id = self.queue_ids.next(at)
        flight = self.flights.begin(queue_id, key)
        try:
            passed = self._pass(record, queue_id, at, refused, started)
        except Exception:
            flight.land()
            raise
        flight.land()
        return passed

    def _pass(self, record: Record, queue_id: str, at: int, refused: Poison | None, started: float) -> Passed:
        found = refused or read(record, self.limits)
        if isinstance(found, Poison):
            line = events.dead_letter(
                queue_id, at, found.code, topic=record.topic, partition=record.partition, offset=record.offset
            )
            return Passed(record, [dead_letter(record, found)], started, (line,))
        incoming = Incoming(
            *(queue_id, at, _client(record.topic, record.partition), found.mail, found.recipients),
            *(record.value or b"", found.message, found.said, found.sender_known),
            door=DoorName.KAFKA,
        )
        judged = self.judging.judge(incoming, died_before=False)
        return Passed(record, results(record, incoming, judged), started, judged.lines, incoming, judged)

    def begin(self, passed: Iterable[Passed]) -> None:
        """The transaction of these is about to be sent."""
        self.journal.write([line for one in passed for line in one.lines])

    def committed(self, passed: Iterable[Passed], seconds: float | None = None) -> None:
        """The transaction of these is committed, and took so long if that is known."""
        if seconds is not None:
            self.metrics.kafka_transaction_seconds.observe(seconds)
        at, now = self.clock(), perf_counter()
        lines: list[Line] = []
        taken = dead = 0
        for one in passed:
            if one.incoming is None or one.judged is None:
                dead += 1
                continue
            taken += 1
            self.metrics.finished(DoorName.KAFKA, one.judged.label, Outcome.TAKEN, now - one.started)
            lines += self._told(one.incoming, one.judged, at)
            self.note(one.incoming, one.judged)
        self.metrics.kafka_records(TAKEN, taken)
        self.metrics.kafka_records(DEAD_LETTER, dead)
        self.journal.write(lines)

    def aborted(self, passed: Collection[Passed]) -> None:
        """Nothing of these was written; they are read again."""
        at = self.clock()
        self.journal.write(
            [
                events.turned_away(one.incoming.queue_id, at, Outcome.ABORTED, _NO_REPLY, permanent=False)
                for one in passed
                if one.incoming
            ]
        )
        self.metrics.kafka_records(ABORTED, len(passed))

    def doubtful(self, passed: Collection[Passed]) -> None:
        """Whether these were written is for whoever has the partition now to see."""
        at = self.clock()
        self.journal.write([events.plain(Event.IN_DOUBT, one.incoming.queue_id, at) for one in passed if one.incoming])
        self.metrics.kafka_records(IN_DOUBT, len(passed))

    def _told(self, incoming: Incoming, judged: Judged, at: int) -> list[Line]:
        """What became of the copies of a message that was written."""
        relayed, held = judged.those(Disposition.RELAY), judged.those(*_HELD)
        rejected, diverted = judged.those(Disposition.REJECT), judged.those(Disposition.DIVERT)
        self.metrics.taken(
            len(incoming.recipients),
            relayed=len(relayed),
            diverted=len(diverted),
            held=len(held),
            rejected=len(rejected),
        )
        queue_id, lines = incoming.queue_id, list[Line]()
        if relayed:
            lines.append(events.relayed(queue_id, at, _subjects(relayed), _NO_REPLY))
        for event, copies in ((Event.HELD, held), (Event.REJECTED, rejected), (Event.DIVERTED, diverted)):
            if copies:
                lines.append(events.copies(event, queue_id, at, _subjects(copies)))
        return lines


@lru_cache(maxsize=1024)
def _client(topic: str, partition: int) -> Client:
    return Client(f"kafka:{topic}/{partition}")


def _key(record: Record) -> bytes:
    """What the flight record knows a record by: the same wherever it is read again."""
    place = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return blake2b(place, digest_size=KEY_SIZE, person=_PERSON).digest()


def _subjects(copies: Sequence[Copy]) -> list[str]:
    return [copy.subject for copy in copies]

"""The way of a message from MAIL to the moment its client knows what became of it. Order is everything here.

Recipients are offered to the next hop as they arrive, so its refusals reach the client at RCPT. At the end of data:

1. a message that was taken before, and whose client never learned it, is answered 250 and goes no further, if it has
   a Message-ID: without one an equal message may be another, and twice beats never;
2. it is judged, and the verdicts are in the journal before anything is sent;
3. copies that are not relayed go to the hold store, which has them on disk before anything is sent; while the message
   may still turn out to be its client's they are pending, and nobody reviews them;
4. the relayed copies go to the next hop, whose reply decides: with anything but a 2xx the stored copies are void;
5. diverted copies are sent; those that cannot be stay in the hold store, and pending copies are held from now on;
6. the client gets 250: every recipient's copy is in exactly one place.

Until the next hop has answered 2xx, or everything is stored and nothing was to be relayed, the message is the client's:
any failure undoes what was done and is answered 4xx or 5xx. From then on it is ours, and nothing is answered but 250.
How far it came is noted in a flight, which a successor reads if this process dies (`recovery`). Nothing is waited for
while a message is judged, so of all that are in flight at most one is at that stage.

Nothing here raises but CancelledError, at shutdown. Faults are answered 451, counted, and never shown to the client.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from . import events, replies, trace
from .completion import Completion, is_pending
from .diverting import UNDO_TIMEOUT, give_up
from .envelope import Client, MailFrom, RcptTo
from .events import Event, Outcome
from .judging import Copy, Incoming, Judge, Judged, held_message
from .message_key import MessageKeyer, QueueIds, has_message_id
from .metrics import DoorName, Metrics
from .policy import Disposition
from .ports import (
    Flight,
    Flights,
    HoldStore,
    HoldUnavailableError,
    InDoubtError,
    Journal,
    Known,
    NextHop,
    NextHopUnavailableError,
    Report,
    Stage,
)
from .replies import Reply
from .time_limits import TimeLimits
from .tracing import Ended, Step, Steps, Tracer

VOID_AGAIN: Final = 5.0  # seconds until what could not be made void is tried again

_RELAY, _REJECT, _TEMPFAIL = Disposition.RELAY, Disposition.REJECT, Disposition.TEMPFAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """`transaction_timeout` is in seconds: for each recipient's answer, and from the end of data on."""

    hostname: str
    max_hops: int = 50
    transaction_timeout: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What every transaction needs.

    `clock` gives epoch milliseconds, which are only recorded; `report` counts and logs a fault and where it was.
    """

    judge: Judge
    next_hop: NextHop
    completion: Completion
    hold: HoldStore
    flights: Flights
    journal: Journal
    metrics: Metrics
    keyer: MessageKeyer
    settings: PipelineSettings
    clock: Callable[[], int]
    report: Report
    tracer: Tracer | None = None
    queue_ids: QueueIds = field(default_factory=QueueIds)
    limits: TimeLimits = field(default_factory=TimeLimits)
    voiding: set[asyncio.Task[None]] = field(default_factory=set, init=False)  # what could not be done at once

    def begin(self, client: Client, mail: MailFrom) -> "Transaction":
        """The transaction that a MAIL command opens; no I/O yet."""
        return Transaction(self, client, mail)


class _TurnedAwayError(Exception):
    """The message stays with its client: why, and the reply that says so."""

    def __init__(self, why: Outcome, reply: Reply) -> None:
        super().__init__(why)
        self.why = why
        self.reply = reply


class Transaction:
    """One message: `rcpt` for each recipient, then `data` or `abort`.

    After `data`, `acknowledged` if the client is heard of again, `unacknowledged` if it is lost first.
    """

    def __init__(self, pipeline: Pipeline, client: Client, mail: MailFrom) -> None:
        self.queue_id = pipeline.queue_ids.next(pipeline.clock())
        self._pipeline = pipeline
        self._client = client
        self._mail = mail
        self._recipients: list[RcptTo] = []
        self._onward = pipeline.next_hop.transaction(mail, client)
        self._broken = False  # the next hop may have forgotten recipients that it took
        self._key = b""
        self._flight: Flight | None = None
        self._stage = Stage.JUDGING
        self._stored = False  # there may be copies in the hold store
        self._label = ""
        self._steps: Steps | None = None

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """Offer a recipient to the next hop; the answer is the next hop's."""
        if self._broken:
            return replies.NEXT_HOP_DOWN
        try:
            with self._pipeline.limits.until(self._deadline()):
                reply = await self._onward.rcpt(recipient)
        except (NextHopUnavailableError, TimeoutError):
            self._broken = True
            return replies.NEXT_HOP_DOWN
        except Exception as error:  # noqa: BLE001 - one way out of every fault
            self._broken = True
            self._pipeline.report("rcpt", error)
            return replies.INTERNAL_ERROR
        if reply.ok:
            self._recipients.append(recipient)
        return reply

    async def data(self, content: bytes) -> Reply:
        """Take the message (CRLF lines, not dot-stuffed) or leave it with its client; the reply to the final dot."""
        started = perf_counter()
        tracer = self._pipeline.tracer
        self._steps = tracer.begin() if tracer else None
        outcome, reply = await self._pass(content)
        self._pipeline.metrics.finished(DoorName.SMTP, self._label, outcome, perf_counter() - started)
        if tracer and self._steps:
            ended = Ended(self.queue_id, self._label, outcome, reply, len(self._recipients), len(content))
            tracer.end(self._steps, ended)
        return reply

    async def abort(self) -> None:
        """End the transaction without a message: the client began anew, or was lost before the end of data."""
        await give_up(self._onward, self._pipeline.report)

    def acknowledged(self) -> None:
        """The client went on: it knows the reply."""
        if self._stage is Stage.TAKEN:
            self._land()

    async def unacknowledged(self) -> None:
        """The client was lost before it can have known the reply: if the message was taken, it may come again."""
        if self._stage is not Stage.TAKEN:
            return
        pipeline = self._pipeline
        pipeline.metrics.unacknowledged.inc()
        pipeline.journal.write([events.plain(Event.UNACKNOWLEDGED, self.queue_id, pipeline.clock())])
        try:
            await pipeline.hold.settle(self._key, pipeline.clock())
        except Exception as error:  # noqa: BLE001 - the flight stays in the air, so that a successor settles it
            pipeline.report("settle", error)
        else:
            self._land()

    async def _pass(self, content: bytes) -> tuple[Outcome, Reply]:
        """The numbered steps above."""
        pipeline = self._pipeline
        deadline = self._deadline()
        incoming = Incoming(self.queue_id, pipeline.clock(), self._client, self._mail, tuple(self._recipients), content)
        try:
            with pipeline.limits.until(deadline):
                self._refuse_what_cannot_pass(content)
                flight = self._take_off(incoming)
                known = pipeline.hold.known(self._key)
                if Known.TAKEN in known and has_message_id(content) and await self._claim(flight):
                    return await self._suppress()
                judged = self._judge(incoming, died_before=Known.UNSCANNABLE in known)
                self._refuse_by_policy(incoming, judged)
                header = self._header(incoming)
                await self._store(incoming, judged, header)
                code = await self._relay(judged.those(_RELAY), (header, content))
                self._reach(Stage.TAKEN)
        except Exception as error:  # noqa: BLE001 - one way out of every fault
            return await self._leave(error)
        if not code:
            await self.abort()
        self._begin(Step.COMPLETE)
        try:
            await pipeline.completion.complete(incoming, judged, header, code, deadline)
        except Exception as error:  # noqa: BLE001 - the message is ours, whatever else goes wrong
            pipeline.report("complete", error)
        return Outcome.TAKEN, replies.taken(self.queue_id)

    def _deadline(self) -> float:
        """When what begins now must have ended, as the time of the loop."""
        return asyncio.get_running_loop().time() + self._pipeline.settings.transaction_timeout

    def _refuse_what_cannot_pass(self, content: bytes) -> None:
        if self._broken:
            raise _TurnedAwayError(Outcome.UNREACHABLE, replies.NEXT_HOP_DOWN)
        if not self._recipients:
            raise _TurnedAwayError(Outcome.NEXT_HOP, replies.NO_RECIPIENTS)
        if trace.hop_count(content) >= self._pipeline.settings.max_hops:
            raise _TurnedAwayError(Outcome.LOOP, replies.LOOP)

    def _take_off(self, incoming: Incoming) -> Flight:
        """From here on a successor knows of the message if this process dies."""
        self._key = self._pipeline.keyer.key(incoming.mail, incoming.recipients, incoming.content)
        self._flight = self._pipeline.flights.begin(self.queue_id, self._key)
        return self._flight

    async def _claim(self, flight: Flight) -> bool:
        """Whether this message is the one that was taken before. It is forgotten: the next equal one is another.

        Of several that come at once one is. A process that dies in between is followed by one that remembers it again.
        """
        flight.reach(Stage.TAKEN)
        try:
            claimed = await self._pipeline.hold.forget(self._key)
        except HoldUnavailableError:
            raise _TurnedAwayError(Outcome.STORAGE, replies.STORAGE_FULL) from None
        if not claimed:
            flight.reach(Stage.JUDGING)
        return claimed

    async def _suppress(self) -> tuple[Outcome, Reply]:
        """Answer for a message that was taken before."""
        pipeline = self._pipeline
        self._reach(Stage.TAKEN)
        await self.abort()
        pipeline.metrics.suppressed.inc()
        pipeline.journal.write([events.plain(Event.DUPLICATE_SUPPRESSED, self.queue_id, pipeline.clock())])
        return Outcome.DUPLICATE, replies.taken(self.queue_id)

    def _judge(self, incoming: Incoming, *, died_before: bool) -> Judged:
        """Judge, and have it in the journal before anything is sent."""
        pipeline, tracer, steps = self._pipeline, self._pipeline.tracer, self._steps
        if tracer and steps:
            tracer.judging(steps)
        judged = pipeline.judge.judge(incoming, died_before=died_before)
        if tracer and steps:
            tracer.judged(steps)
        self._label = judged.label
        pipeline.journal.write(judged.lines)
        return judged

    def _refuse_by_policy(self, incoming: Incoming, judged: Judged) -> None:
        """One copy that must wait makes all wait; a message is rejected as a whole when every copy is."""
        if judged.those(_TEMPFAIL):
            reply = replies.POLICY_DEFERRED if judged.decision else replies.NOT_JUDGED
            raise _TurnedAwayError(Outcome.POLICY, reply)
        if len(judged.those(_REJECT)) == len(judged.copies):
            self._pipeline.completion.note(incoming, judged)
            raise _TurnedAwayError(Outcome.POLICY, replies.REJECTED)

    def _header(self, incoming: Incoming) -> bytes:
        """The lines we prepend, the same for every copy."""
        client, mail, recipients = incoming.client, incoming.mail, incoming.recipients
        hostname = self._pipeline.settings.hostname
        return trace.prepended(client, mail, recipients, hostname=hostname, queue_id=self.queue_id, at=incoming.at)

    async def _store(self, incoming: Incoming, judged: Judged, header: bytes) -> None:
        """Bring every copy that is not relayed to the disk."""
        copies = judged.stored
        if not copies:
            return
        self._reach(Stage.STORING)
        self._begin(Step.HOLD)
        self._stored = True  # whatever happens now, it may have happened after the copies were stored
        try:
            message = held_message(incoming, judged, copies, header, pending=is_pending(judged))
            with self._pipeline.metrics.hold_write_seconds.time():
                await self._pipeline.hold.store(message)
        except HoldUnavailableError:
            self._stored = False
            raise _TurnedAwayError(Outcome.STORAGE, replies.STORAGE_FULL) from None

    async def _relay(self, copies: Sequence[Copy], content: Sequence[bytes]) -> int:
        """Hand these copies to the next hop; the code of its reply, 0 if there was nothing to hand over."""
        if not copies:
            return 0
        self._begin(Step.NEXT_HOP)
        try:
            if len(copies) < len(self._recipients):
                refusal = await self._onward.restart([copy.recipient for copy in copies])
                if refusal is not None:
                    raise _TurnedAwayError(Outcome.RECIPIENT, replies.NEXT_HOP_REFUSED)
            self._reach(Stage.SENDING)
            started = perf_counter()
            try:
                reply = await self._onward.data(content)
            finally:
                self._pipeline.metrics.next_hop_took(perf_counter() - started)
        except NextHopUnavailableError:
            raise _TurnedAwayError(Outcome.UNREACHABLE, replies.NEXT_HOP_DOWN) from None
        except InDoubtError:
            raise _TurnedAwayError(Outcome.IN_DOUBT, replies.IN_DOUBT) from None
        if not reply.ok:
            raise _TurnedAwayError(Outcome.NEXT_HOP, reply)
        return reply.code

    async def _leave(self, error: Exception) -> tuple[Outcome, Reply]:
        """The message stays with its client: undo what was done, and say why."""
        pipeline = self._pipeline
        why, reply = self._account_for(error)
        undone = await self._void()
        at = pipeline.clock()
        lines = [events.turned_away(self.queue_id, at, why, reply.code, permanent=reply.permanent)]
        if why is Outcome.IN_DOUBT:
            pipeline.metrics.in_doubt.inc()
            lines.append(events.plain(Event.IN_DOUBT, self.queue_id, at))
        if not undone:
            lines.append(events.plain(Event.NOT_VOIDED, self.queue_id, at))
        pipeline.journal.write(lines)
        if undone:  # and only now: whoever is killed before is followed by one that says again what was in doubt
            self._land()
        await self.abort()
        return why, reply

    def _account_for(self, error: Exception) -> tuple[Outcome, Reply]:
        if isinstance(error, _TurnedAwayError):
            return error.why, error.reply
        timeout = isinstance(error, TimeoutError)
        if not timeout:
            self._pipeline.report("data", error)
        if self._stage is Stage.SENDING:
            return Outcome.IN_DOUBT, replies.IN_DOUBT
        if timeout:
            return Outcome.TIMEOUT, replies.OUT_OF_TIME
        return Outcome.FAULT, replies.INTERNAL_ERROR

    async def _void(self) -> bool:
        """Whether nothing is left in the hold store; what is left is voided later, as the flight stays in the air.

        A hold store that is busy is not waited for, but tried and heard in the end, so that flights do not add up.
        """
        if not self._stored:
            return True
        voiding = asyncio.create_task(self._try_to_void())
        await asyncio.wait((voiding,), timeout=UNDO_TIMEOUT)
        if voiding.done() and voiding.result():
            return True
        later = asyncio.create_task(self._void_later(voiding))
        self._pipeline.voiding.add(later)
        later.add_done_callback(self._pipeline.voiding.discard)
        return False

    async def _void_later(self, voiding: asyncio.Task[bool]) -> None:
        """Void it when that is possible: before somebody takes its pending copies for held."""
        while not await voiding:
            await asyncio.sleep(VOID_AGAIN)
            voiding = asyncio.create_task(self._try_to_void())
        self._land()

    async def _try_to_void(self) -> bool:
        try:
            await self._pipeline.hold.void(self.queue_id)
        except Exception as error:  # noqa: BLE001 - the client gets its reply whatever happens
            self._pipeline.report("void", error)
            return False
        return True

    def _begin(self, step: Step) -> None:
        if self._steps is not None:
            self._steps.begin(step)

    def _reach(self, stage: Stage) -> None:
        self._stage = stage
        if self._flight is not None:
            self._flight.reach(stage)

    def _land(self) -> None:
        if self._flight is not None:
            self._flight.land()

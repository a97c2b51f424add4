"""One message judged for the pipeline: a verdict on every recipient's copy, whatever happens.

A message that cannot be judged is `unscanned`: the policy says what becomes of it, it is counted, and the journal has
the kind of fault. Nothing is raised but what giving out the decider raises. Reports, which have a null sender, are not
held here either (RFC 5321 section 4.5.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, NamedTuple

from . import events
from .address import SubjectKeyer
from .decision import Decider, Decision
from .envelope import Client, MailFrom, RcptTo
from .errors import AddressError
from .events import Line
from .facts import NO_FACTS, facts_of
from .labels import Channel
from .message import Message, parse_message
from .metrics import DoorName, Metrics
from .policy import Disposition, Reason, Verdict, unscanned
from .ports import HeldCopy, HeldMessage, Report
from .stream import NOTHING_SAID, Mode, Said

_DIED: Final = "died_judging"


class Incoming(NamedTuple):
    """A message as it arrived, complete. A door that takes other things than mail read it already (`message`).

    `mail` is that of a null sender too where the door was not told who sends: then `sender_known` is False.
    """

    queue_id: str
    at: int  # end of data, epoch milliseconds
    client: Client
    mail: MailFrom
    recipients: Sequence[RcptTo]  # those that the next hop took
    content: bytes
    message: Message | None = None
    said: Said = NOTHING_SAID
    sender_known: bool = True
    door: DoorName = DoorName.SMTP

    @property
    def channel(self) -> Channel:
        """How it reaches people."""
        return Channel.EMAIL if self.message is None else self.message.channel

    @property
    def null_sender(self) -> bool:
        """Whether it is a report, which has a null sender (RFC 5321 section 4.5.5)."""
        return not self.mail.path and self.sender_known and self.channel is Channel.EMAIL


class Copy(NamedTuple):
    """One recipient's copy, and the verdict on it. `subject` is the subject key in hex, empty if there is none."""

    recipient: RcptTo
    subject: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on a message; `decision` is None if it could not be judged. `lines` are for the journal."""

    decision: Decision | None
    copies: tuple[Copy, ...]
    lines: tuple[Line, ...]

    @property
    def label(self) -> str:
        """What the message is; empty if it could not be judged."""
        return "" if self.decision is None else self.decision.classification.label

    def those(self, *dispositions: Disposition) -> list[Copy]:
        """The copies with one of these dispositions, in the order of recipients."""
        return [copy for copy in self.copies if copy.verdict.disposition in dispositions]

    @property
    def stored(self) -> list[Copy]:
        """The copies that go to the hold store, in the order they have there."""
        return self.those(Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT)


class Judge:
    """Judges messages by whatever `decider` gives at the time, so that a reload can put another in its place."""

    def __init__(
        self, decider: Callable[[], Decider], subjects: SubjectKeyer, metrics: Metrics, report: Report
    ) -> None:
        self._decider = decider
        self._subjects = subjects
        self._metrics = metrics
        self._report = report

    def judge(self, incoming: Incoming, *, died_before: bool) -> Judged:
        """The verdict on every copy. A message over which a worker died before is not tried again."""
        if died_before:
            return self._unscanned(incoming, _DIED)
        started = perf_counter()
        try:
            judged = self._decided(incoming)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in judging, the mail has its setting
            self._report("judge", error)
            return self._unscanned(incoming, type(error).__name__)
        self._metrics.judging_took(perf_counter() - started)
        verdicts = [copy.verdict for copy in judged.copies]
        self._metrics.decided(incoming.door, judged.label, verdicts, _finders(judged))
        return judged

    def _decided(self, incoming: Incoming) -> Judged:
        addresses = [recipient.address for recipient in incoming.recipients]
        message = incoming.message or parse_message(incoming.content)
        sender = incoming.mail.address if incoming.sender_known else None
        decision = self._decider().decide(message, sender, addresses, incoming.at, incoming.said)
        copies, lines = [], [self._message_line(incoming, decision)]
        for recipient, decided in zip(incoming.recipients, decision.recipients, strict=True):
            subject = self._subject(recipient, message.channel)
            copies.append(Copy(recipient, subject, decided.verdict))
            lines.append(events.decision(incoming.queue_id, incoming.at, subject, decided, decision))
        return Judged(decision, tuple(copies), tuple(lines))

    def _unscanned(self, incoming: Incoming, fault: str) -> Judged:
        verdict = self._fallback(null_sender=incoming.null_sender)
        self._metrics.unscanned.inc()
        self._metrics.decided(incoming.door, "", [verdict] * len(incoming.recipients))
        channel = incoming.channel
        copies = tuple([Copy(one, self._subject(one, channel), verdict) for one in incoming.recipients])
        queue_id, at = incoming.queue_id, incoming.at
        verdicts = [events.undecided(queue_id, at, copy.subject, verdict) for copy in copies]
        lines = (self._message_line(incoming, None), events.unscanned(queue_id, at, fault), *verdicts)
        return Judged(None, copies, lines)

    def _fallback(self, *, null_sender: bool) -> Verdict:
        """The verdict without judgement. Which stream it is stays unknown: it is monitored if all of them are."""
        decider = self._decider()
        monitored = all(stream.mode is Mode.MONITOR for stream in decider.streams)
        return unscanned(decider.policy, mode=Mode.MONITOR if monitored else Mode.ENFORCE, null_sender=null_sender)

    def _subject(self, recipient: RcptTo, channel: Channel) -> str:
        try:
            return self._subjects.subject(recipient.address, channel).exact.hex()
        except (AddressError, UnicodeDecodeError):
            return ""

    def _message_line(self, incoming: Incoming, decision: Decision | None) -> Line:
        return events.message(
            *(incoming.queue_id, incoming.at, incoming.client, decision),
            null_sender=incoming.null_sender,
            size=len(incoming.content),
            recipients=len(incoming.recipients),
            key_id=self._subjects.key_id,
        )


def _finders(judged: Judged) -> Sequence[str]:
    """Ids of the rules that found promotion in a message, if any was found: the same for every copy."""
    decision = judged.decision
    if decision is None or not decision.classification.label.promotional or not judged.copies:
        return ()
    return judged.copies[0].verdict.evidence


def held_message(
    incoming: Incoming, judged: Judged, copies: Sequence[Copy], trace: bytes, *, pending: bool = False
) -> HeldMessage:
    """These copies as the hold store takes them."""
    decision = judged.decision
    return HeldMessage(
        queue_id=incoming.queue_id,
        received_at=incoming.at,
        mail=incoming.mail,
        trace=trace,
        content=incoming.content,
        label=judged.label,
        score=decision.classification.score if decision else 0.0,
        ruleset=decision.classification.ruleset if decision else "",
        declared=decision.message.declared if decision else "",
        controller=decision.stream.controller if decision else "",
        brand=decision.stream.brand if decision else "",
        topic=decision.stream.topic if decision else "",
        copies=tuple([_held_copy(copy) for copy in copies]),
        campaign=decision.campaign if decision else "",
        facts=facts_of(decision.classification).to_json() if decision else NO_FACTS,
        pending=pending,
    )


def _held_copy(copy: Copy) -> HeldCopy:
    """The reason of a rejected copy is that it is one: by that it is found, and its sender told (`rejections`)."""
    verdict = copy.verdict
    rejected = verdict.disposition is Disposition.REJECT
    return HeldCopy(
        recipient=copy.recipient,
        subject_key=copy.subject,
        disposition=verdict.disposition,
        reason=Reason.REJECTED if rejected else verdict.reason,
        notes=(verdict.reason, *verdict.notes) if rejected else verdict.notes,
        state=verdict.state,
        evidence=verdict.evidence,
    )

"""The world around the pipeline, in memory: next hops that follow a script, a hold store, flights and a journal.

Each fake keeps the promises of its port and nothing more. Every call to one passes a `Script`, which may make it fail.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from filter.envelope import Capabilities, Client, MailFrom, RcptTo
from filter.events import FIELDS, Event
from filter.flights import Left
from filter.policy import Disposition
from filter.ports import HeldMessage, HoldUnavailableError, InDoubtError, Known, NextHopUnavailableError, Stage
from filter.replies import Reply

TAKEN = Reply(250, "2.0.0", ("Ok",))
HANG = "hang"  # wait for ever


class Crash(BaseException):
    """The process was killed here: nothing after it is run."""


@dataclass
class Script:
    """What fails: by the name of a call ("hold.store"), what it raises or HANG; or whatever is call number `at`."""

    fail: dict[str, BaseException | str] = field(default_factory=dict)
    at: int = 0
    error: BaseException | None = None
    calls: list[str] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def _next(self, call: str) -> BaseException | str | None:
        self.calls.append(call)
        return self.error if len(self.calls) == self.at else self.fail.get(call)

    def sync(self, call: str) -> None:
        """A call that does not wait."""
        fault = self._next(call)
        if isinstance(fault, BaseException):
            raise fault

    async def wait(self, call: str) -> None:
        """A call that waits."""
        fault = self._next(call)
        await asyncio.sleep(0)
        if fault == HANG:
            self.hanging.set()
            await asyncio.Event().wait()
        if isinstance(fault, BaseException):
            raise fault


class Transaction:
    """A transaction at a fake next hop."""

    def __init__(self, hop: "NextHop", mail: MailFrom, client: Client) -> None:
        self._hop = hop
        self.mail = mail
        self.client = client
        self.recipients: list[RcptTo] = []
        self.ended = False

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """As scripted for the path; taken if nothing is."""
        await self._hop.script.wait(f"{self._hop.name}.rcpt")
        assert not self.ended
        reply = self._hop.replies.get(recipient.path, TAKEN)
        if reply.ok:
            self.recipients.append(recipient)
        return reply

    async def begin(self, recipients: Sequence[RcptTo]) -> list[Reply]:
        """Each as `rcpt`."""
        return [await self.rcpt(recipient) for recipient in recipients]

    async def restart(self, recipients: Sequence[RcptTo]) -> Reply | None:
        """The first refusal that is scripted for the second time of asking."""
        await self._hop.script.wait(f"{self._hop.name}.restart")
        assert not self.ended
        self.recipients = list(recipients)
        refusals = [self._hop.second_replies[one.path] for one in recipients if one.path in self._hop.second_replies]
        return refusals[0] if refusals else None

    async def data(self, content: Sequence[bytes]) -> Reply:
        """As scripted. A fault after the dot may leave the message with the next hop: `arrives_in_doubt`."""
        try:
            await self._hop.script.wait(f"{self._hop.name}.data")
        except InDoubtError:
            if self._hop.arrives_in_doubt:
                self._deliver(content)
            raise
        finally:
            self.ended = True
        if self._hop.final.ok:
            self._deliver(content)
        return self._hop.final

    async def abort(self) -> None:
        """End it."""
        self.ended = True
        await self._hop.script.wait(f"{self._hop.name}.abort")

    def _deliver(self, content: Sequence[bytes]) -> None:
        self._hop.delivered += [(self.mail, recipient, b"".join(content)) for recipient in self.recipients]


class NextHop:
    """A next hop; `delivered` is what it has taken, recipient by recipient."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.replies: dict[bytes, Reply] = {}
        self.second_replies: dict[bytes, Reply] = {}
        self.final = TAKEN
        self.arrives_in_doubt = False
        self.delivered: list[tuple[MailFrom, RcptTo, bytes]] = []
        self.transactions: list[Transaction] = []

    @property
    def capabilities(self) -> Capabilities:
        """None in particular."""
        return Capabilities()

    def transaction(self, mail: MailFrom, client: Client) -> Transaction:
        """A new one."""
        self.transactions.append(Transaction(self, mail, client))
        return self.transactions[-1]

    @property
    def reached(self) -> list[bytes]:
        """Paths of the recipients whose copies it has."""
        return [recipient.path for _, recipient, _ in self.delivered]

    @property
    def idle(self) -> bool:
        """Whether no transaction is left open."""
        return all(transaction.ended for transaction in self.transactions)


class HoldStore:
    """A hold store that forgets nothing."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.messages: dict[str, HeldMessage] = {}
        self.voided: set[str] = set()
        self.confirmed: set[str] = set()
        self.on_confirm: Callable[[], None] = lambda: None
        self.sent: Counter[tuple[str, int]] = Counter()  # diverted copies, by position
        self.keys: set[bytes] = set()
        self.suspects: Counter[bytes] = Counter()

    def has_room(self, size: int) -> bool:
        """Always."""
        return size >= 0

    async def store(self, message: HeldMessage) -> None:
        """Keep it, unless HoldUnavailableError is scripted; another fault comes when it is kept already."""
        assert message.queue_id not in self.messages
        try:
            await self.script.wait("hold.store")
        except HoldUnavailableError:
            raise
        except BaseException:
            self.messages[message.queue_id] = message
            raise
        self.messages[message.queue_id] = message

    async def keep(self, message: HeldMessage) -> bool:
        """Keep it unless it is there; whether it was new."""
        await self.script.wait("hold.keep")
        return self.messages.setdefault(message.queue_id, message) is message

    async def void(self, queue_id: str) -> None:
        """Undo it; nothing if there is none."""
        await self.script.wait("hold.void")
        self.voided.add(queue_id)

    async def confirm(self, queue_id: str) -> None:
        """Note it."""
        await self.script.wait("hold.confirm")
        self.confirmed.add(queue_id)
        self.on_confirm()

    def confirm_pending(self) -> None:
        """What is done for messages that were stored long ago: nobody is going to void them."""
        self.confirmed.update(self.messages)

    async def diverted(self, queue_id: str, numbers: Collection[int]) -> None:
        """Mark them."""
        await self.script.wait("hold.diverted")
        self.sent.update((queue_id, number) for number in numbers)

    async def settle(self, key: bytes, at: int) -> None:
        """Remember it."""
        await self.script.wait("hold.settle")
        self.keys.add(key)

    def known(self, key: bytes) -> frozenset[Known]:
        """What is remembered."""
        self.script.sync("hold.known")
        deaths = {0: set[Known](), 1: {Known.SUSPECT}}.get(self.suspects[key], {Known.SUSPECT, Known.UNSCANNABLE})
        return frozenset(deaths | ({Known.TAKEN} if key in self.keys else set()))

    async def forget(self, key: bytes) -> bool:
        """Remember it no longer; whether it was remembered."""
        await self.script.wait("hold.forget")
        known = key in self.keys
        self.keys.discard(key)
        return known

    async def suspect(self, key: bytes, at: int) -> None:
        """Count it."""
        await self.script.wait("hold.suspect")
        self.suspects[key] += 1

    def live(self, *dispositions: Disposition) -> list[bytes]:
        """Paths of the copies that are neither void nor diverted, of these dispositions or of all."""
        return self._paths(dispositions or tuple(Disposition), pending=True)

    def for_review(self) -> list[bytes]:
        """Paths of those among them that are held: not pending any more."""
        return self._paths(tuple(Disposition), pending=False)

    def _paths(self, dispositions: Sequence[Disposition], *, pending: bool) -> list[bytes]:
        found = []
        for queue_id, message in self.messages.items():
            if message.pending and queue_id not in self.confirmed and not pending:
                continue
            for number, copy in enumerate(message.copies if queue_id not in self.voided else ()):
                if not self.sent[queue_id, number] and copy.disposition in dispositions:
                    found.append(copy.recipient.path)
        return found


class Flight:
    """One message in flight."""

    def __init__(self, flights: "Flights", queue_id: str, key: bytes) -> None:
        self._flights = flights
        self.left = Left(queue_id, key, Stage.JUDGING, 0)

    def reach(self, stage: Stage) -> None:
        """Note the stage."""
        self.left = Left(self.left.queue_id, self.left.key, stage, 0)

    def land(self) -> None:
        """Forget it."""
        if self in self._flights.flying:
            self._flights.flying.remove(self)


class Flights:
    """Messages in flight."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.flying: list[Flight] = []

    def begin(self, queue_id: str, key: bytes) -> Flight:
        """A new one."""
        self._script.sync("flights.begin")
        self.flying.append(Flight(self, queue_id, key))
        return self.flying[-1]

    @property
    def left(self) -> list[Left]:
        """What a successor would find."""
        return [flight.left for flight in self.flying]


class Journal:
    """A journal that checks that each event has exactly the fields it should have."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, object]] = []
        self.on_write: Callable[[], None] = lambda: None

    def write(self, events: Sequence[Mapping[str, object]]) -> None:
        """Keep them."""
        for event in events:
            assert tuple(event) == FIELDS[Event(str(event["event"]))], event
        self.events += events
        self.on_write()

    def of(self, event: Event) -> list[Mapping[str, object]]:
        """The events of one kind."""
        return [one for one in self.events if one["event"] is event]


UNAVAILABLE = NextHopUnavailableError("down")
IN_DOUBT = InDoubtError("lost")
HOLD_UNAVAILABLE = HoldUnavailableError("full")

"""One attempt to hand a message to the next hop for some recipients, and what became of it for each.

Nothing raises but CancelledError: an attempt that fails is an `Attempt` that says how. What the next hop said of one
recipient stands, whatever happened to the others.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from . import trace
from .diverting import give_up
from .envelope import Client, MailFrom, RcptTo
from .events import Outcome
from .ports import HeldMessage, InDoubtError, NextHop, NextHopTransaction, NextHopUnavailableError, Report
from .replies import Reply
from .time_limits import TimeLimits

MOST_RECIPIENTS: Final = 100
"""In one transaction: what every server must take (RFC 5321 section 4.5.3.1.8)."""


class Attempt(NamedTuple):
    """What became of one recipient's copy: TAKEN; NEXT_HOP (it answered otherwise); UNREACHABLE, IN_DOUBT or FAULT."""

    outcome: Outcome
    reply: Reply | None = None

    @property
    def refused(self) -> bool:
        """Whether it was refused for good."""
        return self.outcome is Outcome.NEXT_HOP and self.reply is not None and self.reply.permanent

    @property
    def code(self) -> int:
        """Of the reply; 0 if there was none."""
        return self.reply.code if self.reply else 0

    @property
    def said(self) -> str:
        """The outcome for people: no text of the next hop, which may quote an address."""
        codes = f" {self.reply.code} {self.reply.enhanced}" if self.reply else ""
        return f"{self.outcome}{codes}".strip()


class Courier(Protocol):
    """Who delivers released copies, by whichever way."""

    async def deliver(self, message: HeldMessage, recipients: Sequence[RcptTo], order: str, at: int) -> list[Attempt]:
        """Deliver to these recipients, by an order (its id), at an instant (epoch milliseconds): an attempt each."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Hands messages to `hop` in our own name, and gives an attempt up after so many `seconds`."""

    hop: NextHop
    client: Client
    report: Report
    seconds: float = 300.0
    limits: TimeLimits = field(default_factory=TimeLimits)

    async def deliver(self, message: HeldMessage, recipients: Sequence[RcptTo], order: str, at: int) -> list[Attempt]:
        """Deliver copies of a held message; fulfils `Courier`."""
        content = (trace.released(order, at), message.trace, message.content)
        return await self.send(message.mail, recipients, content)

    async def send(self, mail: MailFrom, recipients: Sequence[RcptTo], content: Sequence[bytes]) -> list[Attempt]:
        """Send `content` (parts to be joined) to these recipients, in as many transactions as it takes.

        All of them share the time of one attempt; what they leave none for is not begun, and UNREACHABLE.
        """
        attempts: list[Attempt] = []
        deadline = asyncio.get_running_loop().time() + self.seconds
        for start in range(0, len(recipients), MOST_RECIPIENTS):
            some = recipients[start : start + MOST_RECIPIENTS]
            attempts += await self._transact(mail, some, content, deadline)
        return attempts

    async def _transact(
        self, mail: MailFrom, recipients: Sequence[RcptTo], content: Sequence[bytes], deadline: float
    ) -> list[Attempt]:
        if asyncio.get_running_loop().time() >= deadline:
            return [Attempt(Outcome.UNREACHABLE)] * len(recipients)
        onward = _Onward(self.hop.transaction(mail, self.client))
        try:
            with self.limits.until(deadline):
                await onward.run(recipients, content)
        except NextHopUnavailableError:
            outcome = Outcome.UNREACHABLE
        except InDoubtError:
            outcome = Outcome.IN_DOUBT
        except TimeoutError:
            outcome = Outcome.IN_DOUBT if onward.sending else Outcome.UNREACHABLE
        except Exception as error:  # noqa: BLE001 - the copies are safe in the hold store
            self.report("release", error)
            outcome = Outcome.FAULT
        else:
            return [onward.answers[recipient] for recipient in range(len(recipients))]
        await give_up(onward.transaction, self.report)
        return [onward.answers.get(recipient, Attempt(outcome)) for recipient in range(len(recipients))]


class _Onward:
    """One transaction; `answers` by the position of the recipient, as far as they are known."""

    def __init__(self, transaction: NextHopTransaction) -> None:
        self.transaction = transaction
        self.answers: dict[int, Attempt] = {}
        self.sending = False

    async def run(self, recipients: Sequence[RcptTo], content: Sequence[bytes]) -> None:
        taken = []
        for number, reply in enumerate(await self.transaction.begin(recipients)):
            if reply.ok:
                taken.append(number)
            else:
                self.answers[number] = Attempt(Outcome.NEXT_HOP, reply)
        if not taken:
            await self.transaction.abort()
            return
        self.sending = True
        reply = await self.transaction.data(content)
        self.answers.update(dict.fromkeys(taken, Attempt(Outcome.TAKEN if reply.ok else Outcome.NEXT_HOP, reply)))

"""Tells the sender that copies were not delivered, where RFC 5321 obliges (`dsn.wanted`); never a null sender. Nor
whoever sent by Kafka: that is no SMTP, and may have no address. The journal says what became of such copies.

A report goes out through the next hop like the mail it is about. Raises nothing but CancelledError.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import dsn
from .delivery import Attempt, Sender
from .dsn import Failure
from .events import Outcome, Told
from .ports import HeldMessage


class Telling(NamedTuple):
    """Whether the sender was told of each failure; None: the report could not be sent now. `attempt`: at the report."""

    told: tuple[Told | None, ...]
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Bouncer:
    """Sends reports in the name of `hostname`."""

    sender: Sender
    hostname: str

    async def tell(self, message: HeldMessage, failures: Sequence[Failure], at: int) -> Telling:
        """Report these failures to the sender of the message, all in one report."""
        mail = message.mail
        wanted = [message.kafka is None and dsn.wanted(mail, failure.recipient) for failure in failures]
        reported = [failure for failure, is_wanted in zip(failures, wanted, strict=True) if is_wanted]
        if not reported:
            return Telling((Told.NOT_WANTED,) * len(failures))
        own = dsn.report(
            *(mail, reported),
            message=message.trace + message.content,
            hostname=self.hostname,
            queue_id=message.queue_id,
            arrived_at=message.received_at,
            at=at,
        )
        (attempt,) = await self.sender.send(own.mail, [own.recipient], (own.content,))
        told = _told(attempt)
        return Telling(tuple([told if is_wanted else Told.NOT_WANTED for is_wanted in wanted]), attempt)


def _told(attempt: Attempt) -> Told | None:
    if attempt.outcome is Outcome.TAKEN:
        return Told.SENT
    return Told.REFUSED if attempt.refused else None

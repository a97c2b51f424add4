"""What a reviewer who decides on a campaign can have seen of it: the rules and doubts that the decision covers.

Rules are those in the evidence of every copy that was ever held. Doubts (`policy.doubts`) stand in the facts of a
message: those of the first few held for each reason are read, since copies of one template mostly share them; a doubt
that only later ones have is not covered, and holds them. Blocks like the store it is given, and raises as that does;
a message that cannot be read shows nothing.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from .errors import InputError
from .facts import Facts
from .held import By, HeldMail, HeldQuery
from .hold_codec import DamagedMessageError
from .policy import Policy, doubts
from .sealing import UnknownKeyError
from .stream import Stream, meant

_LOOKED_AT: Final = 20  # copies, for each reason


def evidence_of(held: HeldMail, campaign: str, policy: Policy, streams: Sequence[Stream] = ()) -> str:
    """The same, as `CampaignDecision.evidence` has it."""
    ever = HeldQuery(campaign=campaign, states=frozenset())
    found = {one.value for one in held.tally(ever, By.RULE)}
    for reason in held.tally(ever, By.REASON):
        lines = held.lines(replace(ever, reason=reason.value), None, _LOOKED_AT)
        for queue_id in {line.queue_id for line in lines}:
            found.update(_doubts(held, queue_id, policy, streams))
    return " ".join(sorted(found))


def _doubts(held: HeldMail, queue_id: str, policy: Policy, streams: Sequence[Stream]) -> Iterable[str]:
    with suppress(DamagedMessageError, UnknownKeyError, InputError):  # InputError: it was not judged
        if message := held.message(queue_id, content=False):
            about = message[0]
            own = policy.within(meant(streams, about.controller, about.brand, about.topic))
            return doubts(Facts.from_json(about.facts), own)
    return ()

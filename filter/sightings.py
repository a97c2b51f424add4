"""What one worker saw of campaigns since it last told the ledger: counts in memory, bounded, nothing lost.

`note` is on the way of every message: microseconds, no I/O. Beyond `MAX_CAMPAIGNS` at once, messages are counted
under `OTHER`. Used by one thread. Raises nothing.
"""

from collections.abc import Callable, Mapping
from typing import Final

from .campaigns import Seen
from .decision import Decision
from .judging import Incoming, Judged
from .message import Message
from .policy import Disposition

MAX_CAMPAIGNS: Final = 10_000
OTHER: Final = "other"
"""Stands for the campaigns beyond `MAX_CAMPAIGNS`; no fingerprint is called so."""
_MAX_TOLD: Final = 100_000
_MAX_TEXT: Final = 320  # characters: the longest address there is


class Sighting:
    """A campaign as seen since the last time."""

    __slots__ = (
        "about",
        "campaign",
        "declared",
        "disguised",
        "first_at",
        "labels",
        "last_at",
        "messages",
        "recipients",
        "sample",
    )

    def __init__(self, campaign: str, at: int, about: Mapping[str, str]) -> None:
        self.campaign = campaign
        self.first_at = self.last_at = at
        self.messages = self.disguised = 0
        self.labels: dict[str, int] = {}
        self.recipients: dict[str, int] = {}
        self.declared: dict[str, int] = {}
        self.sample = ""
        self.about = about

    def count(self, incoming: Incoming, judged: Judged, decision: Decision) -> None:
        """Add a message."""
        classification, at = decision.classification, incoming.at
        self.messages += 1
        if at > self.last_at:
            self.last_at = at
        elif at < self.first_at:
            self.first_at = at
        _add(self.labels, classification.label, 1)
        if classification.claimed:
            _add(self.declared, classification.claimed, 1)
        for copy in judged.copies:
            _add(self.recipients, copy.verdict.disposition, 1)
        if judged.those(Disposition.HOLD):
            self.sample = incoming.queue_id
        # A report quotes what it likes.
        if classification.claimed and classification.disguised and not incoming.null_sender:
            self.disguised += len(judged.copies)

    def merge(self, later: "Sighting") -> None:
        """Add what was seen later."""
        self.messages += later.messages
        self.disguised += later.disguised
        self.first_at = min(self.first_at, later.first_at)
        self.last_at = max(self.last_at, later.last_at)
        self.sample = later.sample or self.sample
        for mine, theirs in (
            (self.labels, later.labels),
            (self.recipients, later.recipients),
            (self.declared, later.declared),
        ):
            for value, count in theirs.items():
                _add(mine, value, count)

    def seen(self) -> Seen:
        """As the ledger takes it."""
        return Seen(
            campaign=self.campaign,
            first_at=self.first_at,
            last_at=self.last_at,
            messages=self.messages,
            labels=self.labels,
            recipients=self.recipients,
            declared=self.declared,
            disguised=self.disguised,
            sample=self.sample,
            **self.about,
        )


class Sightings:
    """Everything seen and not told yet. `subject` gives a message's subject without what is personal."""

    def __init__(self, subject: Callable[[Message], str]) -> None:
        self._subject = subject
        self._seen: dict[str, Sighting] = {}
        self._told: set[str] = set()  # campaigns whose description the ledger has

    def note(self, incoming: Incoming, judged: Judged) -> bool:
        """Count a message; False if there are too many campaigns, and it was counted under OTHER.

        One that could not be judged, or that shows nothing to know a campaign by, is not counted.
        """
        decision = judged.decision
        if decision is None or not decision.campaign:
            return True
        name = decision.campaign
        sighting = self._seen.get(name)
        if sighting is None:
            name = name if len(self._seen) < MAX_CAMPAIGNS else OTHER
            sighting = self._seen.get(name) or self._first(name, incoming, decision)
        sighting.count(incoming, judged, decision)
        return name is not OTHER

    def take(self) -> dict[str, Sighting]:
        """All of it, for the ledger; from now on there is nothing."""
        taken, self._seen = self._seen, {}
        return taken

    def told(self, taken: Mapping[str, Sighting]) -> None:
        """The ledger has what was taken."""
        if len(self._told) + len(taken) > _MAX_TOLD:
            self._told.clear()
        self._told.update(taken)

    def put_back(self, taken: Mapping[str, Sighting]) -> None:
        """The ledger has nothing of what was taken."""
        since, self._seen = self._seen, dict(taken)
        for name, later in since.items():
            kept = self._seen.get(name)
            if kept:
                kept.merge(later)
            elif len(self._seen) < MAX_CAMPAIGNS:
                self._seen[name] = later
            else:
                self._seen.setdefault(OTHER, Sighting(OTHER, later.first_at, {})).merge(later)

    def _first(self, name: str, incoming: Incoming, decision: Decision) -> Sighting:
        described = name in self._told or name is OTHER
        sighting = Sighting(name, incoming.at, {} if described else self._about(incoming, decision))
        self._seen[name] = sighting
        return sighting

    def _about(self, incoming: Incoming, decision: Decision) -> Mapping[str, str]:
        """What a campaign is known by, and who sends it."""
        message, stream = decision.message, decision.stream
        return {
            "subject": _text(self._subject(message)),
            "sender": _text(message.from_address.rpartition("@")[2].lower()),
            "client": _text(incoming.client.address),
            "user": _text(incoming.client.user),
            "controller": stream.controller,
            "brand": stream.brand,
        }


def _add(counts: dict[str, int], value: str, count: int) -> None:
    counts[value] = counts.get(value, 0) + count


def _text(value: str) -> str:
    """As any database takes it: no NUL, no half of a surrogate pair, not endless."""
    return value[:_MAX_TEXT].replace("\0", "").encode("utf-8", "replace").decode()

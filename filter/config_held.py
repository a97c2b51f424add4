"""The tables of the file that concern held mail: how long it is kept, how it is released, who decides, who is told.

Durations are timedelta. Nothing is checked here beyond each value. Raises nothing of its own.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainValidator

from . import config_values as values
from .config_kinds import Address, Flag, SecretPath, Section, counted, timed, word
from .held_content import ReleaseTo
from .policy import Reason

EVERY_REASON: Final = "*"
NEVER: Final = "never"
LEAST_PRUNED: Final = timedelta(days=10)  # twice as long as clients, and we ourselves, try again to deliver
_LONGEST: Final = timedelta(days=3650)
DEFAULT_RETENTION: Final = timedelta(days=30)
# The second is a note only; what was rejected ends as soon as its sender was told.
_NEVER_HELD: Final = frozenset({Reason.NULL_SENDER, Reason.DECISION_OUTGROWN, Reason.REJECTED})
_HELD_REASON: Final = word(*[reason for reason in Reason if reason not in _NEVER_HELD], EVERY_REASON)
_MAX_COPIES: Final = 1_000_000_000


class OnExpiry(StrEnum):
    """What happens to a held copy that was kept for as long as its reason allows."""

    DISCARD = "discard"  # it goes, with a line in the journal
    DSN = "dsn"  # and its sender gets a report (RFC 3464), if one may be sent


def _with_every(default: Any) -> BeforeValidator:
    """A table by reason; every reason that is not named keeps its default."""
    return BeforeValidator(lambda given: {EVERY_REASON: default, **given} if isinstance(given, dict) else given)


def _time_or_never(value: Any) -> timedelta | None:
    if value == NEVER:
        return None
    try:
        return values.limit(value, LEAST_PRUNED, _LONGEST)
    except ValueError as error:
        raise ValueError(f'{error}, or "{NEVER}"') from None


class HoldSettings(Section):
    """[hold]: held mail. `retention` and `on_expiry` go by the reason a copy is held for; without `prune_after` what is
    known of copies that ended is kept for ever.
    """

    key_file: SecretPath = None
    auto_release: Flag = False
    retention: Annotated[
        dict[Annotated[str, _HELD_REASON], Annotated[timedelta, timed("1min", "3650d")]],
        _with_every(f"{DEFAULT_RETENTION.days}d"),
    ] = Field(default={}, validate_default=True)
    on_expiry: Annotated[
        dict[Annotated[str, _HELD_REASON], Annotated[OnExpiry, word(*OnExpiry)]],
        _with_every(OnExpiry.DISCARD),
    ] = Field(default={}, validate_default=True)
    # Long enough for questions about a mail that did not come, and longer than Kafka usually keeps records.
    prune_after: Annotated[timedelta | None, PlainValidator(_time_or_never)] = timedelta(days=90)
    give_up: Annotated[timedelta, timed("1min", "30d")] = timedelta(days=5)  # RFC 5321 section 4.5.4.1: 4 to 5 days
    release_connections: Annotated[int, counted(1, 1000)] = 20
    release_to: Annotated[ReleaseTo, word(*ReleaseTo)] = ReleaseTo.ORIGIN

    def retention_of(self, reason: str) -> timedelta:
        """How long a copy that is held for this reason is kept."""
        return self.retention.get(reason, self.retention[EVERY_REASON])

    def on_expiry_of(self, reason: str) -> OnExpiry:
        """What happens to it then."""
        return self.on_expiry.get(reason, self.on_expiry[EVERY_REASON])


class CampaignSettings(Section):
    """[campaign]: when campaigns raise an alert, and which decisions about them need two people (0: none)."""

    alert_copies: Annotated[int, counted(1, _MAX_COPIES)] = 100
    alert_window: Annotated[timedelta, timed("1min", "30d")] = timedelta(hours=1)
    second_approver_from: Annotated[int, counted(0, _MAX_COPIES)] = 0


class NoticeSettings(Section):
    """[notice]: a digest of what is held, to a mailbox; to nobody if `to` is empty."""

    to: Address = ""
    from_: Annotated[Address, Field(alias="from")] = ""  # empty: consentry at our own name
    every: Annotated[timedelta, timed("1min", "7d")] = timedelta(hours=1)
    max_campaigns: Annotated[int, counted(1, 1000)] = 20

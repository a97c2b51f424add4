"""What a recipient's records amount to: the state, why, and the account of every event behind it.

Pure; raises nothing of its own. Times are epoch milliseconds UTC.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple

from .evidence import ConsentEvent, EventKind, Invalidity

_bare = object.__new__


class ConsentState(StrEnum):
    """What a recipient's records amount to (design section 2)."""

    CONSENT = "consent"
    SOFT_OPT_IN = "soft_opt_in"
    SOLICITED = "solicited"
    CORPORATE = "corporate"
    OBJECTED = "objected"
    UNKNOWN = "unknown"

    @property
    def letter(self) -> str:
        """The one-letter name used in law.md and in tables: C S Q X O U."""
        return _LETTERS[self]


_LETTERS = dict(zip(ConsentState, "CSQXOU", strict=True))


class Outcome(StrEnum):
    """What became of one event in an answer."""

    RELIED_ON = "relied_on"
    VALID = "valid"  # would do as well; a stronger or later one is relied on
    OVERRULED = "overruled"  # a valid basis against an opt-out in force
    EXPIRED = "expired"
    PENDING = "pending"
    INVALID = "invalid"
    NOT_YET = "not_yet"
    OTHER_SCOPE = "other_scope"
    IN_FORCE = "in_force"  # an opt-out or block that counts, or a lift
    LIFTED = "lifted"  # an opt-out or block that a later event ended


class UnknownBecause(StrEnum):
    """Why the state is `unknown`."""

    NO_RECORD = "no_record"
    EXPIRED = "expired"
    PENDING = "pending"
    INVALID = "invalid"


class Review(StrEnum):
    """What somebody should look at although it permits (law.md C3)."""

    OBJECTION_LIFTED = "objection_lifted"  # the person had objected, and consented since


Reasons = tuple[EventKind | UnknownBecause | Invalidity | Review, ...]


class Considered(NamedTuple):
    """One event on record, what became of it, and why it is invalid if it is."""

    event: ConsentEvent
    outcome: Outcome
    faults: tuple[Invalidity, ...] = ()


class Ruling(NamedTuple):
    """What an event amounts to in one scope when it is all there is on record, and for how long.

    It holds for every event on the same terms with the same fields filled, from when the event was made until
    `life` milliseconds later; an undated opt-out, block or lift counts from its arrival. When a dated one arrived does
    not matter, as none counts later than it was made; but no ruling covers a basis that arrived before it was made.
    """

    state: ConsentState
    reasons: Reasons
    blocked: bool
    life: int


_Deferred = tuple[Callable[..., Any], tuple[object, ...]]
_Account = tuple[ConsentEvent | None, ConsentEvent | None, tuple[Considered, ...]]


class ConsentAnswer:
    """The state, the event it rests on (the basis, or the opt-out), and the account of every event on record.

    `reasons` holds codes: for `objected` the kinds in force (`EventKind`), for `unknown` `UnknownBecause` followed by
    the `Invalidity` codes, otherwise `Review` codes if any. `block` is a block in force on the address; it goes before
    the state.
    """

    __slots__ = ("_account", "blocked", "reasons", "state")

    def __init__(
        self,
        state: ConsentState,
        relied_on: ConsentEvent | None,
        reasons: Reasons,
        block: ConsentEvent | None,
        considered: tuple[Considered, ...],
    ) -> None:
        self.state = state
        self.reasons = reasons
        self.blocked = block is not None  # whether nothing at all should be sent to the address
        self._account: _Account | _Deferred = relied_on, block, considered

    @classmethod
    def deferred(cls, ruling: Ruling, account: Callable[..., Any], *terms: object) -> "ConsentAnswer":
        """An answer whose events are read when somebody asks for them: a verdict does not, an explanation does."""
        answer = _bare(cls)
        answer.state, answer.reasons, answer.blocked, _ = ruling
        answer._account = account, terms  # noqa: SLF001 - an answer of our own making
        return answer

    @property
    def relied_on(self) -> ConsentEvent | None:
        """The event that the state rests on."""
        return self._told()[0]

    @property
    def block(self) -> ConsentEvent | None:
        """The block in force."""
        return self._told()[1]

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every event on record and what became of it."""
        return self._told()[2]

    def _told(self) -> _Account:
        account = self._account
        if len(account) == 2:  # noqa: PLR2004 - deferred
            draw_up, terms = account
            full = draw_up(*terms)
            self._account = account = full.relied_on, full.block, full.considered
        return account

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConsentAnswer):
            return NotImplemented
        return (self.state, self.reasons, self._told()) == (other.state, other.reasons, other._told())

    def __hash__(self) -> int:
        return hash((self.state, self.reasons))

    def __repr__(self) -> str:
        relied_on, block, considered = self._told()
        return f"ConsentAnswer({self.state!r}, {relied_on!r}, {self.reasons!r}, {block!r}, {considered!r})"


NO_RECORD: Final = ConsentAnswer(ConsentState.UNKNOWN, None, (UnknownBecause.NO_RECORD,), None, ())

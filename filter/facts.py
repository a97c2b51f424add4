"""What the policy looks at of a classification, small enough to keep with a held message.

A release decides again on these, without judging again; that is right as long as the rule set is the one that judged.
Pure; `Facts.from_json` raises InputError.
"""

from typing import Final, NamedTuple, Self

import orjson

from .classification import Classification
from .errors import InputError
from .labels import Label
from .message import DefectCode

NO_FACTS: Final = "{}"
"""What is kept with a message that could not be judged; no facts can be read from it."""


class Facts(NamedTuple):
    """A classification as the policy sees it. `service_shown` and `threshold` are in log-odds (`classify`)."""

    label: Label
    score: float
    disguised: bool
    unread: tuple[DefectCode, ...]
    obfuscated: bool
    service_shown: float
    threshold: float
    decisive_rules: tuple[str, ...]
    time_critical: bool = False

    def to_json(self) -> str:
        """One JSON object on one line; `from_json` gives an equal value."""
        return orjson.dumps(self._asdict()).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The facts that `to_json` wrote; InputError for anything else."""
        try:
            found = orjson.loads(text)
            facts = cls(
                label=Label(found.pop("label")),
                score=_number(found.pop("score")),
                disguised=_flag(found.pop("disguised")),
                unread=tuple([DefectCode(code) for code in _words(found.pop("unread"))]),
                obfuscated=_flag(found.pop("obfuscated")),
                service_shown=_number(found.pop("service_shown")),
                threshold=_number(found.pop("threshold")),
                decisive_rules=_words(found.pop("decisive_rules")),
                time_critical=_flag(found.pop("time_critical")),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"facts of a held message: {_shown(text)}: cannot be read ({error})") from error
        if found:
            raise InputError(f"facts of a held message: {', '.join(map(_shown, found))}: not known")
        return facts


def facts_of(classification: Classification) -> Facts:
    """What the policy looks at of a classification."""
    return Facts(
        classification.label,
        classification.score,
        classification.disguised,
        classification.unread,
        classification.obfuscated,
        classification.service_shown,
        classification.threshold,
        classification.decisive_rules,
        classification.time_critical,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGE < value < _LARGE:
        raise TypeError(f"{_shown(value)} is no number")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{_shown(value)} is neither true nor false")
    return value


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{_shown(value)} is no list of words")
    return tuple(value)


def _shown(value: object) -> str:
    return repr(value)[:80]


_LARGE: Final = 1e9

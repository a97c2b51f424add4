"""Weights: what turns the evidence of rules into labels and a probability. Data, versioned beside the rules.

Reads the weights file's content; every number is bounded, so that no file can switch judging off or turn it round.
Raises RuleError with every problem. Pure.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import Problem, RuleError
from .labels import SegmentKind

MAX_WEIGHT: Final = 6.0
_SHOWN: Final = 400  # characters of a long list in a message
_WEIGHT_LIMITS: Final = {
    "threshold": 20.0,
    "rest_of_segment": 1.0,
    "scattered": 1.0,
    "support_cap": 2.0,
    "learned_doubt": 1.0,
    "learned_doubt_cap": 6.0,
    "learned_against": 20.0,
    "learned_hint": 5.0,
    "learned_sure": 100.0,
    "learned_surer": 6.0,
    "slope": 20.0,
    "intercept": -50.0,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """What turns evidence into labels and a probability: data, shipped and versioned beside the rules.

    `rules` overrides a rule's own weight. A segment is promotional from `threshold` on; `score` of a message is
    1 / (1 + exp(-(slope * evidence + intercept))). What was learned takes at most `learned_doubt` for each sentence,
    and `learned_doubt_cap` in all, off the rules' evidence; sentences that do something else take at most
    `learned_against` off promotion (log-odds). A message asks for consent, or an opinion, only if the log-odds of some
    sentence for that are above minus `learned_hint`, or a rule found it. Promotion is mixed when what was learned is
    above the threshold by `learned_surer`, or rules show a service and what was learned is not below it by
    `learned_sure` divided by the number of sentences read.
    """

    version: str = "built-in"
    threshold: float = 2.0
    rest_of_segment: float = 0.5
    scattered: float = 0.5
    support_cap: float = 0.9
    learned_doubt: float = 0.1
    learned_doubt_cap: float = 1.0
    learned_against: float = 3.0
    learned_hint: float = 2.0
    learned_sure: float = 20.0
    learned_surer: float = 0.25
    slope: float = 1.75
    intercept: float = -3.5
    kinds: Mapping[SegmentKind, float] = field(
        default_factory=lambda: {SegmentKind.FOOTER: 0.5, SegmentKind.QUOTED: 0.5},
    )
    support: dict[str, float] = field(
        default_factory=lambda: {
            "support.list-unsubscribe": 0.3,
            "support.list-id": 0.2,
            "support.campaign-header": 0.3,
            "support.utm-link": 0.3,
        },
    )
    rules: Mapping[str, float] = field(default_factory=dict)

    def evidence(self, log_odds: float) -> float:
        """What was learned, in the measure of rules: with the shipped numbers `threshold` is as likely as not."""
        return (log_odds - self.intercept) / self.slope


def parse_weights(name: str, text: str, rules: Collection[str]) -> Weights:
    """Read the weights file (TOML) of these rule ids; raises RuleError. Unknown keys, kinds and ids are errors."""
    problems: list[Problem] = []
    document = read_toml(name, text, problems)
    version = document.pop("version", None)
    if not isinstance(version, str) or not version:
        problems.append(Problem(f"{name}: version", repr(version), "a text that names this set of weights"))
    kinds = _numbers(f"{name}: kinds", document.pop("kinds", {}), set(SegmentKind), 1.0, problems)
    overrides = _numbers(f"{name}: rules", document.pop("rules", {}), rules, MAX_WEIGHT, problems)
    support = _numbers(f"{name}: support", document.pop("support", {}), set(Weights().support), 1.0, problems)
    numbers = _numbers(name, document, set(_WEIGHT_LIMITS), _WEIGHT_LIMITS, problems)
    if problems:
        raise RuleError("the weights cannot be used", problems)
    return Weights(
        version=str(version),
        kinds={SegmentKind(kind): value for kind, value in kinds.items()},
        support=Weights().support | support,
        rules=overrides,
        **numbers,
    )


def _numbers(
    place: str, given: Any, known: Collection[str], limit: float | Mapping[str, float], problems: list[Problem]
) -> dict[str, float]:
    """A table of numbers above 0 and at most `limit` (one for all, or by key); the intercept alone is below 0."""
    if not isinstance(given, dict):
        problems.append(Problem(place, repr(given), "a table of numbers"))
        return {}
    numbers = {}
    for key, value in given.items():
        most = limit.get(key, 0.0) if isinstance(limit, Mapping) else limit
        low, high = sorted((0.0, most))
        if key not in known:
            problems.append(
                Problem(f"{place}: {key}", "", f"unknown; known: {', '.join(sorted(map(str, known)))[:_SHOWN]}")
            )
        elif isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value == 0:
            problems.append(Problem(f"{place}: {key}", repr(value), f"a number from {low:g} to {high:g}, not 0"))
        else:
            numbers[key] = float(value)
    return numbers


def read_toml(name: str, text: str, problems: list[Problem]) -> dict[str, Any]:
    """A TOML document; empty, with a problem noted, when it is not one."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(name, "", f"not valid TOML: {error}"))
        return {}

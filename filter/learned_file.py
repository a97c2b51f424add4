"""Reads learned weights from the document of a file (`learned.json`).

A file has `bias` (by head), `messages` (an opinion for each head: what is read for each head by name, then `length`,
`rules` and `bias`) and `words` (a word or pair with a weight for each head). `parse_learned` raises RuleError with
every problem; nothing else raises. Pure.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

from .errors import Problem, RuleError
from .learned import READ, Head, Learned, Opinion, is_term

_MOST: Final = 20.0
"""No weight in a file may be larger."""
_HEADS: Final = tuple(Head)
_ALONE: Final = ("length", "rules", "bias")
NO_OPINION: Final = Opinion((0.0,) * (len(READ) * len(_HEADS) + 1), 0.0, 0.0)
"""Weighs nothing."""
_FIELDS: Final = frozenset({"bias", "messages", "words"})


def parse_learned(name: str, document: Any, version: str) -> Learned:
    """Read learned weights (bias by head, `messages` by head, words with a weight for each head); raises RuleError."""
    problems: list[Problem] = []
    if not isinstance(document, dict) or set(document) != _FIELDS:
        problem = Problem(name, "", f"an object with the fields {', '.join(sorted(_FIELDS))}, and no others")
        raise RuleError("the learned weights cannot be used", [problem])
    bias = _by_head(f"{name}: bias", document["bias"], problems)
    opinions = {
        head: _opinion(f"{name}: messages.{head}", value, problems)
        for head, value in _by_head(f"{name}: messages", document["messages"], problems).items()
    }
    words = document["words"]
    if not isinstance(words, dict):
        problems.append(Problem(f"{name}: words", "", "an object of words, each with its weights"))
        words = {}
    if not _are_fit(words):
        problems += [
            Problem(
                f"{name}: words",
                repr(word),
                f"one or two words with a letter, and {len(_HEADS)} weights of at most {_MOST:g}",
            )
            for word, weights in words.items()
            if not is_term(word) or not _are_weights(weights, len(_HEADS))
        ]
    problems += [
        Problem(f"{name}: bias.{head}", repr(value), f"a number from -{_MOST:g} to {_MOST:g}")
        for head, value in bias.items()
        if not _are_weights([value], 1)
    ]
    if problems:
        raise RuleError("the learned weights cannot be used", problems)
    return Learned(version, bias, words, opinions)


def _are_fit(words: Mapping[str, Any]) -> bool:
    """Whether every word and its weights are fit, without telling which is not: in a third of the time."""
    if not all(map(is_term, words)) or not set(map(type, words.values())) <= {list}:
        return False
    numbers = list(chain.from_iterable(words.values()))
    return (
        set(map(len, words.values())) <= {len(_HEADS)}
        and set(map(type, numbers)) <= {int, float}
        and all(map(_MOST.__ge__, map(abs, numbers)))
    )


def _by_head(place: str, given: Any, problems: list[Problem]) -> dict[Head, Any]:
    if not isinstance(given, dict) or set(given) != set(Head):
        problems.append(Problem(place, "", f"an object with {', '.join(Head)}"))
        return {}
    return {Head(head): value for head, value in given.items()}


def _opinion(place: str, given: Any, problems: list[Problem]) -> Opinion:
    """Weights of what is read for each head, under its name, and those of `length`, `rules` and `bias`."""
    if not isinstance(given, dict) or set(given) != {*Head, *_ALONE}:
        problems.append(Problem(place, "", f"an object with {', '.join((*Head, *_ALONE))}"))
        return NO_OPINION
    values = [value for head in Head for value in _named(f"{place}.{head}", READ, given[head], problems)]
    values += _named(place, _ALONE, {name: given[name] for name in _ALONE}, problems)
    *reading, rules, bias = values
    return Opinion(tuple(reading), rules, bias)


def _named(place: str, names: Sequence[str], given: Any, problems: list[Problem]) -> list[float]:
    if isinstance(given, dict) and set(given) == set(names) and _are_weights([*given.values()], len(names)):
        return [given[name] for name in names]
    problems.append(Problem(place, "", f"numbers of at most {_MOST:g} for {', '.join(names)}"))
    return [0.0] * len(names)


def _are_weights(given: Any, count: int) -> bool:
    return (
        isinstance(given, list)
        and len(given) == count
        and all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) <= _MOST for one in given)
    )

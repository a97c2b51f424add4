"""The learned part of judging: what a linear model makes of each sentence, and what its sentences make of a message.

A sentence is a line of a `sheet`. Its log-odds for a head (that it promotes, asks for consent, asks for an opinion,
serves) are a bias and the weights of its words and of its pairs of neighbouring words: nothing else, so that every
figure can be taken apart again (`Learned.terms`). A word that nothing was learned of counts by its first letters
(`renov*`), figures by their shape (`20%` is the word `00%`), and each term of a long sentence a little less. Weights
are data, fitted by `consentry train` from the messages and sentences in `tests/data`, and versioned with the rules.

`parse_learned` raises RuleError with every problem; nothing else raises. Pure; linear in the text.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

from .errors import Problem, RuleError
from .sheet import OPENING


class Head(StrEnum):
    """What a sentence can be learned to do; `promotion` includes asking for consent (law rules R2, R3, R6, R11)."""

    PROMOTION = "promotion"
    ASK = "ask"
    SURVEY = "survey"
    SERVICE = "service"


class Sentence(NamedTuple):
    """Log-odds of one sentence by head, and where it stands (octets of the segment's own sheet)."""

    promotion: float
    ask: float
    survey: float
    service: float
    start: int
    end: int


class Term(NamedTuple):
    """A word, or a pair of words, of a sentence at octets `start` to `end`, with its weight for one head (log-odds)."""

    weight: float
    start: int
    end: int


class Opinion(NamedTuple):
    """How a message's sentences add up for one head: the weights of the strongest sentence, of the mean of the next
    two, of the share of such sentences, of the logarithm of their number, of the rules' evidence; and a bias.
    """

    top: float
    next: float
    share: float
    length: float
    rules: float
    bias: float


class Summary(NamedTuple):
    """What the sentences of a message amount to for one head: the three highest log-odds, highest first,
    the sum of all their probabilities, and their number.
    """

    highest: tuple[float, ...]
    total: float
    sentences: int


LOWEST: Final = -5.0
"""Log-odds of a sentence that is not there, and the least that one counts; the highest is its opposite."""
_HIGHEST: Final = 3
_MOST: Final = 20.0
"""No weight in a file may be larger."""
_HEADS: Final = tuple(Head)
_MARKS: Final = (b"!", b"?")
_OPENING: Final = OPENING.encode()
# The weights of the four heads as two numbers of two parts: half the additions.
_Pair = tuple[complex, complex]
_NO_PAIRS: Final[dict[bytes, _Pair]] = {}
_Entry = tuple[complex, complex, dict[bytes, _Pair]]
_UNKNOWN: Final[_Entry] = (0j, 0j, _NO_PAIRS)
_BEGINNING: Final = 5
_STAR: Final = b"*"
_USUAL_WORDS: Final = 8
"""A longer sentence has more terms to be wrong about; each counts less there."""


def _characters() -> bytes:
    """What each octet of a sheet counts as: itself, `0` for a figure, a space for what parts words."""
    table = bytearray(range(256))
    for code in range(128):
        char = chr(code)
        if char.isdigit():
            table[code] = ord("0")
        elif not char.isalpha() and char not in "%$\n":
            table[code] = ord(" ")
    return bytes(table)


_CHARACTERS: Final = _characters()


class Learned:
    """Weights of words and pairs, by head. `version` names their content; without words it says nothing at all."""

    def __init__(
        self,
        version: str,
        bias: Mapping[Head, float],
        words: Mapping[str, Sequence[float]],
        opinions: Mapping[Head, Opinion],
    ) -> None:
        self.version, self.opinions = version, opinions
        self._bias = tuple(bias.get(head, 0.0) for head in _HEADS)
        # A word's own weights, and those of the words that make a pair with it.
        self._words: dict[bytes, _Entry] = {}
        for term, weights in sorted(words.items()):
            first, _, second = term.encode().partition(b" ")
            promoting, serving, seconds = self._words.get(first) or (0j, 0j, {})
            if second:
                seconds[second] = _paired(weights)
            else:
                promoting, serving = _paired(weights)
            self._words[first] = (promoting, serving, seconds)

    def __bool__(self) -> bool:
        return bool(self._words)

    def read(self, sheet: bytes) -> list[tuple[Sentence, ...]]:
        """The sentences of each segment of a sheet in lower case, in order, without those that have no word known."""
        found: list[list[Sentence]] = []
        at = opened = 0
        for line, words in zip(sheet.split(b"\n"), sheet.translate(_CHARACTERS).split(b"\n"), strict=True):
            if line[:1] == _OPENING:
                found.append([])
                opened = at
            if words and (sentence := self._sentence(line, words.split(), at - opened)):
                found[-1].append(sentence)
            at += len(line) + 1
        return [tuple(sentences) for sentences in found]

    def _sentence(self, line: bytes, words: Sequence[bytes], start: int) -> Sentence | None:
        promoting = serving = 0j
        seconds = _NO_PAIRS
        get = self._words.get
        for word in words:
            if word in seconds:
                pair = seconds[word]
                promoting += pair[0]
                serving += pair[1]
            entry = get(word) or self._beginning(word)
            if entry is _UNKNOWN:
                seconds = _NO_PAIRS
            else:
                promoting += entry[0]
                serving += entry[1]
                seconds = entry[2]
        if not promoting and not serving:  # figures alone have no weight
            return None
        for mark in _MARKS:
            if mark in line:
                more = get(mark, _UNKNOWN)
                promoting += more[0]
                serving += more[1]
        promotion, ask, survey, service = self._bias
        damped = damping(len(words))
        return Sentence(
            promotion + damped * promoting.real,
            ask + damped * promoting.imag,
            survey + damped * serving.real,
            service + damped * serving.imag,
            start,
            start + len(line),
        )

    def _beginning(self, word: bytes) -> _Entry:
        """What is known of an unknown word by its first letters."""
        return self._words.get(word[:_BEGINNING] + _STAR, _UNKNOWN) if len(word) > _BEGINNING else _UNKNOWN

    def terms(self, text: bytes, sentence: Sentence, head: Head) -> list[Term]:
        """The words and pairs of a sentence of this sheet that weigh for or against a head, in order."""
        found: list[tuple[_Pair, int, int]] = []
        seconds, first = _NO_PAIRS, 0
        line = text[sentence.start : sentence.end]
        for start, end in _words_of(line.translate(_CHARACTERS), sentence.start):
            word = text[start:end].translate(_CHARACTERS)
            if word in seconds:
                found.append((seconds[word], first, end))
            *own, seconds = self._words.get(word) or self._beginning(word)
            found.append(((own[0], own[1]), start, end))
            first = start
        for mark in _MARKS:
            if mark in line:
                start = sentence.start + line.index(mark)
                found.append((self._words.get(mark, _UNKNOWN)[:2], start, start + 1))
        damped, place = damping(len(line.translate(_CHARACTERS).split())), _HEADS.index(head)
        terms = (Term(damped * _apart(pair)[place], start, end) for pair, start, end in found)
        return [term for term in terms if term.weight]

    def log_odds(self, head: Head, summary: Summary, rules: float) -> float:
        """The message's log-odds for a head, from its sentences and from the rules' evidence."""
        opinion = self.opinions[head]
        return opinion.bias + sum(
            weight * given for weight, given in zip(opinion, inputs_of(summary, rules), strict=False)
        )


NOTHING_LEARNED: Final = Learned("none", {}, {}, {})
"""Rules judge alone."""


def summary_of(log_odds: Iterable[float]) -> Summary:
    """What some sentences amount to for a head."""
    values = [value if LOWEST < value < -LOWEST else math.copysign(LOWEST, value) for value in log_odds]
    values.sort(reverse=True)
    total = sum([1 / (1 + math.exp(-value)) for value in values])
    return Summary(tuple(values[:_HIGHEST]), total, len(values))


def inputs_of(summary: Summary, rules: float) -> tuple[float, float, float, float, float]:
    """What an `Opinion` weighs, in the order of its fields: see there."""
    top, *others = (*summary.highest, *(LOWEST,) * _HIGHEST)[:_HIGHEST]
    share = summary.total / summary.sentences if summary.sentences else 0.0
    return top, sum(others) / len(others), share, math.log1p(summary.sentences), rules


def words_in(text: str) -> int:
    """The number of words of a text, as `damping` counts them."""
    return len(text.encode("utf-8", "replace").translate(_CHARACTERS).split())


def damping(words: int) -> float:
    """How much each term of a sentence of so many words counts."""
    return _DAMPING[words] if words < len(_DAMPING) else math.sqrt(_USUAL_WORDS / words)


_DAMPING: Final = tuple(math.sqrt(_USUAL_WORDS / max(words, _USUAL_WORDS)) for words in range(100))


def beginning_of(term: str) -> str | None:
    """The term that stands for all words with these first letters; None for short words, pairs and marks."""
    return f"{term[:_BEGINNING]}{_STAR.decode()}" if len(term) > _BEGINNING and " " not in term else None


def terms_of(line: str) -> list[str]:
    """The words and pairs of one line of a sheet, each as often as it stands there: what weights are fitted to."""
    text = line.encode("utf-8", "replace").lower()
    words = text.translate(_CHARACTERS).decode().split()
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return words + pairs + [mark.decode() for mark in _MARKS if mark in text]


def _words_of(line: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where the words of a line stand that begins at octet `at`."""
    end = 0
    for word in line.split():
        start = line.index(word, end)
        end = start + len(word)
        yield at + start, at + end


def _paired(weights: Sequence[float]) -> _Pair:
    promotion, ask, survey, service = weights
    return complex(promotion, ask), complex(survey, service)


def _apart(pair: _Pair) -> tuple[float, float, float, float]:
    return pair[0].real, pair[0].imag, pair[1].real, pair[1].imag


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


_WORD: Final = r"(?:[a-z0%$]|[^\x00-\x7f\s])+"
# Fast, for every word of the file is looked at at each start.
_TERM: Final = re.compile(rf"[!?]|(?=.*[^\W\d_])(?:{_WORD}(?: {_WORD})?|{_WORD}\*)")


def is_term(text: str) -> bool:
    """Whether weights may be given to this: a mark, a beginning, or one or two words, one at least with a letter (or a
    sign that Unicode counts with them, such as "½").

    Texts of figures only are passed over unread (`findings`).
    """
    return _TERM.fullmatch(text) is not None


def _are_fit(words: Mapping[str, Any]) -> bool:
    """Whether every word and its weights are fit, without telling which is not: in a third of the time."""
    if not all(map(_TERM.fullmatch, words)) or not set(map(type, words.values())) <= {list}:
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
    fields = Opinion._fields
    if not isinstance(given, dict) or set(given) != set(fields) or not _are_weights(list(given.values()), len(fields)):
        problems.append(Problem(place, "", f"numbers of at most {_MOST:g} for {', '.join(fields)}"))
        return Opinion(*(0.0 for _ in fields))
    return Opinion(**given)


def _are_weights(given: Any, count: int) -> bool:
    return (
        isinstance(given, list)
        and len(given) == count
        and all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) <= _MOST for one in given)
    )

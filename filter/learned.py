"""The learned part of judging: what a linear model makes of each sentence, and what its sentences make of a message.

A sentence is a line of a `sheet`. Its log-odds for a head (that it promotes, asks for consent, asks for an opinion,
serves) are a bias and the weights of its words and of its pairs of neighbouring words: nothing else, so that every
figure can be taken apart again (`Learned.terms`). A word that nothing was learned of counts by its first letters
(`renov*`), figures by their shape (`20%` is the word `00%`), and each term of a long sentence a little less.
An opinion on a message weighs, for each head, what its sentences say for every head (a request for an opinion is no
promotion, however friendly) and what the rules found. Weights are data, fitted by `consentry train` from the messages
and sentences in `tests/data`, and versioned with the rules; `learned_file` reads them.

Pure; raises nothing; linear in the text.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple, Self

from .sheet import OPENING


class Head(StrEnum):
    """What a sentence can be learned to do; `promotion` includes asking for consent (law rules R2, R3, R6, R11)."""

    PROMOTION = "promotion"
    ASK = "ask"
    SURVEY = "survey"
    SERVICE = "service"


class Sentence(NamedTuple):
    """Log-odds of one sentence by head; its words, each times the probability of that head, and their number (at most
    `MOST_WORDS`); and where it stands (octets of the segment's own sheet).
    """

    promotion: float
    ask: float
    survey: float
    service: float
    promoting: float
    asking: float
    surveying: float
    serving: float
    words: int
    start: int
    end: int

    def less(self, promotion: float) -> Self:
        """The same sentence with so much less promotion."""
        left = self.promotion - promotion
        return self._replace(promotion=left, promoting=self.words * _probability(left))


class Term(NamedTuple):
    """A word, or a pair of words, of a sentence at octets `start` to `end`, with its weight for one head (log-odds)."""

    weight: float
    start: int
    end: int


Reading = tuple[float, ...]
"""What the sentences of a message amount to: for each head, in order, the log-odds of the strongest sentence, the mean
of those of the next two, and the share of the words that stand in such sentences; then the logarithm of their
number."""
READ: Final = ("top", "next", "share")
"""The names of what is read for each head."""


class Opinion(NamedTuple):
    """How a message's sentences add up for one head: the weights of its `Reading`, one each; of the rules' evidence;
    and a bias.
    """

    reading: Reading
    rules: float
    bias: float


MOST_WORDS: Final = 20
"""A longer sentence has no larger share of its message, or one without full stops would have it all."""
LOWEST: Final = -5.0
"""Log-odds of a sentence that is not there, and the least that one counts; the highest is its opposite."""
_HIGHEST: Final = 3
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
_WORDS: Final = Sentence._fields.index("words")
_ABSENT: Final = (LOWEST, LOWEST, 0.0) * len(_HEADS)
"""What is read for heads that no sentence has anything of."""
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
        stars = [word for word in self._words if word.endswith(_STAR)]
        self._beginnings = {word.removesuffix(_STAR): self._words.pop(word) for word in stars}

    def __bool__(self) -> bool:
        return bool(self._words or self._beginnings)

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
        get, beginning = self._words.get, self._beginnings.get
        for word in words:
            if word in seconds:
                pair = seconds[word]
                promoting += pair[0]
                serving += pair[1]
            entry = get(word) or (beginning(word[:_BEGINNING], _UNKNOWN) if len(word) > _BEGINNING else _UNKNOWN)
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
        number = min(len(words), MOST_WORDS)
        promotion += damped * promoting.real
        ask += damped * promoting.imag
        survey += damped * serving.real
        service += damped * serving.imag
        probable = (number * _probability(promotion), number * _probability(ask))
        others = (number * _probability(survey), number * _probability(service))
        return Sentence(promotion, ask, survey, service, *probable, *others, number, start, start + len(line))

    def _beginning(self, word: bytes) -> _Entry:
        """What is known of an unknown word by its first letters."""
        return self._beginnings.get(word[:_BEGINNING], _UNKNOWN) if len(word) > _BEGINNING else _UNKNOWN

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

    def log_odds(self, head: Head, reading: Reading, rules: float, against: float = math.inf) -> float:
        """The message's log-odds for a head, from its sentences and from the rules' evidence (`weigh`)."""
        return weigh(self.opinions[head], head, reading, rules, against)


def weigh(opinion: Opinion, head: Head, reading: Reading, rules: float, against: float = math.inf) -> float:
    """Log-odds for a head by an opinion. What is read for other heads takes at most `against` off: sentences that do
    something else must not talk away those that are there.
    """
    weighed = [weight * value for weight, value in zip(opinion.reading, reading, strict=True)]
    if against == math.inf:
        return opinion.bias + opinion.rules * rules + sum(weighed)
    start = len(READ) * _HEADS.index(head)
    own, length = weighed[start : start + len(READ)], weighed[-1]
    others = weighed[:start] + weighed[start + len(READ) : -1]
    absent = [weight * value for weight, value in zip(opinion.reading, _ABSENT, strict=False)]
    nothing = sum(absent[:start] + absent[start + len(READ) :])
    most = nothing + max(sum(others) - nothing, -against)
    return opinion.bias + opinion.rules * rules + sum(own) + most + length


NOTHING_LEARNED: Final = Learned("none", {}, {}, {})
"""Rules judge alone."""


def reading_of(sentences: Sequence[Sentence]) -> Reading:
    """What the sentences of a message, at least one, amount to."""
    columns = tuple(zip(*sentences, strict=True))
    words = sum(columns[_WORDS])
    reading: list[float] = []
    for place in range(len(_HEADS)):
        top, *others = map(_bounded, sorted(columns[place], reverse=True)[:_HIGHEST])
        others += [LOWEST] * (_HIGHEST - 1 - len(others))
        reading += (top, sum(others) / len(others), sum(columns[len(_HEADS) + place]) / words)
    return (*reading, math.log1p(len(sentences)))


def top_of(reading: Reading, head: Head) -> float:
    """The log-odds of the strongest sentence for a head."""
    return reading[len(READ) * _HEADS.index(head)]


def _bounded(log_odds: float) -> float:
    return log_odds if LOWEST < log_odds < -LOWEST else math.copysign(LOWEST, log_odds)


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-_bounded(log_odds)))


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


_WORD: Final = r"(?:[a-z0%$]|[^\x00-\x7f\s])+"
# Fast, for every word of the file is looked at at each start.
_TERM: Final = re.compile(rf"[!?]|(?=.*[^\W\d_])(?:{_WORD}(?: {_WORD})?|{_WORD}\*)")


def is_term(text: str) -> bool:
    """Whether weights may be given to this: a mark, a beginning, or one or two words, one at least with a letter (or a
    sign that Unicode counts with them, such as "½").

    Texts of figures only are passed over unread (`findings`).
    """
    return _TERM.fullmatch(text) is not None

"""Labelled examples -> learned weights (`learned.json`), the same on every machine from the same examples.

Two steps. A logistic regression for each head on sentences: those of the sentence files, and those of the messages, of
which the spans of mixed mail are known and the others count for little. Then one for each head on messages: how the
sentences and the rules add up. That one must see sentences that the first has not learned, so each source is read with
weights that were fitted without it.

Everything given is learned from: the caller leaves out what is to be kept back. Needs scikit-learn (the extra
`train`), which may be slow and large: nothing of it is needed to judge. Pure but for its time (minutes); raises
ExampleError for too few examples.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from scipy.sparse import csr_matrix, diags
from sklearn.linear_model import LogisticRegression

from .classify import Classifier
from .errors import ExampleError, Problem
from .examples import LabelledMessage, LabelledSentence, Purpose, words_of
from .labels import Label, SegmentKind
from .learned import (
    READ,
    Head,
    Opinion,
    Reading,
    beginning_of,
    damping,
    is_term,
    terms_of,
    weigh,
    words_in,
)
from .learned_file import NO_OPINION
from .rule_files import learned_from
from .rules import RuleSet
from .sheet import lines_of

SPECIFICITY: Final = 0.98
"""Share of service mail and surveys that must not be taken for promotion, in messages not learned from."""

_SENTENCES_C: Final = 2.0  # inverse strength of regularisation; chosen on sources kept back in turn
_MESSAGES_C: Final = 1.0
_LEAST_SEEN: Final = 2
_SMALLEST: Final = 0.25  # terms with no weight of at least this for any head are dropped: half of them, for little
_DIGITS: Final = 2
_ITERATIONS: Final = 400
_LEAST_SOURCES: Final = 3

# A way to refuse is no evidence of promotion: service mail may have one too.
_WEIGHTLESS: Final = frozenset(
    [
        *("unsubscribe", "unsub", "optout", "opt", "out", "stop", "stop2end", "txtstop", "preferences", "link"),
        *("abmelden", "abbestellen", "desabonner", "desinscrire", "darse", "baja", "uitschrijven", "afmelden"),
        *("disiscriviti", "cancellarti", "berhenti", "langganan"),
    ]
)

_PROMOTING: Final = (Purpose.PROMOTES, Purpose.ASKS)
_WANTED: Final[Mapping[Head, tuple[Purpose, ...]]] = {
    Head.PROMOTION: _PROMOTING,
    Head.ASK: (Purpose.ASKS,),
    Head.SURVEY: (Purpose.SURVEYS,),
    Head.SERVICE: (Purpose.SERVES,),
}


# What is known of a sentence: above zero that it is of the head, below that it is not; and by its size, how surely.
_SURE, _LIKELY, _HINT = 1.0, 0.5, 0.15
# A sentence of a message with this label, outside the spans of a mixed one.
_OUTSIDE: Final[Mapping[Head, Mapping[Label, float]]] = {
    Head.PROMOTION: {
        Label.SERVICE: -_LIKELY,
        Label.SURVEY: -_LIKELY,
        Label.MIXED: -_LIKELY,
        Label.MARKETING: _HINT,
        Label.RE_PERMISSION: _HINT / 3,
    },
    Head.ASK: {
        Label.SERVICE: -_LIKELY,
        Label.SURVEY: -_LIKELY,
        Label.MIXED: -_HINT,
        Label.MARKETING: -_HINT,
        Label.RE_PERMISSION: _HINT,
    },
    Head.SURVEY: {
        Label.SERVICE: -_LIKELY,
        Label.SURVEY: _HINT,
        Label.MIXED: -_HINT,
        Label.MARKETING: -_HINT,
        Label.RE_PERMISSION: -_HINT,
    },
    Head.SERVICE: {
        Label.SERVICE: _HINT,
        Label.SURVEY: -_HINT,
        Label.MIXED: _HINT,
        Label.MARKETING: -_HINT,
        Label.RE_PERMISSION: -_HINT,
    },
}
_IN_SPAN: Final = {Head.PROMOTION: 1.5 * _SURE, Head.ASK: -_HINT, Head.SURVEY: -_HINT, Head.SERVICE: -_LIKELY}
# Which messages an opinion is formed on, and which of them are its own.
_ASKED: Final[Mapping[Head, tuple[frozenset[Label], frozenset[Label]]]] = {
    Head.PROMOTION: (frozenset(Label), frozenset(label for label in Label if label.promotional)),
    Head.ASK: (frozenset(label for label in Label if label.promotional), frozenset({Label.RE_PERMISSION})),
    Head.SURVEY: (frozenset({Label.SERVICE, Label.SURVEY}), frozenset({Label.SURVEY})),
    Head.SERVICE: (frozenset({Label.MARKETING, Label.MIXED}), frozenset({Label.MIXED})),
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One sentence to fit to: its source, its number of words, its terms, and what is known, as in `_OUTSIDE`."""

    source: str
    words: int
    terms: Mapping[str, int]
    known: Mapping[Head, float]


def fit(
    rules: RuleSet,
    messages: Sequence[LabelledMessage],
    sentences: Sequence[LabelledSentence],
    *,
    specificity: float = SPECIFICITY,
    tell: Callable[[str], None] = lambda _: None,
) -> bytes:
    """Fit all weights and give the content of `learned.json`; `tell` hears of each step."""
    rows = [*chain.from_iterable(map(_rows_of_message, messages)), *map(_row_of_sentence, sentences)]
    sources = sorted({one.source for one in messages})
    if len(sources) < _LEAST_SOURCES or not sentences:
        problem = Problem("examples", f"{len(sources)} sources", f"sentences, and messages of {_LEAST_SOURCES} sources")
        raise ExampleError("weights cannot be fitted", [problem])
    tell(f"{len(messages)} messages of {len(sources)} sources, {len(sentences)} sentences")
    read: list[_Read] = []
    for source in sources:
        others = _sentence_weights([row for row in rows if row.source != source])
        reader = Classifier(replace(rules, learned=learned_from(source, _document(others, _NO_OPINIONS))), memory=0)
        own = [(one, reader.reading(one.message)) for one in messages if one.source == source]
        read += [(one, *reading) for one, reading in own if reading]
        tell(f"read {source} with weights fitted without it")
    opinions = {head: _opinion(head, read) for head in Head}
    against = rules.weights.learned_against
    opinions[Head.PROMOTION] = _careful(opinions[Head.PROMOTION], read, specificity, against)
    final = _sentence_weights(rows)
    tell(f"{len(final.terms)} words and pairs")
    return _document(final, opinions)


_Read = tuple[LabelledMessage, Reading, Mapping[Head, float]]
_NO_OPINIONS: Final = dict.fromkeys(Head, NO_OPINION)


class _Weights(NamedTuple):
    """Bias by head, and the terms with their weights by head."""

    bias: dict[Head, float]
    terms: dict[str, list[float]]


def _row_of_sentence(one: LabelledSentence) -> _Row:
    terms = Counter(term for line in lines_of(one.text) for term in terms_of(line))
    known = {head: _SURE if one.purpose in wanted else -_SURE for head, wanted in _WANTED.items()}
    return _Row(f"sentences/{one.source}", words_in(one.text), terms, known)


def _rows_of_message(one: LabelledMessage) -> Iterable[_Row]:
    spans = [words_of(span) for span in one.spans]
    share = _LIKELY if one.borderline else _SURE
    for segment in one.message.segments:
        if segment.kind is SegmentKind.SENDER:
            continue
        for line in lines_of(segment.text):
            words = words_of(line)
            in_span = any(words in span or span in words for span in spans) if words else False
            known = {head: _IN_SPAN[head] if in_span else outside[one.label] for head, outside in _OUTSIDE.items()}
            weighed = {head: share * weight for head, weight in known.items()}
            yield _Row(one.source, words_in(line), Counter(terms_of(line)), weighed)


def _sentence_weights(rows: Sequence[_Row]) -> _Weights:
    """Fit every head on sentences. Words are fitted with their beginnings, and those are then part of their weight."""
    seen = Counter(chain.from_iterable(row.terms for row in rows))
    seen.update(chain.from_iterable(map(_beginnings, (row.terms for row in rows))))
    terms = sorted(term for term, count in seen.items() if count >= _LEAST_SEEN and _may_weigh(term))
    index = {term: place for place, term in enumerate(terms)}
    matrix = _matrix(rows, index)
    bias: dict[Head, float] = {}
    columns = []
    for head in Head:
        known = np.array([row.known[head] for row in rows])
        telling = _telling(matrix, known)
        model = LogisticRegression(C=_SENTENCES_C, max_iter=_ITERATIONS)
        model.fit(matrix @ diags(telling), known > 0, sample_weight=np.abs(known))
        bias[head] = round(float(model.intercept_[0]), _DIGITS)
        columns.append(model.coef_[0] * telling)
    table = np.array(columns).T
    for term, place in index.items():
        for beginning in _beginnings([term]):
            if beginning in index:
                table[place] += table[index[beginning]]
    table = np.round(table, _DIGITS)
    kept = np.abs(table).max(axis=1) >= _SMALLEST
    return _Weights(bias, {term: table[place].tolist() for term, place in index.items() if kept[place]})


def _telling(matrix: csr_matrix, known: Any) -> Any:
    """How much may be made of each term, the mean being 1: more of those that stand mostly in sentences of one kind, by
    the root of the logarithm of how many times more often (less sharply than Wang and Manning, 2012, "Baselines and
    Bigrams", who take the logarithm itself).
    """
    stands = matrix > 0
    of, other = (stands.T @ np.clip(side * known, 0, None) + 1 for side in (1, -1))
    ratio = np.sqrt(np.abs(np.log(of / of.sum()) - np.log(other / other.sum())))
    return ratio / ratio.mean() if ratio.any() else np.ones_like(ratio)


def _may_weigh(term: str) -> bool:
    return is_term(term) and _WEIGHTLESS.isdisjoint(term.removesuffix("*").split(" "))


def _beginnings(terms: Iterable[str]) -> list[str]:
    return [beginning for term in terms if (beginning := beginning_of(term))]


def _matrix(rows: Sequence[_Row], index: Mapping[str, int]) -> csr_matrix:
    """How often each term, and each beginning, stands in each sentence, damped as it will be when read."""
    cells: Counter[tuple[int, int]] = Counter()
    for at, row in enumerate(rows):
        for term, count in row.terms.items():
            for one in (term, *_beginnings([term])):
                if one in index:
                    cells[at, index[one]] += count
    places = np.array(list(cells))
    damped = np.array([damping(row.words) for row in rows])
    counts = np.fromiter(cells.values(), float) * damped[places[:, 0]]
    return csr_matrix((counts, (places[:, 0], places[:, 1])), shape=(len(rows), len(index)))


def _opinion(head: Head, read: Sequence[_Read]) -> Opinion:
    among, own = _ASKED[head]
    asked = [one for one in read if one[0].label in among]
    values = np.array([(*reading, rules[head]) for _, reading, rules in asked])
    wanted = np.array([one.label in own for one, _, _ in asked])
    weight = np.array([_LIKELY if one.borderline else _SURE for one, _, _ in asked])
    model = LogisticRegression(C=_MESSAGES_C, max_iter=_ITERATIONS).fit(values, wanted, sample_weight=weight)
    *fitted, rules_weight, bias = (round(float(value), _DIGITS) for value in (*model.coef_[0], model.intercept_[0]))
    return Opinion(tuple(fitted), rules_weight, bias)


def _careful(opinion: Opinion, read: Sequence[_Read], specificity: float, against: float) -> Opinion:
    """The opinion on promotion, moved until that share of other messages is below the threshold."""
    log_odds = sorted(
        weigh(opinion, Head.PROMOTION, reading, rules[Head.PROMOTION], against)
        for one, reading, rules in read
        if not one.label.promotional
    )
    highest = log_odds[min(int(specificity * len(log_odds)), len(log_odds) - 1)]
    return opinion._replace(bias=round(opinion.bias - highest, _DIGITS))


def _document(weights: _Weights, opinions: Mapping[Head, Opinion]) -> bytes:
    """The file: a word or pair a line, so that two of them can be compared."""
    head = {
        "bias": {head.value: weights.bias[head] for head in Head},
        "messages": {head.value: _described(opinions[head]) for head in Head},
    }
    words = b",\n".join(orjson.dumps(term) + b":" + orjson.dumps(row) for term, row in sorted(weights.terms.items()))
    return orjson.dumps(head, option=orjson.OPT_INDENT_2)[:-2] + b',\n  "words": {\n' + words + b"\n}}\n"


def _described(opinion: Opinion) -> dict[str, Any]:
    *reading, length = opinion.reading
    read = {head.value: dict(zip(READ, reading[at * len(READ) :], strict=False)) for at, head in enumerate(Head)}
    return {**read, "length": length, "rules": opinion.rules, "bias": opinion.bias}

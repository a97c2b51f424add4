"""Figures on judgements: right on cases worked out by hand, and never more certain than the count allows."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filter.classify import Classifier
from filter.evaluation import Judged, auc, figures_of, groups_of, mistakes, recall_at, share_of
from filter.examples import LabelledMessage
from filter.labels import Label
from filter.message import message_from_json

LABELS = st.sampled_from(Label)
OUTCOMES = st.lists(st.tuples(LABELS, LABELS, st.floats(0, 1)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def judge(classifier: Classifier):
    """Makes a judgement: what a reader says, what was judged, and the score."""
    classification = classifier.classify(message_from_json({"channel": "email", "text": "Hello"}))

    def make(wanted: Label, got: Label, score: float, *, source: str = "a") -> Judged:
        example = LabelledMessage(f"{source}/{wanted}", source, "en", wanted, classification.message)
        return Judged(example, replace(classification, label=got, score=score))

    return make


def test_figures_of_a_small_set(judge) -> None:
    """Recall, specificity, precision, Brier score and confusion are what one gets with a pencil."""
    judged = [
        judge(Label.MARKETING, Label.MARKETING, 0.9),
        judge(Label.MIXED, Label.SERVICE, 0.4),
        judge(Label.SERVICE, Label.SERVICE, 0.1),
        judge(Label.SURVEY, Label.MIXED, 0.6),
    ]
    figures = figures_of(judged)
    assert figures.count == 4
    assert figures.promotional.recall.value == figures.promotional.precision.value == 0.5
    assert figures.specificity.value == figures.accuracy.value == 0.5
    assert figures.mixed_found.value == 0.0
    assert figures.brier == pytest.approx((0.01 + 0.36 + 0.01 + 0.36) / 4)
    assert figures.auc == 0.75
    assert figures.labels[Label.SERVICE].precision.value == 0.5
    assert figures.labels[Label.SERVICE].recall.value == 1.0
    assert figures.labels[Label.SERVICE].f1.value == pytest.approx(2 / 3)
    assert figures.labels[Label.RE_PERMISSION].recall is None
    assert figures.confusion[Label.MIXED, Label.SERVICE] == 1
    assert [(one.low, one.messages, one.promotional) for one in figures.reliability] == [
        *((0.1, 1, 0.0), (0.4, 1, 1.0), (0.6, 1, 0.0), (0.9, 1, 1.0)),
    ]


def test_the_worst_come_first(judge) -> None:
    """Mistakes are promotion missed or seen where there is none, and the surest of them comes first."""
    sure, unsure = judge(Label.SERVICE, Label.MIXED, 0.95), judge(Label.MARKETING, Label.SERVICE, 0.4)
    kind = judge(Label.MARKETING, Label.MIXED, 0.9)
    assert mistakes([unsure, kind, sure], 5) == [sure, unsure]
    assert mistakes([unsure, kind, sure], 1) == [sure]


def test_groups_are_sorted(judge) -> None:
    """Messages are split by what a function says of them."""
    judged = [judge(Label.SERVICE, Label.SERVICE, 0.1, source=source) for source in "bab"]
    assert {name: len(those) for name, those in groups_of(judged, lambda one: one.source).items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_wilsons_interval(right: int, of: int, low: float, high: float) -> None:
    """The interval is that of the tables."""
    share = share_of([True] * right + [False] * (of - right))
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.3, 0.9])), max_size=25))
def test_auc_counts_pairs(rows: Sequence[tuple[bool, float]]) -> None:
    """It is the share of pairs in the right order, ties half."""
    own, others = ([score for is_so, score in rows if is_so is wanted] for wanted in (True, False))
    pairs = [1.0 if mine > theirs else 0.5 if mine == theirs else 0.0 for mine in own for theirs in others]
    expected = pytest.approx(sum(pairs) / len(pairs)) if pairs else None
    assert auc([is_so for is_so, _ in rows], [score for _, score in rows]) == expected


def test_recall_at_a_specificity() -> None:
    """The threshold lets through just so many of the others."""
    wanted = [True] * 4 + [False] * 4
    scores = [0.9, 0.8, 0.5, 0.1, 0.7, 0.4, 0.3, 0.2]
    assert recall_at(wanted, scores, 1.0) == 0.5
    assert recall_at(wanted, scores, 0.75) == 0.75
    assert recall_at([True], [0.3]) is None


@settings(max_examples=20)
@given(OUTCOMES)
def test_figures_are_shares(judge, outcomes: list[tuple[Label, Label, float]]) -> None:
    """Whatever was judged, shares lie between nought and one, inside their intervals, and the matrix adds up."""
    figures = figures_of([judge(*one) for one in outcomes])
    assert sum(figures.confusion.values()) == sum(one.messages for one in figures.reliability) == len(outcomes)
    qualities = [figures.promotional, *figures.labels.values()]
    shares = [figures.accuracy, figures.specificity, *(s for q in qualities for s in (q.precision, q.recall))]
    for share in filter(None, shares):
        assert 0 <= share.low <= share.value <= share.high <= 1
    assert 0 <= figures.brier <= 1

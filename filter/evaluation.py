"""Judgements on labelled messages -> figures: how often right, how sure, how well calibrated, and where wrong.

"Promotional" is marketing, mixed or re-permission, against service and survey (law rules R1, R3, R12). Intervals hold
95 per cent: Wilson's for shares, 400 resamplings with a fixed seed for F1. A figure that cannot be had (no such
message) is None. Pure; raises nothing.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from .classification import Classification
from .examples import LabelledMessage, words_of
from .labels import Label, SegmentLabel
from .rules import Hit, Rule

SPECIFICITY: Final = 0.98
"""At which recall is also told, with the threshold that would give it."""
_Z: Final = 1.959964
_RESAMPLED: Final = 400
_TAILS: Final = (0.025, 0.975)
_BINS: Final = 10


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class Bin(NamedTuple):
    """Messages whose score is from `low` on: how many, their mean score, and the share that is promotional."""

    low: float
    messages: int
    score: float
    promotional: float


class Quality(NamedTuple):
    """Of one label, or of `promotional`: how many there are, and how well they are found."""

    messages: int
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Spans(NamedTuple):
    """Of mixed messages with marked passages: the share in which a passage judged promotional overlaps one of them,
    and the share of the words of passages judged promotional that lie in one.
    """

    found: Share
    exact: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A labelled message and what it was judged to be."""

    example: LabelledMessage
    result: Classification

    @property
    def right(self) -> bool:
        """Whether the label is the same."""
        return self.example.label is self.result.label

    @property
    def promotional(self) -> bool:
        """Whether it is promotional, by its reader."""
        return self.example.label.promotional


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything measured on some messages. `specificity` is the share of other mail not taken for promotion;
    `recall_at` the recall at a threshold that gives SPECIFICITY on these very messages.
    """

    count: int
    accuracy: Share | None
    promotional: Quality
    specificity: Share | None
    mixed_found: Share | None
    auc: float | None
    recall_at: float | None
    brier: float
    labels: Mapping[Label, Quality]
    confusion: Mapping[tuple[Label, Label], int]
    reliability: tuple[Bin, ...]
    spans: Spans | None


def figures_of(judged: Sequence[Judged]) -> Figures:
    """Measure."""
    wanted = [one.promotional for one in judged]
    found = [one.result.label.promotional for one in judged]
    scores = [one.result.score for one in judged]
    others = [not got for got, is_so in zip(found, wanted, strict=True) if not is_so]
    mixed = [one.result.label.promotional for one in judged if one.example.label is Label.MIXED]
    return Figures(
        count=len(judged),
        accuracy=share_of([one.right for one in judged]),
        promotional=_quality(wanted, found),
        specificity=share_of(others),
        mixed_found=share_of(mixed),
        auc=auc(wanted, scores),
        recall_at=recall_at(wanted, scores),
        brier=sum((score - is_so) ** 2 for score, is_so in zip(scores, wanted, strict=True)) / max(len(judged), 1),
        labels={
            label: _quality([j.example.label is label for j in judged], [j.result.label is label for j in judged])
            for label in Label
        },
        confusion=Counter((one.example.label, one.result.label) for one in judged),
        reliability=_reliability(wanted, scores),
        spans=_spans(judged),
    )


def groups_of(judged: Iterable[Judged], key: Callable[[LabelledMessage], str]) -> dict[str, list[Judged]]:
    """Split by source, language or channel, in alphabetical order."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(key(one.example), []).append(one)
    return dict(sorted(groups.items()))


def mistakes(judged: Iterable[Judged], most: int) -> list[Judged]:
    """The worst: promotion not found or found where there is none, furthest from the threshold first."""
    wrong = [one for one in judged if one.promotional is not one.result.label.promotional]
    return sorted(wrong, key=lambda one: -abs(one.result.score - one.promotional))[:most]


def share_of(values: Sequence[bool]) -> Share | None:
    """Wilson's interval."""
    count = len(values)
    if not count:
        return None
    value = sum(values) / count
    middle = (value + _Z * _Z / (2 * count)) / (1 + _Z * _Z / count)
    half = _Z * math.sqrt(value * (1 - value) / count + _Z * _Z / (4 * count * count)) / (1 + _Z * _Z / count)
    # At the ends rounding would leave the share outside its interval.
    return Share(value, min(max(middle - half, 0.0), value), max(min(middle + half, 1.0), value))


def auc(wanted: Sequence[bool], scores: Sequence[float]) -> float | None:
    """How likely a promotional message has a higher score than another; a tie is half."""
    positive = sum(wanted)
    negative = len(wanted) - positive
    if not positive or not negative:
        return None
    ranks, below = 0.0, 0
    by_score: dict[float, list[bool]] = {}
    for is_so, score in zip(wanted, scores, strict=True):
        by_score.setdefault(score, []).append(is_so)
    for score in sorted(by_score):
        same = by_score[score]
        ranks += sum(same) * (below + (len(same) - sum(same)) / 2)
        below += len(same) - sum(same)
    return ranks / (positive * negative)


def recall_at(wanted: Sequence[bool], scores: Sequence[float], specificity: float = SPECIFICITY) -> float | None:
    """Recall at the lowest threshold that leaves this share of the others below or at it."""
    others = sorted(score for is_so, score in zip(wanted, scores, strict=True) if not is_so)
    own = [score for is_so, score in zip(wanted, scores, strict=True) if is_so]
    if not others or not own:
        return None
    threshold = others[max(math.ceil(specificity * len(others)) - 1, 0)]
    return sum(score > threshold for score in own) / len(own)


def _quality(wanted: Sequence[bool], found: Sequence[bool]) -> Quality:
    pairs = list(zip(wanted, found, strict=True))
    return Quality(
        sum(wanted),
        share_of([is_so for is_so, got in pairs if got]),
        share_of([got for is_so, got in pairs if is_so]),
        _f1(pairs) if any(wanted) else None,
    )


def _f1(pairs: Sequence[tuple[bool, bool]]) -> Share:
    counts = Counter(pairs)
    kinds, weights = list(counts), list(counts.values())
    draw = random.Random(0)  # noqa: S311 -- resampling, not a secret
    drawn = sorted(_f1_of(Counter(draw.choices(kinds, weights, k=len(pairs)))) for _ in range(_RESAMPLED))
    low, high = (drawn[int(tail * (_RESAMPLED - 1))] for tail in _TAILS)
    return Share(_f1_of(counts), low, high)


def _f1_of(counts: Mapping[tuple[bool, bool], int]) -> float:
    both = counts.get((True, True), 0)
    one = counts.get((True, False), 0) + counts.get((False, True), 0)
    return 2 * both / (2 * both + one) if both else 0.0


def _reliability(wanted: Sequence[bool], scores: Sequence[float]) -> tuple[Bin, ...]:
    bins = []
    for low, high in pairwise(place / _BINS for place in range(_BINS + 1)):
        inside = [
            (score, is_so)
            for score, is_so in zip(scores, wanted, strict=True)
            if low <= score and (score < high or high == 1.0)
        ]
        if inside:
            count = len(inside)
            bins.append(Bin(low, count, sum(s for s, _ in inside) / count, sum(w for _, w in inside) / count))
    return tuple(bins)


def _spans(judged: Iterable[Judged]) -> Spans | None:
    found, inside, total = [], 0, 0
    for one in judged:
        if one.example.label is not Label.MIXED or not one.example.spans:
            continue
        spans = [f" {words_of(span)} " for span in one.example.spans]
        passages = [f" {words_of(passage)} " for passage in promoting_passages(one.result)]
        hits = [any(passage in span or span in passage for span in spans) for passage in passages]
        found.append(any(hits))
        for passage, hit in zip(passages, hits, strict=True):
            total += len(passage.split())
            inside += len(passage.split()) if hit else 0
    share = share_of(found)
    return Spans(share, inside / total if total else 0.0) if share else None


def promoting_passages(result: Classification) -> list[str]:
    """The sentences in which promotion or an ask was found, by a rule or by what was learned."""
    passages = []
    for index, segment in enumerate(result.segments):
        if segment.label in _PROMOTING:
            judgement = result.judgements[index]
            lines = {(one.start, one.end) for one in judgement.sentences if one.promotion >= 0}
            lines |= {(hit.start, hit.end) for hit in judgement.hits if _rule_of(result, hit).label in _PROMOTING}
            passages += [judgement.text[start:end].decode("utf-8", "replace") for start, end in sorted(lines)]
    return passages


def _rule_of(result: Classification, hit: Hit) -> Rule:
    return result.rules.rules[result.rules.patterns[hit.pattern].rule]


_PROMOTING: Final = (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION)

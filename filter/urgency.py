"""Time-critical mail that promotes: a passcode, password reset, fraud or safety alert with an offer beside it.

Holding such a copy does harm, and letting every message pass that names a passcode would be a hole. So the test is
strict, simple and blind to what a sender claims. A promotional message is time-critical when all of this is true:

- its subject, or one of its first `FIRST` texts in sight (headings, paragraphs, cells), matches a rule that is marked
  `time_critical`, in a sentence that does not promote;
- its subject does not promote;
- at most `SENTENCES` sentences promote, of `CHARACTERS` characters together, wherever they stand, in hidden
  text, footers and quotations too; and they are no more than half of what is in sight besides those. Where no sentence
  does by itself, the message as a whole does;
- all of it was read, attachments apart, and no words were disguised.

Pure; raises nothing.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from .findings import Judgement
from .labels import SegmentKind, SegmentLabel
from .rules import RuleSet
from .segments import Defect, DefectCode, Segment

FIRST: Final = 3
"""Texts in sight after the subject among which time-critical evidence counts."""
SENTENCES: Final = 3
"""Sentences of such a message that may promote."""
CHARACTERS: Final = 300
"""Characters that these may have together (octets of the sheet)."""

_SAID: Final = frozenset({SegmentKind.HEADING, SegmentKind.PARAGRAPH, SegmentKind.CELL})
_NO_COUNTERWEIGHT: Final = frozenset({SegmentKind.SENDER, SegmentKind.FOOTER, SegmentKind.QUOTED, SegmentKind.ALT})
_NOT_IN_DOUBT: Final = frozenset({DefectCode.ATTACHMENT})
_PROMOTING: Final = frozenset({SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION})


class Bound(StrEnum):
    """Why a promotional message with time-critical evidence does not count as time-critical; in words."""

    PLACE = "the evidence is hidden, or stands neither in the subject nor at the beginning"
    SUBJECT = "the subject promotes"
    SENTENCES = f"more than {SENTENCES} sentences promote"
    LENGTH = f"what promotes has more than {CHARACTERS} characters"
    SHARE = "more than half of its sentences promote"
    WHOLE = "no sentence alone promotes, but the whole does"
    DOUBT = "part of it was not read, or words are disguised"


class Urgency(NamedTuple):
    """The time-critical rules that match (ids), and what keeps the message from counting as such (None: nothing)."""

    rules: tuple[str, ...] = ()
    bound: Bound | None = None

    @property
    def counts(self) -> bool:
        """Whether the message is time-critical."""
        return bool(self.rules) and self.bound is None


class _Sentence(NamedTuple):
    segment: int
    urgent: tuple[str, ...]
    promotes: bool
    length: int


_LIKELY: Final = 1.0  # log-odds from which a sentence counts as promoting by what was learned


def urgency_of(
    segments: Sequence[Segment], judgements: Mapping[int, Judgement], defects: Sequence[Defect], rules: RuleSet
) -> Urgency:
    """Whether a promotional message is time-critical; asked of few messages, for it looks at every sentence."""
    hits = (hit for judgement in judgements.values() for hit in judgement.hits)
    if not any(rules.rules[rules.patterns[hit.pattern].rule].time_critical for hit in hits):
        return Urgency()
    found = [one for index, judgement in judgements.items() for one in _sentences(index, judgement, rules)]
    urgent = [one for one in found if one.urgent and not one.promotes]
    if not urgent:
        return Urgency()
    ids = tuple(sorted({rule for one in urgent for rule in one.urgent}))
    places = _beginning(segments)
    if not any(one.segment in places for one in urgent):
        return Urgency(ids, Bound.PLACE)
    return Urgency(ids, _exceeded(segments, judgements, defects, [one for one in found if one.promotes]))


def _exceeded(
    segments: Sequence[Segment],
    judgements: Mapping[int, Judgement],
    defects: Sequence[Defect],
    promoting: Sequence[_Sentence],
) -> Bound | None:
    """The first bound that a message exceeds."""
    if any(
        defect.code is DefectCode.OBFUSCATED or (defect.unread and defect.code not in _NOT_IN_DOUBT)
        for defect in defects
    ):
        return Bound.DOUBT
    if not promoting:
        return Bound.WHOLE
    if any(segments[one.segment].kind is SegmentKind.SUBJECT for one in promoting):
        return Bound.SUBJECT
    if len(promoting) > SENTENCES:
        return Bound.SENTENCES
    if sum(one.length for one in promoting) > CHARACTERS:
        return Bound.LENGTH
    # A text of which nothing is known has one sentence at least. What few read is no counterweight.
    shown = [i for i, one in enumerate(segments) if one.kind not in _NO_COUNTERWEIGHT and not one.hidden]
    lines = sum(judgements[i].text.count(b"\n") if i in judgements else 1 for i in shown)
    return Bound.SHARE if 2 * len(promoting) > lines else None


def _beginning(segments: Sequence[Segment]) -> set[int]:
    """The segments in which time-critical evidence counts."""
    seen = [index for index, one in enumerate(segments) if one.kind in _SAID and not one.hidden][:FIRST]
    return {index for index, one in enumerate(segments) if one.kind is SegmentKind.SUBJECT}.union(seen)


def _sentences(index: int, judgement: Judgement, rules: RuleSet) -> list[_Sentence]:
    """The sentences of a segment of which something is known."""
    urgent: dict[int, list[str]] = {}
    promotion: dict[int, float] = {}
    ends: dict[int, int] = {}
    for number, start, end in {(rules.patterns[hit.pattern].rule, hit.start, hit.end) for hit in judgement.hits}:
        rule, ends[start] = rules.rules[number], end
        if rule.time_critical:
            urgent.setdefault(start, []).append(rule.id)
        if rule.label in _PROMOTING:
            promotion[start] = promotion.get(start, 0.0) + rules.weight(number)
        elif rule.label is SegmentLabel.NEUTRAL:
            promotion[start] = promotion.get(start, 0.0) - rules.weight(number)
    for sentence in judgement.sentences:
        ends[sentence.start] = sentence.end
        if sentence.promotion >= _LIKELY:
            promotion[sentence.start] = max(promotion.get(sentence.start, 0.0), 1.0)
    return [
        _Sentence(index, tuple(urgent.get(start, ())), promotion.get(start, 0.0) > 0, end - start)
        for start, end in ends.items()
    ]

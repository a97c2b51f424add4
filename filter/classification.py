"""What a message was judged to be, as values: `Classification` with its label, and on demand every piece of evidence.

Which rules matched, and what was learned of its sentences, is known when a message has been judged; the exact words are
found when somebody asks for `segments` or `evidence`. Pure; raises nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from .findings import Judgement
from .labels import Label, SegmentKind, SegmentLabel
from .learned import Head, Sentence
from .message import DefectCode, Message
from .rules import RuleSet
from .sheet import BETWEEN, OPENING, fold, offsets
from .urgency import Urgency, urgency_of

MAX_SHOWN: Final = 50  # matches of one rule in a segment, or of a pattern in a sentence, that are shown as evidence
MAX_TERMS: Final = 8  # learned words of a sentence that are shown as evidence, those that weigh most
LEAST_TERM: Final = 0.2  # log-odds, below which none is
WORDS: Final = "learned.words"
"""Stands as rule beside the words that weigh in a sentence; the sentence itself has `learned.promotion` or the like."""


class Evidence(NamedTuple):
    """One rule at work: `start` and `end` are character offsets in the segment's text, `weight` is in log-odds.

    Structural evidence (headers, links) has segment -1 and quotes the header or parameter.
    """

    rule: str
    label: SegmentLabel
    weight: float
    segment: int
    start: int
    end: int
    text: str
    cites: tuple[str, ...]


class JudgedSegment(NamedTuple):
    """A segment with its label, its promotional evidence in log-odds, and what it rests on."""

    kind: SegmentKind
    label: SegmentLabel
    text: str
    hidden: bool
    score: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The judgement on a message.

    `score` is the probability that it is not pure service; `claimed` the label the sender claims, if any; `unread` what
    could not be judged; `judgements` holds the segments with evidence, by index; `support` the structural evidence.
    """

    message: Message
    label: Label
    score: float
    claimed: Label | None
    unread: tuple[DefectCode, ...]
    judgements: Mapping[int, Judgement]
    support: tuple[Evidence, ...]
    rules: RuleSet

    @property
    def ruleset(self) -> str:
        """The version of the rules that judged."""
        return self.rules.version

    @property
    def disguised(self) -> bool:
        """Whether the sender claims service and the content is direct marketing (law rules R14, R50)."""
        return self.claimed in _SERVICE_CLAIMS and self.label.promotional

    @property
    def obfuscated(self) -> bool:
        """Whether words were disguised from readers or machines."""
        return any(defect.code is DefectCode.OBFUSCATED for defect in self.message.defects)

    @property
    def urgency(self) -> Urgency:
        """What makes promotional mail time-critical, or keeps it from being so; nothing for other mail."""
        if not self.label.promotional:
            return Urgency()
        return urgency_of(self.message.segments, self.judgements, self.message.defects, self.rules)

    @property
    def time_critical(self) -> bool:
        """Whether it promotes beside a passcode, password reset, fraud or safety alert (see `urgency`)."""
        return self.urgency.counts

    @property
    def threshold(self) -> float:
        """The evidence in log-odds from which something is shown."""
        return self.rules.weights.threshold

    @property
    def service_shown(self) -> float:
        """Evidence of rules, in what a recipient sees, for a genuine service purpose; hidden words show none."""
        segments = self.message.segments
        return sum(max(j.service, j.survey) for i, j in self.judgements.items() if not segments[i].hidden)

    @property
    def segments(self) -> tuple[JudgedSegment, ...]:
        """All segments in reading order; those without evidence are neutral (law rule R11)."""
        return tuple(self._segment(i) for i in range(len(self.message.segments)))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """All evidence in reading order, structural evidence last."""
        return tuple(e for i in sorted(self.judgements) for e in self._evidence(i)) + self.support

    @property
    def decisive_rules(self) -> tuple[str, ...]:
        """Ids of the rules that argue for the label, strongest first, each once."""
        wanted = _ARGUES[self.label]
        indexes = {self.rules.patterns[hit.pattern].rule for j in self.judgements.values() for hit in j.hits}
        found = [
            (-self.rules.weight(i), self.rules.rules[i].id) for i in indexes if self.rules.rules[i].label in wanted
        ]
        learned: dict[Head, float] = {}
        for sentence in (one for judgement in self.judgements.values() for one in judgement.sentences):
            head = _does(sentence)
            if head and _LEARNED[head].label in wanted:
                learned[head] = min(learned.get(head, 0.0), -self.rules.weights.evidence(getattr(sentence, head)))
        found += [(weight, _LEARNED[head].rule) for head, weight in learned.items()]
        if not found and self.label.promotional:  # many sentences, none of which would do by itself
            found.append((0.0, _LEARNED[Head.PROMOTION].rule))
        return tuple(rule for _, rule in sorted(found))

    def _segment(self, index: int) -> JudgedSegment:
        segment, judgement = self.message.segments[index], self.judgements.get(index)
        if judgement is None:
            return JudgedSegment(segment.kind, SegmentLabel.NEUTRAL, segment.text, segment.hidden, 0.0, ())
        evidence = self._amounts_to(index)
        score = round(max(evidence[SegmentLabel.MARKETING], evidence[SegmentLabel.RE_PERMISSION]), 3)
        label = next((label for label, weight in evidence.items() if weight >= self.threshold), SegmentLabel.NEUTRAL)
        return JudgedSegment(segment.kind, label, segment.text, segment.hidden, score, self._evidence(index))

    def _amounts_to(self, index: int) -> dict[SegmentLabel, float]:
        """Evidence in a segment by label, the more telling one of rules and strongest sentence; in order of rank."""
        judgement, kind = self.judgements[index], self.message.segments[index].kind
        found = {
            SegmentLabel.MARKETING: judgement.promotion,
            SegmentLabel.RE_PERMISSION: judgement.ask,
            SegmentLabel.SURVEY: judgement.survey,
            SegmentLabel.SERVICE: judgement.service,
        }
        factor = self.rules.weights.kinds.get(kind, 1.0)
        for sentence in judgement.sentences:
            if head := _does(sentence):
                label = _LEARNED[head].label
                found[label] = max(found[label], factor * self.rules.weights.evidence(getattr(sentence, head)))
        return found

    def _evidence(self, index: int) -> tuple[Evidence, ...]:
        """The words that each rule matched in a segment, in order; where one rule's matches overlap, the longest."""
        hits, sheet_of_segment = self.judgements[index].hits, self.judgements[index].text
        where = self._offsets(index)
        spans: dict[int, list[tuple[int, int]]] = {}
        for hit in hits:
            pattern = self.rules.patterns[hit.pattern]
            for match in islice(pattern.exact.finditer(sheet_of_segment, hit.start, hit.end + 2), MAX_SHOWN):
                # The opening of a segment, which ^ matches, is no character of it.
                start, end = (max(place - len(OPENING), 0) for place in match.span())
                spans.setdefault(pattern.rule, []).append((where[start], where[end - 1] + 1))
        shown = ((start, end, rule) for rule, found in spans.items() for start, end in _apart(found)[:MAX_SHOWN])
        by_rules = [self._one(index, rule, start, end) for start, end, rule in sorted(shown)]
        return tuple(sorted(by_rules + self._learned(index, where), key=_place_of))

    def _learned(self, index: int, where: Sequence[int]) -> list[Evidence]:
        """Each sentence of a segment for what it was found to do, and the words that weigh most for or against that."""
        judgement, text = self.judgements[index], self.message.segments[index].text
        shown = []
        for sentence in judgement.sentences:
            if head := _does(sentence):
                rule, label, cites = _LEARNED[head]
                terms = self.rules.learned.terms(judgement.text, sentence, head)
                strongest = sorted(terms, key=lambda term: -abs(term.weight))[:MAX_TERMS]
                found = [(rule, self.rules.weights.evidence(getattr(sentence, head)), sentence.start, sentence.end)]
                found += [
                    (WORDS, term.weight / self.rules.weights.slope, term.start, term.end)
                    for term in strongest
                    if abs(term.weight) >= LEAST_TERM
                ]
                for name, weight, first, last in found:
                    start, end = (where[max(place - len(OPENING), 0)] for place in (first, last - 1))
                    words = text[start : end + 1]
                    shown.append(Evidence(name, label, round(weight, 2), index, start, end + 1, words, cites))
        return shown

    def _offsets(self, index: int) -> list[int]:
        """For each octet of a segment's sheet, the character of the segment that it belongs to."""
        text = self.message.segments[index].text
        where = offsets(text)
        if fold(text).isascii():
            return where
        kept = self.judgements[index].text[len(OPENING) : -len(BETWEEN)].decode()
        return [place for char, place in zip(kept, where, strict=False) for _ in char.encode()] + where[-1:]

    def _one(self, index: int, number: int, start: int, end: int) -> Evidence:
        rule = self.rules.rules[number]
        words = self.message.segments[index].text[start:end]
        return Evidence(rule.id, rule.label, self.rules.weight(number), index, start, end, words, rule.cites)


class _Cause(NamedTuple):
    """What stands for a head where rules stand: an id, the label it argues for, and what that rests on."""

    rule: str
    label: SegmentLabel
    cites: tuple[str, ...]


_LEARNED: Final[Mapping[Head, _Cause]] = {
    Head.PROMOTION: _Cause("learned.promotion", SegmentLabel.MARKETING, ("R2",)),
    Head.ASK: _Cause("learned.ask", SegmentLabel.RE_PERMISSION, ("R3",)),
    Head.SURVEY: _Cause("learned.survey", SegmentLabel.SURVEY, ("R7",)),
    Head.SERVICE: _Cause("learned.service", SegmentLabel.SERVICE, ("R10",)),
}


def _does(sentence: Sentence) -> Head | None:
    """What a sentence is more likely to do than not; promotion before all others (law rule R12)."""
    if sentence.promotion >= 0:
        return Head.ASK if sentence.ask >= 0 else Head.PROMOTION
    if sentence.survey >= 0:
        return Head.SURVEY
    return Head.SERVICE if sentence.service >= 0 else None


def _place_of(evidence: Evidence) -> tuple[int, int]:
    return evidence.start, -evidence.end


_SERVICE_CLAIMS: Final = frozenset({Label.SERVICE, Label.SURVEY})
_ARGUES: Final = {
    Label.MARKETING: (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION),
    Label.MIXED: (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION),
    Label.RE_PERMISSION: (SegmentLabel.RE_PERMISSION,),
    Label.SURVEY: (SegmentLabel.SURVEY,),
    Label.SERVICE: (SegmentLabel.SERVICE,),
}

# What senders write into their claims; anything else is no claim that we know.
_SERVICE_WORDS: Final = (
    *("service", "servicing", "transactional", "transaction", "operational", "system", "notification", "alert"),
    *("account", "receipt", "security", "essential", "administrative"),
)
_MARKETING_WORDS: Final = ("promotional", "promotion", "commercial", "newsletter", "bulk", "campaign")
_CLAIMS: Final = {
    **dict.fromkeys(_SERVICE_WORDS, Label.SERVICE),
    **dict.fromkeys(_MARKETING_WORDS, Label.MARKETING),
    **{label.value: label for label in Label},
}


def claimed_label(declared: str) -> Label | None:
    """The label a sender's own words claim, or None; `Service message`, `transactional` and the like are service."""
    return next((_CLAIMS[word] for word in re.findall(r"[a-z_]+", declared.lower()) if word in _CLAIMS), None)


def _apart(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of one rule without those that lie in or overlap an earlier, longer one."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept

"""Compiled rules x `Message` -> `Classification`: what the message is, where that stands, and on whose word.

Judged from content only. The sender's own claim is reported beside the result and weighs nothing (law rule R14); a
claim of service on promotional content is `disguised`. Never raises on any `Message`; what was not read stays visible
in `Classification.unread`. Pure: no I/O, no clock.

How evidence becomes a label (numbers in `rules.Weights`):
- within a sentence, `neutral` evidence (a context in which promotional words are innocent) is taken off the promotion;
- words of promotion in a sentence that asks for consent count as the ask (law rule R3);
- a segment counts its strongest sentence whole and the others in part; footers and quoted text count less;
- weak evidence scattered over segments adds up, at a discount; headers and link tracking support, never decide;
- service evidence never cancels promotion: it turns `marketing` into `mixed` (law rule R12).
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .labels import Label, SegmentKind, SegmentLabel
from .message import UNREAD, DefectCode, Message, Segment
from .pattern import fold
from .rules import Hit, RuleSet

_SENTENCE_END: Final = re.compile(r"""[.!?]["')]{0,2} |\n""")


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


class Judgement(NamedTuple):
    """What one segment amounts to: its label and the evidence sums by what they argue for (log-odds)."""

    label: SegmentLabel
    promotion: float
    ask: float
    survey: float
    service: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The judgement on a message.

    `score` is the probability that it is not pure service; `claimed` the label the sender claims, if any; `unread` what
    could not be judged; `judgements` holds the segments with evidence, by index; `ruleset` the version that judged.
    """

    label: Label
    score: float
    claimed: Label | None
    unread: tuple[DefectCode, ...]
    judgements: Mapping[int, Judgement]
    support: tuple[Evidence, ...]
    ruleset: str
    message_segments: tuple[Segment, ...]

    @property
    def disguised(self) -> bool:
        """Whether the sender claims service and the content is direct marketing (law rules R14, R50)."""
        return self.claimed in _SERVICE_CLAIMS and self.label.promotional

    @property
    def segments(self) -> tuple[JudgedSegment, ...]:
        """All segments in reading order; those without evidence are neutral (law rule R11)."""
        return tuple(self._judged(i, segment) for i, segment in enumerate(self.message_segments))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """All evidence in reading order, structural evidence last."""
        return tuple(e for i in sorted(self.judgements) for e in self.judgements[i].evidence) + self.support

    @property
    def decisive_rules(self) -> tuple[str, ...]:
        """Ids of the rules that argue for the label, strongest first, each once."""
        wanted = _ARGUES.get(self.label, ())
        found = sorted((e for e in self.evidence if e.label in wanted), key=lambda e: -e.weight)
        return tuple(dict.fromkeys(e.rule for e in found))

    def _judged(self, index: int, segment: Segment) -> JudgedSegment:
        judgement = self.judgements.get(index)
        if judgement is None:
            return JudgedSegment(segment.kind, SegmentLabel.NEUTRAL, segment.text, segment.hidden, 0.0, ())
        score = round(max(judgement.promotion, judgement.ask), 3)
        return JudgedSegment(segment.kind, judgement.label, segment.text, segment.hidden, score, judgement.evidence)


_SERVICE_CLAIMS: Final = frozenset({Label.SERVICE, Label.SURVEY})
_ARGUES: Final = {
    Label.MARKETING: (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION),
    Label.MIXED: (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION),
    Label.RE_PERMISSION: (SegmentLabel.RE_PERMISSION,),
    Label.SURVEY: (SegmentLabel.SURVEY,),
    Label.SERVICE: (SegmentLabel.SERVICE,),
}

# What senders write into their claims; anything else is no claim that we know (None).
_CLAIMS: Final = {
    **dict.fromkeys(
        ("service", "servicing", "transactional", "transaction", "operational", "system", "notification"), Label.SERVICE
    ),
    **dict.fromkeys(("alert", "account", "receipt", "security", "essential", "administrative"), Label.SERVICE),
    **dict.fromkeys(
        ("marketing", "promotional", "promotion", "commercial", "newsletter", "bulk", "campaign"), Label.MARKETING
    ),
    **{label.value: label for label in Label},
}


def claimed_label(declared: str) -> Label | None:
    """The label a sender's own words claim, or None; `service message`, `Transactional` and the like are service."""
    return next((_CLAIMS[word] for word in re.findall(r"[a-z_]+", declared.lower()) if word in _CLAIMS), None)


class Classifier:
    """Judges messages by one rule set. Immutable; a reload builds another and swaps it in."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._kinds = [rule.kinds for rule in rules.rules]
        self._weights = [rules.weights.rules.get(rule.id, rule.weight) for rule in rules.rules]

    def classify(self, message: Message) -> Classification:
        """Judge a message; linear in its text."""
        segments, weights = message.segments, self.rules.weights
        by_segment = self._evidence(message)
        judgements = {i: self._judge(segments[i], evidence) for i, evidence in by_segment.items()}
        promotion = self._promotion(judgements)
        ask = max((j.ask for j in judgements.values()), default=0.0)
        support = _support(message) if promotion or ask else ()
        supported = min(sum(e.weight for e in support), weights.support_cap)
        promotion += supported if promotion else 0.0
        service = sum(j.service for j in judgements.values())
        survey = sum(j.survey for j in judgements.values())
        evidence = max(promotion, ask + (0.0 if promotion else supported))
        return Classification(
            label=self._label(promotion, ask, survey, service),
            score=round(1 / (1 + math.exp(-(weights.slope * min(evidence, 50.0) + weights.intercept))), 4),
            claimed=claimed_label(message.declared) if message.declared else None,
            unread=tuple(defect.code for defect in message.defects if defect.code in UNREAD),
            judgements=judgements,
            support=support,
            ruleset=self.rules.version,
            message_segments=segments,
        )

    def _label(self, promotion: float, ask: float, survey: float, service: float) -> Label:
        threshold = self.rules.weights.threshold
        if promotion >= threshold:
            return Label.MIXED if service >= threshold else Label.MARKETING
        if ask >= threshold:
            return Label.RE_PERMISSION
        return Label.SURVEY if survey >= threshold else Label.SERVICE

    def _promotion(self, judgements: Mapping[int, Judgement]) -> float:
        """The strongest segment, or what weak segments add up to."""
        weights = self.rules.weights
        found = [j.promotion for j in judgements.values()]
        weak = sum(p for p in found if p < weights.threshold)
        return max(max(found, default=0.0), weights.scattered * weak)

    def _evidence(self, message: Message) -> dict[int, list[Evidence]]:
        """Scan all segments in one pass and hand each match to its segment."""
        segments = message.segments
        text = fold("\n".join([segment.text for segment in segments]))
        data = text.encode()
        hits = self.rules.scan(data)
        if not hits:
            return {}
        if len(data) != len(text):
            hits = _in_characters(hits, data)
        starts, position = [], 0
        for segment in segments:
            starts.append(position)
            position += len(segment.text) + 1
        found: dict[int, list[Evidence]] = {}
        for hit in _longest(hits):
            index = bisect_right(starts, hit.start) - 1
            segment, rule = segments[index], self.rules.rules[hit.rule]
            if segment.kind not in self._kinds[hit.rule] or message.channel not in rule.channels:
                continue
            start, end = hit.start - starts[index], hit.end - starts[index]
            weight = self._weights[hit.rule]
            evidence = Evidence(rule.id, rule.label, weight, index, start, end, segment.text[start:end], rule.cites)
            found.setdefault(index, []).append(evidence)
        return found

    def _judge(self, segment: Segment, evidence: Sequence[Evidence]) -> Judgement:
        weights = self.rules.weights
        promotion, ask = self._by_sentence(segment.text, evidence)
        factor = weights.kinds.get(segment.kind, 1.0)
        promotion, ask = promotion * factor, ask * factor
        survey = _sum_once(evidence, SegmentLabel.SURVEY) * factor
        service = _sum_once(evidence, SegmentLabel.SERVICE) * factor
        label = SegmentLabel.NEUTRAL
        if promotion >= weights.threshold:
            label = SegmentLabel.MARKETING
        elif ask >= weights.threshold:
            label = SegmentLabel.RE_PERMISSION
        elif survey >= weights.threshold:
            label = SegmentLabel.SURVEY
        elif service >= weights.threshold:
            label = SegmentLabel.SERVICE
        return Judgement(label, promotion, ask, survey, service, tuple(evidence))

    def _by_sentence(self, text: str, evidence: Sequence[Evidence]) -> tuple[float, float]:
        """Promotional and asking evidence of a segment: the strongest sentence, and part of the rest."""
        ends = [match.end() for match in _SENTENCE_END.finditer(fold(text))] if len(evidence) > 1 else []
        sentences: dict[int, list[Evidence]] = {}
        for e in evidence:
            sentences.setdefault(bisect_right(ends, e.start), []).append(e)
        promotions, asks = [], []
        for sentence in sentences.values():
            promotion = _sum_once(sentence, SegmentLabel.MARKETING)
            if promotion:
                promotion = max(0.0, promotion - _sum_once(sentence, SegmentLabel.NEUTRAL))
            ask = _sum_once(sentence, SegmentLabel.RE_PERMISSION)
            promotions.append(0.0 if ask else promotion)
            asks.append(ask + promotion if ask else 0.0)
        return self._strongest_and_rest(promotions), self._strongest_and_rest(asks)

    def _strongest_and_rest(self, values: Sequence[float]) -> float:
        strongest = max(values, default=0.0)
        return strongest + self.rules.weights.rest_of_segment * (sum(values) - strongest)


def _sum_once(evidence: Sequence[Evidence], label: SegmentLabel) -> float:
    """Sum of the weights that argue for `label`, each rule once however often it matched."""
    return sum({e.rule: e.weight for e in evidence if e.label is label}.values())


def _longest(hits: Sequence[Hit]) -> list[Hit]:
    """One hit for each rule and start, the longest, in order of start."""
    ends: dict[tuple[int, int], int] = {}
    for rule, start, end in hits:
        if end > ends.get((start, rule), -1):
            ends[start, rule] = end
    return [Hit(rule, start, end) for (start, rule), end in sorted(ends.items())]


def _in_characters(hits: Sequence[Hit], data: bytes) -> list[Hit]:
    """Turn octet offsets into character offsets, in one pass over the text."""
    characters, octets, count = {}, 0, 0
    for offset in sorted({offset for hit in hits for offset in (hit.start, hit.end)}):
        count += len(data[octets:offset].decode(errors="replace"))
        octets = offset
        characters[offset] = count
    return [Hit(hit.rule, characters[hit.start], characters[hit.end]) for hit in hits]


def _support(message: Message) -> tuple[Evidence, ...]:
    """Structural evidence: what bulk senders add to campaigns. Weak by itself, and present on service mail too."""
    found = []
    for header, rule, weight in (
        ("list-unsubscribe", "support.list-unsubscribe", 0.3),
        ("list-id", "support.list-id", 0.2),
        ("x-campaign", "support.campaign-header", 0.3),
        ("x-campaignid", "support.campaign-header", 0.3),
        ("feedback-id", "support.feedback-id", 0.1),
    ):
        if header in message.headers:
            found.append(Evidence(rule, SegmentLabel.MARKETING, weight, -1, 0, 0, header, ("R68",)))
    if any("utm_" in link.path for link in message.links):
        found.append(Evidence("support.utm-link", SegmentLabel.MARKETING, 0.3, -1, 0, 0, "utm_", ("R19",)))
    return tuple(found)

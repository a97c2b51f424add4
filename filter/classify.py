"""Compiled rules x learned weights x `Message` -> `Classification`: what the message is, and on whose word.

Judged from content only. The sender's own claim is reported beside the result and weighs nothing (law rule R14); a
claim of service on promotional content is `disguised`. Never raises on any `Message`; what was not read stays visible
in `Classification.unread`. Pure: no I/O, no clock.

How the evidence of rules adds up (numbers in `rules.Weights`):
- `neutral` evidence (a phrase in which promotional words are innocent) is taken off the promotion that it covers;
- words of promotion in a sentence that asks for consent count as the ask (law rule R3);
- a segment counts its strongest sentence whole and the others in part; footers and quoted text count less;
- weak evidence scattered over segments adds up, at a discount; headers and link tracking support, never decide;
- service evidence never cancels promotion: it turns `marketing` into `mixed` (law rule R12).

The learned model reads the same sentences, and its opinion of the message takes the rules' evidence in (`learned`).
It may find promotion where no rule does; where rules find some, it takes off no more than `Weights.learned_doubt`.

The verdict needs to know which rules matched in which sentence; the exact words are found when somebody asks. What a
segment amounts to depends on its text, kind and channel only, and is remembered for the next copy that has it
(see `findings`).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from .classification import Classification, Evidence, claimed_label
from .findings import MEMORY, NOTHING, Finder, Finding, Judgement
from .labels import Channel, Label, SegmentKind, SegmentLabel
from .learned import Head, Summary, joined
from .message import UNREAD, Message
from .rules import Hit, RuleSet
from .segments import kinds_of, texts_of

_EVERY_KIND: Final = frozenset(SegmentKind)
_EVERY_CHANNEL: Final = frozenset(Channel)


class _Sums(NamedTuple):
    """Evidence in log-odds, by what it argues for (`_ARGUED`, in this order); `innocence` is that of neutral rules."""

    promotion: float
    innocence: float
    ask: float
    survey: float
    service: float


_ARGUED: Final = (
    SegmentLabel.MARKETING,
    SegmentLabel.NEUTRAL,
    SegmentLabel.RE_PERMISSION,
    SegmentLabel.SURVEY,
    SegmentLabel.SERVICE,
)


class Classifier:
    """Judges messages by one rule set; a reload builds another and swaps it in.

    Remembers what it found in segments, up to `memory` octets (0: nothing); results are the same.
    """

    def __init__(self, rules: RuleSet, *, memory: int = MEMORY) -> None:
        self.rules = rules
        self._finder = Finder(rules, memory)
        self._owner = [pattern.rule for pattern in rules.patterns]
        self._weight = [rules.weight(number) for number in range(len(rules.rules))]
        self._column = [_ARGUED.index(rule.label) for rule in rules.rules]
        self._everywhere = [rule.kinds == _EVERY_KIND and rule.channels == _EVERY_CHANNEL for rule in rules.rules]

    def classify(self, message: Message) -> Classification:
        """Judge a message; linear in its text."""
        weights = self.rules.weights
        findings = self._finder.find(texts_of(message.segments))
        judgements = self._judgements(message, findings)
        evidence = self._evidence_of(judgements.values())
        opinions = self._opinions(message, findings, evidence)
        promotion, ask = evidence.promotion, evidence.ask
        if opinions:
            heard = max(opinions[Head.PROMOTION], max(promotion, ask) - weights.learned_doubt)
            promotion, ask = (0.0, heard) if opinions[Head.ASK] >= weights.threshold else (heard, 0.0)
        support = _support(message, weights.support) if promotion > 0 or ask > 0 else ()
        supported = min(sum(e.weight for e in support), weights.support_cap)
        if promotion:
            promotion += supported
        else:
            ask += supported
        survey = opinions.get(Head.SURVEY, evidence.survey)
        service = opinions.get(Head.SERVICE, evidence.service)
        return Classification(
            message=message,
            label=self._label(promotion, ask, survey, service),
            score=_probability(max(promotion, ask), weights.slope, weights.intercept),
            claimed=claimed_label(message.declared) if message.declared else None,
            unread=tuple(defect.code for defect in message.defects if defect.code in UNREAD),
            judgements=judgements,
            support=support,
            rules=self.rules,
        )

    def _label(self, promotion: float, ask: float, survey: float, service: float) -> Label:
        threshold = self.rules.weights.threshold
        if promotion >= threshold:
            return Label.MIXED if service >= threshold else Label.MARKETING
        if ask >= threshold:
            return Label.RE_PERMISSION
        return Label.SURVEY if survey >= threshold else Label.SERVICE

    def _evidence_of(self, judgements: Collection[Judgement]) -> _Sums:
        """What the rules argue for in the whole message."""
        return _Sums(
            promotion=self._promotion(judgements),
            innocence=0.0,
            ask=max((j.ask for j in judgements), default=0.0),
            survey=sum(j.survey for j in judgements),
            service=sum(j.service for j in judgements),
        )

    def _opinions(self, message: Message, findings: Sequence[Finding], evidence: _Sums) -> dict[Head, float]:
        """What was learned says of the message, by head, in the rules' measure of evidence; nothing without words."""
        learned, weights = self.rules.learned, self.rules.weights
        return {
            head: (learned.log_odds(head, *read) - weights.intercept) / weights.slope
            for head, read in _reading(message, findings, evidence).items()
        }

    def reading(self, message: Message) -> dict[Head, tuple[Summary, float]]:
        """What opinions of a message are made from: its sentences and the rules' evidence, by head."""
        findings = self._finder.find(texts_of(message.segments))
        return _reading(message, findings, self._evidence_of(self._judgements(message, findings).values()))

    def _promotion(self, judgements: Iterable[Judgement]) -> float:
        """The strongest segment, or what weak segments add up to."""
        weights = self.rules.weights
        found = [j.promotion for j in judgements]
        weak = sum(p for p in found if p < weights.threshold)
        return max(max(found, default=0.0), weights.scattered * weak)

    def _judgements(self, message: Message, found: Sequence[Finding]) -> dict[int, Judgement]:
        judged = {}
        for index in [index for index, one in enumerate(found) if one is not NOTHING]:
            kind, channel = message.segments[index].kind, message.channel
            judgement = self._judgement(found[index], kind, channel)
            if judgement:
                judged[index] = judgement
        return judged

    def _judgement(self, found: Finding, kind: SegmentKind, channel: Channel) -> Judgement | None:
        """What a segment amounts to; None when no rule that matches is for its kind and channel."""
        if (kind, channel) not in found.judged:
            hits = tuple(hit for hit in found.hits if self._applies(hit, kind, channel))
            read = found.summaries and kind is not SegmentKind.SENDER
            found.judged[kind, channel] = self._judge(kind, hits, found) if hits or read else None
        return found.judged[kind, channel]

    def _applies(self, hit: Hit, kind: SegmentKind, channel: Channel) -> bool:
        number = self._owner[hit.pattern]
        rule = self.rules.rules[number]
        return self._everywhere[number] or (kind in rule.kinds and channel in rule.channels)

    def _judge(self, kind: SegmentKind, hits: tuple[Hit, ...], found: Finding) -> Judgement:
        """Weigh one segment: promotion and ask sentence by sentence (a sentence is a line), the rest as a whole."""
        whole = self._sums(hits)
        if len(hits) <= 1:
            promotion, ask = whole.promotion, whole.ask
        else:
            sentences = [self._sentence(tuple(sentence), found.text) for _, sentence in groupby(hits, key=_line_of)]
            promotion = self._strongest_and_rest([0.0 if ask else promotion for promotion, ask in sentences])
            ask = self._strongest_and_rest([ask + promotion if ask else 0.0 for promotion, ask in sentences])
        factor = self.rules.weights.kinds.get(kind, 1.0)
        sums = (factor * promotion, factor * ask, factor * whole.survey, factor * whole.service)
        if kind is SegmentKind.SENDER:
            return Judgement(self._named(*sums), *sums, hits, found.text)
        named = self._named(*map(max, sums, self._learned_of(found, factor)))
        return Judgement(named, *sums, hits, found.text, found.sentences)

    def _learned_of(self, found: Finding, factor: float) -> tuple[float, float, float, float]:
        """The evidence of a segment's strongest sentences: promotion, ask, survey and service."""
        if not found.summaries:
            return 0.0, 0.0, 0.0, 0.0
        promotion, ask, survey, service = [factor * self._in_evidence(one.highest[0]) for one in found.summaries]
        threshold = self.rules.weights.threshold
        return (0.0, promotion, survey, service) if ask >= threshold else (promotion, 0.0, survey, service)

    def _in_evidence(self, log_odds: float) -> float:
        """Log-odds of a sentence in the rules' measure, in which `threshold` is as likely as not."""
        return max((log_odds - self.rules.weights.intercept) / self.rules.weights.slope, 0.0)

    def _sentence(self, hits: tuple[Hit, ...], text: bytes) -> tuple[float, float]:
        """Promotion, less what its context excuses, and ask of one sentence."""
        sums = self._sums(hits)
        if sums.promotion and sums.innocence:
            return self._unexcused(hits, text), sums.ask
        return sums.promotion, sums.ask

    def _unexcused(self, hits: tuple[Hit, ...], text: bytes) -> float:
        """Promotion of a sentence with innocent phrases: each of them excuses the words that it covers, by its weight.

        A rule with several matches counts with the one that is excused least.
        """
        innocent = [
            span for hit in hits if self._argues(hit) is SegmentLabel.NEUTRAL for span in self._spans(hit, text)
        ]
        left: dict[int, float] = {}
        for hit in hits:
            if self._argues(hit) is SegmentLabel.MARKETING:
                for start, end, weight in self._spans(hit, text):
                    excused = max((w for first, last, w in innocent if first < end and start < last), default=0.0)
                    number = self._owner[hit.pattern]
                    left[number] = max(left.get(number, 0.0), weight - excused)
        return sum(left.values())

    def _argues(self, hit: Hit) -> SegmentLabel:
        return _ARGUED[self._column[self._owner[hit.pattern]]]

    def _spans(self, hit: Hit, text: bytes) -> Iterable[tuple[int, int, float]]:
        """Where a pattern matches in its line, with the rule's weight."""
        weight = self._weight[self._owner[hit.pattern]]
        for match in self.rules.patterns[hit.pattern].exact.finditer(text, hit.start, hit.end + 2):
            yield *match.span(), weight

    def _sums(self, hits: Iterable[Hit]) -> _Sums:
        """What some matches argue for, each rule once."""
        sums = [0.0] * len(_ARGUED)
        for number in {self._owner[hit.pattern] for hit in hits}:
            sums[self._column[number]] += self._weight[number]
        return _Sums._make(sums)

    def _named(self, promotion: float, ask: float, survey: float, service: float) -> SegmentLabel:
        threshold = self.rules.weights.threshold
        if promotion >= threshold:
            return SegmentLabel.MARKETING
        if ask >= threshold:
            return SegmentLabel.RE_PERMISSION
        if survey >= threshold:
            return SegmentLabel.SURVEY
        return SegmentLabel.SERVICE if service >= threshold else SegmentLabel.NEUTRAL

    def _strongest_and_rest(self, values: Sequence[float]) -> float:
        strongest = max(values)
        return strongest + self.rules.weights.rest_of_segment * (sum(values) - strongest)


def _reading(message: Message, findings: Sequence[Finding], evidence: _Sums) -> dict[Head, tuple[Summary, float]]:
    read = [
        finding.summaries
        for finding, kind in zip(findings, kinds_of(message.segments), strict=True)
        if finding.summaries and kind is not SegmentKind.SENDER
    ]
    if not read:
        return {}
    by_rules = (
        max(evidence.promotion, evidence.ask),
        evidence.ask - evidence.promotion,
        evidence.survey,
        evidence.service,
    )
    return {
        head: (joined(summaries), rules)
        for head, summaries, rules in zip(Head, zip(*read, strict=True), by_rules, strict=True)
    }


def _line_of(hit: Hit) -> int:
    return hit.start


def _probability(evidence: float, slope: float, intercept: float) -> float:
    return round(1 / (1 + math.exp(-min(slope * evidence + intercept, 50.0))), 4)


# Header, rule id and citation of what bulk senders add to campaigns, and some to service mail too.
_STRUCTURE: Final = (
    ("list-unsubscribe", "support.list-unsubscribe", "R68"),
    ("list-id", "support.list-id", "R68"),
    ("x-campaign", "support.campaign-header", "R13"),
    ("x-campaignid", "support.campaign-header", "R13"),
)


def _support(message: Message, weights: Mapping[str, float]) -> tuple[Evidence, ...]:
    """Structural evidence: weak by itself; `Weights.support_cap` limits it."""
    found = [(rule, header, cites) for header, rule, cites in _STRUCTURE if header in message.headers]
    if any("utm_" in link.path for link in message.links):
        found.append(("support.utm-link", "utm_", "R19"))
    label = SegmentLabel.MARKETING
    return tuple(Evidence(rule, label, weights[rule], -1, 0, 0, text, (cites,)) for rule, text, cites in found)

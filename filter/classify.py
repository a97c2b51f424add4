"""Compiled rules x `Message` -> `Classification`: what the message is, where that stands, and on whose word.

Judged from content only. The sender's own claim is reported beside the result and weighs nothing (law rule R14); a
claim of service on promotional content is `disguised`. Never raises on any `Message`; what was not read stays visible
in `Classification.unread`. Pure: no I/O, no clock.

How evidence becomes a label (numbers in `rules.Weights`):
- `neutral` evidence (a phrase in which promotional words are innocent) is taken off the promotion that it covers;
- words of promotion in a sentence that asks for consent count as the ask (law rule R3);
- a segment counts its strongest sentence whole and the others in part; footers and quoted text count less;
- weak evidence scattered over segments adds up, at a discount; headers and link tracking support, never decide;
- service evidence never cancels promotion: it turns `marketing` into `mixed` (law rule R12).

The verdict needs to know which rules matched in which sentence; the exact words are found when somebody asks for
`segments` or `evidence`. What a segment amounts to depends on its text, kind and channel only, and is remembered for
the next copy that has it (see `findings`).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final, NamedTuple

from .findings import MEMORY, NOTHING, Finder, Finding, Judgement
from .labels import Channel, Label, SegmentKind, SegmentLabel
from .message import UNREAD, DefectCode, Message
from .rules import Hit, RuleSet
from .segments import texts_of
from .sheet import BETWEEN, OPENING, fold, offsets

MAX_SHOWN: Final = 50  # matches of one rule in a segment, or of a pattern in a sentence, that are shown as evidence


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
    def threshold(self) -> float:
        """The evidence in log-odds from which something is shown."""
        return self.rules.weights.threshold

    @property
    def service_shown(self) -> float:
        """Evidence, in what a recipient sees, that there is a genuine service purpose; hidden words show none."""
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
        found = sorted(
            (-self.rules.weight(i), self.rules.rules[i].id) for i in indexes if self.rules.rules[i].label in wanted
        )
        return tuple(rule for _, rule in found)

    def _segment(self, index: int) -> JudgedSegment:
        segment, judgement = self.message.segments[index], self.judgements.get(index)
        if judgement is None:
            return JudgedSegment(segment.kind, SegmentLabel.NEUTRAL, segment.text, segment.hidden, 0.0, ())
        score = round(max(judgement.promotion, judgement.ask), 3)
        return JudgedSegment(segment.kind, judgement.label, segment.text, segment.hidden, score, self._evidence(index))

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
        return tuple(self._one(index, rule, start, end) for start, end, rule in sorted(shown))

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


_EVERY_KIND: Final = frozenset(SegmentKind)
_EVERY_CHANNEL: Final = frozenset(Channel)
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
        judgements = self._judgements(message)
        promotion = self._promotion(judgements.values())
        ask = max((j.ask for j in judgements.values()), default=0.0)
        support = _support(message, weights.support) if promotion or ask else ()
        supported = min(sum(e.weight for e in support), weights.support_cap)
        if promotion:
            promotion += supported
        else:
            ask += supported
        return Classification(
            message=message,
            label=self._label(promotion, ask, judgements.values()),
            score=_probability(max(promotion, ask), weights.slope, weights.intercept),
            claimed=claimed_label(message.declared) if message.declared else None,
            unread=tuple(defect.code for defect in message.defects if defect.code in UNREAD),
            judgements=judgements,
            support=support,
            rules=self.rules,
        )

    def _label(self, promotion: float, ask: float, judgements: Iterable[Judgement]) -> Label:
        threshold = self.rules.weights.threshold
        if promotion >= threshold:
            return Label.MIXED if sum(j.service for j in judgements) >= threshold else Label.MARKETING
        if ask >= threshold:
            return Label.RE_PERMISSION
        return Label.SURVEY if sum(j.survey for j in judgements) >= threshold else Label.SERVICE

    def _promotion(self, judgements: Iterable[Judgement]) -> float:
        """The strongest segment, or what weak segments add up to."""
        weights = self.rules.weights
        found = [j.promotion for j in judgements]
        weak = sum(p for p in found if p < weights.threshold)
        return max(max(found, default=0.0), weights.scattered * weak)

    def _judgements(self, message: Message) -> dict[int, Judgement]:
        judged = {}
        found = self._finder.find(texts_of(message.segments))
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
            found.judged[kind, channel] = self._judge(kind, hits, found.text) if hits else None
        return found.judged[kind, channel]

    def _applies(self, hit: Hit, kind: SegmentKind, channel: Channel) -> bool:
        number = self._owner[hit.pattern]
        rule = self.rules.rules[number]
        return self._everywhere[number] or (kind in rule.kinds and channel in rule.channels)

    def _judge(self, kind: SegmentKind, hits: tuple[Hit, ...], text: bytes) -> Judgement:
        """Weigh one segment: promotion and ask sentence by sentence (a sentence is a line), the rest as a whole."""
        if len(hits) == 1:
            whole = self._sums(hits)
            promotion, ask = whole.promotion, whole.ask
        else:
            whole = self._sums(hits)
            sentences = [self._sentence(tuple(sentence), text) for _, sentence in groupby(hits, key=_line_of)]
            promotion = self._strongest_and_rest([0.0 if ask else promotion for promotion, ask in sentences])
            ask = self._strongest_and_rest([ask + promotion if ask else 0.0 for promotion, ask in sentences])
        factor = self.rules.weights.kinds.get(kind, 1.0)
        sums = (factor * promotion, factor * ask, factor * whole.survey, factor * whole.service)
        return Judgement(self._named(*sums), *sums, hits, text)

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


def _line_of(hit: Hit) -> int:
    return hit.start


def _probability(evidence: float, slope: float, intercept: float) -> float:
    return round(1 / (1 + math.exp(-min(slope * evidence + intercept, 50.0))), 4)


def _apart(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of one rule without those that lie in or overlap an earlier, longer one."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept


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

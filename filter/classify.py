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
It may find promotion where no rule does; where rules find some, it takes off no more than `Weights.learned_doubt` for
each sentence that it has read, up to a bound.

The verdict needs to know which rules matched in which sentence; the exact words are found when somebody asks. What a
segment amounts to depends on its text, kind and channel only, and is remembered for the next copy that has it
(see `findings`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from typing import Final, NamedTuple

from .classification import Classification, Evidence, claimed_label
from .findings import MEMORY, MOST_EXCUSES, NOTHING, Finder, Finding, Judgement
from .labels import Channel, Label, SegmentKind, SegmentLabel
from .language import Language, language_of
from .learned import Head, Reading, Sentence, reading_of, top_of
from .message import UNREAD, DefectCode, Message
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
        opinion = _Opinion(self.rules, _read_in(message, findings), evidence)
        promotion, ask = evidence.promotion, evidence.ask
        if opinion.formed:
            heard = max(opinion.of(Head.PROMOTION), max(promotion, ask) - opinion.doubt)
            asks = heard >= weights.threshold and opinion.does(Head.ASK)
            promotion, ask = (0.0, heard) if asks else (heard, 0.0)
        # Service mail has such headers too: they support what rules found, and nothing that was only learned.
        support = _support(message, weights.support) if evidence.promotion or evidence.ask else ()
        supported = min(sum(e.weight for e in support), weights.support_cap)
        if ask:
            ask += supported
        else:
            promotion += supported
        label = self._label(message, promotion, ask, opinion)
        return Classification(
            message=message,
            label=label,
            score=_probability(max(promotion, ask), weights.slope, weights.intercept),
            claimed=claimed_label(message.declared) if message.declared else None,
            unread=_unread(message, label),
            judgements=judgements,
            support=support,
            rules=self.rules,
        )

    def _label(self, message: Message, promotion: float, ask: float, opinion: "_Opinion") -> Label:
        threshold = self.rules.weights.threshold
        if promotion >= threshold:
            # Of a language that was not learned, nothing but chance says that it serves.
            serves = opinion.serves() and (opinion.by_rules(Head.SERVICE) >= threshold or _language_known(message))
            return Label.MIXED if serves else Label.MARKETING
        if ask >= threshold:
            return Label.RE_PERMISSION
        return Label.SURVEY if opinion.does(Head.SURVEY) else Label.SERVICE

    def _evidence_of(self, judged: Iterable[Judgement]) -> _Sums:
        """What the rules argue for in the whole message."""
        judgements = [judgement for judgement in judged if judgement.hits]
        return _Sums(
            promotion=self._promotion(judgements),
            innocence=0.0,
            ask=max((j.ask for j in judgements), default=0.0),
            survey=sum(j.survey for j in judgements),
            service=sum(j.service for j in judgements),
        )

    def reading(self, message: Message) -> tuple[Reading, dict[Head, float]] | None:
        """What opinions of a message are formed from: its sentences, and the rules' evidence by head; None: no word of
        it is known.
        """
        findings = self._finder.find(texts_of(message.segments))
        evidence = self._evidence_of(self._judgements(message, findings).values())
        opinion = _Opinion(self.rules, _read_in(message, findings), evidence)
        return (opinion.reading, {head: opinion.by_rules(head) for head in Head}) if opinion.formed else None

    def _promotion(self, judgements: Iterable[Judgement]) -> float:
        """The strongest segment, or what weak segments add up to."""
        weights = self.rules.weights
        found = [j.promotion for j in judgements]
        weak = sum(p for p in found if p < weights.threshold)
        return max(max(found, default=0.0), weights.scattered * weak)

    def _judgements(self, message: Message, found: Sequence[Finding]) -> dict[int, Judgement]:
        judged = {}
        kinds, channel = kinds_of(message.segments), message.channel
        for index, one in enumerate(found):
            if one is not NOTHING and (judgement := self._judgement(one, kinds[index], channel)):
                judged[index] = judgement
        return judged

    def _judgement(self, found: Finding, kind: SegmentKind, channel: Channel) -> Judgement | None:
        """What a segment amounts to; None when no rule that matches is for its kind and channel."""
        if (kind, channel) not in found.judged:
            hits = tuple(hit for hit in found.hits if self._applies(hit, kind, channel))
            read = found.sentences and kind is not SegmentKind.SENDER
            found.judged[kind, channel] = self._judge(kind, hits, found) if hits or read else None
        return found.judged[kind, channel]

    def _applies(self, hit: Hit, kind: SegmentKind, channel: Channel) -> bool:
        number = self._owner[hit.pattern]
        rule = self.rules.rules[number]
        return self._everywhere[number] or (kind in rule.kinds and channel in rule.channels)

    def _judge(self, kind: SegmentKind, hits: tuple[Hit, ...], found: Finding) -> Judgement:
        """Weigh one segment: promotion and ask sentence by sentence (a sentence is a line), the rest as a whole."""
        if not hits:
            return Judgement(0.0, 0.0, 0.0, 0.0, hits, found.text, found.sentences)
        whole = self._sums(hits)
        if len(hits) == 1:
            promotion, ask = whole.promotion, whole.ask
        else:
            sentences = [self._sentence(tuple(sentence), found.text) for _, sentence in groupby(hits, key=_line_of)]
            promotion = self._strongest_and_rest([0.0 if ask else promotion for promotion, ask in sentences])
            ask = self._strongest_and_rest([ask + promotion if ask else 0.0 for promotion, ask in sentences])
        factor = self.rules.weights.kinds.get(kind, 1.0)
        sums = (factor * promotion, factor * ask, factor * whole.survey, factor * whole.service)
        return Judgement(*sums, hits, found.text, () if kind is SegmentKind.SENDER else found.sentences)

    def _sentence(self, hits: tuple[Hit, ...], text: bytes) -> tuple[float, float]:
        """Promotion, less what its context excuses, and ask of one sentence."""
        sums = self._sums(hits)
        if sums.promotion and sums.innocence:
            return self._unexcused(hits, text), sums.ask
        return sums.promotion, sums.ask

    def _unexcused(self, hits: tuple[Hit, ...], text: bytes) -> float:
        """Promotion of a sentence with innocent phrases: each of them excuses the words that it covers, by its weight.

        A rule with several matches counts with the one that is excused least. More excuses than anybody makes are none.
        """
        excuses = (hit for hit in hits if self._argues(hit) is SegmentLabel.NEUTRAL)
        innocent = list(islice((span for hit in excuses for span in self._spans(hit, text)), MOST_EXCUSES + 1))
        if len(innocent) > MOST_EXCUSES:
            innocent = []
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

    def _strongest_and_rest(self, values: Sequence[float]) -> float:
        strongest = max(values)
        return strongest + self.rules.weights.rest_of_segment * (sum(values) - strongest)


class _Opinion:
    """What was learned says of a message, by head, in the rules' measure of evidence; what rules say where nothing was
    learned. Each head is asked only when it matters.
    """

    def __init__(self, rules: RuleSet, sentences: Sequence[Sentence], evidence: _Sums) -> None:
        self._rules, self._evidence = rules, evidence
        self._sentences = len(sentences)
        self.reading: Reading = reading_of(sentences) if sentences else ()

    @property
    def doubt(self) -> float:
        """How much it may take off the evidence of rules: the more it has read, the more, up to a bound."""
        weights = self._rules.weights
        return min(weights.learned_doubt * self._sentences, weights.learned_doubt_cap)

    @property
    def formed(self) -> bool:
        """Whether there is a sentence to form it from."""
        return self._sentences > 0

    def of(self, head: Head) -> float:
        """Evidence for a head."""
        if not self._sentences:
            return self.by_rules(head)
        learned = self._rules.learned
        against = self._rules.weights.learned_against if head is Head.PROMOTION else math.inf
        return self._rules.weights.evidence(learned.log_odds(head, self.reading, self.by_rules(head), against))

    def does(self, head: Head) -> bool:
        """Whether the message asks for consent, or for an opinion: a sentence, or a rule, must hint at it at least."""
        weights, found = self._rules.weights, self._evidence
        by_rules = found.ask if head is Head.ASK else found.survey
        hinted = by_rules > 0 or (self.formed and top_of(self.reading, head) > -weights.learned_hint)
        return hinted and self.of(head) >= weights.threshold

    def serves(self) -> bool:
        """Whether promotional mail has a service purpose too: a rule says so and what was learned is not sure of the
        opposite, for which it must have read the more the less it is sure; or what was learned is surer than that.
        """
        weights = self._rules.weights
        by_rules = self._evidence.service >= weights.threshold
        if not self._sentences:
            return by_rules
        beyond = self.of(Head.SERVICE) - weights.threshold
        return beyond >= weights.learned_surer or (by_rules and beyond >= -weights.learned_sure / self._sentences)

    def by_rules(self, head: Head) -> float:
        """The rules' evidence for a head."""
        found = self._evidence
        if head is Head.PROMOTION:
            return max(found.promotion, found.ask)
        if head is Head.ASK:
            return found.ask - found.promotion
        return found.survey if head is Head.SURVEY else found.service


def _read_in(message: Message, findings: Sequence[Finding]) -> list[Sentence]:
    """The sentences of a message, the sender's name apart."""
    kinds = kinds_of(message.segments)
    return [
        sentence
        for finding, kind in zip(findings, kinds, strict=True)
        if finding.sentences and kind is not SegmentKind.SENDER
        for sentence in finding.sentences
    ]


def _unread(message: Message, label: Label) -> tuple[DefectCode, ...]:
    """What nobody judged. The language of promotional mail is no question: rules have read it."""
    codes = tuple(defect.code for defect in message.defects if defect.code in UNREAD)
    return codes if label.promotional or _language_known(message) else (*codes, DefectCode.LANGUAGE_UNKNOWN)


def _language_known(message: Message) -> bool:
    return language_of(texts_of(message.segments)) is not Language.UNKNOWN


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

"""Segments' texts -> what the patterns of a rule set match in each, and what was learned of its sentences; remembered.

Neither a pattern nor a learned pair of words reaches beyond a sentence, so what is found in a segment depends on its
text alone, and what it amounts to on its text, kind and channel. The result is the same with and without memory. Pure
but for that; raises nothing.
"""

from collections.abc import Sequence
from itertools import groupby, islice, repeat
from typing import Final, NamedTuple

from .labels import Channel, SegmentKind, SegmentLabel
from .learned import Head, Sentence
from .memory import Memory
from .rules import Hit, RuleSet
from .sheet import BETWEEN, OPENING, WRITTEN_FIGURES, sheet

MEMORY: Final = 8 << 20
"""Octets of segments and what was found in them that are remembered by default."""
_LONGEST_MESSAGE: Final = 20_000
"""Characters of a message that may use what is remembered. The bounds on work in `sheet` are those of a whole message,
and so short a one meets none of them."""
MOST_EXCUSES: Final = 20
"""Innocent phrases of one sentence that excuse anything: a sentence with more is written to hide something."""
_OPENING: Final = OPENING.encode()
_BETWEEN: Final = BETWEEN.encode()
# Octets of a finding, of a match in it and of a sentence, with what is worked out from them; rounded up.
_FINDING: Final = 700
_HIT: Final = 1_000
_SENTENCE: Final = 450


class Judgement(NamedTuple):
    """What one segment amounts to: the rules' evidence for each kind of label (log-odds) with their matches in `text`,
    the segment's own sheet in lower case, and what was learned of its sentences.
    """

    promotion: float
    ask: float
    survey: float
    service: float
    hits: tuple[Hit, ...]
    text: bytes
    sentences: tuple[Sentence, ...] = ()


class Finding(NamedTuple):
    """What stands in a segment's own sheet `text`, in lower case: the rules' matches, and its sentences; `judged`: what
    it amounts to by kind and channel.
    """

    text: bytes
    hits: tuple[Hit, ...]
    sentences: tuple[Sentence, ...]
    judged: dict[tuple[SegmentKind, Channel], Judgement | None]

    def size(self) -> int:
        """Octets that this takes, rounded up."""
        if self is NOTHING:
            return 0
        return len(self.text) + _FINDING + _HIT * len(self.hits) + _SENTENCE * len(self.sentences)


NOTHING: Final = Finding(b"", (), (), {})
"""The one finding of every text in which nothing matches and no word is known."""


class Finder:
    """Looks for a rule set's patterns, and remembers up to `memory` octets of what it found (0: nothing)."""

    def __init__(self, rules: RuleSet, memory: int = MEMORY) -> None:
        self._rules = rules
        self._memory = Memory(memory, Finding.size)
        self._innocent = frozenset(
            number
            for number, pattern in enumerate(rules.patterns)
            if rules.rules[pattern.rule].label is SegmentLabel.NEUTRAL
        )
        # Amounts and dates are half of a statement, differ in every copy, and would fill the memory.
        self._passed_over = WRITTEN_FIGURES if all(pattern.worded for pattern in rules.patterns) else ""

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """What matches in each text of a message."""
        if sum(map(len, texts)) > _LONGEST_MESSAGE:
            found_in = self._look_for_each(texts)
            return [found_in[text] for text in texts]
        known = self._memory.recall(texts)
        found = [finding or NOTHING for finding in known]
        figures = self._passed_over
        missing = [i for i, finding in enumerate(known) if finding is None and texts[i].strip(figures)]
        if missing:
            found_in = self._look_for_each([texts[i] for i in missing])
            for i in missing:
                found[i] = found_in[texts[i]]
            for text, finding in found_in.items():
                self._memory.keep(text, finding)
        return found

    def _look_for_each(self, texts: Sequence[str]) -> dict[str, Finding]:
        """What matches in these texts, each looked at once."""
        different = list(dict.fromkeys(texts))
        return dict(zip(different, self._look_for(different), strict=True))

    def _look_for(self, texts: Sequence[str]) -> list[Finding]:
        text = sheet(texts).encode("utf-8", "replace").lower()
        read = self._rules.learned.read(text) if self._rules.learned else repeat(())
        hits = {index: list(group) for index, group in groupby(self._rules.scan(text), key=_segment_of)}
        found = []
        at = 0
        for index, (_, sentences) in enumerate(zip(texts, read, strict=False)):
            end = text.index(_BETWEEN, at) + len(_BETWEEN)
            if index in hits or sentences:
                own_hits = tuple(
                    [Hit(pattern, 0, start - at, end - at) for pattern, _, start, end in hits.get(index, ())]
                )
                own = text[at:end]
                found.append(Finding(own, own_hits, self._excused(sentences, own_hits, own), {}))
            else:
                found.append(NOTHING)
            at = end - len(_OPENING)
        return found

    def _excused(self, sentences: tuple[Sentence, ...], hits: tuple[Hit, ...], text: bytes) -> tuple[Sentence, ...]:
        """The sentences of a segment's sheet, without the promotion of words that an innocent phrase covers."""
        innocent: dict[int, list[Hit]] = {}
        for hit in hits:
            if hit.pattern in self._innocent:
                innocent.setdefault(hit.start, []).append(hit)
        if not innocent:
            return sentences
        return tuple([self._without(one, innocent.get(one.start, ()), text) for one in sentences])

    def _without(self, sentence: Sentence, innocent: Sequence[Hit], text: bytes) -> Sentence:
        matches = (
            match.span()
            for hit in innocent
            for match in self._rules.patterns[hit.pattern].exact.finditer(text, hit.start, hit.end + 2)
        )
        spans = list(islice(matches, MOST_EXCUSES + 1))
        if not spans or len(spans) > MOST_EXCUSES:
            return sentence
        terms = self._rules.learned.terms(text, sentence, Head.PROMOTION)
        covered = [one.weight for one in terms if any(one.start < end and start < one.end for start, end in spans)]
        return sentence.less(sum(weight for weight in covered if weight > 0))


def _segment_of(hit: Hit) -> int:
    return hit.segment

"""The language packs: what their rules find is what they say, in their own language and in all others."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from filter.classify import Classifier
from filter.examples import LabelledSentence, Purpose, read_sentences
from filter.labels import SegmentLabel
from filter.rules import Rule
from filter.sheet import sheet

SENTENCES = Path(__file__).parent.parent / "data" / "sentences"
PACKS = ("de", "fr", "es", "nl", "it", "id")
PROMOTIONAL = frozenset({SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION})
WANTED = frozenset({Purpose.PROMOTES, Purpose.ASKS})
RIGHT = 0.97
Hits = list[tuple[Rule, LabelledSentence]]


@pytest.fixture(scope="module")
def hits(classifier: Classifier) -> Hits:
    """What the rules of the packs find in the sentences of all languages."""
    return [
        (rule, sentence)
        for path in sorted(SENTENCES.glob("*.txt"))
        for sentence in read_sentences(path)
        for rule in _found(classifier, sentence)
        if rule.lang in PACKS
    ]


def _found(classifier: Classifier, sentence: LabelledSentence) -> Iterator[Rule]:
    rules = classifier.rules
    found = {rules.patterns[hit.pattern].rule for hit in rules.scan(sheet([sentence.text]).encode())}
    return (rules.rules[number] for number in found)


def _wrong(found: Hits) -> list[str]:
    """Rules that are too often wrong, each with what they were wrong about."""
    total = Counter(rule.id for rule, _ in found)
    wrong = [(rule.id, one) for rule, one in found if one.purpose not in WANTED]
    bad = {rule for rule, count in Counter(rule for rule, _ in wrong).items() if count > (1 - RIGHT) * total[rule]}
    return [f"{rule}: {one.lang} {one.purpose} {one.text}" for rule, one in wrong if rule in bad]


def test_promotional_rules_are_right_in_their_own_language(hits: Hits) -> None:
    """97 of 100 sentences in which a rule finds promotion promote, or ask for consent."""
    assert not _wrong([(r, one) for r, one in hits if r.label in PROMOTIONAL and one.lang == r.lang])


@pytest.mark.parametrize("pack", PACKS)
def test_words_that_mean_something_else_elsewhere_do_no_harm(hits: Hits, pack: str) -> None:
    """In other languages a pack finds next to no promotion in sentences that do not promote."""
    found = [one for rule, one in hits if rule.lang == pack != one.lang and rule.label in PROMOTIONAL]
    assert sum(one.purpose not in WANTED for one in found) <= 3, found


@pytest.mark.parametrize("pack", PACKS)
def test_packs_find_promotion(hits: Hits, pack: str) -> None:
    """Alone, without what is learned, each pack finds a part of the promotion; most sentences have no stock phrase."""
    found = {one.text for rule, one in hits if rule.lang == one.lang == pack and rule.label in PROMOTIONAL}
    assert len(found) >= 140


@pytest.mark.parametrize("label", [SegmentLabel.SERVICE, SegmentLabel.SURVEY])
def test_service_and_surveys_are_found_where_they_are(hits: Hits, label: SegmentLabel) -> None:
    """Words of service stand in promotion too, where they make it mixed, but rarely."""
    wanted = {SegmentLabel.SERVICE: Purpose.SERVES, SegmentLabel.SURVEY: Purpose.SURVEYS}[label]
    found = [one.purpose is wanted for rule, one in hits if rule.label is label and rule.lang == one.lang]
    assert sum(found) >= 0.9 * len(found)


def test_every_pack_covers_the_same_ground(classifier: Classifier) -> None:
    """Each has rules for promotion, requests for consent, surveys, service, and contexts that excuse."""
    for pack in PACKS:
        rules = [rule for rule in classifier.rules.rules if rule.lang == pack]
        assert {rule.label for rule in rules} == set(SegmentLabel)
        assert len(rules) >= 20

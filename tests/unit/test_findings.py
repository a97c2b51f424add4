"""What is remembered of segments met before: results are the same, memory is bounded."""

from sys import getsizeof

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filter.classification import Classification
from filter.classify import Classifier
from filter.labels import Channel, Label, SegmentKind, SegmentLabel
from filter.memory import Memory
from filter.message import Message, Segment
from filter.pattern import compile_pattern
from filter.rules import Rule, compile_rules
from filter.sheet import CLOSING, FIGURES, OPENING, WRITTEN_FIGURES, sheet
from filter.weights import Weights

# Words with and without evidence, marks that join words or end sentences, accents, other scripts.
PIECES = (
    *("20% off", "shop now", "your order was dispatched", "like to hear from us", "exclusive offer", "how did we do"),
    *("as an apology", "Ms Adeyemi", "£3.00", ". ", "! ", ", ", "-", "_", "/", " ", "  ", "é", "sаve", "“", "\ud800"),  # noqa: RUF001 -- a Cyrillic letter
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join)
SEGMENTS = st.lists(st.builds(Segment, st.sampled_from(SegmentKind), TEXTS), max_size=6).map(tuple)
MESSAGES = st.builds(Message, st.sampled_from(Channel), segments=SEGMENTS)


def judged(classification: Classification) -> tuple[object, ...]:
    """Everything that a classification says."""
    return (classification.label, classification.score, classification.segments, classification.evidence)


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, min_size=2, max_size=6), st.sampled_from([1_000, 5_000, 1 << 20]))
def test_memory_changes_no_result(classifier: Classifier, messages: list[Message], octets: int) -> None:
    """Whatever was judged before, and however little is remembered, a message is judged as if it were the first."""
    remembering, forgetting = Classifier(classifier.rules, memory=octets), Classifier(classifier.rules, memory=0)
    for message in [*messages, *messages]:
        assert judged(remembering.classify(message)) == judged(forgetting.classify(message))


@pytest.mark.parametrize("mark", "_/")
def test_memory_changes_no_result_of_a_long_message(classifier: Classifier, mark: str) -> None:
    """A message that meets a bound on work is judged as if nothing were remembered of its segments."""
    text = f"save{mark}20% off today. "
    short = Message(Channel.EMAIL, segments=(Segment(SegmentKind.PARAGRAPH, text.strip()),))
    full = (Segment(SegmentKind.PARAGRAPH, mark.join("ab" * 12_000)), *short.segments)
    long = Message(Channel.EMAIL, segments=full)
    remembering, forgetting = Classifier(classifier.rules), Classifier(classifier.rules, memory=0)
    for message in (short, long, short):
        assert judged(remembering.classify(message)) == judged(forgetting.classify(message))


@settings(deadline=None)
@given(st.text(st.sampled_from(WRITTEN_FIGURES), max_size=30))
def test_figures_match_no_pattern_that_has_a_word(classifier: Classifier, text: str) -> None:
    """What is passed over unseen is what no pattern of the shipped rules can match."""
    assert all(pattern.worded for pattern in classifier.rules.patterns)
    assert set(sheet([text])) <= set(FIGURES + OPENING + CLOSING)
    assert classifier.rules.scan(sheet([text]).encode()) == []


@pytest.mark.parametrize(
    ("pattern", "worded"),
    [
        ("<percent>", False),
        ("[save] <percent>", False),
        ("24/7 [help]", False),
        ("(save|<money>)", False),
        ("save <0-3> <percent>", True),
        ("(save|get <money>)", True),
        ("<link>", True),
        ("\\?$", True),
        ("é 50%", True),
    ],
)
def test_patterns_that_figures_can_match_are_known(pattern: str, worded: bool) -> None:
    """A pattern is `worded` when every text that it matches has a sign that is not among the figures."""
    assert compile_pattern(pattern).worded is worded


def test_figures_are_looked_at_when_a_rule_asks_for_them() -> None:
    """One pattern of figures only is enough."""
    rule = Rule("offer.percent", SegmentLabel.MARKETING, 3.0, ("<percent>",), ("R1",))
    message = Message(Channel.EMAIL, segments=(Segment(SegmentKind.CELL, "50%"),))
    assert Classifier(compile_rules((rule,), Weights())).classify(message).label is Label.MARKETING


def memory_of(octets: int) -> Memory[str]:
    """A memory whose values take as many octets as they have characters."""
    return Memory(octets, len)


def test_memory_is_bounded() -> None:
    """However many texts are met, those remembered take no more than the octets allowed."""
    memory = memory_of(50_000)
    texts = [f"text {number} " + "x" * (number % 300) for number in range(2_000)]
    for text in texts:
        memory.keep(text, "value" * 10)
    kept = [text for text, value in zip(texts, memory.recall(texts), strict=True) if value]
    assert kept
    assert sum(getsizeof(text) + 50 for text in kept) <= 50_000


def test_texts_in_use_are_not_forgotten() -> None:
    """A text that is asked for again and again outlives any number of texts that are not."""
    memory = memory_of(50_000)
    memory.keep("in use", "value")
    for number in range(2_000):
        memory.keep(f"met once {number}", "value")
        assert memory.recall(["in use"]) == ["value"]
    assert memory.recall(["met once 0"]) == [None]


def test_what_does_not_fit_is_not_remembered() -> None:
    """A long text, a large value and a memory without room cost nothing and forget nothing."""
    memory = memory_of(50_000)
    memory.keep("short", "value")
    memory.keep("x" * 10_000, "value")
    memory.keep("large", "x" * 100_000)
    assert memory.recall(["short", "x" * 10_000, "large"]) == ["value", None, None]
    nothing = memory_of(0)
    nothing.keep("short", "value")
    assert nothing.recall(["short"]) == [None]


def test_a_long_text_is_remembered_when_it_is_met_again() -> None:
    """Conditions at the foot of letters are remembered, what is written once is not, and nothing over a bound is."""
    memory = memory_of(200_000)
    conditions, letter, book = "terms " * 600, "dear " * 600, "x" * 10_001
    for text in (conditions, letter, conditions, book, book):
        memory.keep(text, "value")
    assert memory.recall([conditions, letter, book]) == ["value", None, None]


def test_long_texts_that_are_met_once_are_not_noted_for_ever() -> None:
    """After very many others, a long text is as if it had never been met."""
    memory = memory_of(200_000)
    texts = [f"{number:04} " * 500 for number in range(5_000)]
    for text in texts:
        memory.keep(text, "value")
    memory.keep(texts[0], "value")
    assert memory.recall(texts[:1]) == [None]

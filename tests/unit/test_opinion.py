"""Opinions: how what was learned of sentences becomes a message's label, on weights made up here."""

import math
from dataclasses import replace

import pytest

from filter.classify import Classifier
from filter.labels import Channel, Label, SegmentKind
from filter.learned import Head, Learned, Opinion, weigh
from filter.message import Message, Segment, message_from_json
from filter.weights import Weights

READ = 13  # figures of a reading
LEARNED_ONLY = (
    "The autumn chairs are on the shop floor, and the blue one looks even better than in the photographs. "
    "Come and sit in it before somebody else takes it home."
)
SERVICE = "The engineer was at the meter cupboard on Tuesday and has replaced the seal."
PADDING = {
    "survey": "How was your experience? How did we do? Please rate us from 1 to 5. Tell us what we could do better.",
    "legal": " ".join(
        ["this message was sent under the terms that you accepted when the account was opened and is governed by"] * 20
    ),
    "service": "Your parcel was delivered to a neighbour and your invoice is attached and your refund was paid" * 3,
}


def opinion(**weights: float) -> Opinion:
    """An opinion that weighs the strongest sentence of these heads, by name, and has this bias."""
    reading = [0.0] * READ
    for place, head in enumerate(Head):
        reading[3 * place] = weights.get(head.value, 0.0)
    return Opinion(tuple(reading), 1.0, weights.get("bias", 0.0))


def classifier_of(classifier: Classifier, weights: Weights, **opinions: Opinion) -> Classifier:
    """One that knows a word for each head, in opinions of these weights."""
    words = {"ads": [6, -9, -9, -9], "may": [1, 6, -9, -9], "rate": [-9, -9, 6, -9], "bill": [-9, -9, -9, 6]}
    known = {word: [float(one) for one in row] for word, row in words.items()}
    found = {head: opinions.get(head.value, opinion(bias=-9.0)) for head in Head}
    learned = Learned("made", dict.fromkeys(Head, 0.0), known, found)
    return Classifier(replace(classifier.rules, learned=learned, weights=weights))


def text(*lines: str) -> Message:
    """A message of these paragraphs."""
    return Message(Channel.EMAIL, segments=tuple([Segment(SegmentKind.PARAGRAPH, line) for line in lines]))


@pytest.mark.parametrize(
    ("head", "lines", "label"),
    [
        ("survey", ("rate",), Label.SURVEY),
        ("survey", ("bill",), Label.SERVICE),
        ("ask", ("ads", "may"), Label.RE_PERMISSION),
        ("ask", ("ads", "bill"), Label.MARKETING),
    ],
)
def test_no_ask_and_no_survey_without_a_hint(
    classifier: Classifier, head: str, lines: tuple[str, ...], label: Label
) -> None:
    """An opinion however strong makes no survey of a message in which no sentence asks for one."""
    opinions = {"promotion": opinion(promotion=2.0, bias=-5.0), head: opinion(bias=20.0)}
    assert classifier_of(classifier, Weights(), **opinions).classify(text(*lines)).label is label


@pytest.mark.parametrize(("sentences", "label"), [(1, Label.MIXED), (4, Label.MIXED), (40, Label.MARKETING)])
def test_what_was_learned_overrules_a_service_rule_the_more_it_has_read(
    classifier: Classifier, sentences: int, label: Label
) -> None:
    """A rule that finds a service in promotional mail stands, until enough was read to be sure of the opposite."""
    opinions = {"promotion": opinion(promotion=2.0, bias=-3.0), "service": opinion(bias=-9.0)}
    judge = classifier_of(classifier, Weights(), **opinions)
    lines = ["Your order 4417 has been dispatched.", *(f"ads of {chr(97 + at % 26)}" for at in range(sentences))]
    assert judge.classify(text(*lines)).label is label


def test_what_was_learned_is_enough_for_mixed(classifier: Classifier) -> None:
    """Where it is above the threshold by `learned_surer`; of a text in an unknown language it is not asked."""
    opinions = {"promotion": opinion(promotion=2.0, bias=-3.0), "service": opinion(bias=1.0)}
    assert classifier_of(classifier, Weights(), **opinions).classify(text("ads", "bill")).label is Label.MIXED
    polish = "Prosimy o przesłanie dokumentów do końca tygodnia, zanim urząd zamknie sprawę na dobre, ads"
    assert classifier_of(classifier, Weights(), **opinions).classify(text(polish)).label is Label.MARKETING
    surer = classifier_of(classifier, Weights(learned_surer=3.0), **opinions)
    assert surer.classify(text("ads", "bill")).label is Label.MARKETING


def test_other_heads_take_off_what_is_allowed() -> None:
    """What is read for other heads speaks against promotion up to a bound, and for it without one."""
    found = Opinion((1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -9.0, *[0.0] * 4), 0.0, 0.0)
    reading = (4.0, *[0.0] * 7, 0.5, *[0.0] * 4)
    assert weigh(found, Head.PROMOTION, reading, 0.0) == pytest.approx(-0.5)
    assert weigh(found, Head.PROMOTION, reading, 0.0, 2.0) == pytest.approx(2.0)
    speaking_for = found._replace(reading=tuple(abs(one) for one in found.reading))
    assert weigh(speaking_for, Head.PROMOTION, reading, 0.0, 2.0) == pytest.approx(8.5)


@pytest.mark.parametrize("head", list(Head))
def test_what_is_absent_takes_nothing_off(head: Head) -> None:
    """A message without a sentence of another head is where the bound begins."""
    found = Opinion(tuple(float(at) - 6 for at in range(READ)), 0.0, 0.0)
    absent = (*(-5.0, -5.0, 0.0) * 4, math.log(2))
    assert weigh(found, head, absent, 0.0, 0.0) == pytest.approx(weigh(found, head, absent, 0.0))


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING.keys())
def test_padding_hides_no_promotion(classifier: Classifier, padding: str) -> None:
    """A promotion that only what was learned finds stays one beside a survey, small print or service in one breath."""
    bare = message_from_json({"channel": "email", "subject": "Autumn chairs", "text": LEARNED_ONLY})
    padded = message_from_json({"channel": "email", "subject": "Autumn chairs", "text": f"{LEARNED_ONLY}\n\n{padding}"})
    assert classifier.classify(bare).label is Label.MARKETING
    assert classifier.classify(padded).label.promotional


def test_a_text_repeated_in_a_long_message_is_looked_at_once(classifier: Classifier) -> None:
    """Ten thousand equal lines are one piece of work, and each counts."""
    judged = classifier.classify(text(*["Your treat awaits in store"] * 3000, SERVICE))
    assert len({id(one) for one in judged.judgements.values()}) == 2
    assert len(judged.judgements) == 3001

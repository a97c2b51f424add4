"""Fitting: the same examples give the same weights, and what was learned judges what was not seen."""

from dataclasses import replace

import orjson
import pytest

from filter.classify import Classifier
from filter.errors import ExampleError
from filter.examples import LabelledMessage, LabelledSentence, Purpose
from filter.labels import Label
from filter.learned import Head
from filter.message import message_from_json
from filter.rule_files import learned_from
from filter.rules import RuleSet
from filter.training import fit

PROMOTING = (
    "Treat yourself this week",
    "Come and try our new range",
    "Why not treat a friend",
    "Our new range is here",
)
SERVING = ("Your parcel has left", "We received your payment", "Your payment is due", "Your parcel was delivered")
ASKING = ("May we keep writing to you about news", "Tell us if we may write to you")
SURVEYING = ("How did we do today", "Tell us how your visit went")
TEXTS = {
    Label.MARKETING: PROMOTING,
    Label.SERVICE: SERVING,
    Label.RE_PERMISSION: ASKING,
    Label.SURVEY: SURVEYING,
    Label.MIXED: tuple(f"{first}.\n\n{second}." for first, second in zip(SERVING, PROMOTING, strict=True)),
}
SENTENCES = [
    LabelledSentence("bank", "en", purpose, text)
    for purpose, texts in zip(
        "MSAQN", (PROMOTING, SERVING, ASKING, SURVEYING, ("Yours sincerely", "Kind regards")), strict=True
    )
    for text in texts
    for purpose in [Purpose(purpose)]
]


def message(source: str, label: Label, number: int, text: str) -> LabelledMessage:
    """One labelled message; of mixed ones the second sentence promotes."""
    spans = (text.split("\n\n")[1],) if label is Label.MIXED else ()
    content = message_from_json({"channel": "email", "subject": f"Note {number}", "text": text})
    return LabelledMessage(f"{source}/{label}/{number}", source, "en", label, content, spans=spans)


MESSAGES = [
    message(source, label, number, text)
    for source in ("one", "two", "three")
    for label, texts in TEXTS.items()
    for number, text in enumerate(texts)
]


@pytest.fixture(scope="module")
def rules(classifier: Classifier) -> RuleSet:
    """The shipped rules."""
    return classifier.rules


@pytest.fixture(scope="module")
def content(rules: RuleSet) -> bytes:
    """Fitted weights."""
    return fit(rules, MESSAGES, SENTENCES)


def test_the_same_examples_give_the_same_weights(rules: RuleSet, content: bytes) -> None:
    """Nothing depends on chance or on the order in which sources are given."""
    assert fit(rules, MESSAGES, SENTENCES) == content


def test_what_was_learned_judges_new_messages(rules: RuleSet, content: bytes) -> None:
    """New sentences of the same words get their label, with the words as evidence."""
    classifier = Classifier(replace(rules, learned=learned_from("fitted", content)))
    judged = classifier.classify(message_from_json({"channel": "email", "text": "A new range to treat yourself with"}))
    assert judged.label is Label.MARKETING
    assert "learned.promotion" in judged.decisive_rules
    assert any(e.rule == "learned.words" and e.text == "treat" and e.weight > 0 for e in judged.evidence)
    served = classifier.classify(message_from_json({"channel": "email", "text": "We delivered your parcel"}))
    assert served.label is Label.SERVICE


def test_the_file_can_be_read_by_people(content: bytes) -> None:
    """It is JSON with a word a line and a weight for every head."""
    document = orjson.loads(content)
    assert list(document) == ["bias", "messages", "words"]
    assert set(document["bias"]) == set(document["messages"]) == set(Head)
    assert sum(line.startswith(b'"') for line in content.splitlines()) == len(document["words"])


def test_too_few_sources_are_refused(rules: RuleSet) -> None:
    """Opinions must be formed on sentences that were not learned; one source leaves none."""
    with pytest.raises(ExampleError, match="sentences, and messages of 3 sources"):
        fit(rules, MESSAGES[:10], SENTENCES)

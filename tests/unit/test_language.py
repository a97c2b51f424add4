"""Which language a message is in: known ones are known, others are not, and the policy hears of it."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.classify import Classifier
from filter.consent import ConsentAnswer, ConsentState
from filter.examples import read_messages
from filter.labels import Disposition, Label
from filter.language import Language, language_of
from filter.message import DefectCode, message_from_json
from filter.policy import Policy, Reason, Verdict, decide
from filter.segments import texts_of

DATA = Path(__file__).parent.parent / "data"
NOBODY = ConsentAnswer(ConsentState.UNKNOWN, None, (), None, ())
AGREED = ConsentAnswer(ConsentState.CONSENT, None, (), None, ())
POLISH = (
    "Dziękujemy za spotkanie. Prosimy o przesłanie dokumentów do końca tygodnia, zanim urząd zamknie sprawę na dobre."
)


def others() -> dict[str, list[str]]:
    """Texts in languages that no rules are written in, by language."""
    found: dict[str, list[str]] = defaultdict(list)
    lang = ""
    for line in (DATA / "other_languages.txt").read_text("utf-8").splitlines():
        if given_lang := re.fullmatch(r"# lang: ([a-z]{2})", line):
            lang = given_lang[1]
        elif line and not line.startswith("#"):
            found[lang].append(line)
    return found


def test_messages_in_known_languages_are_known() -> None:
    """Of all messages in the languages of the rules, at most 2 in 1,000 are called unknown."""
    found = Counter(
        language_of(texts_of(one.message.segments)) is Language.UNKNOWN
        for path in sorted((DATA / "messages").glob("*.jsonl"))
        for one in read_messages(path)
    )
    assert found[True] <= 0.002 * found.total()


def test_a_known_language_is_named() -> None:
    """Where enough words are there, the language that is named is nearly always the one that a message is in."""
    found = Counter(
        language_of(texts_of(one.message.segments)) == one.lang
        for path in sorted((DATA / "messages").glob("*.jsonl"))
        for one in read_messages(path)
        if language_of(texts_of(one.message.segments)) is not Language.TOO_SHORT
    )
    assert found[True] >= 0.99 * found.total()


@pytest.mark.parametrize("lang", ["pl", "tr", "sv", "ru", "zh", "ar"])
def test_other_languages_are_unknown(lang: str) -> None:
    """A text in a language without rules is in none that we know."""
    texts = others()[lang]
    assert [language_of([text]) for text in texts] == [Language.UNKNOWN] * 20


def test_portuguese_is_mostly_told_from_spanish() -> None:
    """The nearest neighbour is told in most texts; what is taken for Spanish meets rules that mostly fit it."""
    found = Counter(language_of([text]) for text in others()["pt"])
    assert set(found) <= {Language.UNKNOWN, Language.SPANISH}
    assert found[Language.UNKNOWN] >= 15


def test_few_words_are_not_judged() -> None:
    """A code, an amount or a name says nothing of its language."""
    assert language_of(["482913", "Dziękujemy, Kowalska"]) is Language.TOO_SHORT
    assert language_of([]) is Language.TOO_SHORT


def test_the_whole_message_counts() -> None:
    """A short English heading does not make a Polish message English."""
    assert language_of(["Your order", *others()["pl"][:5], "Contact us"]) is Language.UNKNOWN


@given(st.lists(st.text()))
def test_no_text_is_too_strange(texts: Sequence[str]) -> None:
    """Whatever is given, the answer is a language."""
    assert language_of(texts) in set(Language)


def judged(classifier: Classifier, text: str, state: ConsentAnswer, policy: Policy) -> Verdict:
    """The verdict on a plain message for a recipient."""
    message = message_from_json({"channel": "email", "subject": "", "text": text})
    return decide(classifier.classify(message), state, policy)


def test_unknown_language_is_held_from_those_who_have_not_agreed(classifier: Classifier) -> None:
    """It has its own reason and its own setting, whatever is done with other content that was not read."""
    policy = Policy(on_unread_content=Disposition.RELAY)
    verdict = judged(classifier, POLISH, NOBODY, policy)
    assert (verdict.disposition, verdict.reason) == (Disposition.HOLD, Reason.UNKNOWN_LANGUAGE)
    policy = dataclasses.replace(policy, on_unknown_language=Disposition.DIVERT)
    assert judged(classifier, POLISH, NOBODY, policy).disposition is Disposition.DIVERT


def test_unknown_language_flows_to_those_who_agreed(classifier: Classifier) -> None:
    """Who has consented to promotion may get what may be promotion."""
    verdict = judged(classifier, POLISH, AGREED, Policy())
    assert (verdict.disposition, verdict.reason) == (Disposition.RELAY, Reason.SERVICE)


def test_one_known_phrase_does_not_vouch_for_a_foreign_text(classifier: Classifier) -> None:
    """An English line about a delivery beside a page of Polish is no evidence of what the page says."""
    text = "Your parcel is out for delivery.\n\n" + " ".join(others()["pl"])
    verdict = judged(classifier, text, NOBODY, Policy())
    assert verdict.reason is Reason.UNKNOWN_LANGUAGE


def test_promotion_that_was_read_is_promotion(classifier: Classifier) -> None:
    """Where rules find promotion, nobody asks in which language the rest is."""
    message = message_from_json({"channel": "email", "text": "Black Friday: 50% off your next order!\n\n" + POLISH})
    classification = classifier.classify(message)
    assert classification.label is Label.MARKETING
    assert DefectCode.LANGUAGE_UNKNOWN not in classification.unread


def test_rulers_and_keys_are_no_words() -> None:
    """A page of what nobody would call words is not judged, and so not unknown."""
    assert language_of(["X" * 78 + "\n"] * 50) is Language.TOO_SHORT

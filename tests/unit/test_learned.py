"""Learned weights: what is read of a sentence can be taken apart again, and a bad file says what is wrong with it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.errors import RuleError
from filter.learned import (
    LOWEST,
    MOST_WORDS,
    NOTHING_LEARNED,
    READ,
    Head,
    Learned,
    Opinion,
    Sentence,
    beginning_of,
    damping,
    is_term,
    reading_of,
    terms_of,
    words_in,
)
from filter.learned_file import parse_learned
from filter.sheet import sheet

WORDS = {
    "treat": [2.0, 0.0, 0.0, -1.0],
    "your": [0.1, 0.2, 0.0, 0.4],
    "your treat": [1.5, 0.0, 0.0, 0.0],
    "00% off": [3.0, 0.0, 0.0, 0.0],
    "renov*": [0.7, 0.0, 0.0, 0.0],
    "!": [0.5, 0.0, 0.0, -0.5],
}
BIAS = dict(zip(Head, (-1.0, -4.0, -3.0, 0.5), strict=True))
LEARNED = Learned("test", BIAS, WORDS, {})
OPINION = {**{head: dict.fromkeys(READ, 0.0) for head in Head}, "length": 0.0, "rules": 0.0, "bias": 0.0}
GOOD = {
    "bias": dict.fromkeys(Head, 0.0),
    "messages": dict.fromkeys(Head, OPINION),
    "words": {"treat": [1.0, 0.0, 0.0, 0.0]},
}


def read(*segments: str) -> list[tuple[Sentence, ...]]:
    """The sentences of a message of these segments."""
    return LEARNED.read(sheet(segments).encode().lower())


def promotion(text: str) -> float:
    """The log-odds for promotion of a text of one sentence."""
    return read(text)[0][0].promotion


def test_a_sentence_is_the_sum_of_its_words_and_pairs() -> None:
    """A word counts for itself and with its neighbour; every head has its own sum."""
    ((sentence,), *_) = read("Your treat")
    assert sentence.promotion == pytest.approx(-1.0 + 0.1 + 2.0 + 1.5)
    assert sentence.ask == pytest.approx(-4.0 + 0.2)
    assert sentence.service == pytest.approx(0.5 + 0.4 - 1.0)


def test_pairs_are_neighbours_of_one_sentence() -> None:
    """Words of two sentences, or with another between, make no pair."""
    assert promotion("your next treat") == pytest.approx(-1.0 + 0.1 + 2.0)
    assert [one.promotion for one in read("It is your. Treat")[0]] == [pytest.approx(-0.9), pytest.approx(1.0)]


def test_figures_count_by_their_shape() -> None:
    """Any percentage of two figures is the same word."""
    assert promotion("your 20% off") == promotion("your 35% off") == pytest.approx(-1.0 + 0.1 + 3.0)


def test_unknown_words_count_by_their_beginning() -> None:
    """A word never seen is read as others that begin like it."""
    assert promotion("your renovation") == promotion("your renovieren") == pytest.approx(-1.0 + 0.1 + 0.7)


def test_marks_count_once() -> None:
    """Shouting more does not promote more."""
    assert promotion("treat!") == promotion("treat!!!") == pytest.approx(-1.0 + 2.0 + 0.5)


def test_terms_of_long_sentences_count_less() -> None:
    """The same words in a longer sentence weigh less, and never more than in a short one."""
    assert damping(1) == damping(8) == 1.0
    assert promotion("treat " + "the " * 31) == pytest.approx(-1.0 + 2.0 * math.sqrt(8 / 32))


def test_texts_without_known_words_are_no_sentences() -> None:
    """Nothing is said of a text of which nothing was learned, and figures alone are such a text."""
    assert read("Lorem ipsum", "20% 30%", "")[:3] == [(), (), ()]


def test_each_segment_has_its_own_sentences() -> None:
    """Sentences are told by segment, with their place in that segment's own sheet."""
    texts = ("Éclair. Your treat", "Nothing", "treat!")
    found = read(*texts)[: len(texts)]
    assert [len(sentences) for sentences in found] == [1, 0, 1]
    own = sheet([texts[0]]).encode().lower()
    assert own[found[0][0].start : found[0][0].end] == b"your treat"


@given(st.lists(st.sampled_from(["your", "treat", "20%", "off", "renovated", "x", "été", "!", "?", "."]), max_size=30))
def test_what_is_shown_adds_up(words: list[str]) -> None:
    """The terms of a sentence and the bias make up its log-odds, for every head."""
    text = sheet([" ".join(words)]).encode().lower()
    for sentence in LEARNED.read(text)[0]:
        for place, head in enumerate(Head):
            total = BIAS[head] + sum(term.weight for term in LEARNED.terms(text, sentence, head))
            assert total == pytest.approx(sentence[place])


def sentence(*log_odds: float, words: int = 1) -> Sentence:
    """A sentence of which this is known for each head."""
    probable = (words / (1 + math.exp(-min(max(value, LOWEST), -LOWEST))) for value in log_odds)
    return Sentence(*log_odds, *probable, words, 0, 0)


SENTENCES = st.lists(st.builds(sentence, *[st.floats(-50, 50)] * 4, words=st.integers(1, 60)), min_size=1, max_size=20)


@given(SENTENCES)
def test_a_reading_has_the_highest_and_the_share(sentences: list[Sentence]) -> None:
    """For each head the strongest, the mean of the next two and a share of the words; nothing counts beyond limits."""
    *reading, length = reading_of(sentences)
    assert length == math.log1p(len(sentences))
    for place in range(4):
        top, following, share = reading[3 * place : 3 * place + 3]
        bounded = sorted((min(max(one[place], LOWEST), -LOWEST) for one in sentences), reverse=True)
        assert top == bounded[0]
        assert following == pytest.approx(sum([*bounded[1:3], LOWEST, LOWEST][:2]) / 2)
        probable = [one.words / (1 + math.exp(-min(max(one[place], LOWEST), -LOWEST))) for one in sentences]
        assert share == pytest.approx(sum(probable) / sum(one.words for one in sentences))


@given(SENTENCES)
def test_a_reading_does_not_hang_on_the_order(sentences: list[Sentence]) -> None:
    """Where a sentence stands in a message makes no difference."""
    assert reading_of(sentences[::-1]) == pytest.approx(reading_of(sentences))


def test_long_sentences_have_a_larger_share() -> None:
    """A promotion in ten words among ten that serve is half of the message."""
    reading = reading_of([sentence(9.0, -9.0, -9.0, -9.0, words=10), *[sentence(-9.0, -9.0, -9.0, 9.0, words=5)] * 2])
    assert reading[2] == pytest.approx(0.5, abs=0.01)


def test_a_sentence_without_end_has_no_larger_share() -> None:
    """However many words stand before its full stop, it counts as twenty."""
    assert read("treat " * 300)[0][0].words == read("treat " * 20)[0][0].words == MOST_WORDS == 20


def test_an_opinion_weighs_sentences_and_rules() -> None:
    """The message's log-odds are the weighted sum of what is read for every head, of the length and of the rules."""
    opinion = Opinion((1.0, 10.0, 100.0, *[0.0] * 3, -1.0, *[0.0] * 5, 1000.0), 10000.0, 0.5)
    learned = Learned("test", BIAS, WORDS, {Head.ASK: opinion})
    reading = (3.0, 0.5, 0.25, *[9.0] * 3, 4.0, *[9.0] * 5, math.log(5))
    assert learned.log_odds(Head.ASK, reading, 2.0) == pytest.approx(3 + 5 + 25 - 4 + 1000 * math.log(5) + 20000 + 0.5)


def test_less_promotion_is_less_of_the_share() -> None:
    """What an innocent phrase takes off a sentence goes from its log-odds and from what it adds to the share."""
    less = sentence(3.0, 0.0, 0.0, 0.0, words=6).less(3.0)
    assert (less.promotion, less.promoting, less.words) == (0.0, 3.0, 6)


def test_without_words_nothing_is_read() -> None:
    """A rule set without learned weights has none."""
    assert not NOTHING_LEARNED
    assert LEARNED


def test_terms_are_what_is_read() -> None:
    """What weights are fitted to is what sentences are read by."""
    assert terms_of("Your 20% treat!") == ["your", "00%", "treat", "your 00%", "00% treat", "!"]
    assert beginning_of("renovation") == "renov*"
    assert beginning_of("new") is beginning_of("your treat") is beginning_of("!") is None
    assert words_in("Your 20% treat!") == 3


@pytest.mark.parametrize("text", ["treat", "your treat", "00% off", "renov*", "!", "für"])
def test_terms_have_a_letter(text: str) -> None:
    """Weights may be given to words, pairs, beginnings and marks."""
    assert is_term(text)


@pytest.mark.parametrize("text", ["", "00%", "00 00", "one two three", "Your", "your, treat", " treat", "*"])
def test_other_texts_are_no_terms(text: str) -> None:
    """Texts of figures are passed over unread, so nothing may hang on them; nor on what never stands in a sheet."""
    assert not is_term(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bias": {"promotion": 0.0}}, "bias: an object with promotion, ask, survey, service"),
        ({"bias": dict.fromkeys(Head, "0")}, "bias.promotion: '0': a number from -20 to 20"),
        ({"messages": {}}, "messages: an object with promotion, ask, survey, service"),
        (
            {"messages": {head: {"promotion": {"top": 1.0}} for head in Head}},
            "messages.promotion: an object with promotion, ask, survey, service, length, rules, bias",
        ),
        (
            {"messages": {head: {**OPINION, "ask": {"top": 1.0}} for head in Head}},
            "messages.promotion.ask: numbers of at most 20 for top, next, share",
        ),
        (
            {"messages": {head: {**OPINION, "bias": 21} for head in Head}},
            "messages.promotion: numbers of at most 20 for length, rules, bias",
        ),
        ({"words": []}, "words: an object of words, each with its weights"),
        ({"words": {"00%": [1.0, 0.0, 0.0, 0.0]}}, "words: '00%': one or two words with a letter"),
        ({"words": {"treat": [1.0]}}, "words: 'treat': one or two words with a letter, and 4 weights of at most 20"),
        ({"words": {"treat": [math.nan, 0.0, 0.0, 0.0]}}, "words: 'treat'"),
        ({"words": {"treat": [True, 0.0, 0.0, 0.0]}}, "words: 'treat'"),
        ({"more": 1}, "an object with the fields bias, messages, words, and no others"),
    ],
)
def test_a_bad_file_says_what_is_wrong(change: dict[str, object], told: str) -> None:
    """The error names file, place, value and what is allowed."""
    with pytest.raises(RuleError) as caught:
        parse_learned("learned.json", {**GOOD, **change}, "1")
    assert f"learned.json: {told}" in str(caught.value)


def test_a_good_file_is_read() -> None:
    """Its words weigh."""
    learned = parse_learned("learned.json", GOOD, "1")
    assert learned.version == "1"
    assert learned.read(sheet(["Treat"]).encode().lower())[0][0].promotion == 1.0

"""The shipped rules on the casebook of regulators' cases: the right label, and for the right reason."""

import json
from collections import Counter
from pathlib import Path

import pytest

from filter.classification import Classification
from filter.consent import ConsentAnswer, ConsentState
from filter.labels import Channel, Label, SegmentLabel
from filter.message import Message, message_from_json, message_from_text
from filter.policy import Disposition, Policy, decide
from filter.rules import check_examples

DATA = Path(__file__).parents[1] / "data"

# What the label must rest on: for each case, pairs of (rule id or theme, words that the evidence must contain).
REASONS = {
    "B01b": [("offer.word-offer", "offers"), ("offer.money-off", "receive")],
    "B01d": [("benefit.", "benefits"), ("benefit.use-card", "without it")],
    "B01f": [("benefit.use-card", "without it")],
    "B01h": [("offer.earn-points", "points"), ("service.account-change", "card details")],
    "B01i1": [("offer.word-offer", "offers are"), ("offer.promotion-word", "never miss a saving")],
    "B01j": [("offer.", "£50 back")],
    "B02": [("benefit.upgrade", "upgrade"), ("service.", "bill")],
    "B05": [("ask.reconsider", "reconsider"), ("ask.reconsider", "prefer not")],
    "B07": [("ask.hear-from-us", "hear from"), ("ask.marketing-preferences", "marketing preferences")],
    "B09": [("offer.voucher", "redeem your voucher"), ("cta.book", "Book a free")],
    "B10a": [("service.quote-requested", "you asked for")],
    "B10c": [("offer.price-drop", "more for"), ("cta.urgency", "Don't miss out")],
    "B11a": [("lead.loan", "loan")],
    "B11c": [("lead.loan", "lenders")],
    "B16": [("offer.percent-off", "10% off"), ("service.editorial", "campaign news")],
    "B18a": [("offer.money-off", "10-25 Off")],
    "B18c": [("offer.save-amount", "Save £10")],
    "B26b": [("lead.debt", "write off")],
    "B42": [("offer.free-thing", "free shipping"), ("service.order", "order")],
    "N01x": [("service.outage", "maintenance")],
    "N03x": [("service.recall-safety", "recalled")],
    "N05x": [("service.terms-price", "will change")],
    "N07x": [("service.booking", "Doors open")],
    "N09x": [("service.outage", "closed")],
    "N11x": [("service.booking", "appointment")],
    "N13x": [("service.quote-requested", "missed your call")],
    "N15x": [("service.security-code", "passcode")],
    "N17x": [("survey.answer-questions", "answer three questions")],
    "N19x": [("service.usage", "used 90%")],
    "P01x": [("offer.just-price", "for just £5"), ("service.usage", "used 90%")],
    "P03x": [("journey.renew-persuade", "Renew now"), ("service.subscription", "contract ends")],
    "P05x": [("ask.hear-from-us", "May we email you offers")],
    "P07x": [("offer.free-thing", "Free shipping"), ("service.password", "reset your password")],
}
# Texts that must never be anyone's reason: disclaimers and opt-out lines weigh nothing (law rule R14).
WEIGHTLESS = ("this is a service message", "does not affect", "stop to", "optout")


def _cases(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


CASES = _cases(DATA / "casebook.jsonl")
LOOKS = _cases(DATA / "first-look.jsonl")


def _message(case: dict[str, str]) -> Message:
    fields = ("id", "channel", "subject", "text")
    return message_from_json({name: case[name] for name in fields if case.get(name)})


def _rests_on(found: Classification, rule: str, words: str) -> bool:
    return any(e.rule.startswith(rule) and words.lower() in e.text.lower() for e in found.evidence)


# What the casebook expects, as a disposition; "own and similar" is in the state S itself (law rule R37).
EXPECTED = {
    "deliver": Disposition.RELAY,
    "deliver_if_own_similar": Disposition.RELAY,
    "hold": Disposition.HOLD,
    "hold_or_strip": Disposition.HOLD,
}
STATES = {state.letter: state for state in ConsentState}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_has_the_outcome_of_the_regulator(case, classifier):
    """In every consent state each message of the casebook is relayed or held as expected."""
    judged = classifier.classify(_message(case))
    for letter, expected in case["expected"].items():
        consent = ConsentAnswer(STATES[letter], None, (), None, ())
        assert decide(judged, consent, Policy()).disposition is EXPECTED[expected], letter


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_has_the_label_of_the_regulator(case, classifier):
    """Every message of the casebook gets its label."""
    assert classifier.classify(_message(case)).label == case["label"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_is_decided_for_the_right_reason(case, classifier):
    """The evidence holds the words that decided the case, and never a disclaimer or an opt-out line."""
    found = classifier.classify(_message(case))
    missing = [reason for reason in REASONS[case["id"]] if not _rests_on(found, *reason)]
    assert not missing
    # A sentence is quoted whole; the words that weigh for it stand beside it.
    quoted = ("learned.promotion", "learned.ask", "learned.survey")
    innocent = (SegmentLabel.NEUTRAL, SegmentLabel.SERVICE)
    arguing = [e for e in found.evidence if e.label not in innocent and e.rule not in quoted and e.weight > 0]
    assert not [e for e in arguing if any(words in e.text.lower() for words in WEIGHTLESS)]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_evidence_is_cited_and_quoted(case, classifier):
    """Each piece of evidence quotes its segment word for word and cites law or case."""
    message = _message(case)
    for e in classifier.classify(message).evidence:
        assert e.cites
        assert message.segments[e.segment].text[e.start : e.end] == e.text


def test_every_shipped_rule_keeps_its_examples(classifier):
    """Each rule of the shipped set matches its own `match` sentences and none of its near misses."""
    assert check_examples(classifier.rules) == []


def test_casebook_is_the_shared_one(shared):
    """The copy that ships with the tests says what the shared casebook says."""
    assert _cases(shared / "corpus" / "casebook.jsonl") == CASES


def test_disclaimer_changes_nothing(classifier):
    """A message is judged alike with and without its claim to be a service message (law rule R14)."""
    text = "Get 20% off everything in our shop this weekend."
    claim = " This is a service message and does not affect your marketing opt-in status."
    plain, claimed = (classifier.classify(_message({"id": "1", "text": one})) for one in (text, text + claim))
    assert plain.label is claimed.label is Label.MARKETING


@pytest.mark.parametrize(
    "offer",
    [
        "20% off all shoes this weekend only at Stride Ltd Text STOP to opt out",
        "Don't miss our best offers",
        "Offer ends Sunday: 20% off every plan",
        "Get 20% off, discount applied automatically at checkout",
        "Prices slashed from £50 to £20",
        "You could be owed a refund of £3,000: claim now",
        "Sorry to see you go, so here is 20% off your next order",
        "Book now before prices rise and save £40",
        "Feel free to browse the sale: half price today",
        "Your exclusive offer of 25% off is waiting, unsubscribe any time",
    ],
)
def test_innocent_words_hide_no_offer(offer, classifier):
    """Words that are innocent elsewhere do not take an offer off the table when they stand beside it."""
    assert classifier.classify(message_from_text(offer, channel=_message(CASES[0]).channel)).label.promotional


def test_first_look_holds_its_floor(classifier):
    """On our own messages across industries the rules miss at most 5 promotions and suspect at most 3 other mails.

    Measured: 2 missed of 99, 1 suspected of 122. The rules were improved with these messages, so this guards what was
    reached; it does not estimate how they do on new mail.
    """
    outcomes = Counter(
        (Label(case["label"]).promotional, classifier.classify(_message(case)).label.promotional) for case in LOOKS
    )
    assert outcomes[True, True] + outcomes[True, False] == 99
    assert outcomes[True, False] <= 5
    assert outcomes[False, True] <= 3


@pytest.mark.parametrize(
    "text",
    [
        "You are receiving this email because you qualify for 20% off all shoes this weekend.",
        "Discount ends Sunday, pay only £20",
        "Our 50% off promotional period ends Sunday, then prices go up, so pay half price today",
        "Call us free on 0800 000 000 to hear about our new credit card with 0% interest for 24 months.",
        "We are upgrading our network in your area, so now is a great time to get our faster broadband for only £25.",
        "Save 50% in our summer sale, shop now job offer, firmware upgrade, points balance is 5",
    ],
)
def test_an_innocent_phrase_is_no_cloak(classifier, text):
    """An innocent phrase in the sentence of an offer excuses the words it covers, and no others."""
    assert classifier.classify(message_from_text(text, channel=Channel.EMAIL)).label is Label.MARKETING


@pytest.mark.parametrize(
    "text",
    [
        "Your one-time passcode for a £20 payment to SUMMER SALE STORE is 482913.",
        "Fraud alert: did you spend £500 at Best Deals Ltd?",
        "Password reset for your Best Offers account. Click below to choose a new password.",
        "Your card was declined at Bargain Deals.",
        "Delivery update: your parcel from Bonus Buys Clearance Sale will arrive on Tuesday.",
    ],
)
def test_a_name_is_no_offer(classifier, text):
    """A passcode, an alert or a delivery notice is not held because a shop is called after its prices."""
    assert classifier.classify(message_from_text(text, channel=Channel.EMAIL)).label is Label.SERVICE

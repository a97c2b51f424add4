"""From evidence to labels: sentences, segments, messages; and the words shown as evidence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filter.classification import Classification, claimed_label
from filter.classify import Classifier
from filter.labels import Channel, Label, SegmentKind, SegmentLabel
from filter.message import Defect, DefectCode, Link, Message, Segment
from filter.rules import Rule, compile_rules
from filter.weights import Weights


def rule(name: str, label: str, weight: float, *patterns: str, **more: frozenset[SegmentKind]) -> Rule:
    """A rule without the parts that judging does not use."""
    return Rule(name, SegmentLabel(label), weight, patterns, ("R1",), **more)


RULES = (
    rule("offer.percent", "marketing", 3.0, "<percent> off"),
    rule("offer.weak", "marketing", 0.8, "exclusive"),
    rule("offer.treat", "marketing", 1.5, "treat yourself"),
    rule("cta.button", "marketing", 2.5, "^shop now$", kinds=frozenset({SegmentKind.BUTTON})),
    rule("neutral.apology", "neutral", 3.0, "<percent> off as an apology"),
    rule("ask.hear", "re_permission", 3.0, "like to hear from us"),
    rule("survey.rate", "survey", 2.5, "how did we do"),
    rule("service.order", "service", 2.5, "your order <0-3> dispatched"),
)
CLASSIFIER = Classifier(compile_rules(RULES, Weights()))
PARAGRAPH, FOOTER, BUTTON, SUBJECT = SegmentKind.PARAGRAPH, SegmentKind.FOOTER, SegmentKind.BUTTON, SegmentKind.SUBJECT


def judge(*segments: str | tuple[SegmentKind, str], **fields: object) -> Classification:
    """The judgement on a message of these segments (paragraphs where no kind is given)."""
    listed = tuple(Segment(PARAGRAPH, s) if isinstance(s, str) else Segment(*s) for s in segments)
    return CLASSIFIER.classify(Message(Channel.EMAIL, segments=listed, **fields))  # type: ignore[arg-type] -- test data


@pytest.mark.parametrize(
    ("segments", "label"),
    [
        ((), Label.SERVICE),
        (("Hello.",), Label.SERVICE),
        (("Your order was dispatched.",), Label.SERVICE),
        (("Get 20% off.",), Label.MARKETING),
        (("Your order was dispatched.", "Get 20% off."), Label.MIXED),
        (("Your order was dispatched and here is 20% off.",), Label.MIXED),
        (("How did we do?",), Label.SURVEY),
        (("How did we do? Get 20% off.",), Label.MARKETING),
        (("Would you like to hear from us?",), Label.RE_PERMISSION),
        (("Would you like to hear from us and get 20% off?",), Label.RE_PERMISSION),
        (("How did we do?", "Would you like to hear from us?"), Label.RE_PERMISSION),
        (("Would you like to hear from us?", "Get 20% off."), Label.MARKETING),
        (("Here is 20% off as an apology.",), Label.SERVICE),
        (("Here is 20% off as an apology, and 30% off shoes.",), Label.MARKETING),
        (("Here is 20% off as an apology.", "Get 20% off."), Label.MARKETING),
        (("Exclusive.",), Label.SERVICE),
        ((*["Treat yourself."] * 3,), Label.MARKETING),
        (((FOOTER, "Treat yourself."), (FOOTER, "Exclusive.")), Label.SERVICE),
        (((BUTTON, "Shop now"),), Label.MARKETING),
        (((PARAGRAPH, "Shop now"),), Label.SERVICE),
    ],
)
def test_labels(segments: tuple[str, ...], label: Label) -> None:
    """Promotion decides, service evidence makes it mixed, innocence excuses what it covers, weak words add up."""
    assert judge(*segments).label is label


def test_the_score_rises_with_evidence() -> None:
    """The probability is low without evidence, a half at the threshold, and near one with much."""
    scores = [
        judge(text).score
        for text in ("Hi", "Exclusive", "Treat yourself", "20% off", "20% off, exclusive treat yourself")
    ]
    assert scores == sorted(scores)
    assert scores[0] < 0.05
    assert scores[-1] > 0.95


def test_evidence_shows_the_words() -> None:
    """Evidence gives rule, segment and exact characters, also behind commas, hyphens and foreign letters."""
    text = "Für Sie, heute - 20% off, Ünsere exclusive Wahl."
    found = judge("Hallo, alle", text).evidence
    assert [(e.rule, e.segment, e.text) for e in found] == [
        ("offer.percent", 1, "20% off"),
        ("offer.weak", 1, "exclusive"),
    ]
    assert all(text[e.start : e.end] == e.text for e in found)


def test_a_rule_counts_once_a_sentence() -> None:
    """Repeating a phrase in a sentence adds evidence to show, and nothing to the score."""
    once, thrice = judge("Exclusive."), judge("Exclusive, exclusive and exclusive.")
    assert once.score == thrice.score
    assert len(thrice.evidence) == 3


def test_structure_supports_and_never_decides() -> None:
    """Bulk headers and tracked links add to promotion that is there, and make none where there is not."""
    structure = {
        "headers": {"list-unsubscribe": ("x",), "x-campaign": ("y",)},
        "links": (Link("a.example", "/?utm_source=b"),),
    }
    assert judge("Hello.", **structure).label is Label.SERVICE
    assert judge("Treat yourself.").label is Label.SERVICE
    supported = judge("Treat yourself.", **structure)
    assert supported.label is Label.MARKETING
    assert {e.rule for e in supported.support} == {
        "support.list-unsubscribe",
        "support.campaign-header",
        "support.utm-link",
    }


@pytest.mark.parametrize(
    ("declared", "claimed", "disguised"),
    [
        ("", None, False),
        ("transactional", Label.SERVICE, True),
        ("This is a Service Message", Label.SERVICE, True),
        ("marketing", Label.MARKETING, False),
        ("tuesday", None, False),
    ],
)
def test_the_claim_is_kept_and_weighs_nothing(declared: str, claimed: Label | None, disguised: bool) -> None:
    """What a sender declares changes neither label nor score; claiming service for a promotion is a finding."""
    judged = judge("Get 20% off.", declared=declared)
    assert (judged.claimed, judged.disguised) == (claimed, disguised)
    assert (judged.label, judged.score) == (Label.MARKETING, judge("Get 20% off.").score)
    assert claimed_label(declared) is claimed


def test_what_was_not_read_is_visible() -> None:
    """Defects that left content unread are in the result; harmless ones are not."""
    defects = (Defect(DefectCode.ENCRYPTED), Defect(DefectCode.HEADER_MALFORMED))
    assert judge("Hello.", defects=defects).unread == (DefectCode.ENCRYPTED,)


def test_decisive_rules_are_those_that_argue_for_the_label() -> None:
    """A mixed message names its promotional rules, strongest first; a service message its service rules."""
    assert judge("Exclusive 20% off.", "Your order was dispatched.").decisive_rules == ("offer.percent", "offer.weak")
    assert judge("Your order was dispatched.").decisive_rules == ("service.order",)


WORDS = st.sampled_from(
    [r.patterns[0].strip("^$").replace("<percent>", "9%").replace("<0-3> ", "") for r in RULES]
    + ["a,", "-", ".", "é", "Ж"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=5)


@settings(deadline=None)
@given(TEXTS)
def test_evidence_lies_in_its_segment(texts: list[str]) -> None:
    """Whatever the text, each piece of evidence quotes its own segment, and judged segments mirror the message's."""
    judged = judge(*texts)
    assert [s.text for s in judged.segments] == texts
    for segment in judged.segments:
        for e in segment.evidence:
            assert e.text == segment.text[e.start : e.end] != ""


@given(TEXTS)
def test_service_evidence_never_hides_promotion(texts: list[str]) -> None:
    """Adding a service paragraph to a message never makes a promotional one pass."""
    before, after = judge(*texts), judge(*texts, "Your order was dispatched.")
    assert after.label.promotional == before.label.promotional
    assert after.score == before.score

"""Time-critical mail that promotes is told apart, and nothing else can pass for it. With the shipped rules."""

import dataclasses
from io import StringIO

import pytest
from rich.console import Console

from filter import explain
from filter.classification import Classification
from filter.classify import Classifier
from filter.consent import ConsentAnswer, ConsentState
from filter.decision import Decider
from filter.facts import facts_of
from filter.labels import Channel
from filter.message import message_from_text, parse_message
from filter.policy import Disposition, Policy
from filter.recheck import recheck
from filter.urgency import Bound

from .test_decision import STREAMS, Consents
from .test_recheck import copy

OFFER = "Get 20% off your next order this weekend."
PASSCODE = "Your one-time passcode is 402118."


def plain(classifier: Classifier, subject: str, *texts: str) -> Classification:
    """The classification of a plain mail of these paragraphs."""
    mail = f"From: a@x.example\r\nSubject: {subject}\r\n\r\n" + "\r\n\r\n".join(texts)
    return classifier.classify(parse_message(mail.encode()))


def page(classifier: Classifier, subject: str, html: str, *more: str) -> Classification:
    """The classification of a mail with this page."""
    head = "".join(f"{line}\r\n" for line in ("From: a@x.example", f"Subject: {subject}", *more))
    return classifier.classify(parse_message(f"{head}Content-Type: text/html; charset=utf-8\r\n\r\n{html}".encode()))


@pytest.mark.parametrize(
    ("subject", "texts"),
    [
        ("Your security code", ("Hello Ann,", PASSCODE, "It expires in ten minutes.", OFFER)),
        ("Signing in", ("Hello Ann,", PASSCODE, OFFER)),
        ("Reset your password", ("Follow this link: https://x.example/r", "Upgrade to Premium today and save 50%.")),
        ("Card blocked", ("We noticed a suspicious transaction on your card and blocked it.", "Call us.", OFFER)),
        ("Important safety notice", ("Stop using the kettle immediately.", "Return it to any shop.", OFFER)),
    ],
)
def test_what_cannot_wait_is_told_apart(classifier, subject, texts):
    """A passcode, a reset, a fraud or safety alert with one offer below it is promotional, and time-critical."""
    judged = plain(classifier, subject, *texts)
    assert judged.label.promotional
    assert judged.time_critical
    assert judged.urgency.bound is None
    assert all(rule.startswith("time-critical.") for rule in judged.urgency.rules)


def test_a_text_message_can_be_time_critical(classifier):
    """One sentence that serves and one that promotes are enough."""
    judged = classifier.classify(message_from_text(f"{PASSCODE} {OFFER}", channel=Channel.SMS))
    assert judged.label.promotional
    assert judged.time_critical


def test_mail_without_promotion_needs_no_excuse(classifier):
    """A pure passcode is service, and nothing more is asked."""
    judged = plain(classifier, "Your security code", PASSCODE)
    assert not judged.label.promotional
    assert (judged.urgency.rules, judged.time_critical) == ((), False)


@pytest.mark.parametrize(
    "texts",
    [
        ("Your code is SAVE20.", OFFER),
        ("Your discount code is 402118.", OFFER),
        ("Use code WELCOME10 at checkout.", OFFER),
        ("Your account is locked: unlock your reward today.", OFFER),
        ("Ten ways to protect yourself from fraud.", OFFER),
        ("Stop using your old phone.", OFFER),
    ],
)
def test_a_newsletter_with_a_code_is_a_newsletter(classifier, texts):
    """Codes that take money off, and advice, are nothing that cannot wait."""
    judged = plain(classifier, "News", *texts)
    assert judged.label.promotional
    assert judged.urgency.rules == ()


FILLER = ("Hello Ann,", "Autumn is here.", "The days get shorter.", "We hope you are well.")


@pytest.mark.parametrize(
    ("subject", "texts", "bound"),
    [
        (
            "News",
            ("Hello", OFFER, "See you.", "Kind regards", "Forgot your password? Reset your password."),
            Bound.PLACE,
        ),
        ("Your account", (*FILLER, PASSCODE, OFFER), Bound.PLACE),
        ("Your account", ("Hello", OFFER, "See you.", "> Your one-time passcode is 402118."), Bound.PLACE),
        ("Summer sale: up to 50% off everything", (PASSCODE, *FILLER), Bound.SUBJECT),
        (
            "Your account",
            (PASSCODE, *FILLER, OFFER, "Shop now.", "Free gift with every order.", "Buy one get one free."),
            Bound.SENTENCES,
        ),
        ("Your account", (PASSCODE, OFFER, "Buy one get one free today.", "Shop now."), Bound.SHARE),
        (
            "Your account",
            (PASSCODE, *FILLER, "Get 20% off " + "and 30% off shoes and 40% off coats " * 9),
            Bound.LENGTH,
        ),
    ],
)
def test_promotion_finds_no_hole(classifier, subject, texts, bound):
    """A passcode in the footer, in the middle, under a promoting subject or beside much promotion excuses nothing, and
    it is said why.
    """
    judged = plain(classifier, subject, *texts)
    assert judged.label.promotional
    assert judged.urgency.rules
    assert judged.urgency.bound is bound
    assert not judged.time_critical


@pytest.mark.parametrize(
    "hidden",
    [
        f'<p style="display:none">{PASSCODE}</p>',
        f'<p style="color:#ffffff">{PASSCODE}</p>',
        f'<img alt="{PASSCODE}" src="x.png" width="20" height="20">',
        f'<a href="https://x.example/">{PASSCODE}</a>',
    ],
)
def test_only_what_is_read_counts(classifier, hidden):
    """A passcode that is hidden, or stands in a picture's text or on a button, excuses nothing."""
    judged = page(classifier, "News", f"{hidden}<p>Hello Ann,</p><p>{OFFER}</p><p>See you.</p><p>Bye.</p>")
    assert judged.label.promotional
    assert judged.urgency.bound is Bound.PLACE


def test_a_comment_excuses_nothing(classifier):
    """Nobody reads comments, so no rule finds anything there."""
    judged = page(classifier, "News", f"<!-- {PASSCODE} --><p>{OFFER}</p><p>See you.</p>")
    assert judged.label.promotional
    assert judged.urgency.rules == ()


def test_hidden_promotion_counts_as_promotion(classifier):
    """Sentences that promote are counted wherever they stand."""
    more = "<p>Shop now.</p><p>Free gift with every order.</p><p>Buy one get one free.</p><p>Get 20% off.</p>"
    seen = "".join(f"<p>{text}</p>" for text in (PASSCODE, *FILLER, *FILLER))
    judged = page(classifier, "Code", f'{seen}<div style="display:none">{more}</div>')
    assert judged.urgency.bound is Bound.SENTENCES


def test_doubt_excuses_nothing(classifier):
    """Disguised words, or content that nobody could read, keep a message from being time-critical."""
    judged = plain(classifier, "Code", PASSCODE, "Hello Ann,", "Get 20% \u202eoff\u202c your next order this weekend.")
    assert judged.label.promotional
    assert judged.urgency.bound is Bound.DOUBT


def test_facts_keep_it_for_releases(classifier):
    """What is kept with a held message leads to the same answer when it is checked again."""
    judged = plain(classifier, "Your security code", PASSCODE, OFFER)
    other = plain(classifier, "News", OFFER)
    nobody = ConsentAnswer(ConsentState.UNKNOWN, None, (), None, ())
    relaying = dataclasses.replace(Policy(), on_time_critical=Disposition.RELAY)
    kept, kept_other = (type(facts_of(one)).from_json(facts_of(one).to_json()) for one in (judged, other))
    assert (kept.time_critical, kept_other.time_critical) == (True, False)
    assert recheck(copy(), kept, nobody, relaying)[:2] == (True, "time_critical")
    assert recheck(copy(), kept, nobody, Policy())[:2] == (False, "no_consent")
    assert recheck(copy(), kept_other, nobody, relaying)[:2] == (False, "no_consent")


def test_the_page_says_what_cannot_wait_and_why_not(classifier):
    """A lawyer reads which rules found it, and which bound the message exceeds."""
    deciding = Decider(
        classifier, Consents(), STREAMS, dataclasses.replace(Policy(), on_time_critical=Disposition.RELAY)
    )
    for subject, says in (("Code", "It is time-critical all the same"), ("Sale: 50% off", str(Bound.SUBJECT))):
        mail = f"From: a@x.example\r\nSubject: {subject}\r\n\r\n{PASSCODE}\r\n\r\nHello Ann,\r\n\r\n{OFFER}\r\n"
        decision = deciding.decide(parse_message(mail.encode()), "b@bank.example", ["no@x.example"], 1)
        out = StringIO()
        Console(file=out, width=400).print(explain.page(decision, {}, "x.eml"))
        assert says in out.getvalue()
        assert "time-critical.passcode" in out.getvalue()

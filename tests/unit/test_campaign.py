"""Campaigns: copies of a template share one, whatever is personal in them, and no two templates do."""

# ruff: noqa: RUF001 - texts of other scripts are no mistakes

import random
import re
import string
import tracemalloc
from collections import Counter
from email.message import EmailMessage
from email.policy import SMTP
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.campaigns import FORMS, KEPT_BACK, TUNED, UNSEEN, UNSEEN_LANGUAGES, copies, templates
from unit.hostile import CASES, mutations

from filter.campaign import MAX_READ, fingerprint, masked_subject
from filter.labels import Channel
from filter.message import Message, message_from_json, message_from_text, parse_message

COPIES = 50
# Templates that fall apart more than one copy in twenty with the second list of values, and what does it.
FRAGILE = {"es-pedido": "a date that ends in a day of one or two digits, before a full stop, reads as an ordinal"}

BODY = """Dear {name},

Your statement for the month to {date} is ready. The balance of your account ending {digits} was {amount}.

You can see it whenever you like by signing in. Thank you, {name}, for being with us.

View it: https://bank.example/{token}

Tidewater Bank plc is authorised and regulated.
"""
VALUES = {"name": "Anna", "date": "3 May 2027", "digits": "1234", "amount": "£12.50", "token": "k3X"}
PROMOTIONS = (
    "Treat yourself: everything in our garden range is half price this week.",
    "Get 20% off your first order.",
    "CLAIM YOUR FREE GIFT NOW",
    "Claim Your Free Gift Now",
    "Discover our platinum card with lounge access",
    "Earn £50 for each friend that you refer before 3 May.",
    "Shop now",
    "Jetzt 20 % Rabatt sichern!",
    "Profitez de trois mois offerts.",
    "Подключите телевидение и смотрите фильмы бесплатно!",
    "现在加入会员，立即享受折扣！",
)


def _mail(body: str, *, subject: str = "Your statement is ready", subtype: str = "plain", **fields: str) -> Message:
    sent = EmailMessage(policy=SMTP)
    cte = fields.pop("cte", "8bit")
    for name, value in {"From": "Bank <post@bank.example>", "To": "x@elsewhere.example", **fields}.items():
        sent[name.replace("_", "-")] = value
    sent["Subject"] = subject
    sent.set_content(body, subtype=subtype, cte=cte)
    return parse_message(sent.as_bytes())


def _campaign(body: str = BODY, /, **values: str) -> str:
    return fingerprint(_mail(body.format(**{**VALUES, **values})))


def _found(values: str) -> dict[tuple[str, str], Counter[str]]:
    return {
        (template.id, form): Counter(fingerprint(parse_message(raw)) for raw in copies(template, form, COPIES, values))
        for template in templates()
        if values != UNSEEN or template.lang in UNSEEN_LANGUAGES
        for form in FORMS
    }


@pytest.fixture(scope="module", params=[TUNED, KEPT_BACK])
def found(request):
    """The campaigns of fifty copies of each template, plain and HTML, with one list of values."""
    return _found(request.param)


def test_there_is_enough_to_tell_apart():
    """There are at least forty templates, in eight languages and more, with twins among them."""
    assert len(templates()) >= 40
    assert len({template.lang for template in templates()}) >= 8
    assert len([template for template in templates() if template.twin]) >= 8


def test_copies_of_a_template_share_a_campaign(found):
    """Of all copies, 99 % have the campaign of their template."""
    hits = sum(campaigns.most_common(1)[0][1] for campaigns in found.values())
    assert hits >= 0.99 * COPIES * len(found)


def test_copies_with_values_that_nobody_has_looked_at_share_a_campaign():
    """The same holds, within a hundredth, for values that the fingerprint was not made with."""
    campaigns = _found(UNSEEN).values()
    assert sum(found.most_common(1)[0][1] for found in campaigns) >= 0.98 * COPIES * len(campaigns)


def test_no_template_falls_apart(found):
    """At least 19 of 20 copies of each template have its campaign, but for those known to be fragile."""
    weak = {template for (template, _), campaigns in found.items() if campaigns.most_common(1)[0][1] < 0.95 * COPIES}
    assert weak <= set(FRAGILE)


def test_no_two_templates_share_a_campaign(found):
    """No campaign, not even that of a copy that fell out, is of two templates; twins are told apart."""
    owners: dict[str, set[str]] = {}
    for (template, _), campaigns in found.items():
        for campaign in campaigns:
            owners.setdefault(campaign, set()).add(template)
    assert "" not in owners
    assert {campaign: who for campaign, who in owners.items() if len(who) > 1} == {}


def test_a_campaign_has_the_name_it_always_had():
    """The name of a campaign is 32 hexadecimal digits and the same in every process: decisions are kept by it."""
    assert re.fullmatch("[0-9a-f]{32}", _campaign())
    assert _campaign() == "0c3a34d9f7fc7184c4cdf16bc3e79d4e"


@given(digits=st.integers(0, 10**9), amount=st.integers(1, 10**8), day=st.integers(1, 31))
def test_figures_do_not_count(digits, amount, day):
    """Other numbers, amounts and days leave the campaign as it is."""
    assert _campaign(digits=str(digits), amount=f"£{amount / 100:,.2f}", date=f"{day} May 2027") == _campaign()


@given(name=st.from_regex(r"[A-Z][a-z]{2,12}( [A-Z]'?[A-Z][a-z]{1,12}){0,2}", fullmatch=True))
def test_the_name_does_not_count(name):
    """Whoever is greeted, and called by name later on, is in the same campaign."""
    assert _campaign(name=name) == _campaign()


@pytest.mark.parametrize(
    "name", ["O'Brien", "Mary-Jane", "von der Leyen", "Jürgen Groß", "Will Grace", "Bill", "Мария", "李明", "ngozi"]
)
def test_unusual_names_do_not_count(name):
    """Names of several words, of other scripts, in lower case, or that are words as well, are names all the same."""
    sent = BODY.format(**{**VALUES, "name": name})
    assert fingerprint(_mail(sent, To=f'"{name}" <x@elsewhere.example>')) == _campaign()


@given(token=st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-/?=", max_size=60))
def test_links_do_not_count(token):
    """What stands in a link for one recipient leaves the campaign as it is."""
    assert _campaign(token=token) == _campaign()


@pytest.mark.parametrize("promotion", PROMOTIONS)
def test_promotion_makes_another_campaign(promotion):
    """A paragraph that promotes is never covered by a decision on the same text without it."""
    assert fingerprint(_mail(BODY.format(**VALUES) + "\n" + promotion + "\n")) != _campaign()


@pytest.mark.parametrize("promotion", PROMOTIONS)
def test_promotion_in_a_page_makes_another_campaign(promotion):
    """The same in HTML, in a cell of a table."""
    page = "<p>Hello Anna,</p><p>You can see it whenever you like by signing in.</p>{}"
    without, with_it = (_mail(page.format(more), subtype="html") for more in ("", f"<td>{promotion}</td>"))
    assert fingerprint(with_it) != fingerprint(without)


def test_one_template_after_another_promotion_is_another():
    """Two promotions in one text make two campaigns."""
    bodies = [BODY.format(**VALUES) + "\n" + promotion + "\n" for promotion in PROMOTIONS]
    assert len({fingerprint(_mail(body)) for body in bodies}) >= len(PROMOTIONS) - 1  # the same words in capitals


@pytest.mark.parametrize("cte", ["8bit", "quoted-printable", "base64"])
def test_the_transfer_encoding_does_not_count(cte):
    """Text is text, however it was encoded."""
    assert fingerprint(_mail(BODY.format(**VALUES), cte=cte)) == _campaign()


def test_the_writing_of_tags_does_not_count():
    """White space, the case of tags, and attributes leave the campaign as it is."""
    page = "<p>You can see it whenever you like by signing in.</p><p>We never write full numbers into an email.</p>"
    other = page.replace("<p>", '\n <P  class="x">\r\n').replace("</p>", " </P>\n").replace("like by", "like\n   by")
    assert fingerprint(_mail(page, subtype="html")) == fingerprint(_mail(other, subtype="html")) != ""


def test_rows_do_not_count():
    """An order has other rows, in another order and number, and stays in its campaign."""
    page = "<p>We have received your order and will write again as soon as it leaves.</p><table>{}</table>"
    rows = ["<tr><td>2</td><td>wool socks</td><td>£9</td></tr>", "<tr><td>1</td><td>Blue Mug</td><td>£4</td></tr>"]
    several = [rows, rows[::-1], rows[:1], rows * 3]
    assert len({fingerprint(_mail(page.format("".join(listed)), subtype="html")) for listed in several}) == 1


def test_headers_that_name_a_campaign_do_not_count():
    """What a sender calls its campaign neither brings unlike texts together nor takes like ones apart."""
    named = {"X_Campaign": "spring", "List_ID": "<a.bank.example>", "Feedback_ID": "1:2:3:bank"}
    assert fingerprint(_mail(BODY.format(**VALUES), **named)) == _campaign()
    assert fingerprint(_mail("Get 20% off your first order.", **named)) != _campaign()


def test_two_senders_and_two_channels_never_share_a_campaign():
    """The domain of From counts, and so does the channel."""
    text = "You can see it whenever you like by signing in."
    other = fingerprint(_mail(BODY.format(**VALUES), From="Bank <post@other.example>"))
    assert other not in {_campaign(), ""}
    assert fingerprint(message_from_text(text, channel=Channel.SMS)) != fingerprint(
        message_from_text(text, channel=Channel.PUSH)
    )


def test_a_message_that_says_nothing_has_no_campaign():
    """Without words and links there is nothing to go by."""
    assert fingerprint(parse_message(b"")) == ""
    assert fingerprint(_mail("", subject="")) == ""


def test_pictures_are_known_by_where_they_lead():
    """A message of nothing but pictures is known by the hosts and plain first steps of its links."""
    page = '<a href="https://{}/c/{}"><img src="x.png"></a>'
    links = [("shop.example", "k1"), ("shop.example", "k2"), ("other.example", "k1")]
    first, same, other = (fingerprint(_mail(page.format(*link), subject="", subtype="html")) for link in links)
    assert first == same != other
    assert first


@pytest.mark.parametrize("name", CASES)
def test_hostile_messages_have_a_campaign_too(name):
    """Nothing that anybody sends raises, and what is no message may have no campaign."""
    assert re.fullmatch("([0-9a-f]{32})?", fingerprint(parse_message(CASES[name]()[:300_000])))


def test_damaged_messages_have_a_campaign_too():
    """Nor do damaged copies of messages, and their subjects can be shown."""
    for raw in chain(mutations(300), mutations(100, seed=7)):
        message = parse_message(raw)
        assert re.fullmatch("([0-9a-f]{32})?", fingerprint(message))
        assert len(masked_subject(message)) <= 120


@given(text=st.text(max_size=300), to=st.text(max_size=60), subject=st.text(max_size=300))
def test_any_text_has_a_campaign(text, to, subject):
    """No text, name or subject raises; the same message has the same campaign."""
    document = {"channel": "email", "from": "a@bank.example", "to": [to], "subject": subject, "text": text or "x"}
    message = message_from_json(document)
    assert fingerprint(message) == fingerprint(message)
    assert len(masked_subject(message)) <= 120


@pytest.mark.parametrize(
    ("subject", "to", "masked"),
    [
        ("Your order AB-1234 is on its way", "", "Your order … is on its way"),
        ("Anna, your bill of £12.50 is due 3 May", "", "…, your bill of … is due … May"),
        ("Hi Anna Maria, welcome", "", "Hi …, welcome"),
        ("A card for Anna O'Brien", "Anna O'Brien <a@x.example>", "A card for …"),
        ("News for anna.miller@x.example", "", "News for …"),
        ("Ready for Zoë's trip", "=?utf-8?q?Zo=C3=AB?= <z@x.example>", "Ready for … trip"),
        ("王小明，您的订单123已发货", "=?utf-8?b?546L5bCP5piO?= <w@x.example>", "…,您的订单…已发货"),
        ("Your statement is ready", "Will Reed <w@x.example>", "Your statement is ready"),
        ("word " * 60, "", None),
    ],
)
def test_subjects_are_shown_without_what_is_personal(subject, to, masked):
    """Numbers, addresses and the recipient's names are masked; what is left has at most 120 characters."""
    shown = masked_subject(_mail("x", subject=subject.strip(), To=to or "x@elsewhere.example"))
    assert shown == masked if masked else len(shown) == 120


def test_the_recipients_are_read():
    """A message knows its To field, decoded, from mail and from JSON; what is odd in it is no defect."""
    sent = _mail("x", To='"Anna Zoë" <a@x.example>, b@x.example')
    assert sent.to == "Anna Zoë <a@x.example>, b@x.example".replace("Anna Zoë", sent.to.partition(" <")[0])
    assert "Zoë" in sent.to
    assert message_from_json({"text": "x", "to": ["a@x.example", "b@x.example"]}).to == "a@x.example, b@x.example"
    assert message_from_json({"text": "x", "to": 7}).to == ""


def test_a_flood_of_long_texts_takes_no_memory() -> None:
    """What is remembered of texts is bounded in octets, not only in number."""
    chooser = random.Random(1)
    words = ["".join(chooser.choices(string.ascii_lowercase, k=8)) for _ in range(6000)]
    messages = []
    for _ in range(4):
        chooser.shuffle(words)
        sentences = [" ".join(words[start : start + 300]) + "." for start in range(0, 6000, 300)]
        messages.append(parse_message(b"From: a@b.example\r\n\r\n" + "\r\n\r\n".join(sentences).encode()))
    fingerprint(messages[0])
    tracemalloc.start()
    for message in messages[1:]:
        assert fingerprint(message)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1 << 20  # each message alone has three times as much to remember


@pytest.mark.parametrize("between", [" ", "\n\n"])
def test_a_long_message_is_known_by_its_beginning(between: str) -> None:
    """What stands behind `MAX_READ` characters does not count, so that no message takes long."""
    chooser = random.Random(2)
    words = ["".join(chooser.choices(string.ascii_lowercase, k=7)) for _ in range(MAX_READ // 8 + 100)]
    long = between.join(" ".join(words[start : start + 50]) + "." for start in range(0, len(words), 50))
    name = fingerprint(message_from_text(long, channel=Channel.EMAIL))
    assert name == fingerprint(message_from_text(f"{long}{between}Another word here.", channel=Channel.EMAIL))
    assert name != fingerprint(message_from_text(f"Another word here.{between}{long}", channel=Channel.EMAIL))

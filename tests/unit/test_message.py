"""Raw mail, JSON and text become one `Message` that says what a recipient reads and what nobody could read."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.hostile import CASES, mutations

from filter.errors import InputError
from filter.labels import Channel
from filter.labels import SegmentKind as K
from filter.markup import Page
from filter.message import Defect, DefectCode, message_from_json, message_from_text, parse_message
from filter.outline import MAX_TAGS
from filter.segments import clean
from filter.transfer import MAX_TEXT

HEAD = b"From: Bank <a@bank.example>\nSubject: Hello\n"


def plain(text, **headers):
    """A plain message with extra header fields."""
    extra = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items())
    return parse_message(HEAD + extra.encode() + b"Content-Type: text/plain; charset=utf-8\n\n" + text.encode())


def page(html):
    """A message of one HTML page."""
    return parse_message(HEAD + b"Content-Type: text/html; charset=utf-8\n\n" + html.encode())


def said(message):
    """Kind and text of every segment but sender and subject."""
    return [(segment.kind, segment.text) for segment in message.segments if segment.kind not in (K.SENDER, K.SUBJECT)]


def codes(message):
    """The defect codes."""
    return [defect.code for defect in message.defects]


def test_header_fields():
    """Subject, sender, id, evidence fields and the sender's own claim are decoded; other fields are not kept."""
    message = parse_message(
        b'From: "Bank, plc" <service@bank.example>\r\nTo: x@y.example\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n'
        b"Message-ID: <1@x.example>\r\nList-Unsubscribe: <https://u.example>\r\nX-Campaign-Id: oct\r\n"
        b"X-Category: servicing\r\n\r\nHi"
    )
    assert (message.subject, message.from_name, message.from_address) == ("Café", "Bank, plc", "service@bank.example")
    assert message.message_id == "<1@x.example>"
    assert dict(message.headers) == {"list-unsubscribe": ("<https://u.example>",), "x-campaign-id": ("oct",)}
    assert message.declared == "servicing"
    assert message.defects == ()


@pytest.mark.parametrize(
    ("value", "name", "address"),
    [
        ("a@x.example", "", "a@x.example"),
        ("Al <a@x.example>", "Al", "a@x.example"),
        ("=?utf-8?q?=C3=89lan?= <a@x.example>", "Élan", "a@x.example"),
        ('"A \\"B\\" <c>" <a@x.example>, d@x.example', 'A "B" <c>', "a@x.example"),
        ("a@x.example (Al)", "Al", "a@x.example"),
        ("", "", ""),
        ("(c) a@x.example", "c", "a@x.example"),
        ("(c (d)) Al <a@x.example> (e)", "Al", "a@x.example"),
        ('"A (b)" <a@x.example>', "A (b)", "a@x.example"),
        ("grp: a@x.example;", "", "a@x.example"),
        ("grp: a@x.example, b@x.example;", "", "a@x.example"),
        ("Al <a@b\u00fccher.example>", "Al", "a@b\u00fccher.example"),
    ],
)
def test_sender(value, name, address):
    """The first mailbox of From is read, however it is written."""
    message = parse_message(b"From: " + value.encode() + b"\n\nx")
    assert (message.from_name, message.from_address) == (name, address)


@pytest.mark.parametrize(
    "fields",
    [
        "From: a@x.example\nFrom: b@x.example",
        "From: a@x.example, b@x.example",
        "From: Al <a@x.example>, B <b@x.example>",
        "From : g: a@x.example, b@x.example;",
    ],
)
def test_the_first_of_several_senders_counts(fields):
    """Several senders are a defect, and the first is read."""
    message = parse_message(fields.encode() + b"\n\nx")
    assert (message.from_address, codes(message)) == ("a@x.example", [DefectCode.HEADER_MALFORMED])


def test_every_subject_is_judged():
    """A second Subject field is a segment too, so that nothing hides in it."""
    message = parse_message(b"Subject: Statement\nSubject: Save 20%\n\nx")
    assert [s.text for s in message.segments if s.kind is K.SUBJECT] == ["Statement", "Save 20%"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n\nc", [(K.PARAGRAPH, "a b"), (K.PARAGRAPH, "c")]),
        ("reply\n\n> old\n> text\nnew", [(K.PARAGRAPH, "reply"), (K.QUOTED, "old text"), (K.PARAGRAPH, "new")]),
        (
            "reply\n\nOn 1 May, A <a@x.example> wrote:\nold",
            [(K.PARAGRAPH, "reply"), (K.QUOTED, "On 1 May, A <a@x.example> wrote:"), (K.QUOTED, "old")],
        ),
        (
            "reply\n-----Original Message-----\nold",
            [(K.PARAGRAPH, "reply"), (K.QUOTED, "-----Original Message-----"), (K.QUOTED, "old")],
        ),
        ("text\n-- \nAnn\nBank", [(K.PARAGRAPH, "text"), (K.FOOTER, "Ann Bank")]),
        ("List:\n- a\n- b", [(K.PARAGRAPH, "List:"), (K.PARAGRAPH, "- a"), (K.PARAGRAPH, "- b")]),
        ("a\n____________________\nb", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b")]),
        ("a\n=====\nb", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b")]),
    ],
)
def test_plain_text(text, expected):
    """Wrapped lines join, blank lines and rulers separate, replies are quoted, a signature is footer."""
    assert said(plain(text)) == expected


def test_footer_is_told_apart():
    """Legal and unsubscribe lines at the end are footer, with the short neutral lines between them."""
    message = plain("Your bill is due.\n\nUnsubscribe\n\nHelp\n\nBank plc. Registered in England, number 1.")
    assert [kind for kind, _ in said(message)] == [K.PARAGRAPH, K.FOOTER, K.FOOTER, K.FOOTER]


@pytest.mark.parametrize(
    "hiding",
    [
        "Unsubscribe from missing out: save 20% on travel insurance today",
        "© 2026 Bank. Upgrade to Gold and enjoy exclusive rewards.",
        "New: travel insurance that covers the whole family wherever you go this summer.",
    ],
)
def test_promotion_does_not_pass_for_footer(hiding):
    """An offer among the footer lines stays a paragraph that is judged."""
    message = plain(f"Your bill is due.\n\n{hiding}\n\nRegistered office: 1 Example Street.")
    assert (K.PARAGRAPH, hiding) in said(message)


def test_promotion_below_a_signature_mark_is_judged():
    """An offer after "-- " stays a paragraph."""
    assert said(plain("text\n-- \nAnn\n\nSave 20% now")) == [
        (K.PARAGRAPH, "text"),
        (K.FOOTER, "Ann"),
        (K.PARAGRAPH, "Save 20% now"),
    ]


def test_hidden_preheader_comes_first():
    """Hidden text before the page is the preheader, its padding is no defect, and it is marked hidden."""
    message = page("<div style='display:none'>Your bill&zwnj;&nbsp;&zwnj;&nbsp;&zwnj;</div><p>Dear Al</p>")
    assert [(s.kind, s.text, s.hidden) for s in message.segments[2:]] == [
        (K.PREHEADER, "Your bill", True),
        (K.PARAGRAPH, "Dear Al", False),
    ]
    assert message.defects == ()


def test_words_cut_by_invisible_characters_are_joined_and_reported():
    """Zero-width characters inside words are removed and reported as obfuscation."""
    message = plain("S\u200ba\u200bv\u200be now")
    assert said(message) == [(K.PARAGRAPH, "Save now")]
    assert codes(message) == [DefectCode.OBFUSCATED]


@pytest.mark.parametrize("text", ["S\u0430v\u0435 now", "\u0412UY now", "sh\u03bfp now"])
def test_letters_of_another_script_inside_a_word_are_reported(text):
    """A word of Latin letters with look-alikes among them is obfuscation; the text stays as it was written."""
    message = plain(text)
    assert (said(message), codes(message)) == ([(K.PARAGRAPH, text)], [DefectCode.OBFUSCATED])


@pytest.mark.parametrize(
    "text", ["SMS\u043a\u0438", "TNF\u03b1 and NF-\u03baB", "C\u0431\u0435\u0440", "\u0421\u043e\u0440\u043e and so on"]
)
def test_words_of_two_scripts_are_no_obfuscation(text):
    """Endings, symbols and typing errors are usual, and so are texts in two scripts."""
    assert codes(plain(text)) == []


def test_halves_of_characters_are_replaced():
    """What cannot be encoded does not get into a message."""
    message = message_from_json(
        {"id": "a\udcff", "subject": "b\udcff", "text": "c\udcff https://x.example/\ud800", "from": "\udcff"}
    )
    found = message_from_text("c\udcff", channel=Channel.SMS, subject="\udcff")
    assert repr((message, found)).encode()
    assert [text for _, text, _ in found.segments] == ["\ufffd", "c\ufffd"]
    assert clean("a\udcff\ufb01") == "a\ufffdfi"
    raw = parse_message(b"Content-Type: x\xff/y; charset=\xff\n\nx")
    assert repr(raw).encode()
    assert all(defect.detail.isascii() for defect in raw.defects)


def test_text_is_normal():
    """Segments are NFC without line ends or controls; letters that only look different are read as letters."""
    message = plain("cafe\u0301\x07 \U0001d412\U0001d41a\U0001d42f\U0001d41e\u00ad now\u00a0!")
    assert said(message) == [(K.PARAGRAPH, "café Save now !")]


def alternative(text, html):
    """A message with a plain and an HTML alternative."""
    return parse_message(
        HEAD
        + b"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\n"
        + text.encode()
        + b"\n--b\nContent-Type: text/html; charset=utf-8\n\n"
        + html.encode()
        + b"\n--b--\n"
    )


def test_alternatives_count_once():
    """The plain alternative of a page adds nothing that the page says."""
    message = alternative("Dear Al,\n\nYour bill is 5 GBP.", "<p>Dear Al,</p><p>Your bill is £5.</p>")
    assert said(message) == [(K.PARAGRAPH, "Dear Al,"), (K.PARAGRAPH, "Your bill is £5.")]


def test_nothing_hides_in_an_alternative():
    """What only the plain alternative says is judged as well."""
    message = alternative("Your bill is due.\n\nSave twenty per cent on travel!", "<p>Your bill is due.</p>")
    assert (K.PARAGRAPH, "Save twenty per cent on travel!") in said(message)


def test_links_of_both_forms():
    """Links in text and page point at the segment that shows them, also after empty segments are dropped."""
    message = page("<p>&zwnj;</p><p>a</p><p><a href='https://X.example/a?b=1'>go</a></p>")
    (link,) = message.links
    assert (link.host, link.path, message.segments[link.segment].text) == ("x.example", "/a?b=1", "go")
    message = plain("one\n\nsee https://y.example/p.")
    (link,) = message.links
    assert (link.host, link.path, message.segments[link.segment].text) == (
        "y.example",
        "/p",
        "see https://y.example/p.",
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", [DefectCode.EMPTY]),
        (b"Content-Type: text/html\n\n<img src=x><img src=y>", [DefectCode.IMAGE_ONLY]),
        (b"Content-Type: text/html\n\n<img alt='Big summer sale'>", [DefectCode.IMAGE_ONLY]),
        (b"Content-Type: image/png\n\nx", [DefectCode.ATTACHMENT, DefectCode.IMAGE_ONLY]),
        (b"\n-----BEGIN PGP MESSAGE-----\nx", [DefectCode.ENCRYPTED]),
        (b"Content-Type: text/plain; charset=x-nobody\n\n\xff", [DefectCode.CHARSET_UNKNOWN]),
    ],
)
def test_what_nobody_read_is_visible(raw, expected):
    """Content that could not be judged is a defect that says so."""
    message = parse_message(raw)
    assert codes(message) == expected
    assert all(defect.unread for defect in message.defects)


def mixed(*parts):
    """A message of several parts, each with its own header."""
    return parse_message(
        HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + b"\n--b\n".join(parts) + b"\n--b--\n"
    )


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Type: text/plain\nContent-Disposition: attachment", b"Save now"),
        (b"Content-Type: text/html\nContent-Disposition: attachment; filename=a.html", b"<p>Save <b>now"),
        (b"Content-Type: text/markdown", b"Save now"),
        (b"Content-Type: application/octet-stream; name=a.HTML", b"<p>Save now"),
        (b'Content-Type: application/octet-stream\nContent-Disposition: attachment; filename="a.txt"', b"Save now"),
        (b"Content-Type: text/calendar", b"BEGIN:VCALENDAR\nSUMMARY;LANGUAGE=en:Sa\n ve now\nEND:VCALENDAR"),
        (b"Content-Type: application/x; name=a.ics", b"BEGIN:VEVENT\nDESCRIPTION:Save now\n"),
    ],
)
def test_text_is_read_whatever_it_is_called(header, body):
    """Every text part is read, attached or not, and so is a file whose name says that it is text; it comes last."""
    message = mixed(header + b"\n\n" + body, b"Content-Type: text/plain\n\nDear Alex, see below.")
    assert sorted(text for _, text in said(message)) == ["Dear Alex, see below.", "Save now"]
    assert message.defects == ()


def test_text_in_a_code_of_its_own_is_not_an_attachment():
    """RTF is text that nobody read, which no evidence of service excuses as it does an attachment."""
    message = mixed(b"Content-Type: text/plain\n\nHello", b"Content-Type: text/rtf\n\n{\\rtf1 Save}")
    assert message.defects == (Defect(DefectCode.TEXT_UNREAD, "text/rtf"),)
    assert message.defects[0].unread


def test_attached_text_does_not_hide_the_footer():
    """The footer is that of the text, not of the file after it."""
    message = mixed(
        b"Content-Type: text/plain\n\nYour bill is due.\n\nUnsubscribe",
        b"Content-Type: text/plain\nContent-Disposition: attachment\n\nThe terms of the account follow on this page.",
    )
    assert [kind for kind, _ in said(message)] == [K.PARAGRAPH, K.FOOTER, K.PARAGRAPH]


GREETING = "<p>Hello Alex, please see the picture below</p>"
LETTER = "<p>" + "Your statement for October is ready and you can read it in the app. " * 3 + "</p>"


@pytest.mark.parametrize(
    ("html", "pictured"),
    [
        (GREETING + "<a href='https://x.example/sale'><img width=600 height=900></a>", True),
        (GREETING + "<img src=x>", True),
        (GREETING + "<img width=1 style='width:600px'>", True),
        (GREETING + "<img width=100% style='max-width:120px'>", False),
        (GREETING + "<a href='https://x.example/sale'>\n<img width=728 height=90></a>", True),
        (GREETING + "<img width=600 height=80>", False),
        (GREETING + "<img width=120 height=40><img width=32 height=32>", False),
        (GREETING + "<img width=150 height=150>" * 9, True),
        (GREETING + "<img src=x width=1 height=1>", False),
        (GREETING + "<table background='https://x.example/p.png'><tr><td></table>", True),
        (GREETING + "<div style='background: #fff url(https://x.example/p.png)'></div>", True),
        (GREETING + "<style>@font-face{src:url(x.woff)}</style>", False),
        (GREETING + LETTER + "<img width=600 height=900>", False),
        ("<p>Hi</p><img width=120 height=40>", True),
    ],
)
def test_a_picture_that_may_be_the_message(html, pictured):
    """Few words beside a picture large enough to be read, in pieces or behind the page, leave the message unread."""
    assert (DefectCode.IMAGE_ONLY in codes(page(html))) is pictured


@pytest.mark.parametrize("header", [b"", b"Content-ID: <1@x>\n", b"Content-Disposition: inline\n"])
def test_a_picture_after_the_text_may_be_the_message(header):
    """An inline picture that no page shows is shown below the text."""
    message = mixed(b"Content-Type: text/plain\n\nHello, see below", b"Content-Type: image/png\n" + header + b"\nx")
    assert DefectCode.IMAGE_ONLY in codes(mixed(b"\nSee the picture below here", b"Content-Type: image/png\n\nx"))
    assert DefectCode.IMAGE_ONLY in codes(message)


def test_the_name_of_the_sender_is_judged():
    """What a list of messages shows first is the first segment."""
    message = parse_message(b'From: "SAVE 50% in our sale, shop now" <a@bank.example>\nSubject: s\n\nx')
    assert message.segments[0] == (K.SENDER, "SAVE 50% in our sale, shop now", False)
    given = message_from_json({"from": "Sale <a@bank.example>", "text": "x"})
    assert [kind for kind, _, _ in given.segments] == [K.SENDER, K.PARAGRAPH]
    assert codes(parse_message(b"From: Sale <a@bank.example>\n\n")) == [DefectCode.EMPTY]


def test_charset_of_a_page_may_stand_in_it():
    """Without a charset parameter, the page's own <meta> counts."""
    message = parse_message(b"Content-Type: text/html\n\n<meta charset=koi8-r><p>" + "привет".encode("koi8-r"))
    assert said(message) == [(K.PARAGRAPH, "привет")]


def test_json_gives_the_same_message():
    """A JSON message reads like the mail it stands for."""
    message = message_from_json(
        {"id": "7", "channel": "email", "from": "Bank <a@bank.example>", "subject": "Hello", "html": "<p>Dear Al</p>"}
    )
    mail = page("<p>Dear Al</p>")
    assert (message.segments, message.from_name, message.from_address) == (
        mail.segments,
        mail.from_name,
        mail.from_address,
    )
    assert message.message_id == "7"


def test_json_claims_and_headers():
    """`declared` wins over headers that claim; evidence headers are kept, names lower-case."""
    document = {"text": "x", "headers": {"X-Category": "service", "List-Id": ["a"], "To": "b"}}
    message = message_from_json(document)
    assert (message.declared, dict(message.headers)) == ("service", {"list-id": ("a",)})
    assert message_from_json({**document, "declared": "marketing"}).declared == "marketing"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ("text", "html or subject")),
        ({"text": 5}, ("text", "int", "string")),
        ({"text": "x", "channel": "fax"}, ("channel", "fax", "email, sms")),
        ({"text": "x", "channel": []}, ("channel", "email, sms")),
        ({"text": "x", "headers": "y"}, ("headers", "str", "object")),
        ({"text": "x", "headers": {"a": 1}}, ("headers.a", "int", "string")),
        ({"text": "x", "headers": {"x-category": []}}, ("headers.x-category", "string")),
    ],
)
def test_json_in_another_form_is_refused(document, words):
    """The error names the field, what was given and what is allowed."""
    with pytest.raises(InputError) as caught:
        message_from_json(document)
    assert all(word in str(caught.value) for word in words)


def test_text_message():
    """An SMS is a message of paragraphs on its channel."""
    message = message_from_text("Your code is 1234", channel=Channel.SMS)
    assert (message.channel, said(message), message.subject) == (Channel.SMS, [(K.PARAGRAPH, "Your code is 1234")], "")


@pytest.mark.parametrize("name", CASES)
def test_hostile_messages_are_read_within_bounds(name):
    """No hostile message needs the last-resort guard, and what is kept of it is bounded by the caps."""
    message = parse_message(CASES[name]())
    assert DefectCode.INTERNAL not in codes(message)
    assert sum(len(segment.text) for segment in message.segments) <= 2 * MAX_TEXT
    assert len(message.segments) <= 2 * MAX_TAGS
    assert len(message.defects) <= 100


def test_mutated_messages_are_read():
    """A few hundred damaged messages, always the same ones, need no last-resort guard (fuzz_message.py runs more)."""
    for octets in mutations(500):
        assert DefectCode.INTERNAL not in codes(parse_message(octets)), base64.b64encode(octets)


@given(st.binary(max_size=2_000))
def test_any_octets_are_read(octets):
    """Whatever the octets, there is a message, its links point into it, and its text is clean."""
    message = parse_message(octets)
    assert DefectCode.INTERNAL not in codes(message)
    assert all(-1 <= link.segment < len(message.segments) for link in message.links)
    assert all(text == " ".join(text.split()) != "" for _, text, _ in message.segments)


@given(st.text(max_size=500))
def test_any_text_is_read(text):
    """Whatever the characters, text in JSON is read."""
    assert DefectCode.INTERNAL not in codes(message_from_json({"text": text, "html": text, "subject": "s"}))


def test_a_fault_of_ours_is_visible(monkeypatch):
    """Should reading fail in a way nobody foresaw, the message says so instead of stopping the flow."""

    def fail(_html: bytes) -> Page:
        raise RuntimeError

    monkeypatch.setattr("filter.message.read_page", fail)
    assert page("<p>x").defects == (Defect(DefectCode.INTERNAL, "RuntimeError"),)

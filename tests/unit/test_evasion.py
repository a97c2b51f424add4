"""Ways to hide a promotion from a filter: octets in, label out, with the shipped rules.

What a reader sees is what is judged. Where that cannot be had, the message is in doubt, and so not simply service:
those are named here too, so that nobody takes them for found (config/README.md lists them).
"""

import base64
import dataclasses
import quopri

import pytest

from filter.classify import Classifier
from filter.consent import ConsentState
from filter.labels import Label
from filter.learned import NOTHING_LEARNED
from filter.message import DefectCode, parse_message
from filter.policy import Disposition, Policy, Reason, decide

from .test_policy import answer

PROMOTION = "Get 20% off your next order this weekend."
MORE = "Shop now and save up to 50%. Free gift with every order."
SERVICE = "Your order 4417 has been dispatched and will arrive on Tuesday."
CYRILLIC = str.maketrans("aeocpxy", "\u0430\u0435\u043e\u0441\u0440\u0445\u0443")
CYRILLIC_SALE = "\u0405\u0430\u04cf\u0435"
HYPHEN = "\u00ad"


def mail(body: str | bytes, *, subject: str = "News", kind: str = "text/plain; charset=utf-8", more: str = "") -> bytes:
    """A message with one body."""
    head = (
        f"From: Shop <shop@x.example>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n{more}\r\n"
    )
    return head.encode() + (body.encode() if isinstance(body, str) else body) + b"\r\n"


def page(body: str) -> bytes:
    """A message with a page only."""
    return mail(body, kind="text/html; charset=utf-8")


def part(body: str, kind: str = "text/plain; charset=utf-8", more: str = "") -> str:
    """A part of a multipart message."""
    return f"Content-Type: {kind}\r\n{more}\r\n{body}"


def parts(kind: str, *entities: str) -> bytes:
    """A multipart message."""
    body = "".join(f"--cut\r\n{entity}\r\n" for entity in entities) + "--cut--\r\n"
    return mail(body, kind=f"multipart/{kind}; boundary=cut")


def full_width(text: str) -> str:
    """The text in full-width letters, figures and signs."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def bold(text: str) -> str:
    """The text in letters and figures of mathematics."""
    shift = {**dict.fromkeys(range(65, 91), 0x1D400 - 65), **dict.fromkeys(range(97, 123), 0x1D41A - 97)}
    shift |= dict.fromkeys(range(48, 58), 0x1D7CE - 48)
    return "".join(chr(ord(char) + shift.get(ord(char), 0)) for char in text)


def spelled(text: str, between: str = " ", words: str = "  ") -> str:
    """The text letter by letter."""
    return words.join(between.join(word) for word in text.split())


def in_cells(*texts: str) -> str:
    """A table with one row."""
    return f"<table><tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr></table>"


READ = {
    "zero-width space in words": mail(PROMOTION.replace("ff", "f\u200bf").replace("order", "or\u200bder")),
    "zero-width joiner between all letters": mail("\u200d".join(PROMOTION)),
    "zero-width space as an entity": page(f"<p>{'&#8203;'.join(PROMOTION)}</p>"),
    "soft hyphen": mail(PROMOTION.replace("ff", f"f{HYPHEN}f").replace("order", f"or{HYPHEN}der")),
    "soft hyphen as an entity": page("<p>Get 20% o&shy;ff your next or&shy;der</p>"),
    "place to break a word": page("<p>Get 20% o<wbr>ff your next or<wbr>der</p>"),
    "letters of another script in words": mail(PROMOTION.translate(CYRILLIC)),
    "whole words in another script": mail(f"{CYRILLIC_SALE} ends Sunday: half price"),
    "full-width letters": mail(full_width(PROMOTION)),
    "letters of mathematics": mail(bold(PROMOTION)),
    "small capitals": mail("\u0262\u1d07\u1d1b 20% \u1d0f\u0493\u0493 your next order"),
    "white on black letters": mail("\U0001f175\U0001f181\U0001f174\U0001f174 gift with every order"),
    "letters struck through": mail("".join(f"{char}\u0336" for char in PROMOTION)),
    "spaced letters": mail("F R E E  g i f t with every order"),
    "spaced letters throughout": mail(spelled("Get a free gift with every order")),
    "hard spaces between letters": page(f"<p>{spelled('Free gift', '&nbsp;', ' &nbsp; ')} with every order</p>"),
    "dashes between letters": mail(f"Our {spelled('SALE', '-')} is on: save up to half"),
    "dots between letters": mail("Our S.A.L.E is on: half price"),
    "text of a picture": page(f'<p>Hello</p><img src="x" alt="{PROMOTION}"><p>See you</p>'),
    "text of a linked picture": page(f'<p>Hello</p><a href="https://x.example/"><img src="x" alt="{PROMOTION}"></a>'),
    "title of a picture": page(f'<p>Hello</p><img src="x" alt="Shop" title="{PROMOTION}"><p>See you</p>'),
    "part of a picture": page(f'<p>Hello</p><map name="m"><area href="https://x.example/" alt="{PROMOTION}"></map>'),
    "title of a link": page(f'<p>Hello</p><a href="https://x.example/" title="{PROMOTION}">here</a><p>See you</p>'),
    "text in a drawing": page(f"<p>Hello</p><svg><text>{PROMOTION}</text></svg><p>See you</p>"),
    "pieces of text in a drawing": page(
        "<p>Hello</p><svg><text><tspan>Get 20%</tspan> <tspan>off your next order</tspan></text></svg>"
    ),
    "comment in a word": page("<p>Get 20% o<!-- x -->ff your next or<!-- y -->der</p>"),
    "tags in words": page("<p><b>S</b>ale: <i>2</i>0<u>%</u> <span>o</span>ff ev<b>ery</b>thing</p>"),
    "words over two links": page("<a href='https://x.example/'>Get 20%</a> <a href='https://x.example/'>off shoes</a>"),
    "line breaks": page("<p>Get 20%<br>off your<br>next order</p>"),
    "hidden text": page(f'<p>{SERVICE}</p><p style="display:none">{PROMOTION}</p>'),
    "white on white": page(f'<p>{SERVICE}</p><p style="color:#fff">{PROMOTION}</p>'),
    "encoded subject": mail("Hello", subject=f"=?utf-8?B?{base64.b64encode(PROMOTION.encode()).decode()}?="),
    "subject encoded in pieces": mail("Hello", subject="=?utf-8?Q?Get_20=25_o?=\r\n =?utf-8?Q?ff_your_next_order?="),
    "base64": mail(base64.b64encode(PROMOTION.encode()), more="Content-Transfer-Encoding: base64\r\n"),
    "quoted-printable": mail(
        quopri.encodestring(PROMOTION.encode()).replace(b"off", b"=6F=66=\r\n=66"),
        more="Content-Transfer-Encoding: quoted-printable\r\n",
    ),
    "in the plain text only": parts("alternative", part(PROMOTION), part(f"<p>{SERVICE}</p>", "text/html")),
    "in the page only": parts("alternative", part(SERVICE), part(f"<p>{PROMOTION}</p>", "text/html")),
    "attached text": parts(
        "mixed", part(SERVICE), part(PROMOTION, "text/plain", "Content-Disposition: attachment; filename=a.txt\r\n")
    ),
    "page under another type": parts(
        "mixed", part(SERVICE), part(f"<p>{PROMOTION}</p>", "application/octet-stream; name=a.html")
    ),
    "attached message": parts("mixed", part(SERVICE), part(f"Subject: x\r\n\r\n{PROMOTION} {MORE}", "message/rfc822")),
    "forwarded part": mail(
        f"{SERVICE}\r\n\r\n-----Original Message-----\r\nFrom: c@x.example\r\n\r\n{PROMOTION} {MORE}"
    ),
    "calendar part": parts(
        "mixed",
        part(SERVICE),
        part(f"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:{PROMOTION}\r\nEND:VEVENT\r\nEND:VCALENDAR", "text/calendar"),
    ),
    "reminder of a calendar part": parts(
        "mixed",
        part(SERVICE),
        part(
            f"BEGIN:VCALENDAR\r\nBEGIN:VALARM\r\nDESCRIPTION:{PROMOTION}\r\nEND:VALARM\r\nEND:VCALENDAR",
            "text/calendar",
        ),
    ),
    "below 3,000 paragraphs": mail(
        "\r\n\r\n".join(["This is a line about nothing at all."] * 3000) + f"\r\n\r\n{PROMOTION}"
    ),
    "below 5,000 blank lines": mail("Hello" + "\r\n" * 5000 + PROMOTION),
    "below a quoted reply": mail(f"{SERVICE}\r\n\r\n> as you wrote\r\n\r\n{PROMOTION}"),
    "below the head of a reply": mail(f"{SERVICE}\r\n\r\nOn Monday, Ann wrote:\r\n\r\n{PROMOTION} {MORE}"),
    "in a signature": mail(f"{SERVICE}\r\n\r\n-- \r\nShop Ltd\r\n\r\n{PROMOTION}"),
    "in a footer": mail(f"{SERVICE}\r\n\r\nUnsubscribe. {PROMOTION} Shop Ltd, registered office 1 Street."),
    "in the footer of a page": page(f"<p>{SERVICE}</p><p>Unsubscribe. {PROMOTION} {MORE}</p>"),
}


@pytest.mark.parametrize("raw", READ.values(), ids=READ.keys())
def test_what_a_reader_sees_is_judged(classifier: Classifier, raw: bytes) -> None:
    """The promotion is found in spite of its disguise, and the message is held from who has not agreed."""
    judged = classifier.classify(parse_message(raw))
    assert judged.label.promotional
    assert decide(judged, answer(ConsentState.UNKNOWN), Policy()).disposition is Disposition.HOLD


DOUBTED = {
    "letters in the other direction": (mail(f"\u202e{PROMOTION[::-1]}\u202c"), DefectCode.OBFUSCATED),
    "the same by an element": (page(f'<p><bdo dir="rtl">{PROMOTION[::-1]}</bdo></p>'), DefectCode.OBFUSCATED),
    "the same by style": (
        page(f'<p style="unicode-bidi:bidi-override;direction:rtl">{PROMOTION[::-1]}</p>'),
        DefectCode.OBFUSCATED,
    ),
    "letters in a row without words": (mail(spelled(PROMOTION, words=" ")), DefectCode.OBFUSCATED),
    "a picture": (page('<img src="https://x.example/sale.png" width="600">'), DefectCode.IMAGE_ONLY),
    "a picture under a line": (
        page('<p>Hello Ann</p><img src="https://x.example/s.png" width="600">'),
        DefectCode.IMAGE_ONLY,
    ),
    "far too much text before it": (mail("lorem " * 300_000 + PROMOTION), DefectCode.TEXT_TOO_LARGE),
}


@pytest.mark.parametrize(("raw", "code"), DOUBTED.values(), ids=DOUBTED.keys())
def test_what_cannot_be_read_is_in_doubt(classifier: Classifier, raw: bytes, code: DefectCode) -> None:
    """What nobody could judge says so by its own code, and is held from who has not agreed, as doubtful and not as
    promotional.
    """
    judged = classifier.classify(parse_message(raw))
    assert code in {defect.code for defect in judged.message.defects}
    verdict = decide(judged, answer(ConsentState.UNKNOWN), Policy())
    assert (verdict.disposition, verdict.reason) == (
        Disposition.HOLD,
        Reason.UNSURE if code is DefectCode.OBFUSCATED else Reason.UNREAD_CONTENT,
    )
    assert decide(judged, answer(ConsentState.CONSENT), Policy()).disposition is Disposition.RELAY


def test_a_comment_neither_adds_nor_hides(classifier: Classifier) -> None:
    """Nobody reads comments: promotion in one is none, service in one is no purpose, and text after one is text."""
    quiet = classifier.classify(parse_message(page(f"<p>{SERVICE}</p><!-- {PROMOTION} {MORE} --><p>See you</p>")))
    assert quiet.label is Label.SERVICE
    loud = classifier.classify(parse_message(page(f"<!-- {SERVICE} --><p>{PROMOTION}</p><!-- --><p>See you</p>")))
    assert loud.label is Label.MARKETING


@pytest.mark.parametrize(
    "text",
    [
        "Your parcel from D R O G I S T E R I J will arrive on Tuesday.",
        "Y O U R   O R D E R   H A S   B E E N   D I S P A T C H E D",
        "Please choose: A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        "On a scale of 1 2 3 4 5, and e.g. i.e. a b or c.",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u0432\u0430\u0448 \u0437\u0430\u043a\u0430\u0437 4417",
        "The dose is 5 \u03bcg \u03b1 a day.",
    ],
)
def test_what_looks_like_a_disguise_is_none(classifier: Classifier, text: str) -> None:
    """Names and headings in spaced letters, alphabets, scales and other scripts are neither promotion nor doubt."""
    judged = classifier.classify(parse_message(mail(text)))
    assert not judged.label.promotional
    assert not judged.obfuscated


UNREAD = {
    "words cut over cells": page(in_cells("Get 20%", "off your next order")),
    "letters in cells": page(in_cells(*"SALE", *"NOW")),
    "figures for letters": mail("G3t 20% 0ff y0ur n3xt 0rd3r"),
    "text for Outlook only": page(f"<p>{SERVICE}</p><!--[if mso]><p>{PROMOTION}</p><![endif]-->"),
    "text of a style sheet": page(f'<style>p:after{{content:"{PROMOTION}"}}</style><p>{SERVICE}</p>'),
    "title of a paragraph": page(f'<p title="{PROMOTION}">{SERVICE}</p>'),
    "one sentence in a quotation": mail(f"{SERVICE}\r\n\r\n> {PROMOTION}"),
}


@pytest.mark.parametrize("raw", UNREAD.values(), ids=UNREAD.keys())
def test_what_the_rules_do_not_find(classifier: Classifier, raw: bytes) -> None:
    """Known limits of the rules (config/README.md): a test that fails here has good news, and belongs above."""
    rules = Classifier(dataclasses.replace(classifier.rules, learned=NOTHING_LEARNED))
    assert rules.classify(parse_message(raw)).label is Label.SERVICE

"""Records of the input topic: what they are read as, and what makes a dead letter of them."""

import dataclasses
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kafka_records import LIMITS, Record, json_record, record

from filter.envelope import RcptTo
from filter.kafka_records import Outbound, Poison, PoisonCode, read
from filter.labels import Channel
from filter.message import message_from_json, message_from_text, parse_message
from filter.stream import Said

JOURNAL = Path(__file__).parents[2] / "deploy" / "journal.md"
MAIL = b"From: Bank <news@bank.example>\r\nSubject: News\r\n\r\nHello there.\r\n"
DOCUMENT = {"id": "1", "channel": "email", "from": "news@bank.example", "to": ["ann@x.example"], "text": "Hello."}


def outbound(given: Record) -> Outbound:
    """What a good record is read as."""
    found = read(given, LIMITS)
    assert isinstance(found, Outbound), found
    return found


def test_mail_is_read_as_at_the_smtp_door() -> None:
    """RFC 5322 octets are the message; envelope and scope stand in the record headers."""
    found = outbound(
        record(MAIL, "ann@x.example", "Bob@Y.example", mail_from="a@bank.example", brand="gold", topic="offers")
    )
    assert found.message == parse_message(MAIL)
    assert (found.mail.address, found.sender_known) == ("a@bank.example", True)
    assert [one.address for one in found.recipients] == ["ann@x.example", "Bob@Y.example"]
    assert found.said == Said(brand="gold", topic="offers")


def test_a_json_message_is_read_as_everywhere() -> None:
    """Without record headers all is in the document, but for the envelope sender, whom nobody told."""
    found = outbound(json_record({**DOCUMENT, "controller": "bank"}))
    assert found.message == message_from_json({**DOCUMENT, "controller": "bank"})
    assert not found.sender_known
    assert found.recipients == (RcptTo(b"ann@x.example"),)
    assert found.said == Said(controller="bank")


@pytest.mark.parametrize("channel", ["sms", "push"])
def test_other_channels(channel: str) -> None:
    """Text of other channels comes as JSON or as plain text, to addresses of that channel; none has a null sender."""
    text = "Colon: 20 % off\nall shoes"
    plain = outbound(record(text.encode(), "+447700900123", channel=channel, mail_from=""))
    assert plain.message == message_from_text(text, channel=Channel(channel))
    assert not plain.sender_known
    found = outbound(json_record({"channel": channel, "to": ["+447700900123"], "text": text}))
    assert found.message.channel == channel
    assert found.recipients == plain.recipients == (RcptTo(b"+447700900123"),)


def test_the_null_sender_is_one_that_was_named() -> None:
    """An empty mail_from is the null sender; none at all says nothing, and is nobody's report."""
    assert [
        outbound(record(MAIL, "a@x.example", mail_from=text)).mail.path for text in ("", "<>", "<b@c.example>")
    ] == [
        b"",
        b"",
        b"b@c.example",
    ]
    assert outbound(record(MAIL, "a@x.example", mail_from="")).sender_known
    assert not outbound(record(MAIL, "a@x.example")).sender_known


def test_a_content_type_says_what_a_value_is() -> None:
    """A header field may begin with a brace, and plain text may look like mail."""
    odd = b"{odd}: field\r\n" + MAIL
    assert outbound(record(odd, "a@x.example", content__type="message/rfc822")).message == parse_message(odd)
    text = outbound(record(MAIL, "a@x.example", content__type="text/plain; charset=utf-8")).message
    assert text == message_from_text(MAIL.decode(), channel=Channel.EMAIL)
    spaced = Record(b"\r\n " + orjson.dumps(DOCUMENT))
    assert outbound(spaced).message == message_from_json(DOCUMENT)


def test_the_declaration_of_a_record_header_wins() -> None:
    """What the producer says a message is takes the place of what its own header fields say."""
    mail = b"X-Message-Type: newsletter\r\n" + MAIL
    assert outbound(record(mail, "a@x.example")).message.declared == "newsletter"
    assert outbound(record(mail, "a@x.example", declared="service")).message.declared == "service"
    assert outbound(json_record(DOCUMENT, declared="service")).message.declared == "service"


def test_agreeing_twice_is_no_conflict() -> None:
    """Record headers may repeat what the document says, in any order, and name each recipient once or more."""
    document = {**DOCUMENT, "to": ["Ann <ann@x.example>", "bob@y.example"], "brand": "gold", "topic": ""}
    found = outbound(
        json_record(document, "bob@y.example", "ann@x.example", "bob@y.example", brand="gold", topic="offers")
    )
    assert [one.address for one in found.recipients] == ["bob@y.example", "ann@x.example"]
    assert found.said == Said(brand="gold", topic="offers")


def test_one_recipient_may_stand_without_a_list() -> None:
    """`to` may be a string."""
    assert outbound(json_record({**DOCUMENT, "to": "ann@x.example"})).recipients == (RcptTo(b"ann@x.example"),)


BAD = {
    PoisonCode.NULL_VALUE: [Record(None)],
    PoisonCode.EMPTY: [Record(b""), Record(b" \r\n\t")],
    PoisonCode.TOO_LARGE: [record(b"A: b\r\n\r\n" + b"x" * 100_000, "a@x.example")],
    PoisonCode.BAD_JSON: [
        record(b'{"to": ["a@x.example"]', "a@x.example"),
        record(b"[]", content__type="application/json"),
        record(b"\xef\xbb\xbf{}"),
        record(b'{"text": "\xff"}'),
    ],
    PoisonCode.BAD_FIELD: [
        json_record({**DOCUMENT, "text": 5}),
        json_record({**DOCUMENT, "to": [7]}),
        json_record({**DOCUMENT, "to": {"a": 1}}),
        json_record({**DOCUMENT, "controller": "*"}),
        json_record({"to": ["a@x.example"]}),
        record(MAIL, "a@x.example", topic=" offers"),
        record(MAIL, "a@x.example", brand="x" * 65),
        record(MAIL, "a@x.example", content__type="application/avro"),
        Record(MAIL, (("rcpt_to", b"\xff@x.example"),)),
    ],
    PoisonCode.BAD_MIME: [record(b"\x00\x00\x00\x01\x0cHello", "a@x.example"), record(b"just words", "a@x.example")],
    PoisonCode.BAD_TEXT: [record(b"20\xa3 off", "+447700900123", channel="sms")],
    PoisonCode.UNKNOWN_CHANNEL: [
        json_record({**DOCUMENT, "channel": "fax"}),
        json_record({**DOCUMENT, "channel": ["email"]}),
        record(MAIL, "a@x.example", channel="Email"),
    ],
    PoisonCode.HEADER_CONFLICT: [
        json_record(DOCUMENT, "bob@x.example"),
        json_record(DOCUMENT, "ann@x.example", "bob@x.example"),
        json_record(DOCUMENT, channel="sms"),
        json_record({**DOCUMENT, "brand": "gold"}, brand="silver"),
        json_record({**DOCUMENT, "declared": 5}, declared="service"),
        Record(MAIL, (("rcpt_to", b"a@x.example"), ("topic", b"one"), ("topic", b"two"))),
    ],
    PoisonCode.NO_RECIPIENT: [Record(MAIL), json_record({**DOCUMENT, "to": []})],
    PoisonCode.BAD_RECIPIENT: [
        record(MAIL, "nobody"),
        record(MAIL, "a@x.example\r\nRCPT TO:<b@x.example>"),
        record(MAIL, "a@x.example> NOTIFY=NEVER"),
        record(MAIL, "a@x.example", ""),
        json_record({"channel": "sms", "to": ["+44\n77"], "text": "hi"}),
    ],
    PoisonCode.BAD_SENDER: [record(MAIL, "a@x.example", mail_from="a b@x.example")],
    PoisonCode.TOO_MANY_RECIPIENTS: [record(MAIL, *[f"{number}@x.example" for number in range(51)])],
    PoisonCode.TOO_MANY_HEADERS: [Record(MAIL, (("x", b"y"),) * 251)],
}


@pytest.mark.parametrize(("code", "bad"), [(code, bad) for code, each in BAD.items() for bad in each])
def test_poison(code: PoisonCode, bad: Record) -> None:
    """What cannot be judged has a code, and words that quote neither addresses nor text."""
    found = read(bad, LIMITS)
    assert isinstance(found, Poison)
    assert found.code is code
    assert found.detail
    assert "@" not in found.detail


def test_every_code_has_its_case() -> None:
    """The cases above leave out only what needs two dead workers, is of another topic, or does not come so far."""
    assert set(BAD) == set(PoisonCode) - {PoisonCode.DIED_JUDGING, PoisonCode.BAD_HELD, PoisonCode.UNREADABLE}


def test_every_code_is_explained() -> None:
    """deploy/journal.md lists the codes of dead letters."""
    listed = JOURNAL.read_text().partition("`error` of a dead letter is one of:")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(PoisonCode)


def test_damaged_mail_is_no_poison() -> None:
    """Mail that can be read in part is judged, with its defects."""
    broken = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n!!\r\n"
    assert outbound(record(broken, "a@x.example")).message.defects


@given(
    st.one_of(st.none(), st.binary(max_size=300), st.binary(max_size=100).map(lambda octets: b'{"text":"' + octets)),
    st.lists(
        st.tuples(
            st.sampled_from(["rcpt_to", "mail_from", "channel", "topic", "declared", "content-type", "other"]),
            st.one_of(
                st.none(), st.binary(max_size=30), st.sampled_from([b"email", b"sms", b"a@x.example", b"text/plain"])
            ),
        ),
        max_size=6,
    ),
)
def test_nothing_raises(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    """Whatever a producer writes is a message or poison, and the same each time."""
    given_record = dataclasses.replace(Record(value), headers=tuple(headers))
    assert read(given_record, LIMITS) == read(given_record, LIMITS)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*DOCUMENT, "html", "headers", "brand", "declared"], _JSON)))
def test_no_json_raises(document: dict[str, object]) -> None:
    """Whatever a JSON document holds is a message or poison."""
    assert read(json_record(document, "ann@x.example", brand="gold"), LIMITS)

"""Records of held copies: what the Kafka door writes comes back as the hold store takes it, and nothing else does."""

from dataclasses import replace
from io import StringIO

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.kafka_records import LIMITS, Record, json_record, judge, record
from support.release import CLASSIFIER
from support.world import PROMOTION, World

from filter import app
from filter.cli_query import subjects
from filter.config import load_config
from filter.held_content import ReleaseTo, goes_by_smtp, read_message
from filter.held_documents import held_document
from filter.held_view import message_page
from filter.kafka_held import dead_letter, read_held
from filter.kafka_records import Poison, PoisonCode, read
from filter.labels import Channel
from filter.policy import Disposition
from filter.ports import HeldMessage

HOLD, REJECT, RELAY = "hold.1@x.example", "reject.1@x.example", "relay.1@x.example"


def held_records(incoming: Record) -> list[Record]:
    """What the door writes to the topic of held copies."""
    outputs = [one for one in judge(World()).judge(incoming).outputs if one.suffix == "held"]
    return [Record(one.value, tuple(one.headers), one.key, "outbound.held", 0, at) for at, one in enumerate(outputs)]


def held(incoming: Record) -> HeldMessage:
    """The one message that it becomes."""
    (found,) = [read_held(one) for one in held_records(incoming)]
    assert isinstance(found, HeldMessage)
    return found


def test_what_was_judged_comes_back() -> None:
    """Octets, key, headers, verdict and facts are those of the door; recipients of other copies are left out."""
    incoming = record(PROMOTION, RELAY, HOLD, mail_from="a@bank.example", declared="service", trace="t")
    message = held(incoming)
    assert (message.content, message.kafka.key, message.mail.path) == (PROMOTION, b"key", b"a@bank.example")
    assert dict(message.kafka.headers) == {"mail_from": b"a@bank.example", "declared": b"service", "trace": b"t"}
    assert (message.label, message.declared, message.controller) == ("marketing", "service", "bank")
    assert orjson.loads(message.facts)["label"] == "marketing"
    (copy,) = message.copies
    assert (copy.recipient.path, copy.disposition, copy.state) == (HOLD.encode(), Disposition.HOLD, "soft_opt_in")
    assert copy.subject_key
    assert not message.null_sender


def test_rejected_copies_have_a_queue_id_of_their_own() -> None:
    """Both records of one message are stored, each under its own id, that of the message and "r" behind it."""
    one, other = [read_held(found) for found in held_records(record(PROMOTION, HOLD, REJECT))]
    assert other.queue_id == one.queue_id + "r"
    assert [copy.disposition for copy in other.copies] == [Disposition.REJECT]


def test_a_record_from_another_place_is_the_same_message() -> None:
    """A copy of the topic, or the topic read anew, gives the same queue id."""
    (found,) = held_records(record(PROMOTION, HOLD))
    assert read_held(found) == read_held(replace(found, topic="mirror.held", partition=5, offset=99))


@pytest.mark.parametrize("sender", [None, ""])
def test_a_sender_nobody_named_is_no_null_sender(sender) -> None:
    """Reports go without a look at consent, so only what says that it is one is taken for one."""
    told = {} if sender is None else {"mail_from": sender}
    message = replace(held(record(PROMOTION, HOLD)), kafka=None)
    assert message.null_sender
    outputs = judge(World()).judge(record(PROMOTION, HOLD, **told)).outputs
    if sender is None:
        assert not held(record(PROMOTION, HOLD)).null_sender
    else:
        assert [one.suffix for one in outputs if one.suffix != "decisions"] == ["relay"]


def test_channels_other_than_mail() -> None:
    """A text message keeps its channel and number, and is read again as it was judged; SMTP cannot carry it."""
    document = {"channel": "sms", "text": "Our promotion.", "to": [HOLD], "declared": "service"}
    message = held(json_record(document))
    assert message.channel is Channel.SMS
    assert read_message(message).channel is Channel.SMS
    assert read_message(message).declared == "service"
    assert not message.null_sender
    plain = held(record(b"Our promotion.", HOLD, channel="push"))
    assert (plain.channel, read_message(plain).channel) == (Channel.PUSH, Channel.PUSH)
    assert not any(goes_by_smtp(one, ReleaseTo.SMTP) for one in (message, plain))


@pytest.mark.parametrize(
    "incoming",
    [
        record(PROMOTION, HOLD, declared="service"),
        record(b"Our promotion.", HOLD, channel="sms", declared="service"),
        json_record(
            {"subject": "s", "text": "Our promotion.", "to": [HOLD], "headers": {"a": "b"}}, declared="service"
        ),
        json_record({"channel": "push", "text": "Our promotion.", "declared": "service"}, HOLD),
    ],
)
def test_the_message_is_read_again_as_it_was_judged(incoming) -> None:
    """So that new rules judge what the old ones judged, without the recipients."""
    outbound = read(incoming, LIMITS)
    assert read_message(held(incoming)) == outbound.message


def test_a_text_is_shown_as_one() -> None:
    """Its JSON is no header; the text is what was judged, and the channel is named."""
    message = held(json_record({"channel": "sms", "text": "Our promotion.", "to": [HOLD]}))
    shown = held_document(message, {}, CLASSIFIER.classify(read_message(message)))
    assert (shown["channel"], shown["headers"]) == ("sms", "")
    assert [segment["text"] for segment in shown["segments"]] == ["Our promotion."]
    page = Console(width=200, color_system=None, file=StringIO())
    page.print(message_page(message, {}, CLASSIFIER.classify(read_message(message))))
    assert "channel sms" in page.file.getvalue()
    assert "{" not in page.file.getvalue()


@pytest.mark.parametrize(
    ("address", "plain", "channel"),
    [
        ("Anna@X.example", "anna@x.example", Channel.EMAIL),
        ("+tag@x.example", "+tag@x.example", Channel.EMAIL),
        ("+44 7700 900123", "+447700900123", Channel.SMS),
        ("voicemail:+447700900123", "+447700900123", Channel.SMS),
        ("push:device-1", "device-1", Channel.PUSH),
    ],
)
def test_recipients_of_every_channel_can_be_named(tmp_path, address, plain, channel) -> None:
    """Copies for a number or a token are found, and can be erased, as those for a mail address are."""
    file = tmp_path / "filter.toml"
    file.write_text("")
    config = load_config(file)
    key = app.keyer(config, create=True).subject(plain, channel).exact.hex()
    assert subjects(config, address) == (key,)


def test_where_copies_go() -> None:
    """Mail goes where it came from, or where the configuration says; JSON is no mail to SMTP."""
    mail, document = held(record(PROMOTION, HOLD)), held(json_record({"text": "Our promotion.", "to": [HOLD]}))
    by_smtp = replace(mail, kafka=None)
    assert [goes_by_smtp(mail, to) for to in ReleaseTo] == [False, True, False]
    assert [goes_by_smtp(document, to) for to in ReleaseTo] == [False, False, False]
    assert [goes_by_smtp(by_smtp, to) for to in ReleaseTo] == [True, True, False]


def _changed(found: Record, name: str, value: bytes | None) -> Record:
    headers = tuple((one, value if one == name else octets) for one, octets in found.headers)
    return replace(found, headers=tuple(one for one in headers if one[1] is not None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("consentry-queue-id", None),
        ("consentry-queue-id", b"../../x"),
        ("consentry-queue-id", b""),
        ("consentry-held", None),
        ("consentry-held", b"{"),
        ("consentry-held", b"[]"),
        ("consentry-held", b"\xff"),
        ("consentry-rcpt", None),
    ],
)
def test_what_cannot_be_read_is_poison(name, value) -> None:
    """It becomes a dead letter with everything it had, and the place where it was."""
    (good,) = held_records(record(PROMOTION, HOLD))
    bad = _changed(good, name, value)
    poison = read_held(bad)
    assert isinstance(poison, Poison)
    assert (poison.code, poison.detail.startswith(name)) == (PoisonCode.BAD_HELD, True)
    letter = dead_letter(bad, poison)
    assert (letter.suffix, letter.key, letter.value) == ("dead-letter", bad.key, bad.value)
    assert tuple(letter.headers[: len(bad.headers)]) == bad.headers
    assert dict(letter.headers)["consentry-held-offset"] == b"0"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("received_at", -1),
        ("received_at", "1"),
        ("channel", "fax"),
        ("score", 2),
        ("campaign", "xyz"),
        ("copies", []),
        ("label", None),
        ("surprise", 1),
    ],
)
def test_fields_that_cannot_be(field, value) -> None:
    """The field is named, and its value is not."""
    (good,) = held_records(record(PROMOTION, HOLD))
    about = {**orjson.loads(dict(good.headers)["consentry-held"]), field: value}
    poison = read_held(_changed(good, "consentry-held", orjson.dumps(about)))
    assert isinstance(poison, Poison)
    assert field in poison.detail


def test_no_verdict_but_hold_and_reject() -> None:
    """A record that says its copies may be relayed is not believed; nor one without a value."""
    (good,) = held_records(record(PROMOTION, HOLD))
    about = orjson.loads(dict(good.headers)["consentry-held"])
    about["copies"][0]["disposition"] = "relay"
    assert isinstance(read_held(_changed(good, "consentry-held", orjson.dumps(about))), Poison)
    assert isinstance(read_held(replace(good, value=None)), Poison)


@given(st.binary(max_size=60), st.lists(st.tuples(st.sampled_from(["consentry-held", "x"]), st.binary()), max_size=3))
def test_nothing_is_raised(value, headers) -> None:
    """Whatever stands in the topic is a message or poison."""
    assert isinstance(read_held(Record(value, tuple(headers))), Poison)

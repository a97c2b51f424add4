"""Reports of non-delivery: read by the standard library as RFC 3464 has it, and nothing from outside gets a line."""

import email
from datetime import UTC, datetime
from email.message import Message
from email.policy import SMTPUTF8
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.dsn import FULL_SIZE, Cause, Failure, report, wanted
from filter.envelope import MailFrom, RcptTo
from filter.path import parse_mail, parse_rcpt
from filter.replies import Reply

AT = 1_700_000_000_000
SENDER = MailFrom(b"news@bank.example", (b"ENVID=QQ314159", b"RET=HDRS"))
ANN = RcptTo(b"ann@customer.example", (b"NOTIFY=FAILURE", b"ORCPT=rfc822;Ann+2BNews@customer.example"))
NO_USER = Reply(550, "5.1.1", ("No such user", "here"))
REFUSED = Failure(ANN, Cause.REFUSED, NO_USER, "mx.customer.example", AT)
ORIGINAL = b"Subject: Hello\r\nMessage-ID: <1@bank.example>\r\n\r\nDear Ann,\r\n"
EXTENSIONS = frozenset({"DSN", "SMTPUTF8", "8BITMIME"})


def made(mail=SENDER, failures=(REFUSED,), message=ORIGINAL, queue_id="4b1f", hostname="filter.example"):
    """A report, and the same as the standard library reads it."""
    own = report(mail, failures, message=message, hostname=hostname, queue_id=queue_id, arrived_at=AT - 60_000, at=AT)
    return own, email.message_from_bytes(own.content)


def groups(parsed: Message) -> list[Message]:
    """The field groups of the delivery status: of the message, then of each recipient."""
    found = parsed.get_payload(1).get_payload()
    return [group for group in found if isinstance(group, Message) and group.keys()]


def plain(parsed: Message) -> str:
    """The text for people, decoded, on one line."""
    part = parsed.get_payload(0)
    return " ".join(part.get_payload(decode=True).decode(part.get_content_charset()).split())


def test_report_has_its_form():
    """RFC 3464: multipart/report of text, delivery status and the header of the original."""
    _, parsed = made()
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parsed.get_payload()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert parsed.defects == []
    assert parsed.get_payload(2).get_payload() == ORIGINAL.partition(b"Dear")[0].removesuffix(b"\r\n").decode()


def test_report_starts_no_loop():
    """It goes to the sender from nobody, says that a machine wrote it, and asks for no report about itself."""
    own, parsed = made()
    assert (own.mail.path, own.recipient.path) == (b"", b"news@bank.example")
    assert own.recipient.params == (b"NOTIFY=NEVER",)
    assert own.mail.params == ()
    assert parsed["To"] == "<news@bank.example>"
    assert parsed["From"] == "Mail Delivery System <MAILER-DAEMON@filter.example>"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsedate_to_datetime(parsed["Date"]) == datetime.fromtimestamp(AT // 1000, UTC)
    assert parsed["Message-ID"].endswith("@filter.example>")


def test_fields_of_the_message():
    """Reporting-MTA, the envelope id decoded, our queue id and when it arrived."""
    _, parsed = made(MailFrom(b"news@bank.example", (b"RET=HDRS", b"envid=QQ+2B314+3D")))
    first = groups(parsed)[0]
    assert first["Reporting-MTA"] == "dns; filter.example"
    assert first["Original-Envelope-Id"] == "QQ+314="
    assert first["X-Consentry-Queue-Id"] == "4b1f"
    assert parsedate_to_datetime(first["Arrival-Date"]) == datetime.fromtimestamp(AT // 1000 - 60, UTC)


def test_fields_of_a_recipient():
    """Both addresses (ORCPT decoded), what failed and who said it, in one group for each recipient."""
    bob = Failure(RcptTo(b'"Bob  X"@customer.example'), Cause.DISCARDED)
    _, parsed = made(failures=(REFUSED, bob))
    _, first, second = groups(parsed)
    assert dict(first.items()) == {
        "Original-Recipient": "rfc822; Ann+News@customer.example",
        "Final-Recipient": "rfc822; ann@customer.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.customer.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user here",
        "Last-Attempt-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
    }
    assert dict(second.items()) == {
        "Final-Recipient": 'rfc822; "Bob  X"@customer.example',
        "Action": "failed",
        "Status": "5.7.1",
    }


def test_absent_parameters_give_no_fields():
    """Without ENVID and ORCPT there are no fields that come from them (RFC 3461 section 6.3)."""
    _, parsed = made(MailFrom(b"news@bank.example"), (Failure(RcptTo(b"ann@customer.example"), Cause.EXPIRED),))
    assert "Original-Envelope-Id" not in groups(parsed)[0]
    assert "Original-Recipient" not in groups(parsed)[1]


@pytest.mark.parametrize(
    ("cause", "reply", "status", "words"),
    [
        (Cause.REFUSED, NO_USER, "5.1.1", "refused it; the last answer was: 550 5.1.1 No such user here"),
        (Cause.REFUSED, Reply(554, "", ("no",)), "5.0.0", "refused it; the last answer was: 554 no"),
        (Cause.GAVE_UP, Reply(451, "4.3.0", ("later",)), "5.4.7", "in time, and no further attempt"),
        (Cause.GAVE_UP, None, "5.4.7", "no further attempt will be made."),
        (Cause.DISCARDED, None, "5.7.1", "the reviewer decided not to deliver it."),
        (Cause.EXPIRED, None, "5.7.1", "nobody released it in time."),
        (Cause.POLICY, None, "5.7.1", "the mail policy of this site"),
    ],
)
def test_each_cause_is_told(cause, reply, status, words):
    """The status is permanent whatever the last answer was, and the text says in English what happened."""
    _, parsed = made(failures=(Failure(ANN, cause, reply),))
    assert groups(parsed)[1]["Status"] == status
    assert words in plain(parsed)
    assert "not delivered to one recipient." in plain(parsed)


def test_several_recipients_are_counted():
    """The text counts them and names each."""
    others = [Failure(RcptTo(b"c%d@customer.example" % number), Cause.EXPIRED) for number in range(3)]
    _, parsed = made(failures=others)
    assert "not delivered to 3 recipients." in plain(parsed)
    assert [group["Final-Recipient"] for group in groups(parsed)[1:]] == [
        f"rfc822; c{number}@customer.example" for number in range(3)
    ]


FULL = MailFrom(b"news@bank.example", (b"RET=full",))


def test_whole_message_is_returned_where_asked_for():
    """RET=FULL returns the original, octet for octet."""
    own, parsed = made(FULL)
    assert parsed.get_payload(2).get_content_type() == "message/rfc822"
    assert ORIGINAL in own.content
    assert "The message is attached" in plain(parsed)


@pytest.mark.parametrize(
    "message",
    [
        ORIGINAL + b"x\r\n" * (FULL_SIZE // 3),
        ORIGINAL + b"x" * 999 + b"\r\n",
        ORIGINAL + b"caf\xc3\xa9\r\n",
        b"Subject: caf\xc3\xa9\r\n\r\nx\r\n",
        ORIGINAL + b"a\rb\r\n",
    ],
)
def test_what_cannot_be_returned_whole_is_not(message):
    """Too large, with long lines or bare line ends, or 8-bit where the original was not: the header only."""
    own, parsed = made(FULL, message=message)
    assert parsed.get_payload(2).get_content_type() == "text/rfc822-headers"
    assert own.content.isascii()
    assert "The header of the message is attached" in plain(parsed)


def test_eight_bit_message_goes_back_the_way_it_came():
    """An original that came as BODY=8BITMIME is returned whole as such."""
    mail = MailFrom(b"news@bank.example", (b"BODY=8BITMIME", b"RET=FULL"), eight_bit=True)
    own, parsed = made(mail, message=ORIGINAL + b"caf\xc3\xa9\r\n")
    assert own.mail.params == (b"BODY=8BITMIME",)
    assert own.mail.eight_bit
    assert parsed.get_payload(2)["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize(
    ("message", "header"),
    [
        (b"\r\nbody\r\n", b""),
        (b"Subject: x", b"Subject: x\r\n"),
        (b"Subject: x\r\nTo: y\r\n", b"Subject: x\r\nTo: y\r\n"),
        (b"Subject: caf\xe9 \0\r\n\r\nbody\r\n", b"Subject: caf\xe9 \0\r\n"),
        (b"Subject: " + b"x" * 2000 + b"\r\n\r\nbody\r\n", b"Subject: " + b"x" * 2000 + b"\r\n"),
        (b"X: y\r\n" * 20_000, b"X: y\r\n" * (65536 // 6)),
        (b"", b""),
    ],
)
def test_header_of_any_message_is_returned(message, header):
    """Broken headers are encoded, endless ones cut at a line, and the body stays out."""
    own, parsed = made(message=message)
    returned = parsed.get_payload(2).get_payload(decode=True)
    assert returned.replace(b"\r\n", b"\n").rstrip(b"\n") == header.replace(b"\r\n", b"\n").rstrip(b"\n")
    assert own.content.isascii()


def test_sender_beyond_ascii_gets_the_international_form():
    """RFC 6533: SMTPUTF8, the global types, and addresses as they are."""
    mail = MailFrom("büro@bank.example".encode(), (b"SMTPUTF8",), smtputf8=True)
    zoe = RcptTo("zoë@kunde.example".encode(), (b"ORCPT=utf-8;zo\\x{EB}@kunde.example",))
    own, _ = made(mail, (Failure(zoe, Cause.EXPIRED),), "Subject: Grüße\r\n\r\nx\r\n".encode())
    assert own.mail.smtputf8
    assert own.mail.params == (b"BODY=8BITMIME", b"SMTPUTF8")
    assert own.recipient.path == mail.path
    parsed = email.message_from_string(own.content.decode(), policy=SMTPUTF8)
    assert parsed["To"].addresses[0].addr_spec == "büro@bank.example"
    kinds = [part.get_content_type() for part in parsed.get_payload()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert "Final-Recipient: utf-8; zoë@kunde.example\r\n".encode() in own.content
    assert b"Original-Recipient: utf-8; zo\\x{EB}@kunde.example\r\n" in own.content
    assert "Subject: Grüße\r\n".encode() in own.content


def test_whole_international_message_is_returned():
    """RET=FULL to a sender beyond ASCII returns message/global."""
    mail = MailFrom("büro@bank.example".encode(), (b"SMTPUTF8", b"RET=FULL"), smtputf8=True)
    own, parsed = made(mail, message="Subject: Grüße\r\n\r\nzoë\r\n".encode())
    assert parsed.get_payload(2).get_content_type() == "message/global"
    assert "Subject: Grüße\r\n\r\nzoë\r\n".encode() in own.content


def test_recipient_beyond_ascii_in_a_report_of_seven_bits():
    """To a sender in ASCII everything stays 7-bit: the address in the form that RFC 6533 has for that."""
    mail = MailFrom(b"news@bank.example", (b"SMTPUTF8",), smtputf8=True)
    zoe = RcptTo("zoë+a@kunde.example".encode(), ("ORCPT=utf-8;zoë@kunde.example".encode(),))
    own, parsed = made(mail, (Failure(zoe, Cause.EXPIRED),), "Subject: Grüße\r\n\r\nx\r\n".encode())
    assert own.content.isascii()
    assert not own.mail.smtputf8
    assert groups(parsed)[1]["Final-Recipient"] == "utf-8; zo\\x{EB}\\x{2B}a@kunde.example"
    assert groups(parsed)[1]["Original-Recipient"] == "utf-8; zo\\x{EB}@kunde.example"
    assert "<zoë+a@kunde.example>" in plain(parsed)
    assert "Subject: Gr=C3=BC=C3=9Fe" in own.content.decode()


@pytest.mark.parametrize("envid", [b"a+0D+0ABcc:+20x@y.example", b"+E9", b"+20a", b"+00"])
def test_envelope_id_that_decodes_to_more_than_text_stays_encoded(envid):
    """RFC 3461 section 4.4 allows printable ASCII only; what is else is shown as it came, and begins no field."""
    _, parsed = made(MailFrom(b"news@bank.example", (b"ENVID=" + envid,)))
    assert groups(parsed)[0]["Original-Envelope-Id"] == envid.decode()


def test_same_report_is_the_same_message():
    """Made again it is identical, so that a report that is sent twice can be known by its Message-ID."""
    assert made()[0] == made()[0]
    assert made()[1]["Message-ID"] != made(failures=(Failure(ANN, Cause.EXPIRED),))[1]["Message-ID"]


@pytest.mark.parametrize(
    ("sender", "recipient", "expected"),
    [
        (b"FROM:<a@bank.example>", b"TO:<b@x.example>", True),
        (b"FROM:<>", b"TO:<b@x.example>", False),
        (b"FROM:<>", b"TO:<b@x.example> NOTIFY=FAILURE", False),
        (b"FROM:<a@bank.example>", b"TO:<b@x.example> NOTIFY=NEVER", False),
        (b"FROM:<a@bank.example>", b"TO:<b@x.example> notify=never", False),
        (b"FROM:<a@bank.example>", b"TO:<b@x.example> NOTIFY=SUCCESS,DELAY", False),
        (b"FROM:<a@bank.example>", b"TO:<b@x.example> NOTIFY=SUCCESS,failure", True),
        (b"FROM:<a@bank.example> RET=HDRS ENVID=1", b"TO:<b@x.example> ORCPT=rfc822;b@x.example", True),
    ],
)
def test_when_a_report_is_wanted(sender, recipient, expected):
    """Never by the null sender; else as NOTIFY says, and without NOTIFY for each failure."""
    mail = parse_mail(sender, offered=EXTENSIONS)
    assert wanted(mail, parse_rcpt(recipient, offered=EXTENSIONS)) is expected


texts = st.text(max_size=300)
octets = st.binary(max_size=300) | texts.map(str.encode)


@given(
    addresses=st.tuples(octets.filter(bool), octets),
    params=st.lists(st.sampled_from([b"ENVID=", b"ORCPT=rfc822;", b"ORCPT=utf-8;", b"RET=FULL"]), max_size=3),
    value=octets,
    said=st.tuples(texts, texts),
    message=octets,
)
def test_nothing_from_outside_gets_a_line(addresses, params, value, said, message):
    """Whatever stands in addresses, parameters, replies, names and the original: fields are ours, lines are short."""
    words, names = said
    given_params = tuple(name + value for name in params)
    reply = Reply(550, names, (words, names))
    failure = Failure(RcptTo(addresses[1], given_params), Cause.REFUSED, reply, names, AT)
    own, parsed = made(MailFrom(addresses[0], given_params), (failure,), message, queue_id=names, hostname=names)
    lines = own.content.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(octet in b"\r\n\0" for line in lines for octet in line)
    assert {*parsed.keys()} <= {
        *("Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type")
    }
    assert len(parsed.get_payload()) == 3
    assert own.mail.smtputf8 or own.content.isascii()
    if not own.mail.smtputf8:
        assert len(groups(parsed)) == 2
        assert {*groups(parsed)[1].keys()} <= {
            *("Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"),
            "Last-Attempt-Date",
        }

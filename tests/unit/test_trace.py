"""The header lines that are prepended, and the count of those that others prepended."""

import email
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.envelope import Client, MailFrom, RcptTo
from filter.trace import hop_count, original_recipient, prepended, received, released

AT = 1_795_340_497_999
CLIENT = Client("192.0.2.1", helo="mail.shop.example", esmtp=True)
MAIL = MailFrom(b"jo@shop.example")
ONE = (RcptTo(b"al@customer.example"),)


def field(client=CLIENT, mail=MAIL, *, recipients=ONE, at=AT, hostname="filter.example", queue_id="4b1f"):
    """The Received field, and its value unfolded."""
    octets = received(client, mail, recipients, hostname=hostname, queue_id=queue_id, at=at)
    assert octets.endswith(b"\r\n")
    assert octets.startswith(b"Received: from ")
    lines = octets[:-2].split(b"\r\n")
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert all(0 < len(line) <= 998 for line in lines)
    return octets, octets.replace(b"\r\n\t", b" ").decode().removeprefix("Received: ").removesuffix("\r\n")


def test_received_says_what_the_standard_wants():
    """From whom, by whom, with what, under which id, for whom, when (RFC 5321 section 4.4; D16)."""
    octets, value = field()
    assert value == (
        "from mail.shop.example ([192.0.2.1]) by filter.example with ESMTP id 4b1f"
        " for <al@customer.example>; Sun, 22 Nov 2026 09:41:37 +0000 (UTC)"
    )
    assert max(map(len, octets.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("client", "smtputf8", "protocol"),
    [
        (Client("192.0.2.1"), False, "SMTP"),
        (Client("192.0.2.1", esmtp=True), False, "ESMTP"),
        (Client("192.0.2.1", esmtp=True, tls="TLSv1.3"), False, "ESMTPS"),
        (Client("192.0.2.1", esmtp=True, user="jo"), False, "ESMTPA"),
        (Client("192.0.2.1", esmtp=True, tls="TLSv1.3", user="jo"), False, "ESMTPSA"),
        (Client("192.0.2.1", esmtp=True), True, "UTF8SMTP"),
        (Client("192.0.2.1", esmtp=True, tls="TLSv1.3", user="jo"), True, "UTF8SMTPSA"),
    ],
)
def test_the_protocol_is_the_registered_name(client, smtputf8, protocol):
    """TLS, authentication and SMTPUTF8 show in the name (RFC 3848, RFC 6531 section 4.3; A13)."""
    assert f" with {protocol} id " in field(client, MailFrom(b"jo@shop.example", smtputf8=smtputf8))[1]


def test_recipients_do_not_learn_of_each_other():
    """Only a lone recipient is named."""
    assert " for <al@customer.example>;" in field()[1]
    for recipients in ((), (*ONE, RcptTo(b"bo@customer.example"))):
        assert "for <" not in field(recipients=recipients)[1]
        assert "customer" not in field(recipients=recipients)[1]


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("192.0.2.1", "([192.0.2.1])"),
        ("2001:db8::1", "([IPv6:2001:db8::1])"),
        ("fe80::1%eth0", "([IPv6:fe80::1])"),
        ("", "(local)"),
    ],
)
def test_addresses_are_literals(address, written):
    """The client's address is written as an address literal; a local socket has none."""
    assert f"mail.shop.example {written} by" in field(Client(address, helo="mail.shop.example"))[1]


@pytest.mark.parametrize(
    ("helo", "written"),
    [
        ("", "unknown"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("a b(c)<d>;e\r\nX: y\0", "a?b?c??d??e??X:?y?"),
        ("bücher.example", "b?cher.example"),
    ],
)
def test_the_name_a_client_gives_cannot_do_harm(helo, written):
    """What is no name or literal is replaced, so that nothing can be forged with it."""
    assert field(Client("192.0.2.1", helo=helo))[1].startswith(f"from {written} ([192.0.2.1]) by")


@given(helo=st.text(max_size=400), queue_id=st.text(max_size=20), hostname=st.text(max_size=300))
def test_lines_are_well_formed_for_any_names(helo, queue_id, hostname):
    """Whatever the names are, it stays one field of lines within bounds, folded only before a token."""
    octets, _ = field(Client("192.0.2.1", helo=helo), hostname=hostname, queue_id=queue_id)
    assert octets.isascii()
    assert not any(octet < 32 for octet in octets.replace(b"\r\n\t", b"").removesuffix(b"\r\n"))
    for line in octets[:-2].split(b"\r\n"):
        assert len(line) <= 78 or line.count(b" ") <= 2


@given(seconds=st.integers(0, 253_402_300_799))
def test_the_date_is_that_of_the_calendar(seconds):
    """Dates agree with the calendar of the standard library for every second until the year 9999."""
    date = field(at=seconds * 1000)[1].rpartition("; ")[2]
    assert parsedate_to_datetime(date.removesuffix(" (UTC)")) == datetime.fromtimestamp(seconds, UTC)
    assert date.startswith(datetime.fromtimestamp(seconds, UTC).strftime("%a, "))


def test_a_message_gets_received_and_its_id():
    """Both lines go before a message; what a client sent under our names is neither read nor taken out (C7)."""
    header = prepended(CLIENT, MAIL, ONE, hostname="filter.example", queue_id="4b1f", at=AT)
    theirs = b"X-Consentry: relay\r\nSubject: a\r\n\r\nb\r\n"
    message = email.message_from_bytes(header + theirs)
    assert message.keys() == ["Received", "X-Consentry", "X-Consentry", "Subject"]
    assert message.get_all("X-Consentry") == ["4b1f", "relay"]
    assert (header + theirs).endswith(theirs)


def test_a_diverted_copy_says_whom_it_was_for():
    """The path stands in brackets as it was received."""
    assert original_recipient(RcptTo(b'"a b"@x.example')) == b'X-Consentry-Original-Recipient: <"a b"@x.example>\r\n'


HOP = b"Received: from a by b; Sun, 22 Nov 2026 09:41:37 +0000\r\n"


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"", 0),
        (HOP, 1),
        (HOP + b"\r\n", 1),
        (HOP * 60 + b"Subject: a\r\n\r\nb\r\n", 60),
        (b"Subject: a\r\nRECEIVED: x\r\nreceived:\r\n\ty\r\n\r\n", 2),
        (b"Subject: a\r\n\r\n" + HOP, 0),
        (b"\r\n" + HOP, 0),
        (b"Subject: Received: a\r\n Received: b\r\n\tReceived: c\r\nX-Received: d\r\nReceived-SPF: e\r\n\r\n", 0),
        (b"Subject: a\r\n" + b"x" * (1 << 20) + b"\r\n" + HOP, 0),
    ],
)
def test_received_fields_of_the_header_are_counted(content, count):
    """Fields are counted in any case, not in the body, in other fields, in folded lines or past a MiB (D16)."""
    assert hop_count(content) == count


def test_our_own_field_is_counted_by_the_next_one():
    """Two of us before each other come to see it (D16)."""
    header = prepended(CLIENT, MAIL, ONE, hostname="filter.example", queue_id="4b1f", at=AT)
    assert hop_count(header * 3 + b"Subject: a\r\n\r\nb\r\n") == 3


@given(st.text(max_size=300), st.integers(0, 4_000_000_000_000))
def test_a_released_copy_says_by_which_order(order: str, at: int) -> None:
    """One field of its own, whatever the order is called."""
    line = released(order, at)
    assert line.startswith(b"X-Consentry-Released: ")
    assert line.isascii()
    assert all(one.startswith(b"\t") for one in line.split(b"\r\n")[1:-1])
    assert line.endswith(b" +0000 (UTC)\r\n")

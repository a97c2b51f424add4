"""What goes out to the next hop is what came in, as far as it understands it, and never more than one command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import next_hop_commands as commands
from filter.envelope import Capabilities, Client, MailFrom, Origin, RcptTo
from filter.replies import EIGHT_BIT_REFUSED, SMTPUTF8_UNAVAILABLE

EVERYTHING = Capabilities({"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "AUTH": "PLAIN"})
NOTHING = Capabilities()
SAFE = st.binary(max_size=60).map(lambda octets: bytes(octet for octet in octets if octet > 31 and octet != 127))


@given(SAFE)
def test_paths_go_out_octet_for_octet(path: bytes):
    """Whatever a path holds, case, quotes and encoded-words included, it is not touched (A4)."""
    assert commands.mail_command(MailFrom(path), NOTHING) == b"MAIL FROM:<" + path + b">\r\n"
    assert commands.rcpt_command(RcptTo(path), NOTHING) == b"RCPT TO:<" + path + b">\r\n"


def test_the_null_sender_stays_the_null_sender():
    """The empty reverse path goes out as <> (A5)."""
    assert commands.mail_command(MailFrom(b""), EVERYTHING) == b"MAIL FROM:<>\r\n"


@pytest.mark.parametrize("octet", [*range(32), 127])
def test_nothing_breaks_out_of_its_command(octet: int):
    """Control characters in a path or parameter are refused, though no parser lets them in (A1, A3)."""
    bad = b"a" + bytes([octet]) + b"b@x.example"
    with pytest.raises(ValueError, match="control characters"):
        commands.mail_command(MailFrom(bad), EVERYTHING)
    with pytest.raises(ValueError, match="control characters"):
        commands.rcpt_command(RcptTo(bad), EVERYTHING)
    with pytest.raises(ValueError, match="control characters"):
        commands.mail_command(MailFrom(b"a@b.example", (b"ENVID=" + bad,)), EVERYTHING)
    with pytest.raises(ValueError, match="control characters"):
        commands.rcpt_command(RcptTo(b"a@b.example", (b"ORCPT=rfc822;" + bad,)), EVERYTHING)


def test_a_space_cannot_add_a_parameter():
    """One parameter cannot become two."""
    with pytest.raises(ValueError, match="spaces"):
        commands.rcpt_command(RcptTo(b"a@b.example", (b"NOTIFY=NEVER X=1",)), EVERYTHING)


def test_parameters_go_out_as_they_came_where_they_are_offered():
    """Values keep their case and their recipient; SIZE has room for what we prepend (A6)."""
    mail = MailFrom(
        b"a@b.example", (b"SIZE=5000", b"body=8BITMIME", b"SMTPUTF8", b"RET=HDRS", b"ENVID=QQ+2B", b"AUTH=<>"), 5000
    )
    expected = b"MAIL FROM:<a@b.example> SIZE=6024 body=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B AUTH=<>\r\n"
    assert commands.mail_command(mail, EVERYTHING) == expected
    recipient = RcptTo(b"c@d.example", (b"NOTIFY=Success", b"ORCPT=rfc822;C+40d"))
    assert commands.rcpt_command(recipient, EVERYTHING) == (
        b"RCPT TO:<c@d.example> NOTIFY=Success ORCPT=rfc822;C+40d\r\n"
    )


def test_parameters_that_are_not_offered_are_left_out():
    """A next hop gets no parameter it would refuse."""
    mail = MailFrom(b"a@b.example", (b"SIZE=5000", b"BODY=8BITMIME", b"RET=HDRS", b"AUTH=<>"), 5000, eight_bit=True)
    assert commands.mail_command(mail, NOTHING) == b"MAIL FROM:<a@b.example>\r\n"
    assert commands.rcpt_command(RcptTo(b"c@d.example", (b"NOTIFY=NEVER",)), NOTHING) == b"RCPT TO:<c@d.example>\r\n"
    assert commands.mail_command(MailFrom(b"a@b.example", (b"X-ODD=1",)), EVERYTHING) == b"MAIL FROM:<a@b.example>\r\n"


def test_international_mail_needs_a_next_hop_for_it():
    """An address is never downgraded: without SMTPUTF8 there the mail is refused (D15)."""
    mail = MailFrom("ä@b.example".encode(), (b"SMTPUTF8",), smtputf8=True)
    assert commands.obstacle(mail, NOTHING) == SMTPUTF8_UNAVAILABLE
    assert commands.obstacle(mail, EVERYTHING) is None
    assert commands.obstacle(MailFrom(b"a@b.example"), NOTHING) is None


def test_eight_bit_content_is_never_converted():
    """Content with octets over 127 is refused where 8BITMIME is not offered, whatever BODY said (D15)."""
    content = "Subject: x\r\n\r\nEin schöner Tag\r\n".encode()
    assert commands.content_obstacle(content, NOTHING) == EIGHT_BIT_REFUSED
    assert commands.content_obstacle(content, EVERYTHING) is None
    assert commands.content_obstacle(b"Subject: x\r\n\r\nA day\r\n", NOTHING) is None


@pytest.mark.parametrize("octets", [b"\r", b"\n", b"\0", b"\n.\r\n", b"\r.\r", b"\r\r\n", b"\n\n"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_no_content_can_end_the_message_early(octets: bytes, where: str):
    """A bare CR, a bare LF or a NUL never leaves, wherever it stands (A2)."""
    content = {"first": octets + b"b\r\n", "middle": b"a" + octets + b"b\r\n", "last": b"a\r\nb" + octets}[where]
    with pytest.raises(ValueError, match="bare CR"):
        commands.content_obstacle(content, EVERYTHING)


def test_the_client_is_told_where_it_is_asked_for():
    """XFORWARD has what the next hop offers to take, of the client or the one before it (C5)."""
    client = Client("192.0.2.7", "app.example", esmtp=True)
    assert commands.xforward_commands(client, EVERYTHING) == []
    offered = Capabilities({"XFORWARD": "NAME ADDR HELO"})
    (line,) = commands.xforward_commands(client, offered)
    assert line == b"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 HELO=app.example\r\n"
    before = Client("192.0.2.7", "app.example", origin=Origin(name="x.example", address="198.51.100.1", helo="a\r\nb"))
    (line,) = commands.xforward_commands(before, offered)
    assert line.startswith(b"XFORWARD NAME=x.example ADDR=198.51.100.1 HELO=a+0D+0Ab")

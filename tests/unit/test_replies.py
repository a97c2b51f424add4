"""The table of replies, how a reply is written, and what becomes of one that the next hop gave."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import replies
from filter.replies import ALL, MAX_RELAYED_LINES, NEXT_HOP_GARBLED, RefusedError, Reply, relayed

DOCUMENT = Path(__file__).parents[2] / "deploy" / "smtp-replies.md"
PACKAGE = Path(__file__).parents[2] / "filter"
ROW = re.compile(r"^\| `([A-Z_0-9]+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)
ENHANCED = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")
# RFC 2034 section 4 leaves these out: the greeting, HELO and EHLO, and whatever is 3xx.
WITHOUT_ENHANCED = {"SERVICE_READY", "HELLO", "CHALLENGE", "START_MAIL"}
# What a client does next, by RFC 5321 section 4.2.1, RFC 3207, RFC 4954, RFC 1870.
CODES = {214, 220, 221, 235, 250, 252, 334, 354, 421, 451, 452, 454, 500, 501, 502, 503, 504, 530, 534, 535, 538}
CODES |= {550, 552, 553, 554, 555}


def assert_well_formed(octets, code):
    """What is on the wire can be read by any client, and says nothing but this reply."""
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    lines = octets[:-2].split(b"\r\n")
    for number, line in enumerate(lines):
        assert len(line) + 2 <= 512
        assert line[:3] == b"%d" % code
        assert line[3:4] == (b" " if number == len(lines) - 1 else b"-")
        assert all(32 <= octet < 127 for octet in line)


@pytest.mark.parametrize("name", ALL)
def test_replies_of_the_table_are_well_formed(name):
    """Each has a code of SMTP, an enhanced code of its class where one belongs, one short line, and says when."""
    reply = ALL[name]
    assert reply.code in CODES
    assert_well_formed(reply.encode(), reply.code)
    assert len(reply.lines) == 1
    assert len(reply.encode()) < 80
    assert reply.when
    if name in WITHOUT_ENHANCED:
        assert not reply.enhanced
    else:
        assert ENHANCED.fullmatch(reply.enhanced)
        assert int(reply.enhanced[0]) == reply.code // 100


def test_the_table_is_all_there_is():
    """Every constant of the module that is a reply is in the table, under its own name."""
    assert {name: value for name, value in vars(replies).items() if isinstance(value, Reply)} == ALL
    assert all(ALL[name] is getattr(replies, name) for name in ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_reply_can_be_sent(name):
    """Nothing stands in the table that no part of the program sends, itself or filled by the function of its name."""
    source = "".join(file.read_text() for file in PACKAGE.glob("*.py"))
    assert len(re.findall(rf"\b{name}\b", source)) > 1 or f"def {name.lower()}(" in source


def test_the_document_lists_the_table():
    """The page for administrators has every reply of the table and none besides, as it is sent."""
    rows = {name: (reply, when) for name, reply, when in ROW.findall(DOCUMENT.read_text())}
    assert rows == {
        name: (" ".join(filter(None, (str(reply.code), reply.enhanced, *reply.lines))), reply.when)
        for name, reply in ALL.items()
    }


def test_no_fault_is_answered_as_permanent():
    """What is our fault or may pass is 4xx, so that the sender keeps the message (D10)."""
    for name in ("INTERNAL_ERROR", "NOT_JUDGED", "OUT_OF_TIME", "NEXT_HOP_DOWN", "NEXT_HOP_GARBLED", "IN_DOUBT"):
        assert ALL[name].code == 451
    for name in ("STORAGE_FULL", "BUSY_FOR_MAIL", "TOO_MANY_RECIPIENTS"):
        assert ALL[name].code == 452


def test_templates_are_filled():
    """The greeting, HELO, EHLO, AUTH and the taken message carry what they are given."""
    assert replies.service_ready("mx.example").encode() == b"220 mx.example ESMTP\r\n"
    assert replies.hello("mx.example").encode() == b"250 mx.example\r\n"
    ehlo = replies.hello("mx.example", ["SIZE 1000", "8BITMIME"])
    assert ehlo.encode() == b"250-mx.example\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"
    assert replies.challenge("").encode() == b"334 \r\n"
    assert replies.challenge("VXNlcm5hbWU6").encode() == b"334 VXNlcm5hbWU6\r\n"
    assert replies.taken("4b1").encode() == b"250 2.0.0 Ok: taken as 4b1\r\n"


@given(code=st.integers(200, 599), lines=st.lists(st.text(max_size=700), max_size=5))
def test_any_text_is_written_safely(code, lines):
    """Whatever a text holds, the octets are lines of that one reply."""
    for enhanced in ("", "2.1.5"):
        reply = Reply(code, enhanced, tuple(lines))
        assert_well_formed(reply.encode(), code)
        assert reply.encode().count(b"\r\n") == max(1, len(lines))


def test_classes_are_told_apart():
    """`ok` is 2xx and `permanent` 5xx; replies are equal by what is sent."""
    assert replies.OK.ok
    assert not replies.START_MAIL.ok
    assert replies.RELAY_DENIED.permanent
    assert not replies.INTERNAL_ERROR.permanent
    assert Reply(250, "2.0.0", ("Ok",)) == replies.OK


def test_a_refusal_says_nothing_of_the_input():
    """The error that parsers raise carries the reply, and a message that is a constant."""
    error = RefusedError(replies.BAD_SENDER)
    assert error.reply is replies.BAD_SENDER
    assert str(error) == replies.BAD_SENDER.when


@given(code=st.integers(-10, 1000), lines=st.lists(st.binary(max_size=700), max_size=12))
def test_a_reply_of_the_next_hop_keeps_its_class(code, lines):
    """Any octets become a reply of the same class, or 451 if they are none (D11)."""
    reply = relayed(code, lines)
    assert_well_formed(reply.encode(), reply.code)
    if code // 100 in (2, 4, 5) and lines:
        assert reply.code // 100 == code // 100
        assert ENHANCED.fullmatch(reply.enhanced)
        assert int(reply.enhanced[0]) == code // 100
        assert len(reply.lines) == min(len(lines), MAX_RELAYED_LINES)
    else:
        assert reply is NEXT_HOP_GARBLED


@pytest.mark.parametrize(
    ("code", "lines", "octets"),
    [
        (250, [b"2.1.5 Ok"], b"250 2.1.5 Ok\r\n"),
        (250, [b"2.1.5"], b"250 2.1.5 \r\n"),
        (250, [b""], b"250 2.0.0 \r\n"),
        (250, [b"fine"], b"250 2.0.0 fine\r\n"),
        (550, [b"5.7.1 no", b"5.7.1 way"], b"550-5.7.1 no\r\n550 5.7.1 way\r\n"),
        (550, [b"5.7.1 no", b"5.7.15 way"], b"550-5.7.1 no\r\n550 5.7.1 way\r\n"),
        (550, [b"2.1.5 wrong class"], b"550 5.0.0 wrong class\r\n"),
        (550, [b"5.7.1000 too long"], b"550 5.0.0 too long\r\n"),
        (550, [b"5.07.1 leading zero"], b"550 5.0.0 leading zero\r\n"),
        (550, [b"192.0.2.1 is listed"], b"550 5.0.0 192.0.2.1 is listed\r\n"),
        (550, [b"5.1.1 no\r\n250 2.0.0 yes"], b"550 5.1.1 no  250 2.0.0 yes\r\n"),
        (450, [b"4.2.0 \xe9\x00\x7f!"], b"450 4.2.0 ?  !\r\n"),
        (421, [b"4.3.2 closing"], b"451 4.3.2 closing\r\n"),
        (571, [b"5.7.1 no"], b"550 5.7.1 no\r\n"),
        (499, [b"later"], b"450 4.0.0 later\r\n"),
        (354, [b"go on"], NEXT_HOP_GARBLED.encode()),
        (99, [b"what"], NEXT_HOP_GARBLED.encode()),
        (600, [b"what"], NEXT_HOP_GARBLED.encode()),
        (250, [], NEXT_HOP_GARBLED.encode()),
    ],
)
def test_replies_of_the_next_hop_are_made_safe(code, lines, octets):
    """8-bit octets, control characters, line ends, codes of another class or none are dealt with (D11)."""
    assert relayed(code, lines).encode() == octets


def test_long_replies_of_the_next_hop_are_cut():
    """Ten kilobytes in one line, or in many, become a few lines (D11)."""
    assert len(relayed(550, [b"5.7.1 " + b"x" * 10_000]).encode()) == 512
    assert len(relayed(550, [b"5.7.1 " + b"x" * 500] * 256).encode()) <= 512 * MAX_RELAYED_LINES

"""XFORWARD: what a listed host tells about the client before it, and how it is handed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import replies
from filter.envelope import Client, Origin
from filter.xforward import ATTRIBUTES, MAX_COMMAND, XforwardError, commands, origin_of, parse

ALL = " ".join(ATTRIBUTES)
FULL = Origin("spike.example", "192.0.2.1", "52105", "ESMTP", "hello.example", "4b1f", "REMOTE")


def test_attributes_are_understood():
    """Every attribute has its field, in any order and case of name; xtext is decoded."""
    argument = b"name=spike.example ADDR=192.0.2.1 PORT=52105 PROTO=ESMTP HELO=hello.example IDENT=4b1f SOURCE=REMOTE"
    assert parse(argument) == FULL
    assert parse(b" ".join(reversed(argument.split(b" ")))) == FULL
    assert parse(b"HELO=a+2Bb+3d+c3+A9") == Origin(helo="a+b=é")
    assert parse(b"ADDR=IPv6:2001:db8::1").address == "IPv6:2001:db8::1"


def test_what_is_unavailable_is_empty():
    """[UNAVAILABLE] and [TEMPUNAVAIL], in any case, are values that are not known."""
    assert parse(b"NAME=[UNAVAILABLE] ADDR=[unavailable] PORT=[TEMPUNAVAIL] HELO=[tempunavail]") == Origin()


def test_commands_add_up():
    """A later command adds attributes and replaces those that it names."""
    first = parse(b"NAME=a.example ADDR=192.0.2.1")
    assert parse(b"NAME=[UNAVAILABLE] HELO=b.example", first) == Origin(address="192.0.2.1", helo="b.example")


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b" ",
        b"NAME",
        b"NAME=",
        b"=a",
        b"LOGIN=jo",
        b"NAME=a NAME=b",
        b"NAME=a name=b",
        b"NAME=a=b",
        b"NAME=a\tADDR=192.0.2.1",
        b"NAME=a+",
        b"NAME=a+0",
        b"NAME=a+zz",
        b"NAME=a+0D+0AMAIL",
        b"NAME=a+00",
        b"NAME=a+7F",
        b"NAME=a+C2+85",
        b"NAME=a\xc3\xa9",
        b"NAME=a+FF",
        b"NAME=a\x00",
        b"N\xc3\x84ME=a",
        b"HELO=" + b"a" * 256,
        b"HELO=" + b"+41" * 256,
        b"ADDR=spike.example",
        b"ADDR=192.0.2.256",
        b"ADDR=2001:db8::1",
        b"ADDR=IPv6:192.0.2.1",
        b"ADDR=IPv6:fe80::1%25",
        b"PORT=smtp",
        b"PORT=123456",
        b"SOURCE=ELSEWHERE",
    ],
)
def test_bad_attributes_are_refused(argument):
    """Unknown, repeated, over-long and malformed attributes are answered 501, and so are control characters."""
    with pytest.raises(XforwardError) as refused:
        parse(argument)
    assert refused.value.reply is replies.SYNTAX


def test_only_what_is_offered_is_handed_on():
    """The next hop gets the attributes that it offers, and is told of what is not known."""
    assert commands(FULL, "NAME ADDR") == [b"XFORWARD NAME=spike.example ADDR=192.0.2.1\r\n"]
    assert commands(FULL, "proto") == [b"XFORWARD PROTO=ESMTP\r\n"]
    assert commands(Origin(address="192.0.2.1"), "NAME ADDR") == [b"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1\r\n"]
    assert commands(FULL, "") == []
    assert commands(FULL, "SOMETHING") == []


def test_long_values_take_several_commands():
    """A command line stays within 512 octets where more than one attribute is in it."""
    lines = commands(Origin(name="n" * 255, helo="h" * 255, ident="i" * 255), ALL)
    assert len(lines) > 1
    assert all(len(line) <= MAX_COMMAND for line in lines)
    origin = Origin()
    for line in lines:
        origin = parse(line.removeprefix(b"XFORWARD ").removesuffix(b"\r\n"), origin)
    assert origin == Origin(name="n" * 255, helo="h" * 255, ident="i" * 255)


VALUES = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=60)


@given(name=VALUES, helo=VALUES, ident=VALUES)
def test_what_is_handed_on_is_understood_the_same(name, helo, ident):
    """Written and parsed again, an origin is the same, and no value can end its command."""
    given_ = Origin(name=name, helo=helo, ident=ident, address="192.0.2.1")
    origin = Origin()
    for line in commands(given_, ALL):
        assert line.endswith(b"\r\n")
        assert all(32 <= octet < 127 for octet in line[:-2])
        origin = parse(line.removeprefix(b"XFORWARD ").removesuffix(b"\r\n"), origin)
    assert origin == given_


@given(argument=st.binary(max_size=60) | st.text("NAMEHLO=+0123[]. ", max_size=60).map(str.encode))
def test_any_argument_is_understood_or_refused(argument):
    """Nothing but the documented error is raised, and no control character comes through."""
    try:
        origin = parse(argument)
    except XforwardError:
        return
    for field in ATTRIBUTES.values():
        value = getattr(origin, field)
        assert len(value.encode()) <= 255
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value)


def test_the_client_is_the_origin_of_its_mail():
    """Where nothing was told about a client before it, the client itself is handed on."""
    client = Client("192.0.2.1", helo="mail.shop.example", esmtp=True)
    assert origin_of(client) == Origin(address="192.0.2.1", protocol="ESMTP", helo="mail.shop.example", source="REMOTE")
    assert origin_of(Client("2001:db8::1")).address == "IPv6:2001:db8::1"
    assert origin_of(Client("fe80::1%eth0")).address == "IPv6:fe80::1"
    assert origin_of(Client("")) == Origin(protocol="SMTP", source="LOCAL")
    assert origin_of(Client("192.0.2.1", origin=FULL)) is FULL

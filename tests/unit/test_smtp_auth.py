"""The AUTH dialogue without a socket."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import replies
from filter.replies import Reply
from filter.smtp_auth import AuthError, Credentials, Exchange


def _b64(octets):
    return base64.b64encode(octets)


@pytest.mark.parametrize(
    ("argument", "lines"),
    [
        (b"PLAIN " + _b64(b"\0shop\0open"), []),
        (b"plain " + _b64(b"shop\0shop\0open"), []),
        (b"PLAIN", [_b64(b"\0shop\0open")]),
        (b"LOGIN", [_b64(b"shop"), _b64(b"open")]),
        (b"LOGIN " + _b64(b"shop"), [_b64(b"open")]),
    ],
)
def test_every_form_gives_the_same_credentials(argument, lines):
    """PLAIN and LOGIN, with and without initial response, end in name and password (C6)."""
    exchange = Exchange(argument)
    step = exchange.begin()
    for line in lines:
        assert isinstance(step, Reply)
        assert step.code == 334
        step = exchange.step(line)
    assert step == Credentials(b"shop", b"open")
    assert "open" not in repr(step)


@pytest.mark.parametrize(
    ("argument", "lines", "reply"),
    [
        (b"", [], replies.SYNTAX),
        (b"PLAIN a b", [], replies.SYNTAX),
        (b"CRAM-MD5", [], replies.AUTH_MECHANISM_UNKNOWN),
        (b"PL\xc4IN", [], replies.AUTH_MECHANISM_UNKNOWN),
        (b"PLAIN =", [], replies.AUTH_NOT_BASE64),
        (b"PLAIN ***", [], replies.AUTH_NOT_BASE64),
        (b"PLAIN " + _b64(b"shop open"), [], replies.AUTH_NOT_BASE64),
        (b"PLAIN " + _b64(b"boss\0shop\0open"), [], replies.AUTH_NOT_BASE64),
        (b"PLAIN", [b"*"], replies.AUTH_CANCELLED),
        (b"LOGIN", [_b64(b"shop"), b"*"], replies.AUTH_CANCELLED),
        (b"LOGIN", [b"\xff"], replies.AUTH_NOT_BASE64),
    ],
)
def test_what_is_no_login_is_refused(argument, lines, reply):
    """Unknown mechanisms, bad base64, acting for another and giving up each have their reply (C6)."""
    with pytest.raises(AuthError) as caught:
        _play(argument, lines)
    assert caught.value.reply is reply


def _play(argument, lines):
    exchange = Exchange(argument)
    exchange.begin()
    for line in lines:
        exchange.step(line)


@given(st.binary(max_size=60), st.lists(st.binary(max_size=60), max_size=3))
def test_nothing_else_is_raised(argument, lines):
    """Whatever a client says, the dialogue goes on or is refused (B14)."""
    with suppress(AuthError):
        _play(argument, lines)

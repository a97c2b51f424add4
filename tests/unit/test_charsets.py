"""Octets become text only through charsets on the allow-list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.charsets import decode


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        ("£5 \u2013 café".encode(), "utf-8", "£5 \u2013 café"),
        (b"caf\xe9 \x93q\x94", "iso-8859-1", "café “q”"),
        (b"\xc4\xe3\xba\xc3", "gb2312", "你好"),
        ("привет".encode("koi8-r"), "KOI8-R", "привет"),
        (b"\x1b$B$3$s\x1b(B", "iso-2022-jp", "こん"),
        ("hé".encode("utf-16"), "utf-16", "hé"),
        (b"plain", "", "plain"),
    ],
)
def test_known_charsets_are_read(octets, charset, text):
    """A charset mail uses is read as mail readers read it, in any case, without a mark."""
    assert decode(octets, charset) == (text, False, False)


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "idna", "punycode", "rot13", "hex", "zip", "nobody"])
def test_other_codecs_are_never_used(charset):
    """A name off the list is reported as unknown and its octets are shown as they are."""
    assert decode(b"+ADw- \\u0041 \xe9", charset) == ("+ADw- \\u0041 é", False, True)


def test_damage_is_replaced_and_reported():
    """Octets that do not fit the declared charset become U+FFFD and the result says so."""
    assert decode(b"a\xffb", "utf-8") == ("a\ufffdb", True, False)


def test_undeclared_eight_bit_is_utf8_or_windows():
    """Without a charset, UTF-8 is tried before windows-1252, and both are reported as not declared."""
    assert decode("é".encode(), "us-ascii") == ("é", True, False)
    assert decode(b"\xe9", "") == ("é", True, False)


@given(st.binary(max_size=200), st.sampled_from(["", "utf-8", "utf-16", "big5", "iso-2022-jp", "idna", "x"]))
def test_any_octets_decode(octets, charset):
    """Whatever the octets and the label, there is text and no exception."""
    assert isinstance(decode(octets, charset).text, str)

"""PROXY headers: found in pieces, bounded, and strict, as they decide whose a connection is."""

import ipaddress
import struct

import pytest
from aiosmtpd.proxy_protocol import V2_SIGNATURE
from hypothesis import given
from hypothesis import strategies as st

from filter.smtp_proxy import MAX_V1, MAX_V2, ProxyError, client_address, header_size, parse

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"
V2_4 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4711, 25)
V2_6 = (
    V2_SIGNATURE + b"\x21\x21\x00\x24" + ipaddress.ip_address("2001:db8::7").packed * 2 + struct.pack("!HH", 4711, 25)
)
V2_LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
        (V2_4, "192.0.2.7"),
        (V2_6, "2001:db8::7"),
        (V2_LOCAL, ""),
        (V2_SIGNATURE + b"\x20\x11\x00\x0c" + V2_4[16:], ""),
        (V2_SIGNATURE + b"\x21\x11\x00\x0f" + V2_4[16:] + b"\x04\x00\x00", "192.0.2.7"),
    ],
)
def test_header_says_who_the_client_is(header, address):
    """The header ends where it ends, whatever follows, and gives the client's address or none (A13, C4)."""
    for size in range(1, len(header)):
        assert header_size(header[:size]) is None
    assert header_size(header + b"EHLO x\r\n") == len(header)
    assert client_address(parse(header)) == address


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4 " + b"1" * MAX_V1,
        V2_SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_V2),
        b"\r\n\r\n\x00\r\nQUIT\r",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_header_or_an_endless_one_is_refused(octets):
    """Absent and over-long headers are refused as soon as that is certain (C4)."""
    with pytest.raises(ProxyError):
        header_size(octets)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 2001:db8::7 198.51.100.1 4711 25\r\n",
        b"PROXY TCP4 192.0.2.999 198.51.100.1 4711 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 70000\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        V2_SIGNATURE + b"\x21\x12\x00\x0c" + V2_4[16:],
        V2_SIGNATURE + b"\x21\x11\x00\x04" + V2_4[16:20],
        V2_SIGNATURE + b"\x31\x11\x00\x0c" + V2_4[16:],
        V2_SIGNATURE + b"\x25\x11\x00\x0c" + V2_4[16:],
    ],
)
def test_garbled_header_is_refused(header):
    """A header that cannot be believed in every part is not believed at all (C4)."""
    assert header_size(header) == len(header)
    with pytest.raises(ProxyError):
        parse(header)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda rest: V2_SIGNATURE + rest)))
def test_nothing_else_is_raised(octets):
    """Whatever comes, it is a header, needs more, or is refused (B14)."""
    try:
        size = header_size(octets)
        if size is not None:
            client_address(parse(octets[:size]))
    except ProxyError:
        pass

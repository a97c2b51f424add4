"""Replies of the next hop are read the same however they are cut, and nothing it sends makes the reader grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.smtp_reply import MAX_LINE, MAX_LINES, MAX_REPLY, ReplyReader, ServerReply

TEXT = st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"\x80").replace(b"\r", b"\x01"))
REPLIES = st.builds(
    lambda code, lines: ServerReply(code, tuple(lines)),
    st.integers(200, 599),
    st.lists(TEXT, min_size=1, max_size=4),
)


def _encode(reply: ServerReply) -> bytes:
    last = len(reply.lines) - 1
    return b"".join(
        b"%d%s%s\r\n" % (reply.code, b" " if number == last else b"-", line) for number, line in enumerate(reply.lines)
    )


def _read(pieces: list[bytes]) -> tuple[list[ServerReply], str]:
    reader = ReplyReader()
    replies = [reply for piece in pieces for reply in reader.feed(piece)]
    return replies, reader.broken


@given(st.lists(REPLIES, max_size=5))
def test_replies_come_out_as_they_went_in(replies: list[ServerReply]):
    """Whatever text a reply has, its code and its lines are given as sent."""
    assert _read([b"".join(map(_encode, replies))]) == (replies, "")


@given(st.lists(st.one_of(REPLIES.map(_encode), st.binary(max_size=30)), max_size=5).map(b"".join))
def test_a_stream_cut_anywhere_reads_the_same(stream: bytes):
    """Cut at any one place or between all octets, good and bad replies read the same up to the first fault (D11)."""
    whole, broken = _read([stream])
    for cut in range(len(stream) + 1):
        replies, why = _read([stream[:cut], stream[cut:]])
        assert (replies, bool(why)) == (whole, bool(broken))
    replies, why = _read([stream[at : at + 1] for at in range(len(stream))])
    assert (replies, bool(why)) == (whole, bool(broken))


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250\r\n", ServerReply(250, (b"",))),
        (b"250 \r\n", ServerReply(250, (b"",))),
        (b"250-a\r\n250\r\n", ServerReply(250, (b"a", b""))),
        (b"571 second digit out of range\r\n", ServerReply(571, (b"second digit out of range",))),
        (b"550 8-bit \xff and \x00\r\n", ServerReply(550, (b"8-bit \xff and \x00",))),
        (b"550 a\rb\r\n", ServerReply(550, (b"a\rb",))),
        (b"550 " + b"x" * 10_000 + b"\r\n", ServerReply(550, (b"x" * 10_000,))),
    ],
)
def test_unusual_replies_keep_their_code(octets: bytes, expected: ServerReply):
    """What can be read as a reply is one: its class must reach the client (D11)."""
    assert _read([octets]) == ([expected], "")


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"hello\r\n",
        b"25 short\r\n",
        b"2500 long\r\n",
        b"250_underscore\r\n",
        b"150 no such class\r\n",
        b"650 no such class\r\n",
        b"+50 sign\r\n",
        b" 250 space\r\n",
        b"\xd9\xa2\xd9\xa5\xd9\xa0 digits that are not ASCII\r\n",
        b"250 line feed only\n",
        b"250 line feed\n250 inside\r\n",
        b"250-one code\r\n550 another\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"250 " + b"x" * MAX_LINE,
        b"250-more\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 10_000 + b"\r\n") * (MAX_REPLY // 10_000 + 1),
    ],
)
def test_what_is_no_reply_breaks_the_reader(octets: bytes):
    """Malformed, endless and oversized replies are recognised as soon as it can be known (D11)."""
    replies, broken = _read([octets])
    assert not replies
    assert broken


def test_a_broken_reader_stays_broken():
    """After a fault it cannot be told which reply is whose, so nothing more is read."""
    reader = ReplyReader()
    assert reader.feed(b"250 good\r\nbad\r\n250 good\r\n") == [ServerReply(250, (b"good",))]
    assert reader.broken
    assert reader.feed(b"250 good\r\n") == []


def test_an_unfinished_reply_is_seen():
    """The reader tells an idle connection from one in the middle of a reply."""
    reader = ReplyReader()
    assert not reader.partial
    reader.feed(b"250-a\r\n")
    assert reader.partial
    reader.feed(b"250")
    assert reader.partial
    reader.feed(b" b\r\n")
    assert not reader.partial

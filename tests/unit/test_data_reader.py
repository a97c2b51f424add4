"""Reading a message after 354: what ends it, what becomes of its lines, and what bounds it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.ingress import read_plainly

from filter.data_reader import Data, DataReader, regular, stuff

# What has been taken for an end of data somewhere, and is none: only CRLF.CRLF is.
NO_ENDS = (
    b"\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n. \r\n",
    b"\r\n..\r\n",
)
SMUGGLED = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
PLACES = {"header": b"Subject: a", "body": b"Subject: a\r\n\r\nb", "first line": b""}


def read(octets, *cuts, limit=10_000):
    """The message and what came after it, fed in pieces cut at these places."""
    reader = DataReader(limit)
    pieces = [octets[start:end] for start, end in zip((0, *cuts), (*cuts, len(octets)), strict=True)]
    for number, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader.finish(), rest + b"".join(pieces[number + 1 :])
    return None


def seen(data):
    """The names of the flags that say that something was irregular."""
    return {name for name in ("nul", "bare_cr", "bare_lf") if getattr(data, name)}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("end", NO_ENDS, ids=repr)
def test_only_one_thing_ends_a_message(place, end):
    """Whatever else looks like an end is content, however the octets are split; what goes out has one end (A1, A2)."""
    octets = PLACES[place] + end + SMUGGLED + b".\r\n"
    for cut in range(len(octets) + 1):
        data, rest = read(octets, cut)
        assert rest == b""
        assert b"RCPT TO" in data.content
        assert data == read(octets)[0]
        sent = stuff(data.content)
        assert sent.count(b"\r\n.\r\n") == 1
        assert sent.endswith(b"\r\n.\r\n")
        plain = sent.replace(b"\r\n", b"")
        assert not set(plain) & {0, 10, 13}


@pytest.mark.parametrize("place", PLACES)
def test_the_right_end_ends_it_wherever_it_is_split(place):
    """CRLF.CRLF ends the message, at the very beginning too, and what follows is given back (A1, A9)."""
    octets = PLACES[place] + (b"\r\n" if place != "first line" else b"") + b".\r\nQUIT\r\n"
    wanted = octets.removesuffix(b".\r\nQUIT\r\n")
    for first in range(len(octets) + 1):
        for second in range(first, len(octets) + 1):
            assert read(octets, first, second) == (Data(wanted), b"QUIT\r\n")
    assert read(octets, *range(1, len(octets))) == (Data(wanted), b"QUIT\r\n")


ALPHABET = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\xe9", b"\r\n.", b"\r\n.\r\n", b"\r\n..", b"." * 9]
)


@given(pieces=st.lists(ALPHABET, max_size=40), data=st.data())
@example(pieces=[b".", b"\r\n"], data=None)
def test_it_reads_what_a_reader_of_octets_reads(pieces, data):
    """Content, flags and rest are those of a reader that looks at each octet, for any input in any pieces (A1, A2)."""
    octets = b"".join(pieces) + b"\r\n.\r\nrest"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6))) if data else []
    content, flags, rest = read_plainly(octets)
    found, after = read(octets, *cuts)
    assert (found.content, seen(found), after) == (content, flags, rest)
    assert found.irregular == bool(flags)
    assert found.eight_bit == (b"\xe9" in content)


@given(pieces=st.lists(ALPHABET, max_size=40))
def test_what_goes_out_comes_in_again(pieces):
    """Regular content, stuffed and read by a server like this one, is the same content, without irregularity (A2)."""
    content = regular(b"".join(pieces)).content
    data, rest = read(stuff(content))
    assert data.content == content + (b"" if not content or content.endswith(b"\r\n") else b"\r\n")
    assert not data.irregular
    assert rest == b""


@given(pieces=st.lists(ALPHABET, max_size=40))
def test_regular_content_stays_as_it_is(pieces):
    """Making regular twice changes nothing more."""
    once = regular(b"".join(pieces)).content
    again = regular(once)
    assert again.content == once
    assert not again.irregular


def test_messages_of_any_shape_pass_unchanged():
    """No octets, only a header, only a body, dots, a long line: the content is what was sent (A14, A15)."""
    for content in (b"", b"\r\n", b"A: b\r\n", b"\r\nbody\r\n", b".\r\n..\r\n.a\r\n", b"x" * 70_000 + b"\r\n"):
        data, _ = read(stuff(content), limit=100_000)
        assert data.content == content
        assert not data.irregular


@pytest.mark.parametrize(("size", "long"), [(997, False), (998, False), (999, True), (1000, True), (65_536, True)])
@pytest.mark.parametrize("before", [b"", b"a\r\n", b"b" * 998 + b"\r\n", b"c" * 500 + b"\r\n" + b"d" * 400 + b"\r\n"])
def test_long_lines_are_seen(size, long, before):
    """A line of more than 998 octets is told, wherever it stands (A15)."""
    for after in (b"", b"e\r\n" * 400):
        data, _ = read(before + b"x" * size + b"\r\n" + after + b".\r\n", limit=100_000)
        assert data.long_line is long


def test_the_limit_is_that_of_the_size_extension():
    """Stuffed dots and the end do not count; one octet over the limit is too big; the end is still found (B2)."""
    content = b".a\r\n" * 25
    octets = stuff(content) + b"QUIT\r\n"
    for cuts in ((), (10, 60), tuple(range(1, len(octets)))):
        assert read(octets, *cuts, limit=100) == (Data(content), b"QUIT\r\n")
        assert read(octets, *cuts, limit=99) == (Data(b"", too_big=True), b"QUIT\r\n")


def test_the_limit_is_the_same_however_octets_come():
    """What is taken out later counts, and no dot of a split end makes room for one octet more (B2)."""
    octets = b"..\0\r\n.\r\n"
    for cut in range(len(octets) + 1):
        assert read(octets, cut, limit=4) == (Data(b".\r\n", nul=True), b"")
        assert read(octets, cut, limit=3) == (Data(b"", too_big=True), b"")


def test_what_grows_over_the_limit_is_too_big():
    """Content that passes the limit only once its line ends are regular is too big as well."""
    assert read(b"\n" * 80 + b"\r\n.\r\n", limit=100) == (Data(b"", too_big=True), b"")


def test_nothing_is_kept_past_the_limit():
    """Without any line end, what is held never passes the limit, in large and in small pieces (B1)."""
    for size in (1, 3000, 65_536):
        reader = DataReader(100_000)
        for _ in range(300_000 // size):
            assert reader.feed(b"x" * size) is None
            assert len(reader._small) + sum(map(len, reader._chunks)) <= 100_003
            assert len(reader._chunks) <= 100
        assert reader.too_big
        assert reader.received == 300_000 // size * size
        assert reader.feed(b"\r\n.\r\nQUIT\r\n") == b"QUIT\r\n"
        assert reader.finish() == Data(b"", too_big=True)


def test_an_end_that_is_none_does_not_end_what_is_too_big():
    """Past the limit, too, only CRLF.CRLF ends the message (A1)."""
    for end in NO_ENDS:
        reader = DataReader(10)
        assert reader.feed(b"x" * 100) is None
        for octet in end + SMUGGLED:
            assert reader.feed(bytes([octet])) is None
        assert reader.feed(b".\r\nNOOP\r\n") == b"NOOP\r\n"


def test_received_counts_what_was_fed():
    """`received` counts the message with its end, and not what came after."""
    octets = b"a\r\n..b\r\n.\r\n"
    for cut in range(len(octets) + 1):
        reader = DataReader(100)
        if reader.feed(octets[:cut]) is None:
            reader.feed(octets[cut:] + b"NOOP\r\n")
        assert reader.received == len(octets)

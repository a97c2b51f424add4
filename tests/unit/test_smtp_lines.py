"""Lines out of octets: bounded, ended by CRLF only, the same however the octets were cut."""

from hypothesis import given
from hypothesis import strategies as st

from filter.smtp_lines import BareLineFeedError, Input, LineTooLongError

LIMIT = 16


def _lines(chunks):
    """What `line` gave and raised for these chunks, in order."""
    taken, found = Input(), []
    taken.limit = LIMIT
    for chunk in chunks:
        taken.add(chunk)
        while True:
            try:
                line = taken.line()
            except LineTooLongError:
                line = "too long"
            except BareLineFeedError:
                return [*found, "bare LF"], taken
            if line is None:
                break
            found.append(line)
    return found, taken


@given(st.lists(st.binary(max_size=40).map(lambda octets: octets.replace(b"\n", b"") + b"\r\n"), max_size=8), st.data())
def test_cuts_change_nothing(lines, data):
    """Any cut of the same octets gives the same lines, and long ones are refused at the same place (B1)."""
    octets = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    wanted = [line[:-2] if len(line) <= LIMIT else "too long" for line in lines]
    assert _lines(chunks)[0] == wanted


def test_endless_line_is_not_kept():
    """A line that never ends takes no more memory than the limit (B1)."""
    taken = Input()
    for _ in range(1000):
        taken.add(b"x" * 10_000)
        assert taken.line() is None
        assert len(taken.peek()) <= taken.limit


def test_bare_line_feed_is_told_at_once():
    """A client that ends lines in LF is not waited for."""
    assert _lines([b"NOOP\r\nNOOP\n"])[0] == [b"NOOP", "bare LF"]


def test_rest_is_there_for_others():
    """What is not a line yet can be taken as octets."""
    found, taken = _lines([b"DATA\r\nab"])
    assert found == [b"DATA"]
    assert len(taken) == 2
    assert taken.take() == b"ab"
    assert not taken

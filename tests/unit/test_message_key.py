"""Queue ids never repeat and keep the order of time; message keys are the same for the same message only."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.envelope import MailFrom, RcptTo
from filter.message_key import KEY_SIZE, MessageKeyer, QueueIds, has_message_id

KEYER = MessageKeyer(b"k" * 32)
MAIL = MailFrom(b"a@b.example")
PATHS = st.lists(st.binary(max_size=12).map(lambda path: path.replace(b"\n", b"")), max_size=4)


def rcpts(*paths: bytes) -> list[RcptTo]:
    """Recipients with these paths."""
    return [RcptTo(path) for path in paths]


@given(st.lists(st.integers(min_value=0, max_value=2**43), max_size=60))
def test_queue_ids_are_in_order_whatever_the_clock_does(times: list[int]) -> None:
    """Each id is greater than the one before, also when the clock stands still or is set back."""
    ids = QueueIds()
    given_out = [ids.next(at) for at in times]
    assert all(earlier < later for earlier, later in pairwise(given_out))
    assert all(re.fullmatch(r"[0-9A-Z]{21}", one) for one in given_out)


def test_more_ids_than_a_millisecond_holds() -> None:
    """When the counter of a millisecond is used up, the next one is begun."""
    ids = QueueIds()
    given_out = [ids.next(1) for _ in range(70_000)]
    assert given_out == sorted(set(given_out))


def test_processes_do_not_give_out_the_same_id() -> None:
    """Two processes that count from the same millisecond differ in their letters."""
    assert QueueIds().next(1) != QueueIds().next(1)


def test_the_order_of_recipients_does_not_matter() -> None:
    """A client that lists the recipients differently the second time hands over the same message."""
    assert KEYER.key(MAIL, rcpts(b"x@y", b"z@y"), b"text") == KEYER.key(MAIL, rcpts(b"z@y", b"x@y"), b"text")


@given(st.tuples(st.just(b"s"), PATHS, st.binary()), st.tuples(st.just(b"s"), PATHS, st.binary()))
def test_another_message_has_another_key(one: tuple, other: tuple) -> None:
    """Keys are equal exactly when reverse path, recipients and content are."""
    keys = [KEYER.key(MailFrom(sender), rcpts(*paths), content) for sender, paths, content in (one, other)]
    same = (one[0], sorted(one[1]), one[2]) == (other[0], sorted(other[1]), other[2])
    assert (keys[0] == keys[1]) is same


def test_sender_recipients_and_repeats_count() -> None:
    """The null sender, a further recipient and a recipient named twice each make another message."""
    keys = {
        KEYER.key(MAIL, rcpts(b"x@y"), b"text"),
        KEYER.key(MailFrom(b""), rcpts(b"x@y"), b"text"),
        KEYER.key(MAIL, rcpts(b"x@y", b"x@y"), b"text"),
        KEYER.key(MAIL, rcpts(b"x@y", b"z@y"), b"text"),
        MessageKeyer(b"l" * 32).key(MAIL, rcpts(b"x@y"), b"text"),
    }
    assert len(keys) == 5
    assert {len(key) for key in keys} == {KEY_SIZE}


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_secret_of_the_wrong_size_is_refused(size: int) -> None:
    """A secret that could be searched, or that BLAKE2b does not take, is refused with the sizes allowed."""
    with pytest.raises(ValueError, match="16 to 64"):
        MessageKeyer(b"k" * size)


@pytest.mark.parametrize(
    ("content", "has"),
    [
        (b"Message-ID: <1@a.example>\r\n\r\n", True),
        (b"Subject: x\r\nMESSAGE-id :\r\n\t<1@a.example>\r\n\r\n", True),
        (b"Subject: x\r\nMessage-ID: <1@a.example>", True),
        (b"Message-ID: \r\nSubject: x\r\n\r\n", False),
        (b"Subject: x\r\n\r\nMessage-ID: <1@a.example>\r\n", False),
        (b"\r\nMessage-ID: <1@a.example>\r\n", False),
        (b"X-Message-ID: <1@a.example>\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_the_header_names_a_message(content: bytes, *, has: bool) -> None:
    """A Message-ID that is empty, of another name or in the body is none."""
    assert has_message_id(content) is has

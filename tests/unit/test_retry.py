"""When a delivery is tried again, and when not any more."""

from hypothesis import given
from hypothesis import strategies as st

from filter.retry import DAY, HOUR, MINUTE, Retry

RETRY = Retry()


def test_pauses_double_up_to_four_hours() -> None:
    """One minute first, and never more than the longest."""
    assert [RETRY.pause(attempt) // MINUTE for attempt in (0, 1, 2, 7, 8, 10**9)] == [1, 2, 4, 128, 240, 240]


@given(st.integers(1, 30 * DAY), st.integers(1, HOUR), st.integers(HOUR, DAY))
def test_it_is_given_up_after_the_time_and_not_before(give_up: int, first: int, longest: int) -> None:
    """Attempts made as planned end with the first at or after the time."""
    retry = Retry(first=first, longest=longest, give_up=give_up)
    at = attempts = 0
    while not retry.over(attempts, 0, at):
        assert at < give_up
        at += retry.pause(attempts)
        attempts += 1
    assert at >= give_up


def test_time_alone_gives_nothing_up() -> None:
    """A machine that was off for a month makes as many attempts as half of the time has."""
    attempts = next(number for number in range(100) if RETRY.over(number, 0, 30 * DAY))
    assert 10 < attempts < 30

"""A host that fails is left alone for a while, and one attempt finds out whether it works again."""

from support.memory_hop import Clock

from filter.next_hop_breaker import Breaker, BreakerState


def _opened(clock: Clock) -> Breaker:
    breaker = Breaker(3, 10.0, clock)
    assert [breaker.failed() for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_failures_in_a_row():
    """Only failures in a row count, and the opening is told once (D14)."""
    breaker = Breaker(2, 10.0, Clock())
    assert not breaker.failed()
    assert not breaker.succeeded()
    assert not breaker.failed()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.failed()
    assert not breaker.failed()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit()


def test_it_lets_one_through_after_the_pause():
    """Half open, one attempt is admitted and no second one beside it (D14)."""
    clock = Clock()
    breaker = _opened(clock)
    clock.now += 10
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit()
    assert not breaker.admit()
    assert breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit()
    assert breaker.admit()


def test_a_failed_attempt_opens_it_for_another_pause():
    """The pause begins anew with each attempt that fails (D14)."""
    clock = Clock()
    breaker = _opened(clock)
    for _ in range(3):
        clock.now += 10
        assert breaker.admit()
        assert breaker.failed()
        assert breaker.state is BreakerState.OPEN
        assert not breaker.admit()


def test_an_attempt_without_finding_lets_the_next_one_try():
    """A client that leaves in the decisive attempt does not keep the host shut."""
    clock = Clock()
    breaker = _opened(clock)
    clock.now += 10
    assert breaker.admit()
    breaker.gave_up()
    assert breaker.admit()

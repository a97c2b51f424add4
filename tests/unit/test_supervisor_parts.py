"""What the supervisor decides by: pauses between starts, reports of workers, the lines between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import control
from filter.backoff import FIRST, LONGEST, QUIET, Backoff
from filter.control import Assignment, Do
from filter.health import Notice, NotReady, Report, health


def test_pauses_grow_while_lives_are_short() -> None:
    """0.1 s, then twice as long each time, 30 s at most."""
    backoff = Backoff()
    pauses = [backoff.pause(lived=1.0) for _ in range(12)]
    assert pauses[:4] == [FIRST, FIRST * 2, FIRST * 4, FIRST * 8]
    assert pauses[-1] == pauses[-2] == LONGEST


def test_a_quiet_minute_makes_good() -> None:
    """After a long life the next start comes quickly again."""
    backoff = Backoff()
    for _ in range(12):
        backoff.pause(lived=0.0)
    assert backoff.pause(lived=QUIET) == FIRST
    assert backoff.pause(lived=0.0) == FIRST * 2


@given(st.lists(st.floats(0, 1000)))
def test_pauses_have_bounds(lives: list[float]) -> None:
    """Whatever the lives, a pause is never shorter than the first and never longer than the longest."""
    backoff = Backoff()
    assert all(FIRST <= backoff.pause(lived) <= LONGEST for lived in lives)


REPORTS = st.builds(
    Report,
    st.lists(st.sampled_from(NotReady), unique=True).map(tuple),
    st.lists(st.sampled_from(Notice), unique=True).map(tuple),
    st.integers(0, 100_000),
)


@given(REPORTS)
def test_a_report_survives_the_line(report: Report) -> None:
    """What a worker says is what the supervisor reads."""
    assert Report.read(control.decode(control.encode(report.document()))) == report


@pytest.mark.parametrize(
    "document",
    [{}, {"reasons": [], "notices": []}, {"reasons": ["tired"], "notices": [], "lag_ms": 0}, {"reasons": 1}],
)
def test_a_bad_report_is_refused(document: dict[str, object]) -> None:
    """A report with a missing field or an unknown word is none."""
    with pytest.raises(ValueError, match=r"not a report|is not a valid"):
        Report.read(document)


def test_all_well() -> None:
    """Ready is when every worker is."""
    found = health([Report(), Report()])
    assert found.ready
    assert found.document() == {
        "ready": True,
        "reasons": (),
        "notices": (),
        "workers": {"wanted": 2, "ready": 2},
    }


def test_one_worker_is_enough_to_be_unready() -> None:
    """The reasons of all workers are listed once each; a missing worker is a reason (I1)."""
    held = Report((NotReady.HOLD_NO_ROOM,), (Notice.CONSENT_STALE,))
    found = health([Report(), held, held, None])
    assert not found.ready
    assert found.reasons == (NotReady.HOLD_NO_ROOM, NotReady.WORKER_MISSING)
    assert found.notices == (Notice.CONSENT_STALE,)
    assert (found.workers_wanted, found.workers_ready) == (4, 1)


def test_a_notice_alone_keeps_ready() -> None:
    """Missing consent data is told and does not stop the mail: marketing is held (I1)."""
    assert health([Report(notices=(Notice.CONSENT_MISSING,))]).ready


def test_the_whole_can_be_unready() -> None:
    """Draining makes the whole not ready, whatever the workers say."""
    assert health([Report()], also=[NotReady.DRAINING]).reasons == (NotReady.DRAINING,)


def test_an_assignment_survives_the_line() -> None:
    """A worker reads what the supervisor wrote, the configuration octet for octet."""
    assignment = Assignment("/etc/x.toml", '[smtp]\nhostname = "ü"\n', "v1", 1, 3, ((5, False), (6, True)))
    assert Assignment.read(control.decode(assignment.line())) == assignment


@pytest.mark.parametrize("document", [{}, {"assign": 1}, {"assign": {"sockets": []}}, {"assign": {"sockets": [1]}}])
def test_a_bad_assignment_is_refused(document: dict[str, object]) -> None:
    """An assignment that lacks anything is none."""
    with pytest.raises(ValueError, match="not an assignment"):
        Assignment.read(document)


@pytest.mark.parametrize("line", [b"", b"{", b"[1]\n", b"\xff\n"])
def test_a_line_that_is_none(line: bytes) -> None:
    """Lines are JSON objects."""
    with pytest.raises(ValueError, match=r".+"):
        control.decode(line)


def test_what_a_worker_can_be_told() -> None:
    """The words of the protocol do not change unnoticed."""
    assert list(Do) == ["drain", "hurry"]

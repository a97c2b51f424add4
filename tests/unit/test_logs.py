"""The log: one line an event, nothing that breaks out of it, no text of exceptions."""

import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import logs


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    """Everything logged goes here; afterwards logging is as it was."""
    root, own = logging.getLogger(), logging.getLogger("consentry")
    before = root.handlers[:], root.level, own.level, logging.raiseExceptions
    stream = io.StringIO()
    logs.configure(stream, pid=7)
    yield stream
    root.handlers[:], root.level, own.level, logging.raiseExceptions = before


def test_an_event_is_one_line(log: io.StringIO) -> None:
    """Time, level, event, process, fields; a field without a value is left out."""
    logs.event(logs.WARNING, "worker_ended", slot=0, status="SIGKILL", reason=None)
    at, _, rest = log.getvalue().partition(" ")
    assert at.endswith("Z")
    assert rest == "warning worker_ended pid=7 slot=0 status=SIGKILL\n"


def test_text_is_quoted(log: io.StringIO) -> None:
    """Spaces, quotes and control characters cannot pass for another field or line."""
    logs.event(logs.INFO, "x", reason='a "b"\nready level=error', empty="")
    assert log.getvalue().endswith('x pid=7 reason="a \\"b\\"\\nready level=error" empty=""\n')


def test_a_fault_names_places_not_values(log: io.StringIO) -> None:
    """An unexpected exception is logged by type and place, without its text."""
    try:
        {}["someone@home.example"]
    except KeyError as error:
        logs.fault("judging_failed", error)
    line = log.getvalue()
    assert "judging_failed pid=7 error=KeyError at=" in line
    assert "test_a_fault_names_places_not_values" in line
    assert "home.example" not in line


def test_libraries_are_heard_from_warning_on(log: io.StringIO) -> None:
    """Other loggers' warnings come in the same form; what they say below is left out."""
    other = logging.getLogger("some.library")
    other.info("connection from %s", "192.0.2.1")
    try:
        int("someone@home.example")
    except ValueError:
        other.exception("session failed")
    (line,) = log.getvalue().splitlines()
    assert 'error library pid=7 logger=some.library message="session failed" error=ValueError at=' in line
    assert "home.example" not in line


@given(st.text())
def test_any_value_stays_on_its_line(text: str) -> None:
    """Whatever a value holds, the line stays one printable line."""
    stream = io.StringIO()
    logs.configure(stream)
    logs.event(logs.ERROR, "x", value=text)
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()

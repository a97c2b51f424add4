"""Tables fit the terminal, and ages are told in words."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from filter.display import ago
from filter.tables import Column, FittingTable

COLUMNS = (Column("id"), Column("size", 2, right=True), Column("sender", 1), Column("subject", least=7))
ROW = ("a1b2c3d4", "1,234", "bank.example", "Your statement is ready")


def shown(width: int, *rows: tuple[str, ...]) -> list[str]:
    """The lines of a table on a terminal of this width."""
    written = io.StringIO()
    table = FittingTable(COLUMNS, [[Text(cell) for cell in row] for row in rows])
    Console(file=written, width=width).print(table)
    return [line.rstrip() for line in written.getvalue().splitlines()]


def test_everything_is_shown_where_there_is_room():
    """Headings and cells stand in columns, numbers to the right, and nothing else is said."""
    assert shown(60, ROW, ("b", "5", "c.example", "x")) == [
        "id         size  sender        subject",
        "a1b2c3d4  1,234  bank.example  Your statement is ready",
        "b             5  c.example     x",
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (45, ["a1b2c3d4  1,234  bank.example  Your statemen…"]),
        (32, ["a1b2c3d4  bank.example  Your st…", "No room for: size."]),
        (28, ["a1b2c3d4  Your statement is…", "No room for: size, sender."]),
    ],
)
def test_columns_are_left_out_whole_and_named(width, lines):
    """The most dispensable ones first; only what may be cut is cut."""
    assert shown(width, ROW)[1:] == lines


def test_no_terminal_is_too_narrow():
    """Where there is no room for what cannot be left out, it is cut."""
    assert shown(5, ROW)
    assert shown(60) == ["id  size  sender  subject"]


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (-5_000, "0 s ago"),
        (119_999, "119 s ago"),
        (120_000, "2 min ago"),
        (7_199_999, "119 min ago"),
        (7_200_000, "2 h ago"),
        (48 * 3_600_000, "2 d ago"),
        (4000 * 86_400_000, "4,000 d ago"),
    ],
)
def test_ages_are_told_in_the_largest_unit_that_fits(passed, told):
    """Seconds, minutes, hours, days; a clock that jumped back makes nothing negative."""
    assert ago(1_790_000_000_000 - passed, 1_790_000_000_000) == told

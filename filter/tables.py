"""Tables that fit the terminal: what has no room is left out whole and named, rather than all of it cut to nothing.

Builds a rich renderable; prints nothing. Raises nothing.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP: Final = 2  # characters between columns


class Column(NamedTuple):
    """A column. `least` is how far it may be cut, in characters (0: never); those with the highest `spare` are left out
    first where there is no room (0: never).
    """

    heading: str
    spare: int = 0
    least: int = 0
    right: bool = False


class FittingTable:
    """Rows of cells, one for each column."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table with as many of its columns as there is room for."""
        shown = self._fitting(options.max_width)
        room = options.max_width - sum(self._least(number) + _GAP for number in shown) + _GAP
        table = Table(box=None, pad_edge=False, header_style="dim")
        for number in shown:
            column, least = self._columns[number], self._least(number)
            more = min(max(room, 0), self._width(number) - least)
            room -= more
            table.add_column(
                column.heading, justify="right" if column.right else "left", no_wrap=True, width=least + more
            )
        for row in self._rows:
            table.add_row(*[row[number] for number in shown])
        yield table
        left_out = [column.heading for number, column in enumerate(self._columns) if number not in shown]
        if left_out:
            yield Text(f"No room for: {', '.join(left_out)}.", "dim")

    def _fitting(self, room: int) -> list[int]:
        """The columns that are shown, by their place."""
        shown = list(range(len(self._columns)))
        while sum(self._least(number) + _GAP for number in shown) - _GAP > room:
            spare = max(shown, key=lambda number: self._columns[number].spare)
            if not self._columns[spare].spare:
                break
            shown.remove(spare)
        return shown

    def _least(self, number: int) -> int:
        """What a column takes at least."""
        return min(self._columns[number].least or self._width(number), self._width(number))

    def _width(self, number: int) -> int:
        cells = (cell_len(row[number].plain) for row in self._rows)
        return max(cell_len(self._columns[number].heading), *cells, 0)

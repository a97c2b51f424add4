"""Panels drawn with matplotlib: graphs, single figures, bars, states over time and tables.

Each function draws the series of one panel into its place; what none of them knows is a ValueError. Only what the
dashboards use of Grafana's options is heeded: units, thresholds, mappings, overrides of colour, unit, axis and line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor, isfinite, nan
from typing import Any, Final, NamedTuple

from dashboards import Panel, Query, Sample, Window, named
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from units import shown

Answer = tuple[Query, Sample]
INK, PALE, GRID = "#24292e", "#6e7681", "#e4e6ea"
COLOURS: Final[Mapping[str, str]] = {
    "green": "#56a64b",
    "red": "#e02f44",
    "orange": "#ff9830",
    "blue": "#3274d9",
    "purple": "#a352cc",
    "yellow": "#f2cc0c",
    "super-light-green": "#c8f2c2",
    "text": INK,
    "transparent": "none",
}
PALETTE: Final = (
    *("#56a64b", "#f2cc0c", "#3274d9", "#ff780a", "#e02f44", "#8ab8ff", "#a352cc", "#37872d", "#b5a300"),
    *("#1f60c4", "#fa6400", "#c4162a", "#5794f2", "#8f3bb8", "#96d98d", "#ffb357", "#ff7383", "#ca95e5"),
)
WIDE: Final = 1000.0  # from where on a logarithmic scale needs no lines between powers of ten
DAY: Final = 86400
TICKS: Final = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY)
MOST_TICKS: Final = 6
LEGEND_ROW: Final = 0.75  # of a unit of height
MARGIN_LEFT, MARGIN_RIGHT, AXIS_HEIGHT = 1.05, 0.3, 0.8


class Place(NamedTuple):
    """Where a panel lies, in units of the grid, 24 wide."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Drawing:
    """A place on a page that is `height` units high below a head of `head` units; `whole` covers the page."""

    figure: Figure
    whole: Axes
    place: Place
    height: float
    head: float

    def axes(self, left: float, top: float, right: float, bottom: float) -> Axes:
        """Axes so far from the edges of the place."""
        x, y, w, h = self.place
        page = self.height + self.head
        below = self.height - (y + h - bottom)
        return self.figure.add_axes(((x + left) / 24, below / page, (w - left - right) / 24, (h - top - bottom) / page))

    def words(self, text: str, right: float, down: float, **how: Any) -> None:
        """A text so far from the left and the top of the place."""
        self.whole.text(self.place.x + right, self.place.y + down, text, **{"va": "center", "color": INK, **how})


class Look(NamedTuple):
    """How a series is drawn, after overrides."""

    colour: str
    unit: str
    right: bool
    dashed: bool
    apart: bool  # not on top of others
    width: float


def draw(drawing: Drawing, panel: Panel, found: Sequence[Answer], window: Window) -> None:
    """Draw a panel with what its queries gave; ValueError for a kind of panel that is not known."""
    kinds: Mapping[str, Callable[[Drawing, Panel, Sequence[Answer], Window], None]] = {
        "timeseries": _graph,
        "stat": _figures,
        "bargauge": _bars,
        "state-timeline": _states,
        "table": _table,
    }
    if panel.kind not in kinds:
        raise ValueError(f"{panel.title}: a panel of type {panel.kind}; known are {', '.join(kinds)}")
    if found:
        kinds[panel.kind](drawing, panel, found, window)
    else:
        empty = str(_defaults(panel).get("noValue", "No data"))
        middle = {"ha": "center", "color": PALE, "fontsize": 11}
        drawing.words(empty, drawing.place.w / 2, drawing.place.h / 2 + 0.3, **middle)


def _defaults(panel: Panel) -> Mapping[str, Any]:
    return dict(panel.raw["fieldConfig"]["defaults"])


def _look(panel: Panel, name: str, number: int) -> Look:
    defaults = _defaults(panel)
    colour, unit = PALETTE[number % len(PALETTE)], str(defaults["unit"])
    right = dashed = apart = False
    width = 1.2
    for override in panel.raw["fieldConfig"]["overrides"]:
        if override["matcher"] != {"id": "byName", "options": name}:
            continue
        given = {one["id"]: one["value"] for one in override["properties"]}
        colour = COLOURS[given["color"]["fixedColor"]] if "color" in given else colour
        unit = given.get("unit", unit)
        right = given.get("custom.axisPlacement") == "right"
        dashed = "custom.lineStyle" in given
        apart = given.get("custom.stacking", {}).get("mode") == "none"
        width = given.get("custom.lineWidth", width)
    return Look(colour, unit, right, dashed, apart, width)


def _times(points: Sequence[tuple[float, float]]) -> list[float]:
    return [float(date2num(datetime.fromtimestamp(at, UTC))) for at, _ in points]


def _graph(drawing: Drawing, panel: Panel, found: Sequence[Answer], window: Window) -> None:
    names = [named(query.legend, sample.labels) for query, sample in found]
    looks = [_look(panel, name, number) for number, name in enumerate(names)]
    rows = _legend(drawing, names, looks)
    defaults, custom = _defaults(panel), _defaults(panel)["custom"]
    two = any(look.right for look in looks)
    axes = drawing.axes(MARGIN_LEFT, 1.2, MARGIN_RIGHT + (0.7 if two else 0), AXIS_HEIGHT + rows * LEGEND_ROW)
    other = axes.twinx() if two else axes
    on_top: dict[float, float] = {}
    for (_, sample), look in zip(found, looks, strict=True):
        points = [(at, value if isfinite(value) else nan) for at, value in sample.points]
        stacked = custom["stacking"]["mode"] == "normal" and not look.apart
        base = [on_top.get(at, 0.0) if stacked else 0.0 for at, _ in points]
        tops = [low + value for low, (_, value) in zip(base, points, strict=True)]
        if stacked:
            on_top.update((at, top) for (at, _), top in zip(points, tops, strict=True) if isfinite(top))
        times, where = _times(points), other if look.right else axes
        style = (0, (5, 3)) if look.dashed else "solid"
        if len(points) == 1:
            where.plot(times, tops, color=look.colour, marker="o", markersize=2.5, linestyle="none")
        where.plot(times, tops, color=look.colour, lw=look.width, linestyle=style)
        if custom["fillOpacity"] and not look.apart and not look.right:
            where.fill_between(times, base, tops, color=look.colour, alpha=custom["fillOpacity"] / 100, lw=0)
    log = custom["scaleDistribution"]["type"] == "log"
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=COLOURS[step["color"]], lw=1, linestyle=(0, (6, 4)))
    _dress(axes, window, {look.unit for look in looks if not look.right}, log=log)
    _bounds(axes, defaults, log=log)
    if two:
        _dress(other, window, {look.unit for look in looks if look.right}, log=False)
        _bounds(other, {"min": 0}, log=False)
        other.grid(visible=False)


def _bounds(axes: Axes, defaults: Mapping[str, Any], *, log: bool) -> None:
    if log:
        return
    low, high = axes.get_ylim()
    nothing = not any(abs(value) > 0 for line in axes.lines for value in line.get_ydata() if isfinite(value))
    whole = defaults.get("decimals") == 0
    if nothing or (whole and high < 1):
        high = 1.0
    axes.set_ylim(defaults.get("min", low), defaults.get("max", high))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=whole))


def _dress(axes: Axes, window: Window, units: set[str], *, log: bool) -> None:
    """The scales and lines of a graph."""
    (unit,) = units
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, colors=PALE, length=0, which="both", pad=2)
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0) if high / low < WIDE else (1.0,), numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    _time_axis(axes, window)


def _time_axis(axes: Axes, window: Window) -> None:
    every = next((size for size in TICKS if window.span / size <= MOST_TICKS), TICKS[-1])
    first = ceil(window.start / every)
    ticks = [number * every for number in range(first, floor(window.end / every) + 1)]
    ticks = [at for at in ticks if at - window.start > window.span / 20]  # beside the numbers of the other axis
    pattern = "%m-%d" if every >= DAY else "%H:%M:%S" if every % 60 else "%H:%M"
    words = [datetime.fromtimestamp(at, UTC).strftime(pattern) for at in ticks]
    axes.set_xticks(_times([(at, 0) for at in ticks]), words)
    axes.set_xlim(*_times([(window.start, 0), (window.end, 0)]))


def _legend(drawing: Drawing, names: Sequence[str], looks: Sequence[Look]) -> int:
    """Draw the legend at the bottom; how many rows it has."""
    room, rows, right = drawing.place.w - 0.5, [[]], 0.0  # type: tuple[float, list[list[tuple[float, int]]], float]
    for number, name in enumerate(names):
        wide = 0.75 + len(name) * 0.112
        if right and right + wide > room:
            rows.append([])
            right = 0.0
        rows[-1].append((right, number))
        right += wide
    for row, entries in enumerate(rows):
        down = drawing.place.h - (len(rows) - row) * LEGEND_ROW + 0.15
        for at, number in entries:
            drawing.words("━", 0.3 + at, down, color=looks[number].colour, fontsize=8)
            drawing.words(names[number], 0.62 + at, down, color=PALE, fontsize=7)
    return len(rows)


def _level(panel: Panel, value: float) -> str:
    """The colour of a value, by the thresholds."""
    steps = _defaults(panel)["thresholds"]["steps"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]["color"]]


def _text(panel: Panel, value: float) -> str:
    """A value as the panel shows it."""
    defaults = _defaults(panel)
    for mapping in defaults.get("mappings", ()):
        for key, result in mapping["options"].items():
            if float(key) == value:
                return str(result["text"])
    return shown(value, defaults["unit"], defaults.get("decimals"))


def _figures(drawing: Drawing, panel: Panel, found: Sequence[Answer], _window: Window) -> None:
    wide = (drawing.place.w - 0.5) / len(found)
    plain = panel.raw["options"]["colorMode"] != "background"
    for number, (query, sample) in enumerate(found):
        axes = drawing.axes(0.25 + number * wide, 1.1, drawing.place.w - 0.25 - (number + 1) * wide, 0.3)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("white")
            spine.set_linewidth(2)
        colour = _level(panel, sample.last)
        axes.set_facecolor("white" if plain else colour)
        how: dict[str, Any] = {"ha": "center", "va": "center", "color": INK if plain else "white"}
        name = named(query.legend, sample.labels) if len(found) > 1 else ""
        text = _text(panel, sample.last)
        size = min(19.0, wide * 45 / max(4, len(text)) / 1.2)
        axes.text(0.5, 0.42 if name else 0.5, text, fontsize=size, weight="bold", transform=axes.transAxes, **how)
        axes.text(0.5, 0.82, name, fontsize=7.5, transform=axes.transAxes, **how)


def _bars(drawing: Drawing, panel: Panel, found: Sequence[Answer], _window: Window) -> None:
    names = [named(query.legend, sample.labels) for query, sample in found]
    left = min(drawing.place.w / 2, 0.4 + max(map(len, names)) * 0.125)
    axes = drawing.axes(left, 1.2, 1.5, 0.4)
    values = [sample.last for _, sample in found]
    graded = _defaults(panel)["color"]["mode"] == "thresholds"
    colours = [_level(panel, value) if graded else PALETTE[at % len(PALETTE)] for at, value in enumerate(values)]
    most = _defaults(panel).get("max", max(values) or 1)
    where = list(range(len(values)))
    axes.barh(where, [most] * len(values), color="#eceef0", height=0.66)
    axes.barh(where, values, color=colours, height=0.66)
    axes.set_yticks(where, names, fontsize=7.5, color=INK)
    axes.set_ylim(max(len(values), 4) - 0.4, -0.6)
    axes.set_xlim(0, most)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for at, value in enumerate(values):
        axes.text(most * 1.02, at, _text(panel, value), fontsize=8, va="center", color=INK)


def _states(drawing: Drawing, panel: Panel, found: Sequence[Answer], window: Window) -> None:
    names = [named(query.legend, sample.labels) for query, sample in found]
    axes = drawing.axes(0.4 + max(map(len, names)) * 0.125, 1.2, MARGIN_RIGHT, AXIS_HEIGHT)
    wide = window.step / 86400
    for row, (_, sample) in enumerate(found):
        times = _times(sample.points)
        bars = [(at, wide * 1.02) for at in times]
        colours = [_level(panel, value) for _, value in sample.points]
        axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=colours, edgecolors=colours, linewidth=0.2)
    axes.set_yticks(range(len(names)), names, fontsize=7.5, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(labelsize=7, colors=PALE, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _time_axis(axes, window)


def _table(drawing: Drawing, panel: Panel, found: Sequence[Answer], _window: Window) -> None:
    """Labels and value of each series, as the transformation "organize" has them."""
    (organize,) = [one["options"] for one in panel.raw["transformations"] if one["id"] == "organize"]
    hidden, order = organize["excludeByName"], organize["indexByName"]
    fields = {name for _, sample in found for name in sample.labels} | {"Value"}
    columns = sorted((name for name in fields if not hidden.get(name)), key=lambda name: (order.get(name, 99), name))
    units = {
        override["matcher"]["options"]: one["value"]
        for override in panel.raw["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "unit"
    }

    def cell(sample: Sample, column: str) -> str:
        if column == "Value":
            return shown(sample.last, units[organize["renameByName"]["Value"]])
        return sample.labels.get(column, "")

    rows = [[organize["renameByName"].get(column, column) for column in columns]]
    rows += [[cell(sample, column) for column in columns] for _, sample in found]
    weights = [max(len(row[at]) for row in rows) + 3 for at in range(len(columns))]
    fitting = max(1, int((drawing.place.h - 1.6) / 0.85))
    for line, row in enumerate(rows[: fitting + 1]):
        right, down = 0.3, 1.5 + line * 0.85
        for text, weight in zip(row, weights, strict=True):
            tint = {"critical": COLOURS["red"], "warning": COLOURS["orange"]}.get(text, INK)
            drawing.words(text, right, down, fontsize=7.5, weight="bold" if not line else "normal", color=tint)
            right += weight * (drawing.place.w - 0.5) / max(sum(weights), 60)

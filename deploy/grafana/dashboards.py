"""What the dashboards ask of Prometheus: their JSON read as panels and queries, with variables filled in as by Grafana.

`boards()` gives every dashboard of dashboards/; `filled` turns the text of a query into one that Prometheus takes;
`Server` asks it. A variable without a value raises KeyError; an answer that is an error, AskError with its words.
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
# What Grafana takes a scrape interval for unless the data source says another (provisioning/datasources).
SCRAPE_SECONDS: Final = 15.0
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((.+), *(\w+)\)")
_TIMEOUT: Final = 60.0


class AskError(Exception):
    """A query that the server refuses; the text has its words."""


class Sample(NamedTuple):
    """One series: labels, and points of (epoch seconds, value); an instant query has one."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    ref: str
    expr: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """One panel; `raw` is its JSON."""

    raw: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The type: "row", "stat", "timeseries" and so on."""
        return str(self.raw["type"])

    @property
    def title(self) -> str:
        """What stands above it."""
        return str(self.raw["title"])

    @cached_property
    def queries(self) -> list[Query]:
        """Its queries; a row has none."""
        return [
            Query(one["refId"], one["expr"], one["legendFormat"], bool(one["instant"]))
            for one in self.raw.get("targets", ())
        ]


@dataclass(frozen=True)
class Board:
    """One dashboard; `raw` is its JSON."""

    name: str
    raw: Mapping[str, Any]

    @cached_property
    def panels(self) -> list[Panel]:
        """Its panels, rows among them, as they lie."""
        return [Panel(one) for one in self.raw["panels"]]

    @property
    def variables(self) -> list[Mapping[str, Any]]:
        """Its variables."""
        return list(self.raw["templating"]["list"])

    @property
    def annotations(self) -> list[Mapping[str, Any]]:
        """Its annotations that come from Prometheus."""
        return [one for one in self.raw["annotations"]["list"] if "expr" in one]

    def defaults(self) -> dict[str, str]:
        """The values that variables have before somebody chooses others."""
        return {one["name"]: _value(one) for one in self.variables if one["type"] != "datasource"}


def boards(directory: Path = HERE / "dashboards") -> list[Board]:
    """Every dashboard, in the order of file names."""
    return [Board(path.stem, json.loads(path.read_text())) for path in sorted(directory.glob("*.json"))]


def filled(text: str, values: Mapping[str, str], *, step: float, span: float, scrape: float = SCRAPE_SECONDS) -> str:
    """The text with its variables filled in, for a graph of `span` seconds with a point every `step` seconds.

    $__rate_interval is what Grafana makes of it: four scrapes at least, and never less than a step and a scrape.
    """
    interval = max(step + scrape, 4 * scrape)
    own = {"__rate_interval": f"{round(interval)}s", "__range": f"{round(span)}s", "__interval": f"{round(step)}s"}
    known = {**own, **values}
    return _VARIABLE.sub(lambda found: known[found[1] or found[2]], text)


def label_values(query: str) -> tuple[str, str]:
    """Selector and label of a variable's query; ValueError for another kind of query."""
    found = _LABEL_VALUES.fullmatch(query)
    if not found:
        raise ValueError(f"{query}: label_values(SELECTOR, LABEL)")
    return found[1], found[2]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """The name of a series in a legend."""
    if not legend:
        return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


class Server:
    """A Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def instant(self, expr: str, at: float) -> list[Sample]:
        """What the expression is at a time."""
        data = self._ask("query", query=expr, time=str(at))
        if data["resultType"] == "scalar":
            return [Sample({}, [_point(data["result"])])]
        return [Sample(one["metric"], [_point(one["value"])]) for one in data["result"]]

    def graph(self, expr: str, start: float, end: float, step: float) -> list[Sample]:
        """What it was over time."""
        data = self._ask("query_range", query=expr, start=str(start), end=str(end), step=str(step))
        return [Sample(one["metric"], [_point(value) for value in one["values"]]) for one in data["result"]]

    def label_values(self, selector: str, label: str) -> list[str]:
        """The values that a label has in the series that a selector finds."""
        return [str(value) for value in self._ask(f"label/{label}/values", **{"match[]": selector})]

    def _ask(self, path: str, **given: str) -> Any:
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310 -- the operator names it
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AskError(f"{given}: {error.read().decode(errors='replace')}") from None


def answers(server: Server, panel: Panel, fill: Mapping[str, str], window: "Window") -> Iterator[tuple[Query, Sample]]:
    """What the queries of a panel give: the last value of an instant query, the graph of another."""
    for query in panel.queries:
        expr = filled(query.expr, fill, step=window.step, span=window.span, scrape=window.scrape)
        found = (
            server.instant(expr, window.end)
            if query.instant
            else server.graph(expr, window.start, window.end, window.step)
        )
        for sample in found:
            yield query, sample


class Window(NamedTuple):
    """A stretch of time, in epoch seconds; a point every `step`, a scrape every `scrape` seconds."""

    start: float
    end: float
    step: float
    scrape: float = SCRAPE_SECONDS

    @property
    def span(self) -> float:
        """Its length in seconds."""
        return self.end - self.start


def _value(variable: Mapping[str, Any]) -> str:
    value = variable["current"]["value"]
    if value in ("$__all", ["$__all"]):
        return str(variable["allValue"])
    return str(value)


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])

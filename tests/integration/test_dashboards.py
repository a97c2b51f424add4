"""The dashboards against a real Prometheus that scrapes a relay with mixed traffic: each query runs, and has data.

CONSENTRY_PICTURES=deploy/pictures makes the pictures of the documents anew, with more traffic (three minutes):

    CONSENTRY_PICTURES=deploy/pictures make test ARGS=tests/integration/test_dashboards.py
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from support.kafka import Kafka
from support.mixed_traffic import Traffic, traffic
from support.processes import run
from support.prometheus import Prometheus, Sample, Series

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
sys.path.append(str(GRAFANA))

import dashboards  # noqa: E402 -- where it lies is no package
from dashboards import Board, Panel, Query  # noqa: E402

pytestmark = pytest.mark.integration

PICTURES = os.environ.get("CONSENTRY_PICTURES", "")
SCRAPE = 1.0  # second
LARGEST = 150_000  # octets of a picture
BOARDS = {board.name: board for board in dashboards.boards()}
# What did not happen to this relay, so that there is nothing to show: dashboard, panel, query.
NOTHING = {
    ("overview", "What is wrong, and since when", "B"),  # no notice
    ("overview", "Faults, by place", "A"),
}


class Scene(NamedTuple):
    """A relay to which a lot has happened, who watched, and when that was."""

    traffic: Traffic
    prometheus: Prometheus
    start: float
    end: float

    def filled(self, board: Board, expr: str, **others: str) -> str:
        """A query as Grafana would send it."""
        return dashboards.filled(
            expr, {**board.defaults(), **others}, step=SCRAPE, span=self.end - self.start, scrape=SCRAPE
        )

    def ask(self, board: Board, query: Query, **others: str) -> list[Sample] | list[Series]:
        """What a query gives."""
        expr = self.filled(board, query.expr, **others)
        if query.instant:
            return self.prometheus.query(expr, at=self.end)
        return self.prometheus.query_range(expr, start=self.start, end=self.end, step=SCRAPE)


@pytest.fixture(scope="module")
def scene(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[Scene]:
    """Mail and records, decisions, troubles; then again mail and records."""
    some, more = (60, 90) if PICTURES else (4, 4)
    with (
        traffic(tmp_path_factory.mktemp("relay"), kafka, rules_cache) as relayed,
        Prometheus(tmp_path_factory.mktemp("watch"), [relayed.target]) as prometheus,
    ):
        prometheus.wait_scraped()
        start = time.time()
        relayed.seconds(some)
        relayed.opt_outs(4)
        relayed.decide()
        relayed.look_again()
        relayed.troubles()
        relayed.seconds(more)
        relayed.settle()
        prometheus.wait_value("consentry_accepted_total", lambda found: found == relayed.relay.counter("accepted"))
        prometheus.wait_value("sum(consentry_held_copies)", lambda found: found > 0)
        yield Scene(relayed, prometheus, start, time.time())


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_is_answered(scene: Scene, name: str) -> None:
    """Each query of each panel is taken by Prometheus, and gives data unless what it shows did not happen."""
    board = BOARDS[name]
    empty = set()
    for panel in board.panels:
        for query in panel.queries:
            if not scene.ask(board, query):
                empty.add((name, panel.title, query.ref))
    wanted = {place for place in NOTHING if place[0] == name}
    assert empty == wanted, scene.traffic.relay.printed[-4000:]


def test_names_of_series_are_filled(scene: Scene) -> None:
    """Where a legend names labels, the series have them."""
    for board in BOARDS.values():
        for panel in board.panels:
            for query in panel.queries:
                wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                for series in scene.ask(board, query):
                    assert wanted <= set(series.labels), (board.name, panel.title, query.ref)
                    if not wanted and panel.kind != "table":
                        assert not set(series.labels) - {"__name__", "instance", "job"}, (panel.title, query.ref)


@pytest.mark.parametrize("name", BOARDS)
def test_variables_and_annotations_are_answered(scene: Scene, name: str) -> None:
    """Every variable that asks Prometheus finds something to choose; what is marked on graphs can be asked for."""
    board, server = BOARDS[name], dashboards.Server(scene.prometheus.url)
    asked = [one for one in board.variables if one["type"] == "query"]
    assert [one["name"] for one in asked] == ["job", "instance"]
    for one, wanted in zip(asked, ("consentry", scene.traffic.target), strict=True):
        assert one["definition"] == one["query"]["query"]
        selector, label = dashboards.label_values(scene.filled(board, one["definition"]))
        assert server.label_values(selector, label) == [wanted]
    for one in board.annotations:
        (series,) = scene.prometheus.query_range(
            scene.filled(board, one["expr"]), start=scene.start, end=scene.end, step=SCRAPE
        )
        assert scene.start - 120 < series.points[0][1] / 1000 < scene.start


@pytest.mark.parametrize("held", ["max", "sum"])
def test_machines_are_chosen(scene: Scene, held: str) -> None:
    """A machine that is chosen is shown, one that is not is not; one hold store for all or one each makes no error."""
    for board in BOARDS.values():
        for panel in board.panels:
            for query in panel.queries:
                chosen = scene.ask(board, query, instance=chosen_as(scene.traffic.target), held=held)
                assert bool(chosen) == bool(scene.ask(board, query)), (board.name, panel.title, query.ref)
                if "$instance" in query.expr and "vector(0)" not in query.expr:
                    assert not scene.ask(board, query, instance="other:9625", held=held)


def chosen_as(value: str) -> str:
    """A value that was chosen, as Grafana puts it into a regular expression in a query."""
    return re.escape(value).replace("\\", "\\\\")


def panel(board: str, title: str) -> Panel:
    """A panel by its title."""
    (found,) = [one for one in BOARDS[board].panels if one.title == title]
    return found


def values(scene: Scene, board: str, title: str) -> dict[str, float]:
    """The newest values of a panel by the names in its legend."""
    found = {}
    for query in panel(board, title).queries:
        for one in scene.ask(BOARDS[board], query):
            last = one.value if isinstance(one, Sample) else one.points[-1][1]
            found[dashboards.named(query.legend, one.labels)] = last
    return found


def test_panels_say_what_happened(scene: Scene) -> None:
    """What the relay went through is on the panels."""
    assert values(scene, "overview", "Machines that answer") == {"answer": 1, "should": 1}
    assert values(scene, "overview", "Workers missing") == {"missing": 0}
    assert values(scene, "overview", "Copies unaccounted for") == {"copies": 0}
    assert 70 < values(scene, "overview", "Certificates expire in")["smtp"] / 86400 < 80
    assert values(scene, "kafka", "Partitions served") == {"partitions": 3}
    assert values(scene, "consent", "Consent data") == {"": 0}
    assert values(scene, "consent", "Machines without data") == {"machines": 0}
    assert values(scene, "held", "Copies held")["copies"] > 0
    dead = panel("kafka", "Dead letters").queries[0].expr.replace("increase(", "(").replace("[$__range]", "")
    assert scene.prometheus.value(scene.filled(BOARDS["kafka"], dead)) == 2
    went = [f"consentry_{name}_total" for name in ("relayed", "diverted", "held", "rejected")]
    assert all(scene.prometheus.value(name) for name in went)
    assert scene.prometheus.value(f"consentry_accepted_total - {' - '.join(went)}") == 0


def test_pictures_are_drawn(scene: Scene, tmp_path: Path) -> None:
    """The program that draws the dashboards draws them, small enough for a document."""
    directory = Path(PICTURES or tmp_path)
    names = list(BOARDS) if PICTURES else ["overview", "held"]  # all kinds of panels are in these
    minutes = (time.time() - scene.start + 5) / 60
    words = ["--prometheus", scene.prometheus.url, "--minutes", str(minutes), "--scrape", "1", "--out", directory]
    command = [sys.executable, "-W", "error", GRAFANA / "render.py", *map(str, words), *names]
    done = run(command, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, seconds=120)
    assert done.code == 0, done.output
    for name in names:
        path = directory / f"{name}.png"
        assert path.stat().st_size < LARGEST
        with Image.open(path) as picture:
            assert picture.width == 1400
            assert len(picture.getcolors()) > 30


def test_a_query_that_is_refused_is_told(scene: Scene) -> None:
    """What Prometheus says of a query that it does not take is in the error."""
    with pytest.raises(dashboards.AskError, match="parse error"):
        dashboards.Server(scene.prometheus.url).instant("sum(", scene.end)

"""The dashboards: well formed, of metrics that there are, linked to each other and the run-book, and pictured."""

import json
import re
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from support import grafana_types

from filter.events import Event, Outcome
from filter.health import Notice, NotReady
from filter.labels import Label
from filter.metrics import CONSENT_OUTCOMES, KAFKA_EVENTS, KAFKA_OUTCOMES, UNJUDGED, DoorName, Hop, Metrics
from filter.metrics_whole import WholeMetrics
from filter.policy import Disposition, Reason

DEPLOY = Path(__file__).parents[2] / "deploy"
GRAFANA, PICTURES = DEPLOY / "grafana", DEPLOY / "pictures"
sys.path.append(str(GRAFANA))

import dashboards  # noqa: E402 -- where it lies is no package
import units  # noqa: E402 -- same
from dashboards import Board  # noqa: E402 -- same

NAMES = ("overview", "classification", "consent", "held", "kafka")
BOARDS = {board.name: board for board in dashboards.boards()}
LARGEST = 150_000  # octets of a picture
EVERY = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
SUFFIXES = r"(?:_bucket|_sum|_count)?"
# Of the target, of histograms, of our rules.
OUTSIDE = {"job", "instance", "le", "alertname", "alertstate"}
# Fields that Grafana's types leave out, although its own dashboards have them.
UNTYPED = re.compile(
    r"\.templating\.list\[\d+\]\.definition|\.annotations\.list\[1\]\.(useValueForTime|step|\w+Format|tagKeys)"
)
CLOSED: dict[tuple[str, str], set[str]] = {
    ("messages", "door"): set(DoorName),
    ("messages", "label"): {*Label, UNJUDGED},
    ("messages", "outcome"): set(Outcome),
    ("transaction_seconds", "door"): set(DoorName),
    ("recipients", "label"): {*Label, UNJUDGED},
    ("recipients", "disposition"): set(Disposition),
    ("recipients", "reason"): set(Reason),
    ("release_outcomes", "outcome"): set(Event),
    ("held_copies", "state"): {"held", "released"},
    ("next_hop_connections", "hop"): set(Hop),
    ("kafka_records", "outcome"): set(KAFKA_OUTCOMES),
    ("kafka_events", "event"): set(KAFKA_EVENTS),
    ("consent_records", "outcome"): set(CONSENT_OUTCOMES),
    ("not_ready", "reason"): set(NotReady),
    ("notice", "notice"): set(Notice),
}


def declared() -> dict[str, tuple[str, ...]]:
    """Every metric, without the suffix of counters, and its labels."""
    workers, whole = CollectorRegistry(), CollectorRegistry()
    Metrics(workers)
    WholeMetrics(whole)
    collectors = {*workers._collector_to_names, *whole._collector_to_names}
    found = {}
    for collector in collectors:
        assert isinstance(collector, MetricWrapperBase)
        name = collector._name + ("_total" if collector._type == "counter" else "")
        found[name] = tuple(collector._labelnames)
    return found


def expressions(board: Board) -> list[str]:
    """Every expression of a dashboard: of panels, variables and annotations."""
    found = [query.expr for panel in board.panels for query in panel.queries]
    found += [one["expr"] for one in board.annotations]
    return found + [one["definition"] for one in board.variables if one["type"] == "query"]


def used(board: Board) -> set[str]:
    """The metrics that a dashboard shows: those of its panels."""
    text = "\n".join(query.expr for panel in board.panels for query in panel.queries)
    names = re.findall(r"(?<![:\w])(consentry_\w+)(?=[{\s\[)]|$)", text)
    known = declared()
    return {name if name in known else re.sub(f"{SUFFIXES}$", "", name) for name in names}


def strings(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_these_are_the_dashboards() -> None:
    """There is one for each question, each with an address that stays."""
    assert set(BOARDS) == set(NAMES)
    assert {board.raw["uid"] for board in BOARDS.values()} == {f"consentry-{name}" for name in NAMES}
    assert {board.raw["schemaVersion"] for board in BOARDS.values()} == {39}
    assert len({board.raw["title"] for board in BOARDS.values()}) == len(NAMES)


@EVERY
def test_the_file_reads_as_grafana_writes_it(board: Board) -> None:
    """Each file is formatted as Grafana exports it, so that a change made in the browser is a small difference."""
    text = (GRAFANA / "dashboards" / f"{board.name}.json").read_text()
    assert text == json.dumps(board.raw, indent=2, ensure_ascii=False) + "\n"


@EVERY
def test_grafana_has_a_place_for_everything(board: Board) -> None:
    """Every field is one of Grafana's, with a value of its type, by the types that Grafana publishes."""
    pytest.importorskip(grafana_types.PACKAGE)
    assert [one for one in grafana_types.misfits(dict(board.raw)) if not UNTYPED.search(one)] == []


def test_what_grafana_has_no_place_for_is_found() -> None:
    """A field that is not one of Grafana's, a word that is not allowed, a number for a text: each is found."""
    pytest.importorskip(grafana_types.PACKAGE)
    for place, value in (("lineThickness", 2), ("drawStyle", "curves"), ("lineWidth", "2")):
        document = json.loads(json.dumps(BOARDS["kafka"].raw))
        graph = next(one for one in document["panels"] if one["type"] == "timeseries")
        graph["fieldConfig"]["defaults"]["custom"][place] = value
        found = [one for one in grafana_types.misfits(document) if not UNTYPED.search(one)]
        assert len(found) == 1, (place, found)


@EVERY
def test_panels_lie_side_by_side(board: Board) -> None:
    """Panels have numbers of their own, lie within 24 columns and not on each other, and begin with a question."""
    places = [panel.raw["gridPos"] for panel in board.panels]
    assert [panel.raw["id"] for panel in board.panels] == list(range(1, len(places) + 1))
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    assert board.panels[0].kind == "row"
    assert board.panels[0].title.endswith("?")


@EVERY
def test_panels_say_what_they_show(board: Board) -> None:
    """Every panel has a title of its own, a sentence about it, a unit, and a name for each of several series."""
    shown = [panel for panel in board.panels if panel.kind != "row"]
    assert max(Counter(panel.title for panel in shown).values()) == 1
    for panel in shown:
        assert panel.raw["description"].endswith((".", ":", "campaign list.")), panel.title
        assert units.shown(1.0, panel.raw["fieldConfig"]["defaults"]["unit"]), panel.title
        assert panel.queries
        assert len({query.ref for query in panel.queries}) == len(panel.queries)
        legends = [query.legend for query in panel.queries]
        assert len(set(legends)) == len(legends), panel.title
        assert "" not in legends or panel.kind in {"stat", "table"}, panel.title


@EVERY
def test_nothing_names_one_prometheus(board: Board) -> None:
    """Data comes from the data source that is chosen; every variable that is used is there."""
    targets = [one for panel in board.panels for one in panel.raw.get("targets", ())]
    panels = [panel.raw for panel in board.panels if panel.kind != "row"]
    for one in (*targets, *panels, *board.annotations):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    named = {name for text in strings(board.raw) for name in re.findall(r"\$\{?(\w+)", text)}
    own = {name for name in named if name.startswith("__")}
    assert own <= {"__rate_interval", "__range", "__all", "__data", "__url_time_range", "__all_variables"}
    assert named - own == {one["name"] for one in board.variables}


@EVERY
def test_only_metrics_that_there_are(board: Board) -> None:
    """Every metric, label and value of a closed list in a query is one of the program's; every rule is recorded."""
    known = declared()
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"]}
    assert used(board) <= set(known)
    for expr in expressions(board):
        assert set(re.findall(r"\w+:consentry_[\w:]+", expr)) <= recorded
        for name, matchers in re.findall(r"(?<![:\w])consentry_(\w+)\{([^}]*)\}", expr):
            metric = f"consentry_{name}"
            labels = known[metric if metric in known else re.sub(f"{SUFFIXES}$", "", metric)]
            for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
                assert label in {*labels, *OUTSIDE}, expr
                if label not in OUTSIDE:
                    closed = CLOSED[re.sub(r"_(total|bucket)$", "", name), label]
                    assert all(any(re.fullmatch(part, one) for one in closed) for part in value.split("|")), expr
        by = {label for words in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr) for label in words.split(", ")}
        assert by <= {label for labels in known.values() for label in labels} | OUTSIDE


@EVERY
def test_the_machine_is_chosen_everywhere(board: Board) -> None:
    """Every metric of a machine is asked for with the job and the machines that were chosen."""
    for panel in board.panels:
        for query in panel.queries:
            for name, matchers in re.findall(
                r"\b(instance:consentry_\w+:\w+|consentry_\w+)(?:\{([^}]*)\})?", query.expr
            ):
                if f":{name}" not in query.expr:
                    assert matchers.startswith('job="$job", instance=~"$instance"'), (panel.title, name)


def test_every_metric_is_shown() -> None:
    """Every metric is on a panel, or the document says why it is not."""
    text = (GRAFANA / "README.md").read_text().partition("## Not shown")[2].partition("\n## ")[0]
    excused = set(re.findall(r"`(consentry_\w+)`", text))
    shown = set().union(*(used(board) for board in BOARDS.values()))
    assert shown | excused == set(declared())
    assert not shown & excused


def test_links_lead_somewhere() -> None:
    """Links between dashboards and into the run-book lead there; every alert is linked from a panel."""
    headings = re.findall(r"^## (\w+)$", (DEPLOY / "runbook.md").read_text(), flags=re.MULTILINE)
    anchors = {heading.lower() for heading in headings}
    linked = set()
    for board in BOARDS.values():
        for panel in board.panels:
            for link in panel.raw.get("links", ()):
                if link["url"].startswith("/d/"):
                    assert re.match(r"/d/consentry-(\w+)\?", link["url"])[1] in BOARDS  # type: ignore[index]
                else:
                    anchor = link["url"].removeprefix("${runbook}#")
                    assert anchor in anchors, link
                    assert link["title"].lower().endswith(anchor)
                    linked.add(anchor)
    assert linked == {heading.lower() for heading in headings if heading.startswith("Consentry")}


def test_dashboards_link_to_each_other() -> None:
    """Each has a link to all of the same tag, which keeps time and machines, and one to the run-book."""
    for board in BOARDS.values():
        others, runbook = board.raw["links"]
        assert (others["type"], others["tags"]) == ("dashboards", board.raw["tags"])
        assert others["keepTime"]
        assert others["includeVars"]
        assert runbook["url"] == "${runbook}"
    assert len({board.defaults()["runbook"] for board in BOARDS.values()}) == 1


def test_pictures_are_small_and_shown() -> None:
    """There is a picture of each dashboard, small enough, and the document shows it."""
    text = (GRAFANA / "README.md").read_text()
    for name in NAMES:
        assert 10_000 < (PICTURES / f"{name}.png").stat().st_size < LARGEST
        assert re.search(rf"!\[[^\]]+\]\(\.\./pictures/{name}\.png\)", text)


def test_grafana_finds_the_dashboards() -> None:
    """What Grafana is given at its start names the directory that compose.yaml mounts, and the Prometheus beside it."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in compose["volumes"]}
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/consentry.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounted["./grafana/dashboards"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("$") in compose["environment"]
    interval = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval == f"{dashboards.SCRAPE_SECONDS:.0f}s"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0042, "s", "4.2 ms"),
        (90, "s", "1.5 min"),
        (0, "s", "0 s"),
        (6_912_000 - 60, "dtdurations", "79 d 23 h"),
        (42, "dtdurations", "42 s"),
        (-90, "dtdurations", "-1 min 30 s"),
        (0.144, "percentunit", "14.4%"),
        (1536, "bytes", "1.5 KiB"),
        (1234, "mps", "1.23 K msg/s"),
        (999.99, "short", "1 K"),
        (float("nan"), "short", "none"),
    ],
)
def test_numbers_are_shown_with_their_units(value: float, unit: str, words: str) -> None:
    """Pictures have numbers as people read them."""
    assert units.shown(value, unit) == words


def test_an_unknown_unit_is_refused() -> None:
    """A unit that pictures do not know is named, with those that they do."""
    with pytest.raises(ValueError, match=r"unit furlong: known are percentunit, .*recps"):
        units.shown(1, "furlong")


def test_variables_are_filled_as_grafana_does() -> None:
    """Rates go over four scrapes, or a step and a scrape if that is more; other variables have their values."""
    text = 'rate(a{b=~"$instance"}[$__rate_interval]) [$__range] [${__interval}] ${instance:raw}'
    assert dashboards.filled(text, {"instance": "x"}, step=5, span=600) == 'rate(a{b=~"x"}[60s]) [600s] [5s] x'
    assert "[75s]" in dashboards.filled(text, {"instance": "x"}, step=60, span=600)
    with pytest.raises(KeyError, match="instance"):
        dashboards.filled(text, {}, step=5, span=600)
    with pytest.raises(ValueError, match="label_values"):
        dashboards.label_values("up")

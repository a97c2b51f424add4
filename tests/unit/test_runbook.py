"""Alert rules, their tests, the run-book and the metrics agree, each with the others."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry

from filter.cli import cli
from filter.config import Config
from filter.config_errors import setting_paths
from filter.events import Event, Outcome
from filter.health import Notice, NotReady
from filter.metrics import CONSENT_OUTCOMES, FAULT_PLACES, KAFKA_EVENTS, KAFKA_OUTCOMES, DoorName, Hop, Metrics
from filter.metrics_whole import WholeMetrics
from filter.next_hop_setup import Event as HopEvent
from filter.policy import Reason

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
BOOK = (DEPLOY / "runbook.md").read_text()
PARTS = ("Means", "How bad", "Look at", "Do", "Afterwards")
# The closed lists that label values come from.
WORDS = {
    "door": set(DoorName),
    "outcome": {*Outcome, *KAFKA_OUTCOMES, *CONSENT_OUTCOMES, "released", "bounced"},
    "reason": {*NotReady, *Reason},
    "notice": set(Notice),
    "event": {*KAFKA_EVENTS, *HopEvent},
    "where": set(FAULT_PLACES),
    "state": {"held", "released", "idle", "in_use"},
    "hop": set(Hop),
    "le": {"1.0", "60.0"},
    "job": {"consentry"},
}


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules that have this field: "alert" or "record"."""
    groups = itertools.chain.from_iterable(yaml.safe_load(file.read_text())["groups"] for file in RULES)
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"] for rule in rules("record")}


def series() -> set[str]:
    """The names of every series that a relay shows."""
    found = set()
    for register in (Metrics, WholeMetrics):
        registry = CollectorRegistry()
        register(registry)
        for metric in registry.collect():
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(metric.type, [""])
            found |= {metric.name + ending for ending in endings}
    return found


class Section(NamedTuple):
    """An entry of the run-book."""

    name: str
    text: str


def entries() -> list[Section]:
    """The entries, in their order."""
    _, *found = re.split(r"^## (.+)\n", BOOK, flags=re.MULTILINE)
    return [Section(name, text) for name, text in zip(found[::2], found[1::2], strict=True)]


def queries() -> Iterator[str]:
    """Every query of the run-book."""
    for block in re.findall(r"^```promql\n(.*?)^```", BOOK, flags=re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


def expressions() -> list[str]:
    """Every query of rules and run-book."""
    return [*(rule["expr"] for rule in (*rules("alert"), *rules("record"))), *queries()]


def test_every_alert_has_an_entry() -> None:
    """The run-book has an entry for each alert, in the same order, and no other; each alert points to its own."""
    assert [entry.name for entry in entries()] == list(ALERTS)
    assert len(ALERTS) == len(rules("alert"))
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"deploy/runbook.md#{name.lower()}"


def test_entries_are_complete() -> None:
    """What it means, how bad it is, what to look at, what to do, what is left to do: in each entry."""
    for entry in entries():
        parts = re.findall(r"^\*\*([^*.]+)\.?\*\*", entry.text, flags=re.MULTILINE)
        assert tuple(parts) == PARTS, entry.name
        assert "```" in entry.text, entry.name


def test_alerts_say_what_somebody_must_know() -> None:
    """How urgent it is, what is wrong in a line, and where."""
    for name, rule in ALERTS.items():
        assert rule["labels"].keys() == {"severity"}, name
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert len(rule["annotations"]["summary"]) < 60, name
        word = "Critical" if rule["labels"]["severity"] == "critical" else "Warning"
        (entry,) = [entry for entry in entries() if entry.name == name]
        assert f"**How bad.** {word}" in entry.text, name


def test_links_within_the_run_book_lead_somewhere() -> None:
    """Each names an entry."""
    links = set(re.findall(r"\]\(#([a-z]+)\)", BOOK))
    assert links
    assert links <= {name.lower() for name in ALERTS}


@pytest.mark.parametrize("expression", expressions())
def test_every_series_named_exists(expression: str) -> None:
    """Rules and queries ask for series that a relay shows, or that a rule records."""
    named = set(re.findall(r"(?<![:\w])consentry_\w+", expression))
    recorded = set(re.findall(r"\w+:\w+:\w+", expression))
    assert named | recorded or "up{" in expression
    assert named <= series()
    assert recorded <= RECORDED


@pytest.mark.parametrize("expression", expressions())
def test_every_label_value_exists(expression: str) -> None:
    """A value that no label ever has would make an alert silent for good."""
    for label, operator, value in re.findall(r'(\w+)(=~|!~|=|!=)"([^"]*)"', expression):
        if "~" in operator:
            for each in value.split("|"):
                assert any(re.fullmatch(each, word) for word in WORDS[label]), (label, each)
        else:
            assert value in WORDS[label], (label, value)


def test_what_is_recorded_is_used() -> None:
    """Each recorded series is asked for by another rule."""
    used = set(re.findall(r"\w+:\w+:\w+", "\n".join(expressions())))
    assert used == RECORDED


def test_every_alert_is_tested_firing_and_quiet() -> None:
    """Of each alert there is a test in which it fires, and one, of the same name, in which nothing does."""
    firing, quiet = set(), set()
    for file in TESTS:
        document = yaml.safe_load(file.read_text())
        groups = [group["name"] for one in RULES for group in yaml.safe_load(one.read_text())["groups"]]
        assert sorted(document["group_eval_order"]) == sorted(groups)
        for test in document["tests"]:
            about = test["name"].partition(":")[0]
            for asked in test["promql_expr_test"]:
                found = {re.findall(r'alertname="(\w+)"', one["labels"])[0] for one in asked["exp_samples"]}
                firing |= found
                quiet |= {about} - found
    assert firing == set(ALERTS)
    assert quiet >= set(ALERTS)


def test_settings_and_events_exist() -> None:
    """Settings, and events of the journal, that the run-book names are there."""
    settings = {path.replace("[]", "") for path in setting_paths(Config)}
    sections = "|".join({path.partition(".")[0] for path in settings if "." in path})
    named = set(re.findall(rf"`((?:{sections})\.\w+)", BOOK)) - {"consent.md"}
    assert len(named) > 15
    assert named <= settings, named - settings
    events = set(re.findall(r'\.event==\\?"(\w+)\\?"', BOOK))
    assert events
    assert events <= set(Event)


def test_commands_exist() -> None:
    """Each command of ours that the run-book names is there, with its options."""
    root: Any = typer.main.get_command(cli)
    named = re.findall(r"^consentry (.+)$", BOOK, flags=re.MULTILINE) + re.findall(r"`consentry ([a-z][^`]+)`", BOOK)
    assert len(named) > 15
    for line in named:
        words, command = re.sub(r'"[^"]*"', "TEXT", line).split(), root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), line
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, line

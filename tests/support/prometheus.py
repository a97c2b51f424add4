"""A real Prometheus on loopback, with the shipped scrape configuration and rules: started, asked and stopped by a test.

    with Prometheus(tmp_path, ["127.0.0.1:9625"]) as prometheus:
        prometheus.wait_scraped()
        prometheus.query('sum(rate(consentry_accepted_total[1m]))')

Only what a test cannot wait for is rewritten: the interval, the targets, and in the rules what `rewrite` says. Waits in
vain and queries that the server refuses raise AssertionError with its words.
"""

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from support import parts
from support.processes import Done, Process, free_port, run, wait_for_port, wait_until

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"
SECONDS = 30.0  # to start, and for a first scrape


class Sample(NamedTuple):
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float


class Series(NamedTuple):
    """One line of a graph: points are (epoch seconds, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class Alert(NamedTuple):
    """An alert that is "pending" or "firing"."""

    name: str
    state: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def promtool(*arguments: str | Path, seconds: float = 60) -> Done:
    """Run promtool to its end."""
    part = parts.need("prometheus")
    return run([part.program("promtool"), *arguments], part.environment, seconds=seconds)


def shortened(rules: str, pause: str = "0s") -> str:
    """Rules whose alerts fire as soon as their expression is true for `pause`."""
    return re.sub(r"^(\s+for:) \S+$", rf"\1 {pause}", rules, flags=re.MULTILINE)


class Prometheus:
    """One server, running inside `with`. `targets` are "HOST:PORT"; `every` is how often it scrapes and evaluates."""

    def __init__(
        self,
        directory: Path,
        targets: Sequence[str],
        *,
        every: str = "1s",
        shipped: Path = SHIPPED,
        rewrite: Callable[[str], str] = str,
    ) -> None:
        self._part = parts.need("prometheus")
        self._home = directory / "prometheus"
        (self._home / "rules").mkdir(parents=True)
        for file in (shipped / "rules").glob("*.yml"):
            rules = re.sub(r"^(\s+interval:) \S+$", rf"\1 {every}", file.read_text(), flags=re.MULTILINE)
            (self._home / "rules" / file.name).write_text(rewrite(rules))
        self.config = self._home / "prometheus.yml"
        self.config.write_text(_config((shipped / "prometheus.yml").read_text(), targets, every))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            self._part.program("prometheus"),
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self._home / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._process = Process(command, self._part.environment, self._home / "output")

    def wait_ready(self) -> Self:
        """Return when it answers."""
        wait_for_port(self.port, self._process, seconds=SECONDS)
        wait_until(self._answers, "an answer of Prometheus", seconds=SECONDS)
        return self

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """An instant query, now or at a time (epoch seconds). A scalar is a vector of one without labels."""
        given = {"query": expression} | ({"time": str(at)} if at is not None else {})
        data = self._ask("/api/v1/query", given)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        assert data["resultType"] == "vector", (expression, data["resultType"])
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def value(self, expression: str) -> float | None:
        """The value of a query that gives at most one sample; None without one."""
        found = self.query(expression)
        assert len(found) < 2, (expression, found)
        return found[0].value if found else None

    def query_range(self, expression: str, *, start: float, end: float, step: float = 1.0) -> list[Series]:
        """A query for a graph, from `start` to `end` (epoch seconds), one point every `step` seconds."""
        given = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        data = self._ask("/api/v1/query_range", given)
        assert data["resultType"] == "matrix", (expression, data["resultType"])
        return [
            Series(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in data["result"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Every recording and alert rule, with `health` and `lastError` of its last evaluation."""
        return [rule for group in self._ask("/api/v1/rules", {})["groups"] for rule in group["rules"]]

    def alerts(self) -> list[Alert]:
        """The alerts that are pending or firing."""
        return [
            Alert(one["labels"]["alertname"], one["state"], one["labels"], one["annotations"])
            for one in self._ask("/api/v1/alerts", {})["alerts"]
        ]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert.name for alert in self.alerts() if alert.state == "firing"}

    def wait_scraped(self) -> Self:
        """Return when every target was scraped and every rule was evaluated at least once."""
        self.wait_ready()

        def done() -> bool:
            targets = self._ask("/api/v1/targets", {"state": "active"})["activeTargets"]
            unseen = [rule for rule in self.rules() if rule["health"] == "unknown"]
            return bool(targets) and all(one["health"] == "up" for one in targets) and not unseen

        wait_until(done, "a scrape of every target", seconds=SECONDS)
        return self

    def wait_value(self, expression: str, wanted: Callable[[float], bool], *, seconds: float = SECONDS) -> float:
        """Return the value of a query as soon as it is as wanted."""
        seen: list[float | None] = []

        def reached() -> bool:
            seen[:] = [self.value(expression)]
            return seen[0] is not None and wanted(seen[0])

        try:
            wait_until(reached, expression, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {seen}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_firing(self, name: str, *, seconds: float = SECONDS) -> Alert:
        """Return the alert of this name as soon as one fires."""
        found: list[Alert] = []

        def fires() -> bool:
            found[:] = [one for one in self.alerts() if (one.name, one.state) == (name, "firing")]
            return bool(found)

        wait_until(fires, f"{name} to fire; firing: {self.firing()}", seconds=seconds)
        return found[0]

    def wait_quiet(self, name: str, *, seconds: float = SECONDS) -> None:
        """Return as soon as no alert of this name fires."""
        wait_until(lambda: name not in self.firing(), f"{name} to end", seconds=seconds)

    def log(self) -> str:
        """What it printed."""
        return self._process.output.read_text(errors="replace")

    def stop(self) -> None:
        """End it, and remove what it stored."""
        self._process.stop(seconds=15)
        shutil.rmtree(self._home / "data", ignore_errors=True)

    def _answers(self) -> bool:
        assert not self._process.ended, self.log()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=10) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def _ask(self, path: str, given: Mapping[str, str]) -> Any:
        """The data of an answer."""
        words = urllib.parse.urlencode(given)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{words}", timeout=30) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{given}: {error.read().decode()}") from None
        assert document["status"] == "success", document
        return document["data"]

    def __enter__(self) -> Self:
        try:
            return self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


def _config(shipped: str, targets: Sequence[str], every: str) -> str:
    """The shipped configuration with these targets, at this interval."""
    text, changed = re.subn(r"^(\s+- targets:) .*$", rf"\1 {json.dumps(list(targets))}", shipped, flags=re.MULTILINE)
    assert changed == 1, "the configuration has one list of targets"
    text, changed = re.subn(r"^(\s+(?:scrape|evaluation)_interval:) \S+$", rf"\1 {every}", text, flags=re.MULTILINE)
    assert changed == 2, "the configuration has one interval for scrapes and one for rules"
    return text

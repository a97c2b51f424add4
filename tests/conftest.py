"""What every test may use: the root of the repository, the optional material beside it, and a plain word on skips.

A skipped test is a test that did not run. The last lines name the files and each reason, and where CI=true a skip fails
the run, unless the reason is that the material in ../shared, which is no part of the project, is not there. Programs
that a test needs are asked for by `support.parts.need`.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from support.alone import alone

from filter.classify import Classifier
from filter.rule_files import load_rules

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
IN_CI = os.environ.get("CI") == "true"

# A busy machine is no failure: speed is shown by tests/bench, not asserted.
settings.register_profile("consentry", deadline=None)
settings.load_profile("consentry")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory with corpus and benchmarks beside the repository; the test is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there")
    return SHARED


@pytest.fixture(scope="session")
def rules_cache() -> Path:
    """Where compiled rules are kept from run to run, keyed by content: those that are shipped are there."""
    cache = ROOT / ".cache" / "consentry"
    cache.mkdir(parents=True, exist_ok=True)
    with alone("rules"):  # compiling takes half a minute, which every process that a test starts would spend
        load_rules(cache=cache)
    return cache


@pytest.fixture(scope="session")
def classifier(rules_cache: Path) -> Classifier:
    """The shipped rules."""
    return Classifier(load_rules(cache=rules_cache))


def _reasons(config: pytest.Config) -> dict[str, Counter[str]]:
    """Why tests did not run: for each reason the files, with the number of tests (or modules) in each."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reasons: dict[str, Counter[str]] = {}
    for report in reporter.stats.get("skipped", []) if reporter else []:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        reasons.setdefault(reason, Counter())[report.nodeid.partition("::")[0]] += 1
    return reasons


def _unexcused(config: pytest.Config) -> bool:
    return IN_CI and any("../shared" not in reason for reason in _reasons(config))


class _Begun:
    """Where files run at once: the name of each when it begins, as in a run of one process, among the dots of all."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._files: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell of a file's first test."""
        file = nodeid.partition("::")[0]
        if file not in self._files:
            self._files.add(file)
            self._reporter.write_ensure_prefix(f"{file} ")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Show which files have begun; pytest-xdist itself shows dots alone."""
    plugins = session.config.pluginmanager
    if plugins.has_plugin("dsession") and (reporter := plugins.get_plugin("terminalreporter")):
        plugins.register(_Begun(reporter))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in CI that left tests out."""
    if exitstatus == pytest.ExitCode.OK and _unexcused(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in the last lines what did not run, and why."""
    for reason, files in sorted(_reasons(config).items()):
        where = ", ".join(f"{file} ({count})" for file, count in sorted(files.items()))
        terminalreporter.write_line(f"Did not run: {files.total()}, because {reason}: {where}")
    if _unexcused(config):
        terminalreporter.write_line("CI=true: every test must run, so this run has failed", red=True)

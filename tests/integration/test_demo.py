"""`consentry demo` as somebody who tries it sees it: a real relay between a sender and a next hop, and its end."""

import os
import re
import signal
import smtplib
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.processes import Process, wait_until
from support.running import consentry, environment

from filter.demo import DASHBOARDS
from filter.demo_mailbox import DemoError, mailbox, prepare
from filter.demo_relay import DemoRelay
from filter.journal import read_journal
from filter.store_directory import own

pytestmark = pytest.mark.integration

CHECKED = "44 copies sent: 1 refused, 43 accepted = 27 at the next hop + 16 held.\nChecked: every accepted copy is in"
STAY = """
from pathlib import Path
from filter import console, demo
console.run(lambda: demo.run_demo(Path({!r}), once=False))
"""
SECONDS = 60.0


@pytest.fixture
def directory(tmp_path: Path, rules_cache: Path, usual_ports: None) -> Callable[[str], Path]:
    """Makes a demo directory in which the rules are compiled already."""

    def make(name: str) -> Path:
        directory = tmp_path / name
        prepare(directory, datetime.now(UTC).date())
        (directory / "store" / "cache").symlink_to(rules_cache)
        return directory

    return make


def _stay(directory: Path) -> Process:
    """A demo that stays until it is told to end."""
    return Process([sys.executable, "-c", STAY.format(str(directory))], environment(), directory.with_suffix(".out"))


def _wait_printed(demo: Process, words: str) -> str:
    """Return what it printed as soon as these words are there."""

    def there() -> bool:
        assert words in demo.output.read_text() or not demo.ended, demo.output.read_text()
        return words in demo.output.read_text()

    wait_until(there, words, seconds=SECONDS)
    return demo.output.read_text()


def _read(address: str) -> bytes:
    """What is there."""
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 -- the demo's own address
        return bytes(answer.read())


def _nothing_runs(directory: Path) -> None:
    """No process holds the store directory any more."""
    with own(directory / "store"):
        pass


def test_the_demo_shows_where_every_copy_went(directory: Callable[[str], Path]) -> None:
    """With --once every copy is shown in its place, within 80 columns; the journal has as many, and nothing stays."""
    demo = directory("demo")
    done = consentry("demo", "--once", "--dir", demo)
    assert done.code == 0, done.output
    assert CHECKED in done.output
    for name in ("service", "mixed", "marketing", "re-permission", "survey", "sent as service", "consentry explain"):
        assert name in done.output
    table = done.output.partition("Checked")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert sum(" RELAYED " in line for line in table) == 27
    assert sum(" HELD " in line for line in table) == 16
    assert "moved.away@home.example         REFUSED   550 5.1.1 no such mailbox" in done.output
    events = list(read_journal((demo / "store" / "journal").glob("*.jsonl")))
    copies = {kind: sum(len(e["subjects"]) for e in events if e["event"] == kind) for kind in ("relayed", "held")}
    assert copies == {"relayed": 27, "held": 16}
    assert {e["worker"] for e in events if e["event"] == "stopped"} == {"0", "1"}
    _nothing_runs(demo)


def test_the_demo_stays_until_it_is_interrupted(directory: Callable[[str], Path]) -> None:
    """It answers and shows further mail; another one runs beside it, but not in its directory; Ctrl-C drains it."""
    first, second = directory("first"), directory("second")
    with _stay(first) as demo:
        printed = _wait_printed(demo, "Ctrl-C ends everything.")
        (health,) = re.findall(r"http://\S+/readyz", printed)
        with urllib.request.urlopen(health, timeout=30) as answer:  # noqa: S310 -- the demo's own address
            assert answer.status == 200
        (metrics,) = re.findall(r"metrics +(http://\S+/metrics)", printed)
        wait_until(lambda: b"consentry_held_total 16.0" in _read(metrics), "what is held to be counted")
        assert ("dashboards " in printed) == DASHBOARDS.is_dir()

        (address,) = re.findall(r"mail +(\S+) \(SMTP\)", printed)
        host, _, port = address.rpartition(":")
        mail = next(mail for mail in mailbox() if mail.file.name.startswith("13"))
        with smtplib.SMTP(host, int(port), timeout=30) as client:
            client.sendmail(mail.sender, ["maya.okafor@home.example", "who@else.example"], mail.content)
        _wait_printed(demo, "RELAYED   maya.okafor@home.example  marketing: has agreed")
        _wait_printed(demo, "HELD      (not in the demo)  marketing: promotional; no valid consent")

        refused = consentry("demo", "--once", "--dir", first)
        assert (refused.code, "a demo is running there" in refused.output) == (2, True)
        beside = consentry("demo", "--once", "--dir", second)
        assert beside.code == 0, beside.output
        assert address not in beside.output

        os.kill(demo.pid, signal.SIGINT)
        wait_until(lambda: demo.ended, "the end", seconds=SECONDS)
        assert demo.stop() == 0
        assert demo.output.read_text().endswith("Draining; then everything ends.\n")
    _nothing_runs(first)
    _nothing_runs(second)


def test_an_early_end_leaves_nothing_behind(directory: Callable[[str], Path]) -> None:
    """SIGTERM while the relay starts: one sentence, status 2, and no process stays."""
    early = directory("early")
    with _stay(early) as demo:
        _wait_printed(demo, "records imported")
        os.kill(demo.pid, signal.SIGTERM)
        wait_until(lambda: demo.ended, "the end", seconds=SECONDS)
        assert demo.stop() == 2
        assert demo.output.read_text().splitlines()[1:] == ["consentry: interrupted before everything was shown"]
    _nothing_runs(early)


def test_a_relay_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error of a relay that cannot start ends with its own words."""
    config = tmp_path / "filter.toml"
    config.write_text("workers = 0\n")
    with DemoRelay(config, tmp_path / "relay.log") as relay, pytest.raises(DemoError, match="workers") as raised:
        relay.wait_ready()
    assert str(raised.value).startswith("the relay did not start; its log, ")

"""`consentry demo --kafka` as somebody who tries it sees it: a door between topics, and what is held released."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.kafka import Kafka
from support.processes import Process, run, wait_until
from support.running import consentry, environment

from filter.demo_mailbox import prepare
from filter.store_directory import own

pytestmark = pytest.mark.integration

SECONDS = 60.0
RELEASED = 12  # of 21 that are held: 8 are of people who object, 1 is to a blocked address
WHERE = re.compile(r"53 copies = 32 in (\S+)\.relay\n {2}\+ 21 in \S+\.held and in the hold store\.\nChecked: every")


@pytest.fixture
def demo(tmp_path: Path, rules_cache: Path, kafka: Kafka, usual_ports: None) -> Iterator[Process]:
    """A demo in which the rules are compiled already, on the cluster of the tests; afterwards nothing of it runs."""
    directory = tmp_path / "demo"
    prepare(directory, datetime.now(UTC).date())
    (directory / "store" / "cache").symlink_to(rules_cache)
    command = [sys.executable, "-m", "filter", "demo", "--kafka", "--dir", directory]
    with Process(command, {**environment(), "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap}, tmp_path / "out") as process:
        yield process
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: process.ended, "the end of the demo", seconds=SECONDS)
        assert process.output.read_text().endswith("Draining; then everything ends.\n")
    with own(directory / "store"):
        pass


def _printed(demo: Process, words: str) -> str:
    def there() -> bool:
        assert words in demo.output.read_text() or not demo.ended, demo.output.read_text()
        return words in demo.output.read_text()

    wait_until(there, words, seconds=SECONDS)
    return demo.output.read_text()


def test_every_copy_is_shown_and_what_is_held_can_be_released(demo: Process, kafka: Kafka, tmp_path: Path) -> None:
    """Mail, texts and push are in the topics that the page says; a release goes to the relay topic, once for each."""
    text = _printed(demo, "Ctrl-C ends everything.")
    found = WHERE.search(text)
    assert found, text
    topic = found[1]
    assert max(map(len, text.partition("Checked")[0].splitlines())) <= 80
    for words in ("sms: Shop Example: 20% off", "push: Black Friday", "[marketing, sent as service]"):
        assert words in text
    config = tmp_path / "demo" / "filter.toml"
    done = consentry("held", "release", "--all", "--despite", "--yes", "--why", "trying it out", "-c", config)
    assert done.code == 1, done.output  # who objects gets nothing
    released = [one for one in kafka.records(f"{topic}.relay") if "consentry-release" in dict(one.headers)]
    named = [value.decode() for one in released for name, value in one.headers if name == "consentry-rcpt"]
    assert len(named) == RELEASED
    assert {"+447700900123", "device-02be99", "zoe.adams@post.example"} <= set(named)
    assert not {"tom.hall@home.example", "sam.doyle@post.example", "old.address@home.example"} & set(named)


def test_without_a_broker(tmp_path: Path, usual_ports: None) -> None:
    """A cluster that is not there is told in a sentence."""
    command = [sys.executable, "-m", "filter", "demo", "--kafka", "--once", "--dir", tmp_path / "demo"]
    done = run(command, {**environment(), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, seconds=SECONDS)
    assert done.code == 2
    assert "Kafka does not answer" in done.output
    assert "Traceback" not in done.output

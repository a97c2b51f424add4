"""The program and a consent topic: what `consentry consent publish` says counts in every worker of every machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.bank_mail import MARKETING
from support.kafka import Kafka
from support.processes import wait_until
from support.running import Running, consentry, environment
from support.script_sink import ScriptSink

from filter.keys import load_key

pytestmark = pytest.mark.integration

DOORLESS = 'topic = ""\n'
GRANT = {
    "kind": "grant",
    "channel": "email",
    "controller": "bank",
    "brand": "bank",
    "topic": "offers",
    "event_time": "2026-10-05T09:30:00Z",
    "source": "web form",
    "method": "web form",
    "affirmative": True,
    "conditional": False,
    "wording_id": "w1",
    "wording_sha256": "a" * 64,
    "grade": "A",
}


def rows(*events: dict[str, object]) -> bytes:
    """A file of consent records."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


class Fleet:
    """Two machines with one consent topic, and a subject key."""

    def __init__(self, kafka: Kafka, directory: Path, sink: ScriptSink, cache: Path, stack: ExitStack) -> None:
        self.sink = sink
        self.topic = kafka.topic(3, {"cleanup.policy": "compact"})
        self.key = directory / "subject.key"
        load_key(self.key, create=True)
        self.kafka = (
            f'[kafka]\nbootstrap_servers = ["{kafka.bootstrap}"]\nconsent_topic = "{self.topic}"\n{DOORLESS}'
            f'[consent]\nkey_file = "{self.key}"\n'
        )
        self.nodes = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            node = Running(directory / name, sink.port, cache=cache, rest=self.kafka)
            self.nodes.append(stack.enter_context(node))
        for node in self.nodes:
            node.wait_ready()
            node.wait_health(ready="True")
        self.count = 0

    def publish(self, lines: bytes, *words: str) -> dict[str, object]:
        """Publish records from standard input."""
        command = [sys.executable, "-m", "filter", "consent", "publish", "-", "--json", "-c", self.nodes[0].config]
        done = subprocess.run(
            [*command, *words], input=lines, env=environment(), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done
        return dict(json.loads(done.stdout))

    def delivers(self, node: Running, address: str) -> bool:
        """Whether marketing to an address is relayed by a machine."""
        self.count += 1
        relayed, held = node.counter("relayed"), node.counter("held")
        assert node.send(MARKETING % self.count, [address])[0] == 250
        went = node.counter("relayed") - relayed, node.counter("held") - held
        assert sorted(went) == [0, 1]
        return went == (1, 0)

    def wait(self, address: str, *, delivered: bool) -> None:
        """Wait until every machine does so."""
        for node in self.nodes:
            wait_until(lambda node=node: self.delivers(node, address) is delivered, address, seconds=30)


@pytest.fixture(scope="module")
def fleet(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[Fleet]:
    """Two machines that follow an empty topic."""
    with ExitStack() as stack:
        sink = stack.enter_context(ScriptSink())
        yield Fleet(kafka, tmp_path_factory.mktemp("fleet"), sink, rules_cache, stack)


def test_published_consent_and_opt_outs_count_everywhere(fleet: Fleet) -> None:
    """A grant lets marketing through on both machines, an opt-out stops it, and an old list lifts that no more."""
    told = fleet.publish(rows({"address": "ann@home.example", **GRANT}))
    assert (told["published"], told["accepted"], told["rejected"]) == (True, 1, 0)
    fleet.wait("ann@home.example", delivered=True)
    fleet.publish(rows({"address": "ann@home.example", "kind": "withdraw", "controller": "bank"}), "--own-acts")
    fleet.wait("ann@home.example", delivered=False)
    fleet.publish(rows({"address": "ann@home.example", **GRANT}), "--batch", "an old list")
    fleet.publish(rows({"address": "end@home.example", **GRANT}))
    fleet.wait("end@home.example", delivered=True)
    fleet.wait("ann@home.example", delivered=False)


def test_one_process_of_a_machine_follows_and_is_replaced(fleet: Fleet) -> None:
    """Killed, the follower is started again and goes on; workers meanwhile go by what the index has."""
    node = fleet.nodes[0]
    followers = [pid for pid in node.worker_pids() if "consent_node" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(followers) == 1
    os.kill(followers[0], signal.SIGKILL)
    fleet.publish(rows({"address": "bob@home.example", **GRANT}))
    fleet.wait("bob@home.example", delivered=True)
    assert followers[0] not in node.worker_pids()
    node.wait_health(ready="True", notices=())


def test_erasure_leaves_a_bare_objection(fleet: Fleet) -> None:
    """An erased mailbox is forgotten on every machine; an old list brings no consent back."""
    fleet.publish(rows({"address": "eve@home.example", **GRANT}))
    fleet.wait("eve@home.example", delivered=True)
    done = consentry("consent", "erase", "eve@home.example", "-c", fleet.nodes[1].config)
    assert done.code == 0, done.output
    fleet.wait("eve@home.example", delivered=False)
    for node in fleet.nodes:
        done = consentry("consent", "show", "eve@home.example", "--json", "-c", node.config)
        assert [event["source"] for event in json.loads(done.output)["events"]] == ["erasure"]


def test_bad_lines_publish_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """A file with a bad line is not published, and the command says why and ends with 1."""
    file = tmp_path / "bad.jsonl"
    file.write_bytes(rows({"address": "joe@home.example", **GRANT}, {"address": "joe", **GRANT}))
    done = consentry("consent", "publish", file, "-c", fleet.nodes[0].config)
    assert done.code == 1
    assert "nothing published" in done.output
    assert "bad.jsonl:2" in done.output


def test_a_topic_is_needed_to_publish(tmp_path: Path) -> None:
    """Without brokers the command says what to set."""
    config = tmp_path / "filter.toml"
    config.write_text("")
    done = consentry("consent", "publish", "--heartbeat", "-c", config)
    assert done.code == 2
    assert "kafka.bootstrap_servers" in done.output


def test_an_opt_out_made_while_away_counts_from_the_first_message(fleet: Fleet) -> None:
    """After a restart no marketing leaves before the topic was read; a damaged index is put aside and built again."""
    node = fleet.nodes[1]
    fleet.publish(rows({"address": "kim@home.example", **GRANT}))
    fleet.wait("kim@home.example", delivered=True)
    node.signal(signal.SIGTERM)
    node.wait_end()
    fleet.publish(rows({"address": "kim@home.example", "kind": "object"}), "--own-acts")
    index = next((node.store / "consent").glob("index-*.lmdb"))
    os.truncate(index, index.stat().st_size // 2)
    with Running(node.directory, fleet.sink.port, cache=node.store / "cache", rest=fleet.kafka) as again:
        again.wait_ready()
        assert not fleet.delivers(again, "kim@home.example")
        again.wait_health(ready="True", notices=())
        assert not fleet.delivers(again, "kim@home.example")
        assert fleet.delivers(again, "bob@home.example")
        assert len(list(again.store.glob("consent.damaged-*"))) == 1
    shutil.rmtree(node.store / "consent")

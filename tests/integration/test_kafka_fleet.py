"""Two machines with the Kafka door through TLS and a login, whose held mail is in one PostgreSQL database."""

import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest
from support.kafka_door import Topics
from support.kafka_secured import LOOPBACK, PASSWORD, USER, Secured
from support.postgres import Postgres
from support.processes import wait_until
from support.running import Running, consentry

pytestmark = pytest.mark.integration

SETTINGS = """
[kafka]
bootstrap_servers = ["{server}"]
topic = "{topic}"
group = "{group}"
consent_topic = ""
session_timeout = "6s"
tls = "verify"
tls_ca_file = "{authority}"
sasl = "SCRAM-SHA-512"
user = "{user}"
password_file = "{password}"
[hold]
key_file = "{keys}/hold.key"
[consent]
key_file = "{keys}/subject.key"
"""
OFFER = {
    "channel": "email",
    "from": "news@bank.example",
    "subject": "20 % off everything this weekend only",
    "html": "<p>Save 20 % on all shoes. Buy now and get free delivery!</p>",
}
HALF = 40  # messages


class KafkaAlone(Running):
    """The command without listeners for mail."""

    def configure(self, **settings: str) -> None:
        """As it is written for mail, but for that."""
        super().configure(**settings)
        self.config.write_text(self.config.read_text().replace('listen = ["127.0.0.1:0"]', "listen = []"))


class Fleet:
    """Two machines and what is behind them."""

    def __init__(self, topics: Topics, postgres: Postgres, machines: list[KafkaAlone]) -> None:
        self.topics, self.postgres, self.machines = topics, postgres, machines

    def offer(self, first: int) -> None:
        """Write offers to the input topic, to one recipient each."""
        for place in range(4):
            numbers = range(first + place, first + HALF, 4)
            offers = [orjson.dumps({**OFFER, "to": [f"user{number}@x.example"]}) for number in numbers]
            self.topics.kafka.produce(self.topics.topic, offers, partition=place)

    def copies(self) -> Counter[str]:
        """Copies in the database by state, as the second machine sees them."""
        words = ("held", "stats", "--by", "state", "--state", "all", "--json", "-c", self.machines[1].config)
        done = consentry(*words)
        assert done.code == 0, done.output
        found = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
        return Counter({one["value"]: one["copies"] for one in found})

    def wait_copies(self, **wanted: int) -> None:
        """Wait until there are so many, and no others."""
        wait_until(lambda: self.copies() == wanted, f"copies {wanted}", seconds=90)


@pytest.fixture
def fleet(tmp_path: Path, rules_cache: Path) -> Iterator[Fleet]:
    """A fleet with the same keys on both machines."""
    for name, word in {
        "hold.key": secrets.token_hex(32),
        "subject.key": secrets.token_hex(32),
        "login": PASSWORD,
    }.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(word + "\n")
    with ExitStack() as stack:
        kafka, postgres = stack.enter_context(Secured()), stack.enter_context(Postgres())
        topics = Topics(kafka, partitions=4)
        rest = SETTINGS.format(
            server=f"{LOOPBACK}:{kafka.port}",
            topic=topics.topic,
            group=topics.group,
            authority=kafka.authority_file(tmp_path),
            user=USER,
            password=tmp_path / "login",
            keys=tmp_path,
        )
        store = f'url = "{postgres.database()}"\npassword_file = "{postgres.password_file}"'
        machines = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            machine = KafkaAlone(tmp_path / name, 1, cache=rules_cache, workers=1, smtp="", store=store, rest=rest)
            machines.append(stack.enter_context(machine).wait_ready())
        yield Fleet(topics, postgres, machines)


def test_what_either_machine_holds_is_in_the_database_once(fleet: Fleet) -> None:
    """With a worker killed and the database away meanwhile: every copy is held once, for both machines, and what is
    released from one of them goes to the relay topic.
    """
    fleet.offer(0)
    wait_until(lambda: fleet.copies()["held"] > 0, "the first held copy", seconds=90)
    (worker,) = fleet.machines[0].worker_pids()
    os.kill(worker, signal.SIGKILL)
    fleet.wait_copies(held=HALF)
    fleet.postgres.kill()
    fleet.offer(HALF)
    fleet.topics.wait_read(dict.fromkeys(range(4), HALF // 2))  # judged and committed all the same
    fleet.postgres.run()
    fleet.wait_copies(held=2 * HALF)
    (campaign,) = {json.loads(line)["campaign"] for line in _listed(fleet.machines[0])}
    words = ("campaign", "decide", campaign, "is_service", "--why", "rate change", "--apply-to-held", "--yes")
    done = consentry(*words, "-c", fleet.machines[0].config)
    assert done.code == 0, done.output
    fleet.wait_copies(delivered=2 * HALF)
    released = fleet.topics.records("relay")
    assert {dict(one.headers)["consentry-rcpt"] for one in released} == {
        b"user%d@x.example" % number for number in range(2 * HALF)
    }
    assert {orjson.loads(one.value)["subject"] for one in released} == {OFFER["subject"]}


def _listed(machine: KafkaAlone) -> list[str]:
    done = consentry("held", "list", "--json", "-c", machine.config)
    assert done.code == 0, done.output
    return [line for line in done.output.splitlines() if line.startswith("{")]

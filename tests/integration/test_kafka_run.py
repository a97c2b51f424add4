"""`consentry run` with a Kafka door: alone, and shared by workers; ready when it is, and drained in order."""

import json
from pathlib import Path

import orjson
import pytest
from support.kafka import Kafka
from support.kafka_door import Topics, sources
from support.processes import wait_until
from support.running import Running

pytestmark = pytest.mark.integration

SETTINGS = """
[kafka]
bootstrap_servers = {servers}
topic = "{topic}"
group = "{group}"
consent_topic = ""
"""
OFFER = {
    "channel": "email",
    "from": "news@bank.example",
    "to": ["ann@x.example", "bob@y.example"],
    "subject": "20 % off everything this weekend only",
    "html": "<p>Save 20 % on all shoes. Buy now and get free delivery!</p>",
    "declared": "service",
}
CODE = {"channel": "sms", "from": "Bank", "to": ["+447700900123"], "text": "Your security code is 123456."}


class KafkaAlone(Running):
    """The command without listeners for mail."""

    def configure(self, **settings: str) -> None:
        """As it is written for mail, but for that."""
        super().configure(**settings)
        self.config.write_text(self.config.read_text().replace('listen = ["127.0.0.1:0"]', "listen = []"))


def test_the_kafka_door_alone(kafka: Kafka, tmp_path: Path, rules_cache: Path) -> None:
    """Without listeners the relay serves Kafka: offers are held, service goes on, the journal has the decisions."""
    topics = Topics(kafka, partitions=4)
    servers = json.dumps(kafka.bootstrap.split(","))
    settings = SETTINGS.format(servers=servers, topic=topics.topic, group=topics.group)
    with KafkaAlone(tmp_path, 1, cache=rules_cache, smtp="", rest=settings) as relay:
        relay.wait_ready()
        assert f"consuming kafka {topics.topic} as {topics.group}" in relay.printed
        wait_until(lambda: relay.get("/readyz")[0] == 200, "ready for Kafka", seconds=30)
        for place in range(4):
            kafka.produce(topics.topic, [orjson.dumps(OFFER), orjson.dumps(CODE)] * 10, partition=place)
        topics.wait_read(dict.fromkeys(range(4), 20))
        held, relayed = topics.records("held"), topics.records("relay")
        assert {one.value for one in held} == {orjson.dumps(OFFER)}
        assert {one.value for one in relayed} == {orjson.dumps(CODE)}
        assert (len(held), len(relayed)) == (40, 40)
        assert set(sources([*held, *relayed]).values()) == {1}
        page = relay.metrics()
        assert 'consentry_kafka_records_total{outcome="taken"} 80.0' in page
        assert "consentry_accepted_total 120.0" in page
        wait_until(lambda: "consentry_kafka_lag 0.0" in relay.get("/metrics")[1], "no lag", seconds=10)
    decisions = {one.value for one in topics.records("decisions")}
    journal = [line for path in (relay.store / "journal").iterdir() for line in path.read_bytes().splitlines()]
    assert decisions == {line for line in journal if orjson.loads(line)["event"] == "decision"}
    assert relay.process.stop() == 0, relay.printed

"""A relay with both doors and mixed traffic, so that every dashboard has something to show.

`traffic` runs `consentry run` with two workers, a Kafka door, a consent topic and a certificate, and people on record.
`seconds` lets mail and records come in; then people opt out, held copies are released, put off, bounced and discarded,
a reload with a bad rule is refused, a next hop defers and is lost, a worker is killed, records cannot be read.
Nothing is made up for the metrics: all of it passes the real program. Waits in vain raise AssertionError.
"""

import json
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from math import sin
from pathlib import Path

import orjson
import trustme
from support.kafka import Kafka
from support.kafka_door import Topics
from support.processes import wait_until
from support.running import OURS, Running, consentry, environment
from support.script_sink import ScriptSink, drop, reply

RULES = Path(__file__).parents[2] / "config" / "rules"
SETTINGS = """
[divert]
address = "seen@archive.example"
[policy]
marketing = {{ objected = "divert", corporate = "reject" }}
[campaign]
alert_copies = 5
[notice]
to = "reviewers@bank.example"
every = "1min"
[classify]
rules = ["{rules}"]
[kafka]
bootstrap_servers = {servers}
topic = "{topic}"
group = "{group}"
consent_topic = "{consent}"
session_timeout = "3s"
"""
FROM = "From: Bank <news@bank.example>\r\nTo: You <you@home.example>\r\nMessage-ID: <{number}@bank.example>\r\n"
MAIL = {
    "service": (
        "Subject: Your new card\r\n\r\n"
        "Your new debit card ending 4471 was posted today. It should arrive within five working days.\r\n"
    ),
    "marketing": (
        "Subject: Save 20% today\r\n\r\n"
        "Get 20% off your next order today. Shop now and save! Limited time offer, do not miss it.\r\n"
    ),
    "mixed": (
        "Subject: Your statement\r\n\r\nYour statement of October is ready. The balance is 120.50 GBP.\r\n\r\n"
        "Get a new phone at half price this weekend only. Shop now and save!\r\n"
    ),
    "disguised": (
        "Subject: Important information on your account\r\nX-Message-Type: transactional\r\n\r\n"
        "This is a service message. Win a holiday: enter our prize draw now, and get 30% off everything!\r\n"
    ),
}
OFFER = {"channel": "email", "from": "news@bank.example", "to": ["grant@home.example", "unknown@home.example"]}
OFFER |= {"subject": "20 % off everything this weekend", "html": "<p>Save 20 % on all shoes. Buy now!</p>"}
CODE = {"channel": "sms", "from": "Bank", "to": ["+447700900123"], "text": "Your security code is 123456."}
MADE = {"source": "form", "controller": "bank", "brand": "bank", "topic": "offers", "channel": "email"}
WORDING = {"wording_id": "w1", "wording_sha256": "a" * 64, "method": "web form", "grade": "A"}
PEOPLE: Mapping[str, Mapping[str, object]] = {
    "grant": {"kind": "grant", "affirmative": True, "conditional": False, **WORDING},
    "corporate": {"kind": "corporate", "subscriber_evidence": "companies register, number 1", "grade": "B"},
    "object": {"kind": "object", "reason": "asked for no marketing"},
}
TICK = 0.25  # seconds
RELEASED = 'consentry_release_outcomes_total{outcome="released"}'


class Traffic:
    """One relay, its next hop and its topics."""

    def __init__(self, relay: Running, sink: ScriptSink, topics: Topics) -> None:
        self.relay, self.sink, self.topics = relay, sink, topics
        self.sent = 0
        self._client: smtplib.SMTP | None = None

    @property
    def target(self) -> str:
        """What Prometheus scrapes."""
        host, port = self.relay.address("http")
        return f"{host}:{port}"

    def begin(self) -> None:
        """Bring people on record; one of them objects only now, which counts as an opt-out."""
        self.publish(PEOPLE)
        self.relay.wait_health(ready="True")
        wait_until(lambda: "consentry_consent_index_records 3.0" in self.relay.get("/metrics")[1], "people on record")

    def publish(self, people: Mapping[str, Mapping[str, object]]) -> None:
        """Publish consent events, objections as of now and others as made a while ago, and say that this is all."""
        now = datetime.now(UTC)
        ago = {"object": timedelta(seconds=1)}
        rows = [
            {
                "address": f"{name}@home.example",
                "event_time": f"{now - ago.get(str(event['kind']), timedelta(days=5)):%FT%TZ}",
                **MADE,
                **event,
            }
            for name, event in people.items()
        ]
        lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        words = [sys.executable, "-m", "filter", "consent", "publish", "-", "--format", "jsonl", "--heartbeat"]
        done = subprocess.run(
            [*words, "--own-acts", "-c", self.relay.config],
            input=lines,
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done

    def send(self, kind: str, *names: str, sender: str = "news@bank.example") -> int:
        """One message by SMTP to NAME@home.example each; the reply to it."""
        self.sent += 1
        if self._client is None:
            self._client = self.relay.client()
            self._client.ehlo()
        content = (FROM.format(number=f"{os.getpid()}.{self.sent}") + MAIL[kind]).encode()
        try:
            self._client.mail(sender)
            for name in names:
                self._client.rcpt(f"{name}@home.example")
            return self._client.data(content)[0]
        except (smtplib.SMTPException, OSError):  # its worker is gone, or the next hop is not there
            self.close()
            return 451

    def seconds(self, seconds: float) -> None:
        """Mail and records for so long, more and less of it."""
        end, tick = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            began = time.monotonic()
            self._tick(tick)
            tick += 1
            time.sleep(max(0.0, began + TICK - time.monotonic()))

    def _tick(self, tick: int) -> None:
        for _ in range(3 + round(2 * sin(tick / 30))):
            self.send("service", "unknown", "object")
        self.send("marketing", "grant", "object", "unknown")
        if not tick % 2:
            self.send("mixed", "grant", "unknown")
            self.send("marketing", "corporate", "grant")
        if not tick % 5:
            self.send("disguised", "grant", "unknown")
        if not tick % 4:
            records = [orjson.dumps(CODE)] * (5 + round(3 * sin(tick / 20))) + [orjson.dumps(OFFER)] * 2
            self.topics.kafka.produce(self.topics.topic, records, partition=tick % 3)

    def opt_outs(self, count: int) -> None:
        """So many people object, as they are read."""
        self.publish({f"person{number}": PEOPLE["object"] for number in range(count)})

    def order(self, action: str, *words: str) -> None:
        """Decide about held mail."""
        done = consentry("held", action, *words, "--yes", "--why", "decided", "-c", self.relay.config)
        assert done.code in {0, 1}, done.output

    def decide(self) -> None:
        """Discard some of what is held; have the relay release some, to a next hop that defers and refuses a copy."""
        self.order("discard", "--label", "mixed")
        some = chain([reply("450 4.2.1 Busy"), reply("550 5.1.1 No such user")], repeat(None))
        self.sink.script = {"RCPT": lambda _command: next(some)}
        self.order("release", "--label", "marketing", "--reason", "no_consent", "--despite", "--no-wait")
        wait_until(lambda: RELEASED in self.relay.get("/metrics")[1], "a release", seconds=30)
        self.sink.script = {}

    def look_again(self) -> None:
        """Have other workers begin, which look at once at what is held; a configuration with a bad rule is refused."""
        bad = self.relay.directory / "rules" / "bad.toml"
        bad.write_text("[[rule]]\n")
        self.relay.signal(signal.SIGHUP)
        wait_until(lambda: 'consentry_reloads_total{outcome="refused"} 1.0' in self.relay.get("/metrics")[1], "refusal")
        bad.unlink()
        self.relay.signal(signal.SIGHUP)
        self.relay.wait_printed("reloaded generation=2")
        self.relay.wait_health(ready="True")

    def troubles(self) -> None:
        """A next hop that refuses, defers and is lost; a worker that dies; records that cannot be read."""
        self.close()  # it ends with the workers of before
        for answer in (reply("451 4.3.0 Busy"), drop(), reply("554 5.7.1 No")):
            self.sink.script = {".": answer}
            for _ in range(3):
                self.send("service", "unknown")
                time.sleep(0.4)  # a scrape sees some, and then more
        self.sink.script = {}
        restarts = self.relay.counter("worker_restarts")
        os.kill(self._worker(), signal.SIGKILL)
        wait_until(lambda: self.relay.counter("worker_restarts") > restarts, "a restart", seconds=30)
        self.topics.kafka.produce(self.topics.topic, [b"{", b"[]"], partition=0)
        self.relay.wait_health(ready="True")

    def settle(self) -> None:
        """Release more; then nothing is under way, and somebody has seen it."""
        self.order("release", "--label", "mixed", "--despite", "--no-wait")
        self.relay.wait_health(ready="True")
        wait_until(lambda: "consentry_kafka_lag 0.0" in self.relay.get("/metrics")[1], "no lag", seconds=30)

    def _worker(self) -> int:
        """A process that serves; the one that follows the consent topic does not."""
        pids = self.relay.worker_pids()
        return next(pid for pid in pids if "consent_node" not in Path(f"/proc/{pid}/cmdline").read_text())

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


@contextmanager
def traffic(directory: Path, kafka: Kafka, rules_cache: Path) -> Iterator[Traffic]:
    """A relay that is ready, with people on record."""
    shutil.copytree(RULES, directory / "rules")
    topics = Topics(kafka, partitions=3)
    consent = kafka.topic(3, {"cleanup.policy": "compact"})
    servers = json.dumps(kafka.bootstrap.split(","))
    settings = SETTINGS.format(
        rules=directory / "rules", servers=servers, topic=topics.topic, group=topics.group, consent=consent
    )
    certificate = trustme.CA().issue_cert("relay.example", not_after=datetime.now(UTC) + timedelta(days=80))
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "key.pem").chmod(0o600)
    smtp = f'{OURS}tls_cert_file = "{directory / "cert.pem"}"\ntls_key_file = "{directory / "key.pem"}"\n'
    with (
        ScriptSink() as sink,
        Running(directory, sink.port, cache=rules_cache, smtp=smtp, rest=settings) as relay,
    ):
        relay.wait_ready()
        made = Traffic(relay, sink, topics)
        try:
            made.begin()
            yield made
        finally:
            made.close()

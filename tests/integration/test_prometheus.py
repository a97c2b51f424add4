"""A real Prometheus with the shipped rules: it scrapes running relays, and alerts fire on real faults and else do not.

One relay is well until a test breaks something; the other has troubles from the start. Nothing is waited for longer
than needed: rules are evaluated every second, and fire without delay.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from support import parts
from support.bank_mail import MARKETING, SERVICE, grants
from support.processes import run, wait_until
from support.prometheus import SHIPPED, Prometheus, promtool, shortened
from support.running import OURS, Running, consentry
from support.script_sink import ScriptSink, drop, reply

pytestmark = pytest.mark.integration

BOOK = SHIPPED.parent / "runbook.md"
LATE = "ConsentryNextHopHostDown"  # goes on for two minutes after its cause
COUNTERS = re.compile(r"^(consentry_\w+_(?:total|count|bucket|sum)(?:\{.*\})?) (\S+)$", re.MULTILINE)


class Scene(NamedTuple):
    """Two relays and who watches them."""

    well: Running
    troubled: Running
    prometheus: Prometheus
    sink: ScriptSink

    def of(self, relay: Running) -> str:
        """A relay as Prometheus names it."""
        host, port = relay.address("http")
        return f"{host}:{port}"

    def firing(self, relay: Running) -> set[str]:
        """The alerts that fire on a relay."""
        instance = self.of(relay)
        return {
            one.name
            for one in self.prometheus.alerts()
            if one.state == "firing" and one.labels.get("instance") == instance
        }

    def wait_firing(self, relay: Running, *names: str) -> None:
        """Return when all of these fire on a relay."""
        wait_until(lambda: self.firing(relay) >= set(names), f"{names}; firing: {self.firing(relay)}", seconds=40)

    def wait_quiet(self, relay: Running, *but: str) -> None:
        """Return when nothing fires on a relay but what must go on for a quarter of an hour or longer."""
        wait_until(lambda: self.firing(relay) <= set(but), f"quiet; firing: {self.firing(relay)}", seconds=40)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[Scene]:
    """A relay that is well, one that has no Kafka, no consent data and a certificate that is about to expire."""
    well, troubled, home = (tmp_path_factory.mktemp(name) for name in ("well", "troubled", "home"))
    consent = home / "grants.csv"
    consent.write_text(grants("one@home.example"))
    with ScriptSink() as sink:
        one = Running(well, sink.port, cache=rules_cache, smtp=OURS + certificate(well, days=90))
        two = Running(
            *(troubled, sink.port),
            cache=rules_cache,
            smtp=OURS + certificate(troubled, days=10),
            rest='[kafka]\nbootstrap_servers = ["127.0.0.1:9"]',
        )
        with one, two:
            done = consentry("consent", "import", consent, "-c", one.config)
            assert done.code == 0, done.output
            for relay in (one, two):
                relay.wait_ready()
            targets = [f"{host}:{port}" for host, port in (one.address("http"), two.address("http"))]
            with Prometheus(home, targets, rewrite=shortened) as prometheus:
                prometheus.wait_scraped()
                yield Scene(one, two, prometheus, sink)


def certificate(directory: Path, *, days: int) -> str:
    """Settings of a certificate that is valid for so many days."""
    authority = trustme.CA()
    issued = authority.issue_cert("relay.example", not_after=datetime.now(UTC) + timedelta(days=days))
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "key.pem").chmod(0o600)
    return f'tls_cert_file = "{directory / "cert.pem"}"\ntls_key_file = "{directory / "key.pem"}"\n'


def counters(relay: Running) -> dict[str, float]:
    """Every counter of a relay, with those that histograms are made of."""
    return {name: float(value) for name, value in COUNTERS.findall(relay.metrics())}


def test_what_is_shipped_is_in_order() -> None:
    """Promtool finds nothing wrong with configuration and rules."""
    for words in (("check", "config", SHIPPED / "prometheus.yml"), ("check", "rules", *SHIPPED.glob("rules/*.yml"))):
        done = promtool(*words)
        assert done.code == 0, done.output


@pytest.mark.parametrize("file", sorted(path.name for path in SHIPPED.glob("tests/*.yml")))
def test_every_alert_fires_and_stays_quiet(file: str) -> None:
    """The rules' own tests pass: on made-up series each alert fires, alone, and a moment or a little is no alert."""
    done = promtool("test", "rules", SHIPPED / "tests" / file, seconds=120)
    assert done.code == 0, done.output


def test_a_relay_that_is_well_is_quiet(scene: Scene) -> None:
    """Every rule is evaluated without an error; where nothing is wrong no alert fires, with mail or without."""
    assert {rule["health"] for rule in scene.prometheus.rules()} == {"ok"}
    assert not [rule["name"] for rule in scene.prometheus.rules() if rule.get("lastError")]
    scene.wait_quiet(scene.well)  # what fired before the first scrape
    for number in range(8):
        assert scene.well.send(SERVICE % number, ["a@home.example"])[0] == 250
        assert scene.well.send(MARKETING % (100 + number), ["one@home.example", "two@home.example"])[0] == 250
    instance = scene.of(scene.well)
    wanted = {"accepted": 24, "relayed": 16, "held": 8, "diverted": 0, "rejected": 0}
    for name, value in wanted.items():
        scene.prometheus.wait_value(
            f'consentry_{name}_total{{instance="{instance}"}}', lambda found, v=value: found == v
        )
    for name in ("next_hop", "hold_write", "judge", "consent_lookup", "event_loop_lag"):
        assert scene.prometheus.value(f'consentry_{name}_seconds_count{{instance="{instance}"}}'), name
    unaccounted = f'instance:consentry_unaccounted:copies{{instance="{instance}"}}'
    scene.prometheus.wait_value(unaccounted, lambda found: found == 0)
    assert scene.firing(scene.well) == set()


def test_what_the_run_book_says_to_look_at_works(scene: Scene) -> None:
    """Prometheus answers each of its queries; each of its looks into the journal finds a real one readable."""
    blocks = re.findall(r"^```(promql)?\n(.*?)^```", BOOK.read_text(), flags=re.MULTILINE | re.DOTALL)
    queries = [line for kind, block in blocks if kind for line in block.splitlines()]
    assert len(queries) > 50
    for query in queries:
        scene.prometheus.query(query)
    jq = parts.need("jq")
    looks = [
        look for kind, block in blocks if not kind for look in re.findall(r"^jq .*(?:\n  .*)*", block, re.MULTILINE)
    ]
    assert len(looks) > 5
    for look in looks:
        done = run(["sh", "-c", look.replace("DIR", str(scene.well.store))], jq.environment)
        assert done.code == 0, done.output
        assert "error" not in done.output, done.output
    (unaccounted,) = [look for look in looks if "wanted[" in look]
    assert run(["sh", "-c", unaccounted.replace("DIR", str(scene.well.store))], jq.environment).output == ""


def test_troubles_are_told_apart(scene: Scene) -> None:
    """Without Kafka neither messages nor consent come in; a certificate is about to expire. Alerts say so."""
    kafka = {"ConsentryKafkaStalled", "ConsentryNotReady", "ConsentryConsentStale", "ConsentryConsentBehind"}
    scene.wait_firing(scene.troubled, *kafka, "ConsentryCertificateExpiring")
    assert scene.firing(scene.troubled) == {*kafka, "ConsentryCertificateExpiring"}
    for alert in scene.prometheus.alerts():
        assert set(alert.annotations) == {"summary", "description", "runbook_url"}
        assert "error" not in alert.annotations["description"]
        assert "%!" not in alert.annotations["description"]
        assert alert.annotations["runbook_url"].endswith(f"#{alert.name.lower()}")
    (loading,) = [one for one in scene.prometheus.alerts() if one.name == "ConsentryNotReady"]
    assert loading.labels["reason"] == "consent_loading"
    (expiring,) = [one for one in scene.prometheus.alerts() if one.name == "ConsentryCertificateExpiring"]
    assert expiring.labels["use"] == "smtp"
    assert "expires in 9d 23h" in expiring.annotations["description"]


def test_counters_outlive_workers(scene: Scene) -> None:
    """Kill every worker: each counter is there as before and goes on, none goes down or jumps."""
    relay, instance = scene.well, scene.of(scene.well)
    before, killed = counters(relay), relay.worker_pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(killed) & set(relay.worker_pids()), "their end")
    gone = counters(relay)
    assert all(gone[name] >= value for name, value in before.items())
    wait_until(lambda: len(relay.worker_pids()) == 2, "other workers")
    relay.wait_health(ready="True")
    assert all(relay.send(SERVICE % number, ["a@home.example"])[0] == 250 for number in range(1000, 1012))
    after = counters(relay)
    for name in ("accepted_total", "judge_seconds_count", 'transaction_seconds_count{door="smtp"}'):
        assert after[f"consentry_{name}"] - before[f"consentry_{name}"] == 12
    assert after['consentry_errors_total{where="judge"}'] == 0
    scene.prometheus.wait_value(
        f'consentry_accepted_total{{instance="{instance}"}}', lambda found: found == after["consentry_accepted_total"]
    )
    for name in {name.partition("{")[0] for name in after}:
        assert scene.prometheus.query(f'resets({name}{{instance="{instance}"}}[10m]) > 0') == [], name
    (line,) = scene.prometheus.query_range(
        f'consentry_accepted_total{{instance="{instance}"}}', start=time.time() - 120, end=time.time()
    )
    values = [value for _, value in line.points]
    assert values == sorted(values)
    assert values[-1] == after["consentry_accepted_total"]
    scene.wait_quiet(relay)


def test_a_next_hop_that_is_gone(scene: Scene) -> None:
    """While the next hop is down that is told; when it is back, no longer."""
    scene.sink.refuse()
    scene.sink.interrupt(reply("421 4.3.2 Going down", close=True))
    for number in range(2000, 2010):
        assert scene.well.send(SERVICE % number, ["a@home.example"])[0] == 451
    scene.wait_firing(scene.well, "ConsentryNextHopUnavailable", "ConsentryNextHopHostDown")
    assert scene.prometheus.wait_firing("ConsentryNextHopUnavailable").labels["severity"] == "critical"
    scene.sink.accept()
    scene.wait_quiet(scene.well, LATE)


def test_messages_in_doubt(scene: Scene) -> None:
    """A next hop that is lost after the final dot, again and again, is told; once is not worth it."""
    instance = scene.of(scene.well)
    in_doubt = f'consentry_in_doubt_total{{instance="{instance}"}}'
    before = scene.prometheus.value(in_doubt) or 0
    for number in range(3000, 3006):
        if number == 3001:
            scene.prometheus.wait_value(in_doubt, lambda found: found == before + 1)
            time.sleep(2.0)  # two evaluations
            assert "ConsentryInDoubt" not in scene.firing(scene.well)
        scene.sink.script = {".": drop()}
        assert scene.well.send(SERVICE % number, ["a@home.example"])[0] == 451
        scene.sink.script = {}
    scene.wait_firing(scene.well, "ConsentryInDoubt")
    scene.wait_quiet(scene.well, "ConsentryInDoubt", LATE)


def test_a_store_without_room_and_old_consent_data(scene: Scene) -> None:
    """A hold store that has no room for mail, and consent data that is too old, are told until mended."""
    relay, smtp = scene.well, OURS + certificate(scene.well.directory, days=1)
    relay.configure(smtp=smtp, store='min_free_space = "1 TiB"', rest='[consent]\nstale_after = "1s"')
    relay.reload()
    scene.wait_firing(relay, "ConsentryHoldStoreFailing", "ConsentryConsentStale", "ConsentryCertificateExpired")
    relay.configure(smtp=OURS + certificate(relay.directory, days=90))
    relay.reload()
    scene.wait_quiet(relay, "ConsentryInDoubt", LATE)


def test_workers_that_end_again_and_again_and_the_end(scene: Scene) -> None:
    """Three workers that died in a short time are told; a target that is gone is, too, and what it counted is kept."""
    instance = scene.of(scene.well)
    while scene.well.counter("worker_restarts") < 3:
        killed, before = scene.well.worker_pids()[0], scene.well.counter("worker_restarts")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda so_far=before: scene.well.counter("worker_restarts") > so_far, "a restart", seconds=30)
    scene.wait_firing(scene.well, "ConsentryWorkersRestarting")
    scene.well.signal(signal.SIGTERM)
    assert scene.well.wait_end() == 0
    scene.wait_firing(scene.well, "ConsentryDown")
    assert scene.prometheus.value(f'max_over_time(consentry_accepted_total{{instance="{instance}"}}[10m])')

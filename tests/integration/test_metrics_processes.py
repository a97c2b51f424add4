"""Counters of several processes are one page, and those of processes that have ended are neither lost nor doubled."""

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from filter.metrics import exposition, prepare, retire

pytestmark = pytest.mark.integration

# What a worker does: count, and say its process id; then wait to be ended.
WORKER = """
import os, sys
from prometheus_client import CollectorRegistry
from filter.events import Outcome
from filter.metrics import DoorName, Metrics
metrics = Metrics(CollectorRegistry())
n = int(sys.argv[1])
metrics.taken(1, relayed=0, diverted=0, held=1, rejected=0)
metrics.decided(DoorName.SMTP, "marketing", [], [f"rule.{number}" for number in range(2000)])  # the file grows
metrics.taken(n - 1, relayed=0, diverted=0, held=n - 1, rejected=0)
metrics.connections.set(int(sys.argv[1]))
metrics.journal_failed.set(int(sys.argv[1]) > 2)
metrics.finished(DoorName.SMTP, "service", Outcome.TAKEN, 0.004)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def worker(directory: Path, count: int) -> subprocess.Popen[str]:
    """A process that has counted."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(count)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    return process


# Counts without a pause, until it is ended.
BUSY = """
from prometheus_client import CollectorRegistry, Counter
from filter import quick_counts
add = quick_counts.counter(Counter("busy", "", registry=CollectorRegistry()))
add(1)
print(flush=True)
while True:
    add(1)
"""
# Notes what nobody comes to count, and ends.
ENDS = """
from prometheus_client import CollectorRegistry
from filter.metrics import Metrics
metrics = Metrics(CollectorRegistry(), lambda seconds, call: None)
metrics.taken(1, relayed=1, diverted=0, held=0, rejected=0)
metrics.consent_lookup_took(0.001)
raise SystemExit(1)
"""


def test_a_counter_never_falls_while_it_is_read(tmp_path: Path) -> None:
    """Whoever reads the file of a worker that counts reads each value as it was or as it is, never something less."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", BUSY], env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            path = tmp_path / f"counter_{process.pid}.db"
            ((place,),) = [
                [at for key, _, _, at in MmapedDict.read_all_values_from_file(str(path)) if "busy_total" in key]
            ]
            with path.open("rb") as file:
                until, seen = time.monotonic() + 5, []
                while time.monotonic() < until:
                    seen += [os.pread(file.fileno(), 8, place) for _ in range(1000)]
        finally:
            process.kill()
    found = [value for octets in seen for value in struct.unpack("d", octets)]
    assert found == sorted(found)
    assert found[-1] > found[0] > 0


def test_what_was_noted_is_counted_when_the_process_ends(tmp_path: Path) -> None:
    """A worker that stops, for whatever reason, has counted what it noted a moment before."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", ENDS], env=environment, check=False).returncode == 1
    found = values(tmp_path)
    assert (found["consentry_accepted_total"], found["consentry_relayed_total"]) == (1, 1)
    assert found["consentry_consent_lookup_seconds_count"] == 1


def values(directory: Path) -> dict[str, float]:
    """The page as numbers."""
    found = re.findall(r"^(consentry_\S+) (\S+)$", exposition(directory).decode(), flags=re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_workers_come_and_go(tmp_path: Path) -> None:
    """Counters are added up over living and ended workers; gauges are those of the living."""
    prepare(tmp_path)
    workers = [worker(tmp_path, 2), worker(tmp_path, 3)]
    try:
        counters = {
            "consentry_held_total": 5.0,
            'consentry_rule_hits_total{rule="rule.0"}': 2.0,
            'consentry_rule_hits_total{rule="rule.1999"}': 2.0,
            'consentry_messages_total{door="smtp",label="service",outcome="taken"}': 2.0,
            'consentry_transaction_seconds_count{door="smtp"}': 2.0,
            'consentry_transaction_seconds_bucket{door="smtp",le="0.005"}': 2.0,
        }
        gauges = {"consentry_connections": 5.0, "consentry_journal_failed": 1.0}
        assert values(tmp_path).items() >= {**counters, **gauges}.items()
        for ended, left in (
            (workers[1], {"consentry_connections": 2.0, "consentry_journal_failed": 0.0}),
            (workers[0], {}),
        ):
            ended.kill()
            ended.communicate()
            retire(tmp_path, ended.pid)
            now = values(tmp_path)
            assert now.items() >= {**counters, **left}.items()
        assert "consentry_connections" not in now
        retire(tmp_path, workers[0].pid)
        assert values(tmp_path) == now
    finally:
        for process in workers:
            process.kill()
            process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_ended.db", "histogram_ended.db"]
    prepare(tmp_path)
    assert values(tmp_path) == {}

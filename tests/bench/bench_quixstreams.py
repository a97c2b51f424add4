"""The Kafka door and the same job on quixstreams, one after the other against one broker: both rates and the ratio.

    .venv/bin/python tests/bench/bench_quixstreams.py [--messages N] [--partitions N] [--commit-every N] [--kind pages]

Both read the same JSON mail of 4 kB (`bench_kafka.py`), judge it with the same core, rules and settings, and write the
same records, exactly once, in one process each. What each record became is compared at the end. quixstreams is no
dependency of the project: it goes into an environment of its own, `.cache/quixstreams`, made from the pinned versions
and hashes of `quixstreams.lock` on the first run. To pin another version:

    echo quixstreams==VERSION | .cache/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
        --no-annotate - --output-file tests/bench/quixstreams.lock

Counted is from the first commit to the last one that left records to be read, so that nobody waits for input. Ours does
more for each message: see `quixstreams_job.py`. Either way quixstreams commits by its own default every 5 seconds,
where we do after 500 records; `--commit-every 500` gives it transactions as large as ours.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import orjson  # noqa: E402 - found by the line above
from bench_kafka import JAVA, ROOT, SETTINGS, KafkaAlone, fill, used  # noqa: E402 - found by the path set above
from support.kafka import Cluster, Kafka  # noqa: E402 - found by the path set above
from support.kafka_door import Topics  # noqa: E402 - found by the path set above

HERE = Path(__file__).parent
ENVIRONMENT = ROOT / ".cache" / "quixstreams"
LOOK_EVERY = 0.2  # seconds
PATIENCE = 120  # seconds without a commit


class Rate(NamedTuple):
    """So many messages took so long, and so much of the processor (seconds)."""

    messages: int
    seconds: float
    processor: float

    def __str__(self) -> str:
        each = self.processor / self.messages * 1e6
        return (
            f"{self.messages / self.seconds:5.0f}/s with {self.processor / self.seconds:.0%} of a core; "
            f"{each:.0f} us of processor for each, so {self.alone:.0f}/s on a core of its own"
        )

    @property
    def alone(self) -> float:
        """Messages a second with a core of its own."""
        return self.messages / self.processor


def interpreter() -> Path:
    """The Python of the environment with quixstreams, which also sees what the project needs."""
    lock = HERE / "quixstreams.lock"
    python, made_from = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "made-from.lock"
    if not made_from.exists() or made_from.read_bytes() != lock.read_bytes():
        print(f"Installing quixstreams into {ENVIRONMENT.relative_to(ROOT)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--require-hashes", "--only-binary=:all:", "-r", lock], check=True)
        ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
        (packages / "consentry.pth").write_text(sysconfig.get_path("purelib") + "\n")  # searched after its own
        made_from.write_bytes(lock.read_bytes())
    return python


def measured(topics: Topics, pid: int, count: int) -> Rate:
    """What a process does from its first commit on until all but what its last one takes is committed."""
    marks: list[tuple[int, float, float]] = []
    heard = time.monotonic()
    while (done := sum(topics.committed().values())) < count:
        if done and (not marks or done > marks[-1][0]):
            marks.append((done, time.monotonic(), used(pid)))
            heard = time.monotonic()
        assert time.monotonic() - heard < PATIENCE, f"{done} of {count} committed, and no more for {PATIENCE} s"
        time.sleep(LOOK_EVERY)
    assert len(marks) > 1, "too few messages to measure anything: there must be several commits"
    (first, began, spent_before), (last, ended, spent) = marks[0], marks[-1]
    return Rate(last - first, ended - began, spent - spent_before)


def run_ours(kafka: Kafka, directory: Path, topics: Topics, count: int) -> tuple[Rate, Path]:
    """`consentry run` with one worker and the Kafka door alone; its configuration too."""
    rest = SETTINGS.format(servers=json.dumps(kafka.bootstrap.split(",")), topic=topics.topic, group=topics.group)
    with KafkaAlone(directory, 1, cache=ROOT / ".cache" / "consentry", workers=1, smtp="", rest=rest) as relay:
        relay.wait_ready()
        (worker,) = relay.worker_pids()
        return measured(topics, worker, count), relay.config


def run_theirs(python: Path, config: Path, topics: Topics, count: int, commit_every: int) -> Rate:
    """The job on quixstreams, in one process."""
    metrics = config.parent / "metrics"
    metrics.mkdir()  # so that it counts as workers do, which is quicker
    words = [config, topics.kafka.bootstrap, topics.topic, topics.group, str(commit_every)]
    with (config.parent / "quixstreams.log").open("w") as log:
        process = subprocess.Popen(
            [python, HERE / "quixstreams_job.py", *words],
            cwd=config.parent,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            stdout=log,
            stderr=log,
        )
        try:
            return measured(topics, process.pid, count)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode:
                print((config.parent / "quixstreams.log").read_text()[-3000:])


def verdicts(topics: Topics) -> Mapping[tuple[int, int], tuple[str, str, str]]:
    """What each record became, by partition and offset; each exactly once."""
    found = {}
    for record in topics.records("decisions"):
        headers, line = dict(record.headers), orjson.loads(record.value)
        source = int(headers["consentry-source-partition"]), int(headers["consentry-source-offset"])
        assert source not in found, f"{source} was decided on twice"
        found[source] = line["label"], line["disposition"], line["reason"]
    return found


def main() -> None:
    """Read the arguments, measure both, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--commit-every", type=int, default=0, help="records in a transaction of quixstreams")
    parser.add_argument("--kind", choices=("letters", "pages"), default="letters")
    arguments = parser.parse_args()
    python, count = interpreter(), arguments.messages
    with ExitStack() as stack:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        kafka = Kafka(servers) if servers else stack.enter_context(Cluster(options=JAVA))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kafka-bench-")))
        both = [Topics(kafka, partitions=arguments.partitions, outputs=arguments.partitions) for _ in range(2)]
        for topics in both:
            size = asyncio.run(fill(kafka, topics.topic, arguments.partitions, count, arguments.kind))
        print(f"{arguments.kind}: {count} messages of {size:.0f} octets in {arguments.partitions} partitions")
        ours, config = run_ours(kafka, directory, both[0], count)
        print(f"  consentry    {ours}", flush=True)
        theirs = run_theirs(python, config, both[1], count, arguments.commit_every)
        print(f"  quixstreams  {theirs}")
        print(f"  ratio {ours.messages / ours.seconds / (theirs.messages / theirs.seconds):.2f} as measured, ", end="")
        print(f"{ours.alone / theirs.alone:.2f} by processor; load now {os.getloadavg()[0]:.1f}")
        became = [verdicts(topics) for topics in both]
        assert became[0] == became[1], "they did not decide alike"
        assert len(became[0]) == count
        print(f"  {count} records were decided on once by each, and alike")


if __name__ == "__main__":
    main()

"""Messages a second through `consentry run` with the Kafka door alone, one worker: exactly once, judged, journalled.

    bench_kafka.py [--messages N] [--partitions N]

JSON mail of 4 kB to one recipient each waits in the input topic before the relay starts: copies of one letter of text,
and pages of many templates in which much is personal. Nobody has consented, so what promotes is held. A Kafka runs on
the same machine (KAFKA_BOOTSTRAP_SERVERS: elsewhere). Printed is how many were committed a second from the first commit
to the last, how much of one core the worker used for it, and so how many it could do with a core of its own.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import orjson  # noqa: E402 - found by the line above
from aiokafka import AIOKafkaProducer  # noqa: E402
from bench_campaign import NAMES, TEXT  # noqa: E402
from support.campaigns import Copy, page, templates  # noqa: E402
from support.kafka import Cluster, Kafka  # noqa: E402
from support.kafka_door import Topics  # noqa: E402
from support.running import Running  # noqa: E402

ROOT = Path(__file__).parents[2]
SETTINGS = """
[kafka]
bootstrap_servers = {servers}
topic = "{topic}"
group = "{group}"
consent_topic = ""
"""
JAVA = ("-Xmx1g", "-XX:+UseSerialGC")
PARTS = [
    f"{TEXT[n % 4]} {TEXT[(n + 1) % 4]} This is part {'abcdefghijklmnopqrst'[n]} of the letter." for n in range(17)
]


class KafkaAlone(Running):
    """The command without listeners for mail."""

    def configure(self, **settings: str) -> None:
        """As it is written for mail, but for that."""
        super().configure(**settings)
        self.config.write_text(self.config.read_text().replace('listen = ["127.0.0.1:0"]', "listen = []"))


def letters() -> Iterator[dict[str, object]]:
    """One letter of 4 kB of text: greeting, name and one paragraph for each recipient alone."""
    for number in itertools.count():
        chance = random.Random(number)
        name, figure = chance.choice(NAMES), f"{chance.randrange(99_999) / 100:.2f}"
        personal = f"Your account ending {chance.randrange(10_000)} had £{figure} in it, {name}."
        text = "\n\n".join([f"Dear {name},", personal, *PARTS, "Yours sincerely"])
        yield {"subject": "How we look after your account", "from": "post@bank.example", "text": text}


def pages() -> Iterator[dict[str, object]]:
    """Pages of many templates, each with names, products and figures of its own, as large as a letter."""
    english = [template for template in templates() if template.lang == "en"]
    for number in itertools.count():
        template = english[number % len(english)]
        copy = Copy(template, number)
        html = ""
        while len(html) < len("".join(PARTS)):
            html += page(template, copy, "bank.example")
        yield {"subject": copy.fill(template.subject or ""), "from": template.sender, "html": html}


def messages(kind: str) -> Iterator[bytes]:
    """JSON mail of a kind, to one recipient each."""
    for number, document in enumerate({"letters": letters, "pages": pages}[kind]()):
        about = {"id": f"{number}@bank.example", "to": [f"user{number}@elsewhere.example"]}
        yield orjson.dumps({**about, **document})


async def fill(kafka: Kafka, topic: str, partitions: int, count: int, kind: str) -> float:
    """Write messages to the input topic; how large they are on average."""
    octets = 0
    async with AIOKafkaProducer(**kafka.connection, linger_ms=20, max_batch_size=1 << 18) as producer:
        for number, message in enumerate(itertools.islice(messages(kind), count)):
            octets += len(message)
            sent = await producer.send(topic, message, key=b"%d" % (number % 1000), partition=number % partitions)
        await sent
        await producer.flush()
    return octets / count


def used(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(kafka: Kafka, directory: Path, kind: str, arguments: argparse.Namespace) -> None:
    """Fill the topic, serve it, print what it took."""
    topics = Topics(kafka, partitions=arguments.partitions, outputs=arguments.partitions)
    size = asyncio.run(fill(kafka, topics.topic, arguments.partitions, arguments.messages, kind))
    servers = json.dumps(kafka.bootstrap.split(","))
    rest = SETTINGS.format(servers=servers, topic=topics.topic, group=topics.group)
    directory.mkdir()
    with KafkaAlone(directory, 1, cache=ROOT / ".cache" / "consentry", workers=1, smtp="", rest=rest) as relay:
        relay.wait_ready()
        (worker,) = relay.worker_pids()
        first = wait(relay, 1)
        started, busy, judging = time.monotonic(), used(worker), value(relay, "consentry_judge_seconds_sum")
        wait(relay, arguments.messages)
        seconds, core = time.monotonic() - started, used(worker) - busy
        judging = value(relay, "consentry_judge_seconds_sum") - judging
    count = arguments.messages - first
    print(f"{kind}: {count} messages of {size:.0f} octets in {arguments.partitions} partitions, one worker:")
    print(f"  {count / seconds:.0f}/s with {core / seconds:.0%} of a core")
    print(f"  {core / count * 1e6:.0f} us of CPU for each, so {count / core:.0f}/s on a core of its own")
    print(f"  {judging / count * 1e6:.0f} us from beginning to end of judging one")


def value(relay: Running, name: str) -> float:
    """The value of a metric."""
    return next((float(line.split()[-1]) for line in relay.get("/metrics")[1].splitlines() if line.startswith(name)), 0)


def wait(relay: Running, count: int) -> int:
    """Wait until so many are committed; how many they are then."""
    while (found := value(relay, 'consentry_kafka_records_total{outcome="taken"}')) < count:
        time.sleep(0.05)
    return int(found)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        kafka = Kafka(servers) if servers else stack.enter_context(Cluster(options=JAVA))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kafka-bench-")))
        for kind in ("letters", "pages"):
            measure(kafka, directory / kind, kind, arguments)


if __name__ == "__main__":
    main()

"""The real command: `consentry run` with a configuration of the test's own, and what can be seen of it from outside.

`Running` ends it, and the workers with it, at the end of `with`. Waits that are in vain raise AssertionError with what
the command printed.
"""

import json
import os
import signal
import smtplib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from support.processes import Done, Process, run, wait_until

from filter import quick_counts

SECONDS = 60.0  # to start: two workers on a busy machine
SETTINGS = """
workers = {workers}
{top}
[smtp]
hostname = "relay.example"
listen = ["127.0.0.1:0"]
{smtp}
[next_hop]
hosts = ["127.0.0.1:{sink}"]
{next_hop}
[store]
{store}
[http]
listen = "127.0.0.1:0"
[[stream]]
controller = "bank"
brand = "bank"
topic = "offers"
{rest}
"""
OURS = 'relay_networks = ["127.0.0.0/8"]\n'


def environment() -> dict[str, str]:
    """A bare environment in which the command can be found."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def consentry(*arguments: str | Path, seconds: float = SECONDS) -> Done:
    """Run one command to its end."""
    return run([sys.executable, "-m", "filter", *arguments], environment(), seconds=seconds)


class Running:
    """`consentry run` in `directory`, relaying to a port of 127.0.0.1; `variables` go into its environment."""

    def __init__(
        self,
        directory: Path,
        sink: int,
        *,
        cache: Path,
        workers: int = 2,
        variables: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        self.directory, self.sink, self.workers = directory, sink, workers
        self.config = directory / "filter.toml"
        self.store = directory / "var"
        self.store.mkdir(mode=0o700, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        if not (self.store / "cache").exists():
            (self.store / "cache").symlink_to(cache)
        self._variables = dict(variables or {})
        self.configure(**settings)
        self.process = self._start("output")

    def _start(self, output: str) -> Process:
        """Start the command with the configuration that is there; what it prints goes into this file."""
        command = [sys.executable, "-m", "filter", "run", "-c", self.config]
        return Process(command, environment() | self._variables, self.directory / output)

    def configure(self, **settings: str) -> None:
        """Write the configuration; it counts from the next start or reload on."""
        parts = {"top": "", "smtp": OURS, "next_hop": "", "store": "", "rest": "", **settings}
        self.config.write_text(SETTINGS.format(sink=self.sink, workers=self.workers, **parts))

    @property
    def printed(self) -> str:
        """Everything on standard output and standard error so far."""
        return self.process.output.read_text()

    def wait_ready(self) -> Self:
        """Return when it said so."""

        def ready() -> bool:
            assert not self.process.ended, self.printed
            return "\nready\n" in self.printed

        wait_until(ready, "ready", seconds=SECONDS)
        return self

    def wait_printed(self, words: str) -> None:
        """Return when these words are in the log."""
        wait_until(lambda: words in self.printed, words, seconds=SECONDS)

    def address(self, kind: str) -> tuple[str, int]:
        """Where it listens: "smtp", "smtps" or "http"."""
        for line in self.printed.splitlines():
            if line.startswith(f"listening {kind} "):
                host, _, port = line.split()[-1].rpartition(":")
                return host, int(port)
        raise AssertionError(f"no {kind} in {self.printed!r}")

    def client(self) -> smtplib.SMTP:
        """A connection to it."""
        return smtplib.SMTP(*self.address("smtp"), local_hostname="client.example", timeout=30)

    def send(self, message: bytes, recipients: Sequence[str], sender: str = "news@bank.example") -> tuple[int, bytes]:
        """One message in a session of its own; the reply to the final dot, or to the first recipient refused."""
        with self.client() as client:
            client.ehlo()
            client.mail(sender)
            for recipient in recipients:
                code, text = client.rcpt(recipient)
                if code != 250:
                    return code, text
            return client.data(message)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        host, port = self.address("http")
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> dict[str, Any]:
        """What /readyz says."""
        return dict(json.loads(self.get("/readyz")[1]))

    def wait_health(self, **wanted: object) -> None:
        """Return when these fields of /readyz have these values."""
        expected = wanted.items()
        wait_until(lambda: expected <= _hashable(self.health()).items(), f"health {wanted}", seconds=SECONDS)

    def metrics(self) -> str:
        """The page of metrics, with everything that was counted up to now: workers count a moment later."""
        time.sleep(10 * quick_counts.MOMENT)  # a busy machine is later
        status, page = self.get("/metrics")
        assert status == 200, page
        return page

    def counter(self, name: str) -> float:
        """The value of a counter without labels."""
        for line in self.metrics().splitlines():
            if line.startswith(f"consentry_{name}_total "):
                return float(line.split()[1])
        raise AssertionError(f"no counter {name}")

    def reload(self) -> None:
        """Have it read its configuration, and wait until the workers of before have left."""
        before = set(self.worker_pids())
        self.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(self.worker_pids()), "the old workers to leave", seconds=SECONDS)

    def journal(self) -> list[Mapping[str, Any]]:
        """Every event of every worker, in the order of time."""
        files = (self.store / "journal").glob("*.jsonl")
        events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return sorted(events, key=lambda event: int(event["at"]))

    def worker_pids(self) -> list[int]:
        """The processes of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        os.kill(self.process.pid, number)

    def wait_end(self) -> int:
        """Wait for the end that somebody asked for; the exit code."""
        wait_until(lambda: self.process.ended, f"the end; printed: {self.printed}", seconds=SECONDS)
        return self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(seconds=SECONDS)


def _hashable(document: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else str(value) for key, value in document.items()}

"""A relay to break: `running.Running` on a port that stays the same, with consent on record, killed and started again.

What it has stored is read through the store's own reader, beside the running relay. Waits that are in vain raise
AssertionError with what the relay printed.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, NamedTuple, Self

from support.processes import free_port, wait_until
from support.running import OURS, SECONDS, Running, consentry

from filter.held import OPEN
from filter.hold_database import HoldDatabase
from filter.hold_scan import Damage, copies
from filter.journal import read_journal
from filter.master_keys import load_vault

__all__ = ["OURS", "Copy", "Relay"]

_PAUSE = 0.3  # seconds between two starts
_NOW = datetime.now(UTC)
_WORDING = {"wording_id": "w1", "wording_sha256": "a" * 64}
_EVIDENCE: Mapping[str, Mapping[str, str]] = {
    "grant": {"method": "web form", "affirmative": "true", "conditional": "false", "grade": "A", **_WORDING},
    "soft_opt_in": dict(
        method="checkout", collector="bank", refusal_offered="true", transaction_ref="1", grade="B", **_WORDING
    ),
    "solicited": {"request_ref": "enquiry 1", "valid_until": f"{_NOW + timedelta(days=9):%FT%TZ}", "grade": "A"},
    "corporate": {"subscriber_evidence": "companies register, number 1", "grade": "B"},
    "object": {"reason": "asked for no marketing"},
}
_SCOPE = {"channel": "email", "controller": "bank", "brand": "bank", "topic": "offers"}
_MADE = {"source": "form", "event_time": f"{_NOW - timedelta(days=5):%FT%TZ}"}


class Copy(NamedTuple):
    """One recipient's copy of a message, and the passage through the relay that made it."""

    message_id: str
    recipient: str
    queue_id: str


class Relay(Running):
    """`consentry run`, taking mail at `port`. `consents` gives each address the kind of its one consent record.

    `settings` are those of `Running`.
    """

    def __init__(
        self,
        directory: Path,
        sink: int,
        *,
        consents: Mapping[str, str] | None = None,
        port: int | None = None,
        **settings: Any,
    ) -> None:
        self.port = port or free_port()
        self._starts = 0
        self._killed: set[int] = set()
        self._consents = consents or {}
        super().__init__(directory, sink, **settings)

    def configure(self, **settings: str) -> None:
        """Write the configuration, with the same port as ever; the first time, import the consent records too."""
        super().configure(**settings)
        self.config.write_text(self.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{self.port}", 1))
        if self._consents and not (self.store / "consent").exists():
            self.agree(self._consents)

    def agree(self, consents: Mapping[str, str]) -> None:
        """Import a consent record of a kind for each address."""
        records = [
            {"address": address, "kind": kind, **_SCOPE, **_MADE, **_EVIDENCE[kind]}
            for address, kind in consents.items()
        ]
        file = self.directory / "consents.jsonl"
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        done = consentry("consent", "import", file, "-c", self.config)
        assert done.code == 0, done.output

    def wait_serving(self) -> Self:
        """Return when every worker takes mail, as /readyz has it, whatever happened before."""

        def serving() -> bool:
            assert not self.process.ended, self.printed
            return self._serves()

        wait_until(serving, "every worker", seconds=SECONDS)
        return self

    def _serves(self) -> bool:
        if "\nready\n" not in self.printed:
            return False
        with suppress(OSError):
            pids = set(self.worker_pids())
            return len(pids) == self.workers and not pids & self._killed and self.get("/readyz")[0] == 200
        return False

    def kill_worker(self, number: int = 0) -> None:
        """Kill -9 one worker, if there is one."""
        pids = self.worker_pids()
        if pids:
            self._killed.add(pids[number % len(pids)])
            _kill(pids[number % len(pids)])

    def kill_supervisor(self) -> None:
        """Kill -9 the supervisor alone; its workers drain when they notice."""
        _kill(self.process.pid)
        self.process.stop()

    def kill_tree(self) -> None:
        """Kill -9 everything at one moment, as a power switch would."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGSTOP)  # so that it starts nothing new meanwhile
        for pid in (*self.worker_pids(), self.process.pid):
            _kill(pid)
        self.process.stop()

    def start_again(self) -> None:
        """Start it with the configuration it had; what it was before has ended, or is ended now."""
        self.process.stop()
        self._starts += 1
        self.process = self._start(f"output-{self._starts}")

    def bring_back(self) -> None:
        """Start it as often as it takes, as a service manager does, until every worker takes mail.

        Workers of a supervisor that was killed keep the port until they have seen their messages to an end.
        """

        def back() -> bool:
            if self.process.ended:
                time.sleep(_PAUSE)
                self.start_again()
            return self._serves()

        wait_until(back, f"every worker; the last start printed {self.process.output}", seconds=SECONDS)

    def wait_metric(self, name: str, value: float) -> None:
        """Return when a metric without labels has this value."""
        line = f"\n{name} {value:.1f}\n"
        wait_until(lambda: line in self.get("/metrics")[1], line, seconds=SECONDS)

    def events(self, name: str | None = None) -> list[Mapping[str, Any]]:
        """Every event in the journal so far, or those of one name; lines torn by a kill are left out."""
        found = read_journal(sorted((self.store / "journal").glob("*.jsonl")))
        return [event for event in found if name in (None, event["event"])]

    def held(self) -> list[Copy]:
        """Every copy that is live in the hold store: held, or about to be sent."""
        found = []
        with self._hold() as hold:
            for each in copies(hold):
                assert not isinstance(each, Damage), each
                if each.state in OPEN:
                    stored = hold.get(each.queue_id)
                    assert stored, each
                    recipient = each.copy.recipient.path.decode()
                    found.append(Copy(message_id(stored.message.content), recipient, each.queue_id))
        return found

    def content(self, queue_id: str) -> bytes | None:
        """The content of a message of which copies are in the hold store; None if none are, or none are live."""
        with self._hold() as hold:
            stored = hold.get(queue_id)
            return stored.message.content if stored and stored.has_content else None

    @contextmanager
    def _hold(self) -> Iterator[HoldDatabase]:
        """The file of held mail; it is written to only to repair the log that a kill has left."""
        hold = HoldDatabase.open(self.store / "hold", load_vault(self.store / "keys" / "hold.key"), create=False)
        try:
            yield hold
        finally:
            hold.close()


def message_id(content: bytes) -> str:
    """The Message-ID of a message without its brackets."""
    return str(BytesHeaderParser().parsebytes(content)["Message-ID"]).strip().strip("<>")


def queue_id(content: bytes) -> str:
    """The queue id that the relay has given a message it passed on."""
    return str(BytesHeaderParser().parsebytes(content)["X-Consentry"])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

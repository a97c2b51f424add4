"""The pipeline with what it has in production behind it: hold store, flights and journal on the disk."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from support import fakes
from support.held import VAULT
from support.world import CLIENT, MAIL, NOON, PROMOTION, decider, rcpt

from filter.address import SubjectKeyer
from filter.completion import Completion
from filter.diverting import Diverter
from filter.flights import Flights, recovered
from filter.held import CopyState
from filter.hold_scan import StoredCopy
from filter.hold_store import HoldStore
from filter.journal import FileJournal, read_journal
from filter.judging import Judge
from filter.message_key import MessageKeyer
from filter.metrics import Metrics
from filter.pipeline import Pipeline, PipelineSettings
from filter.recovery import recover
from filter.replies import Reply

ONE_OF_EACH = [rcpt("relay"), rcpt("hold"), rcpt("divert"), rcpt("reject")]
IN_PLACE = [(b"divert.0@x.example", "diverted"), (b"hold.0@x.example", "held"), (b"reject.0@x.example", "held")]
NOT_DIVERTED = [(path, "held") for path, _ in IN_PLACE]


def _report(where: str, error: Exception) -> None:
    raise AssertionError(where) from error


def _now() -> int:
    return NOON


class Worker:
    """One worker's life on a store directory; next hops are scripted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = fakes.Script()
        self.hop, self.side = fakes.NextHop("hop", self.script), fakes.NextHop("side", self.script)

    def send(self, *, known: bool = True) -> Reply:
        """Start, recover, take one message, and end in order."""
        return asyncio.run(self._live(lambda *parts: self._send(*parts, known=known)))

    def states(self) -> list[tuple[bytes, str]]:
        """Path and state of each copy in the hold store that is not void."""
        hold = HoldStore(self.directory / "hold", vault=VAULT, min_free_space=0)
        try:
            kept = [one for one in hold.copies() if isinstance(one, StoredCopy)]
            return sorted((one.copy.recipient.path, str(one.state)) for one in kept if one.state is not CopyState.VOID)
        finally:
            hold.close()

    def events(self) -> list[str]:
        """What the journal tells, in order."""
        return [line["event"] for line in read_journal([self.directory / "journal" / "2024-10-04.0.jsonl"])]

    async def _live(self, act: Callable) -> Reply:
        hold = HoldStore(self.directory / "hold", vault=VAULT, min_free_space=0)
        flights = Flights(self.directory / "flights", 0, slots=4)
        metrics = Metrics(CollectorRegistry())
        try:
            with FileJournal(self.directory / "journal", "0", _now) as journal:
                with recovered(self.directory / "flights") as found:
                    await recover(found.left, hold, journal, metrics, _now)
                pipeline = Pipeline(
                    judge=Judge(decider, SubjectKeyer(b"s" * 32), metrics, _report),
                    next_hop=self.hop,
                    completion=Completion(
                        diverter=Diverter(self.side, b"", hold, _report),
                        hold=hold,
                        journal=journal,
                        metrics=metrics,
                        clock=_now,
                        report=_report,
                    ),
                    hold=hold,
                    flights=flights,
                    journal=journal,
                    metrics=metrics,
                    keyer=MessageKeyer(b"m" * 32),
                    settings=PipelineSettings(hostname="gate.example", transaction_timeout=20.0),
                    clock=_now,
                    report=_report,
                )
                reply = await act(pipeline)
                await pipeline.completion.finish()
                return reply
        finally:
            flights.close()
            hold.close()

    async def _send(self, pipeline: Pipeline, *, known: bool) -> Reply:
        transaction = pipeline.begin(CLIENT, MAIL)
        for recipient in ONE_OF_EACH:
            await transaction.rcpt(recipient)
        reply = await transaction.data(PROMOTION)
        if known:
            transaction.acknowledged()
        else:
            await transaction.unacknowledged()
        return reply


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """A worker on a new store directory."""
    return Worker(tmp_path)


def test_each_copy_is_where_the_journal_says(worker: Worker) -> None:
    """Relayed, held, rejected and diverted, on the disk as in the journal (D1, D2)."""
    assert worker.send().code == 250
    assert worker.states() == IN_PLACE
    assert worker.events() == ["message", *["decision"] * 4, "relayed", "held", "rejected", "diverted"]
    assert worker.hop.reached == [b"relay.0@x.example"]


def test_what_the_next_hop_refuses_is_void(worker: Worker) -> None:
    """After a refusal no copy is live (D4)."""
    worker.hop.final = Reply(554, "5.7.0", ("No",))
    assert worker.send() == worker.hop.final
    assert worker.states() == []


def test_a_retry_in_the_next_life_is_known(worker: Worker) -> None:
    """What was taken and never acknowledged is remembered over a restart (D6)."""
    assert [worker.send(known=False).code, worker.send().code] == [250, 250]
    assert worker.hop.reached == [b"relay.0@x.example"]
    assert worker.events()[-1] == "duplicate_suppressed"


@pytest.mark.parametrize(
    ("call", "event", "states"),
    [
        ("hop.restart", "", IN_PLACE),
        ("hop.data", "in_doubt", IN_PLACE),
        ("side.rcpt", "unacknowledged", NOT_DIVERTED),
    ],
)
def test_a_killed_worker_is_followed_by_one_that_knows(
    worker: Worker, call: str, event: str, states: list[tuple[bytes, str]]
) -> None:
    """Killed while storing, sending or completing: the retry leaves every copy in one place (E1)."""
    worker.script.fail = {call: fakes.Crash()}
    with pytest.raises(fakes.Crash):
        worker.send()
    worker.script.fail = {}
    assert worker.send().code == 250
    assert worker.hop.reached == [b"relay.0@x.example"]
    assert event in ("", *worker.events())
    assert worker.states() == states

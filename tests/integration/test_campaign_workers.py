"""Campaigns followed by real processes: a decision reaches each, and all of them together raise one alert."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.campaign_workers import COPIES, add_for_ever, follow
from support.world import NOON

from filter.campaign_store import SqliteLedger
from filter.campaign_watch import POLL_EVERY
from filter.campaigns import CampaignDecision, Decided

SPAWN = multiprocessing.get_context("spawn")
WAIT = 30.0  # seconds until a process that does not answer is given up
DECISION = CampaignDecision("news", Decided.IS_SERVICE, "looked", "ann", NOON)


class Follower:
    """A process that follows campaigns."""

    def __init__(self, directory: Path) -> None:
        self.answers: Any = SPAWN.Queue()
        self.questions: Any = SPAWN.Queue()
        self.process = SPAWN.Process(target=follow, args=(directory, self.answers, self.questions))
        self.process.start()

    def ask(self, what: str | None) -> None:
        """Ask, and do not wait."""
        self.questions.put(what)

    def answer(self):
        """The next answer."""
        return self.answers.get(timeout=WAIT)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Follower]]:
    """Two processes with one ledger."""
    followers = [Follower(tmp_path) for _ in range(2)]
    yield followers
    for one in followers:
        one.process.kill()
        one.process.join()


def test_a_decision_reaches_every_worker(two: list[Follower], tmp_path: Path) -> None:
    """What one process decides, and takes back, changes the verdicts of all others, without a message in between."""
    assert POLL_EVERY <= 0.5  # so that it is within a second
    for one in two:
        one.ask("verdict")
    assert [one.answer() for one in two] == ["soft_opt_in", "soft_opt_in"]
    ledger = SqliteLedger(tmp_path)
    for change, reason in (
        (lambda: ledger.decide(DECISION), "decided_service"),
        (lambda: ledger.withdraw("news", "ann", NOON), "soft_opt_in"),
    ):
        for one in two:
            one.ask("change")
        change()
        assert [one.answer() for one in two] == [reason, reason]
    ledger.close()


def test_a_burst_over_several_workers_raises_one_alert(two: list[Follower], tmp_path: Path) -> None:
    """Each has copies enough for an alert; one of them tells, and the counts of both are in the ledger."""
    for one in two * 3:
        one.ask("burst")
    assert [one.answer() for one in two * 3] == ["noted"] * 6
    for one in two:
        one.ask(None)
    alerts = [campaign for one in two for campaign in one.answer()]
    assert alerts == ["news"]
    ledger = SqliteLedger(tmp_path)
    line = ledger.campaign("news")
    assert line is not None
    assert (line.messages, line.disguised, line.alerted_at) == (6 * COPIES, 6 * COPIES, NOON)
    ledger.close()


def test_a_killed_worker_leaves_whole_batches(tmp_path: Path) -> None:
    """Whatever the ledger said it had is there after a kill, and of each batch all or nothing."""
    for life in range(5):
        before = _messages(tmp_path)
        told, tells = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=add_for_ever, args=(tmp_path, tells))
        process.start()
        tells.close()
        told_last = 0
        while told_last < 3 * (life + 1):
            assert told.poll(WAIT)
            told_last = told.recv()
        process.kill()
        process.join()
        while told.poll():
            try:
                told_last = told.recv()
            except EOFError:
                break
        assert _messages(tmp_path) - before in (told_last, told_last + 1)


def _messages(directory: Path) -> int:
    """How many messages of both campaigns there are, as often in labels."""
    ledger = SqliteLedger(directory)
    found = [ledger.campaign(name) for name in "ab"]
    ledger.close()
    counts = {(line.messages, line.labels["mixed"]) if line else (0, 0) for line in found}
    ((messages, labels),) = counts
    assert messages == labels
    return messages

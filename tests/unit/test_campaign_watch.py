"""A worker's view of campaigns: decisions as last read, counts that get to the ledger, one alert for a burst."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from support.campaign_mail import judged_mail, subject_of
from support.fakes import Journal
from support.world import NOON

from filter.campaign_store import SqliteLedger
from filter.campaign_watch import KEEP_RARE, PRUNE_EVERY, CampaignWatch, Tripwire
from filter.campaigns import CampaignDecision, Decided, Seen
from filter.metrics import Metrics
from filter.ports import HoldUnavailableError

DECISION = CampaignDecision("news", Decided.IS_SERVICE, "looked", "ann", NOON)
HOUR = 3_600_000


class Fragile(SqliteLedger):
    """A ledger that fails when told so."""

    broken = False

    def add(self, seen: Sequence[Seen]) -> None:
        """Add, unless broken."""
        self._hold_or_fail()
        super().add(seen)

    def version(self) -> int:
        """The version, unless broken."""
        self._hold_or_fail()
        return super().version()

    def _hold_or_fail(self) -> None:
        if self.broken:
            raise HoldUnavailableError("no")


class Worker:
    """A watch with everything around it."""

    def __init__(self, directory: Path) -> None:
        self.ledger = Fragile(directory)
        self.registry = CollectorRegistry()
        self.journal = Journal()
        self.now = NOON
        self.watch = CampaignWatch(
            self.ledger,
            Tripwire(copies=5, window=HOUR),
            subject_of,
            journal=self.journal,
            metrics=Metrics(self.registry),
            clock=lambda: self.now,
        )

    def burst(self, copies: int, *, declared: str = "service", subject: str = "news", at: int = NOON) -> None:
        """So many copies, two in each message as far as they go."""
        for first in range(0, copies, 2):
            self.watch.note(*judged_mail(subject, *(["hold"] * min(2, copies - first)), declared=declared, at=at))

    def alerts(self) -> list[object]:
        """The campaigns of alerts in the journal."""
        return [line["campaign"] for line in self.journal.events if line["event"] == "campaign_alert"]

    def count(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.registry.get_sample_value(f"consentry_{name}", labels) or 0


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    """Makes workers of one ledger."""
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


def run(*workers: Worker, doing: Callable[[], object]) -> None:
    """Start the watches, do it (a coroutine too), and stop them."""

    async def running() -> None:
        for one in workers:
            await one.watch.start()
        done = doing()
        if asyncio.iscoroutine(done):
            await done
        for one in workers:
            await one.watch.stop()

    asyncio.run(running())


def test_a_decision_counts_from_the_next_look_on(worker: Callable[[], Worker]) -> None:
    """What stands at the start, what is decided later and what is taken back is known after a look."""
    one = worker()
    one.ledger.decide(DECISION)
    known = []

    async def doing() -> None:
        known.append(one.watch.decision("news"))
        later = DECISION._replace(decided=Decided.IS_MARKETING)
        one.ledger.decide(later)
        await one.watch.refresh()
        known.append(one.watch.decision("news"))
        one.ledger.decide(DECISION._replace(needs_second=True))
        await one.watch.refresh()
        known.append(one.watch.decision("news"))
        one.ledger.withdraw("news", "bob", NOON)
        one.ledger.withdraw("news", "bob", NOON)
        await one.watch.refresh()
        known.append(one.watch.decision("news"))

    run(one, doing=doing)
    later = DECISION._replace(decided=Decided.IS_MARKETING)
    assert known == [DECISION, later, later, None]


def test_without_decisions_nothing_starts(worker: Callable[[], Worker]) -> None:
    """A ledger that cannot be read at the start is an error: decided marketing would pass as service."""
    one = worker()
    one.ledger.broken = True
    with pytest.raises(HoldUnavailableError):
        run(one, doing=lambda: None)


def test_a_failing_ledger_leaves_what_was_read(worker: Callable[[], Worker]) -> None:
    """Decisions read before go on to count, and counts are kept until they can be written."""
    one = worker()
    one.ledger.decide(DECISION)

    async def doing() -> None:
        one.burst(2)
        one.ledger.broken = True
        for failing in (one.watch.flush, one.watch.refresh, one.watch.flush):
            with pytest.raises(HoldUnavailableError):
                await failing()
        assert one.watch.decision("news") == DECISION
        one.burst(1)
        one.ledger.broken = False

    run(one, doing=doing)
    line = one.ledger.campaign("news")
    assert line is not None
    assert (line.messages, line.recipients, line.disguised, line.subject) == (2, {"hold": 3}, 3, "news")


def test_what_was_noted_is_written_at_the_end(worker: Callable[[], Worker]) -> None:
    """Stopping hands everything over; if that fails it is counted and does not keep the worker from ending."""
    one, two = worker(), worker()

    def doing() -> None:
        one.burst(2)
        two.burst(2)
        two.ledger.broken = True

    run(one, two, doing=doing)
    line = one.ledger.campaign("news")
    assert line is not None
    assert line.messages == 1
    assert (one.count("errors_total", where="campaigns"), one.count("campaigns_failed")) == (0, 0)
    assert (two.count("errors_total", where="campaigns"), two.count("campaigns_failed")) == (1, 1)
    assert (one.watch.failing, two.watch.failing) == (False, True)


def test_a_burst_raises_one_alert(worker: Callable[[], Worker]) -> None:
    """Copies count over all workers; whoever sees the last of them tells, once, however much follows."""
    one, two = worker(), worker()

    async def doing() -> None:
        one.burst(3)
        two.burst(1)
        await one.watch.flush()
        await two.watch.flush()
        assert one.alerts() + two.alerts() == []
        one.burst(1)
        two.burst(50)
        for watch in (one.watch, two.watch) * 2:
            await watch.flush()
            one.burst(9)

    run(one, two, doing=doing)
    assert one.alerts() + two.alerts() == ["news"]
    assert one.count("campaign_alerts_total") + two.count("campaign_alerts_total") == 1
    (alert,) = [line for line in one.journal.events + two.journal.events if line["event"] == "campaign_alert"]
    assert (alert["sender"], alert["client"], alert["queue_id"]) == ("bank.example", "192.0.2.1", "Q")
    line = one.ledger.campaign("news")
    assert line is not None
    assert line.alerted_at == NOON


@pytest.mark.parametrize(
    "quiet",
    [
        lambda one: one.burst(50, declared="newsletter"),
        lambda one: one.burst(50, declared=""),
        lambda one: one.burst(4),
        lambda one: [one.burst(4), one.burst(4, subject="other news")],
    ],
    ids=["claims to be promotion", "claims nothing", "few", "several campaigns"],
)
def test_no_alert_for_what_is_no_burst_in_disguise(
    worker: Callable[[], Worker], quiet: Callable[[Worker], object]
) -> None:
    """Promotion that says what it is, and a few copies, raise none."""
    one = worker()
    run(one, doing=lambda: quiet(one))
    assert one.alerts() == []


def test_a_campaign_is_new_for_a_while(worker: Callable[[], Worker]) -> None:
    """Copies count within the window after the first message, its end included, and not later."""
    one = worker()

    async def doing() -> None:
        for subject, last in (("in time", HOUR), ("late", HOUR + 1)):
            one.burst(4, subject=subject)
            await one.watch.flush()
            one.burst(1, subject=subject, at=NOON + last)
            await one.watch.flush()

    run(one, doing=doing)
    assert one.alerts() == ["in time"]


def test_no_alert_where_somebody_looked(worker: Callable[[], Worker]) -> None:
    """A campaign that a reviewer decided on needs no alert while that counts."""
    one, two = worker(), worker()
    one.ledger.decide(DECISION._replace(expires_at=NOON + 1))
    run(one, doing=lambda: one.burst(50))
    assert one.alerts() == []
    two.now = NOON + 1
    run(two, doing=lambda: two.burst(1))
    assert two.alerts() == ["news"]


def test_an_alert_is_not_lost_with_a_failing_ledger(worker: Callable[[], Worker]) -> None:
    """A burst whose copies could not be written is told of when they are."""
    one = worker()

    async def doing() -> None:
        one.burst(50)
        one.ledger.broken = True
        with pytest.raises(HoldUnavailableError):
            await one.watch.flush()
        one.ledger.broken = False

    run(one, doing=doing)
    assert one.alerts() == ["news"]


def test_personal_mail_is_forgotten(worker: Callable[[], Worker]) -> None:
    """Campaigns of few messages of which nothing was held go after a day, others stay."""
    one = worker()

    async def doing() -> None:
        one.watch.note(*judged_mail("to you", "relay"))
        one.burst(2)
        one.now = NOON + KEEP_RARE + 1
        for _ in range(PRUNE_EVERY):
            await one.watch.flush()

    run(one, doing=doing)
    assert [line.campaign for line in one.ledger.campaigns()] == ["news"]


def test_a_fault_in_counting_is_none_of_the_message(worker: Callable[[], Worker]) -> None:
    """Whatever counting meets, the message goes its way, and the fault is counted."""
    one = worker()
    incoming, judged = judged_mail("news")
    one.watch.note(incoming, dataclasses.replace(judged, copies=None))  # type: ignore[arg-type]
    assert one.count("errors_total", where="campaigns") == 1

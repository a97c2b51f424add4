"""Processes that follow campaigns as workers do, apart from the tests that start them, so that they start quickly."""

import asyncio
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from support.campaign_mail import campaign_decider, judged_mail, subject_of
from support.fakes import Journal
from support.world import NOON

from filter.campaign_store import SqliteLedger
from filter.campaign_watch import CampaignWatch, Tripwire
from filter.campaigns import Seen
from filter.metrics import Metrics

COPIES = 50
"""Copies that make a burst."""


def follow(directory: Path, answers: Queue, questions: Queue) -> None:
    """Do as asked until None comes: "verdict" (on a promotion: its reason), "change" (its next other one), "burst"."""
    asyncio.run(_follow(directory, answers, questions))


async def _follow(directory: Path, answers: Queue, questions: Queue) -> None:
    ledger, journal = SqliteLedger(directory), Journal()
    tripwire = Tripwire(copies=COPIES, window=1000)
    metrics = Metrics(CollectorRegistry())
    watch = CampaignWatch(ledger, tripwire, subject_of, journal=journal, metrics=metrics, clock=lambda: NOON)
    await watch.start()
    decider = campaign_decider(watch.decision)

    def reason() -> str:
        return str(judged_mail("news", decider=decider)[1].copies[0].verdict.reason)

    last = ""
    while (asked := await asyncio.to_thread(questions.get)) is not None:
        if asked == "verdict":
            answers.put(last := reason())
        elif asked == "change":
            while reason() == last:  # noqa: ASYNC110 - nothing tells that a decision changed
                await asyncio.sleep(0.01)
            answers.put(last := reason())
        else:
            for _ in range(COPIES):
                watch.note(*judged_mail("news", declared="service"))
            answers.put("noted")
    await watch.stop()
    answers.put([line["campaign"] for line in journal.events if line["event"] == "campaign_alert"])
    ledger.close()


def add_for_ever(directory: Path, told: Any) -> None:
    """Add two campaigns at a time, one message of each, and tell after each time how many there are."""
    ledger, count = SqliteLedger(directory), 0
    while True:
        ledger.add([Seen(campaign=name, first_at=1, last_at=1, messages=1, labels={"mixed": 1}) for name in "ab"])
        count += 1
        told.send(count)

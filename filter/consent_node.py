"""The process that keeps this machine's consent index at the end of the consent topic; the supervisor starts one.

It speaks the control protocol as every worker does (`worker`), and is started as `python -m filter.consent_node
--control DESCRIPTOR`. It is ready as soon as the index counts as incomplete until the topic was read: from then on
workers may take mail. A process in place of one that died goes on within the same run of the program
(`control.RUN_VARIABLE`), and the index stays complete meanwhile.
"""

import asyncio
import gc
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry

from . import __version__, app, kafka_client, logs, worker
from .config import Config, parse_config
from .consent_feed import Feed
from .consent_follower import Follower
from .consent_store import ConsentStore
from .control import RUN_VARIABLE, Assignment
from .errors import DamagedIndexError
from .health import Notice, NotReady, Report
from .journal import FileJournal
from .metrics import Metrics
from .relay import now

JOURNAL_NAME: Final = "consent"
_COLLECT: Final = (50_000, 20, 100)  # cycles are few among so many events


@dataclass(slots=True)
class Node:
    """A follower at work."""

    follower: Follower
    store: ConsentStore
    journal: FileJournal
    task: asyncio.Task[None]
    metrics: Metrics
    version: str = __version__

    @property
    def broken(self) -> bool:
        """Whether it ended, which it does by itself only when the index cannot be written."""
        if self.task.done() and not self.task.cancelled() and (error := self.task.exception()):
            logs.fault("consent_follower_fault", error)
        return self.task.done()

    def report(self) -> Report:
        """Loading until the topic was read; failing while it cannot be."""
        reasons = () if self.follower.complete else (NotReady.CONSENT_LOADING,)
        notices = (Notice.CONSENT_FEED_FAILED,) if self.follower.failing else ()
        return Report(reasons, notices)

    async def stop(self) -> None:
        """Finish the batch under way."""
        self.follower.stop()
        with suppress(Exception):  # said by `broken`
            await self.task
        self.store.close()
        self.journal.close()


async def start(assignment: Assignment) -> Node:
    """Follow the topic of this configuration. Raises ConsentryError or OSError."""
    config = parse_config(assignment.text.encode(), assignment.file)
    kafka, metrics = config.kafka, Metrics(CollectorRegistry())
    connection = kafka_client.connection(kafka)
    store = _opened(config)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    feed = Feed(store, kafka.follows)
    feed.begin(os.environ.get(RUN_VARIABLE, ""))
    directory, sync = config.store.dir / "journal", config.journal.sync.total_seconds()
    journal = FileJournal(directory, JOURNAL_NAME, now, sync_every=sync, on_failure=lambda: metrics.error("journal"))
    journal.start()
    follower = Follower(
        feed,
        kafka.follows,
        connection=connection,
        reader=kafka_client.reader(kafka),
        clock=now,
        journal=journal,
        metrics=metrics,
        stall=kafka.stall_timeout.total_seconds(),
    )
    return Node(follower, store, journal, asyncio.create_task(follower.run()), metrics)


def _opened(config: Config) -> ConsentStore:
    """The consent index; a damaged one is put aside and begun anew, as the topic has it all."""
    try:
        return app.consent_store(config, readonly=False)
    except DamagedIndexError as error:
        directory = config.store.dir / "consent"
        aside = directory.with_name(f"{directory.name}.damaged-{now()}")
        directory.rename(aside)
        logs.event(logs.ERROR, "consent_index_damaged", reason=error, kept=aside)
        return app.consent_store(config, readonly=False)


if __name__ == "__main__":
    sys.exit(worker.main(int(sys.argv[-1]), start))

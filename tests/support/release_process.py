"""A process that delivers what is released: the real stores, consent index and next hop client.

    release_process.py DIR PORT MILLISECONDS

delivers what is due in DIR (hold, consent) so many milliseconds from now to 127.0.0.1:PORT, and prints what became of
it. Also what tests and benchmarks do in their own process.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from prometheus_client import CollectorRegistry
from support.held import VAULT
from support.release import CLASSIFIER

from filter.address import SubjectKeyer
from filter.bouncing import Bouncer
from filter.consent_store import ConsentStore
from filter.decision import ConsentView, Decider
from filter.delivery import Sender
from filter.envelope import Client
from filter.handling import Handler
from filter.held import HeldMail
from filter.hold_review import HeldReview
from filter.journal import FileJournal
from filter.metrics import Metrics
from filter.next_hop import SmtpNextHop
from filter.next_hop_setup import NextHopOptions
from filter.policy import Policy
from filter.ports import Journal
from filter.recheck import Rechecker
from filter.releaser import Progress, Releaser, ReleaseSettings
from filter.retry import Retry
from filter.stream import Stream
from filter.tls_policy import TlsPolicy

KEYER = SubjectKeyer(b"k" * 32)
LEASE = 10_000
"""Milliseconds that a claim of `SETTINGS` lasts."""
SETTINGS = ReleaseSettings(concurrent=4, batch=20, attempt=2.0, lease=LEASE / 1000)


def now() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


async def deliver(
    mail: HeldMail,
    consent: ConsentView,
    journal: Journal,
    port: int,
    *,
    settings: ReleaseSettings = SETTINGS,
    clock: Callable[[], int] = now,
) -> Progress:
    """Deliver all that is due."""
    decider = Decider(CLASSIFIER, consent, (Stream("shop", "shop", "offers"),), Policy())
    options = NextHopOptions(
        hosts=(("127.0.0.1", port),),
        hostname="gate.example",
        tls=TlsPolicy.OFF,
        max_connections=settings.concurrent,
    )
    hop = SmtpNextHop(options)
    sender = Sender(hop, Client(""), _report, settings.attempt)
    handler = Handler(
        rechecker=Rechecker(lambda: decider),
        courier=sender,
        bouncer=Bouncer(sender, "gate.example"),
        retry=Retry(),
        clock=clock,
        report=_report,
    )
    metrics = Metrics(CollectorRegistry())
    releaser = Releaser(mail, handler, journal, metrics, _report, settings=settings, clock=clock)
    try:
        return await releaser.run()
    finally:
        releaser.close()
        await hop.close()


def _report(where: str, error: Exception) -> None:
    """There must be none."""
    raise AssertionError(where) from error


def main() -> None:
    """Deliver, and print."""
    directory, port, later = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    mail = HeldReview(directory / "hold", VAULT)
    journal = FileJournal(directory / "journal", f"release-{later}", now, on_failure=lambda: None)
    with ConsentStore(directory / "consent", KEYER) as consent:
        progress = asyncio.run(deliver(mail, consent, journal, port, clock=lambda: now() + later))
    journal.close()
    mail.close()
    print(json.dumps(progress.counts))


if __name__ == "__main__":
    main()

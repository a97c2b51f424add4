"""What the pipeline costs beside judging: one message, one recipient, next hop in memory, the rest for real.

Campaigns are followed; their fingerprint, which costs something too, is constant here (see bench_campaign.py).

python tests/bench/bench_pipeline.py [MESSAGES]
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import fakes  # noqa: E402 - found by the line above
from support.world import CLIENT, MAIL, PROMOTION, SERVICE, decider, rcpt  # noqa: E402

from filter.address import SubjectKeyer  # noqa: E402
from filter.campaign_store import SqliteLedger  # noqa: E402
from filter.campaign_watch import CampaignWatch, Tripwire  # noqa: E402
from filter.completion import Completion  # noqa: E402
from filter.diverting import Diverter  # noqa: E402
from filter.envelope import Client, MailFrom, RcptTo  # noqa: E402
from filter.flights import Flights  # noqa: E402
from filter.journal import FileJournal  # noqa: E402
from filter.judging import Incoming, Judge  # noqa: E402
from filter.message_key import MessageKeyer  # noqa: E402
from filter.metrics import Metrics  # noqa: E402
from filter.pipeline import Pipeline, PipelineSettings  # noqa: E402
from filter.ports import NextHopTransaction  # noqa: E402
from filter.replies import Reply  # noqa: E402


class Open:
    """A transaction that takes everything at once."""

    async def rcpt(self, recipient: RcptTo) -> Reply:
        """Taken."""
        return fakes.TAKEN

    async def restart(self, recipients: Sequence[RcptTo]) -> Reply | None:
        """Taken."""

    async def data(self, content: Sequence[bytes]) -> Reply:
        """Taken."""
        return fakes.TAKEN

    async def abort(self) -> None:
        """Nothing to end."""


class NextHop(fakes.NextHop):
    """A next hop without memory."""

    def transaction(self, mail: MailFrom, client: Client) -> NextHopTransaction:  # type: ignore[override]
        """A new one."""
        return Open()


def now() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def _report(where: str, error: Exception) -> None:
    raise RuntimeError(where) from error


async def _measure(directory: Path, content: bytes, count: int) -> tuple[float, float]:
    """Seconds for each message: through the pipeline, and for judging alone."""
    script = fakes.Script()
    hold, metrics = fakes.HoldStore(script), Metrics(CollectorRegistry())
    hop = NextHop("hop", script)
    journal = FileJournal(directory / "journal", "0", now)
    tripwire = Tripwire(copies=100, window=3_600_000)
    watch = CampaignWatch(
        SqliteLedger(directory), tripwire, lambda message: message.subject, journal=journal, metrics=metrics, clock=now
    )
    deciding = dataclasses.replace(decider(), fingerprint=lambda _message: "c" * 32, decisions=watch.decision)
    judge = Judge(lambda: deciding, SubjectKeyer(b"s" * 32), metrics, _report)
    flights = Flights(directory / "flights", 0, slots=8)
    await watch.start()
    with journal:
        pipeline = Pipeline(
            judge=judge,
            next_hop=hop,
            completion=Completion(
                diverter=Diverter(None, b"", hold, _report),
                hold=hold,
                journal=journal,
                metrics=metrics,
                clock=now,
                report=_report,
                note=watch.note,
            ),
            hold=hold,
            flights=flights,
            journal=journal,
            metrics=metrics,
            keyer=MessageKeyer(b"m" * 32),
            settings=PipelineSettings(hostname="gate.example"),
            clock=now,
            report=_report,
        )
        through, alone = [], []
        for _ in range(count):
            started = time.perf_counter()
            transaction = pipeline.begin(CLIENT, MAIL)
            await transaction.rcpt(rcpt("relay"))
            reply = await transaction.data(content)
            transaction.acknowledged()
            through.append(time.perf_counter() - started)
            assert reply.ok
            script.calls.clear()
            incoming = Incoming("Q", 1, CLIENT, MAIL, (rcpt("relay"),), content)
            started = time.perf_counter()
            judge.judge(incoming, died_before=False)
            alone.append(time.perf_counter() - started)
        await watch.stop()
    flights.close()
    return min(through), min(alone)  # other work on the machine only adds


def main(count: int) -> None:
    """Print microseconds for each message."""
    cases: dict[str, bytes] = {
        "service, 4 kB": SERVICE + b"x" * 74 + b"\r\n" * 2 + (b"y" * 74 + b"\r\n") * 52,
        "marketing, 4 kB": PROMOTION + (b"y" * 74 + b"\r\n") * 52,
    }
    for name, content in cases.items():
        with tempfile.TemporaryDirectory() as directory:
            through, alone = uvloop.run(_measure(Path(directory), content, count))
        beside = through - alone
        print(f"{name}: {through * 1e6:.0f} us in all, {alone * 1e6:.0f} us judging, {beside * 1e6:.0f} us beside it")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)

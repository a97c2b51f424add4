"""Opt-outs that arrive by the consent topic are known with their place and time, so that their way can be timed."""

from pathlib import Path

from filter.address import SubjectKeyer
from filter.consent import Capture, ConsentEvent, EventKind, Scope
from filter.consent_events import event_record, heartbeat_record
from filter.consent_feed import Arrived, Feed, OptOut
from filter.consent_store import ConsentStore
from filter.labels import Channel

NOW = 1_790_000_000_000
KEYER = SubjectKeyer(b"k" * 32)


def event(kind: EventKind, made: int) -> tuple[bytes, bytes]:
    """Key and value of an event."""
    capture = Capture(kind=kind, scope=Scope("email", "bank", "bank", "offers"), source="form")
    return event_record(KEYER.subject("ann@example.com", Channel.EMAIL), ConsentEvent(capture, "", made, NOW))


def test_opt_outs_are_listed_by_place_and_time(tmp_path: Path) -> None:
    """Refusals, withdrawals and objections, with when the person said so; grants and heartbeats are none."""
    with ConsentStore(tmp_path / "index", KEYER, readonly=False) as store:
        feed = Feed(store, "consent.events")
        batch = feed.batch()
        records = [
            event(EventKind.GRANT, NOW - 9000),
            event(EventKind.WITHDRAW, NOW - 5000),
            heartbeat_record(NOW),
            event(EventKind.OBJECT, 0),
            event(EventKind.REFUSE, NOW - 1000),
        ]
        for offset, (key, value) in enumerate(records, 40):
            batch.add(Arrived(3, offset, NOW, key, value), NOW + 10)
        assert batch.opt_outs == [OptOut(3, 41, NOW - 5000), OptOut(3, 43, NOW), OptOut(3, 44, NOW - 1000)]
        with feed.bulk() as bulk:
            bulk.add(Arrived(3, 40, NOW, *records[1]), NOW)
            assert bulk.opt_outs == []

"""Following a topic into the index: how far is as durable as what, and any order gives the same answers."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.captures import grant

from filter.address import SubjectKeyer
from filter.consent import Capture, ConsentEvent, ConsentState, EventKind, Scope
from filter.consent_events import erasure_record, event_record, heartbeat_record
from filter.consent_feed import UNREADABLE, Arrived, Feed, FeedState, Mark, state_of
from filter.consent_store import ConsentStore
from filter.consent_view import LateConsent
from filter.errors import ConsentDataError
from filter.labels import Channel

NOW = 1_790_000_000_000
KEYER = SubjectKeyer(b"k" * 32)
SCOPE = Scope("email", "bank", "bank", "offers")
TOPIC = "consent.events"
ANN, BOB = "ann@example.com", "bob@example.com"
GRANT = grant(SCOPE)
OBJECT = Capture(kind=EventKind.OBJECT, scope=Scope("", "bank", "", ""))


@pytest.fixture
def store(tmp_path):
    """An empty index open for writing."""
    with ConsentStore(tmp_path / "index", KEYER, readonly=False) as opened:
        yield opened


@pytest.fixture
def feed(store):
    """A feed at the beginning of its topic."""
    opened = Feed(store, TOPIC)
    opened.begin("run 1")
    return opened


def subject(address):
    """The subject keys of a mail address."""
    return KEYER.subject(address, Channel.EMAIL)


def told(address, capture, made=NOW - 1000, received=NOW, ident=""):
    """Key and value of an event."""
    return event_record(subject(address), ConsentEvent(capture, ident, made, received))


def fill(batch, *records, partition=0, first=0, now=NOW):
    """Put records into a batch as they come from a partition."""
    for offset, (key, value) in enumerate(records, first):
        batch.add(Arrived(partition, offset, NOW, key, value), now)
    return batch


def take(feed, *records, bulk=False, **given):
    """Take records in, one batch or as very many."""
    if not bulk:
        return feed.apply(fill(feed.batch(), *records, **given))
    with feed.bulk() as batch:
        return feed.load(fill(batch, *records, **given))


def state(store, address=ANN, at=NOW + 1):
    """What a look-up says."""
    return store.lookup(address, SCOPE, at).state


BOTH_WAYS = pytest.mark.parametrize("bulk", [False, True], ids=["live", "bulk"])


@BOTH_WAYS
def test_events_count_with_how_far_they_were_read(store, feed, bulk):
    """What was read is in the index, and the mark of its last record; a second look finds both."""
    counts = take(feed, told(ANN, GRANT), told(BOB, OBJECT), told(BOB, OBJECT), bulk=bulk, first=7)
    assert (counts.added, counts.repeated, counts.refused) == (2, 1, 0)
    assert (state(store), state(store, BOB)) == (ConsentState.CONSENT, ConsentState.OBJECTED)
    again = Feed(store, TOPIC)
    assert again.state == feed.state
    assert again.state.marks[0].fits(9, NOW, told(BOB, OBJECT)[0])
    assert not again.state.marks[0].fits(9, NOW, told(ANN, OBJECT)[0])


def test_another_topic_is_read_from_its_beginning(store, feed):
    """How far one topic was read says nothing of another."""
    take(feed, told(ANN, GRANT))
    assert Feed(store, "other").state == FeedState(topic="other")


def test_complete_until_the_next_start(store, feed):
    """A feed is complete from the end of the start on: across its own restarts, not across those of the program."""
    feed.completed()
    for run, complete in (("run 1", True), ("run 2", False), ("run 2", False)):
        feed = Feed(store, TOPIC)
        feed.begin(run)
        assert state_of(store).complete is complete


def test_a_restart_keeps_what_is_on_record(store, feed):
    """Reading a topic again from its beginning drops nothing, but nothing counts until it is done."""
    feed.completed()
    store.record(ANN, Channel.EMAIL, ConsentEvent(OBJECT, "by telephone", NOW - 5, NOW))
    take(feed, told(BOB, OBJECT))
    feed.restart()
    assert (feed.state.marks, feed.state.complete) == ({}, False)
    assert take(feed, told(BOB, OBJECT)).repeated == 1
    assert (state(store), state(store, BOB)) == (ConsentState.OBJECTED, ConsentState.OBJECTED)


def test_freshness_needs_news_and_the_end_of_every_partition(store, feed):
    """The data is as fresh as the last news, but not fresher than when all of the topic had been read."""
    assert store.age(NOW) is None
    take(feed, told(ANN, GRANT, received=NOW - 500))
    assert store.age(NOW) is None
    feed.synced(NOW - 400)
    assert store.age(NOW) == 500
    take(feed, heartbeat_record(NOW - 100))
    assert store.age(NOW) == 400
    feed.synced(NOW)
    assert store.age(NOW) == 100


def test_a_heartbeat_of_the_future_is_none(store, feed):
    """A heartbeat says no more than that its producer lived when the record came."""
    take(feed, heartbeat_record(NOW + 10**9))
    assert feed.state.latest == NOW


def test_heartbeats_leave_no_mark(feed):
    """A mark is an event: heartbeats replace one another in a compacted topic."""
    take(feed, told(ANN, GRANT), heartbeat_record(NOW))
    assert feed.state.marks[0].offset == 0


@BOTH_WAYS
def test_erasure_forgets_what_came_before(store, feed, bulk):
    """An erasure removes every record of the mailbox before it, of any spelling, and none after it."""
    tagged = told("ann+x@example.com", GRANT)
    take(feed, told(ANN, GRANT), first=0)
    records = [tagged, told(ANN, OBJECT), told(BOB, GRANT), erasure_record(subject(ANN)), told(ANN, GRANT, ident="new")]
    take(feed, *records, bulk=bulk, first=1)
    account = store.show(ANN, Channel.EMAIL, NOW + 1)
    assert ([event.id for event in account.events], account.other_spellings) == (["new"], 0)
    assert (store.stats().records, store.stats().subjects) == (2, 2)
    assert state(store, BOB) is ConsentState.CONSENT


@BOTH_WAYS
def test_what_cannot_be_read_stops_marketing_until_it_is_replaced(store, feed, bulk):
    """A record that nobody can read is an objection; the same record made readable ends that."""
    take(feed, told(ANN, GRANT))
    key, value = told(ANN, GRANT, ident="second")
    counts = take(feed, (key, b"{"), bulk=bulk, first=1)
    assert (counts.refused, state(store)) == (1, ConsentState.OBJECTED)
    assert store.show(ANN, Channel.EMAIL, NOW).events[-1].capture.source == UNREADABLE
    take(Feed(store, TOPIC), (key, b"["), bulk=bulk, first=2)
    assert state(store) is ConsentState.OBJECTED
    take(Feed(store, TOPIC), (key, value), bulk=bulk, first=3)
    assert state(store) is ConsentState.CONSENT
    assert store.stats().records == 2


@BOTH_WAYS
def test_replaced_within_one_batch(store, feed, bulk):
    """It does not matter whether both records come together."""
    key, value = told(ANN, GRANT)
    take(feed, (key, b"{"), (key, value), bulk=bulk)
    assert state(store) is ConsentState.CONSENT


def test_a_clock_ahead_puts_off_no_opt_out(store, feed):
    """An objection dated an hour ahead by its producer, arrival and all, is in force when it comes."""
    hour = 3_600_000
    batch = feed.batch()
    batch.add(Arrived(0, 0, NOW + hour, *told(ANN, OBJECT, NOW + hour, NOW + hour)), NOW)
    feed.apply(batch)
    assert state(store, at=NOW) is ConsentState.OBJECTED


def test_arrival_is_the_time_of_the_record_when_it_tells_none(store, feed):
    """A grant without time of arrival, dated ahead, is no evidence: it came when its record was written."""
    take(feed, told(ANN, GRANT, made=NOW + 3_600_000, received=0))
    assert state(store, at=NOW + 7_200_000) is ConsentState.UNKNOWN


made = st.builds(
    told,
    st.sampled_from([ANN, BOB, "ann+x@example.com"]),
    st.sampled_from([GRANT, OBJECT]),
    st.integers(NOW - 3, NOW),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(made, max_size=6), st.randoms(use_true_random=False), st.data())
def test_any_order_gives_the_same_answers(tmp_path_factory, records, rng, data):
    """In any order, in any batches, live or as very many, once or twice: look-ups say the same."""
    said = []
    for shuffled in (records, rng.sample(records * 2, 2 * len(records))):
        directory = tmp_path_factory.mktemp("index")
        with ConsentStore(directory, KEYER, readonly=False) as store:
            feed = Feed(store, TOPIC)
            cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=3)))
            for first, beyond in pairwise([0, *cuts, len(shuffled)]):
                take(feed, *shuffled[first:beyond], bulk=data.draw(st.booleans()), first=first)
            said.append([state(store, address) for address in (ANN, BOB, "ann+x@example.com")])
    assert said[0] == said[1]


def test_look_ups_fail_until_the_feed_is_complete(store, feed):
    """A relay that follows a topic has no consent data before the end of the start was reached."""
    clock = [0.0]
    view = LateConsent(lambda: store, topic=TOPIC, clock=lambda: clock[0])
    take(feed, told(ANN, GRANT))
    with pytest.raises(ConsentDataError, match="has not read all of the topic"):
        view.lookup(ANN, SCOPE, NOW)
    feed.completed()
    clock[0] += 1
    assert view.lookup(ANN, SCOPE, NOW).state is ConsentState.CONSENT
    feed.restart()
    clock[0] += 1
    with pytest.raises(ConsentDataError, match="has not read all of the topic"):
        view.lookup(ANN, SCOPE, NOW)


def test_an_import_that_builds_a_new_file_keeps_the_place(store, feed, monkeypatch):
    """How far a topic was read survives a large import on this machine."""
    key, _ = told(ANN, OBJECT)
    take(feed, told(ANN, GRANT), (key, b"{"))
    monkeypatch.setattr("filter.consent_store.REBUILD_FROM", 1)
    with feed.bulk() as bulk:
        fill(bulk, told(BOB, GRANT))
        store.load(bulk.runs, NOW, {"name": "import"})
    assert store.directory.joinpath("CURRENT").read_text() == "index-000002.lmdb\n"
    again = Feed(store, TOPIC)
    assert again.state.marks == {0: Mark(1, NOW, feed.state.marks[0].key)}
    take(again, told(ANN, OBJECT), first=2)
    assert [event.capture.source for event in store.show(ANN, Channel.EMAIL, NOW).events] == ["join", ""]

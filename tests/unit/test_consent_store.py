"""The consent index on disk: what is written is found, by the right addresses only, and damage is never "no record"."""

import multiprocessing
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.captures import grant
from support.index_readers import NOW, SCOPE, die_reading, read_once, read_when_asked

from filter import consent_store
from filter.address import Subject, SubjectKeyer
from filter.consent import Capture, ConsentEvent, ConsentState, EventKind, Grade, Scope, UnknownBecause, resolve
from filter.consent_build import Runs
from filter.consent_codec import Templates, check, encode, spell
from filter.consent_index import MAX_READERS
from filter.consent_rulings import Rulings
from filter.consent_store import ConsentStore, Entry
from filter.errors import AddressError, ConsentDataError
from filter.evidence import CHARITY_START, CLOCK_SKEW
from filter.labels import Channel

SECRET = b"k" * 32
KEYER = SubjectKeyer(SECRET)
DAY = 86_400_000
GRANT = grant(SCOPE)
OBJECT = Capture(kind=EventKind.OBJECT, scope=Scope("", "bank", "", ""), source="centre")


def event(capture=GRANT, made=NOW - DAY, ident="e1", **own):
    """An event received when it was made."""
    return ConsentEvent(capture, ident, made, made, **own)


@pytest.fixture
def store(tmp_path):
    """An empty index open for writing."""
    with ConsentStore(tmp_path / "index", KEYER, readonly=False) as opened:
        yield opened


def record(store, address, *events):
    """Add events about a mail address."""
    return store.apply([Entry(KEYER.subject(address, Channel.EMAIL), one) for one in events])


def state(store, address, scope=SCOPE):
    """The state of an address."""
    return store.lookup(address, scope, NOW).state


def test_recorded_event_is_found_whole(store):
    """Every field of an event comes back, however the address is written."""
    given_event = event(
        source_seq=7,
        evidence_ref="call 4711",
        transaction_ref="ORD-0012",
        request_ref="00000000-0000-4000-8000-00000000beef",
        subscriber_evidence="\u00e9" * 100,
        expires_at=NOW + DAY,
        valid_until=NOW + 1,
    )
    record(store, "jo@shop.example", given_event)
    assert store.lookup(" Jo@SHOP.example.", SCOPE, NOW).relied_on == given_event


def test_address_without_record_is_unknown(store):
    """Nobody consents by not being there."""
    answer = store.lookup("jo@shop.example", SCOPE, NOW)
    assert (answer.state, answer.reasons) == (ConsentState.UNKNOWN, (UnknownBecause.NO_RECORD,))


def test_opt_outs_match_wide_and_grants_narrow(store):
    """An objection from any spelling of a mailbox counts for all; a grant counts for its own spelling."""
    record(store, "jo+news@gmail.com", event())
    assert [state(store, one) for one in ("jo+news@gmail.com", "jo@gmail.com", "jo+x@gmail.com")] == [
        ConsentState.CONSENT,
        ConsentState.UNKNOWN,
        ConsentState.UNKNOWN,
    ]
    record(store, "j.o@googlemail.com", event(OBJECT, NOW - 5, "e2"))
    assert {state(store, one) for one in ("jo+news@gmail.com", "jo@gmail.com", "J.O.+x@Gmail.com")} == {
        ConsentState.OBJECTED
    }


def test_grant_for_one_spelling_does_not_lift_an_objection_for_another(store):
    """Somebody who objects as jo@ and later consents as jo+news@ is written to as jo+news@ only."""
    record(store, "jo@shop.example", event(OBJECT, NOW - 9, "e1"))
    record(store, "jo+news@shop.example", event(GRANT, NOW - 5, "e2"))
    assert state(store, "jo@shop.example") is ConsentState.OBJECTED
    assert state(store, "jo+news@shop.example") is ConsentState.CONSENT


def test_objection_for_all_channels_of_a_number(store):
    """An objection without channel made on a number stops texts and pictures to it, not mail to somebody else."""
    store.record("+447700900123", Channel.SMS, event(OBJECT))
    for channel in ("sms", "mms", "voicemail"):
        assert store.lookup("0044 7700 900123", SCOPE._replace(channel=channel), NOW).state is ConsentState.OBJECTED


def test_recording_twice_changes_nothing(store):
    """The same event again is a duplicate, whenever and with whatever batch it comes."""
    assert record(store, "jo@shop.example", event()).added == 1
    again = record(store, "jo@shop.example", event(), event()._replace(received_at=NOW))
    assert (again.added, again.duplicates, again.new_subjects) == (0, 2, 0)
    assert store.stats().records == 1


def test_show_accounts_for_an_address(store):
    """Show lists the events that concern the address, counts those of other spellings, and answers per scope."""
    loans = Capture(kind=EventKind.GRANT, scope=SCOPE._replace(topic="loans"))
    record(store, "jo@shop.example", event(ident="e1"), event(loans, ident="e2"))
    record(store, "jo+x@shop.example", event(ident="e3"))
    account = store.show("jo@shop.example", Channel.EMAIL, NOW)
    assert {one.id for one in account.events} == {"e1", "e2"}
    assert account.other_spellings == 1
    states = {scope.topic: answer.state for scope, answer in account.answers}
    assert states == {"offers": ConsentState.CONSENT, "loans": ConsentState.UNKNOWN}


def test_figures_and_freshness(tmp_path):
    """Counts per kind and source, the time of the latest import, and staleness against the bound."""
    with ConsentStore(tmp_path, KEYER, readonly=False, stale_after=DAY) as store:
        assert store.stale(NOW)
        record(store, "jo@shop.example", event(), event(OBJECT, NOW - 5, "e2"))
        record(store, "al@shop.example", event())
        stats = store.stats()
        assert (stats.subjects, stats.records, dict(stats.kinds)) == (2, 3, {"grant": 2, "object": 1})
        assert stats.sources["join"] == {"event_time": NOW - DAY, "received_at": NOW - 5, "records": 2}
        assert (stats.as_of, store.age(NOW), store.stale(NOW)) == (0, None, True)
        _load(store, [Entry(KEYER.subject("cy@shop.example", Channel.EMAIL), event())])
        assert (store.stats().as_of, store.age(NOW + 5), store.stale(NOW + 5)) == (NOW, 5, False)
        assert store.stale(NOW + DAY + 1)
        store.touch(NOW + DAY)
        assert not store.stale(NOW + DAY + 1)


@pytest.mark.parametrize("rebuild_from", [1, 1_000_000])
def test_dead_feed_does_not_look_fresh(tmp_path, monkeypatch, rebuild_from):
    """Importing the same records again, or recording an event by hand, leaves the data as old as it is."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", rebuild_from)
    listed = [Entry(KEYER.subject("jo@shop.example", Channel.EMAIL), event())]
    with ConsentStore(tmp_path, KEYER, readonly=False, stale_after=DAY) as store:
        _load(store, listed)
        _load(store, listed, at=NOW + 2 * DAY)
        _load(store, [], at=NOW + 2 * DAY)
        record(store, "al@shop.example", event(OBJECT, NOW + 2 * DAY))
        assert (store.stats().as_of, store.stale(NOW + 2 * DAY)) == (NOW, True)
        _load(store, [*listed, Entry(KEYER.subject("cy@shop.example", Channel.EMAIL), event())], at=NOW + 2 * DAY)
        assert (store.stats().as_of, store.stale(NOW + 2 * DAY)) == (NOW + 2 * DAY, False)


def test_maximum_age_is_per_topic(tmp_path):
    """The operator's limit on the age of consent applies to its topic, "*" to the others."""
    with ConsentStore(tmp_path, KEYER, readonly=False, max_age={"offers": DAY // 2, "*": 2 * DAY}) as store:
        record(
            store,
            "jo@shop.example",
            event(),
            event(Capture(**{**_terms(GRANT), "scope": SCOPE._replace(topic="loans")}), ident="e2"),
        )
        assert state(store, "jo@shop.example") is ConsentState.UNKNOWN
        assert state(store, "jo@shop.example", SCOPE._replace(topic="loans")) is ConsentState.CONSENT


def _terms(capture):
    return {
        name: getattr(capture, name)
        for name in ("kind", "source", "method", "affirmative", "conditional", "wording_id", "wording_sha256", "grade")
    }


def test_export_gives_everything_back(store):
    """An export holds every record under its wide key."""
    record(store, "jo@shop.example", event(), event(OBJECT, NOW - 5, "e2"))
    record(store, "jo+x@shop.example", event(ident="e3"))
    subject = KEYER.subject("jo+x@shop.example", Channel.EMAIL)
    exported = [(wide, one.exact, one.event.id) for wide, one in store.export()]
    assert exported == [
        (subject.wide, subject.wide, "e1"),
        (subject.wide, subject.wide, "e2"),
        (subject.wide, subject.exact, "e3"),
    ]


def test_no_address_is_on_disk(store, tmp_path):
    """Neither the address nor an unkeyed trace of it is in the files."""
    record(store, "jo.bloggs@shop.example", event())
    assert not any(b"bloggs" in path.read_bytes() for path in (tmp_path / "index").iterdir())


def test_wrong_key_is_refused(store, tmp_path):
    """An index is not opened, and not written, with another subject key."""
    directory = store.directory
    with pytest.raises(ConsentDataError, match="subject key id"):
        store.apply([Entry(Subject(bytes(16), bytes(16), "other"), event())])
    store.close()
    with pytest.raises(ConsentDataError, match="written with subject key"):
        ConsentStore(directory, SubjectKeyer(b"o" * 32))


def test_missing_index_is_an_error_for_a_reader(tmp_path):
    """A reader does not make an empty index; it says what to do."""
    with pytest.raises(ConsentDataError, match="import consent data first"):
        ConsentStore(tmp_path / "none", KEYER)
    (tmp_path / "CURRENT").write_text("index-000009.lmdb\n")
    with pytest.raises(ConsentDataError, match="missing"):
        ConsentStore(tmp_path, KEYER, readonly=False)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"index-000001.lmdb\0", b"../index/index-000001.lmdb", b"index-1.lmdb", b"\n" * 9]
)
def test_rubbish_in_current_is_an_error(store, content):
    """A CURRENT file that names no index file is an error with its path, at opening and at every look-up after."""
    record(store, "jo@shop.example", event())
    (store.directory / "CURRENT").write_bytes(content)
    with pytest.raises(ConsentDataError, match=str(store.directory)):
        ConsentStore(store.directory, KEYER)
    store._next_look = 0
    for _ in range(2):
        with pytest.raises(ConsentDataError, match=str(store.directory)):
            store.lookup("jo@shop.example", SCOPE, NOW)


READS = {
    "lookup": lambda store: store.lookup("jo@shop.example", SCOPE, NOW),
    "show": lambda store: store.show("jo@shop.example", Channel.EMAIL, NOW),
    "stats": lambda store: store.stats(),
    "age": lambda store: store.age(NOW),
    "stale": lambda store: store.stale(NOW),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("damage", ["directory in place of CURRENT", "index closed", "no more readers", "bad figures"])
def test_reading_raises_only_data_errors(tmp_path, monkeypatch, read, damage):
    """Whatever goes wrong underneath, a relay that reads gets a ConsentDataError with path and reason."""
    with ConsentStore(tmp_path, KEYER, readonly=False, stale_after=DAY) as store:
        record(store, "jo@shop.example", event())
        store._next_look = 0
        if damage == "directory in place of CURRENT":
            (tmp_path / "CURRENT").unlink()
            (tmp_path / "CURRENT").mkdir()
        elif damage == "index closed":
            store.close()
        elif damage == "no more readers":
            monkeypatch.setattr("filter.consent_index.ConsentIndex.begin", _no_readers)
        else:
            store._index.write(
                lambda txn: [txn.put(name, b"{", db=store._index._meta) for name in (b"figures", b"as_of")]
            )
            if read in (READS["lookup"], READS["show"]):
                read(store)
                return
        with pytest.raises(ConsentDataError, match=str(tmp_path)):
            read(store)


def _no_readers(_):
    raise lmdb.ReadersFullError("MDB_READERS_FULL")


def test_only_the_owner_reads_the_index(tmp_path, monkeypatch):
    """Under the usual umask the directory is 0700 and every file 0600, those of a rebuild too."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", 1)
    before = os.umask(0o022)
    try:
        with ConsentStore(tmp_path / "index", KEYER, readonly=False) as store:
            _load(store, [Entry(KEYER.subject("jo@shop.example", Channel.EMAIL), event())])
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "index").iterdir()}
    finally:
        os.umask(before)
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700
    assert {"CURRENT", "lock", "index-000002.lmdb", "index-000002.lmdb-lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_reader_does_not_write(store):
    """An index opened for reading refuses events."""
    directory = store.directory
    store.close()
    with ConsentStore(directory, KEYER) as reader, pytest.raises(ConsentDataError, match="reading only"):
        record(reader, "jo@shop.example", event())


def test_bad_arguments_are_named(store):
    """An unknown channel and an impossible address are errors, not unknown states."""
    with pytest.raises(ConsentDataError, match="fax"):
        store.lookup("jo@shop.example", SCOPE._replace(channel="fax"), NOW)
    with pytest.raises(AddressError):
        store.lookup("jo", SCOPE, NOW)


def _damage(path, address, change):
    """Change the stored value of an address behind the store's back."""
    env = lmdb.open(str(path), subdir=False, max_dbs=3)
    records = env.open_db(b"records", create=False)
    key = KEYER.subject(address, Channel.EMAIL).wide
    with env.begin(records, write=True) as txn:
        txn.put(key, change(txn.get(key)))
    env.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1],
        lambda value: value[:5],
        lambda value: b"",
        lambda value: value + b"\0",
        lambda value: bytes([value[0] ^ 1]) + value[1:],
        lambda value: value[:8] + bytes([value[8] ^ 128]) + value[9:],
        lambda value: value[:-5] + check(value[:-5]),
        lambda value: b"\xff\xff\xff" + value[3:-4] + check(b"\xff\xff\xff" + value[3:-4]),
    ],
)
def test_damage_is_an_error(tmp_path, change):
    """A value that is cut, changed or refers to nothing raises ConsentDataError; it is never taken for "no record"."""
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        record(store, "jo@shop.example", event(evidence_ref="call 4711"))
    _damage(tmp_path / "index-000001.lmdb", "jo@shop.example", change)
    with ConsentStore(tmp_path, KEYER) as store, pytest.raises(ConsentDataError, match="damaged"):
        store.lookup("jo@shop.example", SCOPE, NOW)


def test_file_cut_short_is_refused(tmp_path):
    """An index file that lost its end is refused at opening, before anything reads past it."""
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        store.apply(Entry(KEYER.subject(f"p{n}@x.example", Channel.EMAIL), event()) for n in range(500))
    path = tmp_path / "index-000001.lmdb"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8192)
    with pytest.raises(ConsentDataError, match=r"cut short|cannot be opened"):
        ConsentStore(tmp_path, KEYER)


def test_full_map_grows(tmp_path, monkeypatch):
    """Writing more than the map holds enlarges it and loses nothing, in place and in a rebuild."""
    monkeypatch.setattr("filter.consent_index.FIRST_MAP", 64 << 10)
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        entries = [Entry(KEYER.subject(f"p{n}@x.example", Channel.EMAIL), event(ident=f"e{n}")) for n in range(3000)]
        assert store.apply(entries).added == 3000
        assert state(store, "p2999@x.example") is ConsentState.CONSENT


def test_killed_readers_give_their_place_back(store):
    """A reader killed in the middle of a look-up does not take a place of the index for ever."""
    record(store, "anna@bank.example", event())
    spawn = multiprocessing.get_context("spawn")
    reader = spawn.Process(target=die_reading, args=(store.directory, SECRET))
    reader.start()
    reader.join(60)
    assert reader.exitcode == -signal.SIGKILL
    environment = store._index.env
    assert str(reader.pid) in environment.readers()
    _open_and_close(spawn, store.directory)
    assert str(reader.pid) not in environment.readers()
    assert environment.info()["max_readers"] == MAX_READERS


def _open_and_close(spawn, directory):
    opener = spawn.Process(target=read_once, args=(directory, SECRET))
    opener.start()
    opener.join(60)
    assert opener.exitcode == 0


def _load(store, entries, *, at=NOW, **batch):
    with Runs(store.directory) as runs:
        for subject, one in entries:
            template, rest = encode(one, b"" if subject.exact == subject.wide else subject.exact)
            runs.add(subject.wide + runs.templates.number(template).to_bytes(3) + rest)
        return store.load(runs, at, batch)


@pytest.mark.parametrize("spill_at", [7, 1_000_000])
@pytest.mark.parametrize("rebuild_from", [1, 1_000_000])
def test_loading_equals_recording(tmp_path, monkeypatch, spill_at, rebuild_from):
    """A bulk load, spilt to disk or not, in place or into a new file, gives what recording one by one gives."""
    monkeypatch.setattr("filter.consent_build.SPILL_AT", spill_at)
    monkeypatch.setattr(consent_store, "REBUILD_FROM", rebuild_from)
    chance = random.Random(7)
    entries = [
        Entry(
            KEYER.subject(f"p{chance.randrange(40)}{chance.choice(['', '+x'])}@x.example", Channel.EMAIL),
            event(
                chance.choice([GRANT, OBJECT]),
                NOW - chance.randrange(9),
                f"e{chance.randrange(30)}",
                evidence_ref="r" * chance.randrange(3),
            ),
        )
        for _ in range(200)
    ]
    with (
        ConsentStore(tmp_path / "a", KEYER, readonly=False) as one,
        ConsentStore(tmp_path / "b", KEYER, readonly=False) as other,
    ):
        expected = [one.apply(entries[:50]), one.apply(entries[50:])]
        assert [_load(other, entries[:50]), _load(other, entries[50:])] == expected
        assert {(key, *rec) for key, rec in one.export()} == {(key, *rec) for key, rec in other.export()}
        assert one.stats().records == other.stats().records == sum(done.added for done in expected)
        assert not list((tmp_path / "b").glob(".import-*"))


def test_rebuild_keeps_one_previous_file(tmp_path, monkeypatch):
    """After rebuilds the index file in use and the one before it are there, and older ones are gone."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", 1)
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        for number in range(3):
            _load(
                store,
                [Entry(KEYER.subject("jo@shop.example", Channel.EMAIL), event(ident=f"e{number}"))],
                name=f"b{number}",
            )
        assert sorted(path.name for path in tmp_path.glob("*.lmdb")) == ["index-000003.lmdb", "index-000004.lmdb"]
        assert len(store.show("jo@shop.example", Channel.EMAIL, NOW).events) == 3
        assert [batch["name"] for batch in store.stats().batches] == ["b0", "b1", "b2"]


def test_failed_rebuild_changes_nothing(tmp_path, monkeypatch):
    """When building fails half-way the old index stays in use and no debris is left."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", 1)
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        record(store, "jo@shop.example", event())
        monkeypatch.setattr("filter.consent_index.ConsentIndex.append", _no_space)
        with pytest.raises(OSError, match="No space"):
            _load(store, [Entry(KEYER.subject("al@shop.example", Channel.EMAIL), event())])
        assert state(store, "jo@shop.example") is ConsentState.CONSENT
        assert state(store, "al@shop.example") is ConsentState.UNKNOWN
        assert [path.name for path in tmp_path.glob("*.lmdb")] == ["index-000001.lmdb"]


def _no_space(*_, **__):
    raise OSError(28, "No space left on device")


def test_other_processes_see_writes_and_rebuilds(tmp_path, monkeypatch):
    """A reader in another process sees a write with new terms at once, and a rebuilt index after its next look."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", 1)
    context = multiprocessing.get_context("spawn")
    answers, questions = context.Queue(), context.Queue()
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        record(store, "jo@shop.example", event())
        child = context.Process(target=read_when_asked, args=(tmp_path, SECRET, answers, questions))
        child.start()
        try:
            seen = [_ask("jo@shop.example", questions, answers)]
            record(store, "jo@shop.example", event(OBJECT, NOW - 5, "e2"))
            seen.append(_ask("jo@shop.example", questions, answers))
            _load(store, [Entry(KEYER.subject("al@shop.example", Channel.EMAIL), event())])
            seen += [_ask("al@shop.example", questions, answers), _ask("jo@shop.example", questions, answers)]
        finally:
            questions.put(None)
            child.join(30)
    assert seen == [ConsentState.CONSENT, ConsentState.OBJECTED, ConsentState.CONSENT, ConsentState.OBJECTED]


def _ask(address, questions, answers):
    questions.put(address)
    return answers.get(timeout=30)


references = st.one_of(
    st.just(""),
    st.from_regex(r"[A-Za-z]{0,8}[-_:/.]?[0-9]{1,20}", fullmatch=True),
    st.uuids().map(str),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.text(max_size=60),
)
stored_events = st.builds(
    ConsentEvent,
    capture=st.sampled_from([GRANT, OBJECT, Capture(kind=EventKind.REFUSE, scope=Scope("", "", "", ""), batch="b1")]),
    id=references.filter(bool),
    event_time=st.integers(0, (1 << 48) - 1),
    received_at=st.integers(0, (1 << 48) - 1),
    source_seq=st.integers(-1, (1 << 63) - 1),
    evidence_ref=references,
    transaction_ref=references,
    request_ref=references,
    subscriber_evidence=references,
    expires_at=st.integers(0, (1 << 48) - 1),
    valid_until=st.integers(0, (1 << 48) - 1),
)


@given(st.lists(st.tuples(stored_events, st.sampled_from([b"", b"n" * 16])), min_size=1, max_size=4))
def test_codec_loses_nothing(listed):
    """Any events in one value, for any spellings of the address, are decoded as they were."""
    templates, body = Templates(), b""
    for one, narrow in listed:
        template, rest = encode(one, narrow)
        body += templates.number(template).to_bytes(3) + rest
    decoded = templates.records(body + check(body), b"w" * 16)
    assert [(item.event, item.exact) for item in decoded] == [(one, narrow or b"w" * 16) for one, narrow in listed]


def _soft(kind, **terms):
    return replace(GRANT, kind=kind, collector="bank", refusal_offered=True, **terms)


TERMS = [
    GRANT,
    OBJECT,
    replace(GRANT, told_duration=3 * DAY),
    replace(GRANT, pending=True),
    replace(GRANT, scope=SCOPE._replace(topic="news"), topics=("offers",)),
    replace(GRANT, grade=Grade.NONE),
    replace(GRANT, batch="b1"),
    replace(OBJECT, scope=Scope("sms", "", "", ""), batch="b1"),
    Capture(kind=EventKind.BLOCK, scope=Scope("", "", "", ""), reason="bounce"),
    Capture(kind=EventKind.LIFT, scope=Scope("", "", "", "")),
    _soft(EventKind.SOFT_OPT_IN, batch="b1"),
    _soft(EventKind.CHARITY_SOFT_OPT_IN, charity=True),
    replace(GRANT, kind=EventKind.SOLICITED),
    replace(GRANT, kind=EventKind.CORPORATE, told_duration=2 * DAY),
]
ASKED = [NOW - DAY, NOW, NOW + DAY, NOW + 2 * DAY, NOW + 3 * DAY]
DAYS = [NOW + days * DAY for days in range(-3, 2)]  # few, so that times of events, ends and questions meet


@pytest.mark.parametrize("capture", TERMS)
@pytest.mark.parametrize("max_age", [0, 2 * DAY])
def test_ruling_on_a_template_is_the_ruling_on_each_record(capture, max_age):
    """What is remembered of one record's terms answers for every other as a full merge of its events would."""
    templates, wide, narrow = Templates(), b"w" * 16, b"n" * 16
    own = product(
        [*DAYS, NOW - 1 + CLOCK_SKEW, NOW + CLOCK_SKEW, CHARITY_START - 1, 0],
        [0, NOW - 1],
        ["ORD-1", "one", ""],
        [(0, 0), (NOW, 0), (0, NOW + DAY)],
        [b"", narrow],
    )
    listed = [
        (ConsentEvent(capture, "E-1", made, came or made, -1, "", sale, "R-1", "00012345", end, until), other)
        for made, came, sale, (end, until), other in own
    ]
    asked = []
    for one, other in listed:
        template, rest = encode(one, other)
        body = templates.number(template).to_bytes(3) + rest
        for at, exact in product(ASKED, [wide, narrow]):
            concerned = template.wide or (other or wide) == exact
            expected = resolve([one] if concerned else [], SCOPE, at, max_age=max_age)
            asked.append((body + check(body), Subject(exact, wide, ""), at, expected))
    for order in (asked, asked[::-1]):  # whichever record the ruling is learnt from
        rulings = Rulings(templates)
        for value, subject, at, expected in order:
            answer = rulings.answer(value, subject, SCOPE, at, max_age)
            assert (answer.blocked, answer) == (expected.blocked, expected)


@given(st.text(max_size=300))
def test_every_reference_is_spelt_or_refused(text):
    """A reference of up to 255 octets can be stored; a longer one is refused by name of the limit."""
    try:
        octets = text.encode()
    except UnicodeEncodeError:
        return
    if len(octets) <= 255:
        assert spell(text)[1] is not None
    else:
        with pytest.raises(ConsentDataError, match="allowed are 255"):
            spell(text)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([GRANT, OBJECT]), st.integers(1, 6), st.integers(1, 3)), max_size=5),
    st.randoms(),
)
def test_order_of_arrival_changes_no_state(tmp_path_factory, acts, chance):
    """Through the real index: the order in which events arrive does not matter, nor that some arrive twice."""
    events = [event(capture, NOW - ago, f"e{ident}") for capture, ago, ident in acts]
    shuffled = events + events[:2]
    chance.shuffle(shuffled)
    answers = []
    for arrival in (events, shuffled):
        with ConsentStore(tmp_path_factory.mktemp("index"), KEYER, readonly=False) as store:
            for one in arrival:
                record(store, "jo@shop.example", one)
            answers.append(store.lookup("jo@shop.example", SCOPE, NOW))
    assert answers[0] == answers[1] == resolve(events, SCOPE, NOW)


def test_threads_share_a_store_across_a_rebuild(tmp_path, monkeypatch):
    """Look-ups in several threads go on, all with the right answer, while the index file is replaced under them."""
    monkeypatch.setattr(consent_store, "REBUILD_FROM", 1)
    monkeypatch.setattr(consent_store, "REFRESH_EVERY", 0.0)
    with ConsentStore(tmp_path, KEYER, readonly=False) as store:
        record(store, "jo@shop.example", event(OBJECT))
        with ThreadPoolExecutor(4) as pool:
            looks = [pool.submit(state, store, "jo@shop.example") for _ in range(300)]
            for number in range(5):
                _load(store, [Entry(KEYER.subject(f"p{number}@x.example", Channel.EMAIL), event())])
        assert {look.result() for look in looks} == {ConsentState.OBJECTED}

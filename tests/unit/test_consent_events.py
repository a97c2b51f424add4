"""Consent events as records of a topic: what is written is what is read, and nothing fails open."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.address import SubjectKeyer
from filter.consent import resolve
from filter.consent_events import (
    MAX_VALUE,
    Because,
    Erasure,
    Heartbeat,
    Reader,
    Refused,
    Told,
    Tombstone,
    erasure_record,
    event_record,
    heartbeat_record,
    partition_key,
)
from filter.evidence import BASES, OPT_OUTS, Capture, ConsentEvent, EventKind, Grade, Scope
from filter.labels import Channel

NOW = 1_790_000_000_000
KEYER = SubjectKeyer(b"k" * 32)
SUBJECT = KEYER.subject("Ann@example.com", Channel.EMAIL)
TAGGED = KEYER.subject("ann+news@example.com", Channel.EMAIL)
BANK = Scope("email", "bank", "bank", "offers")

words = st.text("abcXYZ é*;=", max_size=8)
maybe = st.sampled_from([None, True, False])
times = st.integers(0, NOW + 10)
names = st.sampled_from(["", "email", "bank", "Offers", "*"])
captures = st.builds(
    Capture,
    kind=st.sampled_from(EventKind),
    scope=st.builds(Scope, names, names, names, names),
    topics=st.lists(words, max_size=2).map(tuple),
    source=words,
    method=words,
    reason=words,
    affirmative=maybe,
    wording_id=words,
    wording_sha256=st.sampled_from(["", "ab" * 32]),
    bundled_with=st.lists(words, max_size=2).map(tuple),
    conditional=maybe,
    told_duration=st.integers(0, 1 << 40),
    third_party=words,
    named_controllers=st.lists(words, max_size=2).map(tuple),
    collector=words,
    refusal_offered=maybe,
    charity=st.booleans(),
    pending=st.booleans(),
    grade=st.sampled_from(Grade),
    bulk=st.booleans(),
    batch=words,
)
events = st.builds(
    ConsentEvent,
    capture=captures,
    id=words,
    event_time=times,
    received_at=times,
    source_seq=st.integers(-1, 99),
    evidence_ref=words,
    transaction_ref=words,
    request_ref=words,
    subscriber_evidence=words,
    expires_at=times,
    valid_until=times,
)


def reader():
    """A node with our subject key."""
    return Reader(KEYER.key_id)


def objection(**given):
    """A plain objection."""
    made = {"id": "", "event_time": NOW - 5, "received_at": NOW, **given}
    return ConsentEvent(Capture(kind=EventKind.OBJECT, scope=BANK), **made)


def changed(event, **fields):
    """The record of an event with fields of its value replaced; None leaves one out."""
    key, value = event_record(SUBJECT, event)
    document = {**orjson.loads(value), **fields}
    return key, orjson.dumps({name: thing for name, thing in document.items() if thing is not None})


@given(st.sampled_from([SUBJECT, TAGGED]), events)
def test_what_is_written_is_what_is_read(subject, event):
    """An event and its subject come out of the octets as they went in, whatever is on record."""
    assert reader().read(*event_record(subject, event)) == Told(subject, event)


@given(st.permutations(range(6)), st.lists(events, min_size=6, max_size=6), st.data())
def test_order_and_repetition_change_no_state(order, told, data):
    """Through the records, in any order and with repeats, events amount to the same state."""
    scope, at = Scope("email", "bank", "bank", "offers"), NOW + 5
    read = [reader().read(*event_record(SUBJECT, told[position])).event for position in order]
    again = data.draw(st.lists(st.sampled_from(read), max_size=4))
    assert resolve([*read, *again], scope, at) == resolve(told, scope, at)


@given(events, events)
def test_compaction_drops_no_other_act(one, other):
    """Two records of a person have one key only when they tell of the same act."""
    same = one._replace(capture=None, received_at=0) == other._replace(capture=None, received_at=0)
    if event_record(SUBJECT, one)[0] == event_record(SUBJECT, other)[0]:
        assert same
        assert one.kind is other.kind


def test_an_act_told_again_replaces_itself():
    """The same act in a later list has the key it had; with another time, or as one's own act, another."""
    listed = ConsentEvent(Capture(kind=EventKind.OBJECT, scope=BANK, bulk=True, batch="may"), "", NOW - 5, NOW)
    june = Capture(kind=EventKind.OBJECT, scope=BANK, bulk=True, batch="june")
    key, _ = event_record(SUBJECT, listed)
    assert event_record(SUBJECT, listed._replace(capture=june, received_at=NOW + 9))[0] == key
    assert event_record(SUBJECT, listed._replace(event_time=NOW - 4))[0] != key
    assert event_record(SUBJECT, objection())[0] != key


@pytest.mark.parametrize("made", [0, NOW + 60_000])
def test_arrival_is_part_of_an_act_where_it_matters(made):
    """An act without a time, or dated after its arrival, counts from its arrival: then that is part of its name."""
    first, later = (event_record(SUBJECT, objection(event_time=made, received_at=at))[0] for at in (NOW, NOW + 120_000))
    assert first != later


def test_all_records_of_a_mailbox_go_together():
    """Every spelling of a mailbox, and its erasure, has the same part of the key that decides the partition."""
    keys = [event_record(SUBJECT, objection())[0], event_record(TAGGED, objection())[0], erasure_record(TAGGED)[0]]
    assert {partition_key(key) for key in keys} == {SUBJECT.wide.hex().encode()}
    assert len(set(keys)) == 3


def test_other_records():
    """Heartbeats, erasures and tombstones are read as what they are."""
    assert reader().read(*heartbeat_record(NOW)) == Heartbeat(NOW)
    assert reader().read(*erasure_record(TAGGED)) == Erasure(TAGGED.wide)
    assert reader().read(event_record(SUBJECT, objection())[0], None) == Tombstone()
    assert reader().read(b"heartbeat", None) == Tombstone()


def test_a_plain_subject_key_is_a_key_too():
    """A producer that keys its records by the subject key alone is read; what compaction drops is its own affair."""
    _, value = event_record(SUBJECT, objection())
    assert reader().read(SUBJECT.wide.hex().encode(), value) == Told(SUBJECT, objection())


MAY_BE_OPT_OUT = {
    "not JSON": (b"{", Because.BAD_JSON, ""),
    "not UTF-8": (b'{"kind":"\xff"}', Because.BAD_JSON, ""),
    "no object": (b"[]", Because.BAD_JSON, ""),
    "too large": (b" " * (MAX_VALUE + 1), Because.TOO_LARGE, ""),
}


@pytest.mark.parametrize(("value", "because", "field"), MAY_BE_OPT_OUT.values(), ids=MAY_BE_OPT_OUT)
def test_what_cannot_be_read_counts_as_an_objection(value, because, field):
    """A value that nobody can read stops marketing to the mailbox that its key names."""
    key, _ = event_record(SUBJECT, objection())
    assert reader().read(key, value) == Refused(because, field, (SUBJECT.wide,))


@pytest.mark.parametrize(
    ("fields", "because", "field"),
    [
        ({"v": 2}, Because.UNKNOWN_VERSION, ""),
        ({"v": None}, Because.UNKNOWN_VERSION, ""),
        ({"key_id": None}, Because.BAD_FIELD, "key_id"),
        ({"kind": "unsubscribed"}, Because.UNKNOWN_KIND, "kind"),
        ({"kind": None}, Because.UNKNOWN_KIND, "kind"),
        ({"kind": ["object"]}, Because.UNKNOWN_KIND, "kind"),
        ({"subject": "ann@example.com"}, Because.BAD_FIELD, "subject"),
    ],
)
def test_what_may_be_an_opt_out_counts_as_one(fields, because, field):
    """An event of a kind we do not know, or that names nobody properly, stops marketing to the mailbox of its key."""
    assert reader().read(*changed(objection(), **fields)) == Refused(because, field, (SUBJECT.wide,))


def test_key_and_value_must_name_one_mailbox():
    """An opt-out under another's key stops marketing to both of them; a basis permits to neither."""
    other = KEYER.subject("bob@example.com", Channel.EMAIL)
    key, _ = event_record(other, objection())
    _, value = event_record(SUBJECT, objection())
    assert reader().read(key, value) == Refused(Because.KEY_MISMATCH, "mailbox", (other.wide, SUBJECT.wide))
    _, value = changed(objection(), kind="grant")
    assert reader().read(key, value) == Refused(Because.KEY_MISMATCH, "mailbox")


def test_another_subject_key_names_nobody():
    """Records made with another subject key than ours are refused and concern nobody we know."""
    key, value = changed(objection(), key_id="00000000")
    assert reader().read(key, value) == Refused(Because.FOREIGN_KEY_ID)


@pytest.mark.parametrize("key", [None, b"", b"ann@example.com", b"A" * 32, b"0" * 31, b"0" * 32 + b":", b"heartbeats"])
def test_a_bad_key_names_nobody(key):
    """A record whose key names no mailbox is refused."""
    assert reader().read(key, event_record(SUBJECT, objection())[1]) == Refused(Because.BAD_KEY)


BAD_VALUES = {
    "event_time": ["soon", -1, 1 << 48, 1.5, True],
    "source_seq": ["1", -2, 1 << 63],
    "channel": [7],
    "topic": [["offers"]],
    "evidence_ref": ["x" * 256, 5],
    "affirmative": ["yes", 1],
    "grade": ["E", [], 1],
    "told_duration": [-1],
    "bundled_with": ["terms"],
}
BAD = [(name, value) for name, values in BAD_VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_values_refuse_a_basis(name, value):
    """A grant with a value that cannot be used is no evidence, and no objection either."""
    assert reader().read(*changed(objection(), kind="grant", **{name: value})) == Refused(Because.BAD_FIELD, name)


@pytest.mark.parametrize(("name", "value"), BAD)
@pytest.mark.parametrize("kind", sorted(OPT_OUTS))
def test_bad_values_never_refuse_an_opt_out(kind, name, value):
    """An opt-out is taken without a value that cannot be used: as wide as that makes it."""
    told = reader().read(*changed(objection(), kind=kind, **{name: value}))
    assert told.event.kind == kind
    assert resolve([told.event], BANK, NOW).state == "objected"


def test_unreadable_topics_widen_an_opt_out():
    """Further topics that cannot be read might be any: the opt-out then concerns all."""
    told = reader().read(*changed(objection(), topics="loans"))
    assert resolve([told.event], BANK._replace(topic="anything"), NOW).state == "objected"


@pytest.mark.parametrize("kind", sorted(BASES))
def test_a_condition_we_do_not_know_refuses_a_basis(kind):
    """A field unknown to this version may limit a basis; an opt-out only gets wider without it."""
    record = changed(objection(), kind=kind, only_on_sundays=True)
    assert reader().read(*record) == Refused(Because.BAD_FIELD, "(unknown)")
    assert reader().read(*changed(objection(), only_on_sundays=True)) == Told(SUBJECT, objection())


@given(st.binary(max_size=40) | st.none(), st.binary(max_size=60) | st.none())
def test_any_octets_are_read(key, value):
    """No record makes the reader fail."""
    reader().read(key, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
FIELDS = [*ConsentEvent._fields[1:], *Capture.__dataclass_fields__, *Scope._fields, "v", "key_id", "subject", "mailbox"]


@given(st.sampled_from(["object", "grant", "lift"]), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
def test_any_fields_are_read(kind, fields):
    """No value of any field makes the reader fail, and what may be an opt-out never fails open."""
    key, value = event_record(SUBJECT, objection())
    read = reader().read(key, orjson.dumps({**orjson.loads(value), "kind": kind, **fields}))
    if kind == "object" and isinstance(read, Refused) and read.because is not Because.FOREIGN_KEY_ID:
        assert SUBJECT.wide in read.stops or fields.get("kind") in (*BASES, "lift")


def test_of_two_bad_fields_the_same_one_is_named():
    """Whichever stands first in the record, and whether or not its terms are known from another one."""
    key, value = event_record(SUBJECT, ConsentEvent(Capture(kind=EventKind.GRANT, scope=BANK), "", NOW - 5, NOW))
    knowing = reader()
    knowing.read(key, value)
    for bad in ({"event_time": None, "id": None}, {"id": None, "event_time": None}):
        head = {"v": 1, "key_id": KEYER.key_id, "subject": SUBJECT.exact.hex(), **bad}
        wrong = orjson.dumps(head)[:-1] + b',"kind":' + value.partition(b',"kind":')[2]
        assert knowing.read(key, wrong) == reader().read(key, wrong) == Refused(Because.BAD_FIELD, "id")


@given(st.lists(events, min_size=2, max_size=2), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2))
def test_terms_known_again_are_the_terms_that_are_there(told, fields):
    """What a reader remembers of one record changes nothing in how it reads the next one."""
    knowing = reader()
    ends = [event_record(SUBJECT, event)[1].partition(b',"kind":')[2] for event in told]
    key, value = event_record(SUBJECT, told[0])
    knowing.read(key, value)
    for end in ends:
        head = orjson.dumps({"v": 1, "key_id": KEYER.key_id, "subject": SUBJECT.exact.hex(), **fields})
        other = head[:-1] + b',"kind":' + end
        assert knowing.read(key, other) == reader().read(key, other)

"""The short way from a record of the topic to one of the index leads to where the long one does, or nowhere."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from filter.address import SubjectKeyer
from filter.consent_codec import encode
from filter.consent_events import Reader, Told, event_record
from filter.consent_quick import MAX_TEMPLATES, QuickReader
from filter.evidence import Capture, ConsentEvent, EventKind, Scope
from filter.labels import Channel

NOW = 1_790_000_000_000
KEYER = SubjectKeyer(b"k" * 32)
SUBJECTS = [KEYER.subject(address, Channel.EMAIL) for address in ("ann@example.com", "ann+news@example.com")]
SCOPE = Scope("email", "bank", "bank", "offers")
GRANT = Capture(kind=EventKind.GRANT, scope=SCOPE, source="join", batch="list 7")
OBJECT = Capture(kind=EventKind.OBJECT, scope=SCOPE)

references = st.sampled_from(["", "row-0012", "é", 'a"b', "x" * 63, "x" * 64, "ab" * 16, "1"]) | st.text(max_size=70)
times = st.integers(0, NOW + 10)
numbers = st.integers(-1, 1 << 20)
events = st.builds(
    ConsentEvent,
    capture=st.sampled_from([GRANT, OBJECT]),
    id=references,
    event_time=times,
    received_at=times,
    source_seq=numbers,
    evidence_ref=references,
    transaction_ref=references,
    request_ref=references,
    subscriber_evidence=references,
    expires_at=times,
    valid_until=times,
)
json_values = st.none() | st.booleans() | st.integers(-2, 1 << 63) | st.floats(allow_nan=False) | references
FIELDS = [*ConsentEvent._fields[1:], "v", "key_id", "subject", "mailbox", "other", "kind"]


def readers():
    """The long way, which has seen these terms, and the short one."""
    long = Reader(KEYER.key_id)
    for capture in (GRANT, OBJECT):
        long.read(*event_record(SUBJECTS[0], ConsentEvent(capture, "", NOW, NOW)))
    return long, QuickReader(long)


def long_way(reader, key, value):
    """What becomes of a record that is an event, received when it says; None of any other."""
    read = reader.read(key, value)
    if not isinstance(read, Told) or not 0 < read.event.received_at <= NOW:
        return None
    subject, event = read
    narrow = b"" if subject.exact == subject.wide else subject.exact
    return (subject.wide, *encode(event, narrow), event.received_at)


def plain(capture=GRANT, **given):
    """A record in the form that nearly all have."""
    return event_record(SUBJECTS[0], ConsentEvent(capture, "", **{"event_time": NOW - 5, "received_at": NOW, **given}))


@given(st.sampled_from(SUBJECTS), events)
def test_both_ways_lead_to_one_record(subject, event):
    """Whatever is on record, the short way finds the record of the long one, or nothing."""
    long, short = readers()
    key, value = event_record(subject, event)
    assert short.read(key, value, NOW) in (None, long_way(long, key, value))


@given(st.sampled_from([GRANT, OBJECT]), st.integers(0, NOW), st.integers(1, NOW), st.integers(0, 10**9))
def test_what_nearly_all_records_are_goes_the_short_way(capture, made, received, row):
    """The usual record is read, so that the comparison compares something."""
    long, short = readers()
    key, value = plain(capture, event_time=made, received_at=received, evidence_ref=f"row-{row}", source_seq=row)
    assert short.read(key, value, NOW) == long_way(long, key, value) != None  # noqa: E711 - both are something


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3), st.permutations(range(9)))
def test_no_value_of_any_field_leads_elsewhere(fields, order):
    """Fields that are odd, strange or in another order: the long way's record, or none."""
    long, short = readers()
    key, value = plain(evidence_ref="row-1", expires_at=NOW)
    at = value.index(b',"kind":')
    document = list({**orjson.loads(value[:at] + b"}"), **fields}.items())
    shuffled = dict(document[:3] + [document[at] for at in order if 3 <= at < len(document)])
    odd = orjson.dumps(shuffled)[:-1] + value[at:]
    assert short.read(key, odd, NOW) in (None, long_way(long, key, odd))


@given(st.binary(max_size=70) | st.none(), st.integers(0, 400), st.binary(max_size=3))
def test_no_octets_lead_elsewhere(other, at, octets):
    """Any key, and any damage to key or value: the long way's record, or none."""
    long, short = readers()
    key, value = plain(evidence_ref="row-1")
    damaged = value[:at] + octets + value[at + len(octets) :]
    bad_key = key[: at % 70] + octets + key[at % 70 + len(octets) :]
    for one, other_value in ((other, value), (key, damaged), (bad_key, value), (key.upper(), value), (key, None)):
        assert short.read(one, other_value, NOW) in (None, long_way(long, one, other_value))


def test_terms_that_are_not_known_yet_go_the_long_way():
    """The short way knows what the long one has learned, and learns it with it."""
    long, short = readers()
    record = plain(Capture(kind=EventKind.GRANT, scope=SCOPE, source="other"))
    assert short.read(*record, NOW) is None
    assert long_way(long, *record) == short.read(*record, NOW)


def test_an_event_from_the_future_goes_the_long_way():
    """When it counts as received is not for the short way to say."""
    _, short = readers()
    assert short.read(*plain(received_at=NOW + 1), NOW) is None
    assert short.read(*plain(received_at=NOW + 1), NOW + 1) is not None


def test_many_templates_are_forgotten(monkeypatch):
    """However many there are, memory is bounded and every record still comes out right."""
    assert MAX_TEMPLATES > 1000
    monkeypatch.setattr("filter.consent_quick.MAX_TEMPLATES", 2)
    long, short = readers()
    for number in range(9):
        record = plain(received_at=NOW - number)
        assert short.read(*record, NOW) == long_way(long, *record)
        assert len(short._templates) <= 2

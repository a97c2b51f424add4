"""Consent events and their merge: what counts as evidence, and what state a set of events amounts to."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.consent import (
    Capture,
    ConsentEvent,
    ConsentState,
    EventKind,
    Grade,
    Invalidity,
    Outcome,
    Review,
    Scope,
    UnknownBecause,
    resolve,
    validate,
)
from filter.evidence import BASES, CHARITY_START, CLOCK_SKEW, DAY, OPT_OUTS

SCOPE = Scope("email", "bank", "bank", "offers")
NOW = 1_790_000_000_000
SHA = "ab" * 32

GOOD = {
    EventKind.GRANT: {
        "source": "bank.example/join",
        "method": "web form",
        "affirmative": True,
        "conditional": False,
        "wording_id": "join-7",
        "wording_sha256": SHA,
        "grade": Grade.INDIVIDUAL_PROOF,
    },
    EventKind.SOFT_OPT_IN: {
        "source": "checkout",
        "wording_id": "checkout-3",
        "wording_sha256": SHA,
        "collector": "Bank",
        "refusal_offered": True,
        "grade": Grade.SYSTEM_LOG,
    },
    EventKind.SOLICITED: {"source": "quote form", "grade": Grade.SYSTEM_LOG},
    EventKind.CORPORATE: {"source": "register", "grade": Grade.SYSTEM_LOG},
}
GOOD[EventKind.CHARITY_SOFT_OPT_IN] = {**GOOD[EventKind.SOFT_OPT_IN], "charity": True}
OWN = {
    EventKind.SOFT_OPT_IN: {"transaction_ref": "ORD-1"},
    EventKind.CHARITY_SOFT_OPT_IN: {"transaction_ref": "GIFT-1"},
    EventKind.SOLICITED: {"request_ref": "Q-1", "valid_until": NOW + DAY},
    EventKind.CORPORATE: {"subscriber_evidence": "company 01234567"},
}


def event(kind, made=NOW - DAY, *, scope=SCOPE, own=None, received_at=None, ident="", **terms):
    """A valid event of its kind, but for what is given."""
    capture = Capture(kind=kind, scope=scope, **{**GOOD.get(kind, {}), **terms})
    return ConsentEvent(
        capture,
        id=ident or f"{kind}-{made}",
        event_time=made,
        received_at=made if received_at is None else received_at,
        **{**OWN.get(kind, {}), **(own or {})},
    )


def state(*events, scope=SCOPE, at=NOW, max_age=0):
    """The state that events amount to."""
    return resolve(events, scope, at, max_age=max_age).state


STATES = {
    EventKind.GRANT: ConsentState.CONSENT,
    EventKind.SOFT_OPT_IN: ConsentState.SOFT_OPT_IN,
    EventKind.CHARITY_SOFT_OPT_IN: ConsentState.SOFT_OPT_IN,
    EventKind.SOLICITED: ConsentState.SOLICITED,
    EventKind.CORPORATE: ConsentState.CORPORATE,
}


@pytest.mark.parametrize("kind", sorted(BASES))
def test_each_valid_basis_gives_its_state(kind):
    """Complete evidence of a basis gives the state of that name and is relied on."""
    basis = event(kind)
    answer = resolve([basis], SCOPE, NOW)
    assert (answer.state, answer.relied_on, answer.reasons) == (STATES[kind], basis, ())
    assert answer.considered[0].outcome is Outcome.RELIED_ON


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        (EventKind.GRANT, {"scope": Scope("", "bank", "bank", "offers")}, Invalidity.NO_CHANNEL),
        (EventKind.GRANT, {"scope": Scope("email", "bank", "", "offers")}, Invalidity.NO_CONTROLLER),
        (EventKind.GRANT, {"scope": Scope("email", "bank", "bank", "")}, Invalidity.NO_TOPIC),
        (EventKind.GRANT, {"scope": Scope("email", "bank", "*", "offers")}, Invalidity.WILDCARD),
        (EventKind.GRANT, {"topics": ("*",)}, Invalidity.WILDCARD),
        (EventKind.GRANT, {"made": 0}, Invalidity.NO_TIME),
        (EventKind.GRANT, {"made": NOW - DAY + CLOCK_SKEW + 1, "received_at": NOW - DAY}, Invalidity.FUTURE_TIME),
        (EventKind.CORPORATE, {"made": NOW + 9 * DAY, "received_at": NOW - DAY}, Invalidity.FUTURE_TIME),
        (EventKind.GRANT, {"source": ""}, Invalidity.NO_SOURCE),
        (EventKind.GRANT, {"wording_id": ""}, Invalidity.NO_WORDING),
        (EventKind.GRANT, {"wording_sha256": "beef"}, Invalidity.NO_WORDING),
        (EventKind.GRANT, {"affirmative": False}, Invalidity.NOT_AFFIRMATIVE),
        (EventKind.GRANT, {"affirmative": None}, Invalidity.NOT_AFFIRMATIVE),
        (EventKind.GRANT, {"bundled_with": ("age",)}, Invalidity.BUNDLED),
        (EventKind.GRANT, {"conditional": True}, Invalidity.CONDITIONAL),
        (EventKind.GRANT, {"conditional": None}, Invalidity.CONDITIONAL),
        (EventKind.GRANT, {"third_party": "broker"}, Invalidity.INDIRECT),
        (EventKind.GRANT, {"third_party": "broker", "named_controllers": ("others",)}, Invalidity.INDIRECT),
        (EventKind.SOFT_OPT_IN, {"third_party": "broker", "named_controllers": ("bank",)}, Invalidity.INDIRECT),
        (EventKind.GRANT, {"grade": Grade.BULK_ASSERTION}, Invalidity.WEAK_EVIDENCE),
        (EventKind.GRANT, {"grade": Grade.NONE}, Invalidity.WEAK_EVIDENCE),
        (EventKind.GRANT, {"bulk": True}, Invalidity.UNTRACED),
        (EventKind.SOFT_OPT_IN, {"own": {"transaction_ref": ""}}, Invalidity.SOFT_OPT_IN_INCOMPLETE),
        (EventKind.SOFT_OPT_IN, {"collector": "sister company"}, Invalidity.SOFT_OPT_IN_INCOMPLETE),
        (EventKind.SOFT_OPT_IN, {"refusal_offered": None}, Invalidity.SOFT_OPT_IN_INCOMPLETE),
        (EventKind.SOFT_OPT_IN, {"wording_id": ""}, Invalidity.NO_WORDING),
        (EventKind.CHARITY_SOFT_OPT_IN, {"charity": False}, Invalidity.CHARITY_INCOMPLETE),
        (EventKind.CHARITY_SOFT_OPT_IN, {"made": CHARITY_START - 1}, Invalidity.CHARITY_INCOMPLETE),
        (EventKind.SOLICITED, {"own": {"request_ref": ""}}, Invalidity.NOT_SOLICITED),
        (EventKind.SOLICITED, {"own": {"valid_until": 0}}, Invalidity.NOT_SOLICITED),
        (EventKind.SOLICITED, {"own": {"valid_until": NOW + 31 * DAY}}, Invalidity.NOT_SOLICITED),
        (EventKind.SOLICITED, {"topics": ("loans",)}, Invalidity.NOT_SOLICITED),
        (EventKind.CORPORATE, {"own": {"subscriber_evidence": ""}}, Invalidity.NOT_CORPORATE),
    ],
)
def test_incomplete_evidence_does_not_count(kind, change, code):
    """Each missing or failing condition has its code, and the state is unknown because of it."""
    basis = event(kind, **change)
    assert code in validate(basis)
    scopes = {SCOPE, basis.scope._replace(channel="email", brand="bank", topic="offers")}
    answers = [resolve([basis], scope, NOW) for scope in scopes]
    assert {answer.state for answer in answers} == {ConsentState.UNKNOWN}


def test_charity_soft_opt_in_counts_from_its_first_day():
    """Details taken on 5 February 2026 itself count."""
    assert validate(event(EventKind.CHARITY_SOFT_OPT_IN, CHARITY_START)) == ()


def test_every_code_has_rule_and_sentence():
    """A lawyer can read why a record does not count."""
    for code in Invalidity:
        assert code.rule
        assert code.sentence.endswith(".")


@pytest.mark.parametrize(
    "other",
    [
        SCOPE._replace(channel="sms"),
        SCOPE._replace(controller="bank group"),
        SCOPE._replace(brand="sister"),
        SCOPE._replace(topic="loans"),
    ],
)
def test_consent_covers_its_own_scope_only(other):
    """Another channel, controller, brand or topic inherits nothing."""
    assert state(event(EventKind.GRANT), scope=other) is ConsentState.UNKNOWN


def test_names_are_compared_without_case():
    """Scope names from a record and from configuration are one whatever their case and surrounding space."""
    assert state(event(EventKind.GRANT, scope=Scope("Email", " BANK", "Bank", "Offers"))) is ConsentState.CONSENT


def test_further_topics_of_one_act_count():
    """A grant that showed several topics covers each."""
    grant = event(EventKind.GRANT, topics=("Loans",))
    assert state(grant, scope=SCOPE._replace(topic="loans")) is ConsentState.CONSENT


@pytest.mark.parametrize("kind", sorted(OPT_OUTS))
@pytest.mark.parametrize(
    "scope", [SCOPE, Scope("", "", "", ""), Scope("*", "bank", "*", "*"), Scope("email", "bank", "", "")]
)
@pytest.mark.parametrize("basis", sorted(BASES))
def test_opt_out_beats_every_basis(kind, scope, basis):
    """A later opt-out wins over any basis, however wide its scope is stated."""
    answer = resolve([event(basis), event(kind, NOW - 1, scope=scope)], SCOPE, NOW)
    assert (answer.state, answer.reasons) == (ConsentState.OBJECTED, (kind,))
    assert answer.relied_on.kind is kind


@pytest.mark.parametrize(
    "scope", [SCOPE._replace(topic="loans"), SCOPE._replace(brand="sister"), Scope("sms", "bank", "", "")]
)
def test_limited_opt_out_stays_within_its_limits(scope):
    """Where the person limited the opt-out, the rest goes on."""
    assert state(event(EventKind.GRANT), event(EventKind.OBJECT, NOW - 1, scope=scope)) is ConsentState.CONSENT


def test_opt_out_without_any_data_counts():
    """An opt-out is never malformed: without time, source or scope it still counts, for good."""
    bare = ConsentEvent(Capture(kind=EventKind.OBJECT, scope=Scope("", "", "", "")), "", 0, 0)
    assert state(bare, event(EventKind.GRANT)) is ConsentState.OBJECTED


def test_explicit_later_consent_lifts_an_opt_out():
    """Only a new, valid, individual grant ends an opt-out; the account says so."""
    answer = resolve([event(EventKind.OBJECT, NOW - 9), event(EventKind.GRANT, NOW - 5)], SCOPE, NOW)
    assert (answer.state, answer.reasons) == (ConsentState.CONSENT, (Review.OBJECTION_LIFTED,))
    assert [item.outcome for item in answer.considered] == [Outcome.LIFTED, Outcome.RELIED_ON]


@pytest.mark.parametrize("kind", sorted(OPT_OUTS | {EventKind.BLOCK}))
def test_only_a_lifted_objection_is_flagged_for_review(kind):
    """Consent after an objection is to be reviewed; after a withdrawal, a refusal or a block in force it is not."""
    answer = resolve([event(kind, NOW - 9), event(EventKind.GRANT, NOW - 5)], SCOPE, NOW)
    assert answer.state is ConsentState.CONSENT
    assert answer.reasons == ((Review.OBJECTION_LIFTED,) if kind is EventKind.OBJECT else ())


@pytest.mark.parametrize(
    "later",
    [
        {"bulk": True, "batch": "b1"},
        {"batch": "b1"},
        {"third_party": "broker", "named_controllers": ("bank",)},
        {"grade": Grade.BULK_ASSERTION},
        {"affirmative": None},
        {"pending": True},
        {"scope": SCOPE._replace(topic="loans")},
        {"made": NOW - 10},
        {"made": NOW + 1},
    ],
)
def test_nothing_less_lifts_an_opt_out(later):
    """Imported, bulk, passed-on, weak, invalid, unconfirmed, other or earlier grants leave the opt-out in force."""
    assert (
        state(event(EventKind.OBJECT, NOW - 9), event(EventKind.GRANT, **{"made": NOW - 5, **later}))
        is ConsentState.OBJECTED
    )


@pytest.mark.parametrize("kind", sorted(BASES - {EventKind.GRANT}))
def test_no_other_basis_lifts_an_opt_out(kind):
    """A purchase, a request or a company number is no change of mind."""
    assert state(event(EventKind.OBJECT, NOW - 2 * DAY), event(kind)) is ConsentState.OBJECTED


def test_grant_cannot_be_later_than_its_arrival():
    """A grant from a clock that runs ahead does not overtake an objection made after it arrived."""
    ahead = event(EventKind.GRANT, NOW - 10, received_at=NOW - 100)
    assert state(ahead, event(EventKind.OBJECT, NOW - 50)) is ConsentState.OBJECTED


def test_grant_from_a_clock_that_runs_ahead_a_little_counts():
    """Ten minutes between clocks are no fault, but the grant runs out as if made when it arrived."""
    ahead = event(EventKind.GRANT, NOW - DAY + CLOCK_SKEW, received_at=NOW - DAY, told_duration=DAY)
    assert state(ahead, at=NOW - 1) is ConsentState.CONSENT
    assert state(ahead, at=NOW) is ConsentState.UNKNOWN


@pytest.mark.parametrize("years", [59, 7900])
def test_date_in_the_future_is_no_consent(years):
    """A grant dated decades after it arrived counts neither now nor then, and lifts nothing."""
    made = NOW + years * 365 * DAY
    grant = event(EventKind.GRANT, made, received_at=NOW - 5)
    for at in (NOW, made - 1, made, made + DAY):
        assert resolve([grant], SCOPE, at).reasons == (UnknownBecause.INVALID, Invalidity.FUTURE_TIME)
        assert state(event(EventKind.OBJECT, NOW - 9), grant, at=at) is ConsentState.OBJECTED


@given(
    st.integers(0, 1 << 48),
    st.integers(1, NOW),
    st.integers(1, 1 << 40),
    st.booleans(),
    st.integers(0, 1 << 47),
)
def test_no_grant_lifts_an_objection_made_after_it_arrived(claimed, arrived, after, dated, asked):
    """Whatever date a grant claims, an objection recorded after it arrived stands for ever, dated or not."""
    grant = event(EventKind.GRANT, claimed, received_at=arrived)
    recorded = arrived + after
    objection = event(EventKind.OBJECT, recorded if dated else 0, received_at=recorded)
    assert state(grant, objection, at=recorded + asked) is ConsentState.OBJECTED


def test_objection_from_a_clock_that_runs_ahead_counts_at_once():
    """An objection counts from when it was received, whatever its clock says."""
    assert (
        state(event(EventKind.GRANT), event(EventKind.OBJECT, NOW + DAY, received_at=NOW - 5)) is ConsentState.OBJECTED
    )


def test_source_sequence_orders_events_of_one_millisecond():
    """Within one source the sequence decides; without it, or between sources, the opt-out stands."""
    objection = event(EventKind.OBJECT, source="app", own={"source_seq": 7})
    later = event(EventKind.GRANT, source="app", own={"source_seq": 8})
    earlier = event(EventKind.GRANT, source="app", own={"source_seq": 6})
    elsewhere = event(EventKind.GRANT, source="web", own={"source_seq": 8})
    unnumbered = event(EventKind.GRANT, source="app")
    assert state(objection, later) is ConsentState.CONSENT
    assert {state(objection, other) for other in (earlier, elsewhere, unnumbered)} == {ConsentState.OBJECTED}


@pytest.mark.parametrize(
    ("terms", "max_age"),
    [
        ({"told_duration": 30 * DAY}, 0),
        ({"own": {"expires_at": NOW - 1}}, 0),
        ({}, 30 * DAY),
        ({"told_duration": 900 * DAY}, 30 * DAY),
    ],
)
def test_consent_runs_out(terms, max_age):
    """By what the person was told, by its own end, or by the operator's limit, whichever comes first."""
    answer = resolve([event(EventKind.GRANT, NOW - 30 * DAY, **terms)], SCOPE, NOW, max_age=max_age)
    assert (answer.state, answer.reasons) == (ConsentState.UNKNOWN, (UnknownBecause.EXPIRED,))
    assert state(event(EventKind.GRANT, NOW - 29 * DAY), max_age=30 * DAY) is ConsentState.CONSENT


def test_unknown_has_reasons():
    """No record, a record elsewhere, an unconfirmed and an invalid one are told apart."""
    assert resolve([], SCOPE, NOW).reasons == (UnknownBecause.NO_RECORD,)
    assert resolve([event(EventKind.GRANT)], SCOPE._replace(topic="x"), NOW).reasons == (UnknownBecause.NO_RECORD,)
    assert resolve([event(EventKind.GRANT, pending=True)], SCOPE, NOW).reasons == (UnknownBecause.PENDING,)
    invalid = resolve([event(EventKind.GRANT, source="", bundled_with=("age",))], SCOPE, NOW).reasons
    assert invalid == (UnknownBecause.INVALID, Invalidity.NO_SOURCE, Invalidity.BUNDLED)


def test_strongest_basis_is_named():
    """With several valid bases: consent, corporate, soft opt-in, solicited; the others are accounted for."""
    order = [EventKind.GRANT, EventKind.CORPORATE, EventKind.SOFT_OPT_IN, EventKind.SOLICITED]
    while order:
        answer = resolve([event(kind) for kind in order], SCOPE, NOW)
        assert answer.relied_on.kind is order[0]
        assert [item.outcome for item in answer.considered].count(Outcome.VALID) == len(order) - 1
        order.pop(0)


def test_block_stands_beside_the_state():
    """A bounce blocks the address without touching consent; an individual lift ends it, an imported one does not."""
    bounce = event(EventKind.BLOCK, NOW - 9, scope=Scope("email", "", "", ""), reason="bounce")
    lift = event(EventKind.LIFT, NOW - 5, scope=Scope("", "", "", ""))
    answer = resolve([event(EventKind.GRANT), bounce], SCOPE, NOW)
    assert (answer.state, answer.block, answer.blocked) == (ConsentState.CONSENT, bounce, True)
    assert not resolve([bounce, lift], SCOPE, NOW).blocked
    assert resolve([bounce, event(EventKind.LIFT, NOW - 5, batch="b1")], SCOPE, NOW).blocked
    assert resolve([lift, event(EventKind.BLOCK, NOW - 5)], SCOPE, NOW).blocked


def test_lift_does_not_end_an_objection():
    """A lift ends technical blocks only."""
    assert state(event(EventKind.OBJECT, NOW - 9), event(EventKind.LIFT, NOW - 5)) is ConsentState.OBJECTED


moments = st.integers(NOW - 5, NOW + 2)
scopes = st.sampled_from([SCOPE, SCOPE._replace(topic="loans"), Scope("", "bank", "", ""), Scope("", "", "", "")])


@st.composite
def events(draw):
    """Events of every kind that fall close together, many of them in conflict."""
    kind = draw(st.sampled_from(list(EventKind)))
    return event(
        kind,
        draw(moments | st.just(0)),
        scope=draw(scopes) if kind not in BASES else draw(st.sampled_from([SCOPE, SCOPE._replace(topic="loans")])),
        received_at=draw(moments | st.just(0)),
        ident=draw(st.sampled_from(["", "a", "b"])),
        source=draw(st.sampled_from(["app", "web"])),
        batch=draw(st.sampled_from(["", "", "b1"])),
        bulk=draw(st.booleans()),
        own={"source_seq": draw(st.integers(-1, 2))},
    )


@given(st.lists(events(), max_size=4), st.data())
def test_order_and_repetition_change_nothing(listed, data):
    """Any order, with any repetition, of the same events gives the same answer in every detail."""
    expected = resolve(listed, SCOPE, NOW)
    repeated = listed + data.draw(st.lists(st.sampled_from(listed), max_size=3)) if listed else listed
    for shuffled in permutations(listed):
        assert resolve(shuffled, SCOPE, NOW) == expected
    assert resolve(data.draw(st.permutations(repeated)), SCOPE, NOW) == expected


@given(
    st.lists(events(), max_size=5),
    st.lists(events(), max_size=5),
    st.sampled_from([{"batch": "b9"}, {"bulk": True, "batch": "b9"}]),
)
def test_no_import_ever_lifts_an_opt_out(recorded, imported, origin):
    """Whatever a batch brings, somebody who had opted out stays opted out, and a blocked address blocked."""
    fields = {"bulk": False, **origin}
    batch = [one._replace(capture=_with(one.capture, **fields)) for one in imported]
    before, after = resolve(recorded, SCOPE, NOW), resolve(recorded + batch, SCOPE, NOW)
    if before.state is ConsentState.OBJECTED:
        assert after.state is ConsentState.OBJECTED
    if before.blocked:
        assert after.blocked


@given(moments | st.just(0), moments | st.just(0), st.integers(0, 9), st.sampled_from(["", "a"]), st.just(0) | moments)
def test_far_end_is_no_end(made, received, max_age, ident, expires_at):
    """Being told "for ten thousand years" and being told nothing give the same state, whatever the times."""
    told, untold = (
        ConsentEvent(event(EventKind.GRANT, told_duration=length).capture, ident, made, received, expires_at=expires_at)
        for length in (3_650_000 * DAY, 0)
    )
    assert state(told, max_age=max_age) is state(untold, max_age=max_age)


@given(st.lists(events(), max_size=5), events())
def test_further_opt_outs_only_restrict(listed, further):
    """Adding an opt-out never turns an objection into anything else, nor any state but its own into permission."""
    if further.kind not in OPT_OUTS:
        return
    before, after = state(*listed), state(*listed, further)
    assert after in (before, ConsentState.OBJECTED)


def _with(capture, **changes):
    kept = {
        name: getattr(capture, name)
        for name in ("kind", "scope", *GOOD[EventKind.GRANT], "collector", "refusal_offered", "charity")
    }
    return Capture(**{**kept, **changes})

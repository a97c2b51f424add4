"""What is looked at again before a held copy goes, and what wins."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.release import CLASSIFIER, NEW_RULES, NOON, ReleaseWorld, blocked

from filter.campaigns import CampaignDecision, Decided
from filter.consent import ConsentAnswer, ConsentState
from filter.decision_evidence import evidence_of
from filter.envelope import RcptTo
from filter.facts import NO_FACTS, Facts
from filter.labels import Label
from filter.policy import DEFAULT_TABLE, Disposition, Policy, Reason, Trouble
from filter.ports import HeldCopy
from filter.recheck import OBJECTED_MEANWHILE, recheck
from filter.stream import Stream

POLICY = Policy()
YES, NO, NONE = ConsentState.CONSENT, ConsentState.OBJECTED, ConsentState.UNKNOWN
RELAY_ALL = Policy({label: dict.fromkeys(ConsentState, Disposition.RELAY) for label in Label})


def copy(state: ConsentState = NONE) -> HeldCopy:
    """A copy whose recipient's consent was in that state."""
    return HeldCopy(RcptTo(b"a@x.example"), "00", Disposition.HOLD, "no_consent", (), state, ())


def answer(state: ConsentState) -> ConsentAnswer:
    """The recipient's consent now."""
    return ConsentAnswer(state, None, (), None, ())


def facts(label: Label = Label.MARKETING, **changed: object) -> Facts:
    """What a message is."""
    return Facts(label, 0.9, False, (), False, 0.0, 1.0, ())._replace(**changed)


def decided(decided: Decided) -> CampaignDecision:
    """A reviewer's word."""
    return CampaignDecision("c1", decided, "why", "ann", NOON)


SERVICE, MARKETING = decided(Decided.IS_SERVICE), decided(Decided.IS_MARKETING)


@pytest.mark.parametrize(
    ("was", "now", "decision", "despite", "goes", "reason"),
    [
        (NONE, YES, None, False, True, "consent"),
        (NONE, NONE, None, False, False, "no_consent"),
        (NONE, NONE, None, True, True, "no_consent"),
        (NONE, NO, None, True, False, OBJECTED_MEANWHILE),
        (NONE, NO, SERVICE, True, False, OBJECTED_MEANWHILE),
        (YES, NO, SERVICE, False, False, OBJECTED_MEANWHILE),
        (NO, NO, None, True, False, "objected"),
        (NO, NO, SERVICE, False, True, "decided_service"),
        (NO, NO, MARKETING, True, False, "objected"),
        (NO, YES, None, False, True, "consent"),
        (NO, NONE, None, True, False, "objected"),
        (NONE, NONE, SERVICE, False, True, "decided_service"),
        (NONE, NONE, MARKETING, False, False, "no_consent"),
    ],
)
def test_what_becomes_of_marketing(
    was: ConsentState,
    now: ConsentState,
    decision: CampaignDecision | None,
    *,
    despite: bool,
    goes: bool,
    reason: str,
) -> None:
    """Consent releases; an objection stops, a later one whatever anybody says; not knowing is for a reviewer."""
    found = recheck(copy(was), facts(), answer(now), POLICY, decision=decision, despite=despite)
    assert (found.goes, found.reason, found.state) == (goes, reason, now)
    assert found.despite is (goes and despite and decision is None and now is NONE)


@pytest.mark.parametrize("trouble", Trouble)
def test_without_an_answer_only_a_reviewer_releases(trouble: Trouble) -> None:
    """Consent that cannot be looked up keeps a copy held, under the new reason, unless the order says despite."""
    assert not recheck(copy(), facts(), trouble, POLICY).goes
    found = recheck(copy(), facts(), trouble, POLICY, despite=True)
    # While nothing can be looked up, nobody knows who objected meanwhile.
    goes = trouble is not Trouble.UNAVAILABLE
    assert (found.goes, found.despite, found.state) == (goes, goes, None)
    assert recheck(copy(NO), facts(), trouble, POLICY, despite=True) == (False, "objected", False, None)


def test_doubt_is_for_a_reviewer_too() -> None:
    """Service mail that is held because of doubt goes by the order's word, or by the reviewer's on the campaign."""
    unsure = facts(Label.SERVICE, score=0.5)
    assert recheck(copy(), unsure, answer(NONE), POLICY)[:2] == (False, Reason.UNSURE)
    assert recheck(copy(), unsure, answer(NONE), POLICY, despite=True) == (True, Reason.UNSURE, True, NONE)
    assert recheck(copy(), unsure, answer(NONE), POLICY, decision=SERVICE).goes


def test_doubt_is_that_of_the_stream() -> None:
    """A copy that its stream's own band held stays held by it, also when the stream can be told no more; and what a
    reviewer has seen of its campaign is that doubt.
    """
    world = ReleaseWorld()
    world.hold("ann")
    doubtful = {"facts": facts(Label.SERVICE, score=0.2).to_json()}
    assert check(world, **doubtful) == (True, Reason.SERVICE)
    (shop,) = world.streams
    world.streams = (Stream("a", "a", "a"), dataclasses.replace(shop, unsure_from=0.1))
    assert check(world, **doubtful) == (False, Reason.UNSURE)
    assert check(world, **doubtful, topic="gone") == (False, Reason.UNSURE)
    assert check(world, **doubtful, controller="a", brand="a", topic="a") == (True, Reason.SERVICE)
    world.mail.messages[1] = dataclasses.replace(world.mail.messages[1], **doubtful)
    assert "unsure" in evidence_of(world.mail, "c1", POLICY, world.streams).split()
    assert "unsure" not in evidence_of(world.mail, "c1", POLICY, world.streams[:1]).split()


def test_what_was_not_judged_is_for_a_reviewer() -> None:
    """Nobody knows what it is: it goes by the order's word, or as what a reviewer says that it is."""
    assert recheck(copy(), None, answer(YES), POLICY)[:2] == (False, Reason.UNSCANNED)
    assert recheck(copy(), None, answer(NONE), POLICY, despite=True).goes
    assert recheck(copy(), None, answer(NONE), POLICY, decision=SERVICE).goes
    assert not recheck(copy(), None, answer(NONE), POLICY, decision=MARKETING).goes
    assert recheck(copy(), None, answer(YES), POLICY, decision=MARKETING).goes


def test_despite_overrides_no_rejection() -> None:
    """What the operator wants rejected is no lack of knowledge."""
    row = {**DEFAULT_TABLE[Label.MARKETING], NONE: Disposition.REJECT}
    policy = dataclasses.replace(POLICY, table={**DEFAULT_TABLE, Label.MARKETING: row})
    assert not recheck(copy(), facts(), answer(NONE), policy, despite=True).goes


def test_despite_overrides_no_objection() -> None:
    """Where the operator holds even service mail from objectors, neither a decision nor an order makes it go."""
    row = {**DEFAULT_TABLE[Label.SERVICE], NO: Disposition.HOLD}
    policy = dataclasses.replace(POLICY, table={**DEFAULT_TABLE, Label.SERVICE: row})
    assert not recheck(copy(NO), facts(), answer(NO), policy, decision=SERVICE, despite=True).goes


@given(
    st.sampled_from(Label),
    st.sampled_from(ConsentState),
    st.sampled_from([POLICY, RELAY_ALL]),
    st.sampled_from([None, SERVICE, MARKETING]),
    st.booleans(),
)
def test_nobody_overrules_a_block_or_a_new_objection(
    label: Label, was: ConsentState, policy: Policy, decision: CampaignDecision | None, despite: bool
) -> None:
    """Whatever message, policy, decision and order are: neither the blocked nor the new objector gets it."""
    given = {"decision": decision, "despite": despite}
    assert not recheck(copy(was), facts(label), blocked(), policy, **given).goes
    if was is not NO or decision is not SERVICE:
        assert not recheck(copy(was), facts(label), answer(NO), policy, **given).goes


@given(st.sampled_from(Label), st.sampled_from(ConsentState))
def test_reports_always_go(label: Label, state: ConsentState) -> None:
    """A null sender is never held (RFC 5321 section 4.5.5)."""
    assert recheck(copy(), facts(label), answer(state), POLICY, null_sender=True) == (True, "null_sender", False, None)


def check(world: ReleaseWorld, **message: object) -> tuple[bool, str]:
    """The answer for the first copy of the first message, with these changes to it."""
    held = dataclasses.replace(world.mail.messages[1], **message)
    return world.rechecker.check(held, [0], NOON)[0][:2]


def test_other_rules_judge_again() -> None:
    """A message that another rule set judged is judged anew, otherwise what was found then is used."""
    world = ReleaseWorld()
    world.hold("ann")
    assert check(world) == (False, "no_consent")
    assert check(world, content=b"") == (False, "no_consent")
    world.classifier = NEW_RULES
    assert check(world) == (True, "service")
    world.classifier = CLASSIFIER
    assert check(world, content=b"Subject: x\r\n\r\nYour statement.\r\n") == (False, "no_consent")
    assert check(world, content=b"Subject: x\r\n\r\nYour statement.\r\n", facts=NO_FACTS) == (True, "service")


def test_what_ended_a_worker_is_not_judged_again() -> None:
    """A message without label was not judged; a release does not try."""
    world = ReleaseWorld()
    world.hold("ann", content=b"Subject: x\r\n\r\nYour statement.\r\n")
    assert check(world, label="", ruleset="", facts=NO_FACTS) == (False, "unscanned")


def test_a_decision_counts_while_it_is_in_force() -> None:
    """One that has expired, or waits for a second person, is none."""
    world = ReleaseWorld()
    world.hold("ann")
    world.decide(Decided.IS_SERVICE)
    assert check(world) == (True, "decided_service")
    world.decisions["c1"] = world.decisions["c1"]._replace(expires_at=NOON)
    assert check(world) == (False, "no_consent")
    world.decisions["c1"] = SERVICE._replace(needs_second=True)
    assert check(world) == (False, "no_consent")


def test_consent_is_looked_up_for_the_stream_it_was_held_in() -> None:
    """Whatever the streams are today; where the message's own is not known, a no in any of them counts."""
    world = ReleaseWorld()
    world.hold("ann")
    check(world)
    assert world.consents.scopes[-1][1:] == ("shop", "shop", "offers")
    world.consents.states["ann@x.example"] = NO
    unknown = {"label": "", "controller": "", "brand": "", "topic": ""}
    assert check(world, **unknown) == (False, OBJECTED_MEANWHILE)


def test_old_data_permits_nothing_and_still_forbids() -> None:
    """Age makes a yes doubtful, and not a no."""
    world = ReleaseWorld()
    world.hold("ann")
    world.consents.old = True
    world.consents.states["ann@x.example"] = YES
    assert check(world) == (False, "consent_stale")
    world.consents.states["ann@x.example"] = NO
    assert check(world) == (False, OBJECTED_MEANWHILE)


def test_what_cannot_be_looked_up_is_said() -> None:
    """An index that is down, and an address that is none, have their own reasons."""
    world = ReleaseWorld()
    world.hold("ann")
    world.consents.down = True
    assert check(world) == (False, "consent_unavailable")
    world.consents.down = False
    bad = dataclasses.replace(world.mail.messages[1].copies[0], recipient=RcptTo(b"nobody"))
    assert check(world, copies=(bad,)) == (False, "bad_address")

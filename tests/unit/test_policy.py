"""The policy table and everything around it: blocks, null sender, what is not known, disguise, monitor mode."""

import dataclasses

import pytest

from filter.campaigns import CampaignDecision, Decided
from filter.classification import Classification
from filter.classify import Classifier
from filter.consent import ANY, Capture, ConsentAnswer, ConsentEvent, ConsentState, EventKind, Scope
from filter.facts import facts_of
from filter.labels import Channel, Label, SegmentKind, SegmentLabel
from filter.message import Defect, DefectCode, Message, Segment
from filter.policy import DEFAULT_TABLE, Disposition, Policy, Reason, Trouble, acting_label, decide, doubts, unscanned
from filter.rules import Rule, compile_rules
from filter.stream import Mode, Stream
from filter.weights import Weights

RULES = tuple(
    Rule(f"test.{word}", SegmentLabel(label), weight, (word,), ("R1",))
    for label, word, weight in (
        ("marketing", "promotion", 3.0),
        ("marketing", "whiff", 1.8),
        ("re_permission", "permission", 3.0),
        ("survey", "survey", 3.0),
        ("service", "service", 3.0),
        ("service", "help", 3.0),
    )
)
CLASSIFIER = Classifier(compile_rules(RULES, Weights()))
TEXT = {
    Label.SERVICE: "service",
    Label.SURVEY: "survey",
    Label.MARKETING: "promotion",
    Label.MIXED: "service and promotion",
    Label.RE_PERMISSION: "permission",
}
RELAY, HOLD = Disposition.RELAY, Disposition.HOLD
POLICY = Policy()


def judged(text: str, *defects: DefectCode, declared: str = "") -> Classification:
    """The classification of one paragraph."""
    segments = (Segment(SegmentKind.PARAGRAPH, text),)
    listed = tuple(Defect(code) for code in defects)
    return CLASSIFIER.classify(Message(Channel.EMAIL, segments=segments, defects=listed, declared=declared))


def answer(state: ConsentState, *, blocked: bool = False) -> ConsentAnswer:
    """A consent answer in a given state."""
    capture = Capture(kind=EventKind.BLOCK, scope=Scope(ANY, ANY, ANY, ANY))
    return ConsentAnswer(state, None, (), ConsentEvent(capture, "b", 1, 1) if blocked else None, ())


@pytest.mark.parametrize("state", ConsentState)
@pytest.mark.parametrize("label", Label)
def test_the_table_decides(label: Label, state: ConsentState) -> None:
    """Every label and state gets the disposition of its cell, and a reason that fits the state or the label."""
    verdict = decide(judged(TEXT[label]), answer(state), POLICY)
    assert verdict.disposition is DEFAULT_TABLE[label][state]
    assert verdict.would is verdict.disposition
    expected = {"unknown": "no_consent"}.get(state, str(state)) if label.promotional else str(label)
    assert verdict.reason == expected


def test_the_default_table_is_the_designs() -> None:
    """Promotion is held for those who said no or nothing; mixed also for who asked; the rest flows."""
    held = {(label, state) for label, row in DEFAULT_TABLE.items() for state, done in row.items() if done is not RELAY}
    no_basis = (ConsentState.OBJECTED, ConsentState.UNKNOWN)
    promotional = (Label.MARKETING, Label.MIXED, Label.RE_PERMISSION)
    assert held == {(label, state) for label in promotional for state in no_basis} | {
        (Label.MIXED, ConsentState.SOLICITED)
    }


def test_a_changed_cell_is_obeyed() -> None:
    """Configuration may divert where the default holds."""
    row = {**DEFAULT_TABLE[Label.MIXED], ConsentState.OBJECTED: Disposition.DIVERT}
    policy = dataclasses.replace(POLICY, table={**DEFAULT_TABLE, Label.MIXED: row})
    assert decide(judged(TEXT[Label.MIXED]), answer(ConsentState.OBJECTED), policy).disposition is Disposition.DIVERT


@pytest.mark.parametrize("label", Label)
def test_a_null_sender_is_never_held(label: Label) -> None:
    """Reports and bounces pass in every state, whatever they quote, blocked or not."""
    for state in ConsentState:
        verdict = decide(judged(TEXT[label]), answer(state, blocked=True), POLICY, null_sender=True)
        assert (verdict.disposition, verdict.reason) == (RELAY, Reason.NULL_SENDER)


def test_a_block_goes_before_everything() -> None:
    """A block on all mail holds even service, with its own reason (law A10, step 1)."""
    verdict = decide(judged("service"), answer(ConsentState.CONSENT, blocked=True), POLICY)
    assert (verdict.disposition, verdict.reason) == (HOLD, Reason.BLOCKED)


@pytest.mark.parametrize(
    ("trouble", "reason", "setting"),
    [
        (Trouble.UNAVAILABLE, Reason.CONSENT_UNAVAILABLE, "on_consent_unavailable"),
        (Trouble.STALE, Reason.CONSENT_STALE, "on_consent_stale"),
        (Trouble.BAD_ADDRESS, Reason.BAD_ADDRESS, "on_bad_address"),
    ],
)
def test_without_a_consent_answer(trouble: Trouble, reason: Reason, setting: str) -> None:
    """Service flows, promotion is held or does what its setting says, and the reason names the trouble."""
    assert decide(judged("service"), trouble, POLICY).disposition is RELAY
    verdict = decide(judged("promotion"), trouble, POLICY)
    assert (verdict.disposition, verdict.reason, verdict.state) == (HOLD, reason, ConsentState.UNKNOWN)
    other = dataclasses.replace(POLICY, **{setting: Disposition.TEMPFAIL})
    assert decide(judged("promotion"), trouble, other).disposition is Disposition.TEMPFAIL


@pytest.mark.parametrize(
    ("text", "defect", "state", "reason"),
    [
        ("hello", DefectCode.ENCRYPTED, ConsentState.UNKNOWN, Reason.UNREAD_CONTENT),
        ("hello", DefectCode.IMAGE_ONLY, ConsentState.OBJECTED, Reason.UNREAD_CONTENT),
        ("hello", DefectCode.ENCRYPTED, ConsentState.CONSENT, Reason.SERVICE),
        ("hello", DefectCode.ATTACHMENT, ConsentState.UNKNOWN, Reason.SERVICE),
        ("service", DefectCode.ENCRYPTED, ConsentState.UNKNOWN, Reason.SERVICE),
        ("service", DefectCode.TEXT_TOO_LARGE, ConsentState.UNKNOWN, Reason.UNREAD_CONTENT),
        ("service", DefectCode.TEXT_TOO_LARGE, ConsentState.CONSENT, Reason.SERVICE),
        ("service", DefectCode.IMAGE_ONLY, ConsentState.UNKNOWN, Reason.UNREAD_CONTENT),
        ("service, survey", DefectCode.IMAGE_ONLY, ConsentState.UNKNOWN, Reason.UNREAD_CONTENT),
        ("service and help", DefectCode.IMAGE_ONLY, ConsentState.UNKNOWN, Reason.SERVICE),
        ("service", DefectCode.OBFUSCATED, ConsentState.UNKNOWN, Reason.UNSURE),
        ("service", DefectCode.OBFUSCATED, ConsentState.CONSENT, Reason.SERVICE),
        ("hello", DefectCode.HEADER_MALFORMED, ConsentState.UNKNOWN, Reason.SERVICE),
        ("whiff", DefectCode.HEADER_MALFORMED, ConsentState.UNKNOWN, Reason.UNSURE),
        ("whiff", DefectCode.HEADER_MALFORMED, ConsentState.SOFT_OPT_IN, Reason.SERVICE),
        ("whiff of service", DefectCode.HEADER_MALFORMED, ConsentState.UNKNOWN, Reason.SERVICE),
    ],
)
def test_what_we_do_not_know(text: str, defect: DefectCode, state: ConsentState, reason: Reason) -> None:
    """Unread or doubtful content is held from those without a basis, unless what was read shows a service purpose."""
    verdict = decide(judged(text, defect), answer(state), POLICY)
    assert verdict.reason is reason
    assert verdict.disposition is (RELAY if reason is Reason.SERVICE else HOLD)


def test_hidden_words_show_no_service_purpose() -> None:
    """Service words that no recipient sees do not vouch for content that nobody read."""
    segments = (Segment(SegmentKind.PARAGRAPH, "service", hidden=True),)
    hidden = CLASSIFIER.classify(Message(Channel.EMAIL, segments=segments, defects=(Defect(DefectCode.ENCRYPTED),)))
    assert decide(hidden, answer(ConsentState.UNKNOWN), POLICY).reason is Reason.UNREAD_CONTENT


def test_disguised_marketing_is_its_own_reason() -> None:
    """Declared service, promotional in content: the mismatch leads where the copy stops, and is noted elsewhere."""
    judgement = judged("promotion", declared="transactional")
    held = decide(judgement, answer(ConsentState.OBJECTED), POLICY)
    assert (held.reason, held.notes) == (Reason.DISGUISED_MARKETING, (Reason.OBJECTED,))
    relayed = decide(judgement, answer(ConsentState.CONSENT), POLICY)
    assert (relayed.reason, relayed.notes) == (Reason.CONSENT, (Reason.DISGUISED_MARKETING,))


def test_monitor_mode_relays_and_records() -> None:
    """In monitor mode everything is relayed, and `would` says what enforcement would have done."""
    verdict = decide(judged("promotion"), answer(ConsentState.OBJECTED), POLICY, mode=Mode.MONITOR)
    assert (verdict.disposition, verdict.would, verdict.reason) == (RELAY, HOLD, Reason.OBJECTED)


def test_a_verdict_names_the_rules() -> None:
    """The ids of the deciding rules travel with the verdict."""
    assert decide(judged("service and promotion"), answer(ConsentState.OBJECTED), POLICY).evidence == (
        "test.promotion",
    )


@pytest.mark.parametrize("setting", [Disposition.HOLD, Disposition.RELAY, Disposition.TEMPFAIL])
def test_what_could_not_be_judged_follows_its_setting(setting: Disposition) -> None:
    """A message that was not judged has its own setting and reason; reports and monitored streams are relayed."""
    policy = dataclasses.replace(POLICY, on_scan_error=setting)
    verdict = unscanned(policy)
    assert (verdict.disposition, verdict.would, verdict.reason) == (setting, setting, Reason.UNSCANNED)
    assert unscanned(policy, null_sender=True).disposition is RELAY
    monitored = unscanned(policy, mode=Mode.MONITOR)
    assert (monitored.disposition, monitored.would) == (RELAY, setting)


def test_of_several_bands_the_strictest_counts() -> None:
    """Where nobody knows any more which stream it was, doubt begins at the lowest score and holds what any holds."""
    bare = Stream("c", "b", "t")
    low = dataclasses.replace(bare, unsure_from=0.1, on_unsure=RELAY)
    high = dataclasses.replace(bare, unsure_from=0.8)
    assert POLICY.within(()) is POLICY.within((bare,)) is POLICY
    assert POLICY.within((low,)) == dataclasses.replace(POLICY, unsure_from=0.1, on_unsure=RELAY)
    assert POLICY.within((low, high)) == dataclasses.replace(POLICY, unsure_from=0.1)
    assert POLICY.within((high, bare)) == POLICY
    rejecting = dataclasses.replace(high, on_unsure=Disposition.REJECT)
    assert POLICY.within((low, rejecting, bare)).on_unsure is Disposition.REJECT


URGENT = facts_of(judged("service and promotion"))._replace(time_critical=True)


@pytest.mark.parametrize("setting", [RELAY, Disposition.DIVERT, Disposition.REJECT])
@pytest.mark.parametrize("consent", [answer(ConsentState.OBJECTED), answer(ConsentState.UNKNOWN), *Trouble])
def test_time_critical_mail_has_its_setting(consent: ConsentAnswer | Trouble, setting: Disposition) -> None:
    """Where the copy would be held for its promotion the setting decides, and what would hold it is noted."""
    held = decide(URGENT, consent, POLICY)
    assert (held.disposition, held.notes) == (HOLD, (Reason.TIME_CRITICAL,))
    policy = dataclasses.replace(POLICY, on_time_critical=setting)
    verdict = decide(URGENT, consent, policy)
    assert (verdict.disposition, verdict.reason, verdict.notes) == (setting, Reason.TIME_CRITICAL, (held.reason,))
    usual = decide(URGENT._replace(time_critical=False), consent, policy)
    assert (usual.disposition, usual.reason, usual.notes) == (HOLD, held.reason, ())


LET_GO = dataclasses.replace(POLICY, on_time_critical=RELAY)


def test_time_critical_is_a_note_where_nothing_changes() -> None:
    """With consent it flows as ever; what the table diverts or rejects is not held, and stays so."""
    agreed = decide(URGENT, answer(ConsentState.CONSENT), LET_GO)
    assert (agreed.disposition, agreed.reason, agreed.notes) == (RELAY, Reason.CONSENT, (Reason.TIME_CRITICAL,))
    row = {**DEFAULT_TABLE[Label.MIXED], ConsentState.OBJECTED: Disposition.REJECT}
    policy = dataclasses.replace(LET_GO, table={**DEFAULT_TABLE, Label.MIXED: row})
    rejected = decide(URGENT, answer(ConsentState.OBJECTED), policy)
    assert (rejected.disposition, rejected.notes) == (Disposition.REJECT, (Reason.TIME_CRITICAL,))


def test_time_critical_overrules_neither_blocks_nor_reviewers() -> None:
    """A block holds it, a report passes as a report, and a reviewer's word on the campaign is the last."""
    refused = answer(ConsentState.OBJECTED)
    assert decide(URGENT, answer(ConsentState.CONSENT, blocked=True), LET_GO).reason is Reason.BLOCKED
    assert decide(URGENT, refused, LET_GO, null_sender=True).reason is Reason.NULL_SENDER
    stopped = decide(URGENT, refused, LET_GO, decision=IS_MARKETING)
    assert (stopped.disposition, stopped.reason) == (HOLD, Reason.DECIDED_MARKETING)
    outgrown = decide(URGENT, refused, LET_GO, decision=IS_SERVICE._replace(evidence="another"))
    assert (outgrown.disposition, outgrown.notes) == (RELAY, (Reason.OBJECTED, Reason.DECISION_OUTGROWN))


def test_time_critical_mail_that_claims_to_be_service_is_still_disguised() -> None:
    """The setting decides, and the mismatch is noted; where it is held the mismatch leads."""
    disguised = URGENT._replace(disguised=True)
    relayed = decide(disguised, answer(ConsentState.OBJECTED), LET_GO)
    assert (relayed.reason, set(relayed.notes)) == (
        *(Reason.TIME_CRITICAL,),
        {Reason.OBJECTED, Reason.DISGUISED_MARKETING},
    )
    held = decide(disguised, answer(ConsentState.OBJECTED), POLICY)
    assert (held.reason, set(held.notes)) == (
        *(Reason.DISGUISED_MARKETING,),
        {Reason.OBJECTED, Reason.TIME_CRITICAL},
    )


def decided(word: Decided) -> CampaignDecision:
    """A decision in force."""
    return CampaignDecision("c0ffee", word, "looked at a sample", "ann", 1)


IS_SERVICE, IS_MARKETING = decided(Decided.IS_SERVICE), decided(Decided.IS_MARKETING)


@pytest.mark.parametrize("state", ConsentState)
@pytest.mark.parametrize("label", Label)
def test_decided_service_acts_as_service(label: Label, state: ConsentState) -> None:
    """Every label and state gets the cell of the service row; the decision is in the verdict."""
    row = dict.fromkeys(ConsentState, Disposition.DIVERT)
    policy = dataclasses.replace(POLICY, table={**DEFAULT_TABLE, Label.SERVICE: row})
    verdict = decide(judged(TEXT[label], declared="service"), answer(state), policy, decision=IS_SERVICE)
    assert verdict.disposition is Disposition.DIVERT
    assert Reason.DECIDED_SERVICE in (verdict.reason, *verdict.notes)
    assert Reason.DISGUISED_MARKETING not in (verdict.reason, *verdict.notes)


@pytest.mark.parametrize("state", ConsentState)
@pytest.mark.parametrize("label", Label)
def test_decided_marketing_acts_as_marketing(label: Label, state: ConsentState) -> None:
    """Service and surveys get the cell of the marketing row, promotion of any kind its own; an objection holds."""
    acting = label if label.promotional else Label.MARKETING
    verdict = decide(judged(TEXT[label]), answer(state), POLICY, decision=IS_MARKETING)
    assert verdict.disposition is DEFAULT_TABLE[acting][state]
    assert acting_label(label, IS_MARKETING) is acting
    assert Reason.DECIDED_MARKETING in (verdict.reason, *verdict.notes)


def test_a_decision_is_the_reason_where_it_made_the_difference() -> None:
    """It leads where the copy would have gone elsewhere without it, and is a note where not."""
    refused, agreed = answer(ConsentState.OBJECTED), answer(ConsentState.CONSENT)
    freed = decide(judged("promotion"), refused, POLICY, decision=IS_SERVICE)
    assert (freed.disposition, freed.reason, freed.notes) == (RELAY, Reason.DECIDED_SERVICE, (Reason.SERVICE,))
    stopped = decide(judged("service"), refused, POLICY, decision=IS_MARKETING)
    assert (stopped.disposition, stopped.reason, stopped.notes) == (
        *(HOLD, Reason.DECIDED_MARKETING),
        (Reason.OBJECTED,),
    )
    allowed = decide(judged("service"), agreed, POLICY, decision=IS_MARKETING)
    assert (allowed.reason, allowed.notes) == (Reason.CONSENT, (Reason.DECIDED_MARKETING,))
    confirmed = decide(judged("promotion", declared="service"), refused, POLICY, decision=IS_MARKETING)
    assert (confirmed.reason, confirmed.notes) == (
        Reason.DISGUISED_MARKETING,
        (Reason.OBJECTED, Reason.DECIDED_MARKETING),
    )


@pytest.mark.parametrize("defect", [DefectCode.ENCRYPTED, DefectCode.IMAGE_ONLY, DefectCode.OBFUSCATED])
def test_decided_service_is_in_no_doubt(defect: DefectCode) -> None:
    """What a reviewer saw and called service is not held because we could not read it or were unsure."""
    verdict = decide(judged("whiff", defect), answer(ConsentState.UNKNOWN), POLICY, decision=IS_SERVICE)
    assert (verdict.disposition, verdict.reason) == (RELAY, Reason.DECIDED_SERVICE)


def test_decided_service_covers_what_the_reviewer_saw() -> None:
    """Promotion that other rules find than those it was decided on is held as ever, and the verdict says why."""
    found, refused = judged("promotion"), answer(ConsentState.OBJECTED)
    (rule,) = found.decisive_rules
    seen = decide(found, refused, POLICY, decision=IS_SERVICE._replace(evidence=f"another {rule}"))
    assert (seen.disposition, seen.reason) == (RELAY, Reason.DECIDED_SERVICE)
    unseen = decide(found, refused, POLICY, decision=IS_SERVICE._replace(evidence="another"))
    assert (unseen.disposition, unseen.reason, unseen.notes) == (
        *(HOLD, Reason.OBJECTED),
        (Reason.DECISION_OUTGROWN,),
    )
    harmless = decide(judged("service"), refused, POLICY, decision=IS_SERVICE._replace(evidence=""))
    assert Reason.DECISION_OUTGROWN not in harmless.notes
    marketing = decide(found, refused, POLICY, decision=IS_MARKETING._replace(evidence=""))
    assert Reason.DECISION_OUTGROWN not in marketing.notes


@pytest.mark.parametrize(
    ("text", "defects", "doubted"),
    [
        ("hello", (DefectCode.ENCRYPTED,), {"unread:encrypted"}),
        ("service", (DefectCode.IMAGE_ONLY,), {"unread:image_only"}),
        ("service", (DefectCode.OBFUSCATED,), {"obfuscated"}),
        ("whiff", (), {"unsure"}),
        ("whiff", (DefectCode.ENCRYPTED, DefectCode.OBFUSCATED), {"unread:encrypted", "obfuscated", "unsure"}),
        ("promotion", (DefectCode.IMAGE_ONLY,), {"unread:image_only"}),
        ("promotion", (DefectCode.OBFUSCATED,), {"obfuscated"}),
    ],
)
def test_decided_service_covers_no_doubt_that_its_reviewer_had_not(
    text: str, defects: tuple[DefectCode, ...], doubted: set[str]
) -> None:
    """Pictures, text that cannot be read and disguised words are no part of what a campaign is known by: a copy with
    such, where those decided on had none, is held as if nobody had decided.
    """
    found, unknown = judged(text, *defects), answer(ConsentState.UNKNOWN)
    assert set(doubts(found, POLICY)) == doubted
    rules = " ".join(found.decisive_rules)
    blind = decide(found, unknown, POLICY, decision=IS_SERVICE._replace(evidence=rules))
    assert (blind.disposition, blind.notes) == (HOLD, (Reason.DECISION_OUTGROWN,))
    aware = decide(found, unknown, POLICY, decision=IS_SERVICE._replace(evidence=" ".join([rules, *doubted])))
    assert (aware.disposition, aware.reason) == (RELAY, Reason.DECIDED_SERVICE)


@pytest.mark.parametrize(
    ("text", "defect"),
    [("hello", DefectCode.ATTACHMENT), ("service", DefectCode.ENCRYPTED), ("service and help", DefectCode.IMAGE_ONLY)],
)
def test_what_is_in_no_doubt_needs_no_decision(text: str, defect: DefectCode) -> None:
    """Nothing is outgrown by what would not be held anyway."""
    verdict = decide(judged(text, defect), answer(ConsentState.UNKNOWN), POLICY, decision=IS_SERVICE)
    assert (verdict.disposition, Reason.DECISION_OUTGROWN in verdict.notes) == (RELAY, False)
    assert doubts(judged(text, defect), POLICY) == ()


@pytest.mark.parametrize("decision", [IS_SERVICE, IS_MARKETING])
def test_no_decision_goes_before_blocks_and_reports(decision: CampaignDecision) -> None:
    """A block holds whatever was decided, and a null sender's report passes."""
    blocked = decide(judged("promotion"), answer(ConsentState.CONSENT, blocked=True), POLICY, decision=decision)
    assert (blocked.disposition, blocked.reason) == (HOLD, Reason.BLOCKED)
    report = decide(judged("service"), answer(ConsentState.OBJECTED), POLICY, null_sender=True, decision=decision)
    assert (report.disposition, report.reason) == (RELAY, Reason.NULL_SENDER)


@pytest.mark.parametrize("trouble", Trouble)
def test_decisions_hold_without_a_consent_answer(trouble: Trouble) -> None:
    """Decided service flows; decided marketing does what the setting for the trouble says, which stays noted."""
    assert decide(judged("promotion"), trouble, POLICY, decision=IS_SERVICE).disposition is RELAY
    verdict = decide(judged("service"), trouble, POLICY, decision=IS_MARKETING)
    assert (verdict.disposition, verdict.reason) == (HOLD, Reason.DECIDED_MARKETING)
    assert len(verdict.notes) == 1


def test_a_decision_in_monitor_mode_is_recorded() -> None:
    """Everything is relayed, and the verdict tells what the decision would have done."""
    verdict = decide(judged("service"), answer(ConsentState.OBJECTED), POLICY, mode=Mode.MONITOR, decision=IS_MARKETING)
    assert (verdict.disposition, verdict.would, verdict.reason) == (RELAY, HOLD, Reason.DECIDED_MARKETING)

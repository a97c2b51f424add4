"""One message, many recipients: one classification, one verdict each, and no trouble that passes unseen."""

import dataclasses

from filter.campaigns import CampaignDecision, Decided
from filter.classify import Classifier
from filter.consent import NO_RECORD, ConsentAnswer, ConsentState, Scope
from filter.decision import Decider
from filter.errors import AddressError, ConsentDataError
from filter.labels import Channel, SegmentKind
from filter.message import Message, Segment
from filter.policy import Disposition, Policy, Reason, Trouble
from filter.rules import compile_rules
from filter.stream import Match, Mode, Said, Stream
from filter.weights import Weights

from .test_policy import RULES

STREAMS = (
    Stream("bank", "bank", "offers", match=Match(from_domain=frozenset({"bank.example"}))),
    Stream("other", "other", "other", mode=Mode.MONITOR),
)
PROMOTION = Message(
    Channel.EMAIL, from_address="news@mail.bank.example", segments=(Segment(SegmentKind.PARAGRAPH, "promotion"),)
)


class Consents:
    """A consent view that knows who agreed, and fails where its name says so; it remembers what it was asked."""

    def __init__(self, *, stale: bool = False) -> None:
        self.asked: list[tuple[str, Scope, int]] = []
        self._stale = stale

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """Consent of `yes@`, objection of `never@`, trouble with `bad@` and `broken@`, nothing on everybody else."""
        self.asked.append((address, scope, at))
        if address.startswith("bad"):
            raise AddressError("no")
        if address.startswith("broken"):
            raise ConsentDataError("no")
        states = {"yes": ConsentState.CONSENT, "never": ConsentState.OBJECTED}
        state = states.get(address.partition("@")[0])
        return ConsentAnswer(state, None, (), None, ()) if state else NO_RECORD

    def stale(self, at: int) -> bool:
        """As set."""
        return self._stale


def decider(consents: Consents | None) -> Decider:
    """A decider over the test rules."""
    return Decider(Classifier(compile_rules(RULES, Weights())), consents, STREAMS, Policy())


def test_each_recipient_has_a_verdict() -> None:
    """Recipients are decided one by one, in order, in the scope of the sender's stream, as of the given time."""
    consents = Consents()
    decision = decider(consents).decide(PROMOTION, "b@bank.example", ["yes@x.example", "no@x.example"], 77)
    assert [one.verdict.disposition for one in decision.recipients] == [Disposition.RELAY, Disposition.HOLD]
    scope = Scope("email", "bank", "bank", "offers")
    assert consents.asked == [("yes@x.example", scope, 77), ("no@x.example", scope, 77)]
    assert decision.scope == scope


def test_consent_is_looked_up_where_the_message_was_said_to_speak_for() -> None:
    """What a door was told takes the place of the stream's controller, brand and topic, and stands in the decision."""
    consents = Consents()
    said = Said(brand="shop", topic="letters")
    decision = decider(consents).decide(PROMOTION, "b@bank.example", ["yes@x.example"], 77, said)
    assert consents.asked == [("yes@x.example", Scope("email", "bank", "shop", "letters"), 77)]
    assert (decision.stream.controller, decision.stream.brand, decision.stream.topic) == ("bank", "shop", "letters")


def test_trouble_is_told_apart() -> None:
    """An address that cannot be normalised and an index that cannot be read are different troubles, never a yes."""
    decision = decider(Consents()).decide(PROMOTION, "b@bank.example", ["bad@x.example", "broken@x.example"], 1)
    assert [one.consent for one in decision.recipients] == [Trouble.BAD_ADDRESS, Trouble.UNAVAILABLE]
    assert all(one.verdict.disposition is Disposition.HOLD for one in decision.recipients)


def test_stale_and_missing_consent_data() -> None:
    """A yes in stale data is none (but kept as found); without an index every look-up is unavailable."""
    for consents, trouble in ((Consents(stale=True), Trouble.STALE), (None, Trouble.UNAVAILABLE)):
        (one,) = decider(consents).decide(PROMOTION, "b@bank.example", ["yes@x.example"], 1).recipients
        assert one.consent is trouble
        assert (one.found is None) is (consents is None)
        assert one.verdict.disposition is Disposition.HOLD


def test_an_objection_does_not_age() -> None:
    """Stale data still tells who said no, with that as the reason."""
    (one,) = decider(Consents(stale=True)).decide(PROMOTION, "b@bank.example", ["never@x.example"], 1).recipients
    assert one.verdict.reason is Reason.OBJECTED


def test_the_stream_sets_the_mode_and_null_sender_passes() -> None:
    """A stream in monitor mode relays; an empty envelope sender is a report and passes everywhere."""
    message = Message(Channel.EMAIL, from_address="a@else.example", segments=PROMOTION.segments)
    (one,) = decider(Consents()).decide(message, "a@else.example", ["no@x.example"], 1).recipients
    assert (one.verdict.disposition, one.verdict.would) == (Disposition.RELAY, Disposition.HOLD)
    (one,) = decider(Consents()).decide(PROMOTION, "", ["no@x.example"], 1).recipients
    assert one.verdict.reason is Reason.NULL_SENDER


WHIFF = dataclasses.replace(PROMOTION, segments=(Segment(SegmentKind.PARAGRAPH, "whiff"),))  # scores 0.41


def test_a_stream_has_its_uncertain_band() -> None:
    """What a stream says of doubt goes before the policy's word, each setting by itself; other streams are as ever."""
    bank, rest = STREAMS
    plain = dataclasses.replace(rest, mode=Mode.ENFORCE)

    def verdict(policy: Policy, stream: Stream, sender: str = "a@bank.example") -> tuple[Disposition, Reason]:
        message = dataclasses.replace(WHIFF, from_address=sender)
        deciding = dataclasses.replace(decider(Consents()), policy=policy, streams=(stream, plain))
        (one,) = deciding.decide(message, sender, ["no@x.example"], 1).recipients
        return one.verdict.disposition, one.verdict.reason

    usual, relaxed = Policy(), Policy(unsure_from=0.9)
    own = dataclasses.replace(bank, unsure_from=0.1)
    assert verdict(usual, bank) == verdict(usual, own) == (Disposition.HOLD, Reason.UNSURE)
    assert verdict(relaxed, bank) == (Disposition.RELAY, Reason.SERVICE)
    assert verdict(relaxed, own) == (Disposition.HOLD, Reason.UNSURE)
    assert verdict(relaxed, own, "a@else.example") == (Disposition.RELAY, Reason.SERVICE)
    assert verdict(usual, dataclasses.replace(bank, unsure_from=0.9)) == (Disposition.RELAY, Reason.SERVICE)
    let = dataclasses.replace(bank, on_unsure=Disposition.RELAY)
    assert verdict(usual, let) == (Disposition.RELAY, Reason.UNSURE)
    divert = dataclasses.replace(own, on_unsure=Disposition.DIVERT)
    assert verdict(relaxed, divert) == (Disposition.DIVERT, Reason.UNSURE)


def test_only_mail_has_a_null_sender() -> None:
    """A text message without a sender, and mail whose sender is not known, are no reports and are not excused."""
    text = Message(Channel.SMS, segments=PROMOTION.segments)
    for message, mail_from in ((text, ""), (PROMOTION, None)):
        (one,) = decider(Consents()).decide(message, mail_from, ["never@x.example"], 1).recipients
        assert one.verdict.reason is Reason.OBJECTED


def test_a_decision_on_the_campaign_is_asked_for_and_told() -> None:
    """The message's campaign is looked up once; a decision in force at that time acts on every recipient."""
    decided = CampaignDecision("c0ffee", Decided.IS_SERVICE, "looked at it", "ann", 1, expires_at=50)
    asked: list[str] = []

    def decisions(campaign: str) -> CampaignDecision:
        asked.append(campaign)
        return decided

    deciding = dataclasses.replace(decider(Consents()), fingerprint=lambda _: "c0ffee", decisions=decisions)
    decision = deciding.decide(PROMOTION, "b@bank.example", ["no@x.example", "never@x.example"], 49)
    assert (decision.campaign, decision.decided, asked) == ("c0ffee", decided, ["c0ffee"])
    assert [one.verdict.reason for one in decision.recipients] == [Reason.DECIDED_SERVICE] * 2
    later = deciding.decide(PROMOTION, "b@bank.example", ["no@x.example"], 50)
    assert (later.decided, later.recipients[0].verdict.reason) == (None, Reason.NO_CONSENT)


def test_a_message_without_a_campaign_has_no_decision() -> None:
    """Where there is nothing to go by, nothing is asked: a decision on "" would hold for all such messages."""

    def decisions(_: str) -> CampaignDecision:
        raise AssertionError

    deciding = dataclasses.replace(decider(Consents()), decisions=decisions)
    assert deciding.decide(PROMOTION, "b@bank.example", ["no@x.example"], 1).campaign == ""

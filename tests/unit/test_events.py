"""The journal's events are what deploy/journal.md says, and name the record that a verdict rests on."""

import dataclasses
import re
from pathlib import Path

import pytest

from filter.campaigns import CampaignDecision, CampaignLine, Decided
from filter.classify import Classifier
from filter.consent import ANY, Capture, ConsentAnswer, ConsentEvent, ConsentState, EventKind, Scope, UnknownBecause
from filter.decision import Decider, Decision
from filter.envelope import Client
from filter.errors import AddressError
from filter.events import FIELDS, Event, Outcome, campaign_alert, decision, message, process, undecided
from filter.labels import Channel, SegmentKind, SegmentLabel
from filter.message import Message, Segment
from filter.policy import Policy, unscanned
from filter.rules import Rule, compile_rules
from filter.stream import Stream
from filter.weights import Weights

DOCUMENT = (Path(__file__).parents[2] / "deploy" / "journal.md").read_text()
COMMON = ["queue_id", "event", "at"]
RULE = Rule("test.promotion", SegmentLabel.MARKETING, 3.0, ("promotion",), ("R1",))
CLASSIFIER = Classifier(compile_rules((RULE,), Weights()))


def record(kind: EventKind, name: str) -> ConsentEvent:
    """A consent record."""
    return ConsentEvent(Capture(kind=kind, scope=Scope(ANY, ANY, ANY, ANY)), name, 1, 1)


ANSWERS = {
    "yes": ConsentAnswer(ConsentState.CONSENT, record(EventKind.GRANT, "grant-1"), (), None, ()),
    "no": ConsentAnswer(ConsentState.OBJECTED, record(EventKind.OBJECT, "no-1"), (EventKind.OBJECT,), None, ()),
    "blocked": ConsentAnswer(
        ConsentState.CONSENT, record(EventKind.GRANT, "grant-2"), (), record(EventKind.BLOCK, "block-1"), ()
    ),
    "nobody": ConsentAnswer(ConsentState.UNKNOWN, None, (UnknownBecause.NO_RECORD,), None, ()),
}


class Consents:
    """Answers by local part."""

    def __init__(self, *, stale: bool) -> None:
        self._stale = stale

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """The answer, or AddressError."""
        if address not in ANSWERS:
            raise AddressError("no")
        return ANSWERS[address]

    def stale(self, at: int) -> bool:
        """As set."""
        return self._stale


def decided(who: str, text: str = "promotion", *, stale: bool = False) -> Decision:
    """A message decided for one recipient."""
    decider = Decider(CLASSIFIER, Consents(stale=stale), (Stream("bank", "bank", "offers"),), Policy())
    message = Message(Channel.EMAIL, segments=(Segment(SegmentKind.PARAGRAPH, text),))
    return decider.decide(message, "a@b.example", [who], 1)


def basis(of: Decision) -> tuple[object, list[str]]:
    """Record and reasons in the journal."""
    line = decision("Q", 1, "00", of.recipients[0], of)
    because = line["because"]
    assert isinstance(because, tuple)
    return line["record"], [str(code) for code in because]


@pytest.mark.parametrize(
    ("who", "record", "because"),
    [
        ("yes", "grant-1", []),
        ("no", "no-1", ["object"]),
        ("blocked", "block-1", []),
        ("nobody", "", ["no_record"]),
        ("x y", "", ["bad_address"]),
    ],
)
def test_a_verdict_names_the_record_it_rests_on(who: str, record: str, because: list[str]) -> None:
    """The basis, the opt-out or the block is named; where there is none, why."""
    assert basis(decided(who)) == (record, because)


def test_a_record_too_old_to_rely_on_is_named_all_the_same() -> None:
    """When the data is stale the journal tells that, and what was on record."""
    assert basis(decided("yes", stale=True)) == ("grant-1", ["stale"])


def test_service_mail_rests_on_no_record() -> None:
    """A verdict that consent had no part in does not name a record."""
    assert basis(decided("yes", "statement")) == ("", [])


def test_every_event_is_explained() -> None:
    """deploy/journal.md has a row for each event with exactly its fields."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ?(.*) \|$", DOCUMENT, flags=re.MULTILINE)
    explained = {name: [*COMMON, *re.findall(r"`(\w+)`", re.sub(r"\([^()]*\)", "", fields))] for name, fields in rows}
    assert explained == {str(event): list(fields) for event, fields in FIELDS.items()}


def test_every_reason_of_a_turned_away_message_is_explained() -> None:
    """The document lists each value of `why`."""
    listed = DOCUMENT.partition("`why` is one of:")[2].partition("##")[0]
    turned_away = {str(outcome) for outcome in Outcome} - {"taken", "duplicate"}
    assert set(re.findall(r"`(\w+)`", listed)) == turned_away


def test_workers_have_events_too() -> None:
    """An event of a worker has no queue id and says which worker it was."""
    line = process(Event.STARTED, 1, worker="0", version="1.0", ruleset="abc")
    assert tuple(line) == FIELDS[Event.STARTED]
    assert (line["queue_id"], line["worker"]) == ("", "0")


def test_judging_names_campaign_and_decision() -> None:
    """The message has its campaign, and each verdict the decision that was in force."""
    seconded = CampaignDecision(
        "c0ffee", Decided.IS_SERVICE, "recall", "ann", 7, needs_second=True, approver="bob", approved_at=8
    )
    of = dataclasses.replace(decided("no"), campaign="c0ffee", decided=seconded)
    about = message("Q", 1, Client("192.0.2.1"), of, null_sender=True, size=1, recipients=1, key_id="k")
    assert tuple(about) == FIELDS[Event.MESSAGE]
    assert about["campaign"] == "c0ffee"
    line = decision("Q", 1, "00", of.recipients[0], of)
    assert tuple(line) == FIELDS[Event.DECISION]
    assert line["decided"] == {"decided": "is_service", "author": "ann", "at": 7, "approver": "bob"}
    without = undecided("Q", 1, "00", unscanned(Policy()))
    assert tuple(without) == FIELDS[Event.DECISION]
    assert without["decided"] == {}


def test_an_alert_is_about_a_campaign() -> None:
    """It says which, how much, since when and from whom, and names a sample."""
    seen = CampaignLine(
        campaign="c0ffee", first_at=5, last_at=6, messages=9, disguised=7, sample="Q", sender="b.example"
    )
    line = campaign_alert(8, seen)
    assert tuple(line) == FIELDS[Event.CAMPAIGN_ALERT]
    assert (line["queue_id"], line["copies"], line["first_at"], line["sender"]) == ("Q", 7, 5, "b.example")

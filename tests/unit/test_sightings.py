"""What a worker saw of campaigns: counted once, described once, bounded, and kept when the ledger does not take it."""

import pytest
from support.campaign_mail import judged_mail, subject_of

from filter import sightings
from filter.campaigns import Seen
from filter.envelope import MailFrom
from filter.judging import Judged
from filter.sightings import OTHER, Sightings


def seen(of: Sightings) -> dict[str, Seen]:
    """What the ledger would be given, which it takes."""
    taken = of.take()
    of.told(taken)
    return {name: sighting.seen() for name, sighting in taken.items()}


def test_messages_are_counted_by_campaign() -> None:
    """Labels and claims are counted by message, dispositions by copy; the sample is the latest that is held."""
    found = Sightings(subject_of)
    for queue_id, recipients, declared, at in (
        ("Q1", ("hold", "relay"), "transactional", 20),
        ("Q2", ("hold", "reject", "hold"), "", 10),
        ("Q3", ("relay",), "service", 30),
    ):
        assert found.note(*judged_mail("a", *recipients, declared=declared, queue_id=queue_id, at=at))
    found.note(*judged_mail("b", "relay", text="Your statement.", declared="receipt", at=5))
    counted = seen(found)
    assert counted["a"] == Seen(
        campaign="a",
        first_at=10,
        last_at=30,
        messages=3,
        labels={"marketing": 3},
        recipients={"hold": 3, "relay": 2, "reject": 1},
        declared={"service": 2},
        disguised=3,
        subject="a",
        sample="Q2",
        sender="bank.example",
        client="192.0.2.1",
        user="mailer",
        controller="bank",
        brand="bank",
    )
    assert (counted["b"].labels, counted["b"].disguised, counted["b"].sample) == ({"service": 1}, 0, "")
    assert seen(found) == {}


def test_a_report_is_not_in_disguise() -> None:
    """What comes from the null sender may quote what it likes."""
    found = Sightings(subject_of)
    found.note(*judged_mail("a", "hold", declared="service", mail=MailFrom(b"")))
    assert seen(found)["a"].disguised == 0


def test_what_has_no_campaign_is_not_counted() -> None:
    """A message that shows nothing to know it by, or that could not be judged, belongs to none."""
    found = Sightings(subject_of)
    incoming, judged = judged_mail("")
    assert found.note(incoming, judged)
    assert found.note(incoming, Judged(None, judged.copies, ()))
    assert found.take() == {}


def test_a_campaign_is_described_once() -> None:
    """After the ledger has its description, only counts are given; before, with each batch."""
    asked = []
    found = Sightings(lambda message: asked.append(message.subject) or "masked")  # type: ignore[func-returns-value]
    found.note(*judged_mail("a"))
    found.note(*judged_mail("a"))
    found.put_back(found.take())
    found.note(*judged_mail("a"))
    assert seen(found)["a"].subject == "masked"
    found.note(*judged_mail("a"))
    assert seen(found)["a"].subject == ""
    assert asked == ["a"]


def test_what_is_put_back_is_there_with_what_came_since() -> None:
    """Nothing is lost or counted twice when the ledger does not take what it was given."""
    found = Sightings(subject_of)
    found.note(*judged_mail("a", "hold", declared="service", queue_id="Q1", at=1))
    found.note(*judged_mail("b", "relay", at=2))
    taken = found.take()
    found.note(*judged_mail("a", "relay", queue_id="Q2", at=3))
    found.note(*judged_mail("c", at=4))
    found.put_back(taken)
    counted = seen(found)
    assert set(counted) == {"a", "b", "c"}
    a = counted["a"]
    assert (a.messages, a.recipients, a.disguised) == (2, {"hold": 1, "relay": 1}, 1)
    assert (a.first_at, a.last_at, a.sample, a.declared) == (1, 3, "Q1", {"service": 1})


def test_too_many_campaigns_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound messages are counted as others, and that is told; those already there go on by name."""
    monkeypatch.setattr(sightings, "MAX_CAMPAIGNS", 2)
    found = Sightings(subject_of)
    assert [found.note(*judged_mail(name)) for name in ("a", "b", "c", "a", "d")] == [True, True, False, True, False]
    taken = found.take()
    for name in ("a", "e", "f"):
        found.note(*judged_mail(name))
    found.put_back(taken)
    counted = seen(found)
    assert {name: one.messages for name, one in counted.items()} == {"a": 3, "b": 1, OTHER: 4}
    assert counted[OTHER].subject == ""


def test_a_description_fits_any_database() -> None:
    """NUL, halves of surrogate pairs and endless text do not reach the ledger."""
    found = Sightings(lambda _: "\0a\udc80" + "x" * 1000)
    found.note(*judged_mail("a"))
    (one,) = seen(found).values()
    assert one.subject.startswith("a?x")
    assert len(one.subject) < 400

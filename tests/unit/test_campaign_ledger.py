"""The campaign ledger, whatever keeps it: what is added adds up, and a reviewer's word counts as it was given.

Another backend runs the same tests with a fixture `opens` of its own.
"""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filter.campaign_store import SqliteLedger
from filter.campaigns import CampaignDecision, CampaignLedger, CampaignLine, Decided, Seen, as_of, last_words
from filter.errors import InputError

Opens = Callable[[], CampaignLedger]

NAME, OTHER = "c0ffee" + "0" * 26, "c0ffee" + "1" * 26
SEEN = Seen(
    campaign=NAME,
    first_at=100,
    last_at=200,
    messages=3,
    labels={"marketing": 2, "mixed": 1},
    recipients={"hold": 4, "relay": 1},
    declared={"service": 3},
    disguised=5,
    subject="Your … statement",
    sample="Q1",
    sender="bank.example",
    client="192.0.2.1",
    user="mailer",
    controller="bank",
    brand="gold",
)
DECISION = CampaignDecision(NAME, Decided.IS_SERVICE, "looked at Q1", "ann", 300, expires_at=900)


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Opens]:
    """Opens the ledger; every call as another process would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqliteLedger(tmp_path / "hold")))


def test_what_was_seen_adds_up(opens: Opens) -> None:
    """Counts of several workers are added, times widen, the sample is the latest, the rest is as first seen."""
    one, two = opens(), opens()
    one.add([SEEN])
    two.add(
        [
            Seen(
                campaign=NAME,
                first_at=50,
                last_at=150,
                messages=1,
                labels={"mixed": 1},
                recipients={"relay": 2},
                disguised=2,
                subject="Another",
                sample="Q2",
                sender="else.example",
            ),
            Seen(campaign=OTHER, first_at=7, last_at=7, messages=1),
        ]
    )
    assert one.campaign(NAME) == CampaignLine(
        campaign=NAME,
        first_at=50,
        last_at=200,
        messages=4,
        labels={"marketing": 2, "mixed": 2},
        recipients={"hold": 4, "relay": 3},
        declared={"service": 3},
        disguised=7,
        subject="Your … statement",
        sample="Q2",
        sender="bank.example",
        client="192.0.2.1",
        user="mailer",
        controller="bank",
        brand="gold",
    )
    one.add([dataclasses.replace(SEEN, sample="")])
    line = two.campaign(NAME)
    assert line is not None
    assert line.sample == "Q2"


def test_what_is_missing_is_filled_in(opens: Opens) -> None:
    """A campaign that was first seen without a description gets the one that comes."""
    ledger = opens()
    ledger.add([Seen(campaign=NAME, first_at=1, last_at=1, messages=1)])
    ledger.add([SEEN])
    line = ledger.campaign(NAME)
    assert line is not None
    assert (line.subject, line.sender, line.client, line.user, line.brand) == (
        *("Your … statement", "bank.example", "192.0.2.1", "mailer"),
        "gold",
    )


def test_nothing_seen_is_nothing(opens: Opens) -> None:
    """An empty ledger has nothing to tell; adding nothing changes nothing."""
    ledger = opens()
    ledger.add([])
    assert (list(ledger.campaigns()), list(ledger.decisions()), list(ledger.history(NAME))) == ([], [], [])
    assert ledger.campaign(NAME) is None
    assert ledger.campaign("") is None


def test_campaigns_are_listed_newest_first(opens: Opens) -> None:
    """Those seen last come first, as many as asked for."""
    ledger = opens()
    ledger.add([dataclasses.replace(SEEN, campaign=f"{number:032x}", last_at=1000 + number) for number in range(9)])
    assert [line.last_at for line in ledger.campaigns(limit=3)] == [1008, 1007, 1006]
    assert len(ledger.campaigns()) == 9
    assert ledger.campaigns(1)[0] == ledger.campaign(f"{8:032x}")


def test_a_beginning_names_a_campaign(opens: Opens) -> None:
    """An unambiguous beginning will do; an ambiguous one is refused with the names it could mean."""
    ledger = opens()
    ledger.add([SEEN, dataclasses.replace(SEEN, campaign=OTHER), dataclasses.replace(SEEN, campaign="d" * 32)])
    for name in ("d", NAME[:7], NAME):
        line = ledger.campaign(name)
        assert line is not None
        assert line.campaign.startswith(name)
    with pytest.raises(InputError, match=f"{NAME}, {OTHER}"):
        ledger.campaign("c0f")
    assert ledger.campaign("e") is None
    assert ledger.campaign("c_f") is None
    assert ledger.campaign("%") is None


def test_one_alert_for_a_campaign(opens: Opens) -> None:
    """However many workers ask at once, one of them is to raise the alert; the campaign tells when."""
    ledgers = [opens() for _ in range(4)]
    ledgers[0].add([SEEN, dataclasses.replace(SEEN, campaign=OTHER)])
    with ThreadPoolExecutor(4) as threads:
        given = list(threads.map(lambda number: ledgers[number % 4].alert(NAME, 500 + number), range(40)))
    assert given.count(True) == 1
    line = ledgers[1].campaign(NAME)
    assert line is not None
    assert line.alerted_at == 500 + given.index(True)
    assert ledgers[0].alert(OTHER, 1)


def test_a_decision_stands_with_the_campaign(opens: Opens) -> None:
    """A decision is read as it was given, by every process, whether or not the campaign was ever seen."""
    one, two = opens(), opens()
    one.decide(DECISION)
    assert list(two.decisions()) == [DECISION]
    assert two.campaign(NAME) is None
    two.add([SEEN])
    line = one.campaign(NAME)
    assert line is not None
    assert (line.decision, line.waiting) == (DECISION, None)


def test_a_later_decision_takes_the_place_of_an_earlier_one(opens: Opens) -> None:
    """Of several decisions the last counts; all are remembered, the newest first."""
    ledger = opens()
    later = DECISION._replace(decided=Decided.IS_MARKETING, at=400)
    elsewhere = DECISION._replace(campaign=OTHER)
    for decision in (DECISION, elsewhere, later):
        ledger.decide(decision)
    assert set(ledger.decisions()) == {later, elsewhere}
    assert list(ledger.history(NAME)) == [later, DECISION]


def test_the_same_decision_may_be_made_again(opens: Opens) -> None:
    """Repeating a decision is no error; taking it back takes back what counts."""
    ledger = opens()
    ledger.decide(DECISION)
    ledger.decide(DECISION)
    ledger.withdraw(NAME, "bob", 500)
    assert [decision.in_force(600) for decision in ledger.decisions()] == [False]
    assert [decision.withdrawn_at for decision in ledger.history(NAME)] == [500, 0]


WAITING = DECISION._replace(decided=Decided.IS_MARKETING, at=400, needs_second=True)


def test_a_decision_that_waits_replaces_nothing_yet(opens: Opens) -> None:
    """Until somebody else approves it, the earlier decision stands; then the new one does."""
    ledger = opens()
    ledger.add([SEEN])
    ledger.decide(DECISION)
    ledger.decide(WAITING)
    assert list(ledger.decisions()) == [DECISION, WAITING]
    line = ledger.campaign(NAME)
    assert line is not None
    assert (line.decision, line.waiting) == (DECISION, WAITING)
    approved = ledger.approve(NAME, "bob", 450)
    assert approved == WAITING._replace(approver="bob", approved_at=450)
    assert list(ledger.decisions()) == [approved]
    assert list(ledger.history(NAME)) == [approved, DECISION]


@pytest.mark.parametrize("approver", ["ann", " Ann", "ANN ", "", " "])
def test_nobody_approves_what_they_decided(opens: Opens, approver: str) -> None:
    """The second approver is another person, and has a name."""
    ledger = opens()
    ledger.decide(WAITING)
    with pytest.raises(InputError, match="other than the author"):
        ledger.approve(NAME, approver, 450)
    assert list(ledger.decisions()) == [WAITING]


def test_there_must_be_something_to_approve_or_withdraw(opens: Opens) -> None:
    """What does not wait is not approved, what is not there is not taken back, and neither twice."""
    ledger = opens()
    for decision in (None, DECISION):
        if decision:
            ledger.decide(decision)
        with pytest.raises(InputError, match="no decision waits"):
            ledger.approve(NAME, "bob", 450)
    ledger.withdraw(NAME, "bob", 450)
    with pytest.raises(InputError, match="no decision to withdraw"):
        ledger.withdraw(NAME, "bob", 460)
    with pytest.raises(InputError, match="no decision to withdraw"):
        ledger.withdraw(OTHER, "bob", 460)


def test_a_withdrawn_decision_counts_no_more(opens: Opens) -> None:
    """The one that waits goes first, then the one that stands; what came before does not count again."""
    ledger = opens()
    ledger.add([SEEN])
    for decision in (DECISION._replace(at=1), DECISION, WAITING):
        ledger.decide(decision)
    assert ledger.withdraw(NAME, "bob", 450) == WAITING._replace(withdrawn_at=450, withdrawn_by="bob")
    assert list(ledger.decisions()) == [DECISION]
    gone = ledger.withdraw(NAME, "cem", 460)
    assert gone == DECISION._replace(withdrawn_at=460, withdrawn_by="cem")
    assert list(ledger.decisions()) == [gone]
    line = ledger.campaign(NAME)
    assert line is not None
    assert (line.decision, line.waiting) == (None, None)


def test_every_change_of_decisions_has_another_version(opens: Opens) -> None:
    """Each process sees that decisions changed, and only then."""
    one, two = opens(), opens()
    versions = [two.version()]
    for change in (
        lambda: one.decide(DECISION),
        lambda: one.decide(WAITING),
        lambda: one.approve(NAME, "bob", 450),
        lambda: one.withdraw(NAME, "bob", 460),
    ):
        change()
        versions.append(two.version())
    assert len(set(versions)) == 5
    one.add([SEEN])
    one.alert(NAME, 1)
    assert (one.version(), two.version()) == (versions[-1], versions[-1])


def test_old_campaigns_are_forgotten_but_for_decided_ones(opens: Opens) -> None:
    """What was last seen before a time goes, with its alert; decisions and what they are about stay."""
    ledger = opens()
    ledger.add([SEEN, dataclasses.replace(SEEN, campaign=OTHER), dataclasses.replace(SEEN, campaign="e", last_at=999)])
    ledger.alert(OTHER, 5)
    ledger.decide(DECISION)
    ledger.withdraw(NAME, "bob", 400)
    assert ledger.prune(201) == 1
    assert {line.campaign for line in ledger.campaigns()} == {NAME, "e"}
    assert ledger.prune(201) == 0
    ledger.add([Seen(campaign=OTHER, first_at=5, last_at=5, messages=1)])
    again = ledger.campaign(OTHER)
    assert again == CampaignLine(campaign=OTHER, first_at=5, last_at=5, messages=1)


def test_rare_campaigns_are_forgotten_sooner(opens: Opens) -> None:
    """Of those of few messages only the ones go of which nothing was held."""
    ledger = opens()
    ledger.add(
        [
            dataclasses.replace(SEEN, campaign="rare", sample="", messages=2),
            dataclasses.replace(SEEN, campaign="held", messages=2),
            dataclasses.replace(SEEN, campaign="many", sample="", messages=3),
        ]
    )
    assert ledger.prune(201, fewer_than=3) == 1
    assert {line.campaign for line in ledger.campaigns()} == {"held", "many"}


COUNTS = st.dictionaries(st.sampled_from(["hold", "relay", "divert"]), st.integers(1, 10**9), max_size=3)
BATCHES = st.lists(
    st.lists(
        st.builds(
            Seen,
            campaign=st.sampled_from([NAME, OTHER]),
            first_at=st.integers(1, 10**13),
            last_at=st.integers(1, 10**13),
            messages=st.integers(1, 10**9),
            recipients=COUNTS,
            disguised=st.integers(0, 10**9),
        ),
        max_size=4,
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_nothing_seen_is_lost_or_counted_twice(opens: Opens, batches: list[list[Seen]]) -> None:
    """However sightings are cut into batches and campaigns, the sums are those of all."""
    ledger = opens()
    while ledger.prune(10**15):
        pass
    for batch in batches:
        ledger.add(batch)
    for name in (NAME, OTHER):
        seen = [one for batch in batches for one in batch if one.campaign == name]
        line = ledger.campaign(name)
        assert (line is None) is (not seen)
        if line:
            assert line.messages == sum(one.messages for one in seen)
            assert line.disguised == sum(one.disguised for one in seen)
            assert line.first_at == min(one.first_at for one in seen)
            assert line.last_at == max(one.last_at for one in seen)
            assert line.recipients.get("hold", 0) == sum(one.recipients.get("hold", 0) for one in seen)


def test_the_last_words_of_a_history() -> None:
    """A decision that waits never hides the one that stands, and goes when a later one stands."""
    approved = WAITING._replace(approver="bob")
    refused = WAITING._replace(withdrawn_at=9)
    assert last_words([]) == (None, None)
    assert last_words([DECISION, WAITING]) == (DECISION, WAITING)
    assert last_words([WAITING, DECISION]) == (DECISION, None)
    assert last_words([DECISION, approved]) == (approved, None)
    assert last_words([DECISION, WAITING, refused]) == (DECISION, None)


def test_forgetting_goes_on_until_nothing_is_left(opens: Opens) -> None:
    """However many are old, repeating it forgets each once."""
    ledger = opens()
    ledger.add([Seen(campaign=f"{number:032x}", first_at=1, last_at=1, messages=1) for number in range(5000)])
    gone = [ledger.prune(2, fewer_than=10)]
    while gone[-1]:
        gone.append(ledger.prune(2, fewer_than=10))
    assert sum(gone) == 5000
    assert list(ledger.campaigns()) == []


def test_what_describes_a_campaign_of_few_can_be_erased(opens: Opens) -> None:
    """Subject and sample go, for every reader; what was counted and decided stays, and so do bigger campaigns."""
    ledger, reader = opens(), opens()
    ledger.add([SEEN, dataclasses.replace(SEEN, campaign=OTHER, messages=10)])
    ledger.decide(DECISION)
    ledger.erase([NAME, OTHER, "f" * 32], 10)
    few, many = reader.campaign(NAME), reader.campaign(OTHER)
    assert (few.subject, few.sample, few.messages, few.decision) == ("", "", 3, DECISION)
    assert (many.subject, many.sample) == ("Your … statement", "Q1")


def test_what_was_decided_at_a_time() -> None:
    """A look back shows the decision that was in force then, not what came of it later."""
    first = DECISION._replace(at=100, expires_at=500)
    second = DECISION._replace(decided=Decided.IS_MARKETING, at=200, expires_at=0)
    second = second._replace(needs_second=True, approver="bob", approved_at=300)
    second = second._replace(withdrawn_at=400, withdrawn_by="cem")
    history = [first, second]
    assert [as_of(history, at) for at in (99, 100, 200, 299)] == [None, first, first, first]
    then = second._replace(withdrawn_at=0, withdrawn_by="")
    assert [as_of(history, at) for at in (300, 399)] == [then, then]
    assert [as_of(history, at) for at in (400, 499)] == [None, None]
    assert [as_of([first], at) for at in (499, 500)] == [first, None]

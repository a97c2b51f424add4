"""Nothing is lost, leaked or doubled unnoted, whatever is killed and whenever (E4); and the ledger would tell."""

import random
from pathlib import Path

import pytest
from support.kills import rounds
from support.ledger import Delivery, Kind, Letter, audit
from support.relay import Copy

pytestmark = pytest.mark.integration

ROUNDS = 5  # of two kills each
FIRST, SECOND = "1A202C2EDD70000AAAAAA", "1A202C2F0000000BBBBBB"
OFFER = Letter("1@bank.example", Kind.MARKETING, ("agreed@home.example", "objected@home.example"), b"")
NOTE = Letter("2@bank.example", Kind.SERVICE, ("objected@home.example",), b"")


def delivery(letter: Letter, recipient: str, passage: str = FIRST, *, confirmed: bool = True) -> Delivery:
    """A copy at the next hop."""
    return Delivery(Copy(letter.name, recipient, passage), confirmed)


def test_kills_at_random_moments(tmp_path: Path, rules_cache: Path) -> None:
    """Workers, supervisor and the whole tree are killed under load: every recipient answered 250 has exactly one copy
    that is certain, no marketing reached anybody without consent, a second copy is noted (E4, D1, D2, D5, D6).
    """
    seed = random.SystemRandom().randrange(1_000_000)
    found = rounds(tmp_path, rules_cache, ROUNDS, seed, tell=print)
    assert not found.wrong, (seed, found.wrong, str(found))
    assert found.answered, found
    assert found.relayed, found
    assert found.held, found


@pytest.mark.parametrize(
    ("answered", "delivered", "held", "journal", "wrong"),
    [
        pytest.param({(NOTE.name, NOTE.recipients[0])}, [], [], [], "lost", id="lost"),
        pytest.param(
            {(NOTE.name, NOTE.recipients[0])},
            [delivery(NOTE, NOTE.recipients[0], confirmed=False)],
            [],
            [{"event": "in_doubt", "queue_id": FIRST}],
            "lost",
            id="perhaps lost",
        ),
        pytest.param(set(), [delivery(OFFER, "objected@home.example")], [], [], "leaked", id="leaked"),
        pytest.param(
            set(), [delivery(OFFER, "objected@home.example", confirmed=False)], [], [], "leaked", id="perhaps leaked"
        ),
        pytest.param(set(), [], [Copy(NOTE.name, NOTE.recipients[0], FIRST)], [], "held", id="service mail held"),
        pytest.param(
            set(),
            [delivery(NOTE, NOTE.recipients[0], FIRST), delivery(NOTE, NOTE.recipients[0], SECOND)],
            [],
            [],
            "twice",
            id="twice at the next hop",
        ),
        pytest.param(
            set(),
            [],
            [Copy(OFFER.name, "objected@home.example", FIRST), Copy(OFFER.name, "objected@home.example", SECOND)],
            [{"event": "unacknowledged", "queue_id": FIRST, "at": int(SECOND[:11], 16) - 1}],
            "twice",
            id="held twice though it was known",
        ),
    ],
)
def test_the_ledger_tells(answered, delivered, held, journal, wrong):
    """A ledger that was tampered with is found out, and in the right words."""
    (sentence,) = audit([OFFER, NOTE], answered, delivered, held, journal).wrong
    assert sentence.startswith(wrong)


def test_the_ledger_allows_what_is_noted():
    """One copy more is no fault where the journal says that the first was in doubt, or not yet known to be taken."""
    journal = [{"event": "in_doubt", "queue_id": FIRST}]
    twice = [delivery(NOTE, NOTE.recipients[0], passage) for passage in (FIRST, SECOND)]
    found = audit([NOTE], {(NOTE.name, NOTE.recipients[0])}, twice, [], journal)
    assert (found.wrong, found.doubtful, found.overtaken) == ([], 1, 0)
    journal = [{"event": "unacknowledged", "queue_id": FIRST, "at": int(SECOND[:11], 16)}]
    found = audit([NOTE], {(NOTE.name, NOTE.recipients[0])}, twice, [], journal)
    assert (found.wrong, found.doubtful, found.overtaken) == ([], 0, 1)

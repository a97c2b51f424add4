"""What a release is put together of: rules of retention as configured, and decisions as they stand."""

from pathlib import Path

import pytest

from filter import releasing
from filter.campaign_store import SqliteLedger
from filter.campaigns import CampaignDecision, Decided
from filter.config import parse_config
from filter.ports import HoldUnavailableError
from filter.releasing import LateDecisions
from filter.retention import OTHERS, Rule

DAY = 86_400_000
DECISION = CampaignDecision("ab", Decided.IS_SERVICE, "looked", "ann", 1)


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.time


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ("", {OTHERS: Rule(30 * DAY)}),
        ('retention = { "*" = "7d", objected = "1d" }', {OTHERS: Rule(7 * DAY), "objected": Rule(DAY)}),
        ('on_expiry = { unsure = "dsn" }', {OTHERS: Rule(30 * DAY), "unsure": Rule(30 * DAY, tell=True)}),
        (
            'retention = { objected = "1d" }\non_expiry = { "*" = "dsn", unsure = "discard" }',
            {OTHERS: Rule(30 * DAY, tell=True), "objected": Rule(DAY, tell=True), "unsure": Rule(30 * DAY)},
        ),
    ],
)
def test_retention_goes_by_the_configuration(settings: str, rules: dict[str, Rule]) -> None:
    """Time and outcome of a reason that is named in one table only are completed from the other's every other."""
    assert releasing.rules(parse_config(f"[hold]\n{settings}".encode(), "filter.toml")) == rules


def test_released_mail_has_connections_of_its_own() -> None:
    """As many transactions at once as connections are set, whatever live mail may have."""
    config = parse_config(b"[hold]\nrelease_connections = 7\n", "filter.toml")
    assert releasing.settings(config).concurrent == 7


def test_a_command_follows_decisions(tmp_path: Path) -> None:
    """What somebody decides or takes back while a release runs counts half a second later."""
    ledger, clock = SqliteLedger(tmp_path), Clock()
    decisions = LateDecisions(ledger, clock=clock)
    assert decisions("ab") is None
    ledger.decide(DECISION)
    assert decisions("ab") is None
    clock.time = 1.0
    assert decisions("ab") == DECISION
    ledger.withdraw("ab", "ben", 2)
    clock.time = 2.0
    assert decisions("ab") is None
    ledger.close()


def test_a_decision_that_waits_does_not_stand(tmp_path: Path) -> None:
    """Nor does it take the place of the one that does."""
    ledger = SqliteLedger(tmp_path)
    ledger.decide(DECISION)
    ledger.decide(DECISION._replace(decided=Decided.IS_MARKETING, needs_second=True))
    assert LateDecisions(ledger)("ab") == DECISION
    ledger.close()


def test_decisions_stand_while_the_ledger_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release goes on by what was read last; the first look must succeed."""
    ledger, clock = SqliteLedger(tmp_path), Clock()
    ledger.decide(DECISION)
    decisions = LateDecisions(ledger, clock=clock)

    def fail() -> int:
        raise HoldUnavailableError("down")

    monkeypatch.setattr(ledger, "version", fail)
    clock.time = 1.0
    assert decisions("ab") == DECISION
    with pytest.raises(HoldUnavailableError):
        LateDecisions(ledger)
    ledger.close()

"""`consentry campaign` as reviewers see it: what is known of a campaign, one sample, and decisions for all of it."""

from contextlib import closing
from pathlib import Path

import pytest
from support.reviewing import CAMPAIGN, HOUR, OTHER, Reviewed

from filter import app, releasing
from filter.campaigns import CampaignDecision, Decided
from filter.classify import Classifier
from filter.errors import InputError


@pytest.fixture
def mail(tmp_path: Path, rules_cache: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    """Two campaigns with held copies, and one of which nothing is held; decisions on big ones need two people."""
    monkeypatch.delenv("CONSENTRY_HOLD_KEYS", raising=False)
    reviewed = Reviewed(tmp_path, rules_cache, classifier, "[campaign]\nsecond_approver_from = 3\n")
    monkeypatch.setattr(releasing, "next_hop", lambda _config, _metrics: reviewed.hop)
    reviewed.hold("Q1", "anna@x.example", "ben@x.example", age=3 * HOUR)
    reviewed.hold("Q2", "anna@x.example", reason="objected")
    reviewed.hold("Q3", "cleo@x.example", campaign=OTHER)
    reviewed.seen(labels={"marketing": 2}, declared={"service": 2}, disguised=3, sample="Q2")
    reviewed.seen("0" * 32, labels={"service": 3}, subject="\x1b[31mYour [bold]statement[/bold]")
    return reviewed


def decisions(mail: Reviewed) -> list[CampaignDecision]:
    """As the workers read them."""
    with closing(app.campaign_ledger(mail.config)) as ledger:
        return list(ledger.decisions())


def test_list_begins_with_what_is_held_most(mail: Reviewed) -> None:
    """Campaigns by held copies, those that only the hold store knows too; or the newest first."""
    documents = mail.documents("campaign", "list")
    assert [(one["campaign"], one["held"]) for one in documents] == [(CAMPAIGN, 3), (OTHER, 1), ("0" * 32, 0)]
    assert documents[0]["declared"] == {"service": 2}
    newest = mail.documents("campaign", "list", "--newest", "--limit", "2")
    assert OTHER not in [one["campaign"] for one in newest]
    cut = mail.run("campaign", "list", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2
    assert "There are more" in cut.stderr


def test_what_a_sender_wrote_is_safe_to_list(mail: Reviewed) -> None:
    """A subject is text, neither markup nor an escape sequence."""
    shown = mail.run("campaign", "list").stdout
    assert "<001b>[31mYour [bold]statement[/bold]" in shown


def test_no_campaigns_are_told(tmp_path: Path, rules_cache: Path, classifier: Classifier) -> None:
    """An empty ledger is a sentence."""
    (tmp_path / "new").mkdir()
    empty = Reviewed(tmp_path / "new", rules_cache, classifier)
    assert empty.run("campaign", "list").stdout == "No campaign was seen.\n"
    assert empty.documents("campaign", "list") == []


def test_show_is_what_a_decision_rests_on(mail: Reviewed) -> None:
    """What was seen, what is held, the history, and the text of the sample; as JSON the same."""
    mail.run("campaign", "decide", "ab", "is_marketing", "--why", "an offer", "--author", "dora")
    shown = mail.run("campaign", "show", "ab").stdout
    for words in ("3 copies promote", "Message Q2", "Shop now and", "by dora", "an offer"):
        assert words in shown
    (document,) = mail.documents("campaign", "show", CAMPAIGN)
    assert (document["held"], document["sample_message"]["queue_id"]) == (3, "Q2")
    assert [one["why"] for one in document["history"]] == ["an offer"]


def test_what_can_be_done_is_said_until_it_is_decided(mail: Reviewed) -> None:
    """The page of a campaign with held copies names the commands; a decision that counts leaves them out."""
    assert "consentry campaign decide acacacac is_service --why" in mail.run("campaign", "show", "ac").stdout
    mail.run("campaign", "decide", "ac", "is_marketing", "--why", "x")
    assert "What can be done" not in mail.run("campaign", "show", "ac").stdout
    assert "What can be done" not in mail.run("campaign", "show", "0" * 32).stdout


def test_a_sample_is_found_though_the_ledgers_is_gone(mail: Reviewed) -> None:
    """Another held message of the campaign takes its place; without any that is said."""
    mail.run("held", "erase", "--queue-id", "Q2", "--yes")
    assert mail.documents("campaign", "show", "ab")[0]["sample_message"]["queue_id"] == "Q1"
    mail.run("held", "discard", "--campaign", "ab", "--why", "x", "--yes")
    assert "There is no held message to show." in mail.run("campaign", "show", "ab").stdout


def test_an_unknown_campaign_is_an_error(mail: Reviewed) -> None:
    """By the beginning of a name or a whole one, which nobody has seen."""
    for name, said in (("99", "no campaign begins so"), ("9" * 32, "never seen"), ("a", "2 campaigns"), ("x", "hexa")):
        error = mail.run("campaign", "show", name).exception
        assert isinstance(error, InputError)
        assert said in str(error)


def test_a_decision_is_kept_with_who_why_and_until_when(mail: Reviewed) -> None:
    """It stands for the campaign whose name begins so."""
    result = mail.run(
        *("campaign", "decide", "ac", "is_service", "--why", "rate change", "--author", "dora", "--expires", "90d")
    )
    assert result.exit_code == 0
    assert "All workers apply it within a second." in result.stdout
    assert "Still held: 1 copy. To let them go: consentry held release --campaign acacacac" in result.stdout
    (decision,) = decisions(mail)
    assert (decision.campaign, decision.decided, decision.author) == (OTHER, Decided.IS_SERVICE, "dora")
    assert decision.expires_at - decision.at == 90 * 24 * HOUR
    assert decision.in_force(decision.at)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ac", "is_service", "--why", " "), "--why"),
        (("ac", "is_service", "--why", "x", "--expires", "never"), "--expires never: must be"),
        (("99", "is_service", "--why", "x"), "no campaign begins so"),
        (("ac", "is_marketing", "--why", "x", "--apply-to-held"), "--apply-to-held"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused(mail: Reviewed, arguments: tuple[str, ...], said: str) -> None:
    """Nothing is kept, and the message names what is wrong."""
    error = mail.run("campaign", "decide", *arguments).exception
    assert isinstance(error, InputError)
    assert said in str(error)
    assert decisions(mail) == []


def test_a_decision_names_the_evidence_it_was_made_on(mail: Reviewed) -> None:
    """What the rules had found in the campaign's held copies, whatever became of them; no more is covered."""
    rules = {one["value"] for one in mail.documents("held", "stats", "--by", "rule", "--campaign", CAMPAIGN)}
    assert mail.run("campaign", "decide", CAMPAIGN, "is_service", "--why", "a recall").exit_code == 0
    (decided,) = decisions(mail)
    assert set(decided.evidence.split()) == rules
    assert decided.covers(rules)
    assert not decided.covers([*rules, "another-rule"])


def test_a_decision_names_the_doubts_there_were(mail: Reviewed) -> None:
    """Those of every reason for which copies were held, and none that nobody could have seen."""
    picture = b"Content-Type: text/html\r\nSubject: Hi\r\n\r\n<p>Hello</p><img src='https://x.example/a.png'>\r\n"
    mail.hold("Q8", "dora@x.example", reason="unread_content", content=picture)
    (unseen,) = mail.documents("campaign", "decide", OTHER, "is_service", "--why", "a recall")
    assert "unread:" not in unseen["evidence"]
    (seen,) = mail.documents("campaign", "decide", CAMPAIGN, "is_service", "--why", "a recall")
    assert "unread:image_only" in seen["evidence"].split()


def test_big_campaigns_take_two_people(mail: Reviewed) -> None:
    """A decision on many held copies waits until somebody other than its author approves it."""
    result = mail.run("campaign", "decide", "ab", "is_service", "--why", "x", "--author", "dora", "--apply-to-held")
    assert "It counts when somebody else approves it" in result.stdout
    assert not decisions(mail)[0].in_force(mail.now)
    assert mail.states() == {"held": 4}
    assert "(waits)" in mail.run("campaign", "list").stdout
    assert isinstance(mail.run("campaign", "approve", "ab", "--author", "dora").exception, InputError)
    assert mail.run("campaign", "approve", "ab", "--author", "emil").exit_code == 0
    assert decisions(mail)[0].approver == "emil"
    assert CAMPAIGN not in [one["campaign"] for one in mail.documents("campaign", "list", "--undecided")]


def test_a_campaign_gets_no_smaller_by_what_is_done_to_it(mail: Reviewed) -> None:
    """Copies that somebody released or discarded first count towards the second person too."""
    assert mail.run("held", "discard", "--recipient", "anna@x.example", "--why", "x", "--yes").exit_code == 0
    mail.run("campaign", "decide", "ab", "is_service", "--why", "x")
    assert decisions(mail)[0].waits


def test_a_decision_is_taken_back(mail: Reviewed) -> None:
    """It does not count any more; that there is none to take back is an error."""
    mail.run("campaign", "decide", "ac", "is_service", "--why", "x")
    assert "does not count any more" in mail.run("campaign", "withdraw", "ac", "--author", "emil").stdout
    assert decisions(mail)[0].withdrawn_by == "emil"
    assert isinstance(mail.run("campaign", "withdraw", "ac").exception, InputError)
    assert "withdrawn by emil" in mail.run("campaign", "show", "ac").stdout


def test_a_decision_is_applied_to_what_is_held(mail: Reviewed) -> None:
    """Held copies of a service campaign go, also to who had objected before; who objected meanwhile does not get it."""
    mail.run("consent", "record", "ben@x.example", "kind=object", "controller=bank")
    mail.run("campaign", "decide", "ab", "is_service", "--why", "rate change", "--author", "dora")
    result = mail.run("campaign", "approve", "ab", "--author", "emil", "--apply-to-held", "--yes")
    assert result.exit_code == 1  # not all of them went
    assert mail.states() == {"delivered": 2, "held": 2}
    assert mail.hop.reached == [b"anna@x.example"] * 2
    assert "1 stay held: the person objected after it was held" in result.stdout
    (ordered,) = mail.journal("ordered")
    assert (ordered["author"], ordered["despite"]) == ("emil", False)


@pytest.mark.parametrize("waits", [False, True])
def test_nothing_is_decided_where_nobody_agreed(mail: Reviewed, waits: bool) -> None:
    """To apply a decision to held copies takes a yes; without one neither the decision nor its approval is kept."""
    if waits:
        mail.run("campaign", "decide", "ab", "is_service", "--why", "x", "--author", "dora")
        result = mail.run("campaign", "approve", "ab", "--author", "emil", "--apply-to-held")
    else:
        result = mail.run("campaign", "decide", "ac", "is_service", "--why", "x", "--apply-to-held")
    assert "--yes is needed" in str(result.exception)
    assert "go to those who had objected, too" in result.stderr
    assert not any(decision.in_force(mail.now + HOUR) for decision in decisions(mail))
    assert mail.states() == {"held": 4}


def test_undecided_campaigns_are_found_behind_decided_ones(mail: Reviewed) -> None:
    """However few are listed, those on which a decision counts take nobody's place."""
    mail.hold("Q4", "dan@x.example", "eve@x.example", campaign="ad" * 16)
    for name in (CAMPAIGN, "ad" * 16, "0" * 32):
        mail.run("campaign", "decide", name, "is_marketing", "--why", "x", "--author", "dora")
    mail.run("campaign", "approve", CAMPAIGN, "--author", "emil")
    listed = mail.documents("campaign", "list", "--undecided", "--limit", "1")
    assert [one["campaign"] for one in listed] == [OTHER]

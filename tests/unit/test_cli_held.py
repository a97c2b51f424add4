"""`consentry held` as reviewers see it: what it lists, counts and shows, what it moves, and what it refuses."""

import re
from pathlib import Path

import pytest
from support.reviewing import CAMPAIGN, HOUR, OTHER, PROMOTION, TRACE, Reviewed

from filter import cli_options, releasing
from filter.classify import Classifier
from filter.errors import InputError
from filter.hold_codec import HoldDataError
from filter.replies import Reply

C1 = "Subject: Hi\r\nX-Odd: \x9b2J now\x7f \U000e0041\r\n\r\nSave now.\r\n".encode()
HOSTILE = (
    b"From: E <e@bank.example>\r\nSubject: =?utf-8?q?save =E2=80=AEtxt [bold]now[/bold]?=\r\n"
    b"X-Odd: \x1b]0;pwned\x07\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>Get 20% off \x1b[2J today</p>"
    b"<p style='display:none'>unseen words</p><img src='http://tracker.example/t.gif'>\r\n"
)


@pytest.fixture
def mail(tmp_path: Path, rules_cache: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    """An empty store of held mail."""
    monkeypatch.delenv("CONSENTRY_HOLD_KEYS", raising=False)
    reviewed = Reviewed(tmp_path, rules_cache, classifier)
    monkeypatch.setattr(releasing, "next_hop", lambda _config, _metrics: reviewed.hop)
    return reviewed


@pytest.fixture
def two(mail: Reviewed) -> Reviewed:
    """Two campaigns: Q1 and Q2 of one, Q3 of the other."""
    mail.hold("Q1", "anna@x.example", "ben@x.example", age=3 * HOUR)
    mail.hold("Q2", "anna@x.example", reason="objected", age=2 * HOUR)
    mail.hold("Q3", "cleo@x.example", campaign=OTHER, declared="", reason="unsure")
    return mail


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written to the journal."""

    def fail(_file: int, _octets: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("filter.journal.os.write", fail)


# Looking


def test_list_shows_what_is_held(two: Reviewed) -> None:
    """One line a copy, the oldest first, without addresses; as JSON with everything that is known."""
    shown = two.run("held", "list").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["queue", "Q1", "Q1", "Q2", "Q3"]
    assert not any("@" in line for line in shown)
    documents = two.documents("held", "list")
    assert [one["queue_id"] for one in documents] == ["Q1", "Q1", "Q2", "Q3"]
    assert {one["state"] for one in documents} == {"held"}
    assert documents[0]["campaign"] == CAMPAIGN
    assert documents[0]["label"] == "marketing"


def test_json_does_nothing_to_a_terminal(mail: Reviewed) -> None:
    """What terminals may obey stands in it as digits, which mean the same to a program."""
    mail.hold("Q9", "anna@x.example", content=C1)
    shown = mail.run("held", "show", "Q9", "--json").stdout
    assert shown.strip().isprintable()
    (document,) = mail.documents("held", "show", "Q9")
    assert "\\u009b2J now\\u007f \\udb40\\udc41" in shown
    assert "\x9b2J now\x7f \U000e0041" in document["headers"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--campaign", CAMPAIGN), ["Q1", "Q1", "Q2"]),
        (("--campaign", "ac"), ["Q3"]),
        (("--label", "marketing"), ["Q1", "Q1", "Q2", "Q3"]),
        (("--label", "service"), []),
        (("--reason", "objected"), ["Q2"]),
        (("--declared", "service"), ["Q1", "Q1", "Q2"]),
        (("--controller", "bank", "--brand", "bank", "--topic", "offers"), ["Q1", "Q1", "Q2", "Q3"]),
        (("--topic", "statements"), []),
        (("--recipient", "Anna@X.example"), ["Q1", "Q2"]),
        (("--recipient", "anna@x.example", "--reason", "objected"), ["Q2"]),
        (("--queue-id", "Q3"), ["Q3"]),
        (("--older-than", "150min"), ["Q1", "Q1"]),
        (("--newer-than", "90min"), ["Q3"]),
        (("--state", "discarded"), []),
        (("--state", "discarded", "--state", "held"), ["Q1", "Q1", "Q2", "Q3"]),
        (("--state", "all"), ["Q1", "Q1", "Q2", "Q3"]),
        (("--limit", "2"), ["Q1", "Q1"]),
    ],
)
def test_every_condition_narrows(two: Reviewed, options: tuple[str, ...], found: list[str]) -> None:
    """A condition leaves the copies for which it holds, several those for which all do."""
    assert [one["queue_id"] for one in two.documents("held", "list", *options)] == found


def test_a_rule_is_a_condition(two: Reviewed) -> None:
    """Copies can be asked for by a rule in their evidence."""
    rule = two.documents("held", "list")[0]["rules"][0]
    assert len(two.documents("held", "list", "--rule", rule)) == 4
    assert two.documents("held", "list", "--rule", "no.such") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--campaign", "xyz"), "hexadecimal"),
        (("--campaign", "99"), "no campaign begins so"),
        (("--campaign", "a"), "2 campaigns begin so"),
        (("--state", "gone"), "must be one of pending, held"),
        (("--recipient", "anna"), "--recipient anna: not a mail address"),
        (("--older-than", "soon"), "--older-than soon: must be a whole number and a unit"),
    ],
)
def test_a_condition_that_cannot_be_used_is_named(two: Reviewed, options: tuple[str, ...], said: str) -> None:
    """The message says which option it is, and what is allowed."""
    error = two.run("held", "list", *options).exception
    assert isinstance(error, InputError)
    assert said in str(error)


def test_what_is_not_shown_is_told(two: Reviewed) -> None:
    """A list that is cut says so; one that ends at the limit does not."""
    assert "There are more" in two.run("held", "list", "--limit", "3").stderr
    assert "There are more" not in two.run("held", "list", "--limit", "4").stderr


@pytest.mark.parametrize("command", ["list", "stats"])
def test_nothing_held_is_said(mail: Reviewed, command: str) -> None:
    """An empty result is a sentence, and as JSON nothing."""
    result = mail.run("held", command)
    assert (result.exit_code, result.stdout) == (0, "No copy matches.\n")
    assert mail.documents("held", command) == []


def test_pending_copies_are_not_for_review(mail: Reviewed) -> None:
    """They are counted where somebody asks for that state, listed nowhere else, and cannot be moved."""
    mail.hold("Q1", "anna@x.example", pending=True)
    assert mail.documents("held", "list") == []
    assert [one["state"] for one in mail.documents("held", "list", "--state", "pending")] == ["pending"]
    mail.run("held", "discard", "--all", "--why", "x", "--yes")
    assert mail.states() == {"pending": 1}


def test_stats_count_by_each_property(two: Reviewed) -> None:
    """Copies and messages by each property, or by those that are asked for."""
    found = {(one["by"], one["value"]): (one["copies"], one["messages"]) for one in two.documents("held", "stats")}
    assert found["campaign", CAMPAIGN] == (3, 2)
    assert found["reason", "objected"] == (1, 1)
    assert found["declared", ""] == (1, 1)
    assert found["state", "held"] == (4, 3)
    by_label = two.documents("held", "stats", "--by", "label", "--campaign", OTHER)
    assert [(one["by"], one["value"], one["copies"]) for one in by_label] == [("label", "marketing", 1)]
    assert "(none)" in two.run("held", "stats").stdout


def test_without_a_relay_there_is_no_held_mail(tmp_path: Path, two: Reviewed) -> None:
    """A configuration of another directory says what is missing."""
    other = tmp_path / "other.toml"
    other.write_text('[store]\ndir = "elsewhere"\n')
    two.file = other
    for command in ("list", "orders", "rotate-key"):
        error = two.run("held", command).exception
        assert isinstance(error, HoldDataError)
        assert "no held mail there yet" in str(error)


# One message


def test_show_tells_what_a_reviewer_needs(two: Reviewed) -> None:
    """Envelope, verdicts in words, header and text; as JSON the same."""
    shown = two.run("held", "show", "Q1").stdout
    for words in ("<bounce@bank.example>", "anna@x.example", "no valid consent", "Subject: Save now", "Shop now and"):
        assert words in shown
    (document,) = two.documents("held", "show", "Q1")
    assert [copy["recipient"] for copy in document["copies"]] == ["anna@x.example", "ben@x.example"]
    assert {copy["state"] for copy in document["copies"]} == {"held"}
    assert document["headers"].endswith("Subject: Save now")
    assert any("Shop now" in segment["text"] for segment in document["segments"])


def test_show_marks_what_promotes(mail: Reviewed) -> None:
    """A passage that promotes says so, with the rules that found it and their words; the others do not."""
    content = b"Subject: Your statement\r\n\r\nYour statement is ready.\r\n\r\nGet 20% off your next order today.\r\n"
    mail.hold("Q1", "anna@x.example", content=content)
    shown = mail.run("held", "show", "Q1").stdout
    assert "[paragraph] Your statement is ready." in shown
    assert "[paragraph, marketing] Get 20% off your next order" in shown
    assert 'offer.percent-off ("Get 20% off")' in shown
    (document,) = mail.documents("held", "show", "Q1")
    found = {
        one["text"]: [e["rule"] for e in one["evidence"]] for one in document["segments"] if one["label"] != "neutral"
    }
    assert [text for text in found if text.startswith("Get 20% off")]
    assert "offer.percent-off" in [rule for rules in found.values() for rule in rules]


def test_show_is_safe_in_a_terminal(mail: Reviewed) -> None:
    """Escape sequences, direction marks and markup in a message act on nothing, hidden text is marked as such."""
    mail.hold("Q1", "anna@x.example", content=HOSTILE)
    shown = mail.run("held", "show", "Q1").stdout
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "X-Odd: <001b>]0;pwned<0007>" in shown
    assert "[bold]now[/bold]" in shown
    assert re.search(r"\[paragraph, hidden from readers[^]]*\] unseen words", shown)


def test_long_messages_are_cut_unless_asked_for_whole(mail: Reviewed) -> None:
    """Much text is not all shown, which is said."""
    body = b"".join(b"Offer %d: get 20%% off.\r\n\r\n" % number for number in range(3000))
    mail.hold("Q1", "anna@x.example", content=b"Subject: much\r\n\r\n" + body)
    cut, whole = mail.run("held", "show", "Q1").stdout, mail.run("held", "show", "Q1", "--whole").stdout
    assert "more passages; --whole shows them" in cut
    assert "--whole" not in whole
    assert "Offer 2999" in whole
    assert "Offer 2999" not in cut


def test_raw_writes_the_octets_that_came(two: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a pipe or a file; a terminal would be at the mercy of what is in them."""
    assert two.run("held", "show", "Q1", "--raw").stdout_bytes == PROMOTION
    monkeypatch.setattr("filter.cli_held._to_terminal", lambda: True)
    error = two.run("held", "show", "Q1", "--raw").exception
    assert isinstance(error, InputError)
    assert "--raw" in str(error)


def test_a_message_without_content_is_shown_as_far_as_it_is_there(two: Reviewed) -> None:
    """Its verdicts stay; that the content is gone is said."""
    two.run("held", "discard", "--queue-id", "Q1", "--why", "x", "--yes")
    shown = two.run("held", "show", "Q1").stdout
    assert "DISCARDED" in shown
    assert "The content is gone" in shown
    assert isinstance(two.run("held", "show", "Q1", "--raw").exception, InputError)
    assert two.documents("held", "show", "Q1")[0]["content"] is False


def test_an_unknown_message_is_an_error(two: Reviewed) -> None:
    """It is named."""
    assert "Q9: no such message" in str(two.run("held", "show", "Q9").exception)


# Orders


@pytest.mark.parametrize("command", ["release", "discard", "expire"])
def test_an_order_needs_a_reason_conditions_and_a_yes(two: Reviewed, command: str) -> None:
    """Without any of them nothing moves, and the message says what is missing."""
    missing = {
        ("--campaign", "ab", "--yes"): "--why",
        ("--why", "x", "--yes"): "--all",
        ("--why", "x", "--campaign", "ab"): "--yes",
        ("--why", "x", "--yes", "--all", "--campaign", "ab"): "--all",
    }
    for options, said in missing.items():
        error = two.run("held", command, *options).exception
        assert isinstance(error, InputError)
        assert said in str(error)
    assert two.states() == {"held": 4}


@pytest.mark.parametrize(("command", "state"), [("discard", "discarded"), ("expire", "expired")])
def test_what_is_ordered_away_is_gone(two: Reviewed, command: str, state: str) -> None:
    """The copies that match move, the others stay; who ordered it and why is kept, and in the journal."""
    result = two.run("held", command, "--campaign", "ab", "--why", "a test", "--author", "dora", "--yes")
    assert (result.exit_code, two.states()) == (0, {"held": 1, state: 3})
    assert "3 copies" in result.stdout
    assert "of dora: a test" in result.stdout
    (ordered,) = two.journal("ordered")
    assert (ordered["action"], ordered["author"]) == (command, "dora")
    assert sum(line["recipients"] for line in two.journal(state)) == 3


def test_an_order_that_meets_nothing_says_so(two: Reviewed) -> None:
    """Nothing is kept of it."""
    result = two.run("held", "discard", "--topic", "other", "--why", "x", "--yes")
    assert (result.exit_code, result.stdout) == (0, "No held copy matches; nothing was done.\n")
    assert two.journal("ordered") == []


def test_the_author_is_who_runs_it(two: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody is named; whoever uses sudo stays who they are."""
    monkeypatch.setenv("SUDO_USER", "emil")
    two.run("held", "discard", "--queue-id", "Q1", "--why", "x", "--yes")
    assert two.journal("ordered")[0]["author"] == cli_options.login_name() == "emil"


def test_release_delivers_what_may_go(two: Reviewed) -> None:
    """With --despite those of whom nothing is known get it, as it came behind our header; an objection stops it."""
    two.run("consent", "record", "ben@x.example", "kind=object", "controller=bank")
    result = two.run("held", "release", "--all", "--why", "a test", "--yes", "--despite")
    assert result.exit_code == 1  # not everything went
    assert two.states() == {"delivered": 2, "held": 2}
    assert sorted(two.hop.reached) == [b"anna@x.example", b"cleo@x.example"]
    for _, _, content in two.hop.delivered:
        header, _, rest = content.partition(TRACE)
        assert header.startswith(b"X-Consentry-Released: ")
        assert rest == PROMOTION
    assert "1 stay held: the person objected after it was held" in result.stdout
    assert "2 were delivered" in result.stdout
    assert {line["author"] for line in two.journal("ordered")} == {cli_options.login_name()}


def test_without_despite_what_is_not_known_stays(two: Reviewed) -> None:
    """A release is no way around the policy."""
    two.run("consent", "record", "other@x.example", "kind=object", "controller=bank")
    result = two.run("held", "release", "--campaign", "ac", "--why", "x", "--yes")
    assert (result.exit_code, two.states()) == (1, {"held": 4})
    assert two.hop.reached == []


def test_a_release_can_be_left_to_the_relay(two: Reviewed) -> None:
    """With --no-wait copies are released and nothing is sent by the command."""
    result = two.run("held", "release", "--campaign", "ac", "--why", "x", "--yes", "--no-wait")
    assert (result.exit_code, two.states()) == (0, {"held": 3, "released": 1})
    assert two.hop.transactions == []
    assert "1 wait to be delivered" in result.stdout


def test_what_cannot_be_delivered_now_waits(two: Reviewed) -> None:
    """The command says so, and its exit status too."""
    two.hop.final = Reply(451, "4.3.0", ("Later",))
    two.run("consent", "record", "other@x.example", "kind=object", "controller=bank")
    result = two.run("held", "release", "--queue-id", "Q3", "--why", "x", "--yes", "--despite")
    assert (result.exit_code, two.states()) == (1, {"held": 3, "released": 1})
    assert "1 could not be delivered now" in result.stdout


def test_an_order_goes_on_where_it_stopped(two: Reviewed) -> None:
    """The same order again delivers what is left of it, under its own author, reason and despite."""
    two.run("consent", "record", "other@x.example", "kind=object", "controller=bank")
    two.run("held", "release", "--queue-id", "Q3", "--why", "x", "--yes", "--despite", "--no-wait", "--author", "dora")
    order = two.documents("held", "list", "--state", "released")[0]["order"]
    (document,) = two.documents("held", "release", "--queue-id", "Q3", "--order", order, "--yes")
    assert document["order"]["author"] == "dora"
    assert document["states"] == {"delivered": 1}
    assert len(two.journal("ordered")) == 1
    assert two.states() == {"held": 3, "delivered": 1}


def test_an_order_is_not_taken_for_another(two: Reviewed) -> None:
    """An unknown order, one to do something else, and one without --despite are refused."""
    two.run("held", "release", "--queue-id", "Q3", "--why", "x", "--yes", "--no-wait")
    order = two.documents("held", "list", "--state", "released")[0]["order"]
    for command, options, said in (
        ("release", ("--order", "none"), "no such order"),
        ("discard", ("--order", order), "an order to release"),
        ("release", ("--order", order, "--despite"), "without --despite"),
    ):
        error = two.run("held", command, "--all", "--yes", *options).exception
        assert isinstance(error, InputError)
        assert said in str(error)


def test_an_order_that_goes_on_needs_its_conditions(two: Reviewed) -> None:
    """An order does not know which copies were meant; without conditions the message says that they are missing."""
    two.run("held", "release", "--queue-id", "Q3", "--why", "x", "--yes", "--no-wait")
    order = two.documents("held", "list", "--state", "released")[0]["order"]
    assert "same conditions" in str(two.run("held", "release", "--order", order, "--yes").exception)
    both = two.run("held", "release", "--all", "--queue-id", "Q3", "--why", "x", "--yes").exception
    assert "--all is for everything" in str(both)


def test_orders_are_listed(two: Reviewed) -> None:
    """The newest first, with who gave them, why, and what of them waits to be delivered."""
    assert two.run("held", "orders").stdout == "No order was given.\n"
    two.run("held", "discard", "--queue-id", "Q1", "--why", "sent twice", "--yes", "--author", "dora")
    two.run("held", "release", "--queue-id", "Q3", "--why", "agreed", "--yes", "--no-wait", "--author", "emil")
    documents = two.documents("held", "orders")
    assert [(one["action"], one["author"], one["why"], one["waiting"]) for one in documents] == [
        ("release", "emil", "agreed", 1),
        ("discard", "dora", "sent twice", 0),
    ]
    shown = two.run("held", "orders", "--limit", "1")
    assert documents[0]["id"] in shown.stdout
    assert documents[1]["id"] not in shown.stdout
    assert "There are more" in shown.stderr


def test_another_user_moves_nothing(two: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of root or of somebody else would be in the relay's way: the message says whose mail it is."""
    monkeypatch.setattr("filter.reviewing.os.geteuid", lambda: 12345)
    for command in (("discard", "--all", "--why", "x"), ("erase", "--queue-id", "Q1")):
        error = two.run("held", *command, "--yes").exception
        assert isinstance(error, InputError)
        assert "belongs to" in str(error)
    assert two.states() == {"held": 4}
    assert two.documents("held", "orders") == []


def test_who_may_not_look_is_told_who_may(two: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that belongs to another user is named, and whose commands may read it."""

    def refused(_config: object) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/x/held.sqlite")

    monkeypatch.setattr("filter.reviewing.app.held_mail", refused)
    error = two.run("held", "list").exception
    assert isinstance(error, InputError)
    assert "/var/lib/x/held.sqlite: permission denied; run this as the user whom the relay runs as" in str(error)


def test_what_cannot_be_undone_is_said_before(two: Reviewed) -> None:
    """An order names how many copies, for which reasons, and what there is no way back from."""
    for command, warning in (("release", "cannot be called back"), ("discard", "gone for good, and their senders are")):
        asked = two.run("held", command, "--all", "--why", "x").stderr
        assert "4 held copies of 3 messages (no_consent 2, objected 1, unsure 1)." in asked
        assert warning in asked


def test_senders_are_told_when_asked_for(two: Reviewed) -> None:
    """Copies that expire with --tell-senders expire by way of a report, where one is wanted; here nobody wants one."""
    result = two.run("held", "expire", "--queue-id", "Q3", "--why", "x", "--yes", "--tell-senders")
    assert (result.exit_code, two.states()) == (0, {"held": 3, "expired": 1})
    assert two.journal("expired")[0]["told"] == "not_wanted"


# Erasing and keys


def test_a_recipient_is_erased(two: Reviewed) -> None:
    """Every copy for the address goes, in whatever state; the others stay, and the journal says who did it."""
    result = two.run("held", "erase", "--recipient", "ANNA@x.example", "--author", "dora", "--yes")
    assert result.stdout == "Erased 2 copies.\n"
    assert two.states() == {"held": 2}
    (line,) = two.journal("erased")
    assert (line["author"], line["recipients"], len(line["subjects"])) == ("dora", 2, 1)
    assert two.run("held", "erase", "--recipient", "anna@x.example", "--yes").stdout.startswith("No copy matches")


def test_a_message_is_erased(two: Reviewed) -> None:
    """Nothing of it can be shown."""
    assert two.documents("held", "erase", "--queue-id", "Q1", "--yes") == [{"erased": 2}]
    assert "no such message" in str(two.run("held", "show", "Q1").exception)
    assert len(two.journal("erased")[0]["subjects"]) == 2


def test_erasing_is_not_done_by_accident(two: Reviewed) -> None:
    """It needs one thing to erase, and a yes."""
    for options in ((), ("--recipient", "a@x.example", "--queue-id", "Q1"), ("--queue-id", "Q1")):
        assert isinstance(two.run("held", "erase", *options).exception, InputError)
    assert two.states() == {"held": 4}


def test_a_new_master_key_wraps_everything(two: Reviewed) -> None:
    """After a rotation the earlier key can be taken away, and everything is still readable."""
    two.config.hold_key_file.chmod(0o600)
    (document,) = two.documents("held", "rotate-key")
    assert document["wrapped"] == 3
    file = two.config.hold_key_file
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert two.documents("held", "show", "Q1")[0]["content"] is True
    assert two.documents("held", "rotate-key", "--rewrap-only") == [{"key_id": "", "wrapped": 0}]


def test_an_address_need_not_be_an_argument(two: Reviewed) -> None:
    """Arguments are for every user of the machine to see; standard input is not."""
    listed = two.run("held", "list", "--recipient", "-", "--json", stdin=b"cleo@x.example\n").stdout
    assert '"Q3"' in listed
    assert '"Q1"' not in listed
    erased = two.run("held", "erase", "--recipient", "-", "--yes", stdin=b"anna@x.example\n")
    assert erased.stdout == "Erased 2 copies.\n"
    assert isinstance(two.run("held", "list", "--recipient", "-", stdin=b"").exception, InputError)


def test_erasing_forgets_the_subject_of_a_personal_campaign(two: Reviewed) -> None:
    """It may have a name that nothing told us to be one; that of a big campaign is nobody's."""
    two.seen(subject="The order of Anna Huber", sample="Q2")
    assert two.run("held", "erase", "--recipient", "anna@x.example", "--yes").exit_code == 0
    assert two.documents("campaign", "list", "--newest")[0]["subject"] == ""


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(
    "arguments",
    [
        ("release", "--all", "--why", "x", "--yes"),
        ("discard", "--all", "--why", "x", "--yes"),
        ("erase", "--queue-id", "Q1", "--yes"),
    ],
)
def test_nothing_is_done_that_cannot_be_recorded(two: Reviewed, arguments: tuple[str, ...]) -> None:
    """While the journal cannot be written a command fails before it moves or erases anything."""
    assert isinstance(two.run("held", *arguments).exception, OSError)
    assert two.states() == {"held": 4}

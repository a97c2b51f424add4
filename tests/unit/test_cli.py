"""The command line as its users see it: what it prints, what it refuses, how it exits."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from filter import console
from filter.campaign_store import SqliteLedger
from filter.campaigns import CampaignDecision, Decided
from filter.cli import cli
from filter.errors import ConsentryError
from filter.resources import config_dir

MAILBOX = config_dir() / "demo" / "mailbox"
MIXED = MAILBOX / "06-statement-with-loan.eml"
RAW = b"From: Shop <a@shop.example>\r\nSubject: Sale\r\n\r\nGet 20% off your next order today. Shop now and save!\r\n"

Run = Callable[..., Result]


@pytest.fixture
def run(rules_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command, with the tests' cache of compiled rules."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(rules_cache.parent))
    monkeypatch.delenv("CONSENTRY_CONFIG", raising=False)

    def invoke(*arguments: str | Path, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)

    return invoke


@pytest.fixture
def config(tmp_path: Path, rules_cache: Path) -> Path:
    """A configuration whose store is private to the test, but for the compiled rules."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "cache").symlink_to(rules_cache)
    file = tmp_path / "filter.toml"
    stream = '[[stream]]\ncontroller = "bank"\nbrand = "bank"\ntopic = "offers"\n'
    text = f'{stream}[store]\ndir = "var"\n[consent]\nstale_after = "9000d"\n'
    file.write_text(text)
    return file


def lines(result: Result) -> list[dict[str, Any]]:
    """The JSON documents a command wrote."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_classify_a_file(run: Run, tmp_path: Path) -> None:
    """A message file is judged; the table names label and words, the JSON form has the contract's fields."""
    file = tmp_path / "a.eml"
    file.write_bytes(RAW)
    shown = run("classify", file)
    assert shown.exit_code == 0
    assert "marketing" in shown.stdout
    (document,) = lines(run("classify", "--json", file))
    assert document["label"] == "marketing"
    assert {"id", "label", "score", "segments", "ruleset"} <= set(document)
    evidence = [(e, s["text"]) for s in document["segments"] for e in s["evidence"]]
    assert evidence
    assert all(text[e["start"] : e["end"]] == e["text"] and e["rule"] and e["cites"] for e, text in evidence)


def test_classify_jsonl_keeps_order_and_goes_on(run: Run) -> None:
    """Every line gets a line, in order; a bad one an error with its id or number, and the run goes on with status 1."""
    encoded = base64.b64encode(RAW).decode()
    stdin = "\n".join(
        [
            json.dumps({"id": "x", "channel": "sms", "text": "Your parcel arrives today between 2 and 4pm."}),
            "not json",
            "[1]",
            json.dumps({"id": 9, "raw_base64": encoded}),
            json.dumps({"id": "bad", "raw_base64": "%%%"}),
            json.dumps({"id": "odd", "channel": "pigeon", "text": "x"}),
            "",
        ]
    ).encode()
    result = run("classify", "--jsonl", stdin=stdin)
    found = lines(result)
    assert [document["id"] for document in found] == ["x", 2, 3, 9, "bad", "odd"]
    assert [document.get("label") for document in found] == ["service", None, None, "marketing", None, None]
    assert "pigeon" in found[5]["error"]
    assert result.exit_code == console.FOUND
    assert run("classify", "--jsonl", stdin=stdin.splitlines()[0]).exit_code == 0


@pytest.mark.parametrize("arguments", [(), ("--jsonl", "a.eml"), ("--text", "x", "a.eml")])
def test_classify_wants_one_source(run: Run, arguments: tuple[str, ...]) -> None:
    """Files, a text and standard input exclude each other, and none is an error."""
    assert run("classify", *arguments).exit_code == console.FAILED


def test_explain_on_paper(run: Run, config: Path, tmp_path: Path) -> None:
    """The page quotes the promotion, cites the law, shows the record relied on, and gives each recipient a verdict."""
    consents = tmp_path / "consents.csv"
    consents.write_text(
        "address,kind,channel,controller,brand,topic,event_time,source\n"
        "no@home.example,object,email,bank,,,2026-01-05T10:00:00Z,call centre\n"
    )
    assert run("consent", "import", consents, "-c", config).exit_code == 0
    rcpt = ("--rcpt", "no@home.example", "--rcpt", "new@home.example", "-c", config)
    result = run("explain", MIXED, *rcpt)
    page = " ".join(result.stdout.split())
    assert result.exit_code == 0, result.output
    for words in (
        "This message is mixed",
        'The sender declares it "service"; that decides nothing',
        "HOLD no@home.example",
        "objected to direct marketing, 2026-01-05 10:00 UTC, by call centre",
        "HOLD new@home.example",
        "there is no record",
        "R12",
    ):
        assert words in page
    assert "\x1b" not in result.stdout
    (document,) = lines(run("explain", MIXED, "--json", *rcpt))
    assert [(one["recipient"], one["disposition"], one["state"]) for one in document["recipients"]] == [
        ("no@home.example", "hold", "objected"),
        ("new@home.example", "hold", "unknown"),
    ]


def test_explain_without_an_index_says_so(run: Run, config: Path) -> None:
    """Without consent data promotion is held because it cannot be looked up, not because there is no record."""
    result = run("explain", MIXED, "--rcpt", "a@home.example", "-c", config, "--json")
    assert lines(result)[0]["recipients"][0]["consent"] == {"trouble": "unavailable"}
    assert "no consent index there yet" in result.stderr


def test_explain_names_the_decision_on_a_campaign(run: Run, config: Path, tmp_path: Path) -> None:
    """A reviewer's decision acts on what is explained, from when it was made; nothing is made by looking."""
    command = ("explain", MIXED, "--rcpt", "a@home.example", "-c", config)
    (document,) = lines(run(*command, "--json"))
    assert (len(document["campaign"]), document["decided"]) == (32, None)
    assert not (tmp_path / "var" / "hold").exists()
    ledger = SqliteLedger(tmp_path / "var" / "hold")
    at = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
    ledger.decide(CampaignDecision(document["campaign"], Decided.IS_SERVICE, "a recall", "ann", at))
    ledger.close()
    (document,) = lines(run(*command, "--json"))
    assert (document["decided"]["author"], document["recipients"][0]["reason"]) == ("ann", "decided_service")
    assert "by ann, 2026-11-20 00:00 UTC: a recall" in run(*command).stdout
    (document,) = lines(run(*command, "--json", "--at", "2026-11-19"))
    assert document["decided"] is None


def test_explain_null_sender_only_when_asked(run: Run, config: Path, tmp_path: Path) -> None:
    """A message without a From address is no report; only an empty --mail-from is."""
    file = tmp_path / "a.eml"
    file.write_bytes(RAW.partition(b"\r\n")[2])
    arguments = ("explain", file, "--rcpt", "a@home.example", "-c", config, "--json")
    assert lines(run(*arguments))[0]["recipients"][0]["disposition"] == "hold"
    assert lines(run(*arguments, "--mail-from", ""))[0]["recipients"][0]["reason"] == "null_sender"


def test_hostile_text_stays_text(run: Run, config: Path, tmp_path: Path) -> None:
    """Escape sequences in a subject or an address never reach the terminal, and markup is not interpreted."""
    file = tmp_path / "a.eml"
    file.write_bytes(
        b"From: \x1b[31mx <a@shop.example>\r\nSubject: [red]hi\x1b]0;x\x07[/red]\r\n\r\nGet 20% off today.\r\n"
    )
    result = run("explain", file, "--rcpt", "a\x1b[2J@home.example", "-c", config)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "[red]hi" in result.stdout


def test_consent_import_all_or_nothing(run: Run, config: Path, tmp_path: Path) -> None:
    """A bad line stops the import with its place and status 1; --skip-bad imports the rest and keeps the bad ones."""
    consents = tmp_path / "c.csv"
    consents.write_text(
        "address,kind,channel,event_time\na@home.example,object,email,2026-01-01T00:00:00Z\n@,grant,email,2026-01-01T00:00:00Z\n"
    )
    refused = run("consent", "import", consents, "-c", config)
    assert refused.exit_code == console.FOUND
    assert "c.csv:3: address" in refused.stderr
    assert "nothing imported" in refused.stdout
    assert json.loads(run("consent", "stats", "--json", "-c", config).stdout)["records"] == 0
    taken = run("consent", "import", consents, "-c", config, "--skip-bad", tmp_path / "bad.csv", "--json")
    document = json.loads(taken.stdout)
    assert (document["lines"], document["accepted"], document["rejected"]) == (2, 1, 1)
    assert "@,grant" in (tmp_path / "bad.csv").read_text()


def test_a_complete_feed_is_fresh_without_news(run: Run, config: Path, tmp_path: Path) -> None:
    """Importing the same file again says nothing about freshness, unless it is said to be complete."""
    consents = tmp_path / "c.csv"
    consents.write_text("address,kind,channel,event_time\na@home.example,object,email,2026-01-01T00:00:00Z\n")

    def as_of() -> int:
        return int(json.loads(run("consent", "stats", "--json", "-c", config).stdout)["as_of"])

    run("consent", "import", consents, "-c", config)
    first = as_of()
    run("consent", "import", consents, "-c", config)
    assert as_of() == first
    run("consent", "import", consents, "--complete", "-c", config)
    assert as_of() > first


def test_consent_show_record_and_export(run: Run, config: Path) -> None:
    """An objection recorded by hand is shown with what it amounts to, and exported without the address."""
    recorded = run(
        "consent", "record", "a@home.example", "kind=object", "channel=email", "controller=bank", "-c", config
    )
    assert recorded.exit_code == 0, recorded.output
    shown = run("consent", "show", "a@home.example", "-c", config)
    assert "objected to direct marketing" in shown.stdout
    exported = run("consent", "export", "-c", config).stdout
    expected = {"kind": "object", "controller": "bank", "brand": "*", "source": "recorded by hand", "bulk": False}
    assert expected.items() <= json.loads(exported).items()
    assert "Nothing on record permits" in shown.stdout
    assert "home.example" not in exported
    assert "No record" in run("consent", "show", "b@home.example", "-c", config).stdout
    assert "1 records about 1 addresses" in run("consent", "stats", "-c", config).stdout


def test_rules_lint_and_test(run: Run, tmp_path: Path) -> None:
    """Lint passes the shipped rules; test counts what came out as labelled and lists what did not."""
    assert "fine" in run("rules", "lint").stdout
    cases = tmp_path / "cases.jsonl"
    right = json.dumps({"label": "marketing", "channel": "email", "text": "Get 20% off your next order today."})
    wrong = json.dumps({"label": "survey", "channel": "email", "text": "Get 20% off your next order today."})
    cases.write_text(f"{right}\n")
    assert run("rules", "test", cases).exit_code == 0
    cases.write_text(f"{right}\n{wrong}\n")
    result = run("rules", "test", cases)
    assert result.exit_code == console.FOUND
    assert "1 of 2 as labelled" in result.stdout
    assert "cases.jsonl:2: survey, judged marketing" in result.stdout


def test_config_check(run: Run, config: Path, tmp_path: Path) -> None:
    """A good configuration is confirmed with what was loaded; a bad one lists every problem."""
    assert "fine" in run("config", "check", "-c", config).stdout
    bad = tmp_path / "bad.toml"
    bad.write_text("workers = 0\nwerkers = 1\n")
    error = run("config", "check", "-c", bad).exception
    assert isinstance(error, ConsentryError)
    assert "workers" in str(error)
    assert "werkers" in str(error)


def test_errors_end_with_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Our errors are printed once, without a traceback, and exit with status 2."""

    def fails() -> None:
        raise ConsentryError("the reason [bold]")

    with pytest.raises(SystemExit) as ended:
        console.run(fails)
    assert ended.value.code == console.FAILED
    assert capsys.readouterr().err == "consentry: the reason [bold]\n"


@pytest.mark.parametrize(
    ("fails_with", "words"),
    [
        (OSError(28, "No space left on device"), "consentry: output: No space left on device"),
        (PermissionError(13, "Permission denied", "/x/\x1b[31my"), "consentry: /x/<001b>[31my: Permission denied"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_no_error_looks_like_a_finding(
    fails_with: Exception, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk and a bug end with status 2, never 1, and escape sequences in names stay visible text."""
    monkeypatch.setattr(console, "_discard_output", lambda: None)

    def fails() -> None:
        raise fails_with

    with pytest.raises(SystemExit) as ended:
        console.run(fails)
    assert ended.value.code == console.FAILED
    assert words in capsys.readouterr().err


def test_odd_names_and_ids(run: Run) -> None:
    """An id comes back as given, a number and a text; without one, the number of the line stands for it."""
    stdin = b'{"id":1,"text":"hello"}\n{"id":null,"text":"hello"}\n{"text":"hello"}\n{"id":"\\u001b","text":"hello"}\n'
    assert [document["id"] for document in lines(run("classify", "--jsonl", stdin=stdin))] == [1, 2, 3, "\x1b"]


def test_arguments_need_not_be_utf_8(run: Run, config: Path) -> None:
    """Octets that are no text, as a shell may hand them over, are judged and written as replacement characters."""
    assert run("classify", "--json", "--text", "Save 20% \udcff").exit_code == 0
    (document,) = lines(run("explain", MIXED, "--json", "--rcpt", "\udcff@home.example", "-c", config))
    assert document["recipients"][0]["recipient"] == "\ufffd@home.example"


def test_version(run: Run) -> None:
    """--version prints name and version."""
    assert run("--version").stdout.startswith("consentry 0.")

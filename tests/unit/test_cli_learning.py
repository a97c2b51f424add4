"""`consentry train` and `consentry evaluate`, as somebody types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from filter import console
from filter.cli import cli

MESSAGES = [
    ("marketing", "Treat yourself: our new range is here, come and try it."),
    ("service", "Your parcel was delivered to your neighbour at 14:05."),
    ("mixed", "Your payment was received. Why not treat a friend this week?"),
    ("survey", "How did we do today? Tell us how your visit went."),
    ("re_permission", "May we keep writing to you about news?"),
]
SENTENCES = (
    "# lang: en\nM Treat yourself today\nM Try our new range\nS Your parcel is due\nA May we write\nQ How did we do\n"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of messages of three sources, and sentences."""
    for source in ("one", "two", "three"):
        lines = [
            {"id": f"{source}/{n}", "label": label, "text": text, "borderline": label == "survey"}
            for n, (label, text) in enumerate(MESSAGES)
        ]
        (tmp_path / f"{source}.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (tmp_path / "bank.txt").write_text(SENTENCES, "utf-8")
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and what was printed."""
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    return result.exit_code, result.output + str(result.exception or "")


def test_what_is_trained_is_used(data: Path) -> None:
    """Weights that were written beside rules judge with them, and the evaluation says how well."""
    rules = data / "rules"
    rules.mkdir()
    (rules / "a.toml").write_text(
        '[[rule]]\nid = "a.b"\nlabel = "marketing"\nweight = 1.0\npatterns = ["zzz"]\ncites = ["R1"]\n'
        'match = ["zzz", "a zzz"]\nno_match = ["a", "b"]\n',
        "utf-8",
    )
    status, said = run("train", "--messages", data, "--sentences", data, "--output", rules / "learned.json")
    assert status == 0, said
    assert "learned.json" in said
    status, said = run("evaluate", data / "one.jsonl", "--rules", rules, "--json")
    assert status == 0, said
    document = json.loads(said)
    assert document["all"]["messages"] == 5
    assert document["all"]["promotional"]["recall"]["value"] > 0


def test_the_report_names_the_worst_mistakes(data: Path) -> None:
    """Every table is there; borderline messages can be left out; the page stands alone."""
    page = data / "report.html"
    status, said = run("evaluate", data, "--clear", "--worst", "3", "--html", page)
    assert status == 0, said
    assert "12 messages" in said
    for heading in ("Promotional or not", "By label", "Labelled, and judged", "Calibration", "By source"):
        assert heading in said
    text = page.read_text("utf-8")
    assert text.count("<svg") == 3
    assert "http-equiv" not in text
    assert "src=" not in text


def test_figures_are_split(data: Path) -> None:
    """The document has the figures of all messages, and of each source, language and channel on its own."""
    status, said = run("evaluate", data, "--json")
    assert status == 0, said
    document = json.loads(said)
    assert list(document) == ["rules", "all", "sources", "languages", "channels"]
    assert {name: part["messages"] for name, part in document["sources"].items()} == {"one": 5, "two": 5, "three": 5}
    assert document["languages"] == {"en": document["all"]}
    assert document["channels"] == {"email": document["all"]}


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_a_page_that_cannot_be_written_is_told(data: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is one line that names the file and why, and the status is that of a failure."""
    page = data / place
    with pytest.raises(SystemExit) as ended:
        console.run(lambda: cli(["evaluate", str(data / "one.jsonl"), "--html", str(page)]))
    assert ended.value.code == console.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"consentry: {page}: cannot be written: ")


def test_references_are_measured_beside_it(data: Path) -> None:
    """Other classifiers, fitted to the training data, get a row of their own."""
    status, said = run(
        *("evaluate", data / "one.jsonl", "--references", "--messages", data / "two.jsonl"),
        *("--messages", data / "three.jsonl", "--sentences", data),
    )
    assert status == 0, said
    assert "TF-IDF" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("evaluate", "nothing.jsonl"), "nothing.jsonl"),
        (("train", "--messages", "nothing"), "nothing"),
        (("train", "--specificity", "1.5"), "less than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: tuple[str, ...], told: str) -> None:
    """The error names the file or the value."""
    status, said = run(*arguments)
    assert status != 0
    assert told in said


def test_nothing_to_measure_is_an_error(data: Path) -> None:
    """A directory without messages, or with none left, is no evaluation."""
    (data / "empty").mkdir()
    status, said = run("evaluate", data / "empty")
    assert status != 0
    assert "a directory with *.jsonl" in said

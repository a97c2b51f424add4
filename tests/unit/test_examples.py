"""Labelled examples: both forms are read, and whatever is wrong with a file is told by line."""

import base64
import json
from pathlib import Path

import pytest

from filter.errors import ExampleError
from filter.examples import Purpose, read_messages, read_sentences, words_of
from filter.labels import Channel, Label

MESSAGE = {"id": "a/1", "label": "mixed", "subject": "Your bill", "text": "Due on 3 May. Try our new tariff."}


def messages(directory: Path, *documents: object) -> Path:
    """A file of these documents, a line each; texts as they are."""
    path = directory / "counter.jsonl"
    path.write_text("\n".join(d if isinstance(d, str) else json.dumps(d) for d in documents) + "\n", "utf-8")
    return path


def sentences(directory: Path, text: str) -> Path:
    """A file of sentences."""
    path = directory / "german-2.txt"
    path.write_text(text, "utf-8")
    return path


def test_a_message_is_read_with_what_is_known_of_it(tmp_path: Path) -> None:
    """Every field comes over; what is not given has its default."""
    full = {**MESSAGE, "source": "letters", "lang": "de", "channel": "sms", "borderline": True}
    first, second = read_messages(
        messages(tmp_path, {**full, "spans": ["Try our new tariff."], "pair": "a/2"}, MESSAGE)
    )
    assert (first.source, first.lang, first.label, first.borderline) == ("letters", "de", Label.MIXED, True)
    assert (first.spans, first.pair, first.message.channel) == (("Try our new tariff.",), "a/2", Channel.SMS)
    assert (second.source, second.lang, second.borderline, second.spans) == ("counter", "en", False, ())
    assert second.message.subject == "Your bill"


def test_a_raw_message_is_read(tmp_path: Path) -> None:
    """A message may be given as its octets."""
    raw = base64.b64encode(b"Subject: Hello\r\n\r\nYour code is 123456.\r\n").decode()
    (one,) = read_messages(messages(tmp_path, {"id": "1", "label": "service", "raw_base64": raw}))
    assert one.message.subject == "Hello"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "a JSON object"),
        ("[]", "a JSON object"),
        ({**MESSAGE, "label": "spam"}, "label: 'spam': one of service, marketing, mixed, re_permission, survey"),
        ({**MESSAGE, "id": ""}, "id: '': a text"),
        ({**MESSAGE, "lang": 3}, "lang: 3: a text"),
        ({"id": "1", "label": "service"}, "text: missing"),
        ({"id": "1", "label": "service", "raw_base64": "?"}, ""),
    ],
)
def test_a_bad_message_is_told_by_line(tmp_path: Path, line: object, told: str) -> None:
    """The error names file and line, and every bad line is told at once."""
    path = messages(tmp_path, MESSAGE, line, "{")
    with pytest.raises(ExampleError) as caught:
        read_messages(path)
    assert f"{path}:2" in str(caught.value)
    assert f"{path}:3" in str(caught.value)
    assert told in str(caught.value)


def test_sentences_are_read_by_letter(tmp_path: Path) -> None:
    """Headings and empty lines are passed over; the source is the file's name up to a hyphen."""
    found = read_sentences(sentences(tmp_path, "# lang: de\n# Strom\nM Jetzt wechseln!\n\nS Ihre Rechnung ist da.\n"))
    assert [(one.source, one.lang, one.purpose, one.text) for one in found] == [
        ("german", "de", Purpose.PROMOTES, "Jetzt wechseln!"),
        ("german", "de", Purpose.SERVES, "Ihre Rechnung ist da."),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("M Jetzt wechseln!\n", ":1: M Jetzt wechseln!: a first line such as # lang: en"),
        ("# lang: de\nX Jetzt\n", ":2: X Jetzt: one of the letters M, A, Q, S, N, a space and a sentence"),
        ("# lang: de\nM\n", ":2: M: one of the letters"),
    ],
)
def test_a_bad_sentence_is_told_by_line(tmp_path: Path, text: str, told: str) -> None:
    """The error names file, line and what is allowed."""
    with pytest.raises(ExampleError, match="the sentences cannot be used") as caught:
        read_sentences(sentences(tmp_path, text))
    assert told in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Both readers name the file that is not there."""
    for read in (read_messages, read_sentences):
        with pytest.raises(ExampleError, match=r"nothing\.txt"):
            read(tmp_path / "nothing.txt")


def test_passages_are_compared_by_their_words() -> None:
    """Case, spaces, quotes, accents and the value of a figure make no difference; another word does."""
    assert words_of("Why  not\n treat a friend: it\u2019s 20% off.") == words_of("WHY NOT treat a friend, it's 30% off")
    assert words_of("Café, today.") == words_of("cafe today")
    assert words_of("Treat a friend") != words_of("Treat friends")
    assert words_of(" - ") == ""

"""The labelled messages and sentences in `tests/data` are in their form: what is fitted and measured rests on that."""

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from filter.examples import read_sentences
from filter.labels import Channel, Label

FILES = sorted((Path(__file__).parents[1] / "data" / "messages").glob("*.jsonl"))
SENTENCES = sorted((Path(__file__).parents[1] / "data" / "sentences").glob("*.txt"))
LONGEST = 302
SOME_WORDS = 5  # shorter sentences are anybody's
KEPT_BACK = ("heldout.jsonl", "unseen.jsonl")  # sources to measure with
REQUIRED = {"id", "source", "industry", "lang", "channel", "label", "borderline"}
OPTIONAL = {"from", "subject", "text", "html", "spans", "pair", "why"}
_TAG = re.compile(r"<[^>]*>")
_REAL_DOMAIN = re.compile(r"@[\w.-]*(?<!\.example)(?:>|$)")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _words(text: str) -> str:
    return " ".join(unescape(_TAG.sub(" ", text)).split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_message_is_in_its_form(path: Path) -> None:
    """Fields, labels and channels are known, ids name the source and are unique, and there is something to read."""
    messages = _lines(path)
    for one in messages:
        assert set(one) >= REQUIRED, one["id"]
        assert set(one) <= REQUIRED | OPTIONAL, one["id"]
        assert one["source"] == path.stem
        assert one["id"].startswith(f"{path.stem}/")
        assert Label(one["label"])
        assert Channel(one["channel"])
        assert one.get("text") or one.get("html"), one["id"]
        assert not _REAL_DOMAIN.search(one.get("from", "")), one["id"]
    assert Counter(one["id"] for one in messages).most_common(1)[0][1] == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_promotional_passages_stand_in_their_message(path: Path) -> None:
    """Each passage is there word for word; a mixed message has at least one; twins name each other's file."""
    messages = {one["id"]: one for one in _lines(path)}
    for name, one in messages.items():
        read = _words(" ".join([one.get("subject", ""), one.get("text") or "", one.get("html") or ""]))
        for span in one.get("spans", ()):
            assert _words(span) in read, (name, span)
        assert one["label"] != Label.MIXED or one.get("spans"), name
        assert one.get("pair", name) in messages, name


@pytest.mark.parametrize("path", SENTENCES, ids=lambda path: path.stem)
def test_every_sentence_is_in_its_form(path: Path) -> None:
    """Sentences can be read, are short enough to be one, and say what language they are in."""
    found = read_sentences(path)
    assert found
    assert all(len(one.text) <= LONGEST for one in found)


def test_sentences_are_each_their_own() -> None:
    """None stands there twice, and none is a sentence of a message that is kept back to measure with."""
    texts = [one.text.lower() for path in SENTENCES for one in read_sentences(path)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []
    kept_back = {
        sentence.lower()
        for name in KEPT_BACK
        for one in _lines(FILES[0].with_name(name))
        for sentence in re.split(r"(?<=[.!?])\s+|\n", one.get("text") or _TAG.sub("\n", one.get("html") or ""))
        if len(sentence.split()) > SOME_WORDS
    }
    assert kept_back.intersection(texts) == set()

"""The labelled messages in `tests/data/messages` are in their form: what is measured with them rests on that."""

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from filter.labels import Channel, Label

FILES = sorted((Path(__file__).parents[1] / "data" / "messages").glob("*.jsonl"))
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

"""Labelled examples -> values: messages and sentences that weights are fitted to, and that judgements are measured on.

    messages, a JSON object a line: id, label, and the message: from, subject, text or html, or raw_base64. May have
        channel (email), lang (en), source (the file's name), borderline; spans: the promotional passages of a mixed
        message; pair: the id of the same message with or without such a passage
    sentences, a text file: `# lang: de`, other lines with `#` are headings, and `M Your treat is on us`. Letters: M
        promotes, A asks for consent, Q asks for an opinion, S serves, N neither

Raises ExampleError, which names file, line, value and what is allowed, with every problem of a file.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from .errors import ExampleError, InputError, Problem
from .labels import Channel, Label
from .learned import terms_of
from .message import Message, message_from_json, parse_message
from .sheet import lines_of

_SHOWN: Final = 60


class Purpose(StrEnum):
    """What a sentence is for, as its letter in a file."""

    PROMOTES = "M"
    ASKS = "A"
    SURVEYS = "Q"
    SERVES = "S"
    NEITHER = "N"


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message with the label that a reader gave it; `spans` are the promotional passages of a mixed one."""

    id: str
    source: str
    lang: str
    label: Label
    message: Message
    borderline: bool = False
    spans: tuple[str, ...] = ()
    pair: str = ""


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A sentence with its purpose. The source is the name of its file up to a hyphen."""

    source: str
    lang: str
    purpose: Purpose
    text: str


def words_of(passage: str) -> str:
    """The words of a passage, with a space between: what spans are compared by, however they are set."""
    return " ".join(term for line in lines_of(passage) for term in terms_of(line) if " " not in term)


def read_messages(path: Path) -> list[LabelledMessage]:
    """The messages of one file."""
    problems: list[Problem] = []
    found = [_message(path, number, line, problems) for number, line in _lines(path) if line.strip()]
    if problems:
        raise ExampleError("the messages cannot be used", problems)
    return [one for one in found if one]


def read_sentences(path: Path) -> list[LabelledSentence]:
    """The sentences of one file."""
    problems: list[Problem] = []
    source, lang, found = path.stem.partition("-")[0], "", []
    for number, line in _lines(path):
        if given := re.fullmatch(r"# lang: ([a-z]{2})", line):
            lang = given[1]
        elif line and not line.startswith("#"):
            letter, _, text = line.partition(" ")
            if not lang:
                problems.append(Problem(f"{path}:{number}", line[:_SHOWN], "a first line such as # lang: en"))
            elif letter not in set(Purpose) or not text.strip():
                allowed = f"one of the letters {', '.join(Purpose)}, a space and a sentence"
                problems.append(Problem(f"{path}:{number}", line[:_SHOWN], allowed))
            else:
                found.append(LabelledSentence(source, lang, Purpose(letter), text.strip()))
    if problems:
        raise ExampleError("the sentences cannot be used", problems)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExampleError("the examples cannot be read", [Problem(str(path), "", str(error))]) from error
    return enumerate(text.split("\n"), 1)


def _message(path: Path, number: int, line: str, problems: list[Problem]) -> LabelledMessage | None:
    place = f"{path}:{number}"
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        problems.append(Problem(place, line[:_SHOWN], f"a JSON object: {error}"))
        return None
    if not isinstance(document, dict):
        problems.append(Problem(place, line[:_SHOWN], "a JSON object"))
        return None
    document = {"source": path.stem, "lang": "en", **document}
    bad = [name for name in ("id", "source", "lang") if not isinstance(document.get(name), str) or not document[name]]
    problems += [Problem(f"{place}: {name}", repr(document.get(name)), "a text") for name in bad]
    if (label := document.get("label")) not in set(Label):
        problems.append(Problem(f"{place}: label", repr(label), f"one of {', '.join(Label)}"))
        return None
    try:
        message = _content(document)
    except (InputError, binascii.Error) as error:
        problems.append(Problem(place, "", str(error)))
        return None
    return None if bad else _labelled(document, message)


def _labelled(document: dict[str, Any], message: Message) -> LabelledMessage:
    return LabelledMessage(
        id=document["id"],
        source=document["source"],
        lang=document["lang"],
        label=Label(document["label"]),
        message=message,
        borderline=bool(document.get("borderline")),
        spans=tuple(document.get("spans") or ()),
        pair=str(document.get("pair") or ""),
    )


def _content(document: dict[str, Any]) -> Message:
    if raw := document.get("raw_base64"):
        return parse_message(base64.b64decode(raw, validate=True))
    fields = ("from", "subject", "text", "html")
    given = {name: document[name] for name in fields if document.get(name)}
    return message_from_json({"channel": document.get("channel", Channel.EMAIL), **given})

"""Our scanner and the standard library agree on every message of the corpora.

Documented differences: our text has CRLF as LF and no trailing line ends; iso-8859-1 and ASCII are read as
windows-1252; a header is read unfolded and cleaned, and its 8-bit octets as UTF-8 (the library makes U+FFFD of them).
"""

import base64
import email
import email.header
import email.utils
import json
from pathlib import Path

import pytest

from filter.message import message_from_json, parse_message
from filter.mime import scan
from filter.segments import clean
from filter.transfer import MAX_TEXT, decode_body, decode_octets

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def rows(name):
    """The lines of a corpus file; none without the shared directory."""
    path = CORPUS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


MAIL = {row["id"]: base64.b64decode(row["raw_base64"]) for row in rows("dev.jsonl") if "raw_base64" in row}
TEXTS = [row for row in [*rows("dev.jsonl"), *rows("casebook.jsonl")] if row.get("text")]

pytestmark = pytest.mark.skipif(not MAIL, reason="needs ../shared/corpus")


def normal(text):
    """Text with LF line ends, without those at the end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


def theirs(raw):
    """Text parts as the standard library decodes them."""
    found = []
    for part in email.message_from_bytes(raw).walk():
        if part.get_content_type() in ("text/plain", "text/html"):
            charset = part.get_content_charset() or "utf-8"
            octets = part.get_payload(decode=True)
            codec = "cp1252" if charset in ("iso-8859-1", "us-ascii") and not octets.isascii() else charset
            found.append((part.get_content_type(), normal(octets.decode(codec, "replace"))))
    return found


def ours(raw):
    """Text parts as we decode them."""
    found = scan(raw)
    return [
        (
            part.media_type,
            normal(
                decode_octets(
                    decode_body(found.octets, (part.start, part.end), part.encoding, MAX_TEXT, []),
                    part.parameters.get("charset", ""),
                    [],
                )
            ),
        )
        for part in found.parts
    ]


@pytest.mark.parametrize("name", MAIL)
def test_parts_agree(name):
    """Every text part has the same type and the same text."""
    assert ours(MAIL[name]) == theirs(MAIL[name])


@pytest.mark.parametrize("name", MAIL)
def test_headers_agree(name):
    """Subject and sender are the same."""
    message = parse_message(MAIL[name])
    other = {field.lower(): value for field, value in reversed(list(email.message_from_bytes(MAIL[name]).raw_items()))}

    def unfolded(field):
        return other.get(field, "").encode("ascii", "surrogateescape").decode().replace("\r", "").replace("\n", "")

    def decoded(value):
        return clean(str(email.header.make_header(email.header.decode_header(value))))

    assert message.subject == decoded(unfolded("subject"))
    display, address = email.utils.parseaddr(unfolded("from"))
    assert (message.from_name, message.from_address) == (decoded(display), address)


def test_texts_survive():
    """Every word of the text messages of both corpora is in the segments, in order."""
    for row in TEXTS:
        message = message_from_json({key: row[key] for key in ("subject", "text", "channel") if row.get(key)})
        read = "".join("".join(s.text.split()) for s in message.segments if s.kind != "subject")
        wanted = "".join(clean(row["text"]).split())
        assert [c for c in read if c.isalnum()] == [c for c in wanted if c.isalnum()], row["id"]

"""The demo's mailbox, consent records and configuration: what they must show, and that they hold together."""

import csv
import hashlib
from collections.abc import Iterator
from email.utils import getaddresses
from pathlib import Path

import pytest

from filter.config import load_config
from filter.consent_formats import COLUMNS
from filter.labels import Label
from filter.message import Message, parse_message

DEMO = Path(__file__).parents[2] / "config" / "demo"
EXPECTED = {
    "01-statement": (Label.SERVICE, False),
    "02-password-reset": (Label.SERVICE, False),
    "03-delivery": (Label.SERVICE, False),
    "04-recall": (Label.SERVICE, False),
    "05-price-change": (Label.SERVICE, False),
    "06-statement-with-loan": (Label.MIXED, True),
    "07-card-benefits": (Label.MARKETING, True),
    "08-hear-from-us": (Label.RE_PERMISSION, True),
    "09-survey": (Label.SURVEY, False),
    "10-survey-with-voucher": (Label.MARKETING, False),
    "11-winter-appeal": (Label.MARKETING, False),
    "12-usage-and-add-on": (Label.MIXED, True),
    "13-trade-sale": (Label.MARKETING, False),
}


def _message(name: str) -> Message:
    return parse_message((DEMO / "mailbox" / f"{name}.eml").read_bytes())


def _recipients() -> Iterator[tuple[str, str]]:
    for file in sorted((DEMO / "mailbox").glob("*.eml")):
        head = file.read_text("utf-8").partition("\n\n")[0].replace("\n ", " ")
        to = [line.removeprefix("To:") for line in head.split("\n") if line.startswith("To:")]
        yield from ((file.stem, address) for _, address in getaddresses(to))


def _records() -> list[dict[str, str]]:
    with (DEMO / "consents.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_mailbox_is_what_is_expected_here():
    """Each message of the mailbox has its expectation in this test, and the other way round."""
    assert {file.stem for file in (DEMO / "mailbox").glob("*.eml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_message_is_judged_as_the_demo_says(name, classifier):
    """Each message gets its label, and is called disguised exactly when it claims to be service and promotes."""
    found = classifier.classify(_message(name))
    assert (found.label, found.disguised) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_message_is_read_without_defects(name):
    """The mailbox is sound mail: everything in it can be read."""
    assert _message(name).defects == ()


def test_recipients_have_records_in_every_state():
    """Every recipient but one has consent records, and the records show every kind of basis and of refusal."""
    recorded = {record["address"] for record in _records()}
    assert {address for _, address in _recipients()} - recorded == {"nina.kaur@home.example"}
    kinds = {record["kind"] for record in _records()}
    assert kinds >= {
        "grant",
        "soft_opt_in",
        "charity_soft_opt_in",
        "solicited",
        "corporate",
        "refuse",
        "object",
        "block",
    }


def test_records_use_the_generic_columns():
    """The demo's CSV has only columns that the importer knows."""
    assert set(_records()[0]) <= set(COLUMNS)


def test_wordings_are_kept_and_match_their_hashes():
    """Each record's wording is on file, and its hash is that of the file (law rule R28)."""
    worded = [record for record in _records() if record["wording_id"]]
    assert worded
    for record in worded:
        text = (DEMO / "wordings" / f"{record['wording_id']}.txt").read_bytes()
        assert hashlib.sha256(text).hexdigest() == record["wording_sha256"]


def test_every_sender_has_its_stream():
    """Each From domain of the mailbox has a stream of its own, in enforce mode."""
    streams = load_config(DEMO / "filter.toml").stream
    domains = {domain for stream in streams if stream.match for domain in stream.match.from_domain}
    assert {_message(name).from_address.partition("@")[2] for name in EXPECTED} <= domains


def test_all_addresses_are_invented():
    """Nobody real is in the demo: every address ends in .example."""
    addresses = {address for _, address in _recipients()} | {record["address"] for record in _records()}
    assert all(address.endswith(".example") for address in addresses)

"""The demo's mailbox, consent records and configuration: what they must show, that they hold together, and that the
demo finds every copy that is not where it must be.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from email.utils import getaddresses
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from filter import app
from filter.address import SubjectKeyer
from filter.config import load_config
from filter.consent_formats import COLUMNS
from filter.consent_import import import_file
from filter.decision import Decider
from filter.demo_copies import Followed, Journal, Place, Sent, whereabouts
from filter.demo_mailbox import AS_OF, DemoError, mailbox, moved, prepare
from filter.demo_page import balance, page, sound
from filter.demo_sink import UNKNOWN, Delivered
from filter.labels import Channel, Label
from filter.message import Message, parse_message
from filter.policy import Reason
from filter.store_directory import own

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
    """Every recipient but two has consent records, and the records show every kind of basis and of refusal."""
    recorded = {record["address"] for record in _records()}
    assert {address for _, address in _recipients()} - recorded == {"nina.kaur@home.example", *UNKNOWN}
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


# What is decided about the messages that promote; everything else goes to everyone.
SAID = {
    "06": (Reason.CONSENT, Reason.OBJECTED, Reason.OBJECTED, Reason.NO_CONSENT),
    "07": (Reason.CONSENT, Reason.OBJECTED, Reason.NO_CONSENT),
    "08": (Reason.CONSENT, Reason.OBJECTED, Reason.NO_CONSENT),
    "10": (Reason.SOFT_OPT_IN, Reason.OBJECTED, Reason.NO_CONSENT),
    "11": (Reason.SOFT_OPT_IN, Reason.OBJECTED, Reason.NO_CONSENT),
    "12": (Reason.CONSENT, Reason.SOFT_OPT_IN, Reason.OBJECTED, Reason.NO_CONSENT),
    "13": (
        *(Reason.CONSENT, Reason.SOFT_OPT_IN, Reason.CORPORATE, Reason.SOLICITED),
        *(Reason.NO_CONSENT, Reason.NO_CONSENT, Reason.BLOCKED),
    ),
}
DAYS = (AS_OF, date(2026, 4, 1), date(2026, 11, 22), date(2027, 2, 28), date(2028, 2, 29), date(2031, 8, 17))


@pytest.mark.parametrize("today", DAYS, ids=str)
def test_outcome_does_not_depend_on_the_day(today, classifier, tmp_path):
    """On whatever day the demo runs, each recipient is in the same consent state as on every other."""
    records = prepare(tmp_path / "demo", today)
    (tmp_path / "demo" / "filter.toml").write_text((DEMO / "filter.toml").read_text())
    config = load_config(tmp_path / "demo" / "filter.toml")
    at = int(datetime.combine(today, time(9), UTC).timestamp() * 1000)
    with app.consent_store(config, readonly=False) as store:
        report = import_file(store, records, now=at)
        assert (report.rejected, report.repaired) == (0, 0)
        decider = Decider(classifier, store, config.streams(), config.decision_policy())
        for mail in mailbox():
            decision = decider.decide(parse_message(mail.content), mail.sender, mail.recipients, at)
            # Beside the reason that it is disguised stands what the recipient has said.
            verdicts = [one.verdict for one in decision.recipients]
            said = tuple(one.notes[0] if one.reason is Reason.DISGUISED_MARKETING else one.reason for one in verdicts)
            assert said == SAID.get(mail.file.name[:2], (verdicts[0].reason,) * len(said)), mail.file.name


def test_every_date_moves_but_one_that_law_has_fixed():
    """Times of events and dates in references move by the same days; a charity's record from before its law stays."""
    grant = "a@b.example,grant,2026-01-30T10:15:00Z,form log 2026-01-30,1234-56\n"
    assert moved(grant, date(2026, 11, 22)) == grant.replace("2026-01-30", "2026-02-01")
    early = "a@b.example,charity_soft_opt_in,2026-02-04T23:59:00Z,\n"
    assert moved(early, date(2031, 1, 1)) == early
    assert moved(early.replace("04", "05"), date(2026, 11, 21)) == early.replace("04", "06")
    text = (DEMO / "consents.csv").read_text()
    assert moved(text, AS_OF) == text


def test_a_directory_in_use_is_left_alone(tmp_path):
    """The demo empties its own directory, but no other one, and not while a demo runs there."""
    (tmp_path / "filter.toml").write_text("mine")
    with pytest.raises(DemoError, match="no demo directory"):
        prepare(tmp_path, AS_OF)
    assert [path.name for path in tmp_path.iterdir()] == ["filter.toml"]
    store = tmp_path / "demo" / "store"
    prepare(tmp_path / "demo", AS_OF)
    for name in ("cache", "hold"):
        (store / name).mkdir()
    with own(store), pytest.raises(DemoError, match="a demo is running there"):
        prepare(tmp_path / "demo", AS_OF)
    assert (store / "hold").exists()
    prepare(tmp_path / "demo", AS_OF)
    assert sorted(path.name for path in store.iterdir()) == ["cache", "owner"]


ONE, TWO, GONE = "maya.okafor@home.example", "tom.hall@home.example", "moved.away@home.example"
KEYER = SubjectKeyer(bytes(32))


def _subject(address: str) -> str:
    return KEYER.subject(address, Channel.EMAIL).exact.hex()


def _journal(directory: Path, relayed: Sequence[str], held: Sequence[str]) -> Journal:
    """A journal that says where the copies of message Q1 are."""
    reasons = {ONE: "consent", TWO: "disguised_marketing"}
    lines: list[dict[str, object]] = [{"queue_id": "Q1", "event": "message", "label": "mixed", "disguised": True}]
    lines += [
        {"queue_id": "Q1", "event": "decision", "subject": _subject(one), "reason": reason, "notes": ["objected"]}
        for one, reason in reasons.items()
    ]
    lines.append({"queue_id": "Q1", "event": "relayed", "subjects": [_subject(one) for one in relayed]})
    lines.append({"queue_id": "Q1", "event": "held", "subjects": [_subject(one) for one in held]})
    (directory / "2026-11-20.0.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    journal = Journal(directory, KEYER)
    assert len(journal.look()) == len(relayed) + len(held)
    assert not journal.look()
    return journal


def _followed(
    journal: Journal, arrived: Sequence[str], held: Sequence[str], *, instead_of: str = "", code: int = 250
) -> Followed:
    mail = next(mail for mail in mailbox() if mail.file.name.startswith("03"))
    mail = type(mail)(mail.file, mail.sender, (ONE, TWO, GONE), mail.subject, mail.message_id, mail.content)
    sent = Sent(mail, {GONE: "550 5.1.1 no"}, code, "2.0.0 Ok: taken as Q1")
    delivered = [Delivered(mail.message_id, one, instead_of) for one in arrived]
    (followed,) = whereabouts([sent], delivered, Counter(("Q1", one) for one in held), journal)
    return followed


def _printed(*followed: Followed) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(page(followed))
    console.print(balance(followed))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_copy_is_followed(tmp_path):
    """A copy is where it was found, with the reason that the journal gives, or the reply by which it was refused."""
    followed = _followed(_journal(tmp_path, [ONE], [TWO]), [ONE], [TWO])
    assert [copy.place for copy in followed.copies] == [Place.RELAYED, Place.HELD, Place.REFUSED]
    assert (followed.label, followed.disguised, sound([followed])) == (Label.MIXED, True, True)
    printed = _printed(followed)
    assert "HELD      promotional; has said no" in printed
    assert "REFUSED   550 5.1.1 no" in printed
    assert "3 copies sent: 1 refused, 2 accepted = 1 at the next hop + 1 held." in printed
    assert "Checked" in printed


def test_a_diverted_copy_counts_for_its_original_recipient(tmp_path):
    """A copy that arrives elsewhere with its original recipient named is that recipient's, diverted."""
    followed = _followed(_journal(tmp_path, [], [ONE]), ["desk@company.example"], [ONE], instead_of=TWO)
    assert [copy.place for copy in followed.copies] == [Place.HELD, Place.DIVERTED, Place.REFUSED]
    assert not sound([followed])  # of which the journal says nothing


@pytest.mark.parametrize(
    ("arrived", "held", "wrong"),
    [
        ([], [TWO], f"{ONE}: missing"),
        ([ONE, ONE], [TWO], f"{ONE}: twice"),
        ([ONE], [ONE, TWO], f"{ONE}: twice"),
        ([ONE, TWO], [], f"{TWO}: relayed"),
        ([ONE, GONE], [TWO], f"{GONE}: twice"),
    ],
)
def test_a_copy_that_is_astray_is_found(tmp_path, arrived, held, wrong):
    """A copy that is nowhere, in two places, or elsewhere than the journal says fails the check, and is named."""
    followed = _followed(_journal(tmp_path, [ONE], [TWO]), arrived, held)
    assert not sound([followed])
    assert wrong in _printed(followed)


def test_a_message_refused_as_a_whole_is_nowhere(tmp_path):
    """When the reply to the content is a refusal, every copy is the sender's."""
    followed = _followed(_journal(tmp_path, [], []), [], [], code=451)
    assert {copy.place for copy in followed.copies} == {Place.REFUSED}
    assert sound([followed])
    assert "not judged" in _printed(followed)

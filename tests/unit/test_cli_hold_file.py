"""`consentry held check` and `held backup`, as an operator uses them."""

import json
from pathlib import Path

import pytest
from support.reviewing import CAMPAIGN, HOUR, Reviewed

from filter.classify import Classifier
from filter.errors import InputError
from filter.hold_schema import FILE_NAME


@pytest.fixture
def mail(tmp_path: Path, rules_cache: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    """Two held messages, three copies."""
    monkeypatch.delenv("CONSENTRY_HOLD_KEYS", raising=False)
    reviewed = Reviewed(tmp_path, rules_cache, classifier)
    reviewed.hold("Q1", "anna@x.example", "ben@x.example", age=3 * HOUR)
    reviewed.hold("Q2", "anna@x.example", reason="objected")
    return reviewed


def damage(file: Path) -> None:
    """Change one octet of the envelope of Q2."""
    octets = bytearray(file.read_bytes())
    place = octets.find(CAMPAIGN.encode(), octets.find(b"Q2"))
    octets[place] ^= 1
    file.write_bytes(octets)


def test_a_sound_store_is_said_to_be(mail: Reviewed) -> None:
    """Every message is read, and the command ends well."""
    told = mail.run("held", "check")
    assert told.exit_code == 0
    assert told.stdout == "2 messages were read; copies: 3 held.\nEvery octet is as it was stored.\n"
    (document,) = mail.documents("held", "check")
    assert (document["sound"], document["messages"], document["copies"]) == (True, 2, {"held": 3})


def test_damage_is_named(mail: Reviewed) -> None:
    """The message is named with what is wrong, the others are counted, and the status is 1."""
    damage(mail.store / "hold" / FILE_NAME)
    told = mail.run("held", "check")
    assert told.exit_code == 1
    assert "Q2: " in told.stdout
    assert "differs from what was stored" in " ".join(told.stdout.split())
    document = json.loads(mail.run("held", "check", "--json").stdout)
    assert (document["sound"], document["damaged"], document["damage"][0]["queue_id"]) == (False, 1, "Q2")


def test_a_backup_is_a_store(mail: Reviewed) -> None:
    """It can be put in the place of the file, once, and is for its owner only."""
    copy = mail.directory / "held.backup"
    assert mail.run("held", "backup", copy).exit_code == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    again = mail.run("held", "backup", copy)
    assert isinstance(again.exception, InputError)
    assert "held.backup: is there already" in str(again.exception)
    file = mail.store / "hold" / FILE_NAME
    damage(file)
    for log in file.parent.glob(f"{FILE_NAME}-*"):
        log.unlink()
    copy.replace(file)
    assert mail.run("held", "check").exit_code == 0


def test_a_database_has_its_own_tools(mail: Reviewed) -> None:
    """Held mail in PostgreSQL is not looked for in a file."""
    mail.file.write_text(mail.file.read_text() + '[store]\nurl = "postgresql://db.example/consentry"\n')
    for command in (("check",), ("backup", "x")):
        refused = mail.run("held", *command)
        assert isinstance(refused.exception, InputError)
        assert "that server's tools" in str(refused.exception)

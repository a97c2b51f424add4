"""The file of campaigns: it is refused when it is not what it should be, and never made in place of a lost one."""

import stat
from pathlib import Path

import apsw
import pytest

from filter.campaign_schema import APPLICATION_ID, FILE_NAME, LOCK_NAME, MIGRATIONS, open_file
from filter.campaign_store import SqliteLedger
from filter.campaigns import CampaignDecision, Decided, Seen
from filter.hold_codec import HoldDataError
from filter.ports import HoldUnavailableError

DECISION = CampaignDecision("c0ffee", Decided.IS_MARKETING, "looked", "ann", 1)


def made(directory: Path) -> Path:
    """A ledger with a decision, closed; gives its file."""
    ledger = SqliteLedger(directory)
    ledger.decide(DECISION)
    ledger.close()
    return directory / FILE_NAME


def test_what_was_decided_outlives_the_process(tmp_path: Path) -> None:
    """A file that was closed and opened again has what was put into it; it is for its owner only."""
    path = made(tmp_path)
    assert list(SqliteLedger(tmp_path).decisions()) == [DECISION]
    assert list(SqliteLedger(tmp_path, create=False).decisions()) == [DECISION]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lost_file_is_not_made_again(tmp_path: Path) -> None:
    """Decisions do not vanish in silence: without its file the ledger says so, until somebody says to begin anew."""
    made(tmp_path).unlink()
    with pytest.raises(HoldDataError, match="gone, though it was made before"):
        SqliteLedger(tmp_path)
    (tmp_path / LOCK_NAME).unlink()
    assert list(SqliteLedger(tmp_path).decisions()) == []


def test_looking_makes_nothing(tmp_path: Path) -> None:
    """Without `create` a ledger that is not there is an error, and nothing is made."""
    with pytest.raises(HoldDataError, match=FILE_NAME):
        SqliteLedger(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_of_campaigns_is_refused(tmp_path: Path) -> None:
    """Octets that are no database, and another program's database, are left as they are."""
    path = made(tmp_path)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA application_id=1")
    connection.close()
    with pytest.raises(HoldDataError, match="not a file of campaigns"):
        SqliteLedger(tmp_path)
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(HoldDataError, match="damaged"):
        SqliteLedger(tmp_path)
    assert path.read_bytes() == b"no database " * 1000


def test_versions_lead_from_one_to_the_next(tmp_path: Path) -> None:
    """An older file is brought up to date with what is in it; a newer one is refused by name of its version."""
    made(tmp_path)
    newer = (*MIGRATIONS, "ALTER TABLE campaign ADD COLUMN more TEXT NOT NULL DEFAULT ''")
    for connection in open_file(tmp_path, migrations=newer):
        assert connection.pragma("application_id") == APPLICATION_ID
        assert connection.execute("SELECT count(*) FROM decision").get == 1
        connection.close()
    with pytest.raises(HoldDataError, match=f"version {len(newer)} was written by a newer consentry"):
        SqliteLedger(tmp_path)


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    """When the file cannot be written, the caller is told so, and nothing of the batch is there."""
    ledger = SqliteLedger(tmp_path)
    other = apsw.Connection(str(tmp_path / FILE_NAME))
    other.execute("CREATE TRIGGER full BEFORE INSERT ON tally BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    with pytest.raises(HoldUnavailableError, match="disk full"):
        ledger.add([Seen(campaign="c0ffee", first_at=1, last_at=1, messages=1, labels={"service": 1})])
    assert ledger.campaign("c0ffee") is None
    other.execute("DROP TRIGGER full")
    ledger.add([Seen(campaign="c0ffee", first_at=1, last_at=1, messages=1, labels={"service": 1})])
    assert ledger.campaign("c0ffee") is not None


def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """While another process writes, decisions are read as they were before."""
    made(tmp_path)
    ledger = SqliteLedger(tmp_path)
    other = apsw.Connection(str(tmp_path / FILE_NAME))
    other.execute("BEGIN IMMEDIATE; DELETE FROM decision; UPDATE counter SET value = 99")
    assert (list(ledger.decisions()), ledger.version()) == ([DECISION], 1)
    other.execute("COMMIT")
    assert (list(ledger.decisions()), ledger.version()) == ([], 99)


def test_nothing_of_what_was_erased_is_in_any_file(tmp_path: Path) -> None:
    """Neither in the log nor in free pages, though others have the file open."""
    ledger, other = SqliteLedger(tmp_path), SqliteLedger(tmp_path)
    seen = Seen(campaign="c0ffee", first_at=1, last_at=2, messages=1, subject="Order of Maria Huber", sample="Q-Huber")
    ledger.add([seen])
    assert other.campaign("c0ffee") == ledger.campaign("c0ffee")
    ledger.erase(["c0ffee"], 10)
    assert not [path.name for path in tmp_path.iterdir() if b"Huber" in path.read_bytes()]
    ledger.close()
    other.close()
    assert not [path.name for path in tmp_path.iterdir() if b"Huber" in path.read_bytes()]

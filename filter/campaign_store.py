"""The campaign ledger of one machine, in a file of SQLite that all its processes open (`campaign_schema`).

Fulfils `campaigns.CampaignLedger`. Reading never waits for writing: each has a connection of its own. A commit is on
the disk when it returns. Opening raises HoldDataError naming the file; methods raise HoldUnavailableError when the file
cannot be used now, and then nothing was changed, and InputError as the protocol says.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import apsw

from .campaign_schema import TALLIES, open_file
from .campaigns import CampaignDecision, CampaignLine, Decided, Seen, last_words, to_approve, to_withdraw
from .errors import InputError
from .ports import HoldUnavailableError

MAX_PRUNED: Final = 2000
_MAX_NAMED: Final = 5  # campaigns named in an error

_KEPT: Final = ("subject", "sender", "client", "user", "controller", "brand")  # of the first message that has it
_COLUMNS: Final = ("campaign", "first_at", "last_at", "messages", "disguised", "sample", *_KEPT)
_DECISION: Final = CampaignDecision._fields

# Statements are put together of the names above, which are ours; values are parameters.
_ADD: Final = (
    f"INSERT INTO campaign ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - names are ours
    " ON CONFLICT (campaign) DO UPDATE SET first_at = min(first_at, excluded.first_at),"
    " last_at = max(last_at, excluded.last_at), messages = messages + excluded.messages,"
    " disguised = disguised + excluded.disguised,"
    " sample = CASE excluded.sample WHEN '' THEN sample ELSE excluded.sample END, "
    + ", ".join([f"{name} = CASE {name} WHEN '' THEN excluded.{name} ELSE {name} END" for name in _KEPT])
)
_ADD_TALLY: Final = (
    "INSERT INTO tally (campaign, kind, value, count) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (campaign, kind, value) DO UPDATE SET count = count + excluded.count"
)
_ERASE: Final = "UPDATE campaign SET subject = '', sample = '' WHERE campaign = ? AND messages < ?"
_ALERT: Final = "INSERT INTO alert (campaign, at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_LINES: Final = f"SELECT {', '.join(_COLUMNS)} FROM campaign"  # noqa: S608 - names are ours
_DECIDE: Final = f"INSERT INTO decision ({', '.join(_DECISION)}) VALUES ({', '.join('?' * len(_DECISION))})"  # noqa: S608 - names are ours
_DECISIONS: Final = f"SELECT id, {', '.join(_DECISION)} FROM decision"  # noqa: S608 - names are ours
_CHANGED: Final = "UPDATE counter SET value = value + 1 WHERE name = 'decisions'"
_VERSION: Final = "SELECT value FROM counter WHERE name = 'decisions'"
_PRUNABLE: Final = (
    "last_at < ?1 AND (?2 = 0 OR (messages < ?2 AND sample = ''))"
    " AND NOT EXISTS (SELECT 1 FROM decision WHERE decision.campaign = campaign.campaign)"
)


class _Kept(NamedTuple):
    """A decision, and the number of its row."""

    id: int
    decision: CampaignDecision


class SqliteLedger:
    """The ledger in `directory`, made there if missing and `create`."""

    def __init__(self, directory: Path, *, create: bool = True) -> None:
        self.directory = directory
        self._writer, self._reader = open_file(directory, create=create)
        self._writing_lock, self._reading_lock = Lock(), Lock()

    def close(self) -> None:
        """Close the file."""
        with self._writing_lock, self._reading_lock:
            self._reader.close(True)
            self._writer.close(True)

    def add(self, seen: Sequence[Seen]) -> None:
        """Add what was seen, in one durable transaction."""
        rows = [tuple([getattr(one, name) for name in _COLUMNS]) for one in seen]
        tallies = [
            (one.campaign, kind, value, count)
            for one in seen
            for kind in TALLIES
            for value, count in getattr(one, kind).items()
        ]
        with self._writing() as connection:
            connection.executemany(_ADD, rows)
            connection.executemany(_ADD_TALLY, tallies)

    def alert(self, campaign: str, at: int) -> bool:
        """Note that an alert about this campaign is due; True for the first caller only, of all workers."""
        with self._writing() as connection:
            connection.execute(_ALERT, (campaign, at))
            return connection.changes() > 0

    def campaigns(self, limit: int = 1000) -> Sequence[CampaignLine]:
        """The campaigns seen last, newest first."""
        with self._reading() as connection:
            found = connection.execute(f"{_LINES} ORDER BY last_at DESC, campaign LIMIT ?", (limit,)).fetchall()
            return [_line(connection, row) for row in found]

    def campaign(self, campaign: str) -> CampaignLine | None:
        """One campaign by its name or an unambiguous beginning; None if it was never seen."""
        with self._reading() as connection:
            row = connection.execute(f"{_LINES} WHERE campaign = ?", (campaign,)).fetchone()
            row = row or _the_one(_beginning(connection, campaign), campaign)
            return _line(connection, row) if row else None

    def decide(self, decision: CampaignDecision) -> None:
        """Keep a decision. It takes the place of an earlier one, at once or when it is approved."""
        with self._writing() as connection:
            connection.execute(_DECIDE, decision)
            connection.execute(_CHANGED)

    def approve(self, campaign: str, approver: str, at: int) -> CampaignDecision:
        """Second the decision that waits. Raises InputError if none does, or its author is the approver."""
        with self._writing() as connection:
            kept = _decided(connection, campaign)
            waiting = to_approve([one.decision for one in kept], campaign, approver)
            connection.execute(
                "UPDATE decision SET approver = ?, approved_at = ? WHERE id = ?", (approver, at, kept[-1].id)
            )
            connection.execute(_CHANGED)
            return waiting._replace(approver=approver, approved_at=at)

    def withdraw(self, campaign: str, author: str, at: int) -> CampaignDecision:
        """Take back the decision that waits, or else the one that stands. Raises InputError if there is none."""
        with self._writing() as connection:
            kept = _decided(connection, campaign)
            taken = to_withdraw([one.decision for one in kept], campaign)
            number = max([one.id for one in kept if one.decision == taken])
            connection.execute(
                "UPDATE decision SET withdrawn_at = ?, withdrawn_by = ? WHERE id = ?", (at, author, number)
            )
            connection.execute(_CHANGED)
            return taken._replace(withdrawn_at=at, withdrawn_by=author)

    def decisions(self) -> Sequence[CampaignDecision]:
        """On each campaign the last decision that does not wait; after it the one that waits, if any."""
        with self._reading() as connection:
            found = [one.decision for one in _rows(connection, f"{_DECISIONS} ORDER BY campaign, id")]
        words = [last_words(history) for _, history in groupby(found, key=attrgetter("campaign"))]
        return [decision for pair in words for decision in pair if decision]

    def version(self) -> int:
        """Another number after each change of decisions, by whichever process."""
        with self._reading() as connection:
            return int(connection.execute(_VERSION).get)

    def history(self, campaign: str) -> Sequence[CampaignDecision]:
        """Every decision ever made on a campaign, the newest first."""
        with self._reading() as connection:
            return [one.decision for one in reversed(_decided(connection, campaign))]

    def erase(self, campaigns: Sequence[str], fewer_than: int) -> None:
        """Forget subject and sample of those of these campaigns that have fewer messages, also in free pages and in the
        log, if nobody reads in it at this moment.
        """
        few = [(campaign, fewer_than) for campaign in campaigns]
        with self._securely():
            with self._writing() as connection:
                connection.executemany(_ERASE, few)
            with self._writing_lock, suppress(apsw.BusyError):
                self._writer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def prune(self, before: int, fewer_than: int = 0) -> int:
        """Forget campaigns last seen before then on which nobody ever decided; how many, a few thousand at most.

        With `fewer_than`, only those of fewer messages of which none was held.
        """
        with self._reading() as connection:  # looking may take long, and should keep nobody from writing
            about = (before, fewer_than, MAX_PRUNED)
            found = connection.execute(f"SELECT campaign FROM campaign WHERE {_PRUNABLE} LIMIT ?3", about).fetchall()  # noqa: S608 - names are ours
        if not found:
            return 0
        with self._writing() as connection:
            gone: list[tuple[Any, ...]] = []
            for (campaign,) in found:
                gone += connection.execute(
                    f"DELETE FROM campaign WHERE campaign = ?3 AND {_PRUNABLE} RETURNING campaign",  # noqa: S608 - names are ours
                    (before, fewer_than, campaign),
                ).fetchall()
            connection.executemany("DELETE FROM tally WHERE campaign = ?", gone)
            connection.executemany("DELETE FROM alert WHERE campaign = ?", gone)
        return len(gone)

    @contextmanager
    def _securely(self) -> Iterator[None]:
        """What is removed within is overwritten."""
        with self._errors():
            self._writer.execute("PRAGMA secure_delete=ON").fetchall()
            try:
                yield
            finally:
                self._writer.execute("PRAGMA secure_delete=OFF").fetchall()

    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        """One transaction, on the disk at the end; undone by any exception."""
        with self._writing_lock, self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """One look: everything in it is of the same moment."""
        with self._reading_lock, self._errors(), self._reader:
            yield self._reader

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise HoldUnavailableError(f"{self.directory}: the file of campaigns cannot be used: {error}") from error


def _line(connection: apsw.Connection, row: Sequence[Any]) -> CampaignLine:
    """All there is about a campaign, of which this is the row."""
    about = dict(zip(_COLUMNS, row, strict=True))
    tallies: dict[str, dict[str, int]] = defaultdict(dict)
    query = "SELECT kind, value, count FROM tally WHERE campaign = ?"
    for kind, value, count in connection.execute(query, (about["campaign"],)):
        tallies[str(kind)][str(value)] = int(count)
    last, waiting = last_words([one.decision for one in _decided(connection, about["campaign"])])
    alerted_at = connection.execute("SELECT at FROM alert WHERE campaign = ?", (about["campaign"],)).get
    decision = last if last and not last.withdrawn_at else None
    found: dict[str, Any] = {**about, **tallies, "alerted_at": int(alerted_at or 0)}
    return CampaignLine(**found, decision=decision, waiting=waiting)


def _beginning(connection: apsw.Connection, name: str) -> list[Any]:
    """Campaigns whose names begin so, a few more than could be named."""
    if not name:
        return []
    query = f"{_LINES} WHERE campaign >= ?1 AND campaign < ?1 || char(1114111) ORDER BY campaign LIMIT ?2"
    return connection.execute(query, (name, _MAX_NAMED + 1)).fetchall()


def _the_one(rows: Sequence[Any], name: str) -> Any:
    if len(rows) > 1:
        named = ", ".join([str(row[0]) for row in rows[:_MAX_NAMED]]) + (", ..." if len(rows) > _MAX_NAMED else "")
        raise InputError(f"campaign {name}: several begin so ({named}); give more of the name")
    return rows[0] if rows else None


def _decided(connection: apsw.Connection, campaign: str) -> list[_Kept]:
    """Every decision on a campaign, oldest first."""
    return _rows(connection, f"{_DECISIONS} WHERE campaign = ? ORDER BY id", campaign)


def _rows(connection: apsw.Connection, query: str, *values: str) -> list[_Kept]:
    found = [
        (int(number), dict(zip(_DECISION, row, strict=True))) for number, *row in connection.execute(query, values)
    ]
    return [_Kept(number, _decision(row)) for number, row in found]


def _decision(row: Mapping[str, Any]) -> CampaignDecision:
    return CampaignDecision(**{**row, "decided": Decided(row["decided"]), "needs_second": bool(row["needs_second"])})

"""The campaign ledger of a fleet, in PostgreSQL; fulfils `campaigns.CampaignLedger`.

One connection for several threads, one at a time. Every method is a transaction; a commit is on the server's disk when
it returns. Raises HoldUnavailableError when the server cannot be used now: nothing was changed then, unless the
connection was lost in the commit, so that what was seen may be counted twice. Raises InputError as the protocol says.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import psycopg

from .campaigns import CampaignDecision, CampaignLine, Decided, Seen, last_words, to_approve, to_withdraw
from .errors import InputError
from .ports import HoldUnavailableError
from .postgres_link import Connection, Link, Server, reason
from .postgres_rows import from_text, text_in, to_text

T = TypeVar("T")

LIMIT: Final = 30.0  # seconds that one statement may take
MAX_PRUNED: Final = 2000
_MAX_NAMED: Final = 5  # campaigns named in an error

_TALLIES: Final = ("labels", "recipients", "declared")
_KEPT: Final = ("subject", "sender", "client", "user", "controller", "brand")  # of the first message that has it
_FIELDS: Final = ("campaign", "first_at", "last_at", "messages", "disguised", "sample", *_KEPT)
_COLUMNS: Final = tuple("login" if name == "user" else name for name in _FIELDS)  # "user" is a word of SQL
_DECISION: Final = CampaignDecision._fields

# Statements are put together of the names above, which are ours; values are parameters.
_ADD: Final = (
    f"INSERT INTO campaign AS old ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"  # noqa: S608 - names are ours
    " ON CONFLICT (campaign) DO UPDATE SET first_at = least(old.first_at, excluded.first_at),"
    " last_at = greatest(old.last_at, excluded.last_at), messages = old.messages + excluded.messages,"
    " disguised = old.disguised + excluded.disguised,"
    " sample = CASE excluded.sample WHEN '' THEN old.sample ELSE excluded.sample END, "
    + ", ".join(
        [
            f"{name} = CASE old.{name} WHEN '' THEN excluded.{name} ELSE old.{name} END"
            for name in _COLUMNS
            if name in {*_KEPT, "login"}
        ]
    )
)
_ADD_TALLY: Final = (
    "INSERT INTO tally AS old (campaign, kind, value, count) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (campaign, kind, value) DO UPDATE SET count = old.count + excluded.count"
)
_LINES: Final = f"SELECT {', '.join(_COLUMNS)} FROM campaign"  # noqa: S608 - names are ours
_DECISIONS: Final = f"SELECT id, {', '.join(_DECISION)} FROM decision"  # noqa: S608 - names are ours
_CHANGED: Final = "UPDATE counter SET value = value + 1 WHERE name = 'decisions'"
_PRUNABLE: Final = (
    "last_at < %(before)s AND (%(fewer)s = 0 OR (messages < %(fewer)s AND sample = ''))"
    " AND NOT EXISTS (SELECT FROM decision WHERE decision.campaign = campaign.campaign)"
)


class _Kept(NamedTuple):
    """A decision, and the number of its row."""

    id: int
    decision: CampaignDecision


class PostgresLedger:
    """The ledger in a database."""

    def __init__(self, server: Server) -> None:
        self._link = Link(server, limit=LIMIT)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def add(self, seen: Sequence[Seen]) -> None:
        """Add what was seen, in one durable transaction."""
        in_order = sorted(seen, key=attrgetter("campaign"))  # so that two who add do not wait in a circle
        rows = [to_text(getattr(one, name) for name in _FIELDS) for one in in_order]
        tallies = sorted(
            (one.campaign, kind, text_in(value), count)
            for one in in_order
            for kind in _TALLIES
            for value, count in getattr(one, kind).items()
        )

        def work(connection: Connection) -> None:
            with connection.pipeline(), connection.cursor() as cursor:
                cursor.executemany(_ADD, rows)
                cursor.executemany(_ADD_TALLY, tallies)

        self._run(work)

    def alert(self, campaign: str, at: int) -> bool:
        """Note that an alert about this campaign is due; True for the first caller only, of all workers."""
        query = "INSERT INTO alert (campaign, at) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        return self._run(lambda connection: connection.execute(query, (campaign, at)).rowcount > 0)

    def campaigns(self, limit: int = 1000) -> Sequence[CampaignLine]:
        """The campaigns seen last, newest first."""
        query = f"{_LINES} ORDER BY last_at DESC, campaign LIMIT %s"
        return self._run(lambda connection: _lines(connection, connection.execute(query, (limit,))))

    def campaign(self, campaign: str) -> CampaignLine | None:
        """One campaign by its name or an unambiguous beginning; None if it was never seen."""

        def work(connection: Connection) -> CampaignLine | None:
            rows = connection.execute(f"{_LINES} WHERE campaign = %s", (campaign,)).fetchall()
            rows = rows or _beginning(connection, campaign)
            if len(rows) > 1:
                named = ", ".join([str(row[0]) for row in rows[:_MAX_NAMED]]) + (", ..." * (len(rows) > _MAX_NAMED))
                raise InputError(f"campaign {campaign}: several begin so ({named}); give more of the name")
            return next(iter(_lines(connection, rows)), None)

        return self._run(work)

    def decide(self, decision: CampaignDecision) -> None:
        """Keep a decision. It takes the place of an earlier one, at once or when it is approved."""
        query = f"INSERT INTO decision ({', '.join(_DECISION)}) VALUES ({', '.join(['%s'] * len(_DECISION))})"  # noqa: S608 - names are ours

        def work(connection: Connection) -> None:
            connection.execute(_CHANGED)  # first: whoever changes decisions waits for others who do
            connection.execute(query, to_text(str(one) if isinstance(one, Decided) else one for one in decision))

        self._run(work)

    def approve(self, campaign: str, approver: str, at: int) -> CampaignDecision:
        """Second the decision that waits. Raises InputError if none does, or its author is the approver."""

        def work(connection: Connection) -> CampaignDecision:
            connection.execute(_CHANGED)
            kept = _decided(connection, [campaign])
            waiting = to_approve([one.decision for one in kept], campaign, approver)
            connection.execute(
                "UPDATE decision SET approver = %s, approved_at = %s WHERE id = %s",
                (text_in(approver), at, kept[-1].id),
            )
            return waiting._replace(approver=approver, approved_at=at)

        return self._run(work)

    def withdraw(self, campaign: str, author: str, at: int) -> CampaignDecision:
        """Take back the decision that waits, or else the one that stands. Raises InputError if there is none."""

        def work(connection: Connection) -> CampaignDecision:
            connection.execute(_CHANGED)
            kept = _decided(connection, [campaign])
            taken = to_withdraw([one.decision for one in kept], campaign)
            number = max([one.id for one in kept if one.decision == taken])
            connection.execute(
                "UPDATE decision SET withdrawn_at = %s, withdrawn_by = %s WHERE id = %s", (at, text_in(author), number)
            )
            return taken._replace(withdrawn_at=at, withdrawn_by=author)

        return self._run(work)

    def decisions(self) -> Sequence[CampaignDecision]:
        """On each campaign the last decision that does not wait; after it the one that waits, if any."""
        found = self._run(
            lambda connection: _rows(connection.execute(f'{_DECISIONS} ORDER BY campaign COLLATE "C", id'))
        )
        by_campaign = groupby([one.decision for one in found], key=attrgetter("campaign"))
        words = [last_words(list(history)) for _, history in by_campaign]
        return [decision for pair in words for decision in pair if decision]

    def version(self) -> int:
        """Another number after each change of decisions, by whichever process."""
        query = "SELECT value FROM counter WHERE name = 'decisions'"
        found = self._look(lambda connection: connection.execute(query).fetchone())
        return int(found[0]) if found else 0

    def history(self, campaign: str) -> Sequence[CampaignDecision]:
        """Every decision ever made on a campaign, the newest first."""
        found = self._run(lambda connection: _decided(connection, [campaign]))
        return [one.decision for one in reversed(found)]

    def erase(self, campaigns: Sequence[str], fewer_than: int) -> None:
        """Forget subject and sample of those of these campaigns that have fewer messages."""
        query = "UPDATE campaign SET subject = '', sample = '' WHERE campaign = ANY(%s) AND messages < %s"
        self._run(lambda connection: connection.execute(query, (list(campaigns), fewer_than)))

    def prune(self, before: int, fewer_than: int = 0) -> int:
        """Forget campaigns last seen before then on which nobody ever decided; how many, a few thousand at most.

        With `fewer_than`, only those of fewer messages of which none was held.
        """
        values = {"before": before, "fewer": fewer_than, "most": MAX_PRUNED}

        def work(connection: Connection) -> int:
            gone = connection.execute(
                "DELETE FROM campaign WHERE campaign IN (SELECT campaign FROM campaign WHERE"  # noqa: S608 - our own
                f" {_PRUNABLE} ORDER BY campaign LIMIT %(most)s FOR UPDATE SKIP LOCKED) RETURNING campaign",
                values,
            ).fetchall()
            connection.execute("DELETE FROM alert WHERE campaign = ANY(%s)", ([name for (name,) in gone],))
            return len(gone)

        return self._run(work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        return self._told(lambda: self._link.run(work))

    def _look(self, work: Callable[[Connection], T]) -> T:
        return self._told(lambda: self._link.look(work))

    def _told(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except psycopg.Error as error:  # what is wrong with values: such as a number out of bounds
            raise HoldUnavailableError(f"the campaign ledger cannot be changed so: {reason(error)}") from error


def _lines(connection: Connection, rows: Iterable[Sequence[Any]]) -> list[CampaignLine]:
    """All there is about campaigns, of which these are the rows."""
    about = [dict(zip(_FIELDS, from_text(row), strict=True)) for row in rows]
    names = [one["campaign"] for one in about]
    tallies: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    query = "SELECT campaign, kind, value, count FROM tally WHERE campaign = ANY(%s)"
    for campaign, kind, value, count in map(from_text, connection.execute(query, (names,))):
        tallies[campaign][kind][value] = count
    alerts: dict[str, int] = dict(
        connection.execute("SELECT campaign, at FROM alert WHERE campaign = ANY(%s)", (names,)).fetchall()
    )
    decided: dict[str, list[CampaignDecision]] = defaultdict(list)
    for one in _decided(connection, names):
        decided[one.decision.campaign].append(one.decision)
    lines = []
    for found in about:
        name = found["campaign"]
        last, waiting = last_words(decided[name])
        decision = last if last and not last.withdrawn_at else None
        whole: dict[str, Any] = {**found, **tallies[name], "alerted_at": alerts.get(name, 0)}
        lines.append(CampaignLine(**whole, decision=decision, waiting=waiting))
    return lines


def _beginning(connection: Connection, name: str) -> list[Any]:
    """Campaigns whose names begin so, a few more than could be named."""
    if not name:
        return []
    pattern = text_in(name).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    query = f'{_LINES} WHERE campaign LIKE %s ORDER BY campaign COLLATE "C" LIMIT %s'
    return connection.execute(query, (pattern, _MAX_NAMED + 1), prepare=False).fetchall()


def _decided(connection: Connection, campaigns: Sequence[str]) -> list[_Kept]:
    """Every decision on these campaigns, oldest first."""
    names = [text_in(name) for name in campaigns]
    return _rows(connection.execute(f"{_DECISIONS} WHERE campaign = ANY(%s) ORDER BY id", (names,)))


def _rows(rows: Iterable[Sequence[Any]]) -> list[_Kept]:
    found = []
    for number, *row in map(from_text, rows):
        decision = CampaignDecision(*row)
        found.append(_Kept(number, decision._replace(decided=Decided(decision.decided))))
    return found

"""What is asked of held mail (`HeldQuery`) as SQL: conditions, counts, lines.

Functions are called within a transaction of the caller's and raise what psycopg raises. Conditions on campaign, label,
rule and the like are looked up among the lots first, of which there are few; the copies are found by index then.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from .held import By, HeldLine, HeldQuery, Place, Tally
from .hold_codec import COPY_COLUMNS, MESSAGE_COLUMNS, DamagedMessageError, MessageRow, line_of, read_copy, read_message
from .postgres_rows import ARRIVAL, Connection, from_text, number_of, text_in, text_out

WORK_MEMORY: Final = "64MB"  # of the server, for counting

_OF_LOT: Final = ("campaign", "label", "reason", "declared", "controller", "brand", "topic")
_LINES: Final = (
    f"SELECT copy.message, {', '.join(f'message.{name}' for name in MESSAGE_COLUMNS)},"  # noqa: S608 - names are ours
    f" {', '.join(f'copy.{name}' for name in COPY_COLUMNS)} FROM copy JOIN message ON message.id = copy.message"
)
_MESSAGE_END: Final = 1 + len(MESSAGE_COLUMNS)


class Condition(NamedTuple):
    """Part of a WHERE clause over `copy`, and its values."""

    text: str
    values: tuple[Any, ...]


def condition(connection: Connection, query: HeldQuery) -> Condition | None:
    """Which copies; None if there can be none."""
    parts: list[tuple[str, object]] = []
    if query.states:
        states = sorted(str(state) for state in query.states)
        one = len(states) == 1  # with a single state the index gives copies in their order
        parts.append(("copy.state = %s", states[0]) if one else ("copy.state = ANY(%s)", states))
    lots = _lots(connection, query)
    if lots is not None:
        parts.append(("copy.lot = ANY(%s)", lots))
    if query.subjects:
        parts.append(("copy.subject_key = ANY(%s)", [bytes.fromhex(subject) for subject in query.subjects]))
    if query.queue_id:
        number = number_of(connection, query.queue_id)
        if number is None:
            return None
        parts.append(("copy.message = %s", number))
    if query.received_from:
        parts.append(("copy.message >= %s", first_row(query.received_from)))
    if query.received_before:
        parts.append(("copy.message < %s", first_row(query.received_before)))
    if lots == []:
        return None
    return Condition(" AND ".join(text for text, _ in parts) or "true", tuple(value for _, value in parts))


def first_row(at: int) -> int:
    """The lowest row number of a message received at that time (epoch milliseconds) or later."""
    return min(max(at, 0), (1 << 63) // ARRIVAL - 1) * ARRIVAL


def tally(connection: Connection, query: HeldQuery, by: By) -> Sequence[Tally]:
    """Copies that match, counted; the largest first."""
    where = condition(connection, query)
    if where is None:
        return []
    connection.execute("SELECT set_config('work_mem', %s, true)", (WORK_MEMORY,))
    value, values, join = _value(by)
    found = connection.execute(
        # Most messages have a single copy: what is counted too often is looked for among the others alone.
        f"WITH value AS ({values}), base AS (SELECT lot, state, count(*) AS copies, min(message) AS oldest,"  # noqa: S608 - a closed list
        f" max(message) AS newest FROM copy WHERE {where.text} GROUP BY lot, state), surplus AS"
        f" (SELECT {value.format('copy')} AS value, count(*) - 1 AS more FROM copy {join.format('copy')}"
        f" WHERE {where.text} AND copy.message IN (SELECT message FROM copy WHERE number > 0)"
        f" GROUP BY 1, copy.message HAVING count(*) > 1), total AS (SELECT value, sum(more) AS more FROM surplus"
        f" GROUP BY value) SELECT {value.format('base')}, sum(copies)::bigint,"
        " (sum(copies) - coalesce(max(total.more), 0))::bigint, min(oldest), max(newest)"
        f" FROM base {join.format('base')} LEFT JOIN total ON total.value = {value.format('base')}"
        " GROUP BY 1",
        where.values * 2,
        prepare=False,
    )
    tallies = [
        Tally(text_out(value), copies, messages, oldest // ARRIVAL, newest // ARRIVAL)
        for value, copies, messages, oldest, newest in found
    ]
    return sorted(tallies, key=lambda one: (-one.copies, one.value))


def lines(connection: Connection, query: HeldQuery, after: Place | None, limit: int) -> list[HeldLine]:
    """Copies that match, in the order they were stored, from after that place on. What is damaged is left out."""
    where = condition(connection, query)
    if where is None:
        return []
    found: list[HeldLine] = []
    after = after or Place(first_row(query.received_from), -1)
    while (wanted := limit - len(found)) > 0:
        rows = page(connection, where, after, wanted)
        found += _read(rows)
        if len(rows) < wanted:
            break
        after = Place(rows[-1][0], rows[-1][_MESSAGE_END])
    return found


def page(connection: Connection, where: Condition, after: Place, limit: int) -> list[tuple[Any, ...]]:
    """Rows of copies with those of their messages, from after that place on."""
    text, values = where
    return connection.execute(
        f"{_LINES} WHERE {text} AND (copy.message, copy.number) > (%s, %s) AND message.id >= %s"  # or it reads them all
        " ORDER BY copy.message, copy.number LIMIT %s",
        (*values, *after, after.message, limit),
        prepare=False,
    ).fetchall()


def _read(rows: Sequence[Sequence[Any]]) -> Iterator[HeldLine]:
    messages: dict[int, MessageRow] = {}
    for number, *columns in rows:
        with suppress(DamagedMessageError):
            row = from_text(columns)
            if number not in messages:
                messages[number] = read_message(row[: _MESSAGE_END - 1])
            message = messages[number]
            copy = read_copy(message.queue_id, row[_MESSAGE_END - 1 :])
            yield line_of(Place(number, copy.number), message, copy)


def _lots(connection: Connection, query: HeldQuery) -> list[int] | None:
    """The lots that the query may be about; None for all."""
    given = {name: text_in(value) for name in _OF_LOT if (value := getattr(query, name))}
    texts = [f"{name} = %s" for name in given]
    values = list(given.values())
    if query.rule:
        texts.append("jsonb_exists(evidence::jsonb, %s)")
        values.append(text_in(query.rule))
    if not texts:
        return None
    found = connection.execute(f"SELECT id FROM lot WHERE {' AND '.join(texts)}", values)  # noqa: S608 - names are ours
    return [int(number) for (number,) in found]


def _value(by: By) -> tuple[str, str, str]:
    """What to count by, a query for the values of each lot, and how it is joined; `{}` stands for what is counted."""
    if by is By.STATE:
        return "{}.state", "SELECT", ""
    join = "JOIN value ON value.lot = {}.lot"
    if by is By.RULE:
        return (
            "value.value",
            "SELECT DISTINCT id AS lot, jsonb_array_elements_text(evidence::jsonb) AS value FROM lot",
            join,
        )
    return "value.value", f"SELECT id AS lot, {by.value} AS value FROM lot", join  # noqa: S608 - a closed list

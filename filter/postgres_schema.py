"""The tables of held mail and campaigns in a PostgreSQL database, made and brought up to date in one transaction.

They stand in a schema of their own, `consentry`. The rows of a message, its content and its copies are packed by
`hold_codec`, as in SQLite. Copies that are alike in all that may be asked of many are a lot, so that one index answers
every question about them.

A version of the schema is a migration. Whoever connects first brings the tables up to date, under an advisory lock of
the database; tables that newer code made are refused, so is a schema of that name that is not ours (`HoldDataError`).
Errors of psycopg pass through.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg

from .campaigns import Decided
from .held import ENDED, Action, CopyState
from .hold_codec import HoldDataError
from .policy import Disposition
from .ports import Known

SCHEMA: Final = "consentry"
LOCK: Final = 0x436F4864  # "CoHd", as SQLite's application id


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_FIRST: Final = f"""
CREATE SEQUENCE message_sequence;
CREATE TABLE message (
    id bigint PRIMARY KEY, -- received_at * 2^20 and more: in the order of arrival
    queue_id text NOT NULL UNIQUE,
    received_at bigint NOT NULL,
    mail bytea NOT NULL,
    mail_size bigint NOT NULL,
    mail_eight_bit integer NOT NULL,
    mail_smtputf8 integer NOT NULL,
    trace bytea NOT NULL,
    origin bytea NOT NULL,
    label text NOT NULL,
    score double precision NOT NULL,
    ruleset text NOT NULL,
    declared text NOT NULL,
    controller text NOT NULL,
    brand text NOT NULL,
    topic text NOT NULL,
    campaign text NOT NULL,
    facts text NOT NULL,
    size bigint NOT NULL,
    copies bigint NOT NULL,
    digest bytea NOT NULL,
    key_id text NOT NULL,
    wrapped_key bytea NOT NULL
);
CREATE INDEX message_by_key_id ON message (key_id, id);
CREATE TABLE content (
    message bigint PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
    codec integer NOT NULL,
    body bytea NOT NULL
);
ALTER TABLE content ALTER body SET STORAGE EXTERNAL; -- it is compressed already
CREATE TABLE lot (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE, -- of what follows
    campaign text NOT NULL,
    label text NOT NULL,
    declared text NOT NULL,
    controller text NOT NULL,
    brand text NOT NULL,
    topic text NOT NULL,
    reason text NOT NULL,
    evidence text NOT NULL
);
CREATE TABLE copy (
    message bigint NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    number bigint NOT NULL,
    lot bigint NOT NULL REFERENCES lot (id),
    recipient bytea NOT NULL,
    subject_key bytea NOT NULL,
    disposition text NOT NULL
        CHECK (disposition IN ({_words((Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT))})),
    reason text NOT NULL,
    notes text NOT NULL,
    consent text NOT NULL,
    evidence text NOT NULL,
    digest bytea NOT NULL,
    state text NOT NULL CHECK (state IN ({_words(CopyState)})),
    changed_at bigint NOT NULL,
    attempts bigint NOT NULL,
    due_at bigint NOT NULL,
    order_id text NOT NULL,
    outcome text NOT NULL,
    mark bigint NOT NULL,
    PRIMARY KEY (message, number)
);
CREATE INDEX copy_by_state ON copy (state, message, number);
CREATE INDEX copy_by_lot ON copy (lot, state, message, number);
CREATE INDEX copy_by_subject ON copy (subject_key) WHERE subject_key <> '';
CREATE INDEX copy_due ON copy (due_at, message, number) WHERE state = '{CopyState.RELEASED}';
CREATE INDEX copy_due_by_order ON copy (order_id, due_at, message, number) WHERE state = '{CopyState.RELEASED}';
CREATE INDEX copy_of_several ON copy (message) WHERE number > 0;
CREATE INDEX copy_void ON copy (changed_at) WHERE state = '{CopyState.VOID}';
CREATE TABLE orders (
    id text PRIMARY KEY,
    action text NOT NULL CHECK (action IN ({_words(Action)})),
    at bigint NOT NULL,
    author text NOT NULL,
    why text NOT NULL,
    despite boolean NOT NULL
);
CREATE TABLE message_key (
    key bytea NOT NULL,
    kind text NOT NULL CHECK (kind IN ({_words(Known)})),
    at bigint NOT NULL,
    PRIMARY KEY (key, kind)
);
CREATE INDEX message_key_at ON message_key (at);
CREATE TABLE campaign (
    campaign text PRIMARY KEY,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL,
    messages bigint NOT NULL,
    disguised bigint NOT NULL,
    sample text NOT NULL,
    subject text NOT NULL,
    sender text NOT NULL,
    client text NOT NULL,
    login text NOT NULL, -- `Seen.user`, which is a word of SQL
    controller text NOT NULL,
    brand text NOT NULL
);
CREATE INDEX campaign_by_last_at ON campaign (last_at DESC, campaign);
CREATE INDEX campaign_by_beginning ON campaign (campaign text_pattern_ops);
CREATE TABLE tally (
    campaign text NOT NULL REFERENCES campaign (campaign) ON DELETE CASCADE,
    kind text NOT NULL,
    value text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (campaign, kind, value)
);
CREATE TABLE alert (campaign text PRIMARY KEY, at bigint NOT NULL);
CREATE TABLE decision (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign text NOT NULL,
    decided text NOT NULL CHECK (decided IN ({_words(Decided)})),
    why text NOT NULL,
    author text NOT NULL,
    at bigint NOT NULL,
    expires_at bigint NOT NULL,
    needs_second boolean NOT NULL,
    approver text NOT NULL,
    approved_at bigint NOT NULL,
    withdrawn_at bigint NOT NULL,
    withdrawn_by text NOT NULL,
    evidence text NOT NULL
);
CREATE INDEX decision_by_campaign ON decision (campaign, id);
CREATE TABLE counter (name text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO counter VALUES ('decisions', 1);
"""  # noqa: S608 - names are ours
_PRUNING: Final = f"""
CREATE INDEX copy_ended ON copy (changed_at, message, number) WHERE state IN ({_words(sorted(ENDED))});
CREATE INDEX copy_by_order ON copy (order_id) WHERE order_id <> '';
"""
# Each entry leads from the version that is its position to the next. Add; never change one that was released.
MIGRATIONS: Final = (_FIRST, _PRUNING)


def migrate(
    connection: psycopg.Connection[tuple[Any, ...]], shown: str, migrations: Sequence[str] = MIGRATIONS
) -> None:
    """Bring the tables up to date, all or nothing. `connection` is in autocommit mode, `shown` names the server."""
    if _version(connection, shown, len(migrations)) == len(migrations):
        return
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        version = _version(connection, shown, len(migrations))  # another may have done it meanwhile
        if version is None:
            if _found(connection, "SELECT 1 FROM pg_tables WHERE schemaname = %s", SCHEMA):
                raise HoldDataError(f"{shown}: its schema {SCHEMA} has tables, but not those of held mail")
            if not _found(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", SCHEMA):
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            connection.execute("CREATE TABLE version (version integer NOT NULL); INSERT INTO version VALUES (0)")
        for migration in migrations[version or 0 :]:
            connection.execute(migration)
        connection.execute("UPDATE version SET version = %s", (len(migrations),))


def _version(connection: psycopg.Connection[tuple[Any, ...]], shown: str, newest: int) -> int | None:
    """The version of the tables, None if there are none."""
    # Not by to_regclass, which may still believe that there is none when another has just made it.
    if not _found(connection, "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'version'", SCHEMA):
        return None
    row = connection.execute(f"SELECT version FROM {SCHEMA}.version").fetchone()  # noqa: S608 - the name is ours
    version = int(row[0]) if row else 0
    if version > newest:
        raise HoldDataError(
            f"{shown}: version {version} was written by a newer consentry; this one reads up to version {newest}: "
            "use the newer one, or put back the backup made before the update"
        )
    return version


def _found(connection: psycopg.Connection[tuple[Any, ...]], query: str, value: str) -> bool:
    return connection.execute(query, (value,)).fetchone() is not None

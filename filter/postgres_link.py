"""One connection to PostgreSQL: made when it is needed, looked after, and made again when it was lost.

Whatever keeps work from being done is `HoldUnavailableError`, whose text names the server (never a password) and the
reason. What was to be done was not done then, unless the connection was lost in the commit: that alone cannot be known,
and `in_doubt` of the error says so. A server that can never be used (too old, another encoding, tables of newer code)
is `HoldDataError`.

Commits are on the server's disk when they return: `synchronous_commit` is `on` in every session, unless the server has
the stricter `remote_apply`. A server that runs with `fsync = off` may lose them all the same; we warn and go on, as
some services keep their log elsewhere.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg import errors

from . import logs
from .errors import ConfigError
from .hold_codec import HoldDataError
from .ports import HoldUnavailableError
from .postgres_schema import SCHEMA, migrate

LEAST_VERSION: Final = 140_000  # of the server: pg_terminate_backend waits from then on
CONNECT_TIMEOUT: Final = 5  # seconds for each address
SILENCE: Final = 15  # seconds without an answer of its machine after which a server is taken for gone
FIRST_PAUSE: Final = 0.1  # seconds between tries to connect, doubled each time
LONGEST_PAUSE: Final = 1.0
SESSION: Final = "consentry"
TRIES: Final = 5  # of a transaction that others stood in the way of

_LOOPBACK: Final = ("", "localhost", "127.0.0.1", "::1")
_OTHERS_IN_THE_WAY: Final = (errors.DeadlockDetected, errors.SerializationFailure)
_BAD_INPUT: Final = (psycopg.DataError, psycopg.IntegrityError)  # the connection is as good as before

Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """Where held mail of a fleet is: a `postgresql://` URL of libpq without a password, and how to get that.

    `password` is asked at every connection, so that a new one counts without a restart; "" leaves it to libpq
    (PGPASSWORD, PGPASSFILE, certificates).
    """

    url: str
    password: Callable[[], str] = str

    @property
    def shown(self) -> str:
        """The URL without its options."""
        return self.url.partition("?")[0]

    def parameters(self) -> dict[str, Any]:
        """What to connect with besides the URL, which goes before it. Hosts elsewhere are spoken to by TLS only."""
        given = {name for name, _ in parse_qsl(urlsplit(self.url).query)}
        chosen: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": SILENCE,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": SILENCE * 1000,
        }
        if not self._is_local(given):
            chosen["sslmode"] = "require"
        found = {name: value for name, value in chosen.items() if name not in given}
        password = self.password()
        return {**found, "password": password} if password else found

    def _is_local(self, given: set[str]) -> bool:
        hosts = urlsplit(self.url).netloc.rpartition("@")[2].split(",")
        return not {"host", "hostaddr"} & given and all(_host(one) in _LOOPBACK for one in hosts)


class UnavailableError(HoldUnavailableError):
    """The server cannot be used now. `in_doubt`: it may have done what was asked all the same."""

    def __init__(self, what: str, *, in_doubt: bool = False) -> None:
        super().__init__(what)
        self.in_doubt = in_doubt


class Link:
    """A connection with our tables, for several threads, one at a time. `limit` is for each statement, in seconds.

    No I/O before the first `run`. `session` names the connection in the server's `pg_stat_activity`.
    """

    def __init__(self, server: Server, *, limit: float) -> None:
        self.server = server
        self.session = ""
        self._limit = limit
        self._lock = Lock()
        self._connection: Connection | None = None
        self._next_at = 0.0  # monotonic seconds
        self._pause = FIRST_PAUSE
        self._failure = ""

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do it in one transaction. Raises UnavailableError; HoldDataError at the first connection; and what is wrong
        with the values (psycopg.DataError, psycopg.IntegrityError).
        """
        with self._lock:
            for _ in range(TRIES - 1):
                with suppress(*_OTHERS_IN_THE_WAY):
                    return self._once(work)
            try:
                return self._once(work)
            except _OTHERS_IN_THE_WAY as error:
                raise self._unavailable(error) from error

    def look(self, work: Callable[[Connection], T]) -> T:
        """Do what may be done twice, without a transaction; errors as those of `run`."""
        with self._lock:
            if self._connection is None:
                return self._guarded(work)
            try:
                return self._guarded(work)
            except UnavailableError:
                return self._guarded(work)

    def close(self) -> None:
        """Close the connection; a later `run` makes another."""
        with self._lock:
            self._drop()

    def _once(self, work: Callable[[Connection], T]) -> T:
        begun = committing = False

        def transact(connection: Connection) -> T:
            nonlocal begun, committing
            with connection.transaction():
                begun = True
                done = work(connection)
                committing = True
            return done

        old = self._connection is not None
        try:
            return self._guarded(transact)
        except UnavailableError as error:
            if old and not begun:  # the server was started again since we last asked
                return self._once(work)
            error.in_doubt = committing
            raise

    def _guarded(self, work: Callable[[Connection], T]) -> T:
        connection = self._ready()
        try:
            done = work(connection)
        except (*_OTHERS_IN_THE_WAY, *_BAD_INPUT):
            raise
        except psycopg.Error as error:
            self._drop()
            raise self._unavailable(error) from error
        except BaseException:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._drop()
            raise
        return done

    def _ready(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        if time.monotonic() < self._next_at:
            raise UnavailableError(self._failure)
        session = f"{SESSION} {secrets.token_hex(8)}"
        try:
            connection = self._open(session)
        except (psycopg.Error, OSError, ConfigError) as error:  # ConfigError: of the password's file
            self._next_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            refusal = self._unavailable(error)
            self._failure = str(refusal)
            raise refusal from error
        self._pause = FIRST_PAUSE
        self.session = session
        return connection

    def _open(self, session: str) -> Connection:
        connection = psycopg.connect(
            self.server.url, autocommit=True, application_name=session, **self.server.parameters()
        )
        try:
            _prepare(connection, self.server.shown, self._limit)
            migrate(connection, self.server.shown)
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"{self.server.shown}: held mail cannot be used: {reason(error)}")


def reason(error: Exception) -> str:
    """An error in one line, without the details of PostgreSQL's errors, which may quote rows."""
    told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((told or str(error)).split()) or type(error).__name__


def end_session(connection: Connection, session: str) -> bool:
    """End what may be left of a lost session of ours, with its transaction; whether there is nothing left of it."""
    ended = connection.execute(  # each tells whether it has ended within that time; the view itself does not change
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = %s", (session,)
    )
    return all(one for (one,) in ended.fetchall())


def _prepare(connection: Connection, shown: str, limit: float) -> None:
    """Look at the server, and set what our sessions have in common."""
    version, encoding, standby, fsync = _fetch(
        connection,
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),"
        " current_setting('fsync')",
    )
    if version < LEAST_VERSION:
        least = LEAST_VERSION // 10_000
        raise HoldDataError(f"{shown}: PostgreSQL {version // 10_000}: held mail needs {least} or newer")
    if encoding != "UTF8":
        raise HoldDataError(f"{shown}: a database in {encoding}: held mail needs one in UTF8")
    if standby:
        raise psycopg.OperationalError(
            "it is a standby, which cannot be written to; target_session_attrs=read-write in the URL finds the primary"
        )
    if fsync != "on":
        logs.event(logs.WARNING, "hold_store_without_fsync", server=shown)
    milliseconds = str(int(limit * 1000))
    connection.execute(
        "SELECT set_config('statement_timeout', %(limit)s, false), set_config('lock_timeout', %(limit)s, false),"
        " set_config('idle_in_transaction_session_timeout', %(limit)s, false), set_config('search_path', %(schema)s,"
        " false), set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
        " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)",
        {"limit": milliseconds, "schema": SCHEMA},
    )


def _fetch(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    if row is None:
        raise psycopg.OperationalError("no answer")
    return row


def _host(place: str) -> str:
    """The host of `host:port`, `[::1]:port` or `host`."""
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.partition(":")[0]

"""Message keys that the fleet remembers, as this process knows them: asked for every message, so never by the network.

All keys are in memory. A thread with a connection of its own loads them, and hears by LISTEN of every change when it is
committed; after a lost connection, and every ten minutes, it loads them again. So this is what can happen:

- What this process wrote it knows at once; what another one wrote a few milliseconds after its commit. Clients come
  again after minutes.
- While the server cannot be reached, nothing new is known, and no mail is taken either (`HoldStore.has_room`).
- Of more than `MOST_KEYS` the newest are known; what is not known is taken as new: twice beats never.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Final

import psycopg

from . import logs
from .errors import ConsentryError
from .ports import Known
from .postgres_link import Connection, Link, Server

CHANNEL: Final = "consentry_key"
MOST_KEYS: Final = 500_000  # some 150 octets each
LOAD_EVERY: Final = 600.0  # seconds
LISTEN_FOR: Final = 0.25  # seconds, after which it looks whether to end
TRY_AGAIN: Final = 0.5  # seconds
LIMIT: Final = 30.0  # seconds that one statement may take

_NOTHING: Final[frozenset[Known]] = frozenset()


class Keys:
    """What is known of keys. `on_lost` is called, in the thread, as long as the server cannot be asked."""

    def __init__(self, server: Server, on_lost: Callable[[], None]) -> None:
        self._link = Link(server, limit=LIMIT)
        self._on_lost = on_lost
        self._known: dict[bytes, frozenset[Known]] = {}
        self._lost = False
        self._end = Event()
        self._thread = Thread(target=self._work, name="hold keys", daemon=True)

    def start(self) -> None:
        """Load the keys, and follow them from now on. Raises as `Link.run` does."""
        self._link.look(self._load)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread.ident:
            self._thread.join()
        self._link.close()

    def known(self, key: bytes) -> frozenset[Known]:
        """What is remembered of this key."""
        return self._known.get(key, _NOTHING)

    def learn(self, key: bytes, kind: Known) -> None:
        """It is remembered from now on."""
        self._known[key] = self.known(key) | {kind}

    def unlearn(self, key: bytes, kind: Known) -> None:
        """It is not remembered any more."""
        left = self.known(key) - {kind}
        if left:
            self._known[key] = left
        else:
            self._known.pop(key, None)

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                self._link.look(self._follow)
            except (ConsentryError, psycopg.Error) as error:
                self._tell(str(error))
                self._on_lost()
                self._end.wait(TRY_AGAIN)
            except Exception as error:  # noqa: BLE001 - the thread must live, or nothing new would be known
                logs.fault("fault", error, where="hold_keys")
                self._end.wait(TRY_AGAIN)

    def _tell(self, lost: str) -> None:
        """Log it once that the server is lost, or back."""
        if bool(lost) != self._lost:
            self._lost = bool(lost)
            logs.event(logs.WARNING, "hold_store_lost" if lost else "hold_store_back", error=lost or None)

    def _follow(self, connection: Connection) -> None:
        """Hear of every change until it is time to load them again. LISTEN comes before the load, so none is missed."""
        connection.execute(f"LISTEN {CHANNEL}")
        self._load(connection)
        self._tell("")
        load_at = time.monotonic() + LOAD_EVERY
        while time.monotonic() < load_at and not self._end.is_set():
            for notice in connection.notifies(timeout=LISTEN_FOR):
                self._hear(notice.payload)

    def _load(self, connection: Connection) -> None:
        loaded: dict[bytes, frozenset[Known]] = {}
        rows = connection.execute("SELECT key, kind FROM message_key ORDER BY at DESC LIMIT %s", (MOST_KEYS,))
        for key, kind in rows:
            loaded[key] = loaded.get(key, _NOTHING) | {Known(kind)}
        self._known = loaded

    def _hear(self, payload: str) -> None:
        with suppress(ValueError):  # somebody else's
            sign, key, kind = payload.split(" ")
            (self.learn if sign == "+" else self.unlearn)(bytes.fromhex(key), Known(kind))


def remember(connection: Connection, key: bytes, kind: Known, at: int) -> None:
    """Remember a key, and tell everybody when it is committed."""
    connection.execute(
        _telling("+", "INSERT INTO message_key (key, kind, at) VALUES (%s, %s, %s)"
        " ON CONFLICT (key, kind) DO UPDATE SET at = excluded.at"),
        (key, str(kind), at),
    )  # fmt: skip


def suspect(connection: Connection, key: bytes, at: int) -> Known:
    """Remember that a message killed a worker: once may be chance, twice is not."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('suspect'))")  # two deaths at once are two
    row = connection.execute(
        "SELECT 1 FROM message_key WHERE key = %s AND kind = %s", (key, str(Known.SUSPECT))
    ).fetchone()
    kind = Known.UNSCANNABLE if row else Known.SUSPECT
    remember(connection, key, kind, at)
    return kind


def forget(connection: Connection, key: bytes, kind: Known) -> bool:
    """Remember it no more; whether it was remembered."""
    query = _telling("-", "DELETE FROM message_key WHERE key = %s AND kind = %s")
    return bool(connection.execute(query, (key, str(kind))).fetchall())


def prune(connection: Connection, before: int, limit: int) -> int:
    """Forget keys from before that time (epoch milliseconds), so many at most; how many."""
    query = _telling(
        "-",
        "DELETE FROM message_key WHERE (key, kind) IN (SELECT key, kind FROM message_key WHERE at < %s LIMIT %s"
        " FOR UPDATE SKIP LOCKED)",
    )
    return len(connection.execute(query, (before, limit)).fetchall())


def _telling(sign: str, change: str) -> str:
    return (
        f"WITH done AS ({change} RETURNING key, kind) SELECT"  # noqa: S608 - our own statements
        f" pg_notify('{CHANNEL}', '{sign} ' || encode(key, 'hex') || ' ' || kind) FROM done"
    )

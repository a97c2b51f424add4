"""The hold store of a fleet as the pipeline sees it, in PostgreSQL: a thread that writes, a commit for all who wait.

Every worker process of every machine has its own store on the same database. Opening raises `HoldDataError` for a
database that cannot be used, `HoldUnavailableError` for one that cannot be reached now. Writing raises
`HoldUnavailableError`; then no mail is taken for a second (`has_room`), and the next write tries again. Free space
on the server is not ours to see: a full disk there is a failed write.

A connection that is lost in a commit leaves open whether it was done. Callers are told that it was not; when the server
is back, the lost session is ended and messages of that commit are removed, before anything else is written. If this
process ends before that, such a message may stay: its client has sent it again, so it may be held twice, never lost.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import compress
from typing import Final

from . import postgres_keys, postgres_rows
from .flights import now
from .held import CopyState
from .hold_codec import CopyRecord, HoldDataError, Packed, StoredMessage, pack
from .hold_queue import HoldQueue
from .ports import HeldMessage, HoldUnavailableError, Known
from .postgres_keys import Keys
from .postgres_link import Connection, Link, Server, UnavailableError, end_session, reason
from .postgres_rows import Lots
from .sealing import Vault

SETTLE_WINDOW: Final = 5 * 86_400_000  # milliseconds: as long as clients try again (RFC 5321 section 4.5.4.1)
BLOCKED: Final = 1.0  # seconds without new mail after a failed write
REST: Final = 1.0  # seconds from one look at what is due to the next, while nothing is written
PATIENCE: Final = 5.0  # seconds that one batch may take before no new mail is accepted
LIMIT: Final = 15.0  # seconds that one statement may take
PRUNE_EVERY: Final = 600.0  # seconds
PRUNE_ROWS: Final = 1000  # at a time


class Do(Enum):
    """What is asked of the thread that writes."""

    STORE = auto()
    KEEP = auto()
    VOID = auto()
    CONFIRM = auto()
    DIVERTED = auto()
    SETTLE = auto()
    FORGET = auto()
    SUSPECT = auto()
    PRUNE = auto()


_UNDONE: Final = (CopyState.PENDING, CopyState.HELD)
_BEFORE: Final = {Do.VOID: _UNDONE, Do.CONFIRM: (CopyState.PENDING,), Do.DIVERTED: _UNDONE}
_AFTER: Final = {Do.VOID: CopyState.VOID, Do.CONFIRM: CopyState.HELD, Do.DIVERTED: CopyState.DIVERTED}


@dataclass(slots=True)
class Work:
    """One job; `message`, `queue_id` or `key` as it needs them. The writer notes `packed`, `found` and `new`."""

    do: Do
    message: HeldMessage | None = None
    queue_id: str = ""
    numbers: Collection[int] = ()
    key: bytes = b""
    at: int = 0
    packed: Packed | None = None
    found: list[Known] = field(default_factory=list)
    new: bool = True  # of what was to be kept


class PostgresHoldStore:
    """Copies that are not relayed, of a fleet; fulfils `ports.HoldStore`. `vault` has the keys that seal them."""

    failed = ""  # a server that fails comes back; nothing is for good

    def __init__(
        self,
        server: Server,
        *,
        vault: Vault,
        settle_window: int = SETTLE_WINDOW,
        patience: float = PATIENCE,
        clock: Callable[[], int] = now,
    ) -> None:
        self._vault = vault
        self._settle_window = settle_window
        self._clock = clock
        self._patience = patience
        self._blocked_until = 0.0  # monotonic seconds
        self._since = math.inf  # of the batch that is being written
        self._prune_at = time.monotonic() + PRUNE_EVERY
        self._lots = Lots()
        self._doubts: dict[str, list[str]] = {}  # queue ids by session
        self._link = Link(server, limit=LIMIT)
        self._reader = Link(server, limit=LIMIT)
        self._keys = Keys(server, self._block)
        try:
            self._keys.start()
        except BaseException:
            self._keys.close()
            raise
        self._queue = HoldQueue(self._write, self._rest, every=REST, name="hold writer")

    def close(self) -> None:
        """Write what waits, and close."""
        self._queue.close()
        self._keys.close()
        self._link.close()
        self._reader.close()

    def has_room(self, size: int) -> bool:  # noqa: ARG002 - the server's space is not ours to see
        """Whether a message may be accepted: the server answered when it was last asked, or that is a second ago; and
        nobody waits for its answer for long.
        """
        moment = time.monotonic()
        return moment >= self._blocked_until and moment - self._since < self._patience

    async def store(self, message: HeldMessage) -> None:
        """Keep the message; on return it is on the server's disk."""
        await self._queue.submit(Work(Do.STORE, message=message, queue_id=message.queue_id), len(message.content))

    async def keep(self, message: HeldMessage) -> bool:
        """Keep a message unless there is one of its queue id; whether it was new. On return one is on the disk."""
        work = Work(Do.KEEP, message=message, queue_id=message.queue_id)
        await self._queue.submit(work, len(message.content))
        return work.new

    async def void(self, queue_id: str) -> None:
        """Undo `store`, durably; nothing if there is no such message."""
        await self._queue.submit(Work(Do.VOID, queue_id=queue_id, at=self._clock()))

    async def confirm(self, queue_id: str) -> None:
        """Take the pending copies of the message as held; nothing if there is no such message."""
        await self._queue.submit(Work(Do.CONFIRM, queue_id=queue_id, at=self._clock()))

    async def diverted(self, queue_id: str, numbers: Collection[int]) -> None:
        """Mark these copies (positions in the message) as delivered to where they were diverted."""
        await self._queue.submit(Work(Do.DIVERTED, queue_id=queue_id, numbers=numbers, at=self._clock()))

    async def settle(self, key: bytes, at: int) -> None:
        """Remember that this message was taken, though the client may not know; for the settle window."""
        await self._queue.submit(Work(Do.SETTLE, key=key, at=at))

    def known(self, key: bytes) -> frozenset[Known]:
        """What is remembered of this key, by any machine of the fleet (see `postgres_keys` for how soon)."""
        return self._keys.known(key)

    async def forget(self, key: bytes) -> bool:
        """The client is told now; whether the key was remembered until then. Of callers at once one is told so."""
        work = Work(Do.FORGET, key=key)
        await self._queue.submit(work)
        return bool(work.found)

    async def suspect(self, key: bytes, at: int) -> None:
        """Remember that a worker died judging this message; after the second time none tries again for a while."""
        await self._queue.submit(Work(Do.SUSPECT, key=key, at=at))

    async def prune(self) -> None:
        """Begin to remove what is remembered for longer than the settle window; also done now and then by itself."""
        await self._queue.submit(Work(Do.PRUNE))
        self._prune_at = 0.0

    def get(self, queue_id: str) -> StoredMessage | None:
        """The message, verified; None if there is none. Raises DamagedMessageError, HoldUnavailableError."""
        return self._reader.run(lambda connection: postgres_rows.stored(connection, queue_id, self._vault))

    # The thread that writes

    def _write(self, works: Sequence[Work]) -> Sequence[HoldUnavailableError | None]:
        """Write a batch in one transaction; if one job is at fault, each in its own, so that it fails alone."""
        self._since = time.monotonic()
        try:
            return self._try(works)
        finally:
            self._since = math.inf

    def _try(self, works: Sequence[Work]) -> Sequence[HoldUnavailableError | None]:
        try:
            self._settle_doubts()
            self._commit(works)
        except (HoldUnavailableError, HoldDataError) as error:  # HoldDataError: newer code has changed the tables
            self._block()
            if isinstance(error, UnavailableError) and error.in_doubt:
                self._doubts.setdefault(self._link.session, []).extend(_stored(works))
            return [HoldUnavailableError(str(error)) for _ in works]
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if len(works) > 1:
                return [outcome for work in works for outcome in self._try([work])]
            refusal = HoldUnavailableError(f"held mail cannot be written: {type(error).__name__}: {reason(error)}")
            refusal.__cause__ = error
            return [refusal]
        self._learn(works)
        return [None] * len(works)

    def _commit(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.message is not None and work.packed is None:
                work.packed = pack(work.message, self._vault)
        packed = [work.packed for work in works if work.packed is not None]
        lots = self._link.look(lambda connection: self._lots.find(connection, packed)) if packed else []
        self._link.run(lambda connection: self._transact(connection, works, packed, lots))

    def _transact(
        self, connection: Connection, works: Sequence[Work], packed: Sequence[Packed], lots: Sequence[Sequence[int]]
    ) -> None:
        _find_kept(connection, works)
        wanted = [work.new for work in works if work.packed is not None]
        adding = list(compress(packed, wanted))
        if adding:
            postgres_rows.insert(connection, adding, list(compress(lots, wanted)))
        changes = [work for work in works if work.do in _BEFORE]
        if changes:
            _change(connection, changes)
        for work in works:
            self._remember(connection, work)

    def _remember(self, connection: Connection, work: Work) -> None:
        match work.do:
            case Do.SETTLE:
                postgres_keys.remember(connection, work.key, Known.TAKEN, work.at)
                work.found = [Known.TAKEN]
            case Do.FORGET:
                work.found = [Known.TAKEN] if postgres_keys.forget(connection, work.key, Known.TAKEN) else []
            case Do.SUSPECT:
                work.found = [postgres_keys.suspect(connection, work.key, work.at)]
            case Do.PRUNE:
                self._prune(connection)

    def _learn(self, works: Sequence[Work]) -> None:
        """Know at once what we wrote ourselves."""
        for work in works:
            if work.do is Do.FORGET:
                self._keys.unlearn(work.key, Known.TAKEN)
            elif work.do in (Do.SETTLE, Do.SUSPECT):
                self._keys.learn(work.key, work.found[-1])

    def _settle_doubts(self) -> None:
        """Remove what a lost commit may have stored, whose clients were told that it was not."""
        for session, queue_ids in list(self._doubts.items()):
            self._link.run(partial(_undo, session=session, queue_ids=queue_ids))
            del self._doubts[session]

    def _rest(self) -> None:
        """What is due between batches; nobody waits for it."""
        if not self._doubts and time.monotonic() < self._prune_at:
            return
        with suppress(Exception):
            self._settle_doubts()
            if time.monotonic() >= self._prune_at:
                self._prune_at = time.monotonic() + PRUNE_EVERY
                if self._link.run(self._prune) >= PRUNE_ROWS:
                    self._prune_at = 0.0  # there is more: after what waits, or at once

    def _prune(self, connection: Connection) -> int:
        before = self._clock() - self._settle_window
        return postgres_keys.prune(connection, before, PRUNE_ROWS) + _prune_void(connection, before)

    def _block(self) -> None:
        self._blocked_until = time.monotonic() + BLOCKED


def _stored(works: Sequence[Work]) -> list[str]:
    return [work.queue_id for work in works if work.do is Do.STORE]


def _find_kept(connection: Connection, works: Sequence[Work]) -> None:
    """Note which of the messages to be kept are there already, or come twice at once."""
    keeping = [work for work in works if work.do is Do.KEEP]
    if not keeping:
        return
    texts = [postgres_rows.text_in(work.queue_id) for work in keeping]
    there = {
        str(row[0]) for row in connection.execute("SELECT queue_id FROM message WHERE queue_id = ANY(%s)", (texts,))
    }
    for text, work in zip(texts, keeping, strict=True):
        work.new = text not in there
        there.add(text)


def _undo(connection: Connection, session: str, queue_ids: Sequence[str]) -> None:
    if not end_session(connection, session):
        raise HoldUnavailableError("a lost session has not ended yet")
    connection.execute("DELETE FROM message WHERE queue_id = ANY(%s)", (list(queue_ids),))


def _change(connection: Connection, works: Sequence[Work]) -> None:
    """Void, confirm and mark as diverted, in the order it was asked for; the content goes with the last open copy."""
    queue_ids = list({work.queue_id for work in works})
    found = connection.execute("SELECT queue_id, id FROM message WHERE queue_id = ANY(%s)", (queue_ids,)).fetchall()
    numbers = {str(queue_id): int(number) for queue_id, number in found}
    messages = list(numbers.values())
    postgres_rows.lock(connection, messages)
    changes = []
    for one in postgres_rows.kept(connection, "message = ANY(%s)", (messages,)):
        record = one.record
        for work in works:
            if numbers.get(work.queue_id) == one.place.message:
                record = _changed(work, one.place.number, record)
        if record != one.record:
            changes.append((one, record))
    postgres_rows.change(connection, changes)
    postgres_rows.drop_content(connection, messages)


def _changed(work: Work, number: int, record: CopyRecord) -> CopyRecord:
    """What becomes of a copy."""
    if record.state not in _BEFORE[work.do] or (work.do is Do.DIVERTED and number not in work.numbers):
        return record
    return record._replace(state=_AFTER[work.do], changed_at=work.at)


def _prune_void(connection: Connection, before: int) -> int:
    """Remove messages that were voided before that time; how many."""
    void = str(CopyState.VOID)
    found = connection.execute(
        "SELECT DISTINCT message FROM copy AS one WHERE state = 'void' AND changed_at < %s AND NOT EXISTS"
        " (SELECT FROM copy AS other WHERE other.message = one.message AND other.state <> %s) LIMIT %s",
        (before, void, PRUNE_ROWS),
    ).fetchall()
    connection.execute("DELETE FROM message WHERE id = ANY(%s)", ([number for (number,) in found],))
    return len(found)

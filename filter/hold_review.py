"""Held mail as those see it who review, release and expire it: fulfils `held.HeldMail` on the file of this machine.

May be used beside the workers that write, by any number of processes. What is asked is read from one view of the file;
what is changed is one short durable transaction, which waits for those of others and is refused whole when the disk
fails. Everything is done in bounded memory.

Opening raises `HoldDataError`. Methods raise HoldUnavailableError for whatever keeps the file from being used now;
`message` raises DamagedMessageError and UnknownKeyError. What is damaged, or sealed with a key that is not there, is
skipped by all others and told by `hold_check`. Methods block, and may be called from any thread.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

import apsw

from .errors import InputError
from .flights import now
from .held import By, Claim, CopyState, Ended, HeldLine, HeldQuery, Order, Outcome, Place, Pruned, Tally, Unreadable
from .hold_claims import Leases, claims_of, finish, lease
from .hold_codec import CopyRecord, DamagedMessageError, HoldDataError, line_of, read_copies, read_message
from .hold_database import Change, HoldDatabase
from .hold_erase import erase_message, erase_subjects, rewrap
from .hold_lines import by_message, lines_of
from .hold_orders import find, keep, kept, waiting
from .hold_prune import prune_ended, prune_orders
from .hold_schema import FILE_NAME
from .hold_search import Search
from .hold_writer import Action, HoldWriter, identity
from .ports import HeldMessage, HoldUnavailableError
from .sealing import Vault

MOST: Final = 1000  # copies that one transaction changes, where the caller does not say which

_MOVES: Final = frozenset({CopyState.RELEASED, CopyState.DISCARDED, CopyState.EXPIRED})


class HeldReview:
    """The held mail in `directory`; `vault` has the keys that it is sealed with."""

    def __init__(
        self, directory: Path, vault: Vault, *, clock: Callable[[], int] = now, vfs: str | None = None
    ) -> None:
        self._path = directory / FILE_NAME
        self._writer: HoldWriter | None = None
        self._database = _reader(directory, vault, vfs)
        self._open_writer = partial(HoldWriter, directory, vault, clock=clock, vfs=vfs, file=identity(self._path))
        self._reading, self._writing = Lock(), Lock()

    def close(self) -> None:
        """Close the file."""
        with self._reading, suppress(apsw.Error):
            self._database.close()
        with self._writing:
            if self._writer is not None:
                self._writer.close()

    # Asking

    def tally(self, query: HeldQuery, by: By) -> Sequence[Tally]:
        """Copies that match, counted; the largest first."""
        with self._view() as database:
            return Search(database.connection, query).tally(by)

    def lines(self, query: HeldQuery, after: Place | None = None, limit: int = 1000) -> Sequence[HeldLine]:
        """Copies that match, in the order they were stored, from after that place on."""
        found: list[HeldLine] = []
        with self._view() as database:
            search = Search(database.connection, query)
            while len(found) < limit:
                wanted = limit - len(found)
                places = search.places(after, wanted)
                found += lines_of(database, places)
                if len(places) < wanted:
                    break
                after = places[-1]
        return found

    def message(self, queue_id: str, *, content: bool = True) -> tuple[HeldMessage, Mapping[int, HeldLine]] | None:
        """A message with its content (empty if it is gone) and the lines of its copies, by their position in it."""
        with self._view() as database:
            number = database.number(queue_id)
            if number is None:
                return None
            message, copies, _ = database.rows(number, content=False)
            row = read_message(message)
            lines = [line_of(Place(number, copy.number), row, copy) for copy in read_copies(row, copies)]
            return database.read(number, content=content).message, dict(enumerate(lines))

    def orders(self) -> Sequence[Order]:
        """Every order that is kept, the newest first."""
        with self._view() as database:
            return kept(database.connection)[::-1]

    def waiting(self, order: str = "") -> tuple[int, int]:
        """How many copies are RELEASED, and when the next is due, or its lease ends (0: none). Of one order, or all."""
        with self._view() as database:
            return waiting(database.connection, order)

    # Changing

    def order(self, order: Order) -> None:
        """Keep an order, durably, before anything is moved by it. The same order again is nothing new.

        Raises InputError for another order of that id.
        """
        with self._view() as database:
            found = find(database.connection, order.id)
        if found is None:
            self._write(lambda database: keep(database.connection, order))
        elif found != order:
            raise InputError(f"order {order.id}: is kept already as another one")

    def move(self, places: Sequence[Place], to: CopyState, order: Order, at: int) -> Sequence[Place]:
        """Move those of these copies that are still HELD, in one durable transaction; which they were."""
        if to not in _MOVES:
            raise ValueError(f"{to}: held copies are moved to {', '.join(sorted(_MOVES))}")
        due = at if to is CopyState.RELEASED else 0
        record = CopyRecord(to, at, 0, due, order.id)
        moved: list[Place] = []

        changes = {message: _moved(numbers, record) for message, numbers in by_message(places).items()}

        def action(database: HoldDatabase) -> None:
            keep(database.connection, order)
            moved[:] = database.change(changes)

        self._write(action)
        return moved

    def claim(
        self,
        at: int,
        until: int,
        limit: int,
        order: str = "",
        octets: int = 64 << 20,
        *,
        unreadable: list[Unreadable] | None = None,
    ) -> Sequence[Claim]:
        """Lease up to so many RELEASED copies that are due and not leased: ours until then. Of one order, or of all.

        Their messages have at most so many octets of content together, but for one that has more alone. What cannot be
        read is leased too, so that it keeps nobody waiting, and added to `unreadable`.
        """
        leased: Leases = {}
        self._write(
            lambda database: lease(database, leased, at=at, until=until, limit=limit, order=order, octets=octets)
        )
        if not leased:
            return []
        with self._view() as database:
            return list(claims_of(database, leased, unreadable))

    def finish(self, outcomes: Sequence[Outcome], at: int) -> None:
        """Record what became of leased copies and end their leases, in one durable transaction; each was an attempt."""
        self._write(lambda database: finish(database, outcomes, at))

    def confirm_pending(self, before: int, at: int) -> int:
        """Take PENDING copies of messages received before then as HELD: whoever would have voided them is long gone."""
        query = HeldQuery(states=frozenset({CopyState.PENDING}), received_before=before)
        confirmed = 0
        while before > 0:  # 0 would ask for all
            with self._view() as database:
                places = Search(database.connection, query).places(None, MOST)
            if not places:
                break
            changed: list[Place] = []
            changes = dict.fromkeys(by_message(places), _confirmed(at))
            self._write(partial(_change, changes, changed))
            confirmed += len(changed)
            if not changed:  # what is left is damaged
                break
        return confirmed

    def erase_message(self, queue_id: str) -> bool:
        """Remove a message with everything that is known of it, in any state; whether there was one."""
        with self._changing() as writer:
            return erase_message(writer, queue_id)

    def erase_subjects(self, subjects: Sequence[str]) -> int:
        """Remove every copy of a recipient, and messages that have none left; how many copies."""
        with self._changing() as writer:
            return erase_subjects(writer, subjects)

    def prune_ended(self, before: int, after: Ended | None = None, limit: int = MOST) -> Pruned:
        """Remove messages of up to so many copies that ended before that time, if all of their copies did."""
        done: list[Pruned] = []
        self._write(lambda database: done.append(prune_ended(database, before, after, limit)))
        return done[-1]

    def prune_orders(self, before: int, limit: int = MOST) -> int:
        """Remove up to so many orders that were given before that time and that no copy names; how many."""
        done: list[int] = []
        self._write(lambda database: done.append(prune_orders(database.connection, before, limit)))
        return done[-1]

    def rewrap(self, limit: int = 1000) -> int:
        """Wrap the keys of up to so many messages anew with the current master key; how many (0: all are).

        Those that no key opens stay as they are.
        """
        wrapped: list[int] = []
        self._write(lambda database: wrapped.append(rewrap(database, limit)))
        return wrapped[-1]

    def _write(self, action: Action) -> None:
        with self._changing() as writer:
            writer.transact([action])
            with suppress(apsw.Error):  # it is done already; the writer notes what that means for later
                writer.tidy()

    @contextmanager
    def _changing(self) -> Iterator[HoldWriter]:
        """The connection that writes; opened when it is needed, so that a damaged file can still be read."""
        with self._writing, self._told():
            if self._writer is None:
                self._writer = self._open_writer()
            try:
                yield self._writer
            except apsw.Error as error:
                raise self._writer.refusal(error) from error

    @contextmanager
    def _view(self) -> Iterator[HoldDatabase]:
        """One view of the file, as it is at this moment."""
        with self._reading, self._told():
            self._database.connection.execute("BEGIN")
            try:
                yield self._database
            except (
                ValueError,
                TypeError,
                LookupError,
                AttributeError,
            ) as error:  # what is counted, or an order, is not in its form
                raise HoldUnavailableError(f"{self._path}: damaged where it is counted: {error}") from error
            finally:
                with suppress(apsw.Error):
                    self._database.connection.execute("ROLLBACK")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever keeps the file from being used is told as that."""
        try:
            yield
        except apsw.Error as error:
            raise HoldUnavailableError(f"{self._path}: cannot be read: {type(error).__name__} {error}") from error
        except DamagedMessageError:
            raise
        except (HoldDataError, OSError) as error:
            raise HoldUnavailableError(str(error)) from error


def _reader(directory: Path, vault: Vault, vfs: str | None) -> HoldDatabase:
    """The connection that reads. A file that is not there yet is made, an older one brought up to date."""
    with suppress(HoldDataError):
        return HoldDatabase.open(directory, vault, vfs=vfs, readonly=True)
    HoldDatabase.open(directory, vault, vfs=vfs).close()
    return HoldDatabase.open(directory, vault, vfs=vfs, readonly=True)


def _change(changes: Mapping[int, Change], changed: list[Place], database: HoldDatabase) -> None:
    changed[:] = database.change(changes)


def _moved(numbers: Collection[int], moved: CopyRecord) -> Change:
    def change(number: int, record: CopyRecord) -> CopyRecord | None:
        return moved if number in numbers and record.state is CopyState.HELD else None

    return change


def _confirmed(at: int) -> Change:
    def change(_: int, record: CopyRecord) -> CopyRecord | None:
        return record._replace(state=CopyState.HELD, changed_at=at) if record.state is CopyState.PENDING else None

    return change

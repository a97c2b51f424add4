"""Where held mail and campaigns are: files of this machine, or the PostgreSQL database that `store.url` names.

The same three things of either, which nobody else asks which it is. Opening raises HoldDataError for what cannot be
used, HoldUnavailableError for a server that cannot be reached now, ConfigError for a password file, and OSError.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import campaign_schema, credentials
from .campaign_store import SqliteLedger
from .campaigns import CampaignLedger, as_of
from .config_relay import StoreSettings
from .decision import Decisions, no_decision
from .held import HeldMail
from .hold_codec import HoldDataError, StoredMessage
from .hold_review import HeldReview
from .hold_schema import FILE_NAME
from .hold_store import HoldStore
from .ports import HoldStore as Hold
from .sealing import Vault

if TYPE_CHECKING:
    from .postgres_link import Server


class OpenHold(Hold, Protocol):
    """A hold store that somebody has to close. `failed` says why nothing can be written any more, "" while it can."""

    @property
    def failed(self) -> str:
        """Why the worker must end; empty while it need not."""

    def get(self, queue_id: str) -> StoredMessage | None:
        """The message, verified; None if there is none. Raises DamagedMessageError."""

    def close(self) -> None:
        """Write what waits, and close."""


class OpenHeldMail(HeldMail, Protocol):
    """Held mail that somebody has to close."""

    def close(self) -> None:
        """Close it."""


class OpenLedger(CampaignLedger, Protocol):
    """A campaign ledger that somebody has to close."""

    def close(self) -> None:
        """Close it."""


def directory(store: StoreSettings) -> Path:
    """Where the files are, without a database."""
    return store.dir / "hold"


def holds_mail(store: StoreSettings) -> bool:
    """Whether mail may be held there already, so that new master keys would not open it: always so in a database,
    which other machines use as well.
    """
    return bool(store.url) or (directory(store) / FILE_NAME).exists()


def refuse_nothing(store: StoreSettings) -> None:
    """Say so where no mail can be held yet: raises HoldDataError."""
    if not holds_mail(store):
        raise HoldDataError(
            f"{directory(store)}: no held mail there yet; the relay makes it when it starts: consentry run"
        )


def open_hold(store: StoreSettings, vault: Vault, *, on_failed: Callable[[str], None] | None = None) -> OpenHold:
    """The hold store for a worker; files and tables are made where there are none. `on_failed` as of `HoldStore`."""
    if store.url:
        from .postgres_store import PostgresHoldStore  # noqa: PLC0415 - takes a fifth of a second, wanted by few

        return PostgresHoldStore(_server(store), vault=vault)
    return HoldStore(directory(store), vault=vault, min_free_space=store.min_free_space, on_failed=on_failed)


def open_review(store: StoreSettings, vault: Vault) -> OpenHeldMail:
    """Held mail, for review."""
    if store.url:
        from .postgres_review import PostgresReview  # noqa: PLC0415 - see above

        return PostgresReview(_server(store), vault=vault)
    refuse_nothing(store)
    return HeldReview(directory(store), vault)


def open_ledger(store: StoreSettings) -> OpenLedger:
    """The campaign ledger; made where there is none."""
    if store.url:
        from .postgres_ledger import PostgresLedger  # noqa: PLC0415 - see above

        return PostgresLedger(_server(store))
    return SqliteLedger(directory(store))


@contextmanager
def decided(store: StoreSettings, at: int) -> Iterator[Decisions]:
    """Tells which decision on a campaign was in force at that time; nothing is made where there is no ledger."""
    if not store.url and not (directory(store) / campaign_schema.FILE_NAME).exists():
        yield no_decision
        return
    with closing(open_ledger(store)) as ledger:
        yield lambda campaign: as_of(reversed(ledger.history(campaign)), at)


def _server(store: StoreSettings) -> "Server":
    from .postgres_link import Server  # noqa: PLC0415 - see above

    return Server(store.url, partial(credentials.store_password, store))

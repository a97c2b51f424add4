"""What commands need to review held mail: its store and the campaign ledger, opened together, and a journal.

Opening raises HoldDataError, HoldKeyError or OSError for what cannot be opened, InputError for a user who may not open
it; nothing is made that was not there.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import app
from .campaigns import CampaignLedger
from .classification import Classification
from .classify import Classifier
from .config import Config
from .errors import InputError
from .flights import now
from .held import HeldMail
from .held_content import read_message
from .journal import FileJournal
from .ports import HeldMessage

if TYPE_CHECKING:
    from .metrics import Metrics

WORKER = "command"
"""In whose name commands write into the journal."""


@dataclass(frozen=True, slots=True)
class ReviewStores:
    """Held mail, and what is known of its campaigns."""

    held: HeldMail
    ledger: CampaignLedger


@contextmanager
def review_stores(config: Config) -> Iterator[ReviewStores]:
    """The stores of a configuration, for as long as a command lasts."""
    with ExitStack() as opened:
        try:
            held = opened.enter_context(closing(app.held_mail(config)))
            ledger = opened.enter_context(closing(app.campaign_ledger(config)))
        except PermissionError as error:
            whose = "run this as the user whom the relay runs as"
            raise InputError(f"{error.filename}: permission denied; {whose}") from None
        yield ReviewStores(held, ledger)


def judge(config: Config, held: HeldMessage) -> Classification:
    """What a held message is by the rules in force; raises RuleError if they cannot be read."""
    return Classifier(app.rules(config).rules).classify(read_message(held))


@contextmanager
def command_journal(config: Config) -> Iterator[FileJournal]:
    """The journal, for what a command did; on the disk when it ends.

    Raises InputError for another user than the relay's, whose files would be in its way.
    """
    directory = config.store.dir
    if directory.exists() and directory.stat().st_uid != os.geteuid():
        name = _owner(directory)
        raise InputError(f"{directory}: belongs to {name}; run this as that user: sudo -u {name} consentry …")
    with FileJournal(config.store.dir / "journal", WORKER, now) as journal:
        yield journal
        journal.assure()


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a user without a name
        return str(path.stat().st_uid)


def command_metrics() -> "Metrics":
    """Counters that nobody reads: a command ends before anybody could."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - most commands need neither of them

    from .metrics import Metrics  # noqa: PLC0415

    return Metrics(CollectorRegistry())

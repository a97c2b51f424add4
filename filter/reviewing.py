"""What commands need to review held mail: its store and the campaign ledger, opened together, and a journal.

Opening raises HoldDataError, HoldKeyError or OSError for what cannot be opened; nothing is made that was not there.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import app
from .campaigns import CampaignLedger
from .classify import Classification, Classifier
from .config import Config
from .flights import now
from .held import HeldMail
from .journal import FileJournal
from .message import parse_message

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
    with closing(app.held_mail(config)) as held, closing(app.campaign_ledger(config)) as ledger:
        yield ReviewStores(held, ledger)


def judge(config: Config, content: bytes) -> Classification:
    """What a held message is by the rules in force; raises RuleError if they cannot be read."""
    return Classifier(app.rules(config).rules).classify(parse_message(content))


@contextmanager
def command_journal(config: Config) -> Iterator[FileJournal]:
    """The journal, for what a command did; on the disk when it ends."""
    with FileJournal(config.store.dir / "journal", WORKER, now) as journal:
        yield journal


def command_metrics() -> "Metrics":
    """Counters that nobody reads: a command ends before anybody could."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - most commands need neither of them

    from .metrics import Metrics  # noqa: PLC0415

    return Metrics(CollectorRegistry())

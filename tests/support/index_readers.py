"""Processes that read a consent index, apart from the tests that start them, so that they start quickly.

Each opens the index in a directory with the secret of its subject keys.
"""

import os
import signal
from multiprocessing.queues import Queue
from pathlib import Path

from filter.address import SubjectKeyer
from filter.consent import Scope
from filter.consent_store import ConsentStore

SCOPE = Scope("email", "bank", "bank", "offers")
NOW = 1_790_000_000_000


def die_reading(directory: Path, secret: bytes) -> None:
    """Be killed within a look-up."""
    store = ConsentStore(directory, SubjectKeyer(secret))
    _reading = store._index.begin()
    os.kill(os.getpid(), signal.SIGKILL)


def read_once(directory: Path, secret: bytes) -> None:
    """Look somebody up, and leave."""
    with ConsentStore(directory, SubjectKeyer(secret)) as store:
        store.lookup("anna@bank.example", SCOPE, NOW)


def read_when_asked(directory: Path, secret: bytes, answers: Queue, questions: Queue) -> None:
    """Answer each address with its state, until None comes."""
    with ConsentStore(directory, SubjectKeyer(secret)) as reader:
        while (address := questions.get()) is not None:
            reader._next_look = 0
            answers.put(reader.lookup(address, SCOPE, NOW).state)

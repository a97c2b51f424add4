"""The stores of held mail that tests of the contract run on, each behind the same few methods."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from filter.held import HeldMail
from filter.hold_review import HeldReview
from filter.hold_store import HoldStore
from filter.ports import HeldMessage

from .held import VAULT
from .held_memory import MemoryHeldMail


class Backend(Protocol):
    """A store that is empty at first. `mail` is what is tested."""

    mail: HeldMail

    def store(self, *messages: HeldMessage) -> None:
        """Put messages in, as the pipeline does, one after the other."""

    def another(self) -> HeldMail:
        """The same store as another process sees it."""

    def close(self) -> None:
        """Close it, and what `another` gave."""


class SqliteBackend:
    """The file of this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "hold"
        self.hold = HoldStore(self.directory, vault=VAULT, min_free_space=0)
        self.mail = HeldReview(self.directory, VAULT)
        self._others: list[HeldReview] = []

    def store(self, *messages: HeldMessage) -> None:
        """Put messages in."""

        async def run() -> None:
            for message in messages:
                await self.hold.store(message)

        asyncio.run(run())

    def another(self) -> HeldReview:
        """The same file, opened again."""
        self._others.append(HeldReview(self.directory, VAULT))
        return self._others[-1]

    def close(self) -> None:
        """Close all."""
        for mail in (self.mail, *self._others):
            mail.close()
        self.hold.close()


class MemoryBackend:
    """The model that other tests use."""

    def __init__(self, _: Path) -> None:
        self.mail = MemoryHeldMail()

    def store(self, *messages: HeldMessage) -> None:
        """Put messages in."""
        for message in messages:
            self.mail.store(message)

    def another(self) -> MemoryHeldMail:
        """There is but one."""
        return self.mail

    def close(self) -> None:
        """Nothing to do."""


BACKENDS: Mapping[str, Callable[[Path], Backend]] = {"memory": MemoryBackend, "sqlite": SqliteBackend}

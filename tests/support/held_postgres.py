"""Held mail in a PostgreSQL database of its own, as `held_backends.Backend` wants it."""

import asyncio

from filter.ports import HeldMessage
from filter.postgres_link import Server
from filter.postgres_review import PostgresReview
from filter.postgres_store import PostgresHoldStore

from .held import VAULT
from .postgres import PASSWORD, Postgres


class PostgresBackend:
    """A new database of a running server."""

    def __init__(self, postgres: Postgres) -> None:
        self.server = Server(postgres.database(), lambda: PASSWORD)
        self.hold = PostgresHoldStore(self.server, vault=VAULT)
        self.mail = PostgresReview(self.server, vault=VAULT)
        self._others: list[PostgresReview] = []

    def store(self, *messages: HeldMessage) -> None:
        """Put messages in."""

        async def run() -> None:
            for message in messages:
                await self.hold.store(message)

        asyncio.run(run())

    def another(self) -> PostgresReview:
        """The same database, from another machine."""
        self._others.append(PostgresReview(self.server, vault=VAULT))
        return self._others[-1]

    def close(self) -> None:
        """Close all."""
        for each in (self.mail, *self._others, self.hold):
            each.close()

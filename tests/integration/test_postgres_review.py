"""Held mail in PostgreSQL keeps what every store of it promises (unit/test_held_mail.py), and what a fleet needs."""

import pytest
from support.held_postgres import PostgresBackend
from support.postgres import running
from unit import test_held_mail as contract

pytestmark = pytest.mark.integration

postgres = pytest.fixture(scope="module")(running)
globals().update({name: value for name, value in vars(contract).items() if name.startswith("test_")})


@pytest.fixture
def backend(postgres):
    """An empty database."""
    opened = PostgresBackend(postgres)
    yield opened
    opened.close()

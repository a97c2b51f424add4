"""The campaign ledger in PostgreSQL keeps what every ledger promises (unit/test_campaign_ledger.py)."""

from contextlib import ExitStack, closing

import pytest
from support.postgres import PASSWORD, running
from unit import test_campaign_ledger as contract

from filter.postgres_ledger import PostgresLedger
from filter.postgres_link import Server

pytestmark = pytest.mark.integration

postgres = pytest.fixture(scope="module")(running)
globals().update({name: value for name, value in vars(contract).items() if name.startswith("test_")})


@pytest.fixture
def opens(postgres):
    """Opens the ledger of an empty database; every call as another machine would."""
    server = Server(postgres.database(), lambda: PASSWORD)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(PostgresLedger(server)))

"""Parts that are started once for all tests of a run that want them."""

from collections.abc import Iterator

import pytest
from support.kafka import Kafka, any_kafka


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A cluster that nobody kills: make topics of your own in it."""
    yield from any_kafka()

"""Parts that are started once for all tests of a run that want them."""

from collections.abc import Iterator

import pytest
from support import go_parts
from support.kafka import Kafka, any_kafka


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with what takes minutes, once for a machine, while other tests run."""
    if not session.config.option.collectonly and any(
        item.path.name == "test_packaging_helm.py" for item in session.items
    ):
        go_parts.begin()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A cluster that nobody kills: make topics of your own in it."""
    yield from any_kafka()

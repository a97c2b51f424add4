"""Parts that are started once for all tests of a run that want them, and the server that mail goes to in most."""

from collections.abc import Iterator

import pytest
from support import go_parts
from support.alone import alone
from support.kafka import Kafka, any_kafka
from support.script_sink import ScriptSink


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with what takes minutes, once for a machine, while other tests run."""
    if not session.config.option.collectonly and any(
        item.path.name == "test_packaging_helm.py" for item in session.items
    ):
        go_parts.begin()


@pytest.fixture
def usual_ports() -> Iterator[None]:
    """For one demo at a time, with those that it starts beside itself: it looks which ports are free and takes them."""
    with alone("demo"):
        yield


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A cluster that nobody kills: make topics of your own in it."""
    yield from any_kafka()


@pytest.fixture
def sink() -> Iterator[ScriptSink]:
    """Where mail goes in the end: a server that takes everything."""
    with ScriptSink() as sink:
        yield sink

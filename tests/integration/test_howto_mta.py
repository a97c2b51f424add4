"""The how-to guides for mail servers do what they say: their own commands, with a real Postfix and a real Exim."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exim import have_exim
from support.howto import Machine, have_postfix
from support.postfix import Postfix
from support.script_sink import ScriptSink

pytestmark = pytest.mark.integration


@pytest.fixture
def machine(rules_cache: Path) -> Iterator[Machine]:
    """A machine with swaks."""
    with Machine(cache=rules_cache) as machine:
        machine.install("swaks", "swaks")
        yield machine


@pytest.mark.parametrize("way", ["In front", "Before the queue", "After the queue", "At the end"])
def test_postfix(machine: Machine, sink: ScriptSink, way: str) -> None:
    """However the guide puts it beside Postfix: the service message arrives once, the offer is held."""
    with Postfix.relaying(sink.port) as postfix:
        have_postfix(machine, postfix)
        machine.exchange["smarthost.example:25"] = f"127.0.0.1:{sink.port}"
        machine.follow("postfix.md", way, "Check it")
        sink.wait(1)
        postfix.wait_empty()
    (arrived,) = sink.delivered
    assert b"Your statement" in arrived.message
    assert b"X-Consentry: " in arrived.message


def test_exim(machine: Machine, sink: ScriptSink) -> None:
    """Debian's Exim hands everything to the relay, and sends what comes back: once, with our header field."""
    have_exim(machine, sink.port)
    machine.follow("exim.md", "Set it up", "Check it")
    (arrived,) = sink.wait(1)
    machine.follow("exim.md", "Take it out again")
    assert b"Your statement" in arrived.message
    assert arrived.message.count(b"X-Consentry: ") == 1

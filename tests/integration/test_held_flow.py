"""Held mail from end to end: a real relay of two workers, its commands, and a next hop that keeps every octet."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import Done, wait_until
from support.relay import Relay
from support.running import OURS, consentry
from support.script_sink import ScriptSink, Transaction, reply

pytestmark = pytest.mark.integration

SECRET = b"Melusine-4711"
TEXT = (
    b"From: Bank <news@bank.example>\r\nTo: %s\r\nSubject: Save 20%% today\r\nMessage-ID: <%s@bank.example>\r\n\r\n"
    b"Dear customer " + SECRET + b",\r\n\r\nget 20%% off your next order today. Shop now and save!\r\n"
    b"..a line with two dots, and trailing blanks \t\r\n"
)
WITHIN = 1.0  # second: a decision counts in every worker


def offer(name: str, to: str = "anna@customer.example") -> bytes:
    """A promotional message."""
    return TEXT % (to.encode(), name.encode())


class Flow:
    """A relay with its next hop."""

    def __init__(self, relay: Relay, sink: ScriptSink) -> None:
        self.relay = relay
        self.sink = sink

    def command(self, *arguments: str) -> Done:
        """Run a command with the relay's configuration."""
        return consentry(*arguments, "-c", self.relay.config)

    def documents(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """What a command writes as JSON."""
        done = self.command(*arguments, "--json")
        assert done.code == code, done.output
        return [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]

    def send(self, name: str, *recipients: str) -> bytes:
        """Hand in an offer; its content."""
        content = offer(name, recipients[0])
        assert self.relay.send(content, recipients)[0] == 250
        return content

    def states(self) -> dict[str, int]:
        """Copies by state."""
        counted = self.documents("held", "stats", "--by", "state", "--state", "all")
        return {one["value"]: one["copies"] for one in counted}

    def delivered(self, count: int) -> list[Transaction]:
        """What reached the next hop, as soon as it is so much."""
        wait_until(lambda: len(self.sink.delivered) >= count, f"{count} messages at the next hop", seconds=30)
        assert len(self.sink.delivered) == count
        return self.sink.delivered


@pytest.fixture
def flow(tmp_path: Path, rules_cache: Path) -> Iterator[Flow]:
    """A relay with two workers; Carla has agreed, nothing is known of the others."""
    consents = {"carla@customer.example": "grant"}
    with ScriptSink() as sink, Relay(tmp_path, sink.port, cache=rules_cache, consents=consents, smtp=OURS) as relay:
        relay.wait_serving()
        yield Flow(relay, sink)


def test_what_is_held_is_listed_counted_and_shown(flow: Flow) -> None:
    """Promotion to somebody unknown is held, the copy beside it relayed; the commands tell of it while mail flows."""
    flow.send("1", "anna@customer.example", "carla@customer.example")
    wait_until(lambda: flow.states() == {"held": 1}, "a held copy")
    (line,) = flow.documents("held", "list")
    assert (line["reason"], line["consent"], len(line["campaign"])) == ("no_consent", "unknown", 32)
    shown = flow.command("held", "show", line["queue_id"]).output
    assert "anna@customer.example" in shown
    assert "carla" not in shown.partition("Header")[0]
    assert "Shop now and save!" in shown
    assert "Subject: Save 20% today" in shown
    wait_until(lambda: bool(flow.documents("campaign", "list")[0]["messages"]), "the campaign in the ledger")
    (campaign,) = flow.documents("campaign", "list")
    assert (campaign["campaign"], campaign["held"], campaign["messages"]) == (line["campaign"], 1, 1)
    assert campaign["sample"] == line["queue_id"]


def test_an_objection_stops_a_release_and_despite_overrides_ignorance(flow: Flow) -> None:
    """Who is not known gets nothing without --despite; with it, octet for octet. An objection stops both."""
    content = flow.send("1", "anna@customer.example", "ben@customer.example")
    refused = flow.documents("held", "release", "--all", "--why", "x", "--yes", code=1)
    assert refused[0]["stopped"] == {"no_consent": 2}
    assert flow.states() == {"held": 2}
    done = flow.command("consent", "record", "ben@customer.example", "kind=object", "controller=bank")
    assert done.code == 0, done.output
    (told,) = flow.documents("held", "release", "--all", "--why", "agreed", "--yes", "--despite", code=1)
    assert told["stopped"] == {"objected_meanwhile": 1}
    assert told["states"] == {"delivered": 1, "held": 1}
    (sent,) = flow.delivered(1)
    assert [line.partition(b"<")[2].partition(b">")[0] for line in sent.rcpts] == [b"anna@customer.example"]
    assert sent.message
    assert sent.message.endswith(content)
    head = sent.message.removesuffix(content)
    assert head.startswith(b"X-Consentry-Released: release-")
    assert b"\r\nReceived: from " in head
    assert flow.states() == {"delivered": 1, "held": 1}


def test_the_relay_delivers_what_is_left_to_it(flow: Flow) -> None:
    """Released with --no-wait, refused for now and tried again: the relay sees to it."""
    flow.send("1", "anna@customer.example")
    (told,) = flow.documents("held", "release", "--all", "--why", "x", "--yes", "--despite", "--no-wait")
    assert told["states"] == {}
    flow.delivered(1)
    wait_until(lambda: flow.states() == {"delivered": 1}, "its outcome")
    assert [one["order"] for one in flow.relay.events("released")] == [told["order"]["id"]]


def test_a_decision_counts_in_every_worker_within_a_second(flow: Flow) -> None:
    """Later copies flow as service, whichever worker takes them; held ones go with --apply-to-held."""
    flow.send("1", "anna@customer.example")
    (line,) = flow.documents("held", "list")
    name = line["campaign"][:8]
    flow.documents("campaign", "decide", name, "is_service", "--why", "a test", "--author", "dora")
    time.sleep(WITHIN)
    for number in range(2, 12):  # over connections of their own, so that both workers get some
        flow.send(str(number), "anna@customer.example")
    assert len(flow.delivered(10)) == 10
    decided = [one for one in flow.relay.events("decision") if one["disposition"] == "relay"]
    assert {one["reason"] for one in decided} == {"decided_service"}
    workers = {
        path.name
        for path in (flow.relay.store / "journal").glob("*.[01].jsonl")
        if "decided_service" in path.read_text()
    }
    assert len(workers) == 2
    flow.documents("campaign", "decide", name, "is_service", "--why", "more", "--apply-to-held", "--yes")
    flow.delivered(11)
    assert flow.states() == {"delivered": 1}
    flow.documents("campaign", "withdraw", name)
    time.sleep(WITHIN)
    flow.send("12", "anna@customer.example")
    assert flow.states() == {"delivered": 1, "held": 1}


def test_what_is_discarded_or_erased_is_nowhere(flow: Flow) -> None:
    """Neither content nor address stands in the store directory, before or after: it is sealed, and then it is gone."""
    flow.send("1", "anna@customer.example")
    flow.send("2", "ben@customer.example")
    flow.documents("held", "discard", "--recipient", "anna@customer.example", "--why", "x", "--yes")
    assert flow.documents("held", "erase", "--recipient", "ben@customer.example", "--yes") == [{"erased": 1}]
    assert flow.states() == {"discarded": 1}
    for file in flow.relay.store.rglob("*"):
        if file.is_file() and not file.is_relative_to(flow.relay.store / "cache"):
            octets = file.read_bytes()
            for words in (SECRET, b"anna@customer", b"ben@customer", b"Shop now"):
                assert words not in octets, file


def test_housekeeping_passes_to_another_worker(flow: Flow) -> None:
    """When the worker whose turn it is dies, another delivers what is released."""
    flow.send("1", "anna@customer.example")
    for number in (0, 1):
        flow.relay.kill_worker(number)
        flow.relay.wait_serving()
    flow.documents("held", "release", "--all", "--why", "x", "--yes", "--despite", "--no-wait")
    flow.delivered(1)


def test_a_next_hop_that_asks_to_come_again_is_tried_again(flow: Flow) -> None:
    """A 4xx to a release leaves the copy with the relay, with what was said; a 5xx ends it."""
    flow.send("1", "anna@customer.example")
    flow.sink.script = {".": reply("451 4.3.0 Later")}
    (told,) = flow.documents("held", "release", "--all", "--why", "x", "--yes", "--despite", code=1)
    assert (told["states"], told["waiting"]) == ({"released": 1}, 1)
    (line,) = flow.documents("held", "list", "--state", "released")
    assert line["outcome"] == "next_hop 451 4.3.0"
    assert line["attempts"] == 1


def test_who_agrees_meanwhile_gets_what_was_held(tmp_path: Path, rules_cache: Path) -> None:
    """Where it is set, and after a reload by the workers that took over; a mailbox is told that all this is at work."""
    settings = '[hold]\nauto_release = true\n[notice]\nto = "dpo@bank.example"\n'
    with ScriptSink() as sink, Relay(tmp_path, sink.port, cache=rules_cache, smtp=OURS, rest=settings) as relay:
        flow = Flow(relay.wait_serving(), sink)
        (notice,) = flow.delivered(1)
        assert notice.mail.startswith(b"MAIL FROM:<>")
        assert b"\r\nAuto-Submitted: auto-generated\r\n" in (notice.message or b"")
        content = flow.send("1", "anna@customer.example")
        assert flow.states() == {"held": 1}
        relay.agree({"anna@customer.example": "grant"})
        relay.reload()
        sent = flow.delivered(2)[-1].message or b""
        assert sent.startswith(b"X-Consentry-Released: auto;")
        assert sent.endswith(content)
        assert [one["author"] for one in relay.events("ordered")] == ["auto"]

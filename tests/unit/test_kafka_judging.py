"""Judged records: what is written, under which headers, and that both doors judge alike."""

import base64
import dataclasses
from pathlib import Path

import orjson
import pytest
from support import fakes
from support.kafka_records import Record, json_record, judge, record
from support.world import MAIL, POLICY, PROMOTION, SERVICE, World, decider

from filter import app
from filter.classify import Classifier
from filter.config import Config
from filter.decision import Decider
from filter.envelope import RcptTo
from filter.events import Event
from filter.kafka_judging import Passed
from filter.kafka_records import Poison, PoisonCode
from filter.kafka_results import Output
from filter.stream import Stream

ALL = [f"{word}.1@x.example" for word in ("relay", "hold", "divert", "reject", "tempfail")]


def headers(output: Output) -> dict[str, list[str]]:
    """Record headers by name."""
    found: dict[str, list[str]] = {}
    for name, octets in output.headers:
        found.setdefault(name, []).append(octets.decode())
    return found


def by_suffix(passed: Passed) -> dict[str, list[Output]]:
    """What is written, by topic."""
    found: dict[str, list[Output]] = {}
    for output in passed.outputs:
        found.setdefault(output.suffix, []).append(output)
    return found


def test_each_copy_is_in_exactly_one_group() -> None:
    """Every recipient is named in one record, of the topic that its verdict says; decisions name all of them."""
    passed = judge(World()).judge(record(PROMOTION, *ALL, mail_from="a@bank.example"))
    written = by_suffix(passed)
    named = {
        (output.suffix, headers(output)["consentry-disposition"][0]): headers(output)["consentry-rcpt"]
        for output in passed.outputs
        if output.suffix != "decisions"
    }
    assert named == {
        ("relay", "relay"): [ALL[0]],
        ("held", "hold"): [ALL[1], ALL[4]],
        ("held", "reject"): [ALL[3]],
        ("diverted", "divert"): [ALL[2]],
    }
    assert len(written["decisions"]) == len(ALL)


def test_octets_and_key_go_out_as_they_came_in() -> None:
    """The value, the key and the producer's headers are untouched; names of ours that came in are not believed."""
    odd = PROMOTION.replace(b"\r\n", b"\n") + b"\xff\x00"
    incoming = Record(
        odd, (("rcpt_to", b"relay.1@x.example"), ("trace", b"\xfe"), ("consentry-rcpt", b"evil@x.example"))
    )
    passed = judge(World()).judge(incoming)
    (relayed,) = by_suffix(passed)["relay"]
    assert (relayed.key, relayed.value) == (b"key", odd)
    assert list(relayed.headers) == [
        ("rcpt_to", b"relay.1@x.example"),
        ("trace", b"\xfe"),
        ("consentry-queue-id", passed.incoming.queue_id.encode()),
        ("consentry-disposition", b"relay"),
        ("consentry-source-topic", b"outbound"),
        ("consentry-source-partition", b"3"),
        ("consentry-source-offset", b"17"),
        ("consentry-rcpt", b"relay.1@x.example"),
    ]


def test_held_copies_carry_their_verdicts() -> None:
    """What a hold store needs stands beside the message, so that nothing is judged again."""
    passed = judge(World()).judge(record(PROMOTION, *ALL, declared="service"))
    (held, rejected) = by_suffix(passed)["held"]
    about = orjson.loads(headers(held)["consentry-held"][0])
    assert about["mail_from"] is None
    assert (about["label"], about["controller"], about["declared"]) == ("marketing", "bank", "service")
    assert orjson.loads(about["facts"])["label"] == "marketing"
    assert [(copy["disposition"], copy["state"]) for copy in about["copies"]] == [
        ("hold", "soft_opt_in"),
        ("hold", "objected"),
    ]
    assert orjson.loads(headers(rejected)["consentry-held"][0])["copies"][0]["disposition"] == "reject"


def test_decisions_are_the_journal_s_own_lines() -> None:
    """Octet for octet, under the queue id, in the order of recipients."""
    world = World()
    passed = judge(world).judge(record(PROMOTION, *ALL))
    records_judge = judge(world)
    records_judge.begin([passed])
    lines = world.journal.of(Event.DECISION)
    written = by_suffix(passed)["decisions"]
    assert [output.value for output in written] == [orjson.dumps(line) for line in lines]
    assert {output.key for output in written} == {passed.incoming.queue_id.encode()}


def test_poison_becomes_a_dead_letter() -> None:
    """The original octets, key and headers, and why it is there; it balances no book of messages."""
    world = World()
    records_judge = judge(world)
    passed = records_judge.judge(Record(b"{", (("trace", b"\xfe"),), key=None))
    (output,) = passed.outputs
    assert (output.suffix, output.key, output.value) == ("dead-letter", None, b"{")
    assert dict(output.headers)["consentry-error"] == b"bad_json"
    assert dict(output.headers)["trace"] == b"\xfe"
    assert dict(output.headers)["consentry-source-offset"] == b"17"
    records_judge.begin([passed])
    records_judge.committed([passed])
    assert [line["error"] for line in world.journal.of(Event.DEAD_LETTER)] == ["bad_json"]
    assert world.count("kafka_records", outcome="dead_letter") == 1
    assert world.count("messages", label="none", outcome="taken") == 0


def test_what_was_committed_is_told_once() -> None:
    """Journal and counters say of each copy where it is, as they do for the SMTP door."""
    world = World()
    records_judge = judge(world)
    passed = records_judge.judge(record(PROMOTION, *ALL))
    records_judge.begin([passed])
    assert not world.journal.of(Event.RELAYED)
    records_judge.committed([passed])
    told = {event: line["recipients"] for event in Event for line in world.journal.of(event) if "subjects" in line}
    assert told == {Event.RELAYED: 1, Event.HELD: 2, Event.REJECTED: 1, Event.DIVERTED: 1}
    assert world.count("accepted") == len(ALL)
    assert [queue_id for queue_id, _ in world.noted] == [passed.incoming.queue_id]


def test_what_was_aborted_is_read_again() -> None:
    """The journal says that nothing became of it, and no copy is counted."""
    world = World()
    records_judge = judge(world)
    passed = records_judge.judge(record(SERVICE, *ALL))
    records_judge.begin([passed])
    records_judge.aborted([passed])
    assert [line["why"] for line in world.journal.of(Event.DEFERRED)] == ["aborted"]
    assert world.count("accepted") == 0
    records_judge.doubtful([passed])
    assert len(world.journal.of(Event.IN_DOUBT)) == 1


def test_two_dead_workers_are_enough() -> None:
    """A record over which two workers died becomes a dead letter for the third, wherever it is read."""
    world = World()
    poison = record(SERVICE, "relay.1@x.example")
    for _ in range(2):
        dying = dataclasses.replace(judge(world), judging=_Killed())
        with pytest.raises(fakes.Crash):
            dying.judge(poison, suspicious=True)
        world.restart()
    (output,) = judge(world).judge(poison, suspicious=True).outputs
    assert (output.suffix, dict(output.headers)["consentry-error"]) == ("dead-letter", b"died_judging")


class _Killed:
    """A judge over whom the process dies."""

    def judge(self, *_arguments: object, **_options: object) -> None:
        """Die."""
        raise fakes.Crash


def test_a_fault_in_judging_has_its_setting() -> None:
    """What cannot be judged goes as policy.on_scan_error says, and its decisions say so."""
    world = World(decider=lambda: Decider(None, None, (Stream("b", "b", "b"),), POLICY))  # type: ignore[arg-type]
    passed = judge(world).judge(record(SERVICE, "relay.1@x.example"))
    assert set(by_suffix(passed)) == {"held", "decisions"}
    assert world.reported == ["judge"]


def test_a_report_is_never_held() -> None:
    """Mail with a null sender is relayed; a sender nobody named is no null sender."""
    for given, suffix in (({"mail_from": ""}, "relay"), ({}, "held")):
        passed = judge(World()).judge(record(PROMOTION, "hold.1@x.example", **given))
        assert set(by_suffix(passed)) == {suffix, "decisions"}


def test_other_channels_have_subject_keys_of_their_own() -> None:
    """The journal knows a telephone by the key that the consent index has for it."""
    world = World()
    passed = judge(world).judge(json_record({"channel": "sms", "to": ["+44 7700 900123"], "text": "Your code is 7."}))
    (line,) = [orjson.loads(output.value) for output in by_suffix(passed)["decisions"]]
    keyer = world.pipeline.judge._subjects
    assert line["subject"] == keyer.subject("+447700900123", "sms").exact.hex()


# Both doors


def both_doors(content: bytes, recipients: list[str], world_of) -> None:
    """Judge the same mail at both doors and compare what they say of it."""
    smtp, kafka = world_of(), world_of()
    smtp.send([RcptTo(one.encode()) for one in recipients], content, MAIL)
    passed = judge(kafka).judge(record(content, *recipients, mail_from="a@bank.example"))
    judge(kafka).begin([passed])
    for event in (Event.MESSAGE, Event.DECISION):
        lines = [_anonymous(line) for line in smtp.journal.of(event)]
        assert lines
        assert lines == [_anonymous(line) for line in kafka.journal.of(event)]
    assert smtp.metrics is not kafka.metrics


def _anonymous(line) -> bytes:
    """A line as the journal has it, without what no two passages share."""
    own = {"queue_id": "", "client": "", "tls": "", "authenticated": False}
    return orjson.dumps({**line, **{name: value for name, value in own.items() if name in line}})


@pytest.mark.parametrize("content", [PROMOTION, SERVICE])
def test_both_doors_judge_alike(content: bytes) -> None:
    """Verdicts and decision lines are the same octets, whichever way a message came."""
    both_doors(content, [one for one in ALL if not one.startswith("tempfail")], World)


@pytest.fixture(scope="module")
def shipped() -> Decider:
    """The shipped rules, and recipients of every consent state."""
    loaded = app.rules(Config.default())
    test_decider = decider()
    return Decider(Classifier(loaded.rules), test_decider.consent, test_decider.streams, POLICY)


def test_both_doors_judge_the_corpus_alike(shipped: Decider, shared: Path) -> None:
    """Every raw message of the corpus gets the same verdicts at both doors; SMS and JSON have one door only."""
    found = 0
    for path in sorted((shared / "corpus").glob("*.jsonl")):
        for line in path.read_bytes().splitlines()[:60]:
            document = orjson.loads(line)
            content = _content(document)
            if content:
                both_doors(content, ["relay.1@x.example", "hold.1@x.example"], lambda: World(decider=lambda: shipped))
                found += 1
    assert found


def _content(document) -> bytes:
    """Mail of a line of the corpus, as SMTP carries it."""
    if raw := document.get("raw_base64"):
        return base64.b64decode(raw)
    if "text" not in document and "html" not in document:
        return b""
    kind = "html" if document.get("html") else "plain"
    body = base64.encodebytes((document.get("html") or document["text"]).encode()).replace(b"\n", b"\r\n")
    head = (
        f"From: a@bank.example\r\nContent-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return head.encode() + body


def test_the_cases_of_the_casebook_are_judged_as_json(shipped: Decider) -> None:
    """A JSON message that names its recipients is judged; none of the casebook is poison."""
    records_judge = judge(World(decider=lambda: shipped))
    cases = Path(__file__).parents[1] / "data" / "casebook.jsonl"
    seen = set()
    for line in cases.read_bytes().splitlines():
        document = orjson.loads(line)
        if "text" in document or "html" in document:
            recipient = "relay.1@x.example" if document.get("channel", "email") == "email" else "+447700900123"
            passed = records_judge.judge(json_record({**document, "to": [recipient]}))
            assert passed.judged, passed.outputs
            seen.add(passed.judged.label)
    assert seen


def test_refused_by_the_output_topics() -> None:
    """A record whose results are too large for their topics becomes a dead letter when it is judged again."""
    world = World()
    passed = judge(world).judge(record(SERVICE, "relay.1@x.example"), refused=Poison(PoisonCode.TOO_LARGE, "no room"))
    assert [output.suffix for output in passed.outputs] == ["dead-letter"]
    assert not [one for one in world.journal.events if one["event"] is Event.MESSAGE]

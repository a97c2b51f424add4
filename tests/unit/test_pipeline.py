"""The way of a message: order, split, what is undone when something fails, and what the client is told."""

import asyncio
import dataclasses
from collections.abc import Callable

import orjson
import pytest
from support import fakes
from support.world import CLIENT, MAIL, POLICY, PROMOTION, SERVICE, World, decider, rcpt, run

from filter import replies
from filter.decision import Decider
from filter.envelope import MailFrom, RcptTo
from filter.events import Event, Outcome
from filter.facts import NO_FACTS, Facts
from filter.policy import Disposition, Policy, Reason
from filter.ports import Stage
from filter.replies import Reply
from filter.stream import Mode

REFUSED = Reply(554, "5.7.0", ("No",))
DEFERRED = Reply(452, "4.3.1", ("Later",))
ONE_OF_EACH = [rcpt("relay"), rcpt("hold"), rcpt("divert"), rcpt("reject")]
IN_A_SECOND = 0.02  # what transaction_timeout is where something hangs


@pytest.fixture
def world() -> World:
    """A pipeline and everything around it."""
    return World()


# What is where in the end


def test_each_copy_is_in_one_place(world: World) -> None:
    """Relayed copies are with the next hop, diverted ones where they were diverted, the others held (D2, D9)."""
    reply = world.send(ONE_OF_EACH)
    assert reply.code == 250
    assert world.hop.reached == [b"relay.0@x.example"]
    assert world.side.reached == [b"divert.0@x.example"]
    assert world.hold.live(Disposition.HOLD) == [b"hold.0@x.example"]
    assert world.hold.live(Disposition.REJECT) == [b"reject.0@x.example"]
    assert world.hold.live(Disposition.DIVERT) == []


def test_service_mail_goes_to_everybody(world: World) -> None:
    """A message without promotion is relayed in the transaction that is open, and nothing is stored."""
    assert world.send([*ONE_OF_EACH, rcpt("tempfail")], SERVICE).code == 250
    assert len(world.hop.reached) == 5
    assert world.script.calls[-1] == "hop.data"
    assert "hop.restart" not in world.script.calls
    assert not world.hold.messages


def test_the_reply_names_the_message(world: World) -> None:
    """The client is told the queue id, which also stands in the header and in the journal."""
    reply = world.send([rcpt("relay")])
    (queue_id,) = {str(event["queue_id"]) for event in world.journal.events}
    assert reply == replies.taken(queue_id)
    (_, _, content) = world.hop.delivered[0]
    header, _, rest = content.partition(f"X-Consentry: {queue_id}\r\n".encode())
    assert header.startswith(b"Received: from mail.example ([192.0.2.1])")
    assert rest == PROMOTION


def test_a_held_message_is_kept_as_it_came(world: World) -> None:
    """The hold store gets the sender's octets, our header apart from them, and why each copy is there."""
    world.send([rcpt("relay"), rcpt("hold")])
    (message,) = world.hold.messages.values()
    assert (message.content, message.mail, message.received_at) == (PROMOTION, MAIL, world.now)
    assert message.trace.startswith(b"Received: ")
    (copy,) = message.copies
    assert (copy.recipient, copy.disposition, copy.reason) == (rcpt("hold"), "hold", "soft_opt_in")
    assert copy.evidence == ("test.promotion",)
    assert len(bytes.fromhex(copy.subject_key)) == 16


def test_a_held_message_can_be_decided_again() -> None:
    """Its campaign is kept, and what the policy looked at; of a message that could not be judged nothing is."""
    world = World(decider=lambda: dataclasses.replace(decider(), fingerprint=lambda message: message.subject))
    world.send([rcpt("hold")])
    (message,) = world.hold.messages.values()
    assert (message.campaign, Facts.from_json(message.facts).label) == ("news", message.label)
    world = World(decider=lambda: dataclasses.replace(decider(), classifier=None))
    world.send([rcpt("hold")])
    (message,) = world.hold.messages.values()
    assert (message.campaign, message.facts, message.label) == ("", NO_FACTS, "")


def test_the_next_hop_sees_nothing_of_held_recipients(world: World) -> None:
    """Held recipients, whom the next hop took at RCPT, are left out before the message goes (D2)."""
    world.send([rcpt("hold"), rcpt("relay", 1), rcpt("hold", 2), rcpt("relay", 3)])
    assert world.hop.transactions[0].recipients == [rcpt("relay", 1), rcpt("relay", 3)]
    assert b"hold" not in world.hop.delivered[0][2]


def test_without_relayed_copies_the_next_hop_gets_nothing(world: World) -> None:
    """When every copy is held the client gets 250 after the store, and the transaction is aborted."""
    assert world.send([rcpt("hold")]).code == 250
    assert world.hop.reached == []
    assert world.hop.idle
    assert world.script.calls[-2:] == ["hold.store", "hop.abort"]


def test_the_null_sender_is_never_held(world: World) -> None:
    """A report goes to everybody, with its null sender as it came."""
    assert world.send(ONE_OF_EACH, mail=MailFrom(b"")).code == 250
    assert len(world.hop.reached) == 4
    assert {mail.path for mail, _, _ in world.hop.delivered} == {b""}


# Order


def test_nothing_is_sent_before_the_rest_is_stored(world: World) -> None:
    """The hold store has its copies before the next hop gets any, and diverting comes last (D1)."""
    world.send(ONE_OF_EACH)
    order = [call for call in world.script.calls if call not in ("hop.rcpt", "hold.known")]
    assert order == [
        *("flights.begin", "hold.store", "hop.restart", "hop.data"),
        *("side.rcpt", "side.data", "hold.diverted", "hold.confirm"),
    ]


@pytest.mark.parametrize(
    "words", [("hold", "relay"), ("reject", "relay"), ("hold", "reject"), ("hold", "divert"), ("divert",)]
)
def test_copies_are_for_review_when_the_message_is_ours(world: World, words: tuple[str, ...]) -> None:
    """Copies beside relayed or diverted ones are stored pending, and held once the next hop has answered."""
    during: list[list[bytes]] = []
    wait = world.script.wait

    async def watch(call: str) -> None:
        if call != "hold.store":
            during.append(world.hold.for_review())
        await wait(call)

    world.script.wait = watch  # type: ignore[method-assign]
    world.send([rcpt(word) for word in words])
    assert not any(during)
    assert world.hold.for_review() == [rcpt(word).path for word in words if word in ("hold", "reject")]


def test_a_message_held_whole_costs_one_commit(world: World) -> None:
    """With nothing to relay, divert or report the stored copies are held at once."""
    world.send([rcpt("hold"), rcpt("hold", 1)])
    assert "hold.confirm" not in world.script.calls
    assert len(world.hold.for_review()) == 2


def test_a_rejected_copy_is_kept_as_one(world: World) -> None:
    """So that it is found, and its sender told; why the policy rejects it stands beside it."""
    world.send([rcpt("reject"), rcpt("hold")])
    (message,) = world.hold.messages.values()
    copies = {copy.disposition: (copy.reason, copy.notes) for copy in message.copies}
    assert copies == {
        Disposition.REJECT: (Reason.REJECTED, (Reason.CORPORATE,)),
        Disposition.HOLD: (Reason.SOFT_OPT_IN, ()),
    }


def test_a_message_that_stays_with_its_client_is_never_for_review(world: World) -> None:
    """Not even when it cannot be made void: that is done before anybody takes it for held."""
    world.hop.final = DEFERRED
    world.script.fail = {"hold.void": fakes.HOLD_UNAVAILABLE}
    assert world.send([rcpt("hold"), rcpt("relay")]) == DEFERRED
    assert world.hold.for_review() == []
    assert world.hold.live() != []
    world.restart()
    world.hold.confirm_pending()
    assert world.hold.for_review() == []


@pytest.mark.parametrize("error", [fakes.HOLD_UNAVAILABLE, RuntimeError("bug")])
def test_what_cannot_be_confirmed_now_is_told_and_confirmed_later(world: World, error: Exception) -> None:
    """The client gets its 250; a line in the journal and a counter say that the copies wait."""
    world.script.fail = {"hold.confirm": error}
    assert world.send([rcpt("hold"), rcpt("relay")]).code == 250
    assert (len(world.journal.of(Event.NOT_CONFIRMED)), world.count("errors", where="confirm")) == (1, 1)
    assert world.hold.for_review() == []
    world.hold.confirm_pending()
    assert world.hold.for_review() == [rcpt("hold").path]


def test_nobody_waits_for_the_hold_store_to_confirm(world: World) -> None:
    """The client has its reply, and the worker ends, while the hold store hangs; the copies are pending, not lost."""
    world.script.fail = {"hold.confirm": fakes.HANG}
    assert world.send([rcpt("hold"), rcpt("relay")], finished=False).code == 250
    assert (world.hold.for_review(), world.hold.live()) == ([], [rcpt("hold").path])


def test_a_successor_confirms_what_was_taken(world: World) -> None:
    """A worker killed between the next hop's reply and the end leaves copies that are held when another starts."""
    world.script.fail = {"hold.confirm": fakes.Crash()}
    with pytest.raises(fakes.Crash):
        world.send([rcpt("hold"), rcpt("relay")])
    world.restart()
    assert world.hold.for_review() == [rcpt("hold").path]


def test_verdicts_are_in_the_journal_before_anything_is_sent(world: World) -> None:
    """Message and decisions are written before the store and the next hop are asked for anything."""
    before: list[list[str]] = []
    world.journal.on_write = lambda: before.append(list(world.script.calls))
    world.send(ONE_OF_EACH)
    assert [event["event"] for event in world.journal.events[:5]] == ["message", *["decision"] * 4]
    assert not {"hold.store", "hop.restart", "hop.data"} & set(before[0])


def test_stages_are_noted_in_order(world: World) -> None:
    """A successor would see how far the message came at each call."""
    seen: dict[str, Stage] = {}
    wait = world.script.wait

    async def watch(call: str) -> None:
        for left in world.flights.left:
            seen[call] = left.stage
        await wait(call)

    world.script.wait = watch  # type: ignore[method-assign]
    world.send(ONE_OF_EACH)
    assert seen["hold.store"] == seen["hop.restart"] == Stage.STORING
    assert seen["hop.data"] == Stage.SENDING
    assert seen["side.rcpt"] == Stage.TAKEN
    assert not world.flights.flying


@pytest.mark.parametrize("word", ["relay", "hold", "reject", "tempfail"])
def test_only_what_is_being_judged_is_at_that_stage(world: World, word: str) -> None:
    """A killed worker gives a bad name to the message it was judging and to no other: none waits at that stage."""
    seen: set[Stage] = set()
    wait = world.script.wait

    async def watch(call: str) -> None:
        seen.update(left.stage for left in world.flights.left)
        await wait(call)

    world.script.wait = watch  # type: ignore[method-assign]
    for known in (False, True):
        world.send([rcpt(word)], known=known)
    assert Stage.JUDGING not in seen


def test_refusals_of_recipients_come_from_the_next_hop(world: World) -> None:
    """The client gets the next hop's own answer to each RCPT, and a refused recipient is no recipient (D8)."""
    world.hop.replies = {rcpt("relay", 1).path: REFUSED}

    async def talk() -> list[Reply]:
        transaction = world.pipeline.begin(CLIENT, MAIL)
        answers = [await transaction.rcpt(rcpt("relay", number)) for number in range(3)]
        return [*answers, await transaction.data(PROMOTION)]

    answers = run(talk())
    assert answers[:3] == [fakes.TAKEN, REFUSED, fakes.TAKEN]
    assert answers[3].code == 250
    assert world.hop.reached == [rcpt("relay", 0).path, rcpt("relay", 2).path]
    assert world.count("accepted") == 2


# What the message is turned away for, and that nothing stays behind


@pytest.mark.parametrize("final", [REFUSED, DEFERRED])
def test_a_refusal_of_the_next_hop_is_the_clients(world: World, final: Reply) -> None:
    """With a 4xx or 5xx the client gets that reply, and nothing is left in the hold store (D4)."""
    world.hop.final = final
    assert world.send(ONE_OF_EACH) == final
    assert world.hold.live() == []
    assert world.side.reached == []
    (line,) = world.journal.of(Event.REFUSED if final is REFUSED else Event.DEFERRED)
    assert (line["why"], line["code"]) == (Outcome.NEXT_HOP, final.code)


def test_a_full_hold_store_leaves_the_message_with_its_client(world: World) -> None:
    """When copies cannot be stored the reply is 452 and the next hop was not touched (D3)."""
    world.script.fail = {"hold.store": fakes.HOLD_UNAVAILABLE}
    assert world.send(ONE_OF_EACH) is replies.STORAGE_FULL
    assert not {"hop.restart", "hop.data", "hold.void"} & set(world.script.calls)
    assert world.hop.idle


def test_service_mail_flows_while_the_hold_store_is_full(world: World) -> None:
    """Mail of which nothing is held does not need the hold store."""
    world.script.fail = {"hold.store": fakes.HOLD_UNAVAILABLE}
    assert world.send(ONE_OF_EACH, SERVICE).code == 250


def test_a_lost_reply_is_in_doubt(world: World) -> None:
    """A connection lost after the dot: 451, hold void, a line in the journal, and counted (D5)."""
    world.script.fail = {"hop.data": fakes.IN_DOUBT}
    assert world.send(ONE_OF_EACH) is replies.IN_DOUBT
    assert world.hold.live() == []
    assert len(world.journal.of(Event.IN_DOUBT)) == 1
    assert world.count("in_doubt") == 1


def test_doubt_is_noted_whatever_happens_next(world: World) -> None:
    """A worker that is killed while it leaves a message in doubt has said so, or its successor does (D5)."""
    world.hop.arrives_in_doubt = True
    world.script.fail = {"hop.data": fakes.IN_DOUBT, "hop.abort": fakes.Crash()}
    with pytest.raises(fakes.Crash):
        world.send(ONE_OF_EACH, SERVICE)
    world.restart()
    assert world.hop.reached
    assert world.journal.of(Event.IN_DOUBT)


@pytest.mark.parametrize("call", ["hop.restart", "hop.data"])
def test_a_next_hop_that_is_gone(world: World, call: str) -> None:
    """A connection lost before the dot: 451, nothing handed over, nothing left."""
    world.script.fail = {call: fakes.UNAVAILABLE}
    assert world.send(ONE_OF_EACH) is replies.NEXT_HOP_DOWN
    assert world.hold.live() == []
    assert world.journal.of(Event.IN_DOUBT) == []


def test_a_next_hop_that_changes_its_mind(world: World) -> None:
    """A recipient that is refused when asked again: 451 for the whole, nothing sent, nothing left (D9)."""
    world.hop.second_replies = {rcpt("relay").path: REFUSED}
    assert world.send(ONE_OF_EACH) is replies.NEXT_HOP_REFUSED
    assert world.hop.reached == []
    assert world.hold.live() == []


@pytest.mark.parametrize("error", [fakes.UNAVAILABLE, RuntimeError("bug")])
def test_a_transaction_that_broke_while_recipients_were_offered(world: World, error: Exception) -> None:
    """After a failure within the recipients none of them is relied on: 451 to each further command, nothing is lost."""

    async def talk() -> list[int]:
        transaction = world.pipeline.begin(CLIENT, MAIL)
        codes = [(await transaction.rcpt(rcpt("relay", 0))).code]
        world.script.fail = {"hop.rcpt": error}
        codes.append((await transaction.rcpt(rcpt("relay", 1))).code)
        world.script.fail = {}
        codes.append((await transaction.rcpt(rcpt("relay", 2))).code)
        return [*codes, (await transaction.data(PROMOTION)).code]

    assert run(talk()) == [250, 451, 451, 451]
    assert world.hop.reached == []
    assert world.hop.idle


def test_no_recipients_no_message(world: World) -> None:
    """Data for nobody is refused, not taken and forgotten (D13)."""
    assert world.send([]) is replies.NO_RECIPIENTS


def test_a_loop_ends(world: World) -> None:
    """A message with as many Received fields as allowed is refused before it is judged (D16)."""
    content = b"Received: x\r\n" * 50 + PROMOTION
    assert world.send([rcpt("hold")], content) is replies.LOOP
    assert world.send([rcpt("hold")], content[len(b"Received: x\r\n") :]).code == 250
    assert [line["why"] for line in world.journal.of(Event.REFUSED)] == [Outcome.LOOP]


def test_one_copy_that_must_wait_makes_all_wait(world: World) -> None:
    """With tempfail for any recipient nothing is sent or stored."""
    assert world.send([*ONE_OF_EACH, rcpt("tempfail")]) is replies.POLICY_DEFERRED
    assert (world.hop.reached, world.hold.messages) == ([], {})
    assert world.hop.idle


def test_a_message_rejected_for_all_is_refused(world: World) -> None:
    """Only when every copy is rejected does the client get 550; nothing is stored."""
    assert world.send([rcpt("reject"), rcpt("reject", 1)]) is replies.REJECTED
    assert not world.hold.messages


# Messages that come again


@pytest.mark.parametrize(
    ("words", "answer", "noted"),
    [
        (("relay", "hold", "reject"), fakes.TAKEN, 1),
        (("hold",), fakes.TAKEN, 1),
        (("reject", "reject"), fakes.TAKEN, 1),
        (("relay", "tempfail"), fakes.TAKEN, 0),
        (("relay",), DEFERRED, 0),
        (("relay",), REFUSED, 0),
    ],
)
def test_campaigns_hear_once_of_what_was_taken_or_refused_for_good(
    world: World, words: tuple[str, ...], answer: Reply, noted: int
) -> None:
    """A message counts when it was taken or the policy refused it for good, and not each time its client tries."""
    world.hop.final = answer
    world.send([rcpt(word, number) for number, word in enumerate(words)])
    assert len(world.noted) == noted
    assert all(len(judged.copies) == len(words) for _, judged in world.noted)


def test_two_equal_messages_are_two_messages(world: World) -> None:
    """What the client knows was taken is not recognised again: equal alerts are all delivered (D7)."""
    assert [world.send([rcpt("relay")]).code for _ in range(2)] == [250, 250]
    assert len(world.hop.reached) == 2


def test_a_message_whose_reply_was_lost_is_not_sent_twice(world: World) -> None:
    """The retry of a client that was lost before it knew is answered 250 and goes no further, once (D5, D6)."""
    assert world.send(ONE_OF_EACH, known=False).code == 250
    assert world.send(ONE_OF_EACH).code == 250
    assert world.hop.reached == [b"relay.0@x.example"]
    assert len(world.hold.messages) == 1
    assert world.hop.idle
    assert world.send(ONE_OF_EACH).code == 250
    assert len(world.hop.reached) == 2
    assert (world.count("duplicates_suppressed"), world.count("unacknowledged")) == (1, 1)


def test_a_suppressed_message_that_is_lost_again_is_still_known(world: World) -> None:
    """The reply to the retry may be lost too."""
    for _ in range(3):
        assert world.send(ONE_OF_EACH, known=False).code == 250
    assert world.hop.reached == [b"relay.0@x.example"]


def test_equal_messages_without_message_id_are_never_taken_for_one(world: World) -> None:
    """Many clients hang up after 250: an alert without Message-ID that comes again is another alert, and is sent."""
    content = SERVICE.replace(b"Message-ID:", b"X-Alert:")
    for _ in range(3):
        assert world.send([rcpt("relay")], content, known=False).code == 250
    assert len(world.hop.reached) == 3
    assert world.count("duplicates_suppressed") == 0


def test_of_equal_messages_at_once_one_is_the_retry(world: World) -> None:
    """A message that was taken is remembered once: of two equal ones that come together the other is sent (D7)."""
    world.send([rcpt("relay")], known=False)

    async def together() -> list[int]:
        both = [await world.offered([rcpt("relay")]) for _ in range(2)]
        return [reply.code for reply in await asyncio.gather(*[one.data(PROMOTION) for one in both])]

    assert run(together()) == [250, 250]
    assert len(world.hop.reached) == 2
    assert world.count("duplicates_suppressed") == 1


def test_a_memory_that_cannot_be_cleared_keeps_the_message_with_its_client(world: World) -> None:
    """Answering 250 then would swallow the next equal message."""
    world.send([rcpt("relay")], known=False)
    world.script.fail = {"hold.forget": fakes.HOLD_UNAVAILABLE}
    assert world.send([rcpt("relay")]) is replies.STORAGE_FULL
    world.script.fail = {}
    assert world.send([rcpt("relay")]).code == 250
    assert len(world.hop.reached) == 1


def test_a_client_lost_after_a_refusal_may_try_again(world: World) -> None:
    """What was not taken is not remembered."""
    world.hop.final = DEFERRED
    world.send([rcpt("relay")], known=False)
    assert not world.hold.keys


def test_what_cannot_be_remembered_is_left_to_a_successor(world: World) -> None:
    """When the memory cannot be written the flight stays in the air, and the next worker writes it."""
    world.script.fail = {"hold.settle": fakes.HOLD_UNAVAILABLE}
    world.send([rcpt("relay")], known=False)
    assert [left.stage for left in world.flights.left] == [Stage.TAKEN]
    world.restart()
    world.send([rcpt("relay")])
    assert len(world.hop.reached) == 1


# Judging that fails


def failing(policy: Policy = POLICY, *modes: Mode) -> Callable[[], Decider]:
    """Deciders without a classifier, which fail at every message."""
    return lambda: dataclasses.replace(decider(policy, *modes), classifier=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "code"), [(Disposition.HOLD, 250), (Disposition.RELAY, 250), (Disposition.TEMPFAIL, 451)]
)
def test_a_message_that_cannot_be_judged_has_its_setting(setting: Disposition, code: int) -> None:
    """A fault in judging follows policy.on_scan_error for every recipient, is counted, and in the journal (B12)."""
    world = World(decider=failing(dataclasses.replace(POLICY, on_scan_error=setting)))
    assert world.send(ONE_OF_EACH).code == code
    assert len(world.hold.live(Disposition.HOLD)) == 4 * (setting is Disposition.HOLD)
    assert len(world.hop.reached) == 4 * (setting is Disposition.RELAY)
    assert world.count("unscanned") == 1
    (line,) = world.journal.of(Event.UNSCANNED)
    assert line["error"] == "AttributeError"
    assert {one["reason"] for one in world.journal.of(Event.DECISION)} == {"unscanned"}


def test_what_cannot_be_judged_flows_where_all_is_monitored() -> None:
    """Where every stream is only monitored, and for reports, nothing is held, judged or not."""
    monitored = World(decider=failing(POLICY, Mode.MONITOR, Mode.MONITOR))
    monitored.send(ONE_OF_EACH)
    assert len(monitored.hop.reached) == 4
    mixed = World(decider=failing(POLICY, Mode.MONITOR, Mode.ENFORCE))
    mixed.send(ONE_OF_EACH)
    assert mixed.hop.reached == []
    mixed.send(ONE_OF_EACH, mail=MailFrom(b""))
    assert len(mixed.hop.reached) == 4


def test_a_message_that_killed_a_worker_is_judged_again(world: World) -> None:
    """A worker that was killed while it judged a password reset does not get the reset held (B12)."""
    _die_judging(world, SERVICE)
    assert world.send(ONE_OF_EACH, SERVICE).code == 250
    assert len(world.hop.reached) == 4
    assert world.journal.of(Event.UNSCANNED) == []


def test_a_message_that_killed_two_workers_is_not_judged_again(world: World) -> None:
    """What two workers died over is unscanned when it comes again, so it cannot kill one after the other (B12)."""
    _die_judging(world)
    _die_judging(world)
    assert len(world.journal.of(Event.DIED_JUDGING)) == 2
    assert world.send(ONE_OF_EACH).code == 250
    assert len(world.hold.live(Disposition.HOLD)) == 4
    (line,) = world.journal.of(Event.UNSCANNED)
    assert line["error"] == "died_judging"


def test_monitoring_relays_and_says_what_it_would_do() -> None:
    """In monitor mode everything is relayed; the journal has the verdicts that would be enforced."""
    world = World(decider=lambda: decider(POLICY, Mode.MONITOR))
    assert world.send(ONE_OF_EACH).code == 250
    assert len(world.hop.reached) == 4
    would = [line["would"] for line in world.journal.of(Event.DECISION)]
    assert would == ["relay", "hold", "divert", "reject"]


# Diverting


def test_diverted_copies_say_whom_they_were_for(world: World) -> None:
    """Each diverted copy goes in a transaction of its own and names its recipient only."""
    world.send([rcpt("divert", 1), rcpt("divert", 2)])
    for number, (mail, recipient, content) in zip((1, 2), world.side.delivered, strict=True):
        assert (mail, recipient) == (MAIL, rcpt("divert", number))
        assert content.startswith(b"X-Consentry-Original-Recipient: <divert.%d@x.example>\r\nReceived: " % number)
        assert content.count(b"divert.") == 1
        assert content.endswith(PROMOTION)


def test_diverting_to_one_address() -> None:
    """With a divert address, diverted copies go there, whoever they were for."""
    world = World(divert_address=b"review@bank.example")
    world.send([rcpt("divert")])
    assert [recipient for _, recipient, _ in world.side.delivered] == [RcptTo(b"review@bank.example")]
    assert world.hold.live() == []


def test_with_nowhere_to_divert_to_copies_stay() -> None:
    """Without a place to divert to nothing is diverted: it would reach the very person."""
    world = World(divert=False)
    assert world.send([rcpt("divert"), rcpt("relay")]).code == 250
    assert world.hold.live(Disposition.DIVERT) == [b"divert.0@x.example"]
    assert world.hop.reached == [b"relay.0@x.example"]


@pytest.mark.parametrize(
    ("fail", "why"),
    [
        ({"side.rcpt": fakes.UNAVAILABLE}, Outcome.UNREACHABLE),
        ({"side.data": fakes.UNAVAILABLE}, Outcome.UNREACHABLE),
        ({"side.data": fakes.IN_DOUBT}, Outcome.IN_DOUBT),
        ({"side.rcpt": RuntimeError("bug")}, Outcome.FAULT),
        ({"hold.diverted": fakes.HOLD_UNAVAILABLE}, Outcome.STORAGE),
    ],
)
def test_a_copy_that_cannot_be_diverted_stays(world: World, fail: dict, why: Outcome) -> None:
    """Failing to divert changes nothing for the client: the copy is safe in the hold store (D22)."""
    world.script.fail = fail
    assert world.send(ONE_OF_EACH).code == 250
    assert world.hold.live(Disposition.DIVERT) == [b"divert.0@x.example"]
    (line,) = world.journal.of(Event.DIVERT_FAILED)
    assert line["why"] is why
    assert (world.count("diverted"), world.count("held")) == (0, 2)


def test_a_copy_that_is_refused_where_it_is_diverted_stays(world: World) -> None:
    """A refusal of one diverted copy does not touch the others."""
    world.side.replies = {rcpt("divert", 1).path: REFUSED}
    assert world.send([rcpt("divert", 1), rcpt("divert", 2)]).code == 250
    assert world.hold.live() == [b"divert.1@x.example"]
    assert world.side.reached == [b"divert.2@x.example"]
    assert world.side.idle


# Time


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        ("hold.store", replies.OUT_OF_TIME),
        ("hop.restart", replies.OUT_OF_TIME),
        ("hop.data", replies.IN_DOUBT),
    ],
)
def test_time_is_limited(call: str, outcome: Reply) -> None:
    """When the time is up before the dot the client keeps the message; after it, it is in doubt (D20)."""
    world = World(timeout=IN_A_SECOND)
    world.script.fail = {call: fakes.HANG}
    assert world.send(ONE_OF_EACH) is outcome
    assert world.hold.live() == []
    assert len(world.journal.of(Event.IN_DOUBT)) == (call == "hop.data")


def test_time_for_a_recipient_is_limited() -> None:
    """However many hosts hang one after the other, the client has its answer to RCPT in time (D20)."""
    world = World(timeout=IN_A_SECOND)
    world.script.fail = {"hop.rcpt": fakes.HANG}

    async def talk() -> list[int]:
        transaction = world.pipeline.begin(CLIENT, MAIL)
        codes = [(await transaction.rcpt(rcpt("relay"))).code]
        world.script.fail = {}
        return [*codes, (await transaction.rcpt(rcpt("relay"))).code, (await transaction.data(PROMOTION)).code]

    assert run(asyncio.wait_for(talk(), 5)) == [451, 451, 451]
    assert world.hop.idle


@pytest.mark.parametrize("call", ["side.rcpt", "side.data"])
def test_diverting_does_not_hold_up_the_reply(call: str) -> None:
    """When the time is up while copies are diverted they stay in the hold store, and the reply is 250 (D20)."""
    world = World(timeout=IN_A_SECOND)
    world.script.fail = {call: fakes.HANG}
    assert world.send([*ONE_OF_EACH, rcpt("divert", 1)]).code == 250
    assert len(world.hold.live(Disposition.DIVERT)) == 2
    assert [line["why"] for line in world.journal.of(Event.DIVERT_FAILED)] == [Outcome.TIMEOUT]


def test_an_abort_that_hangs_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither RSET nor the reply waits for a next hop for ever."""
    monkeypatch.setattr("filter.diverting.UNDO_TIMEOUT", IN_A_SECOND)
    world.script.fail = {"hop.abort": fakes.HANG}
    assert world.send([rcpt("hold")]).code == 250
    assert world.reported == ["abort"]


# Faults


def _die_judging(world: World, content: bytes = PROMOTION) -> None:
    world.script.fail["hold.known"] = fakes.Crash()
    with pytest.raises(fakes.Crash):
        world.send(ONE_OF_EACH, content)
    del world.script.fail["hold.known"]
    world.restart()


def _call_number(name: str) -> int:
    """Which call of an undisturbed message it is."""
    world = World()
    world.send(ONE_OF_EACH)
    return world.script.calls.index(name) + 1


def _calls(*, relayed: bool = True) -> int:
    world = World()
    world.send(ONE_OF_EACH if relayed else ONE_OF_EACH[1:])
    return len(world.script.calls)


@pytest.mark.parametrize("relayed", [True, False])
@pytest.mark.parametrize("number", range(1, 16))
def test_a_fault_anywhere_loses_nothing(world: World, number: int, *, relayed: bool) -> None:
    """Whatever call fails: 451 and nothing left, or 250 and every copy in its place; the next message passes (D10)."""
    recipients = ONE_OF_EACH if relayed else ONE_OF_EACH[1:]
    world.script.at, world.script.error = number, RuntimeError("bug")
    reply = world.send(recipients)
    world.script.at = 0
    if reply.code == 250:
        assert world.places() == sorted(recipient.path for recipient in recipients)
    else:
        assert reply in (replies.INTERNAL_ERROR, replies.IN_DOUBT, replies.NEXT_HOP_DOWN)
        assert (world.hop.reached, world.hold.live()) == ([], [])
    assert not world.flights.flying
    assert world.hop.idle
    assert world.side.idle
    assert world.send([rcpt("relay", 9)]).code == 250


def test_the_fault_test_reaches_every_call() -> None:
    """The numbers above go at least as far as the calls of a message do."""
    assert _calls() < 15
    assert _calls(relayed=False) < 15


@pytest.mark.parametrize("number", range(1, 16))
def test_a_worker_that_is_killed_anywhere_loses_nothing(world: World, number: int) -> None:
    """Killed at any call, and tried again by the client: every copy is in its place, twice only if in doubt (E1)."""
    world.script.at, world.script.error = number, fakes.Crash()
    try:
        world.send(ONE_OF_EACH)
    except fakes.Crash:
        world.restart()
        assert world.send(ONE_OF_EACH).code == 250
    if world.journal.of(Event.UNSCANNED):
        assert len(world.hold.live(Disposition.HOLD)) == 4
    elif world.journal.of(Event.IN_DOUBT):
        assert set(world.hop.reached) == {b"relay.0@x.example"}
        assert len(world.hold.live(Disposition.HOLD)) == 1
    else:
        assert world.places() == sorted(recipient.path for recipient in ONE_OF_EACH)


def test_what_cannot_be_made_void_is_left_to_a_successor(world: World) -> None:
    """A hold store that fails at the wrong moment: the client gets the refusal, and the next worker makes it void."""
    world.hop.final = REFUSED
    world.script.fail = {"hold.void": fakes.HOLD_UNAVAILABLE}
    assert world.send(ONE_OF_EACH) == REFUSED
    assert len(world.journal.of(Event.NOT_VOIDED)) == 1
    world.restart()
    assert world.hold.live() == []


def test_a_hold_store_that_is_busy_is_heard_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not wait for copies to become void for ever; once they are, nothing is left in flight."""
    monkeypatch.setattr("filter.pipeline.UNDO_TIMEOUT", IN_A_SECOND)
    world.hop.final = REFUSED
    busy, wait = asyncio.Event(), world.script.wait

    async def wait_while_busy(call: str) -> None:
        await wait(call)
        if call == "hold.void":
            await busy.wait()

    world.script.wait = wait_while_busy  # type: ignore[method-assign]

    async def talk() -> None:
        transaction = await world.offered(ONE_OF_EACH)
        assert await transaction.data(PROMOTION) == REFUSED
        assert len(world.flights.flying) == len(world.journal.of(Event.NOT_VOIDED)) == 1
        busy.set()
        for _ in range(9):
            await asyncio.sleep(0)
        assert not world.flights.flying

    run(asyncio.wait_for(talk(), 5))
    assert world.hold.live() == []


def test_what_cannot_be_made_void_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that lives makes it void as soon as it can, so that it never counts as held."""
    monkeypatch.setattr("filter.pipeline.VOID_AGAIN", 0.0)
    world.hop.final = REFUSED
    world.script.fail = {"hold.void": fakes.HOLD_UNAVAILABLE}

    async def talk() -> None:
        assert await (await world.offered(ONE_OF_EACH)).data(PROMOTION) == REFUSED
        assert world.hold.live() != []
        world.script.fail = {}
        await asyncio.gather(*world.pipeline.voiding)

    run(talk())
    assert (world.hold.live(), world.flights.flying) == ([], [])


def test_shutdown_is_no_fault(world: World) -> None:
    """Cancelled in the middle, a transaction stops; what it left in flight is a successor's."""
    world.script.fail = {"hop.data": fakes.HANG}

    async def cancelled() -> None:
        transaction = await world.offered(ONE_OF_EACH)
        task = asyncio.create_task(transaction.data(PROMOTION))
        await world.script.hanging.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(cancelled())
    assert [left.stage for left in world.flights.left] == [Stage.SENDING]
    world.restart()
    assert world.hold.live() == []
    assert len(world.journal.of(Event.IN_DOUBT)) == 1


def test_abort_before_data_ends_the_transaction(world: World) -> None:
    """RSET, EHLO or a client lost before the end of data: the next hop's transaction ends, nothing is written."""

    async def talk() -> None:
        transaction = await world.offered(ONE_OF_EACH)
        await transaction.abort()
        transaction.acknowledged()
        await transaction.unacknowledged()

    run(talk())
    assert world.hop.idle
    assert (world.journal.events, world.hold.keys) == ([], set())


# What is written


def test_no_address_and_no_content_is_written(world: World) -> None:
    """Journal and metrics hold keys, never an address or a word of the message (H10)."""
    content = b"Subject: canary-subject\r\nX-Message-Type: service canary@x.example\r\n\r\ncanary promotion\r\n"
    world.script.fail = {"side.data": fakes.UNAVAILABLE}
    world.send([*ONE_OF_EACH, rcpt("hold", 7)], content, MailFrom(b"canary-sender@bank.example"))
    text = orjson.dumps(world.journal.events).decode()
    for word in ("canary", "example", "@", "NOTIFY", "Your"):
        assert word not in text


def test_the_journal_tells_which_rules_decided(world: World) -> None:
    """Each verdict has the label, the state, the rules, and the stream it belongs to."""
    world.send([rcpt("hold")])
    (line,) = world.journal.of(Event.DECISION)
    assert (line["label"], line["state"], line["disposition"]) == ("marketing", "soft_opt_in", "hold")
    assert line["evidence"] == ("test.promotion",)
    assert (line["controller"], line["brand"], line["topic"], line["mode"]) == ("bank", "bank", "offers", "enforce")


def test_fates_carry_the_subject_keys_of_the_decisions(world: World) -> None:
    """What became of a copy is found by the key that its verdict has."""
    world.send(ONE_OF_EACH)
    subjects = {line["disposition"]: line["subject"] for line in world.journal.of(Event.DECISION)}
    fates = {"relay": Event.RELAYED, "hold": Event.HELD, "divert": Event.DIVERTED, "reject": Event.REJECTED}
    for disposition, event in fates.items():
        (line,) = world.journal.of(event)
        assert line["subjects"] == [subjects[disposition]]


def test_an_address_that_cannot_be_looked_up_has_no_key(world: World) -> None:
    """A recipient without domain is decided, and recorded without a key."""
    world.send([RcptTo(b"postmaster")], SERVICE)
    (line,) = world.journal.of(Event.DECISION)
    assert (line["subject"], line["disposition"]) == ("", "relay")

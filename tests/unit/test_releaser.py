"""Released copies reach the next hop, checked again each time, and what became of each is recorded."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fakes
from support.release import NOON, PROMOTION, SETTINGS, TRACE, ReleaseWorld, path

from filter.campaigns import Decided
from filter.consent import ConsentState
from filter.delivery import MOST_RECIPIENTS
from filter.envelope import MailFrom
from filter.events import Event
from filter.held import Action, CopyState, HeldQuery, Unread
from filter.ports import HoldUnavailableError
from filter.replies import Reply
from filter.retry import DAY, HOUR, MINUTE

LATER = Reply(451, "4.3.0", ("Later",))
NEVER = Reply(550, "5.1.1", ("No ann@x.example here",))
UNAVAILABLE = HoldUnavailableError("full")


@pytest.fixture
def world() -> ReleaseWorld:
    """One in which everybody agrees to everything, after the mail was held."""
    return ReleaseWorld()


def agree(world: ReleaseWorld, *names: str) -> None:
    """These recipients have agreed meanwhile."""
    world.consents.states.update({path(name).decode(): ConsentState.CONSENT for name in names})


def released(world: ReleaseWorld, *names: str, **message: object) -> None:
    """A message held for these, who then agree, and ordered to be released."""
    world.hold(*names, **message)
    agree(world, *names)
    world.release()


def test_a_released_message_is_what_was_sent(world: ReleaseWorld) -> None:
    """The next hop gets the stored octets, with our lines before them, and the envelope as it was."""
    released(world, "ann", params=(b"NOTIFY=DELAY",))
    assert world.deliver().counts == {Event.RELEASED: 1}
    ((mail, recipient, content),) = world.hop.delivered
    ours, trace, original = content.partition(TRACE)
    assert (trace, original) == (TRACE, PROMOTION)
    assert ours.startswith(b"X-Consentry-Released: o1; ")
    assert ours.endswith(b"\r\n")
    assert (mail.path, recipient.path, recipient.params) == (b"bounce@shop.example", path("ann"), (b"NOTIFY=DELAY",))
    assert world.state("ann") is CopyState.DELIVERED
    (line,) = world.journal.of(Event.RELEASED)
    assert (line["queue_id"], line["order"], line["reason"], line["code"]) == ("Q1", "o1", "consent", 250)
    assert world.hop.idle


def test_copies_of_one_message_go_together(world: ReleaseWorld) -> None:
    """One transaction takes the recipients of a message, as many as every server must take."""
    names = [f"p{number}" for number in range(MOST_RECIPIENTS + 1)]
    world.settings = replace(SETTINGS, batch=500)
    released(world, *names)
    world.deliver()
    assert [len(one.recipients) for one in world.hop.transactions] == [MOST_RECIPIENTS, 1]
    assert world.mail.states() == {"delivered": len(names)}


def test_an_objection_between_order_and_delivery_stops_it(world: ReleaseWorld) -> None:
    """Consent is asked for right before the attempt, and the copy is held again."""
    released(world, "ann", "bob")
    world.consents.states["ann@x.example"] = ConsentState.OBJECTED
    world.deliver()
    assert world.reached == [path("bob")]
    assert (world.state("ann"), world.outcome("ann")) == (CopyState.HELD, "recheck: objected_meanwhile")
    (line,) = world.journal.of(Event.RELEASE_STOPPED)
    assert (line["recipients"], line["reason"]) == (1, "objected_meanwhile")
    assert world.count("release_stopped") == 1


def test_an_objection_between_two_attempts_stops_the_second(world: ReleaseWorld) -> None:
    """Every attempt is preceded by a check of its own."""
    released(world, "ann")
    world.hop.final = LATER
    world.deliver()
    world.consents.states["ann@x.example"] = ConsentState.OBJECTED
    world.hop.final = fakes.TAKEN
    world.pass_time(HOUR)
    world.deliver()
    assert world.reached == []
    assert world.state("ann") is CopyState.HELD


def test_what_was_stopped_is_not_taken_again_by_the_same_order(world: ReleaseWorld) -> None:
    """Carrying the order out again passes it over; another order takes it."""
    world.hold("ann")
    world.release()
    world.deliver()
    assert world.release()[:3] == (1, 0, 1)
    assert world.release(name="o2", despite=True).moved == 1
    world.deliver()
    assert world.reached == [path("ann")]
    (line,) = world.journal.of(Event.RELEASED)
    assert (line["reason"], line["despite"]) == ("no_consent", True)


def test_a_check_that_fails_lets_nothing_go(world: ReleaseWorld) -> None:
    """A fault of the check is counted, and the copy is held."""
    released(world, "ann")
    world.mail.messages[1] = replace(world.mail.messages[1], facts="nonsense", content=b"")
    world.deliver()
    assert world.hop.transactions == []
    assert (world.outcome("ann"), world.reported) == ("recheck: fault", ["recheck"])


def test_a_delay_is_tried_again_ever_later(world: ReleaseWorld) -> None:
    """A 4xx keeps the copy, and the pause doubles."""
    released(world, "ann")
    world.hop.final = LATER
    for pause in (MINUTE, 2 * MINUTE, 4 * MINUTE):
        assert world.deliver().counts == {Event.RELEASE_DEFERRED: 1}
        assert world.mail.waiting() == (1, world.now + pause)
        world.pass_time(pause - 1)
        assert not world.deliver().counts
        world.pass_time(1)
    world.hop.final = fakes.TAKEN
    world.deliver()
    assert world.reached == [path("ann")]
    assert [line["code"] for line in world.journal.of(Event.RELEASE_DEFERRED)] == [451] * 3


def test_each_recipient_has_an_answer_of_its_own(world: ReleaseWorld) -> None:
    """One is taken, one is refused for good, one for now."""
    released(world, "ann", "bob", "cat")
    world.hop.replies = {path("ann"): NEVER, path("bob"): LATER}
    world.deliver()
    assert [world.state(name) for name in ("ann", "bob", "cat")] == ["bounced", "released", "delivered"]
    assert world.reached == [path("cat")]
    assert world.outcome("ann") == "next_hop 550 5.1.1; sender told: sent"


def test_a_refusal_is_told_to_the_sender(world: ReleaseWorld) -> None:
    """One report about all that were refused goes to the sender, from the null sender."""
    released(world, "ann", "bob")
    world.hop.replies = dict.fromkeys((path("ann"), path("bob")), NEVER)
    world.deliver()
    ((mail, recipient, content),) = world.hop.delivered
    assert (mail.path, recipient.path) == (b"", b"bounce@shop.example")
    assert content.count(b"Action: failed") == 2
    assert world.mail.states() == {"bounced": 2}
    assert [line["told"] for line in world.journal.of(Event.BOUNCED)] == ["sent", "sent"]
    assert world.journal.of(Event.REPORT_SENT)[0]["recipients"] == 2


@pytest.mark.parametrize(
    ("mail", "params"), [(MailFrom(b""), ()), (MailFrom(b"bounce@shop.example"), (b"NOTIFY=NEVER",))]
)
def test_nobody_is_told_who_must_not_be(world: ReleaseWorld, mail: MailFrom, params: tuple[bytes, ...]) -> None:
    """Never a null sender (RFC 5321 section 4.5.5), and nobody who asked for no reports."""
    released(world, "ann", mail=mail, params=params)
    world.hop.final = NEVER
    world.deliver()
    assert len(world.hop.transactions) == 1
    assert world.state("ann") is CopyState.BOUNCED
    assert world.journal.of(Event.BOUNCED)[0]["told"] == "not_wanted"


def test_a_copy_is_bounced_only_when_its_sender_was_told(world: ReleaseWorld) -> None:
    """While the report cannot be sent the copy waits with it; after twice the time it is given up."""
    released(world, "ann")
    world.hop.replies = {path("ann"): NEVER, b"bounce@shop.example": LATER}
    for _ in range(70):
        world.deliver()
        if world.state("ann") is not CopyState.RELEASED:
            break
        world.pass_time(4 * HOUR)
    assert world.now - NOON >= 2 * world.retry.give_up
    assert world.state("ann") is CopyState.BOUNCED
    assert world.journal.of(Event.BOUNCED)[0]["told"] == "not_sent"


def test_a_report_that_is_refused_is_not_sent_again(world: ReleaseWorld) -> None:
    """The sender's own address does not work: nothing more can be done."""
    released(world, "ann")
    world.hop.final = NEVER
    world.deliver()
    assert world.journal.of(Event.BOUNCED)[0]["told"] == "refused"


def test_what_cannot_be_delivered_is_given_up(world: ReleaseWorld) -> None:
    """After the time that the operator gives, and the attempts that belong to it, a copy bounces."""
    released(world, "ann")
    world.hop.replies = {path("ann"): LATER}
    for _ in range(60):
        world.deliver()
        if world.state("ann") is not CopyState.RELEASED:
            break
        world.pass_time(4 * HOUR)
    assert world.state("ann") is CopyState.BOUNCED
    assert 5 * DAY <= world.now - NOON <= 6 * DAY
    assert b"no further attempt" in world.reports[0].replace(b"\r\n", b" ").replace(b"  ", b" ")


def test_a_clock_that_jumps_gives_nothing_up(world: ReleaseWorld) -> None:
    """A year that passed at once is one more attempt, and no reason to bounce."""
    released(world, "ann")
    world.hop.final = LATER
    world.deliver()
    world.pass_time(365 * DAY)
    world.deliver()
    assert world.state("ann") is CopyState.RELEASED


def test_a_lost_reply_is_in_doubt_and_tried_again(world: ReleaseWorld) -> None:
    """At least once: the journal says that a recipient may get two."""
    released(world, "ann")
    world.hop.arrives_in_doubt = True
    world.script.fail["hop.data"] = fakes.IN_DOUBT
    world.deliver()
    assert world.state("ann") is CopyState.RELEASED
    assert len(world.journal.of(Event.IN_DOUBT)) == 1
    assert world.journal.of(Event.RELEASE_DEFERRED)[0]["why"] == "in_doubt"
    world.script.fail.clear()
    world.pass_time(MINUTE)
    world.deliver()
    assert world.reached == [path("ann")] * 2


def test_a_fault_of_ours_defers(world: ReleaseWorld) -> None:
    """What nobody expected is counted, and the copy is tried again."""
    released(world, "ann")
    world.script.fail["hop.data"] = RuntimeError("bug")
    assert world.deliver().counts == {Event.RELEASE_DEFERRED: 1}
    assert world.reported == ["release"]
    assert world.hop.idle


def test_a_next_hop_that_hangs_is_given_up(world: ReleaseWorld) -> None:
    """Before the final dot nothing is in doubt; after it, it is."""
    world.settings = replace(SETTINGS, attempt=0.01)
    released(world, "ann", "bob")
    world.script.fail["hop.rcpt"] = fakes.HANG
    world.deliver()
    assert world.journal.of(Event.RELEASE_DEFERRED)[0]["why"] == "unreachable"
    world.script.fail = {"hop.data": fakes.HANG}
    world.pass_time(MINUTE)
    world.deliver()
    assert world.journal.of(Event.RELEASE_DEFERRED)[1]["why"] == "in_doubt"


def test_a_closed_door_is_not_knocked_at_for_each_copy(world: ReleaseWorld) -> None:
    """After a few failures in a row everything that was claimed goes back, and nothing more is claimed."""
    world.settings = replace(SETTINGS, concurrent=1, pause=30.0)
    for number in range(30):
        world.hold(f"p{number}")
        agree(world, f"p{number}")
    world.release()
    world.script.fail["hop.rcpt"] = fakes.UNAVAILABLE
    progress = world.deliver()
    assert progress.unreachable
    assert len(world.hop.transactions) == 5
    assert world.mail.states() == {"released": 30}
    assert all(not row.lease_until or row.attempts == 0 for row in world.mail.rows.values())
    world.script.fail.clear()
    world.pass_time(HOUR)
    assert world.deliver().counts == {Event.RELEASED: 30}


def test_a_recipients_refusal_stands_when_the_rest_fails(world: ReleaseWorld) -> None:
    """What the next hop said of one is not forgotten because the connection was lost."""
    released(world, "ann", "bob")
    world.hop.replies = {path("ann"): NEVER}
    world.script.fail["hop.data"] = fakes.UNAVAILABLE
    world.deliver()
    whys = [(line["why"], line["code"]) for line in world.journal.of(Event.RELEASE_DEFERRED)]
    assert sorted(whys) == [("next_hop", 550), ("unreachable", 0)]  # the report cannot be sent now


def test_several_at_once_deliver_each_copy_once(world: ReleaseWorld) -> None:
    """A claim is a lease: what one has, no other takes."""
    names = [f"p{number}" for number in range(60)]
    for name in names:
        world.hold(name)
    agree(world, *names)
    world.release()

    async def both() -> None:
        releasers = [world.releaser() for _ in range(3)]
        await asyncio.gather(*[one.run() for one in releasers])
        for one in releasers:
            one.close()

    asyncio.run(both())
    assert sorted(world.reached) == sorted(map(path, names))


def test_a_copy_whose_releaser_died_is_tried_again(world: ReleaseWorld) -> None:
    """Its lease ends, and another takes it; not before."""
    released(world, "ann")
    assert world.mail.claim(world.now, world.now + MINUTE, 10)
    assert not world.deliver().counts
    world.pass_time(MINUTE)
    assert world.deliver().counts == {Event.RELEASED: 1}


def test_an_attempt_does_not_outlast_its_lease(world: ReleaseWorld) -> None:
    """What waited too long to be begun is left to whoever claims it next."""
    world.settings = replace(SETTINGS, lease=9.0)
    released(world, "ann")
    assert not world.deliver().counts
    assert world.hop.transactions == []
    assert world.state("ann") is CopyState.RELEASED


def test_many_recipients_take_no_longer_than_their_lease(world: ReleaseWorld) -> None:
    """All transactions of an attempt share its time: no further one is begun against a next hop that has used it up."""
    names = [f"p{number}" for number in range(2 * MOST_RECIPIENTS)]
    world.settings = replace(SETTINGS, batch=500, attempt=0.05)
    released(world, *names)
    world.script.fail["hop.data"] = fakes.HANG
    world.deliver()
    assert [len(one.recipients) for one in world.hop.transactions] == [MOST_RECIPIENTS]
    assert Counter(row.outcome for row in world.mail.rows.values()) == {"in_doubt": 100, "unreachable": 100}


def test_each_order_of_a_message_is_begun_within_the_lease(world: ReleaseWorld) -> None:
    """What the copies of one order took may leave no time for those of another, which are left to the next claim."""
    world.hold("ann", "bob")
    agree(world, "ann", "bob")
    for number, name in enumerate(("ann", "bob")):
        (line,) = (line for line in world.mail.lines(HeldQuery()) if line.place.number == number)
        world.orders.move(world.orders.keep(world.order(name=name)), CopyState.RELEASED, [line])
    waited = world.script.wait

    async def wait(call: str) -> None:
        await waited(call)
        if call == "hop.data":
            world.pass_time(55_000)

    world.script.wait = wait  # type: ignore[method-assign]
    world.deliver()
    assert len(world.reached) == 1
    world.pass_time(MINUTE)
    world.deliver()
    assert sorted(world.reached) == [path("ann"), path("bob")]


def test_only_what_was_asked_for_is_delivered(world: ReleaseWorld) -> None:
    """A command delivers the copies of its own order."""
    world.hold("ann", campaign="c1")
    world.hold("bob", campaign="c2")
    agree(world, "ann", "bob")
    world.release(name="o1", query=HeldQuery(campaign="c1"))
    world.release(name="o2", query=HeldQuery(campaign="c2"))
    world.deliver("o2")
    assert world.reached == [path("bob")]
    assert world.mail.waiting("o1")[0] == 1


def test_an_expiring_copy_is_never_delivered(world: ReleaseWorld) -> None:
    """Its sender is told, and then it is expired, although its recipient has agreed."""
    world.hold("ann")
    agree(world, "ann")
    world.orders.carry_out(world.order(Action.EXPIRE), HeldQuery(), told=True)
    world.deliver()
    assert world.reached == []
    assert b"Status: 5.7.1" in world.reports[0]
    assert world.state("ann") is CopyState.EXPIRED
    assert world.journal.of(Event.EXPIRED)[0]["told"] == "sent"


def test_an_expiring_copy_waits_until_its_sender_can_be_told(world: ReleaseWorld) -> None:
    """A report that cannot be sent is sent later."""
    world.hold("ann")
    world.orders.carry_out(world.order(Action.EXPIRE), HeldQuery(), told=True)
    world.hop.final = LATER
    world.deliver()
    assert world.state("ann") is CopyState.RELEASED
    world.hop.final = fakes.TAKEN
    world.pass_time(MINUTE)
    world.deliver()
    assert world.state("ann") is CopyState.EXPIRED


def test_a_store_that_cannot_be_read_ends_the_round(world: ReleaseWorld) -> None:
    """Nothing is claimed, and it is said."""
    released(world, "ann")
    world.mail.fail["claim"] = UNAVAILABLE
    assert world.deliver().unavailable
    assert world.hop.transactions == []


def test_outcomes_are_recorded_as_soon_as_they_can_be(world: ReleaseWorld) -> None:
    """A store that fails in between is asked again: what is not recorded would be delivered twice."""
    released(world, "ann")
    finish, failures = world.mail.finish, iter([UNAVAILABLE, UNAVAILABLE])

    def failing(*arguments: object) -> None:
        for failure in failures:
            raise failure
        finish(*arguments)

    world.mail.finish = failing  # type: ignore[method-assign]
    world.deliver()
    assert world.state("ann") is CopyState.DELIVERED


def test_what_is_delivered_and_never_recorded_is_reported(world: ReleaseWorld) -> None:
    """The journal has it, and a fault is counted."""
    released(world, "ann")
    world.mail.fail["finish"] = UNAVAILABLE
    world.deliver()
    assert world.journal.of(Event.RELEASED)
    assert world.reported == ["release_record"]


def test_serving_goes_on_until_it_is_stopped(world: ReleaseWorld) -> None:
    """What becomes due is delivered without being asked for."""
    released(world, "ann")
    world.settings = replace(SETTINGS, poll=0.0)

    async def serve() -> None:
        releaser = world.releaser()
        world.journal.on_write = releaser.stop
        await releaser.serve()
        releaser.close()

    asyncio.run(serve())
    assert world.state("ann") is CopyState.DELIVERED


def test_progress_is_told(world: ReleaseWorld) -> None:
    """The command that waits hears how far it is."""
    released(world, "ann", "bob")
    heard = []

    async def once() -> None:
        releaser = world.releaser()
        await releaser.run(progress=lambda progress: heard.append(progress.copies))
        releaser.close()

    asyncio.run(once())
    assert heard[-1] == 2


def test_a_cancelled_run_records_what_it_knows(world: ReleaseWorld) -> None:
    """What was delivered before is not delivered again."""
    world.settings = replace(SETTINGS, concurrent=1, linger=60.0)
    world.hold("ann")
    agree(world, "ann")
    world.release()

    async def once() -> None:
        releaser = world.releaser()
        run = asyncio.create_task(releaser.run())
        while not world.reached:  # noqa: ASYNC110 - a few rounds of the loop
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        releaser.close()

    asyncio.run(once())
    assert world.state("ann") is CopyState.DELIVERED


def test_an_attempt_that_is_cut_off_is_in_doubt(world: ReleaseWorld) -> None:
    """The journal says so, as it is tried again; and what was known of other copies of the message is recorded."""
    world.hold("ann", "bob")
    agree(world, "ann", "bob")
    for number, name in enumerate(("o1", "o2")):
        (line,) = (line for line in world.mail.lines(HeldQuery()) if line.place.number == number)
        world.orders.move(world.orders.keep(world.order(name=name)), CopyState.RELEASED, [line])

    async def once() -> None:
        releaser = world.releaser()
        run = asyncio.create_task(releaser.run())
        while not world.reached:  # noqa: ASYNC110 - a few rounds of the loop
            await asyncio.sleep(0)
        world.script.fail["hop.data"] = fakes.HANG
        await world.script.hanging.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        releaser.close()

    asyncio.run(once())
    assert world.mail.states() == {"delivered": 1, "released": 1}
    (line,) = world.journal.of(Event.IN_DOUBT)
    assert line["queue_id"] == "Q1"


def test_a_fault_of_the_store_ends_the_round_in_order(world: ReleaseWorld) -> None:
    """What nobody expected of it is counted, and what is under way is seen to its end."""
    world.settings = replace(SETTINGS, batch=1)
    released(world, "ann", "bob")
    claim = world.mail.claim

    def once(*arguments: object, **options: object) -> object:
        world.mail.claim = broken  # type: ignore[method-assign]
        return claim(*arguments, **options)

    def broken(*_arguments: object, **_options: object) -> object:
        raise RuntimeError("bug")

    world.mail.claim = once  # type: ignore[method-assign]
    assert world.deliver().unavailable
    assert (world.state("ann"), world.reported) == (CopyState.DELIVERED, ["release"])


NAMES = ("ann", "bob", "cat")
STEPS = st.one_of(
    st.tuples(st.just("hold"), st.sampled_from(NAMES)),
    st.tuples(st.just("say"), st.tuples(st.sampled_from(NAMES), st.sampled_from(ConsentState))),
    st.tuples(st.just("order"), st.tuples(st.sampled_from(Action), st.booleans(), st.booleans())),
    st.tuples(st.just("decide"), st.sampled_from(Decided)),
    st.tuples(st.just("hop"), st.sampled_from([fakes.TAKEN, LATER, NEVER])),
    st.tuples(st.just("fail"), st.sampled_from([None, fakes.UNAVAILABLE, fakes.IN_DOUBT])),
    st.tuples(st.just("die"), st.none()),
    st.tuples(st.just("deliver"), st.sampled_from([0, MINUTE, DAY])),
)


@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_no_copy_is_lost_and_nobody_gets_what_they_object_to(steps: list[tuple[str, Any]]) -> None:
    """Any order of orders, changes of mind, failures and deaths: what is DELIVERED arrived, what arrived was allowed at
    that moment, and every copy is in one state that the journal accounts for.
    """
    world, stored = ReleaseWorld(), 0
    for number, (what, how) in enumerate(steps):
        before = len(world.hop.delivered)
        if what == "hold":
            world.hold(how, received_at=world.now - 1)
            stored += 1
        elif what == "say":
            world.consents.states[path(how[0]).decode()] = how[1]
        elif what == "order":
            action, despite, told = how
            order = world.order(action, name=f"o{number}", despite=despite)
            world.orders.carry_out(order, HeldQuery(), told=told)
        elif what == "decide":
            world.decide(how)
        elif what == "hop":
            world.hop.final = how
        elif what == "fail":
            world.script.fail = {"hop.data": how} if how else {}
            world.hop.arrives_in_doubt = True
        elif what == "die":  # somebody claims, and is never heard of again
            world.mail.claim(world.now, world.now + MINUTE, 10)
        else:
            world.pass_time(how)
            world.deliver()
        for mail, recipient, _ in world.hop.delivered[before:]:
            state = world.consents.states.get(recipient.address)
            decided = world.decisions.get("c1")
            before_it = {row.copy.state for row in world.mail.rows.values() if row.copy.recipient == recipient}
            as_service = decided and decided.decided is Decided.IS_SERVICE and ConsentState.OBJECTED in before_it
            assert not mail.path or state is not ConsentState.OBJECTED or as_service
    accounted_for(world, stored)


def accounted_for(world: ReleaseWorld, stored: int) -> None:
    """The journal tells of every copy that it is where it is, and the next hop has what was delivered."""
    rows = world.mail.rows.values()
    assert len(rows) == stored
    told = Counter(str(line["event"]) for line in world.journal.events)
    states = Counter(str(row.state) for row in rows)
    for state, event in (("delivered", "released"), ("bounced", "bounced"), ("discarded", "discarded")):
        assert states[state] == told[event]
    assert states["expired"] == sum(line["recipients"] for line in world.journal.of(Event.EXPIRED))
    assert not Counter(row.copy.recipient.path for row in rows if row.state == "delivered") - Counter(world.reached)
    assert not world.reported
    assert world.hop.idle


def test_a_clock_that_jumps_keeps_no_report_back(world: ReleaseWorld) -> None:
    """A report that could not be sent once is not given up because a year passed at once."""
    released(world, "ann")
    world.hop.replies = {path("ann"): NEVER, b"bounce@shop.example": LATER}
    world.deliver()
    world.pass_time(365 * DAY)
    world.deliver()
    assert world.state("ann") is CopyState.RELEASED


def test_what_is_damaged_is_held_again(world: ReleaseWorld) -> None:
    """With its reason, a line in the journal and a count; not tried again, also not by the same order; others go."""
    world.hold("ann", "bob")
    world.hold("cyd")
    world.consents.states = {f"{name}@x.example": ConsentState.CONSENT for name in ("ann", "bob", "cyd")}
    world.release()
    world.mail.spoiled = {1: Unread.DAMAGED}
    assert world.deliver().counts == {Event.RELEASE_STOPPED: 2, Event.RELEASED: 1}
    assert world.mail.states() == {"held": 2, "delivered": 1}
    assert world.outcome("ann") == "recheck: damaged"
    (line,) = world.journal.of(Event.RELEASE_STOPPED)
    assert (line["queue_id"], line["recipients"], line["reason"], line["order"]) == ("Q1", 2, "damaged", "o1")
    assert world.count("release_stopped") == 2
    assert world.release()[:3] == (2, 0, 2)
    world.pass_time(86_400_000)
    assert not world.deliver().counts
    world.mail.spoiled = {}
    world.release(name="o2")
    assert world.deliver().counts == {Event.RELEASED: 2}


def test_a_key_that_is_missing_is_looked_for_again(world: ReleaseWorld) -> None:
    """Without its master key a copy stays released and is told as deferred; with the key it goes, by the same order."""
    released(world, "ann", "bob")
    world.mail.spoiled = {1: Unread.KEY_MISSING}
    assert world.deliver().counts == {Event.RELEASE_DEFERRED: 2}
    assert (world.state("ann"), world.outcome("ann")) == (CopyState.RELEASED, "key_missing")
    (line,) = world.journal.of(Event.RELEASE_DEFERRED)
    assert (line["queue_id"], line["recipients"], line["order"], line["why"], line["code"]) == (
        *("Q1", 2, "o1"),
        *("key_missing", 0),
    )
    assert world.count("release_deferred") == 2
    world.pass_time(HOUR - 1)
    assert not world.deliver().counts
    world.pass_time(1)
    assert world.deliver().counts == {Event.RELEASE_DEFERRED: 2}
    world.mail.spoiled = {}
    world.pass_time(HOUR)
    assert world.deliver().counts == {Event.RELEASED: 2}
    assert world.mail.states() == {"delivered": 2}


def test_a_copy_to_expire_waits_for_its_key(world: ReleaseWorld) -> None:
    """Nor is a copy whose sender is to be told lost to its standing order, which takes none a second time."""
    world.hold("ann")
    order = world.order(Action.EXPIRE, name="rejected")
    world.orders.carry_out(order, HeldQuery(), told=True)
    world.mail.spoiled = {1: Unread.KEY_MISSING}
    world.deliver()
    world.mail.spoiled = {}
    world.pass_time(HOUR)
    assert world.deliver().counts == {Event.EXPIRED: 1, Event.REPORT_SENT: 1}
    assert world.state("ann") is CopyState.EXPIRED


def test_what_cannot_be_read_ends_no_run(world: ReleaseWorld) -> None:
    """A batch of nothing else is not the end: what is due behind it is delivered in the same run."""
    for name in [f"r{number}" for number in range(world.settings.batch)]:
        world.hold(name)
    world.hold("ann")
    world.consents.states = {"ann@x.example": ConsentState.CONSENT}
    world.release()
    world.mail.spoiled = dict.fromkeys(range(1, world.settings.batch + 1), Unread.DAMAGED)
    assert world.deliver("o1").counts[Event.RELEASED] == 1

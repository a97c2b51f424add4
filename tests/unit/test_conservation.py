"""Whatever fails and whenever: every recipient of a message answered 250 is in exactly one place, and nobody else is.

The next hop never has a promotional copy for anybody who has not agreed, and what was not taken leaves nothing behind.
"""

from collections import Counter
from typing import NamedTuple

from hypothesis import event, given
from hypothesis import strategies as st
from support import fakes
from support.world import PROMOTION, SERVICE, World, rcpt

from filter.envelope import MailFrom, RcptTo
from filter.events import Event
from filter.policy import Disposition
from filter.replies import Reply

WORDS = ("relay", "hold", "divert", "reject")
CALLS = (
    *("hop.rcpt", "hop.restart", "hop.data", "hop.abort", "side.rcpt", "side.data", "side.abort"),
    *(
        "hold.store",
        "hold.void",
        "hold.confirm",
        "hold.diverted",
        "hold.settle",
        "hold.forget",
        "flights.begin",
        "hold.known",
    ),
)
HOP_FAULTS = st.sampled_from([fakes.UNAVAILABLE, fakes.IN_DOUBT, RuntimeError("bug")])
FINAL = st.sampled_from([fakes.TAKEN, fakes.TAKEN, Reply(452, "", ("Later",)), Reply(554, "", ("No",))])


def fault(call: str) -> st.SearchStrategy[Exception]:
    """What may go wrong in a call: what its port names, or a bug."""
    if call.startswith("hold."):
        return st.sampled_from([fakes.HOLD_UNAVAILABLE, RuntimeError("bug")])
    if not call.endswith("data"):
        return st.sampled_from([fakes.UNAVAILABLE, RuntimeError("bug")])
    return HOP_FAULTS


RECIPIENTS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 2)).map(lambda one: rcpt(*one)), max_size=6)
FAULTS = st.lists(st.sampled_from(CALLS), max_size=3, unique=True).flatmap(
    lambda calls: st.fixed_dictionaries({call: fault(call) for call in calls})
)


def allowed(recipients: list[RcptTo], word: str) -> Counter[bytes]:
    """The recipients whose promotional copy gets this disposition."""
    return Counter(one.path for one in recipients if one.path.startswith(word.encode()))


class Plan(NamedTuple):
    """What happens to one message: to whom it goes, what the next hops answer, and what fails."""

    recipients: list[RcptTo]
    faults: dict[str, BaseException | str]
    refused: set[str]  # those numbered 1 with these words
    refused_later: bool  # relay.0, when asked again
    final: Reply
    side_final: Reply
    arrives_in_doubt: bool
    divert: bool
    known: bool  # the client is there to get the reply

    def world(self) -> World:
        """A world in which this is going to happen."""
        world = World(divert=self.divert)
        world.script.fail = self.faults
        world.hop.replies = {rcpt(word, 1).path: Reply(550, "", ("No",)) for word in self.refused}
        world.hop.second_replies = {rcpt("relay").path: Reply(450, "", ("No",))} if self.refused_later else {}
        world.hop.final, world.hop.arrives_in_doubt = self.final, self.arrives_in_doubt
        world.side.final = self.side_final
        return world


PLANS = st.builds(
    Plan,
    recipients=RECIPIENTS,
    faults=FAULTS,
    refused=st.sets(st.sampled_from(WORDS)),
    refused_later=st.booleans(),
    final=FINAL,
    side_final=FINAL,
    arrives_in_doubt=st.booleans(),
    divert=st.booleans(),
    known=st.booleans(),
)


@given(PLANS)
def test_every_recipient_is_in_exactly_one_place(plan: Plan) -> None:
    """Over random dispositions, answers of both next hops and failures (D1-D5, D9, D10, D22)."""
    world = plan.world()
    reached: list[Counter[bytes]] = []  # at the next hop, when copies were given over to review
    world.hold.on_confirm = lambda: reached.append(Counter(world.hop.reached))
    reply = world.send(plan.recipients, known=plan.known)
    taken = [one for one in plan.recipients if one.path not in world.hop.replies]
    event(f"reply {reply.code}")

    assert Counter(world.hop.reached) <= allowed(taken, "relay")
    assert Counter(world.side.reached) <= allowed(taken, "divert")
    if reply.code == 250:
        assert Counter(world.places()) == Counter(one.path for one in taken)
        assert Counter(world.hop.reached) == allowed(taken, "relay")
        assert Counter(world.hold.live(Disposition.HOLD)) == allowed(taken, "hold")
        assert Counter(world.hold.live(Disposition.REJECT)) == allowed(taken, "reject")
        parts = [world.count(name) for name in ("relayed", "diverted", "held", "rejected")]
        assert world.count("accepted") == sum(parts) == len(taken)
        assert all(then == allowed(taken, "relay") for then in reached)
        assert world.hold.for_review() == world.hold.live() or world.journal.of(Event.NOT_CONFIRMED)
        world.hold.confirm_pending()
        assert world.hold.for_review() == world.hold.live()
    else:
        assert world.count("accepted") == 0
        assert not reached
        assert not world.hold.for_review() or not (allowed(taken, "relay") or allowed(taken, "divert"))
        assert not world.hop.reached or world.journal.of(Event.IN_DOUBT)
        assert not world.hold.live() or world.journal.of(Event.NOT_VOIDED)
        world.restart()
        assert world.hold.live() == []


@given(
    recipients=RECIPIENTS.filter(bool),
    number=st.integers(1, 25),
    arrives=st.booleans(),
    promotional=st.booleans(),
    sender=st.sampled_from([b"", b"a@bank.example"]),
)
def test_a_client_that_tries_again_loses_nothing(recipients, number, arrives, promotional, sender) -> None:
    """Killed at any call, restarted, and tried again until it is taken: each copy is somewhere, twice only in doubt."""
    world = World()
    world.hop.arrives_in_doubt = arrives
    world.script.at, world.script.error = number, fakes.Crash()
    content, mail = PROMOTION if promotional else SERVICE, MailFrom(sender)
    try:
        world.send(recipients, content, mail)
        event("not killed")
    except fakes.Crash:
        world.restart()
        reply = world.send(recipients, content, mail)
        assert reply.code == 250 or set(allowed(recipients, "reject")) == {one.path for one in recipients}
    world.hold.confirm_pending()
    assert world.hold.for_review() == world.hold.live()
    if {one.path[:6] for one in recipients} == {b"reject"} and promotional and sender:
        return  # rejected as a whole
    places, wanted = Counter(world.places()), Counter(one.path for one in recipients)
    if world.side.reached:
        places |= Counter(world.side.reached)  # sent, and killed before that was marked
    assert places >= wanted
    if not world.journal.of(Event.IN_DOUBT):
        assert places == wanted
    if promotional and sender:
        assert set(world.hop.reached) <= set(allowed(recipients, "relay"))

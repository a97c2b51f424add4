"""Transactions at a next hop in memory: what goes out in which order, what comes back, and what a failure leads to."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory_hop import LOST, SILENT, Clock, MemoryHop, MemoryTransport, once, settle

from filter import replies
from filter.envelope import USUAL, Client, MailFrom, RcptTo
from filter.errors import ConfigError
from filter.next_hop import SmtpNextHop
from filter.next_hop_breaker import BreakerState
from filter.next_hop_setup import Event, NextHopOptions
from filter.ports import InDoubtError, NextHopUnavailableError
from filter.tls_policy import TlsPolicy

MAIL = MailFrom(b"a@sender.example")
ANN, BEN, CAT = (RcptTo(name + b"@customer.example") for name in (b"ann", b"ben", b"cat"))
CONTENT = (b"Received: us\r\n", b"Subject: x\r\n\r\nHello\r\n.\r\n..two\r\n")
STUFFED = b"Received: us\r\nSubject: x\r\n\r\nHello\r\n..\r\n...two\r\n"
HELLO = b"EHLO filter.example"
MAIL_LINE = b"MAIL FROM:<a@sender.example>"
ANN_LINE, BEN_LINE, CAT_LINE = (b"RCPT TO:<" + name + b"@customer.example>" for name in (b"ann", b"ben", b"cat"))


class Setting:
    """A next hop of ours before a server in memory, with what was counted."""

    def __init__(self, hop: MemoryHop, **options: object) -> None:
        self.server = hop
        self.clock = Clock()
        self.events: Counter[Event] = Counter()
        given = {"hosts": (("one", 25),), "hostname": "filter.example", "tls": TlsPolicy.OFF, **options}
        self.hop = SmtpNextHop(NextHopOptions(**given), count=self._count, clock=self.clock, connect=hop.connect)

    def _count(self, event: Event) -> None:
        self.events[event] += 1

    def begin(self, mail: MailFrom = MAIL, client: Client | None = None):
        """A transaction."""
        return self.hop.transaction(mail, client or Client("192.0.2.1", "app.example"))

    async def send(self, *recipients: RcptTo) -> replies.Reply:
        """The reply to a message for recipients who are all taken."""
        transaction = self.begin()
        for recipient in recipients or (ANN,):
            assert (await transaction.rcpt(recipient)).ok
        return await transaction.data(CONTENT)

    async def late(self) -> None:
        """Time passes until whatever is awaited is too late."""
        await settle()
        self.clock.now += 1000
        for pool in self.hop._hosts.pools:
            pool.sweep()
        await settle()


def run(scenario: Callable[[Setting], Awaitable[None]], hop: MemoryHop | None = None, **options: object) -> Setting:
    """Run a scenario; afterwards every place of the pools is accounted for and nothing stays open."""
    server = hop or MemoryHop()

    async def inner() -> Setting:
        setting = Setting(server, **options)
        await scenario(setting)
        await settle()
        assert all(state.in_use == 0 for state in setting.hop.hosts), setting.hop.hosts
        assert all(state.waiting == 0 for state in setting.hop.hosts)
        await setting.hop.close()
        assert all(state.connections == 0 for state in setting.hop.hosts)
        assert server.open == 0
        return setting

    return asyncio.run(inner())


def test_a_message_takes_three_round_trips_and_leaves_as_it_came():
    """MAIL goes with the first RCPT, later ones at once; the content is dot-stuffed and whole (A4, D18)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        assert await transaction.rcpt(ANN) == replies.relayed(250, [b"2.1.0 Ok"])
        assert (await transaction.rcpt(BEN)).ok
        assert await transaction.data(CONTENT) == replies.relayed(250, [b"2.0.0 Ok"])

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert setting.server.transports[0].writes == [
        HELLO + b"\r\n",
        MAIL_LINE + b"\r\n" + ANN_LINE + b"\r\n",
        BEN_LINE + b"\r\n",
        b"DATA\r\n",
        STUFFED + b".\r\n",
        b"QUIT\r\n",
    ]


def test_an_empty_message_is_a_message():
    """Content of no octets reaches the next hop as no octets (A14)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        assert (await transaction.data(())).ok

    setting = run(scenario)
    assert setting.server.transports[0].writes[-2] == b".\r\n"


@given(st.integers(1, 40), st.integers(1, 4))
def test_answers_may_come_in_any_pieces(cut: int, recipients: int):
    """However the answers are cut, the transaction is the same."""

    async def scenario(setting: Setting) -> None:
        setting.server.cut = cut
        assert (await setting.send(*[ANN] * recipients)).ok
        assert (await setting.send(ANN)).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED, STUFFED]
    assert len(setting.server.transports) == 1


def test_without_pipelining_commands_wait_for_their_answers():
    """In lock-step no RCPT follows a refused MAIL, and one connection still serves many messages."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["MAIL"] = once(b"451 4.3.0 later\r\n")
        transaction = setting.begin()
        assert (await transaction.rcpt(ANN)).code == 451
        await transaction.abort()
        assert (await setting.send(ANN, BEN)).ok

    setting = run(scenario, MemoryHop(keywords=("8BITMIME",)))
    assert setting.server.lines(0)[1:-1] == [MAIL_LINE, b"RSET", MAIL_LINE, ANN_LINE, BEN_LINE, b"DATA", b"."]
    assert all(write.count(b"\r\n") == 1 for write in setting.server.transports[0].writes[:6])


def test_refusals_of_recipients_reach_the_client_at_rcpt():
    """Each recipient has its own answer, class and enhanced code kept (D8)."""

    async def scenario(setting: Setting) -> None:
        answers = {ANN_LINE: b"550 5.1.1 No such user\r\n", BEN_LINE: b"452 4.2.2 Mailbox full\r\n"}
        setting.server.script["RCPT"] = answers.get
        transaction = setting.begin()
        assert await transaction.rcpt(ANN) == replies.relayed(550, [b"5.1.1 No such user"])
        assert await transaction.rcpt(BEN) == replies.relayed(452, [b"4.2.2 Mailbox full"])
        assert (await transaction.rcpt(CAT)).ok
        assert (await transaction.data(CONTENT)).ok

    run(scenario)


def test_a_refused_sender_is_the_answer_to_every_recipient():
    """With MAIL refused, RCPT answers of the same flight are read and dropped, and nothing more is sent (D13)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["MAIL"] = once(b"550 5.7.1 Go away\r\n")
        setting.server.script["RCPT"] = once(b"250 2.1.5 Ok\r\n")  # nonsense after that, and not believed
        transaction = setting.begin()
        refusal = replies.relayed(550, [b"5.7.1 Go away"])
        assert await transaction.rcpt(ANN) == refusal
        assert await transaction.rcpt(BEN) == refusal
        assert await transaction.data(CONTENT) in (refusal, replies.NO_RECIPIENTS)
        assert (await setting.send()).ok

    setting = run(scenario)
    assert len(setting.server.transports) == 1
    assert setting.server.messages == [STUFFED]


def test_a_message_at_hand_takes_two_round_trips():
    """MAIL, every RCPT and DATA are one flight (RFC 2920 section 3.1); each recipient has its own answer."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["RCPT"] = {ANN_LINE: b"550 5.1.1 No such user\r\n"}.get
        transaction = setting.begin()
        answers = await transaction.begin([ANN, BEN])
        assert answers == [replies.relayed(550, [b"5.1.1 No such user"]), replies.relayed(250, [b"2.1.0 Ok"])]
        assert (await transaction.data(CONTENT)).ok
        assert (await setting.send(BEN)).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED, STUFFED]
    assert setting.server.transports[0].writes[1:3] == [
        MAIL_LINE + b"\r\n" + ANN_LINE + b"\r\n" + BEN_LINE + b"\r\nDATA\r\n",
        STUFFED + b".\r\n",
    ]
    assert len(setting.server.transports) == 1


def test_a_message_at_hand_goes_step_by_step_where_nothing_is_pipelined():
    """Without PIPELINING DATA waits for the answers to RCPT."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        assert all(answer.ok for answer in await transaction.begin([ANN]))
        assert b"DATA" not in setting.server.lines()
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario, MemoryHop(keywords=("8BITMIME",)))
    assert setting.server.messages == [STUFFED]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
@pytest.mark.parametrize("reply", [b"354 go on\r\n", b"554 5.5.1 no valid recipients\r\n"])
def test_what_was_announced_and_is_not_sent_leaves_no_connection_that_waits_for_it(verb: str, reply: bytes):
    """With nobody taken nothing is sent, even if DATA is answered with 354: then the connection is not used again."""

    async def scenario(setting: Setting) -> None:
        setting.server.script[verb] = once(b"550 5.7.1 No\r\n")
        setting.server.script["DATA"] = once(reply)
        transaction = setting.begin()
        assert [answer.code for answer in await transaction.begin([ANN])] == [550]
        await transaction.abort()
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert len(setting.server.transports) == 1 + reply.startswith(b"354")


@pytest.mark.parametrize("code", [451, 554])
def test_a_message_at_hand_may_be_refused_at_data(code: int):
    """A refusal of DATA in the flight is the answer to the message, and the connection is used again."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["DATA"] = once(b"%d no\r\n" % code)
        transaction = setting.begin()
        assert (await transaction.begin([ANN]))[0].ok
        assert (await transaction.data(CONTENT)).code == code
        assert (await setting.send()).ok

    setting = run(scenario)
    assert len(setting.server.transports) == 1
    assert setting.server.messages == [STUFFED]


def test_content_that_cannot_go_there_ends_the_connection_that_waits_for_it():
    """Octets over 127 do not go to a next hop without 8BITMIME; a connection that waits for them ends."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.begin([ANN])
        assert await transaction.data((b"\xff\r\n",)) == replies.EIGHT_BIT_REFUSED
        assert (await setting.send()).ok

    setting = run(scenario, MemoryHop(keywords=("PIPELINING",)))
    assert setting.server.messages == [STUFFED]
    assert len(setting.server.transports) == 2


def test_an_abort_during_the_flight_leaves_no_connection_that_waits_for_a_message():
    """What the server says to DATA after an abort does not make the next message a part of this one."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        beginning = asyncio.create_task(transaction.begin([ANN]))
        announced = asyncio.Event()
        setting.server.on_write = lambda _, octets: announced.set() if octets.endswith(b"DATA\r\n") else None
        await announced.wait()
        await transaction.abort()
        with pytest.raises(NextHopUnavailableError):
            await beginning
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]


def test_a_connection_lost_after_the_flight_is_replaced():
    """Nothing was handed over yet: the message is announced anew on another connection, and sent once."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.begin([ANN])
        setting.server.transports[0].lose()
        await settle()
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert len(setting.server.transports) == 2


def test_no_data_without_a_recipient():
    """With every RCPT refused DATA is not sent, so that no server can answer it with 354 (D13)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["RCPT"] = lambda _: b"550 5.1.1 No\r\n"
        transaction = setting.begin()
        assert (await transaction.rcpt(ANN)).code == 550
        assert await transaction.data(CONTENT) == replies.NO_RECIPIENTS

    setting = run(scenario)
    assert b"DATA" not in setting.server.lines()


@pytest.mark.parametrize("code", [450, 550, 554])
@pytest.mark.parametrize("verb", ["DATA", "."])
def test_a_refused_message_keeps_its_class(verb: str, code: int):
    """A refusal of DATA or after the dot reaches the client, and the connection is used again after RSET (D4)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script[verb] = once(b"%d no\r\n" % code)
        assert (await setting.send()).code == code
        assert (await setting.send()).ok

    setting = run(scenario)
    assert len(setting.server.transports) == 1
    assert setting.server.lines().count(b"RSET") == 1
    assert setting.server.lines().count(MAIL_LINE) == 2


def test_abort_costs_nothing_and_rset_goes_with_the_next_transaction():
    """RSET is sent in the flight of the next MAIL; abort before anything, twice and after the end is fine."""

    async def scenario(setting: Setting) -> None:
        await setting.begin().abort()
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        await transaction.abort()
        await transaction.abort()
        with pytest.raises(NextHopUnavailableError):
            await transaction.rcpt(BEN)
        with pytest.raises(NextHopUnavailableError):
            await transaction.data(CONTENT)
        assert (await setting.send(BEN)).ok

    setting = run(scenario)
    flights = setting.server.transports[0].writes
    assert flights[2] == b"RSET\r\n" + MAIL_LINE + b"\r\n" + BEN_LINE + b"\r\n"


def test_restart_is_one_flight_for_the_recipients_left():
    """RSET, MAIL and every RCPT leave together, and the message goes to these alone (D2)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        for recipient in (ANN, BEN, CAT):
            await transaction.rcpt(recipient)
        assert await transaction.restart((ANN, CAT)) is None
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario)
    flight = b"".join(line + b"\r\n" for line in (b"RSET", MAIL_LINE, ANN_LINE, CAT_LINE))
    assert flight in setting.server.transports[0].writes


def test_restart_gives_the_first_refusal():
    """If the next hop changed its mind, the first refusal is told, be it of MAIL or of a recipient."""

    async def scenario(setting: Setting) -> None:
        for verb, line in (("RCPT", CAT_LINE), ("MAIL", MAIL_LINE)):
            transaction = setting.begin()
            for recipient in (ANN, BEN, CAT):
                await transaction.rcpt(recipient)
            setting.server.script[verb] = {line: b"450 4.2.0 not now\r\n"}.get
            assert await transaction.restart((ANN, CAT)) == replies.relayed(450, [b"4.2.0 not now"])
            await transaction.abort()
            setting.server.script.clear()
        assert (await setting.send()).ok

    assert len(run(scenario).server.transports) == 1


def test_restart_on_a_lost_connection_begins_anew():
    """Nothing was handed over, so a connection lost meanwhile is no reason to fail (D12)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        await transaction.rcpt(BEN)
        setting.server.transports[0].lose()
        await settle()
        assert await transaction.restart((BEN,)) is None
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario)
    assert setting.server.lines(1)[1:4] == [MAIL_LINE, BEN_LINE, b"DATA"]
    assert setting.server.messages == [STUFFED]


@pytest.mark.parametrize("verb", ["RSET", "MAIL", "RCPT"])
@pytest.mark.parametrize("answer", [LOST, b"421 4.4.2 idle too long\r\n", b"garbage\r\n", b"250 one\r\n250 more\r\n"])
def test_a_stale_connection_is_replaced_unseen(verb: str, answer: bytes):
    """A reused connection that fails before the first answer to RCPT leads to one fresh one, and one message (D12)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        await transaction.abort()
        setting.server.script[verb] = once(answer)
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert setting.server.lines(1) == [HELLO, MAIL_LINE, ANN_LINE, b"DATA", b".", b"QUIT"]
    assert setting.events[Event.RETRY] == 1


def test_a_connection_closed_while_idle_is_not_used():
    """A server that closes an idle connection, with 421 or without, costs the next message nothing."""

    async def scenario(setting: Setting) -> None:
        for last in (b"421 4.4.2 timeout\r\n", b""):
            assert (await setting.send()).ok
            transport = setting.server.transports[-1]
            transport.say(last)
            transport.lose()
            await settle()
            assert setting.hop.hosts[0].connections == 0
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.events[Event.RETRY] == 0
    assert len(setting.server.messages) == len(setting.server.transports) == 3


def test_a_fresh_connection_that_fails_is_not_tried_again():
    """Without another host, one attempt is made for a fresh connection (D12)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["RCPT"] = lambda _: LOST
        with pytest.raises(NextHopUnavailableError):
            await setting.begin().rcpt(ANN)

    assert len(run(scenario).server.transports) == 1


@pytest.mark.parametrize("answer", [LOST, b"421 closing\r\n", b"nonsense\r\n", b"250-endless\r\n" * 300])
def test_a_connection_that_fails_within_the_envelope_hands_over_nothing(answer: bytes):
    """Lost, closed or garbled at a later RCPT, the transaction is over and the next one is well (D11)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        setting.server.script["RCPT"] = once(answer)
        with pytest.raises(NextHopUnavailableError):
            await transaction.rcpt(BEN)
        with pytest.raises(NextHopUnavailableError):
            await transaction.data(CONTENT)
        await transaction.abort()
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]


@pytest.mark.parametrize("answer", [LOST, b"421 closing\r\n", b"nonsense\r\n", b"250 too early\r\n", b"334 what\r\n"])
def test_a_connection_that_fails_at_data_hands_over_nothing(answer: bytes):
    """Before the content has left there is no doubt (D5, D11)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["DATA"] = once(answer)
        with pytest.raises(NextHopUnavailableError):
            await setting.send()
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert setting.events[Event.LOST] == 1


def test_a_connection_with_one_answer_too_many_is_replaced_unseen():
    """The answer itself was good, the connection is not: what was taken is asked for again on another one (D11)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        setting.server.script["RCPT"] = once(b"250 yes\r\n250 twice\r\n")
        assert (await transaction.rcpt(BEN)).ok
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario)
    assert setting.server.lines(1)[1:4] == [MAIL_LINE, ANN_LINE, BEN_LINE]
    assert setting.server.messages == [STUFFED]


def test_a_connection_closed_while_the_client_sends_is_replaced_unseen():
    """Nothing was handed over: the message goes, once, over another connection to those who were taken (D12)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["RCPT"] = lambda line: b"550 no\r\n" if line == CAT_LINE else None
        transaction = setting.begin()
        for recipient in (ANN, CAT, BEN):
            await transaction.rcpt(recipient)
        assert await transaction.restart((BEN, ANN)) is None
        setting.server.transports[0].say(b"421 4.4.2 timeout\r\n")
        await settle()
        assert (await transaction.data(CONTENT)).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    again = [line for number, line in setting.server.commands if number == 1]
    assert again == [HELLO, MAIL_LINE, BEN_LINE, ANN_LINE, b"DATA", b".", b"QUIT"]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "CONNECT"])
def test_a_server_that_changed_its_mind_meanwhile_gets_nothing(verb: str):
    """When it refuses now what it took before, the message is handed to nobody."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        await transaction.rcpt(BEN)
        setting.server.transports[0].lose()
        await settle()
        setting.server.script[verb] = lambda line: None if line == ANN_LINE else b"550 no\r\n"
        with pytest.raises(NextHopUnavailableError):
            await transaction.data(CONTENT)

    assert run(scenario).server.messages == []


@pytest.mark.parametrize("answer", [LOST, b"nonsense\r\n", b"354 again\r\n", b"250-unfinished\r\n" + b"x" * 20_000])
def test_a_message_without_an_answer_is_in_doubt(answer: bytes):
    """After the dot, only an answer says what became of the message; it is not sent again (D5, D11)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["."] = once(answer)
        with pytest.raises(InDoubtError):
            await setting.send()
        assert (await setting.send()).ok

    setting = run(scenario)
    assert len(setting.server.messages) == 2
    assert len(setting.server.transports) == 2


def test_a_server_that_closes_after_the_dot_has_still_answered():
    """421 to the dot is a temporary refusal, no doubt."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["."] = once(b"421 4.3.2 closing\r\n")
        reply = await setting.send()
        assert reply.code // 100 == 4

    run(scenario)


@pytest.mark.parametrize(("verb", "error"), [("RCPT", NextHopUnavailableError), ("DATA", NextHopUnavailableError)])
def test_silence_ends_in_time(verb: str, error: type[Exception]):
    """A server that says nothing is given up, and its connection too."""

    async def scenario(setting: Setting) -> None:
        setting.server.script[verb] = lambda _: SILENT
        sending = asyncio.ensure_future(setting.send())
        await setting.late()
        with pytest.raises(error):
            await sending

    setting = run(scenario)
    assert setting.events[Event.TIMEOUT] == 1


def test_silence_after_the_dot_is_doubt():
    """Giving up after the dot leaves the message in doubt (D5)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["."] = lambda _: SILENT
        sending = asyncio.ensure_future(setting.send())
        await setting.late()
        with pytest.raises(InDoubtError):
            await sending

    run(scenario)


LARGE = b"Subject: x\r\n\r\n" + b"line\r\n" * 100_000  # more than is written at once
BLOCK = 100_000


async def _send_large(setting: Setting) -> replies.Reply:
    transaction = setting.begin()
    await transaction.rcpt(ANN)
    return await transaction.data((LARGE,))


def test_a_large_message_leaves_as_fast_as_the_server_reads():
    """After pause_writing nothing more is written until resume_writing, and the message arrives whole."""

    async def scenario(setting: Setting) -> None:
        def pause(transport: MemoryTransport, data: bytes) -> None:
            if len(data) > BLOCK:
                transport.protocol.pause_writing()

        setting.server.on_write = pause
        sending = asyncio.ensure_future(_send_large(setting))
        blocks = []
        while not sending.done():
            await settle()
            blocks.append(sum(len(write) > BLOCK for write in setting.server.transports[0].writes))
            setting.server.transports[0].protocol.resume_writing()
        assert blocks == sorted(blocks)
        assert blocks[:3] == [1, 2, 3]
        assert (await sending).ok

    assert run(scenario).server.messages == [LARGE]


def test_a_server_that_stops_reading_gets_no_message():
    """Without progress within a large message it is given up, before the dot: nothing was handed over (D20)."""

    async def scenario(setting: Setting) -> None:
        setting.server.on_write = lambda transport, data: len(data) > BLOCK and transport.protocol.pause_writing()
        sending = asyncio.ensure_future(_send_large(setting))
        await setting.late()
        with pytest.raises(NextHopUnavailableError):
            await sending

    setting = run(scenario)
    assert setting.events[Event.TIMEOUT] == 1
    assert setting.server.messages == []


def test_octets_for_a_lost_connection_are_not_a_message():
    """A transport that is closing takes octets and throws them away: no final dot is sent that way (D5)."""

    async def scenario(setting: Setting) -> None:
        setting.server.on_write = lambda transport, data: len(data) > BLOCK and transport.lose()
        with pytest.raises(NextHopUnavailableError):
            await _send_large(setting)

    assert run(scenario).server.messages == []


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize(
    ("said", "code"), [(b"552 5.3.4 too big\r\n", 552), (b"421 4.3.0 bye\r\n", 451), (b"250 thanks\r\n", None)]
)
def test_an_answer_in_the_middle_of_a_large_message(said: bytes, code: int | None, paused: bool):
    """A refusal before the end is handed on and nothing more is sent; acceptance before the end is not believed."""

    async def scenario(setting: Setting) -> None:
        def refuse(transport: MemoryTransport, data: bytes) -> None:
            if len(data) > BLOCK:
                setting.server.on_write = lambda _transport, _data: None
                if paused:
                    transport.protocol.pause_writing()
                transport.say(said)

        setting.server.on_write = refuse
        if code:
            assert (await _send_large(setting)).code == code
        else:
            with pytest.raises(NextHopUnavailableError):
                await _send_large(setting)
        assert sum(len(write) > BLOCK for write in setting.server.transports[0].writes) == 1
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert len(setting.server.transports) == 2


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "RCPT", "DATA", "."])
def test_a_cancelled_call_leaves_no_connection_behind(verb: str):
    """A caller that is cancelled at any point gives its place back, and its connection is used by nobody."""

    async def scenario(setting: Setting) -> None:
        setting.server.script[verb] = once(SILENT)
        sending = asyncio.ensure_future(setting.send())
        await settle()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await settle()
        assert setting.hop.hosts[0].connections == 0
        assert (await setting.send()).ok

    run(scenario)


def test_an_abort_while_the_envelope_is_open_gives_everything_back():
    """Abort may come from another task in the middle of RCPT."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["CONNECT"] = once(SILENT)
        transaction = setting.begin()
        offering = asyncio.ensure_future(transaction.rcpt(ANN))
        await settle()
        await transaction.abort()
        setting.server.transports[0].say(b"220 at last\r\n")
        with pytest.raises(NextHopUnavailableError):
            await offering

    run(scenario)


@pytest.mark.parametrize("content", [b"a\n.\r\nMAIL FROM:<>\r\n", b"a\r.\rb\r\n", b"a\0b\r\n", b"a\r\n.\r\nMAIL\n"])
def test_content_that_could_end_early_is_never_sent(content: bytes):
    """A fault of ours that lets irregular content through stops here, with nothing sent (A2)."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        with pytest.raises(ValueError, match="bare CR"):
            await transaction.data((content,))
        assert (await setting.send()).ok

    setting = run(scenario)
    assert setting.server.messages == [STUFFED]
    assert len(setting.server.transports) == 1


def test_a_path_with_a_line_end_is_never_sent():
    """A fault of ours in an address does not become a command, first recipient or later (A3)."""

    async def scenario(setting: Setting) -> None:
        bad = RcptTo(b"x@y.example>\r\nRCPT TO:<z@y.example")
        with pytest.raises(ValueError, match="control characters"):
            await setting.begin().rcpt(bad)
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        with pytest.raises(ValueError, match="control characters"):
            await transaction.rcpt(bad)
        await transaction.abort()

    setting = run(scenario)
    assert not [line for line in setting.server.lines() if b"z@y" in line]


def test_lost_capabilities_are_refusals():
    """What the next hop can no longer take is refused with the code for it, and nothing is sent (D15)."""

    async def scenario(setting: Setting) -> None:
        international = setting.begin(MailFrom(b"a@b.example", (b"SMTPUTF8",), smtputf8=True))
        assert await international.rcpt(ANN) == replies.SMTPUTF8_UNAVAILABLE
        assert await international.rcpt(BEN) == replies.SMTPUTF8_UNAVAILABLE
        await international.abort()
        eight_bit = setting.begin(MailFrom(b"a@b.example", (b"BODY=8BITMIME",), eight_bit=True))
        assert (await eight_bit.rcpt(ANN)).ok
        assert await eight_bit.data((b"Subject: x\r\n\r\n\xe4\r\n",)) == replies.EIGHT_BIT_REFUSED
        assert (await setting.send()).ok

    setting = run(scenario, MemoryHop(keywords=("PIPELINING",)))
    assert setting.server.messages == [STUFFED]


def test_xforward_goes_with_every_transaction_and_is_best_effort():
    """XFORWARD stands between RSET and MAIL; a refusal of it is counted and stops nothing."""

    async def scenario(setting: Setting) -> None:
        transaction = setting.begin()
        await transaction.rcpt(ANN)
        await transaction.abort()
        setting.server.script["XFORWARD"] = once(b"501 5.5.4 no\r\n")
        assert (await setting.send()).ok

    setting = run(scenario, MemoryHop(keywords=("PIPELINING", "XFORWARD NAME ADDR HELO")))
    told = b"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 HELO=app.example"
    assert setting.server.lines(0)[1:6] == [told, MAIL_LINE, ANN_LINE, b"RSET", told]
    assert setting.events[Event.XFORWARD_REFUSED] == 1


def test_xforward_can_be_switched_off():
    """Nothing about clients is told where the setting says so."""

    async def scenario(setting: Setting) -> None:
        assert (await setting.send()).ok

    setting = run(scenario, MemoryHop(keywords=("XFORWARD NAME ADDR",)), xforward=False)
    assert setting.server.lines()[1] == MAIL_LINE


def test_capabilities_are_known_after_a_probe():
    """Before the first connection the usual is taken for granted; a probe makes one, or uses the one there is."""

    async def scenario(setting: Setting) -> None:
        assert setting.hop.capabilities is USUAL
        await setting.hop.probe()
        await setting.hop.probe()
        assert setting.hop.capabilities.size == 1_000_000
        assert "SMTPUTF8" in setting.hop.capabilities
        assert (await setting.send()).ok

    assert len(run(scenario).server.transports) == 1


TWO = (("one", 25), ("two", 25))


def test_the_next_host_takes_over_and_the_first_comes_back():
    """While the first host is down the second takes the mail; the first is preferred as soon as it works (D14)."""

    async def scenario(setting: Setting) -> None:
        setting.server.down = {"one"}
        for _ in range(5):
            assert (await setting.send()).ok
        assert setting.hop.hosts[0].breaker is BreakerState.OPEN
        assert setting.hop.available
        tries = setting.server.attempts.count("one")
        assert tries == 3
        assert (await setting.send()).ok
        assert setting.server.attempts.count("one") == tries
        setting.server.down = set()
        setting.clock.now += 10
        assert (await setting.send()).ok
        assert setting.server.attempts[-1] == "one"
        assert setting.hop.hosts[0].breaker is BreakerState.CLOSED

    setting = run(scenario, hosts=TWO, breaker_failures=3, breaker_pause=10.0, idle_timeout=100.0)
    assert setting.events[Event.FAILOVER] == 6
    assert setting.events[Event.BREAKER_OPENED] == setting.events[Event.BREAKER_CLOSED] == 1
    assert len(setting.server.messages) == 7


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("CONNECT", b"554 5.7.1 not you\r\n"),
        ("CONNECT", b"421 4.3.2 busy\r\n"),
        ("CONNECT", LOST),
        ("CONNECT", b"SSH-2.0-server\r\n"),
        ("CONNECT", b"220 one\r\n220 two\r\n"),
        ("EHLO", b"421 4.3.2 busy\r\n"),
        ("EHLO", b"550 5.7.1 bad name\r\n"),
        ("EHLO", LOST),
        ("MAIL", b"421 4.3.2 closing\r\n"),
        ("RCPT", LOST),
    ],
)
def test_a_host_that_does_not_work_is_passed_over(verb: str, answer: bytes):
    """Whatever fails before the first answer to RCPT, the next host is asked (D14)."""

    async def scenario(setting: Setting) -> None:
        setting.server.script[verb] = once(answer)
        assert (await setting.send()).ok

    setting = run(scenario, hosts=TWO)
    assert setting.server.attempts == ["one", "two"]
    assert setting.server.messages == [STUFFED]


def test_a_refusal_is_an_answer_and_no_reason_for_another_host():
    """Hosts are changed for failures, not for what a host decides."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["MAIL"] = once(b"451 4.7.1 later\r\n")
        transaction = setting.begin()
        assert (await transaction.rcpt(ANN)).code == 451
        await transaction.abort()

    assert run(scenario, hosts=TWO).server.attempts == ["one"]


def test_when_every_host_is_left_alone_the_answer_is_immediate():
    """With all breakers open nothing is tried; after the pause one attempt finds out (D14)."""

    async def scenario(setting: Setting) -> None:
        setting.server.down = {"one", "two"}
        for _ in range(4):
            with pytest.raises(NextHopUnavailableError):
                await setting.begin().rcpt(ANN)
        assert len(setting.server.attempts) == 4
        assert not setting.hop.available
        setting.server.down = set()
        setting.clock.now += 10
        assert setting.hop.available
        assert (await setting.send()).ok
        assert (await setting.send()).ok

    setting = run(scenario, hosts=TWO, breaker_failures=2)
    assert setting.server.attempts[4:] == ["one"]


def test_one_attempt_at_a_time_finds_out():
    """Half open, a crowd does not fall upon the host: one goes, the others are refused at once (D14)."""

    async def scenario(setting: Setting) -> None:
        setting.server.down = {"one"}
        with pytest.raises(NextHopUnavailableError):
            await setting.begin().rcpt(ANN)
        setting.clock.now += 10
        results = await asyncio.gather(*(setting.begin().rcpt(ANN) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, NextHopUnavailableError) for result in results)

    assert len(run(scenario, breaker_failures=1).server.attempts) == 2


ANSWERS = [None] * 6 + [LOST, b"421 bye\r\n", b"450 no\r\n", b"what\r\n", b"250 a\r\n250 b\r\n", b"354 go\r\n"]
VERBS = ["CONNECT", "EHLO", "RSET", "MAIL", "RCPT", "DATA", "."]


@given(st.fixed_dictionaries({verb: st.lists(st.sampled_from(ANSWERS), max_size=12) for verb in VERBS}), st.booleans())
def test_whatever_the_server_does_no_message_goes_twice_or_astray(
    script: dict[str, list[bytes | None]], pipelining: bool
):
    """Taken is exactly once, not available never, in doubt at most once, and no place is lost (D5, D12)."""

    async def scenario(setting: Setting) -> None:
        for verb, answers in script.items():
            left = iter(answers)
            setting.server.script[verb] = lambda _, left=left: next(left, None)
        outcomes: dict[bytes, object] = {}

        async def one(number: int) -> None:
            mark = b"message %d\r\n" % number
            transaction = setting.begin()
            try:
                taken = [(await transaction.rcpt(recipient)).ok for recipient in (ANN, BEN)]
                if all(taken) and number % 2:
                    taken = [await transaction.restart((BEN,)) is None]
                outcomes[mark] = (await transaction.data((mark,))).ok if all(taken) else False
            except (NextHopUnavailableError, InDoubtError) as error:
                outcomes[mark] = error
            await transaction.abort()

        await asyncio.gather(*(one(number) for number in range(6)))
        for number in range(6, 9):
            await one(number)
        for mark, outcome in outcomes.items():
            times = setting.server.messages.count(mark)
            if outcome is True:
                assert times == 1
            elif isinstance(outcome, NextHopUnavailableError):
                assert times == 0
            else:
                assert times <= 1
        assert len(outcomes) == 9

    hop = MemoryHop(keywords=("PIPELINING", "8BITMIME") if pipelining else ("8BITMIME",))
    run(scenario, hop, hosts=TWO, max_connections=3, breaker_failures=4)


def test_old_connections_prove_nothing_about_a_host_that_failed():
    """A host that was left alone must show on a new connection that it works again (D14)."""

    async def scenario(setting: Setting) -> None:
        transactions = [setting.begin() for _ in range(2)]
        for transaction in transactions:
            assert (await transaction.rcpt(ANN)).ok
        setting.server.down = {"one"}
        setting.server.script["RSET"] = lambda _: LOST
        await transactions[0].abort()
        with pytest.raises(NextHopUnavailableError):
            await setting.begin().rcpt(ANN)
        await transactions[1].abort()
        assert setting.hop.hosts[0].breaker is BreakerState.OPEN
        setting.clock.now += 1
        with pytest.raises(NextHopUnavailableError):
            await setting.hop.probe()
        assert setting.hop.hosts[0].breaker is BreakerState.OPEN

    run(scenario, breaker_failures=1, breaker_pause=1.0)


def test_a_password_needs_verified_tls():
    """A user without tls = "verify" is refused before any connection, and the password shows nowhere (C6, H11)."""
    for tls in (TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE):
        with pytest.raises(ConfigError) as caught:
            NextHopOptions(hosts=(("one", 25),), hostname="x", tls=tls, user="u", password="open sesame")
        assert "sesame" not in str(caught.value)
    options = NextHopOptions(hosts=(("one", 25),), hostname="x", tls=TlsPolicy.VERIFY, user="u", password="open sesame")
    assert "sesame" not in repr(options)

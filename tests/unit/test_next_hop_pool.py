"""Connections to one host are shared out fairly, kept no longer than allowed, and every place is accounted for."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.memory_hop import SILENT, Clock, MemoryHop, once, settle

from filter.next_hop_breaker import BreakerState
from filter.next_hop_connection import ConnectionFailedError
from filter.next_hop_pool import Pool
from filter.next_hop_setup import Event, NextHopOptions, capabilities_of
from filter.ports import NextHopUnavailableError
from filter.smtp_reply import ServerReply
from filter.tls_policy import TlsPolicy


class Setting:
    """A pool before a server in memory."""

    def __init__(self, **options: object) -> None:
        self.server = MemoryHop()
        self.clock = Clock()
        self.events: list[Event] = []
        given = {"hosts": (("one", 25),), "hostname": "filter.example", "tls": TlsPolicy.OFF, **options}
        self.pool = Pool(
            ("one", 25),
            NextHopOptions(**given),
            None,
            self.events.append,
            clock=self.clock,
            connect=self.server.connect,
        )

    async def pass_time(self, seconds: float) -> None:
        """Let time pass and the pool see it."""
        self.clock.now += seconds
        self.pool.sweep()
        await settle()


def run(scenario: Callable[[Setting], Awaitable[None]], **options: object) -> None:
    """Run a scenario; afterwards nothing is open and no place is taken."""

    async def inner() -> None:
        setting = Setting(**options)
        await scenario(setting)
        await settle()
        assert setting.pool.in_use == setting.pool.waiting == 0
        await setting.pool.close()
        assert setting.pool.connections == setting.server.open == 0

    asyncio.run(inner())


def test_the_last_one_back_is_the_first_one_out():
    """The fewest connections are kept busy, so that the others can grow old and go."""

    async def scenario(setting: Setting) -> None:
        first, second = await setting.pool.acquire(), await setting.pool.acquire()
        setting.pool.release(first)
        setting.pool.release(second)
        assert await setting.pool.acquire() is second
        assert (setting.pool.connections, setting.pool.idle, setting.pool.in_use) == (2, 1, 1)
        setting.pool.release(second)

    run(scenario)


def test_idle_connections_go_after_a_while():
    """After idle_timeout an unused connection is closed with QUIT."""

    async def scenario(setting: Setting) -> None:
        setting.pool.release(await setting.pool.acquire())
        await setting.pass_time(9)
        assert setting.pool.idle == 1
        await setting.pass_time(1)
        assert setting.pool.connections == setting.server.open == 0
        assert setting.server.lines()[-1] == b"QUIT"

    run(scenario, idle_timeout=10.0)


def test_a_connection_that_is_too_old_is_not_given_out():
    """Age is checked when a connection is wanted, too, not only when the timer comes round."""

    async def scenario(setting: Setting) -> None:
        old = await setting.pool.acquire()
        setting.pool.release(old)
        setting.clock.now += 11
        new = await setting.pool.acquire()
        assert new is not old
        setting.pool.release(new)
        assert setting.pool.connections == 1

    run(scenario, idle_timeout=10.0)


def test_connections_do_not_live_for_ever():
    """However busy, a connection is closed after max_age."""

    async def scenario(setting: Setting) -> None:
        for _ in range(7):
            connection = await setting.pool.acquire()
            setting.clock.now += 5
            setting.pool.release(connection)
        assert len(setting.server.transports) > 1

    run(scenario, max_age=20.0)


def test_callers_wait_in_line():
    """At max_connections callers wait, and are served in the order in which they came."""

    async def scenario(setting: Setting) -> None:
        taken = [await setting.pool.acquire() for _ in range(2)]
        served: list[int] = []

        async def use(number: int) -> None:
            connection = await setting.pool.acquire()
            served.append(number)
            await asyncio.sleep(0)
            setting.pool.release(connection)

        users = [asyncio.ensure_future(use(number)) for number in range(6)]
        await settle()
        assert setting.pool.waiting == 6
        assert served == []
        for connection in taken:
            setting.pool.release(connection)
        await asyncio.gather(*users)
        assert served == list(range(6))
        assert len(setting.server.transports) == 2
        assert setting.events.count(Event.WAIT) == 6

    run(scenario, max_connections=2)


def test_a_place_that_comes_free_is_given_to_who_waits():
    """When a connection in use breaks, the first in line gets a new one."""

    async def scenario(setting: Setting) -> None:
        broken = await setting.pool.acquire()
        waiting = asyncio.ensure_future(setting.pool.acquire())
        await settle()
        setting.server.transports[0].lose()
        await settle()
        assert not waiting.done()  # it is still somebody's
        setting.pool.release(broken)
        connection = await waiting
        assert connection is not broken
        setting.pool.release(connection)

    run(scenario, max_connections=1)


def test_waiting_is_bounded():
    """Who has waited for command_timeout is told that the next hop is not available."""

    async def scenario(setting: Setting) -> None:
        connection = await setting.pool.acquire()
        waiting = asyncio.ensure_future(setting.pool.acquire())
        await settle()
        await setting.pass_time(29)
        assert not waiting.done()
        await setting.pass_time(1)
        with pytest.raises(NextHopUnavailableError):
            await waiting
        assert setting.events[-1] is Event.WAIT_FAILED
        setting.pool.release(connection)

    run(scenario, max_connections=1, command_timeout=30.0)


@pytest.mark.parametrize("given", ["nothing", "connection", "place"])
def test_who_leaves_the_line_takes_nothing_along(given: str):
    """A caller cancelled while waiting, or in the moment it is served, passes on what it got."""

    async def scenario(setting: Setting) -> None:
        connection = await setting.pool.acquire()
        leaving = asyncio.ensure_future(setting.pool.acquire())
        staying = asyncio.ensure_future(setting.pool.acquire())
        await settle()
        if given == "place":
            connection.end("broken")
        if given != "nothing":
            setting.pool.release(connection)
        leaving.cancel()
        await settle()
        if given == "nothing":
            setting.pool.release(connection)
        setting.pool.release(await staying)
        assert leaving.cancelled()

    run(scenario, max_connections=1)


def test_a_failed_attempt_leaves_its_place():
    """Connections that cannot be made do not use up max_connections."""

    async def scenario(setting: Setting) -> None:
        setting.server.down = {"one"}
        for _ in range(5):
            with pytest.raises(ConnectionFailedError):
                await setting.pool.acquire()
        assert setting.pool.connections == 0
        setting.server.down = set()
        setting.pool.release(await setting.pool.acquire())

    run(scenario, max_connections=2)


def test_who_waits_is_told_when_the_host_is_left_alone():
    """When the breaker opens, those in line need not try one after the other."""

    async def scenario(setting: Setting) -> None:
        connection = await setting.pool.acquire()
        waiting = [asyncio.ensure_future(setting.pool.acquire()) for _ in range(5)]
        await settle()
        for _ in range(5):
            setting.pool.breaker.failed()
        assert setting.pool.breaker.state is BreakerState.OPEN
        connection.end("broken")
        setting.pool.release(connection)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, ConnectionFailedError) for result in results)
        assert len(setting.server.attempts) == 1

    run(scenario, max_connections=1)


def test_a_silent_greeting_ends_in_time():
    """A server that accepts and says nothing is given up after command_timeout."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["CONNECT"] = lambda _: SILENT
        connecting = asyncio.ensure_future(setting.pool.acquire())
        await settle()
        await setting.pass_time(31)
        with pytest.raises(ConnectionFailedError):
            await connecting

    run(scenario)


def test_an_address_that_never_answers_ends_in_time():
    """A connection attempt into the void is given up after connect_timeout."""

    async def scenario(setting: Setting) -> None:
        setting.server.hanging = {"one"}
        with pytest.raises(ConnectionFailedError):
            await setting.pool.acquire()

    run(scenario, connect_timeout=0.01)


def test_a_long_flight_has_its_limit_for_each_answer():
    """A group of commands takes as long as it takes, as long as answers come."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["NOOP"] = lambda _: SILENT
        connection = await setting.pool.acquire()
        exchange = asyncio.ensure_future(connection.exchange(b"NOOP\r\n" * 4, 4, 30.0))
        for _ in range(4):
            await settle()
            await setting.pass_time(29)
            setting.server.transports[0].say(b"250 slow\r\n")
        assert len(await exchange) == 4
        setting.pool.release(connection)

    run(scenario)


def test_closing_says_goodbye_and_waits_for_nobody_long():
    """Idle connections get QUIT; a server that does not answer it is not waited for; those in use end at release."""

    async def scenario(setting: Setting) -> None:
        connections = [await setting.pool.acquire() for _ in range(3)]
        setting.pool.release(connections[0])
        setting.pool.release(connections[1])
        setting.server.script["QUIT"] = once(SILENT)
        await setting.pool.close(0.01)
        assert setting.server.lines().count(b"QUIT") == 2
        assert (setting.pool.connections, setting.server.open) == (1, 1)
        with pytest.raises(ConnectionFailedError):
            await setting.pool.acquire()
        setting.pool.release(connections[2])

    run(scenario)


def test_closing_ends_the_line():
    """Who waits when the pool closes is told at once."""

    async def scenario(setting: Setting) -> None:
        connection = await setting.pool.acquire()
        waiting = asyncio.ensure_future(setting.pool.acquire())
        await settle()
        await setting.pool.close(0.01)
        with pytest.raises(NextHopUnavailableError):
            await waiting
        setting.pool.release(connection)

    run(scenario, max_connections=1)


def test_hello_is_said_the_old_way_where_the_new_one_is_unknown():
    """A server without EHLO is spoken to with HELO, and offers nothing."""

    async def scenario(setting: Setting) -> None:
        setting.server.script["EHLO"] = lambda _: b"502 5.5.1 what\r\n"
        connection = await setting.pool.acquire()
        assert connection.capabilities.keywords == {}
        assert setting.server.lines() == [b"EHLO filter.example", b"HELO filter.example"]
        setting.pool.release(connection)

    run(scenario)


def test_capabilities_are_read_as_servers_write_them():
    """Keywords of any case, the old AUTH= form, repeated and unreadable lines."""
    lines = (b"hop greets you", b"pipelining", b"SIZE 1000", b"AUTH PLAIN", b"AUTH=LOGIN", b"X-\xff", b"", b"Dsn ")
    keywords = capabilities_of(ServerReply(250, lines)).keywords
    assert keywords == {"PIPELINING": "", "SIZE": "1000", "AUTH": "PLAIN", "": "", "DSN": ""}
    for size in (b"many", b"9" * 5000):
        assert capabilities_of(ServerReply(250, (b"hop", b"SIZE " + size))).size == 0

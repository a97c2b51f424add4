"""Listening sockets: as many as workers on one port, kept over a reload, refused where somebody else listens."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from filter.config_values import Endpoint
from filter.listeners import ListenError, Listeners, Wanted

SMTP = Wanted("smtp.listen", Endpoint("127.0.0.1", 0))
SMTPS = Wanted("smtp.tls_listen", Endpoint("127.0.0.2", 0), implicit_tls=True)


@pytest.fixture
def three() -> Iterator[Listeners]:
    """One address for three workers."""
    with closing(Listeners.bind([SMTP], 3)) as listeners:
        yield listeners


def names(listeners: Listeners, workers: int) -> list[list[int]]:
    """The descriptors that each worker gets."""
    return [[one.fileno() for one, _ in listeners.share(slot, workers)] for slot in range(workers)]


def test_every_worker_gets_a_socket_of_the_same_port(three: Listeners) -> None:
    """Each worker has its own socket, and a connection to the port reaches one of them."""
    (listener,) = three.listeners
    assert {one.getsockname() for one in listener.sockets} == {tuple(listener.endpoint)}
    assert all(len(share) == 1 for share in names(three, 3))
    assert len({number for share in names(three, 3) for number in share}) == 3
    with socket.create_connection(listener.endpoint, timeout=5):
        pass


def test_tls_travels_with_the_socket() -> None:
    """A worker is told which of its sockets begin with TLS."""
    with closing(Listeners.bind([SMTP, SMTPS], 2)) as both:
        assert [tls for _, tls in both.share(1, 2)] == [False, True]


def test_sockets_stay_when_workers_change(three: Listeners) -> None:
    """With fewer workers somebody still serves every socket; with more there are new ones on the same port."""
    fewer = Listeners.bind([SMTP], 2, three)
    assert sorted(number for share in names(fewer, 2) for number in share) == sorted(
        number for share in names(three, 3) for number in share
    )
    more = Listeners.bind([SMTP], 5, fewer)
    assert {one.getsockname() for one in more.listeners[0].sockets} == {tuple(three.listeners[0].endpoint)}
    assert len(more.listeners[0].sockets) == 5
    more.close(but=three)
    assert three.listeners[0].sockets[0].fileno() >= 0
    assert more.listeners[0].sockets[4].fileno() == -1


def test_an_address_no_longer_wanted_goes(three: Listeners) -> None:
    """Closing all but what the successor uses ends the other addresses only."""
    both = Listeners.bind([SMTP, SMTPS], 3, three)
    both.close(but=three)
    assert both.listeners[1].sockets[0].fileno() == -1
    assert three.listeners[0].sockets[0].fileno() >= 0


def test_a_port_in_use_is_refused() -> None:
    """Whoever listens there already, with SO_REUSEPORT too, the error names setting and address."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        wanted = Wanted("smtp.listen", Endpoint(*other.getsockname()))
        with pytest.raises(ListenError, match=r'smtp\.listen: "127\.0\.0\.1:\d+": cannot listen there: Address'):
            Listeners.bind([wanted], 1)


def test_after_an_error_nothing_is_left(three: Listeners) -> None:
    """If one address cannot be bound, those before it are given back, and the earlier ones stay."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = Endpoint("127.0.0.3", other.getsockname()[1])
        taken = Wanted("smtp.tls_listen", Endpoint(*other.getsockname()))
        with pytest.raises(ListenError):
            Listeners.bind([SMTP, Wanted("smtp.listen", port), taken], 4, three)
    with socket.socket() as free:
        free.bind(port)
    assert len(three.listeners[0].sockets) == 3


def test_a_name_that_does_not_resolve() -> None:
    """An unknown host is an error of that setting."""
    with pytest.raises(ListenError, match=r"smtp\.listen"):
        Listeners.bind([Wanted("smtp.listen", Endpoint("nowhere.invalid", 2625))], 1)


def test_nobody_waits_at_a_socket_that_may_never_be_served(three: Listeners) -> None:
    """Until the new workers of a reload accept, connections go to the old ones; if they never do, none is lost (I4)."""
    more = Listeners.bind([SMTP], 6, three)
    with ExitStack() as clients:
        for _ in range(60):
            clients.enter_context(socket.create_connection(three.listeners[0].endpoint, timeout=5))
        more.close(but=three)
        waiting = 0
        for one in three.listeners[0].sockets:
            with suppress(BlockingIOError):
                while True:
                    one.accept()[0].close()
                    waiting += 1
    assert waiting == 60


def test_addresses_with_a_port_of_the_system_are_told_apart() -> None:
    """Over a reload a plain and a TLS address on port 0 of the same host keep each its own port."""
    smtps = Wanted("smtp.tls_listen", SMTP.endpoint, implicit_tls=True)
    with closing(Listeners.bind([SMTP, smtps], 1)) as before:
        after = Listeners.bind([SMTP, smtps], 1, before)
        assert [one.endpoint for one in after.listeners] == [one.endpoint for one in before.listeners]

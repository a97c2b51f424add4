"""The listening sockets: bound once by the supervisor, inherited by the workers, kept while workers come and go.

Every address is bound several times with SO_REUSEPORT, once for each worker, and the kernel spreads connections over
these sockets. The supervisor never accepts, but as it keeps the sockets open, connections queued at a dying worker
wait for its successor instead of being reset. A socket that a reload adds to an address is bound only: the worker that
gets it makes it listen, so that nobody waits at it if that worker never comes. Raises `ListenError`, which names the
setting and the address.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from .config_values import Endpoint
from .errors import ConsentryError

BACKLOG: Final = 1024  # the kernel cuts it to net.core.somaxconn


class ListenError(ConsentryError):
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address to listen on: `setting` it comes from (`smtp.listen`), and whether TLS starts with the first octet."""

    setting: str
    endpoint: Endpoint
    implicit_tls: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """One address with all its sockets; they are bound to the same port."""

    wanted: Wanted
    sockets: tuple[socket.socket, ...]

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens indeed: a port 0 became one chosen by the system."""
        return _name(self.sockets[0])


class Listeners:
    """Every address the workers serve, with at least one socket for each worker."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)

    @classmethod
    def bind(cls, wanted: Sequence[Wanted], workers: int, kept: Self | None = None) -> Self:
        """Listen on all of these addresses, on those of `kept` with its sockets; on an error nothing has changed."""
        before = {_place(listener.wanted): listener for listener in (kept.listeners if kept else ())}
        made: list[socket.socket] = []
        listeners = []
        try:
            for one in wanted:
                old = before.get(_place(one))
                sockets = list(old.sockets) if old else []
                for new in _more(one, sockets, workers):
                    made.append(new)
                    sockets.append(new)
                listeners.append(Listener(one, tuple(sockets)))
        except BaseException:
            _close(made)
            raise
        return cls(listeners)

    def share(self, slot: int, workers: int) -> list[tuple[socket.socket, bool]]:
        """The sockets for one of `workers` workers, each with whether TLS is implicit.

        After the number of workers was lowered, somebody still has to accept on every socket: they are dealt out.
        """
        return [
            (one, listener.wanted.implicit_tls)
            for listener in self.listeners
            for one in listener.sockets[slot::workers]
        ]

    def close(self, but: Self | None = None) -> None:
        """Close every socket, but those that `but` uses as well."""
        used = {id(one) for listener in (but.listeners if but else ()) for one in listener.sockets}
        _close([one for listener in self.listeners for one in listener.sockets if id(one) not in used])


def _place(wanted: Wanted) -> tuple[Endpoint, bool]:
    """What tells addresses apart: those on a port of the system's choice are different ones, with TLS and without."""
    return wanted.endpoint, wanted.implicit_tls and not wanted.endpoint.port


def _more(wanted: Wanted, have: Sequence[socket.socket], count: int) -> Iterator[socket.socket]:
    """Sockets until there are `count`; the first says which port, as all of them need the same."""
    first = not have  # `have` grows meanwhile
    try:
        if have:
            family, address = int(have[0].family), have[0].getsockname()
        else:
            family, address = _resolved(wanted.endpoint)
            _refuse_taken(family, address)
        for _ in range(count - len(have)):
            one = _bound(family, address, listening=first)
            address = one.getsockname()
            yield one
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(f'{wanted.setting}: "{wanted.endpoint}": cannot listen there: {reason}') from error


def _resolved(endpoint: Endpoint) -> tuple[int, tuple[object, ...]]:
    """The first address of a host."""
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address


def _refuse_taken(family: int, address: tuple[object, ...]) -> None:
    """Fail if anybody listens there: with SO_REUSEPORT alone, two installations would share a port unawares."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are nobody
        _only_v6(probe, family)
        probe.bind(address)
        probe.listen(1)


def _bound(family: int, address: tuple[object, ...], *, listening: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _only_v6(one, family)
        one.bind(address)
        if listening:
            one.listen(BACKLOG)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


def _only_v6(one: socket.socket, family: int) -> None:
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _name(one: socket.socket) -> Endpoint:
    host, port = one.getsockname()[:2]
    return Endpoint(host, port)


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        with suppress(OSError):
            one.close()

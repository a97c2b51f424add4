"""A pytest plugin that runs aiosmtpd's own tests on our SMTP class: `-p support.aiosmtpd_suite`.

It puts our class in the place of aiosmtpd's before the tests are imported, and stands in for two packages that those
tests use and this project does not. Replies are compared by their code: the texts and enhanced codes are our own. What
`aiosmtpd_names` lists must fail: a listed test that passes fails the run, as does a listed name that is no test.
"""

import asyncio
import importlib.resources
import signal
import sys
import types
import unittest.mock
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.aiosmtpd_names import EXPECTED_FAILURES, NOT_OUR_CLASS
from support.processes import free_port

from filter.smtp_auth import PasswordChecker
from filter.smtp_in import Server
from filter.smtp_limits import Limits
from filter.smtp_sessions import Sessions

SECONDS = 10


class MockFixture:
    """As much of pytest-mock as aiosmtpd's tests use."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.Mock = unittest.mock.Mock
        self.patch = Patcher(stack)

    def spy(self, owner: Any, name: str) -> Any:
        """Watch calls and let them through."""
        method = getattr(owner, name)
        patched = unittest.mock.patch.object(owner, name, side_effect=method, autospec=True)
        return self._stack.enter_context(patched)


class Patcher:
    """`mocker.patch` and `mocker.patch.object`, undone after the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Patch what is named."""
        return self._stack.enter_context(unittest.mock.patch(*args, **options))

    def object(self, *args: Any, **options: Any) -> Any:
        """Patch an attribute."""
        return self._stack.enter_context(unittest.mock.patch.object(*args, **options))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what is not about the SMTP class, and mark what must fail."""
    _use_free_port()
    names = {item: f"{item.path.stem}::{item.nodeid.partition('::')[2]}" for item in items}
    dropped = [item for item in items if "::".join(names[item].split("::")[:2]) in NOT_OUR_CLASS]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]
    modules = {item.path.stem for item in items}
    reasons = {
        name: reason
        for reason, listed in EXPECTED_FAILURES.items()
        for name in listed
        if name.partition("::")[0] in modules
    }
    found = {name for item in items for name in _names(names[item])}
    if unknown := set(reasons) - found:
        raise pytest.UsageError(f"listed, but no test: {sorted(unknown)}")
    for item in items:
        for name in _names(names[item]) & set(reasons):
            item.add_marker(pytest.mark.xfail(reason=reasons[name], strict=True))


def _names(test: str) -> set[str]:
    """The test's own name and that of all its cases."""
    return {test, test.partition("[")[0]}


@pytest.fixture
def mocker() -> Iterator[MockFixture]:
    """Patches of one test."""
    with ExitStack() as stack:
        yield MockFixture(stack)


@pytest.fixture(scope="session")
def session_mocker() -> Iterator[MockFixture]:
    """Patches of the whole run."""
    with ExitStack() as stack:
        yield MockFixture(stack)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[bool | None]:
    """End a test, its setup or its teardown that waits for what our class never says; again if it goes on waiting."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(*_: object) -> None:
    raise TimeoutError(f"no end within {SECONDS} s")


class Callbacks:
    """Users as aiosmtpd's tests give them, in the place of our file; without any no password is right."""

    def __init__(self, server: Server, callback: Any = None, authenticator: Any = None) -> None:
        self._server = server
        self._callback = callback
        self._authenticator = authenticator

    def verify(self, name: bytes, password: bytes) -> bool:
        """Whether the callback is content with them."""
        if self._authenticator is not None:
            server = self._server
            return bool(self._authenticator(server, server.session, server.envelope, "PLAIN", (name, password)).success)
        return self._callback is not None and bool(self._callback("PLAIN", name, password))


class ServerUnderTest(Server):
    """Ours with aiosmtpd's constructor as it is, and what aiosmtpd's tests and controller do to a session from outside.

    Timers are quick enough for tests of time limits. Where a test asks for AUTH without TLS, the session counts as
    secured, as ours offers AUTH within TLS only.
    """

    def __init__(self, handler: object, **options: Any) -> None:
        limits = Limits(
            command_timeout=options.get("timeout", 300),
            tls_timeout=options.get("proxy_protocol_timeout") or 30,  # of all that comes before the greeting
            tick=0.05,
        )
        users: Any = Callbacks(self, options.get("auth_callback"), options.get("authenticator"))
        self._checker = PasswordChecker(users)
        super().__init__(handler, sessions=Sessions(limits), passwords=self._checker, **options)
        self._over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have what is cancelled, or watched, by name."""
        super().connection_made(transport)
        self._writer = types.SimpleNamespace(transport=transport)
        self._handler_coroutine = self.loop.create_task(self._until_cancelled(transport))

    async def _until_cancelled(self, transport: Any) -> None:
        """The task by which aiosmtpd's controller ends a session."""
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            transport.abort()
            raise

    def begin(self) -> None:
        """Take the session for a secured one where AUTH is wanted without TLS."""
        if not self._auth_require_tls:
            self.session.tls = "none"
        super().begin()

    def flush(self) -> None:
        """The session may be over after that."""
        super().flush()
        if self._ended:
            self._over.set()

    def connection_lost(self, error: Exception | None) -> None:
        """The session is over."""
        super().connection_lost(error)
        self._checker.close()
        self._over.set()


def _use_free_port() -> None:
    """Give all controllers one port that is free, in the place of a fixed one."""
    port = free_port()
    for module in list(sys.modules.values()):
        if (address := getattr(module, "HostPort", None)) is not None:
            address.__new__.__defaults__ = ("localhost", port)


def _stand_in(name: str, **members: object) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def _same_code(self: tuple[int, bytes], other: object) -> bool:
    return isinstance(other, tuple) and self[0] == other[0]


def _install() -> None:
    _stand_in("pytest_mock", MockFixture=MockFixture)
    _stand_in("pkg_resources", resource_filename=lambda package, name: str(importlib.resources.files(package) / name))
    import aiosmtpd.smtp  # noqa: PLC0415 - its class must be replaced before anything imports it from there

    aiosmtpd.smtp.SMTP = ServerUnderTest
    from aiosmtpd.testing.statuscodes import StatusCode  # noqa: PLC0415 - after the class was replaced

    StatusCode.__eq__ = _same_code
    StatusCode.__hash__ = lambda self: hash(self[0])


_install()

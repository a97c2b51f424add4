"""A pytest plugin that runs aiosmtpd's own tests on our SMTP class: `-p support.aiosmtpd_suite`.

It puts our class in the place of aiosmtpd's before the tests are imported, and stands in for two packages that those
tests use and this project does not. Replies are compared by their code: the texts and enhanced codes are our own.
"""

import importlib.resources
import re
import signal
import sys
import types
import unittest.mock
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.aiosmtpd_names import LEFT_OUT

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
    """Take out what is left out."""
    left_out = re.compile("|".join(LEFT_OUT))
    dropped = [item for item in items if left_out.search(f"{getattr(item.parent, 'name', '')}::{item.name}")]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


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


class ServerUnderTest(Server):
    """Ours with aiosmtpd's constructor as it is, and timers quick enough for its tests of time limits."""

    def __init__(self, handler: object, **options: Any) -> None:
        limits = Limits(command_timeout=options.get("timeout", 300), tick=0.1)
        super().__init__(handler, sessions=Sessions(limits), **options)


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

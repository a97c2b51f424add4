"""The consent index of a running relay: missing, appearing, unreadable."""

from pathlib import Path
from time import time_ns

import pytest

from filter.address import SubjectKeyer
from filter.consent import ConsentState, Scope
from filter.consent_store import ConsentStore
from filter.consent_view import RETRY_EVERY, LateConsent
from filter.errors import AddressError, ConsentDataError
from filter.labels import Channel

KEYER = SubjectKeyer(b"k" * 32)
SCOPE = Scope(Channel.EMAIL, "bank", "bank", "offers")
NOW = time_ns() // 1_000_000


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def view_of(directory: Path, clock: Clock) -> LateConsent:
    """The view under test."""
    return LateConsent(lambda: ConsentStore(directory, KEYER), clock=clock)


def test_an_index_that_appears_is_used(tmp_path: Path) -> None:
    """Before the first import every look-up fails; soon after it they are answered, without a restart."""
    clock = Clock()
    view = view_of(tmp_path / "consent", clock)
    assert not view.available
    with pytest.raises(ConsentDataError, match="no consent index there"):
        view.lookup("a@home.example", SCOPE, NOW)
    with pytest.raises(ConsentDataError):
        view.stale(NOW)
    ConsentStore(tmp_path / "consent", KEYER, readonly=False).close()
    with pytest.raises(ConsentDataError):
        view.lookup("a@home.example", SCOPE, NOW)
    clock.now += RETRY_EVERY
    assert view.lookup("a@home.example", SCOPE, NOW).state is ConsentState.UNKNOWN
    assert view.available
    view.close()


def test_an_unreadable_directory_is_no_crash(tmp_path: Path) -> None:
    """An error of the system while opening counts as an index that cannot be used."""

    def opener() -> ConsentStore:
        raise PermissionError(13, "Permission denied")

    view = LateConsent(opener)
    with pytest.raises(ConsentDataError, match="cannot be opened: Permission denied"):
        view.lookup("a@home.example", SCOPE, NOW)


def test_a_bad_address_stays_one(tmp_path: Path) -> None:
    """The view passes on what is said about an address."""
    ConsentStore(tmp_path / "consent", KEYER, readonly=False).close()
    view = view_of(tmp_path / "consent", Clock())
    with pytest.raises(AddressError):
        view.lookup("no address", SCOPE, NOW)
    view.close()


def test_the_version_tells_of_changes(tmp_path: Path) -> None:
    """None without an index; the same until somebody writes."""
    clock = Clock()
    view = view_of(tmp_path / "consent", clock)
    assert view.version() is None
    with ConsentStore(tmp_path / "consent", KEYER, readonly=False) as writer:
        clock.now += RETRY_EVERY
        before = writer.version()
        assert before == writer.version()
        writer.touch(NOW)
        assert writer.version() != before
    assert view.version() is not None
    view.close()

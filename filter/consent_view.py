"""The consent index as the relay sees it: opened when it is there, looked for again while it is not.

A relay starts without consent data; until the first import every look-up fails, which the policy answers with
`on_consent_unavailable`. An index that appears, or is repaired, is in use within a second, without a restart. One that
follows a topic (`consent_feed`) fails as well until it holds what the topic held when the program started.
Raises `ConsentDataError` and `AddressError` as `ConsentStore` does, nothing else. For one thread.
"""

from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Final

from .consent import ConsentAnswer, Scope
from .consent_feed import state_of
from .consent_store import ConsentStore, Stats
from .errors import ConsentDataError

RETRY_EVERY: Final = 1.0  # seconds between attempts to open
FEED_EVERY: Final = 0.5  # seconds between looks whether the feed is complete


def _ignore(_seconds: float) -> None:
    """Nobody measures."""


class LateConsent:
    """A `ConsentView` over an index that may not be there yet; `opener` opens it or raises ConsentDataError.

    `topic` is what it follows; empty for an index that is filled by imports. `took` is told the seconds of each
    look-up.
    """

    def __init__(
        self,
        opener: Callable[[], ConsentStore],
        *,
        topic: str = "",
        clock: Callable[[], float] = monotonic,
        took: Callable[[float], None] = _ignore,
    ) -> None:
        self._opener = opener
        self._topic = topic
        self._complete = False
        self._look_at = float("-inf")
        self._clock = clock
        self._took = took
        self._store: ConsentStore | None = None
        self._retry_at = float("-inf")
        self._missing = ConsentDataError("the consent index was never looked for")

    def lookup(self, address: str, scope: Scope, at: int) -> ConsentAnswer:
        """The consent of `address` in a scope at an instant (epoch milliseconds)."""
        started = perf_counter()
        try:
            store = self._opened()
            if self._topic and not self._is_complete(store):
                raise ConsentDataError(f"the consent index has not read all of the topic {self._topic} yet")
            return store.lookup(address, scope, at)
        finally:
            self._took(perf_counter() - started)

    def stale(self, at: int) -> bool:
        """Whether the data is older than the configured bound."""
        return self._opened().stale(at)

    def stats(self) -> Stats:
        """The index in figures."""
        return self._opened().stats()

    def version(self) -> tuple[str, int] | None:
        """Another value after each change of the index; None while there is none."""
        try:
            return self._opened().version()
        except ConsentDataError:
            return None

    @property
    def available(self) -> bool:
        """Whether there is an index to look into; tries to open it."""
        try:
            self._opened()
        except ConsentDataError:
            return False
        return True

    def close(self) -> None:
        """Close the index, if it was ever opened; a later look-up opens it again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _is_complete(self, store: ConsentStore) -> bool:
        if self._clock() >= self._look_at:
            state = state_of(store)
            self._complete = state.complete and state.topic == self._topic
            self._look_at = self._clock() + FEED_EVERY  # only now: after a failure every look-up looks again
        return self._complete

    def _opened(self) -> ConsentStore:
        if self._store is not None:
            return self._store
        if self._clock() < self._retry_at:
            raise self._missing
        try:
            self._store = self._opener()
        except OSError as error:
            self._missing = ConsentDataError(f"the consent index cannot be opened: {error.strerror}")
        except ConsentDataError as error:
            self._missing = error
        if self._store is None:
            self._retry_at = self._clock() + RETRY_EVERY
            raise self._missing
        return self._store

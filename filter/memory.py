"""Results by the text they were worked out for, remembered within a bound on memory.

Campaigns, statements and notices repeat most of their segments in every copy; what was found in a text once need not be
looked for again. Kept in the process only. Two generations: when the younger is full it becomes the older, and the
older is forgotten; what is asked for again moves to the younger. So what is in use stays, a flood of new texts costs no
more than forgetting, and no list of ages is kept. A long text is kept when it is met for the second time: conditions at
the foot of a letter are, what people write is not. Raises nothing; safe to share between threads (at worst something
is worked out twice).
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

_ENTRY: Final = 200
"""Octets that an entry takes beside its text and what its value says: two dictionaries' shares, rounded up."""
_LONG: Final = 2_000  # characters
_LONGEST: Final = 10_000
_MOST_LONG: Final = 1_000  # long texts that were met once


class Memory(Generic[Value]):
    """At most `octets` octets of texts with their values, of which `size` tells the octets; 0 remembers nothing.

    Values must be true.
    """

    def __init__(self, octets: int, size: Callable[[Value], int]) -> None:
        self._room, self._size = octets // 2, size
        self._used = 0
        self._young: dict[str, Value] = {}
        self._old: dict[str, Value] = {}
        self._met: set[int] = set()

    def recall(self, texts: Sequence[str]) -> list[Value | None]:
        """The value of each text, None where it is not known."""
        found: list[Value | None] = list(map(self._young.get, texts))
        if self._old and not all(found):
            for index in [index for index, value in enumerate(found) if value is None]:
                if (value := self._old.get(texts[index])) is not None:
                    found[index] = value
                    self.keep(texts[index], value)
        return found

    def keep(self, text: str, value: Value) -> None:
        """Remember a text's value."""
        size = text.__sizeof__() + self._size(value) + _ENTRY
        if size > self._room or (len(text) > _LONG and not self._is_met_again(text)):
            return
        if self._used + size > self._room:
            self._old, self._young, self._used = self._young, {}, 0
        self._young[text] = value
        self._used += size

    def _is_met_again(self, text: str) -> bool:
        """Whether a long text was met before, and is not too long to be kept."""
        if len(text) > _LONGEST:
            return False
        met = hash(text)
        if met in self._met:
            return True
        if len(self._met) >= _MOST_LONG:
            self._met.clear()
        self._met.add(met)
        return False

r"""Phrase patterns: the small language of the rule files -> regular expressions for Hyperscan and for `re`.

A pattern is what a compliance officer would write down: words, with a few marks. What it can span is bounded in words
and brackets, and it never reaches beyond a sentence. The syntax:

    save up to <percent>        words separated by one space; whole words, upper and lower case alike
    upgrad*                     the word and any more letters
    (buy|order|shop now)        alternatives, each a sequence          [your]  [a|the]   optional
    earn <0-3> points           a gap of 0 to 3 words (at most 8)
    <number> <money> <percent> <date> <time> <link> <ref>              values, see `VALUES`
    ^shop now$                  ^ first: start of the segment; $ last: its end (a closing . ! ? > allowed)
    \(                          a mark standing for itself

A space in a pattern stands for a space, a hyphen, or a comma and a space. Patterns are matched on a `sheet`: one
sentence a line, each segment opened by `OPENING`.

Every pattern compiles to two expressions. `scan` is for Hyperscan, one pass for thousands of patterns; a gap is "the
rest of the line" there, because counting words costs it 3 times as much. `exact` is for `re`: it settles the few lines
that `scan` reports for a pattern with gaps, and finds the words to show as evidence.

Raises `PatternError` (position, what was found, what is allowed) and nothing else. Pure.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, takewhile
from typing import Final, NamedTuple, NoReturn

from .sheet import BETWEEN, FIGURES, OPENING, fold, spread

MAX_LENGTH: Final = 480
MAX_GAP: Final = 8
MAX_DEPTH: Final = 5

# Words that stand in any line of any message; see `_Sequence.core`.
_COMMON_WORDS: Final = """
a about all also an and any are as at be been being but by can can't could did do does doesn't don't for from get go had
has have here how i if in into is isn't it its just like make may me more my need new no not now of off on one only or
our out please see so some than that the their them then there these they this to up us use was we we'll we're we've
were what when where which who why will with won't would you you'll you're you've your
"""
_COMMON: Final = frozenset(re.findall(r"\S+", _COMMON_WORDS))
# A dot inside a gap word (9.99, e.g.) is no sentence end.
_GAP_WORD: Final = r" [^ \n]+"
_NUM: Final = r"\d+(?:[.,]\d+)*"
_MONTH: Final = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_CURRENCY: Final = "(?:gbp|eur|usd|chf|euros?|pounds?|dollars?)"

VALUES: Final = {
    "number": rf"\b{_NUM}k?\b",
    # `$` is every currency sign in folded text.
    "money": rf"(?:(?:\$ ?|\b{_CURRENCY} ){_NUM}(?:k|m|bn)?\b|\b{_NUM} ?(?:\$|(?:p|{_CURRENCY})\b))",
    "percent": rf"\b{_NUM} ?(?:%|per ?cent\b)",
    "date": (
        rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}(?: \d{{4}})?"
        rf"|{_MONTH} \d{{1,4}}(?:st|nd|rd|th)?(?: \d{{4}})?"
        r"|\d{1,4}[/. ]\d{1,2}[/. ]\d{1,4}"
        r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day|today|tonight|tomorrow|midnight)\b"
    ),
    "time": r"\b(?:\d{1,2}[:.]\d{2} ?(?:am|pm)?|\d{1,2} ?(?:am|pm)|noon|midday|midnight)\b",
    "link": r"(?:\bhttps?://[a-z0-9]|\bwww\.[a-z0-9]|\blink\b)[^ \n]*",
    "ref": r"\b[a-z]*[ #/]?\d[a-z0-9/]*\b",
}
# Hyperscan reports every end a match can have; at the end of a pattern the start of a URL is enough for it.
_LINK_START: Final = r"(?:\bhttps?://|\bwww\.|\blink\b)"


@dataclass(frozen=True, slots=True)
class PatternError(Exception):
    """A pattern that cannot be compiled: `position` (0-based), what was `found` and what is `allowed` there."""

    position: int
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"character {self.position + 1}: {self.found}; {self.allowed}"


class Expressions(NamedTuple):
    """A compiled pattern; `settled` says that wherever `scan` matches, `exact` does too; `worded` that no text of
    figures only (`FIGURES`) can match.
    """

    scan: str
    exact: str
    settled: bool
    worded: bool


@lru_cache(maxsize=20_000)
def compile_pattern(pattern: str) -> Expressions:
    """Translate a phrase pattern; both expressions are for UTF-8 octets in lower case, `.` stopping at line ends.

    Remembered, because reading, keying and compiling a rule set each need it.
    """
    if len(pattern) > MAX_LENGTH:
        raise PatternError(MAX_LENGTH, f"{len(pattern)} characters", f"at most {MAX_LENGTH}: split the pattern")
    at_start, at_end = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    body = _Parser(pattern, int(at_start), len(pattern) - int(at_end)).whole()
    core = body.core()
    scan = _bounded(
        core,
        scan=True,
        start=at_start and core.items[0] is body.items[0],
        end=at_end and core.items[-1] is body.items[-1],
    )
    exact = _bounded(body, scan=False, start=at_start, end=at_end)
    return Expressions(scan, exact, settled=not body.has_gap(), worded=body.has_word())


def _bounded(body: "_Sequence", *, scan: bool, start: bool, end: bool) -> str:
    """The expression of a sequence, tied to the start or end of its segment where that is asked for."""
    closing = (BETWEEN if scan else f"(?={BETWEEN})") if end else ""
    regex = body.regex(scan=scan, left=not start, right=not end)
    return (OPENING if start else "") + regex + ("[.!?> ]*" if end else "") + closing


def _plain(word: str) -> str:
    """A word of a pattern as it stands in a sheet."""
    return " ".join(spread(fold(word)).lower().rstrip(",").split())


def _ends_a_word(char: str) -> bool:
    r"""Whether `\b` can stand beside it: octet-wise matching knows ASCII words only."""
    return char.isascii() and char.isalnum()


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    prefix: bool

    def regex(self, *, scan: bool, left: bool, right: bool) -> str:
        text = _plain(self.text)
        before = r"\b" if left and _ends_a_word(text[0]) else ""
        # Hyperscan would report every end that a prefix can have; the first is enough for it.
        if self.prefix:
            return before + re.escape(text) + ("" if scan and right else r"[a-z]*\b")
        return before + re.escape(text) + (r"\b" if right and _ends_a_word(text[-1]) else "")

    def has_gap(self) -> bool:
        return False

    def has_word(self) -> bool:
        return any(char not in FIGURES for char in _plain(self.text))


@dataclass(frozen=True, slots=True)
class _Value:
    name: str

    def regex(self, *, scan: bool, left: bool, right: bool) -> str:
        del left  # a value brings its own boundaries
        return _LINK_START if scan and right and self.name == "link" else f"(?:{VALUES[self.name]})"

    def has_gap(self) -> bool:
        return False

    def has_word(self) -> bool:
        return self.name == "link"


@dataclass(frozen=True, slots=True)
class _Gap:
    least: int
    most: int

    def regex(self, *, scan: bool, left: bool, right: bool) -> str:
        del left, right  # a gap is never at an edge
        return ".*" if scan else f"(?:{_GAP_WORD}){{{self.least},{self.most}}}"

    def has_gap(self) -> bool:
        return True

    def has_word(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class _Group:
    choices: tuple["_Sequence", ...]
    optional: bool

    def regex(self, *, scan: bool, left: bool, right: bool) -> str:
        return "(?:" + "|".join(choice.regex(scan=scan, left=left, right=right) for choice in self.choices) + ")"

    def has_gap(self) -> bool:
        return any(choice.has_gap() for choice in self.choices)

    def has_word(self) -> bool:
        return not self.optional and all(choice.has_word() for choice in self.choices)


_Item = _Word | _Value | _Gap | _Group


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Items with spaces between them; an optional item brings its own space, so that none is doubled or missing."""

    items: tuple[_Item, ...]

    def regex(self, *, scan: bool, left: bool, right: bool) -> str:
        needed = [i for i, item in enumerate(self.items) if _needed(item)]
        first, last = needed[0], needed[-1]
        out = []
        for i, item in enumerate(self.items):
            text = item.regex(scan=scan, left=left and i <= first, right=right and i >= last)
            if isinstance(item, _Gap):
                out.append(text)
                continue
            spaced = text if i == first else f"{text} " if i < first else f" {text}"
            out.append(spaced if _needed(item) else f"(?:{spaced})?")
        return "".join(out)

    def has_gap(self) -> bool:
        return any(item.has_gap() for item in self.items)

    def has_word(self) -> bool:
        return any(item.has_word() for item in self.items)

    def core(self) -> "_Sequence":
        """What Hyperscan looks for: the sequence without common words before its first or after its last gap.

        "your" and "the" are in every line, and each would start an engine that runs to the line's end.
        """
        runs = [list(run) for gap, run in groupby(self.items, key=lambda item: isinstance(item, _Gap))]
        first = next((i for i in range(0, len(runs), 2) if _telling(runs[i])), 0)
        last = next((i for i in range(len(runs) - 1, first, -2) if _telling(runs[i])), first)
        if first == last and not _telling(runs[first]):
            return self
        return _Sequence(tuple(item for run in runs[first : last + 1] for item in run))


def _telling(items: Iterable[_Item]) -> bool:
    """Whether every way to match these items has a word that is not on every page."""
    return any(_is_telling(item) for item in items)


def _is_telling(item: _Item) -> bool:
    if isinstance(item, _Word):
        return _plain(item.text) not in _COMMON
    return isinstance(item, _Group) and not item.optional and all(_telling(choice.items) for choice in item.choices)


def _optional(item: _Item) -> bool:
    return isinstance(item, _Gap) or (isinstance(item, _Group) and item.optional)


def _needed(item: _Item) -> bool:
    return not _optional(item)


class _Parser:
    """Recursive descent over `pattern[at:end]`; nesting is bounded by MAX_DEPTH."""

    def __init__(self, pattern: str, at: int, end: int) -> None:
        self.pattern, self.at, self.end = pattern, at, end

    def whole(self) -> _Sequence:
        sequence = self.sequence(depth=0, stop="")
        if self.at < self.end:
            self.fail(
                f"'{self.pattern[self.at]}' without its opening bracket", "write \\ before it to mean the mark itself"
            )
        return sequence

    def sequence(self, *, depth: int, stop: str) -> _Sequence:
        items = [self.item(depth=depth)]
        while self.at < self.end and self.pattern[self.at] not in stop and self.pattern[self.at] not in ")]|":
            if self.pattern[self.at] != " ":
                self.fail(f"'{self.pattern[self.at]}' right after a bracket", "put a space between items")
            self.at += 1
            items.append(self.item(depth=depth))
        self.check(items)
        return _Sequence(tuple(items))

    def check(self, items: list[_Item]) -> None:
        if not any(_needed(item) for item in items):
            self.fail("only optional items and gaps", "a sequence needs at least one word or value")
        edges = [*takewhile(_optional, items), *takewhile(_optional, reversed(items))]
        if any(isinstance(item, _Gap) for item in edges):
            self.fail("a gap at the edge of a sequence", "a gap stands between two words or values")

    def item(self, *, depth: int) -> _Item:
        char = self.pattern[self.at] if self.at < self.end else ""
        if char in ("(", "["):
            return self.group(optional=char == "[", depth=depth + 1)
        if char == "<":
            return self.value()
        return self.word()

    def group(self, *, optional: bool, depth: int) -> _Group:
        if depth > MAX_DEPTH:
            self.fail("brackets too deep", f"at most {MAX_DEPTH} levels")
        opened, close = self.at, "]" if optional else ")"
        choices: list[_Sequence] = []
        while not choices or self.pattern[self.at] == "|":
            self.at += 1
            choices.append(self.sequence(depth=depth, stop=close))
            if self.at >= self.end:
                self.at = opened
                self.fail("an open bracket", f"close it with '{close}'")
        if self.pattern[self.at] != close:
            self.fail(f"'{self.pattern[self.at]}'", f"close the bracket with '{close}'")
        self.at += 1
        return _Group(tuple(choices), optional)

    def value(self) -> _Value | _Gap:
        close = self.pattern.find(">", self.at, self.end)
        name = self.pattern[self.at + 1 : close] if close > 0 else ""
        if gap := re.fullmatch(r"(\d)-(\d)", name):
            least, most = int(gap[1]), int(gap[2])
            if not least <= most <= MAX_GAP or most == 0:
                self.fail(f"the gap <{name}>", f"write <least-most> with at most {MAX_GAP}")
            self.at = close + 1
            return _Gap(least, most)
        if name not in VALUES:
            self.fail(
                f"<{name}>", f"known values: {', '.join(f'<{known}>' for known in VALUES)}, or a gap such as <0-3>"
            )
        self.at = close + 1
        return _Value(name)

    def word(self) -> _Word:
        start, chars = self.at, []
        while self.at < self.end and (char := self.pattern[self.at]) not in " ()[]|<>":
            if char == "*":
                break
            if char == "\\":
                self.at += 1
                if self.at >= self.end:
                    self.fail("a \\ at the end", "a \\ stands before the mark it protects")
                char = self.pattern[self.at]
            elif char in "^$":
                self.fail(
                    f"'{char}' inside the pattern", "^ stands first and $ last; write \\ before it to mean the sign"
                )
            chars.append(char)
            self.at += 1
        if not chars:
            self.at = start
            found = f"'{self.pattern[start]}'" if start < self.end else "the end"
            self.fail(f"{found} where a word should stand", "words are separated by exactly one space")
        if not _plain("".join(chars)):
            self.at = start
            self.fail(f"'{''.join(chars)}', which matches nothing", "a word has more than hyphens and commas")
        prefix = self.at < self.end and self.pattern[self.at] == "*"
        self.at += prefix
        if self.at < self.end and self.pattern[self.at] not in " )]|":
            self.fail(f"'{self.pattern[self.at]}' inside a word", "a bracket starts after a space; * ends a word")
        return _Word("".join(chars), prefix)

    def fail(self, found: str, allowed: str) -> NoReturn:
        raise PatternError(min(self.at, max(len(self.pattern) - 1, 0)), found, allowed)

"""The phrase language: what a pattern matches, what it refuses, and that Hyperscan and `re` agree on it."""

import re

import hyperscan
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filter.pattern import MAX_LENGTH, VALUES, PatternError, compile_pattern, fold

FLAGS = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SOM_LEFTMOST | hyperscan.HS_FLAG_MULTILINE


def found(pattern: str, text: str) -> str | None:
    """The longest text that the pattern matches first, as Hyperscan sees it; None if it does not match."""
    database = hyperscan.Database()
    database.compile(expressions=[compile_pattern(pattern).encode()], ids=[0], flags=[FLAGS])
    spans: list[tuple[int, int]] = []
    data = fold(text).encode()
    database.scan(data, match_event_handler=lambda _id, start, end, _flags, _context: spans.append((start, -end)))
    if not spans:
        return None
    start, end = min(spans)
    return data[start:-end].decode()


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("save up to <percent>", "You can Save up to 20% today", "Save up to 20%"),
        ("opt in", "please opt-in now", "opt-in"),
        ("hurry book now", "Hurry, book now", "Hurry, book now"),
        ("upgrad*", "time for upgrading", "upgrading"),
        ("upgrad*", "downgrade", None),
        ("save", "unsaved or saver", None),
        ("(buy|shop now|order*) today", "Ordering today", "Ordering today"),
        ("[get] your [free] gift", "get your gift", "get your gift"),
        ("[get] your [free] gift", "your free gift", "your free gift"),
        ("earn <0-2> points", "earn points", "earn points"),
        ("earn <0-2> points", "earn 500 bonus points", "earn 500 bonus points"),
        ("earn <0-2> points", "earn a lot of points", None),
        ("earn <0-2> [bonus] points", "earn 500 bonus points", "earn 500 bonus points"),
        ("earn [500] <0-1> points", "earn 500 bonus points", "earn 500 bonus points"),
        ("earn <0-3> points", "What you earn. Your points", None),
        ("for <0-2> a month", "for just £9.99 a month", "for just $9.99 a month"),
        ("^shop now$", "Shop now!", "Shop now!"),
        ("^shop now$", "Shop now and save", None),
        ("^shop now$", "you shop now", None),
        ("(no|zero) fee\\(s\\)", "no fee(s)", "no fee(s)"),
        ("cafe offer", "Café offer", "Cafe offer"),
        ("don't miss", "don’t miss", "don't miss"),  # noqa: RUF001 -- the typographic sign is what is tested
    ],
)
def test_matches(pattern: str, text: str, expected: str | None) -> None:
    """A pattern matches whole words, spans hyphens and commas, bounds its gaps and folds typography."""
    assert found(pattern, text) == expected


@pytest.mark.parametrize(
    ("value", "yes", "no"),
    [
        ("number", ["5", "1,500", "10.5", "10k"], ["five", "x5"]),
        ("money", ["£50", "£1,204.18", "50p", "$5", "25 €", "EUR 25", "25 euro", "GBP 5", "5 pounds"], ["50", "p50", "50 pages"]),
        ("percent", ["20%", "20 %", "7.5%", "20 percent", "20 per cent"], ["20", "percent"]),
        ("date", ["4 May", "May 4th", "1st of June 2026", "04/05/2026", "2026-05-04", "Tuesday", "tomorrow"], ["mayor", "4"]),
        ("time", ["09:40", "9.30am", "5pm", "noon"], ["nine", "5"]),
        ("link", ["https://shop.example/x", "www.shop.example", "LINK"], ["linked", "shop"]),
        ("ref", ["AB12345", "4417", "123-4567890"], ["abc", "--"]),
    ],
)
def test_values(value: str, yes: list[str], no: list[str]) -> None:
    """Each value class knows its forms and nothing else."""
    assert [text for text in yes if found(f"<{value}>", text) is None] == []
    assert [text for text in no if found(f"<{value}>", text) is not None] == []


@pytest.mark.parametrize(
    ("pattern", "position", "words"),
    [
        ("", 0, "the end where a word should stand"),
        (" a", 0, "exactly one space"),
        ("a  b", 2, "exactly one space"),
        ("(a", 0, "close it with ')'"),
        ("(a|b]", 4, "close the bracket with ')'"),
        ("a)", 1, "without its opening bracket"),
        ("<wat>", 0, "known values"),
        ("[a]", 2, "needs at least one word"),
        ("<0-3> x", 6, "between two words"),
        ("a <0-9> b", 2, "at most 8"),
        ("[a] <0-3> x", 10, "between two words"),
        ("a(b)", 1, "a bracket starts after a space"),
        ("a^b", 1, "^ stands first"),
        ("a\\", 1, "a \\ stands before"),
        ("((((((a))))))", 5, "at most 5 levels"),
        ("a" * (MAX_LENGTH + 1), MAX_LENGTH, "split the pattern"),
    ],
)
def test_refusals(pattern: str, position: int, words: str) -> None:
    """A pattern that cannot be compiled is refused with its place and what is allowed."""
    with pytest.raises(PatternError) as error:
        compile_pattern(pattern)
    assert words in str(error.value)
    assert error.value.position == position


WORD = st.sampled_from(["save", "now", "free", "your", "£5", "20%", "a", "upgrad*", "don't"])
VALUE = st.sampled_from([f"<{name}>" for name in VALUES])
ATOM = st.one_of(WORD, VALUE)
ITEM = st.one_of(
    ATOM,
    st.lists(ATOM, min_size=1, max_size=3).map(lambda choices: f"({'|'.join(choices)})"),
    st.lists(WORD, min_size=1, max_size=2).map(lambda choices: f"[{'|'.join(choices)}]"),
)
PATTERN = st.tuples(ATOM, st.lists(ITEM, max_size=3), ATOM).map(lambda t: " ".join([t[0], *t[1], t[2]]))
TEXT = st.lists(
    st.sampled_from(["save", "now", "free", "your", "£5", "20%", "a", "upgrade", "don't", "50p", "4 May", "-", ".", "\n"]),
    max_size=12,
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(PATTERN, TEXT)
def test_engines_agree(pattern: str, text: str) -> None:
    """Hyperscan finds a pattern in a text exactly where Python's own engine does."""
    regex = re.compile(compile_pattern(pattern).encode(), re.IGNORECASE | re.MULTILINE)
    assert (found(pattern, text) is None) == (regex.search(fold(text).encode()) is None)


@given(st.text(max_size=80))
def test_any_text_compiles_or_is_refused(pattern: str) -> None:
    """Whatever is written as a pattern, it becomes a regular expression or a PatternError with a position inside it."""
    try:
        re.compile(compile_pattern(pattern).encode())
    except PatternError as error:
        assert 0 <= error.position <= len(pattern)


@given(st.text())
def test_fold_keeps_offsets(text: str) -> None:
    """Folding replaces characters one for one, and folding twice changes nothing more."""
    folded = fold(text)
    assert len(folded) == len(text)
    assert fold(folded) == folded

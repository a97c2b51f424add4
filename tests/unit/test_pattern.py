"""The phrase language: what a pattern matches, what it refuses, and that Hyperscan and `re` agree on it."""

import re

import hyperscan
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filter.pattern import MAX_LENGTH, VALUES, PatternError, compile_pattern
from filter.sheet import CLOSING, OPENING, fold, offsets, sheet


def scanned(pattern: str, text: bytes) -> bool:
    """Whether Hyperscan reports the pattern's scan expression anywhere in a sheet."""
    database = hyperscan.Database()
    expression = compile_pattern(pattern).scan.encode()
    database.compile(expressions=[expression], ids=[0], flags=[hyperscan.HS_FLAG_CASELESS])
    ends: list[int] = []
    database.scan(text, match_event_handler=lambda _id, _start, end, _flags, _context: ends.append(end))
    return bool(ends)


def found(pattern: str, text: str) -> str | None:
    """The words of `text`, one segment, that the pattern matches first; None where it does not match."""
    page = sheet([text])
    match = re.compile(compile_pattern(pattern).exact.encode(), re.IGNORECASE).search(page.encode())
    if not match or not scanned(pattern, page.encode()):
        return None
    where = offsets(text)
    start, end = (len(page.encode()[1 : max(place, 1)].decode()) for place in match.span())
    return text[where[start] : where[end - 1] + 1]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("save up to <percent>", "You can Save up to 20% today", "Save up to 20%"),
        ("opt in", "please opt-in now", "opt-in"),
        ("save now", "Please save_now", "save_now"),
        ("buy <percent> now", "BUY_20%_NOW", "BUY_20%_NOW"),
        ("shop now", "sale/shop/now", "shop/now"),
        ("p/p today", "\u00a35 p/p today", "p/p today"),
        ("shop now", "see https://x.example/shop/now", None),
        ("shop now", "see x.example/shop_now", None),
        ("save now", "S\u0430v\u0435 now", "S\u0430v\u0435 now"),
        ("save now", "\ua731\u1d00\u1d20\u1d07 now", "\ua731\u1d00\u1d20\u1d07 now"),
        ("save now", "\u0441\u0430\u0432\u0435 now", None),
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
        ("for <0-2> a month", "for just £9.99 a month", "for just £9.99 a month"),
        ("^shop now$", "Shop now!", "Shop now!"),
        ("^shop now$", "Shop now and save", None),
        ("^shop now$", "you shop now", None),
        ("^shop now$", "Shop now >", "Shop now >"),
        ("new e-mail, address", "New e-mail address", "New e-mail address"),
        ("(no|zero) fee\\(s\\)", "no fee(s)", "no fee(s)"),
        ("cafe offer", "Café offer", "Café offer"),
        ("don't miss", "don’t miss", "don’t miss"),  # noqa: RUF001 -- the typographic sign is what is tested
    ],
)
def test_matches(pattern: str, text: str, expected: str | None) -> None:
    """A pattern matches whole words, spans hyphens and commas, bounds its gaps and folds typography."""
    assert found(pattern, text) == expected


@pytest.mark.parametrize(
    ("value", "yes", "no"),
    [
        ("number", ["5", "1,500", "10.5", "10k"], ["five", "x5"]),
        (
            "money",
            ["£50", "£1,204.18", "50p", "$5", "25 €", "EUR 25", "25 euro", "GBP 5", "5 pounds"],
            ["50", "p50", "50 pages"],
        ),
        ("percent", ["20%", "20 %", "7.5%", "20 percent", "20 per cent"], ["20", "percent"]),
        (
            "date",
            ["4 May", "May 4th", "1st of June 2026", "04/05/2026", "2026-05-04", "Tuesday", "tomorrow"],
            ["mayor", "4"],
        ),
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
WORDS = ["save", "now", "free", "your", "£5", "20%", "a", "upgrade", "don't", "50p", "4 May", "-", "now,", "end. New"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(PATTERN, TEXT)
def test_scan_misses_nothing(pattern: str, text: str) -> None:
    """Wherever the exact expression matches, Hyperscan's does; without gaps, nowhere else."""
    page = sheet([text]).encode()
    expressions = compile_pattern(pattern)
    exact = re.search(expressions.exact.encode(), page, re.IGNORECASE) is not None
    assert scanned(pattern, page) if exact else not (expressions.settled and scanned(pattern, page))


@given(st.text(max_size=80))
def test_any_text_compiles_or_is_refused(pattern: str) -> None:
    """Whatever is written as a pattern, it becomes two regular expressions or a PatternError with a place inside it."""
    try:
        expressions = compile_pattern(pattern)
    except PatternError as error:
        refused = error
    else:
        re.compile(expressions.scan.encode())
        re.compile(expressions.exact.encode())
        return
    assert 0 <= refused.position <= len(pattern)


@given(st.text())
def test_fold_keeps_offsets(text: str) -> None:
    """Folding replaces characters one for one, and folding twice changes nothing more."""
    folded = fold(text)
    assert len(folded) == len(text)
    assert fold(folded) == folded


@given(st.text(min_size=1))
def test_a_long_text_folds_like_a_short_one(text: str) -> None:
    """However much text there is, each character is folded the same way."""
    line = text.replace("\x01", "") + " . "
    times = 20_000 // len(line) + 1
    assert fold(line * times) == fold(line) * times


SEGMENT = st.text(alphabet="ab,-_/ .!?\"')£é’\u0431", max_size=20).map(lambda text: " ".join(text.split()))  # noqa: RUF001


@given(st.lists(SEGMENT, max_size=4))
def test_sheet_can_be_traced_back(segments: list[str]) -> None:
    """Every character of a sheet comes from the character of the segment that `offsets` names."""
    pages = sheet(segments).split(CLOSING + OPENING) if segments else []
    for segment, page in zip(segments, pages, strict=False):
        where, folded = offsets(segment), fold(segment)
        kept = page.removeprefix(OPENING)
        assert len(where) == len(kept) + 1
        for char, place in zip(kept, where, strict=False):
            assert (
                char == folded[place]
                or (char == CLOSING and folded[place] in " -_/")
                or (char == " " and folded[place] in "-_/")
            )


def test_sentences_are_lines() -> None:
    """A gap never reaches into the next sentence, and a decimal point ends none."""
    assert sheet(["Pay 9.99 now. Save later! (Not yet.) Ok", "Next"]).count(CLOSING) == 5
    assert found("pay <0-8> save", "Pay 9.99 now. Save later") is None
    assert found("pay <0-8> later", "Pay 9.99 now or later") == "Pay 9.99 now or later"

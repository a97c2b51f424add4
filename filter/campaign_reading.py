"""What one text of a message says of its template: the words that no copy changes, and those that may be values.

The rules are those that `campaign` tells; the words are in `campaign_words`. Texts have zeros for digits. What was read
in a text, and in a sentence, is remembered within `_MEMORY` octets for the next copy that has it; results are the same.
Pure, never raises, linear in the text.
"""

import re
from collections.abc import Iterator
from enum import IntFlag, auto
from functools import lru_cache
from typing import Final, NamedTuple

from .campaign_words import (
    BUSINESS,
    BUSINESS_STEMS,
    COMMON,
    GREETINGS,
    IGNORED,
    OFFER_STEMS,
    OFFERS,
    UNSPACED,
    UNSPACED_OFFERS,
    VARYING,
)
from .memory import Memory

_MEMORY: Final = 4 << 20
FEW: Final = 4  # words that are too few to know a template or a language by
_FEW_COMMON: Final = 2  # words of grammar that are too few for a sentence


class _Kind(IntFlag):
    """What is known of a word: how it is written, and which lists have it (case-folded)."""

    BIG = auto()  # begins with a capital
    SMALL = auto()  # is in lower case: caseless words are neither
    IGNORED = auto()
    VARYING = auto()
    COMMON = auto()
    OFFER = auto()
    BUSINESS = auto()


# As plain numbers, which are quicker.
_BIG, _SMALL, _IGNORED, _VARYING, _COMMON, _OFFER, _BUSINESS = map(int, _Kind)
_TELLING: Final = _OFFER | _BUSINESS
LISTED: Final = _IGNORED | _VARYING | _COMMON | _TELLING
_STEM: Final = 5
_WHOLE: Final = 40  # letters that WORD takes at once
_LONGEST_ABBREVIATION: Final = 10  # characters, and more

# Letters with the marks that belong to them in Arabic and in the scripts of India.
_LETTERS = "(?:[^\\W\\d_]|[\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0970-\u0dff]){1,40}"
WORD = re.compile(f"{_LETTERS}(?:-{_LETTERS})*")
_ASCII_WORD = re.compile("[A-Za-z]{1,40}(?:-[A-Za-z]{1,40})*")
# ASCII letters, hyphens and what is not ASCII stay; the rest are spaces.
_APART: Final = re.sub(rb"[^A-Za-z\x80-\xff-]", b" ", bytes(range(256)))
# The end of a sentence, perhaps: a word's mark, and the space after it.
_MARK = re.compile("[.!?\u2026\u0964\u061f] (?=\\S)")
_DIGIT = re.compile(r"\d").search
ENDS: Final = (".", "!", "?", "\u2026", "\u0964", "\u061f")
# What ends with a full stop and no sentence: ordinals (3. Mai), single letters, titles, signs for a number.
_ABBREVIATED = re.compile(
    r"[(\[]?(?:\d{1,2}|[^\W\d_]|dr|mrs?|ms|st|prof|sr|sra|nos?|nr|ref|tel|approx|ca|bzw|nº|ul|sp|hl"
    r"|med|jur|phil|rer|nat|dipl|ing|mgr|dott|av|avv)\. ",
    re.IGNORECASE,
).fullmatch
_MONTHS: Final = frozenset(("May", "March"))  # other words without their capital
_UNITS: Final = frozenset(("zł", "kr", "ft", "lei"))
_CALLS: Final = (",", ":", "\u060c", "\uff0c", "\uff1a")
_LONGEST_GREETING: Final = 60
_SHORT: Final = 5
_MAX_NAMED: Final = 30
_FEW_GREETED: Final = 3
# Whole words with a digit, an at sign or an address: each looked at from its beginning only.
DIGITS = re.compile(r"\d[\d.,:]*+")
_NAMED = re.compile("[\u3040-\u30ff\u3400-\u9fff]{2,20}")
_CALLED_FIRST = re.compile(r"(\w+) ([^,!:]{1,60}+)[,!:]").match
NUMBERS = re.compile(r"(?<!\S)[^\s\d]*+\d\S*+")
ADDRESSES = re.compile(r"(?<!\S)(?:[^\s@]*+@\S*+|[^\s:]*+://\S*+|www\.\S++)", re.IGNORECASE)
_QUOTED = re.compile(
    '["\u201c\u201d\u201e\u00ab\u300c\u300e\u300a]([^"\u201c\u201d\u00bb\u300d\u300f\u300b]{1,40}+)["\u201c\u201d\u00bb\u300d\u300f\u300b]'
)
IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff]").search
_UNSPACED_WORD = re.compile("|".join(UNSPACED) + "|[\u3041-\u3096]{2,}+")
_UNSPACED_GREETING = re.compile(".*(?:[:\uff1a\uff0c,\u3001]|\u60a8\u597d.?|\u4f60\u597d.?|[\u69d8\u6c0f])").fullmatch
_UNSPACED_CALLED = re.compile("^[\u4e00-\u9fff]{2,4}[\uff0c,](?=[\u60a8\u4f60])")
_UNSPACED_SENTENCES = re.compile("(?<=[\u3002\uff01\uff1f!?\uff1b])")


class Reading(NamedTuple):
    """What one text says: words and phrases of the template, one a line; words that may be values, or several that are
    only if all are (those of a title).
    """

    template: str
    values: frozenset[str]
    names: tuple[str, ...] = ()  # in a script without spaces, what a title names: perhaps values that sentences repeat


_NOTHING: Final = Reading("", frozenset())


def _octets(reading: Reading) -> int:
    return 2 * len(reading.template) + 100 * (len(reading.values) + len(reading.names)) + 300


_readings: Final = Memory[Reading](_MEMORY // 2, _octets)
_sentence_readings: Final = Memory[Reading](_MEMORY // 2, _octets)


def read_all(texts: list[str]) -> list[Reading]:
    """What each text says."""
    readings = [reading or _read_new(text) for text, reading in zip(texts, _readings.recall(texts), strict=True)]
    return _read_again(texts, readings) if any(reading.names for reading in readings) else readings


def _read_new(text: str) -> Reading:
    reading = _read(text)
    _readings.keep(text, reading)
    return reading


def _read(text: str) -> Reading:
    """Read one text."""
    simple = text.isascii()  # as most texts are: much need not be looked for
    if not simple and IDEOGRAPHS(text):
        return _read_unspaced(text)
    template: set[str] = set()
    values: set[str] = set()
    if _greets(text):
        _note_names(text, values)
        return Reading("", frozenset(values))
    if "@" in text or "://" in text or "www." in text:
        text = ADDRESSES.sub(" ", text)
    if (called := _CALLED_FIRST(text)) and called[1].casefold() in GREETINGS:
        _note_names(called[2], values)
    quoted = [] if simple and '"' not in text else _QUOTED.findall(text)
    for title in quoted:
        _read_title(*looked_up(title), template, values)
    sentences = list(_sentences(_QUOTED.sub(" ", text) if quoted else text))
    for sentence, reading in zip(sentences, _sentence_readings.recall(sentences), strict=True):
        read = reading or _read_new_sentence(sentence)
        template.update(read.template.split("\n"))
        values |= read.values
    template.discard("")
    return Reading("\n".join(sorted(template)), frozenset(values))


def _greets(text: str) -> bool:
    """Whether a text calls somebody and says nothing else: it ends as greetings do, or begins with one and is short."""
    if len(text) > _LONGEST_GREETING:
        return False
    words, kinds = looked_up(text)
    if text.endswith(_CALLS) or not words:
        return True
    if len(words) <= _FEW_GREETED and text.endswith("!") and not any(kind & LISTED for kind in kinds):
        return True  # a greeting in a language that we do not know
    return words[0].casefold() in GREETINGS or words[-1].casefold() in GREETINGS


def _note_names(text: str, values: set[str]) -> None:
    """Note the words of a greeting: as they stand in sentences, and in lower case if they are written so."""
    words, kinds = looked_up(text)
    values.update(map(str.capitalize, words))
    values.update(word for word, kind in zip(words, kinds, strict=True) if not kind & LISTED)


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a text. A mark ends one if what follows could begin another, and it is not that of an ordinal
    number or an abbreviation.
    """
    start = 0
    for mark in _MARK.finditer(text):
        end = mark.end()
        following = text[end]
        if not (following.islower() or following.isdigit() or _ABBREVIATED(_last_word(text, end - 1))):
            yield text[start : end - 1]
            start = end
    yield text[start:]


def _last_word(text: str, end: int) -> str:
    """The word that ends there, with a space behind it; no longer than makes a difference."""
    start = max(text.rfind(" ", 0, end), end - _LONGEST_ABBREVIATION)
    return text[start + 1 : end].rsplit(maxsplit=1)[-1] + " "


def _read_new_sentence(sentence: str) -> Reading:
    template: set[str] = set()
    values: set[str] = set()
    _read_sentence(sentence, template, values)
    reading = Reading("\n".join(sorted(template)), frozenset(values))
    _sentence_readings.keep(sentence, reading)
    return reading


def _read_sentence(sentence: str, template: set[str], values: set[str]) -> None:
    """Read a sentence, or what stands after the last one, or a text that is none."""
    number = "0" in sentence or (not sentence.isascii() and _DIGIT(sentence) is not None)
    words, kinds = looked_up(NUMBERS.sub(" ", sentence) if number else sentence)
    whole = sentence.endswith(ENDS)
    if not whole and len([kind for kind in kinds if kind & (_COMMON | _BIG) == _COMMON]) < _FEW_COMMON:
        _read_title(words, kinds, template, values)
        return
    _read_capitals(words, kinds, _TELLING, template)
    if _is_strange(kinds):
        words, kinds = looked_up(_away_from_numbers(sentence))
        template.update(chosen(words, kinds, _BIG | _IGNORED))
    elif whole and not number and any(kind & _SMALL for kind in kinds) and not any(kind & _VARYING for kind in kinds):
        template.update(chosen(words, kinds, _BIG | _IGNORED))
    else:  # a value stands in it, or may: where there are no capitals, nothing else tells a name
        template.add(
            " ".join(
                [
                    word
                    for word, kind in zip(words, kinds, strict=True)
                    if kind & (_COMMON | _TELLING) and not kind & (_BIG | _IGNORED)
                ]
            )
        )
        _note_values(words, kinds, values)


def looked_up(text: str) -> tuple[list[str], list[int]]:
    """The words of a text, and what is known of each."""
    words = words_of(text)
    return words, list(map(kind_of, words))


def words_of(text: str) -> list[str]:
    """What WORD finds in a text, several times as fast: split at what is no letter in ASCII, and the rest looked at."""
    words = text.encode("utf-8", "surrogatepass").translate(_APART).decode("utf-8", "surrogatepass").split()
    if "".join(words).isalpha() and max(map(len, words)) <= _WHOLE:
        return words
    find = (_ASCII_WORD if text.isascii() else WORD).findall
    return [part for word in words for part in ((word,) if word.isalpha() and len(word) <= _WHOLE else find(word))]


@lru_cache(maxsize=20_000)
def kind_of(word: str) -> int:
    """What is known of a word."""
    folded, kind = word.casefold(), 0
    stem = folded[:_STEM]
    if word[0].isupper():
        kind = _BIG
    elif word.islower():
        kind = _SMALL
    if word in _MONTHS:
        kind |= _VARYING
    for flag, listed, stems in _LISTS:
        if folded in listed or stem in stems:
            kind |= flag
    return kind


NO_WORDS: Final = frozenset[str]()
_LISTS: Final = (
    (_IGNORED, IGNORED, NO_WORDS),
    (_VARYING, VARYING, NO_WORDS),
    (_COMMON, COMMON, NO_WORDS),
    (_OFFER, OFFERS, OFFER_STEMS),
    (_BUSINESS, BUSINESS, BUSINESS_STEMS),
)


def chosen(words: list[str], kinds: list[int], unless: int) -> list[str]:
    """The words that are of none of these kinds."""
    return [word for word, kind in zip(words, kinds, strict=True) if not kind & unless]


def _is_strange(kinds: list[int]) -> bool:
    """Whether too few words are in the lists for them to be of this language."""
    small = [kind for kind in kinds if not kind & _BIG]
    return len(small) >= FEW and 5 * len([kind for kind in small if kind & LISTED]) < len(small)


def _away_from_numbers(sentence: str) -> str:
    """A sentence without numbers and the words beside them, which may be units, months or nouns in their number."""
    tokens = sentence.split()
    numbers = [token.upper() == token or bool(NUMBERS.match(token) or _varies(token)) for token in tokens]
    beside = [any(numbers[max(index - 1, 0) : index + 2]) for index in range(len(tokens))]
    return " ".join(token for token, is_beside in zip(tokens, beside, strict=True) if not is_beside)


def _varies(token: str) -> bool:
    """Whether a token is the name of a number, day, month or currency."""
    words = (token,) if token.isalpha() and len(token) <= _WHOLE else WORD.findall(token)
    return token in _UNITS or any(kind_of(word) & _VARYING for word in words)


def _read_title(words: list[str], kinds: list[int], template: set[str], values: set[str]) -> None:
    """Read words that make no sentence: only those of offers count, one by one. The others may name a product."""
    if any(kind & _OFFER for kind in kinds):
        template.update(word for word, kind in zip(words, kinds, strict=True) if kind & (_OFFER | _BIG) == _OFFER)
        _read_capitals(words, kinds, _OFFER, template)
    named: set[str] = set()
    _note_values(words, kinds, named)
    if named:
        values.add(" ".join(sorted(named)))


def _read_capitals(words: list[str], kinds: list[int], wanted: int, template: set[str]) -> None:
    """Note the listed words that have a capital, unless they stand beside another one, as in names; in a text that has
    little else, that tells nothing.
    """
    if not any(kind & _BIG and kind & wanted for kind in kinds):
        return
    named = [kind & (_BIG | LISTED) == _BIG for kind in kinds]
    titled = len(words) > _FEW_COMMON and all(kind & _BIG for kind in kinds) and 3 * sum(named) <= len(words)
    for index, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        if kind & _BIG and kind & wanted:
            beside = any(named[max(index - 1, 0) : index + 2])
            short = index > 0 and len(word) <= _SHORT  # names of places and people, often: Sale, Deal, Bill
            if titled or not (beside or short) or (word.isupper() and len(word) > 1):
                template.add(word.capitalize())


def _note_values(words: list[str], kinds: list[int], values: set[str]) -> None:
    """Note lower-case words that no list has, and the first word even if it has a capital for standing there."""
    values.update(chosen(words, kinds, _BIG | LISTED))
    if len(words) > 1 and not kinds[0] & LISTED and kinds[1] & _SMALL:
        values.add(words[0].casefold())


def _read_unspaced(text: str) -> Reading:
    """Read Chinese or Japanese: the listed words of each sentence; of a title, those that promote."""
    text = _UNSPACED_CALLED.sub("", _QUOTED.sub("", text))
    if len(text) <= _LONGEST_GREETING // 2 and _UNSPACED_GREETING(text):
        return _NOTHING
    if not _UNSPACED_SENTENCES.search(text):
        offers = [word for word in _UNSPACED_WORD.findall(text) if word in UNSPACED_OFFERS]
        return Reading("\n".join(sorted(offers)), frozenset(), tuple(_NAMED.findall(text)[:_MAX_NAMED]))
    template, values = set(), set()
    for sentence in _UNSPACED_SENTENCES.split(text):
        template.add(" ".join(_UNSPACED_WORD.findall(sentence)))
        values.add(DIGITS.sub("", sentence))
    return Reading("\n".join(sorted(template)), frozenset(values))


def _read_again(texts: list[str], readings: list[Reading]) -> list[Reading]:
    """Read sentences of Chinese or Japanese again, without what stands in titles: rows of an order name products."""
    names = {name for reading in readings for name in reading.names}
    listed = sorted(names, key=lambda name: (-len(name), name))[:_MAX_NAMED]
    return [
        reading if reading.names or not any(map(text.__contains__, listed)) else _read(without(text, listed))
        for text, reading in zip(texts, readings, strict=True)
    ]


def without(text: str, names: list[str]) -> str:
    """The text without these names."""
    for name in names:
        text = text.replace(name, "")
    return text

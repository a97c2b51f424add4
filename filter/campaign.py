"""The campaign of a message: a name for its template that survives personalisation, found from the message alone.

`fingerprint` looks at words, in whatever order they stand, and takes those for the template's that no copy changes:
- in a sentence with neither number nor date, every word in lower case but those in `campaign_words.IGNORED`;
- in any other sentence, and in text that is no sentence (headings, buttons, cells, rows, greetings), only words of
  closed lists: those of grammar, in their order, and what messages of companies are about, in any case of letters.
Whatever else stands there (products, lower-case names, units) is taken for a value, and so are the same words wherever
the message repeats them. A text in a language without lists is judged by all its words in lower case, numbers or not.
Names, places, amounts, references and links do not count, for they have capitals, digits or signs; nor does how often
something is said. The domain of From and the channel do count: two companies never share a campaign.

No header field by which a sender names a campaign is used: it could change with every copy, and must never bring unlike
texts together. What one cannot tell apart by this: texts that differ in capitalised words, figures or pictures only;
sentences with figures that differ in words of no list. What falls apart: templates with a lower-case value in a
sentence without figures, that stands nowhere else in the message; and what is longer than `MAX_READ`, if values of
many letters move its end.

A change of what a campaign is called, here or in `campaign_words`, is an incompatible change: decisions on campaigns
would be lost. Pure, deterministic over processes, never raises, linear in the text (see
`campaign_reading`).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from .campaign_reading import (
    ADDRESSES,
    DIGITS,
    ENDS,
    FEW,
    IDEOGRAPHS,
    LISTED,
    NO_WORDS,
    NUMBERS,
    WORD,
    chosen,
    kind_of,
    looked_up,
    read_all,
    without,
)
from .message import Message
from .segments import Link, texts_of

_PERSON: Final = b"consentry camp 1"
_MAX_SUBJECT: Final = 120
MAX_READ: Final = 48_000
"""Characters that are read of a message, to the end of a text: letters, bills and newsletters have fewer."""
_REMEMBERED: Final = 8192  # characters of a template, at most
_NAME: Final = 3  # letters of a word in an address that may be a name
_MASK: Final = "\u2026"
_CALLED = re.compile(r"(?:\w+ )?([^\W\d_a-z][\w'\u2019-]*(?: [^\W\d_a-z][\w'\u2019-]*){0,3}),").match
_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)


def fingerprint(message: Message) -> str:
    """The campaign of a message: 32 hexadecimal digits, empty if it says nothing to know a campaign by."""
    readings = read_all(_texts(message))
    templates = frozenset([reading.template for reading in readings])
    values = NO_WORDS.union(*[reading.values for reading in readings])
    small = sum(map(len, templates)) <= _REMEMBERED
    known = (_known_words if small else _words)(templates)
    names = _names(message.to) if message.to else NO_WORDS
    varying = known & (names | _repeated(known, values))
    domain = message.from_address.rpartition("@")[2].lower()
    if len(known) - len(varying) >= FEW or len(" ".join(known - varying).split()) >= FEW:
        return (_known_name if small else _name)(message.channel.value, domain, templates, varying)
    little = (known | frozenset(" ".join(values).split())) - names
    return _digest(message.channel.value, domain, [*little, *(_targets(message.links) if len(little) < FEW else ())])


def _repeated(known: frozenset[str], values: frozenset[str]) -> frozenset[str]:
    """Values of which each word stands in sentences too: one word by itself often does so by chance."""
    several = [value.split() for value in values if " " in value]
    return values.union(*[words for words in several if known.issuperset(words)])


def _texts(message: Message) -> list[str]:
    """Each text of a message once, with every digit a zero, and without the recipient's name where no spaces are."""
    texts = [*texts_of(message.segments)]
    if message.subject and message.subject in texts:
        texts.remove(message.subject)
        texts.append(message.subject.rstrip("".join(ENDS)))  # no sentence: subjects are full of values
    whole = "\n".join(texts)
    if len(whole) > MAX_READ:
        whole = whole[: whole.rfind("\n", 0, MAX_READ) if "\n" in whole[:MAX_READ] else MAX_READ]
    if not message.to.isascii():
        whole = without(whole, _unspaced_names(message.to))
    return list(set(whole.encode("utf-8", "replace").translate(_ZEROS).decode().split("\n")))


def _words(templates: frozenset[str]) -> frozenset[str]:
    return frozenset("\n".join(templates).split("\n")) - {""}


def _name(channel: str, domain: str, templates: frozenset[str], varying: frozenset[str]) -> str:
    return _digest(channel, domain, _words(templates) - varying)


# Of small templates only, or a flood of long unlike texts would take all memory there is.
_known_words: Final = lru_cache(maxsize=512)(_words)
_known_name: Final = lru_cache(maxsize=512)(_name)


def _digest(channel: str, domain: str, words: Iterable[str]) -> str:
    """The name of a campaign of which these words are known; empty if there are none."""
    listed = sorted(words)
    if not listed:
        return ""
    said = "\n".join([channel, domain, *listed]).encode("utf-8", "replace")
    return blake2b(said, digest_size=16, person=_PERSON).hexdigest()


def _targets(links: Iterable[Link]) -> list[str]:
    """Where links lead: hosts, and the first step of a path if it is a word."""
    steps = ((link.host, link.path.lstrip("/").partition("/")[0]) for link in links)
    return list({f"//{host}/{step if step.isalpha() and step.islower() else ''}" for host, step in steps})


@lru_cache(maxsize=1024)
def _names(to: str) -> frozenset[str]:
    """Words of a To field that may be a person's: those of display names, as they are written there and in sentences.

    Written in lower case, only those count that no list has: "will" is no name elsewhere.
    """
    words, kinds = looked_up(ADDRESSES.sub(" ", to))
    return frozenset([*map(str.capitalize, words), *chosen(words, kinds, LISTED)])


def _unspaced_names(to: str) -> list[str]:
    """Names in Chinese or Japanese in a To field: whole, and as it divides them; the longest first."""
    if to.isascii() or not IDEOGRAPHS(to):
        return []
    names = [name for name in WORD.findall(ADDRESSES.sub(" ", to)) if IDEOGRAPHS(name)]
    return sorted({"".join(names), " ".join(names), *names} - {""}, key=len, reverse=True)


def masked_subject(message: Message) -> str:
    """The subject for lists: "\u2026" for numbers, addresses and the recipient's names; at most 120 characters.

    Names are those of To, and what stands before a first comma with a capital ("Anna, your order"). Names elsewhere,
    when To does not have them, stay.
    """
    subject, to = message.subject[: 4 * _MAX_SUBJECT], message.to[: 4 * _MAX_SUBJECT]
    if not to.isascii():
        subject = _masked_unspaced(subject, to)
    if (called := _CALLED(subject)) and not kind_of(called[1]) & LISTED:
        subject = subject[: called.start(1)] + _MASK + subject[called.end(1) :]
    display, _, local = to.partition("@")[0].casefold().rpartition("<")
    names = frozenset([*WORD.findall(display), *(word for word in WORD.findall(local) if len(word) >= _NAME)])
    shown: list[str] = []
    for word in subject.split():
        if not _is_personal(word, names):
            shown.append(word)
        elif shown[-1:] != [_MASK]:
            shown.append(_MASK)
    subject = " ".join(shown)
    return subject if len(subject) <= _MAX_SUBJECT else subject[: _MAX_SUBJECT - 1] + _MASK


def _is_personal(word: str, names: frozenset[str]) -> bool:
    if NUMBERS.search(word) or "@" in word or "://" in word:
        return True
    parts = WORD.findall(word.casefold())
    return bool(parts) and parts[0] in names


def _masked_unspaced(subject: str, to: str) -> str:
    """A subject with the recipient's name masked, where no spaces tell words apart."""
    for name in _unspaced_names(to):
        subject = subject.replace(name, _MASK)
    return DIGITS.sub(_MASK, subject) if IDEOGRAPHS(subject) else subject

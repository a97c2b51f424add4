"""Feed mutated addresses, index values and import lines to the consent side: fuzz_consent.py [COUNT] [--seed N].

With `--atheris` (and atheris installed) coverage guides the mutations; further arguments then go to libFuzzer. Must
hold: no exception but the documented ones, a stable normaliser, and no damaged value taken for "no record".
"""

import io
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from support.fuzzing import fuzz

from filter.address import SubjectKeyer, normalise, wide
from filter.consent_build import Runs
from filter.consent_codec import Templates, check, encode
from filter.consent_formats import EXPORTS
from filter.consent_import import FORMATS, _open_rows
from filter.consent_rows import BadRowError, RowReader
from filter.errors import AddressError, ConsentDataError, InputError
from filter.evidence import Capture, ConsentEvent, EventKind, Scope
from filter.labels import Channel

KEYER = SubjectKeyer(b"fuzzing key 0016")
TEMPLATES = Templates()
for given in ({}, {"evidence_ref": "call"}, {"evidence_ref": "ORD-1", "expires_at": 7}):
    event = ConsentEvent(Capture(kind=EventKind.OBJECT, scope=Scope("", "", "", "")), "id", 1, 1, **given)
    TEMPLATES.number(encode(event)[0])
    TEMPLATES.number(encode(event, b"n" * 16)[0])


def try_address(text: str) -> None:
    """Every text is normalised, stably, or refused."""
    for channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH):
        try:
            exact = normalise(text, channel, "44")
        except AddressError:
            continue
        assert normalise(exact, channel, "44") == exact
        assert wide(wide(exact, channel), channel) == wide(exact, channel)


def try_value(octets: bytes) -> None:
    """A value is decoded or refused; with a right check sum too."""
    subject = KEYER.subject("jo@shop.example", Channel.EMAIL)
    for value in (octets, octets + check(octets)):
        try:
            TEMPLATES.records(value, subject.wide)
            TEMPLATES.events(value, subject)
        except ConsentDataError:
            continue


def try_file(octets: bytes, file_format: str) -> None:
    """A file is refused, or each of its rows is taken or refused."""
    header = b""
    if file_format == "csv":
        header = b"address,kind,channel,event_time,source,affirmative,told_duration,id,source_seq,expires_at\n"
    elif file_format in EXPORTS:
        export = EXPORTS[file_format]
        columns = dict.fromkeys(filter(None, (export.address, export.value_column, export.time, export.topic_column)))
        header = ",".join(columns).encode() + b"\n"
    try:
        _, names, rows = _open_rows(io.BytesIO(header + octets), Path("fuzz"), file_format, {})
    except InputError:
        return
    reader = RowReader(names, Runs(Path("unused")), keyer=KEYER, defaults={}, batch="b", now=1)
    for _, _, row in rows:
        try:
            if not isinstance(row, BadRowError):
                reader.add(row)
        except BadRowError:
            continue
    reader.kinds()
    reader.not_evidence()


def one_input(octets: bytes) -> None:
    """The first octet chooses what is fuzzed."""
    if not octets:
        return
    which, rest = octets[0] % (len(FORMATS) + 2), octets[1:]
    if which == 0:
        try_address(rest.decode("utf-8", "surrogateescape"))
    elif which == 1:
        try_value(rest)
    else:
        try_file(rest, FORMATS[which - 2])


SEEDS = (
    b'"jo\\ bloggs"+tag@stra\xc3\x9fe.example.',
    b"+44 (0)7700 900123",
    b"j.o+x@gmail.com",
    bytes(range(3)) * 9,
    b'jo@x.example,grant,email,2026-02-05T09:30:00Z,"a, ""b""",true,24 months,e-1,7,1777629600\n',
    b'{"address":"jo@x.example","kind":"object","topics":["a",1,null],"event_time":1777629600000}\n',
    b"jo@x.example,COMPLAINT,1777629600\njo@x.example,subscribed,\n",
)


def mutated(chance: random.Random) -> bytes:
    """A seed with some octets changed, removed, repeated or joined with another seed."""
    octets = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(octets) + 1)
        change = chance.randrange(4)
        if change == 0:
            octets[at:at] = chance.choice(SEEDS)
        elif change == 1:
            del octets[at : at + chance.randrange(1, 9)]
        else:
            octets[at : at + change - 2] = chance.choice(
                (b'"', b",", b"@", b".", b"+", b"\n", b"\\", chance.randbytes(2))
            )
    return chance.randbytes(1) + octets


if __name__ == "__main__":
    count = fuzz(str(__doc__), one_input, mutated, 50_000)
    print(f"{count} inputs, no failure")

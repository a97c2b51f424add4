"""Feed mutated paths, messages, XFORWARD and replies to the SMTP side: fuzz_smtp.py [COUNT] [--seed N].

With `--atheris` (and atheris installed) coverage guides the mutations; further arguments then go to libFuzzer. Must
hold: no exception but the documented ones; accepted octets are those received; the reader of messages agrees with one
that looks at each octet; no reply holds what could end its line.
"""

import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from support.fuzzing import fuzz
from support.ingress import read_plainly

from filter.data_reader import DataReader, stuff
from filter.path import PathError, parse_mail, parse_rcpt
from filter.replies import relayed
from filter.trace import hop_count
from filter.xforward import ATTRIBUTES, XforwardError, commands, parse

OFFERED = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})
COUNTS: Counter[str] = Counter()


def try_path(octets: bytes) -> None:
    """An argument of MAIL or RCPT is refused, or what is understood of it was received in these octets."""
    for argument in (octets, b"<" + octets + b">", b"<jo@x.example> " + octets):
        for keyword in (b"FROM:", b"TO:"):
            try:
                taken = parse_mail(keyword + argument, offered=OFFERED) if keyword == b"FROM:" else None
                taken = taken or parse_rcpt(keyword + argument, offered=OFFERED, smtputf8=True)
            except PathError:
                COUNTS["paths refused"] += 1
                continue
            COUNTS["paths taken"] += 1
            path, *params = [b"<" + taken.path + b">", *taken.params]
            received = argument.lstrip(b" ")
            assert received.startswith(path)
            parts = [part for part in received[len(path) :].split(b" ") if part]
            assert [part for part in parts if not part.upper().startswith(b"AUTH=")] == params
            assert not any(octet < 32 or octet == 127 for octet in received)
            assert taken.address.encode() == taken.path


def try_address(chance: random.Random) -> None:
    """An address made by the grammar is taken, in its very octets."""
    path = address(chance)
    assert parse_rcpt(b"TO:<" + path + b">", offered=OFFERED, smtputf8=True).path == path
    mail = parse_mail(b"FROM:<" + path + b"> SMTPUTF8", offered=OFFERED)
    assert mail.path == path
    COUNTS["addresses made and taken"] += 1


def try_message(octets: bytes, chance: random.Random) -> None:
    """A message in any pieces is what the plain reader says, and goes out without a second end."""
    octets += b"\r\n.\r\nrest"
    content, seen, rest = read_plainly(octets)
    limit = len(content) if chance.random() < 0.9 else max(0, len(content) - 1)
    reader, after, at = DataReader(limit), None, 0
    while after is None:
        step = chance.choice((1, 2, 3, 5, 17, 10_000))
        after = reader.feed(octets[at : at + step])
        at += step
    data = reader.finish()
    assert after + octets[at:] == rest
    raw = octets[: len(octets) - len(rest) - 3]
    assert data.too_big == (max(len(content), len(raw) - (b"\r\n" + raw).count(b"\r\n.")) > limit)
    if data.too_big:
        COUNTS["messages too big"] += 1
        return
    assert data.content == content
    assert {name for name in ("nul", "bare_cr", "bare_lf") if getattr(data, name)} == seen
    sent = stuff(content)
    assert sent.find(b"\r\n.\r\n") in (-1, len(sent) - 5)
    assert sent.count(b"\r\n") == sent.count(b"\r") == sent.count(b"\n")
    hop_count(content)
    COUNTS["messages irregular" if seen else "messages regular"] += 1


def try_xforward(octets: bytes) -> None:
    """An argument of XFORWARD is refused, or handed on such that the next one understands the same."""
    try:
        origin = parse(octets)
    except XforwardError:
        COUNTS["origins refused"] += 1
        return
    COUNTS["origins taken"] += 1
    again = None
    for line in commands(origin, " ".join(ATTRIBUTES)):
        assert line.endswith(b"\r\n")
        assert all(32 <= octet < 127 for octet in line[:-2])
        again = parse(line[9:-2], again)
    assert again == origin


def try_reply(octets: bytes, chance: random.Random) -> None:
    """A reply of the next hop keeps its class and is made safe."""
    code = chance.choice((chance.randrange(1000), 250, 421, 450, 550))
    reply = relayed(code, octets.split(b"\n"))
    written = reply.encode()
    lines = written.removesuffix(b"\r\n").split(b"\r\n")
    assert all(line.startswith(b"%d" % reply.code) and len(line) <= 510 for line in lines)
    assert all(32 <= octet < 127 for line in lines for octet in line)
    assert reply.code // 100 == (code // 100 if code // 100 in (2, 4, 5) else 4)
    COUNTS["replies"] += 1


def one_input(octets: bytes) -> None:
    """The first octet chooses what is fuzzed; the cuts of a message and the like follow from the octets, too."""
    if not octets:
        return
    chance, which, rest = random.Random(octets), octets[0] % 5, octets[1:]
    if which == 0:
        try_path(rest)
    elif which == 1:
        try_message(rest, chance)
    elif which == 2:
        try_xforward(rest)
    elif which == 3:
        try_reply(rest, chance)
    else:
        try_address(chance)


# By the number of what is fuzzed.
SEEDS = (
    (
        b'"jo\\ bloggs"@stra\xc3\x9fe.example',
        b"jo.bloggs+tag@shop.example",
        b"=?utf-8?q?a=40evil.example=3e=0d=0aRCPT_TO=3cb?=@x.example",
        b"jo@[IPv6:2001:db8::1]",
        b"<jo@x.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb AUTH=<>",
        b"<postmaster> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;jo+2B@x.example",
        b"@a.example,@b.example:jo@x.example",
    ),
    (
        b"Received: from a\r\nSubject: b\r\n\r\nbody\r\n..dots\r\n.\rc\n.\r\nd\0",
        b"\r\n.\r\n\r\n.\n\r.\r\n\n.\r\n\r\r\n.\r\r\n",
        b"a\r\n.\0\r\n\r\0\n.\r\n\r\n..\r\nb",
    ),
    (
        b"NAME=spike.example ADDR=192.0.2.1 PORT=52105 PROTO=ESMTP HELO=[UNAVAILABLE]",
        b"IDENT=4b1f SOURCE=REMOTE HELO=a+2Bb+C3+A9 ADDR=IPv6:2001:db8::1",
    ),
    (b"2.1.5 Ok", b"5.7.1 no\n4.2.0 later\xff"),
    (b"",),
)
SIGNS = [
    *(bytes([octet]) for octet in b'<>@."\\ []:;()=+-?\0\x7f\xff\r\n'),
    b"\r\n",
    b"\r\n.",
    b"\xe2\x80\xae",
    b"\xc3",
]
LETTERS = "abcXYZ0189éß例"
IN_ATOMS = LETTERS + "!#$%&'*+-/=?^_`{|}~"
IN_QUOTES = IN_ATOMS + " .@<>()[]:;,"
LITERALS = ("[192.0.2.1]", "[IPv6:2001:db8::1]", "[IPv6:::ffff:192.0.2.1]")


def address(chance: random.Random) -> bytes:
    """An address as RFC 5321 and RFC 6531 allow it."""

    def some(characters: str, least: int, most: int) -> str:
        return "".join(chance.choices(characters, k=chance.randint(least, most)))

    if chance.random() < 0.7:
        local = ".".join(some(IN_ATOMS, 1, 6) for _ in range(chance.randint(1, 3)))
    else:
        local = '"' + "".join(chance.choice((some(IN_QUOTES, 0, 4), '\\"', "\\\\", "\\a")) for _ in range(3)) + '"'
    if chance.random() < 0.1:
        return f"{local}@{chance.choice(LITERALS)}".encode()
    labels = (
        some(LETTERS, 1, 4) + some(LETTERS + "-", 0, 6) + some(LETTERS, 1, 4) for _ in range(chance.randint(1, 4))
    )
    return f"{local}@{'.'.join(labels)}".encode()


def mutated(chance: random.Random) -> bytes:
    """What to fuzz, and a seed of it with some octets changed, removed, repeated or joined with another seed."""
    which = chance.randrange(len(SEEDS))
    octets = bytearray(chance.choice(SEEDS[which]))
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(octets) + 1)
        change = chance.randrange(4)
        if change == 0:
            octets[at:at] = chance.choice(SEEDS[which])
        elif change == 1:
            del octets[at : at + chance.randrange(1, 9)]
        else:
            octets[at : at + change - 2] = chance.choice((chance.choice(SIGNS), chance.randbytes(2)))
    return bytes([which]) + octets + (chance.randbytes(8) if which == len(SEEDS) - 1 else b"")


if __name__ == "__main__":
    count = fuzz(str(__doc__), one_input, mutated, 100_000)
    print(f"{count} inputs, no failure: {', '.join(f'{n} {what}' for what, n in sorted(COUNTS.items()))}")

"""Messages made to hurt a reader, built on demand: nesting, floods, damaged encodings; and reproducible mutations."""

import base64
import random
from collections.abc import Callable, Iterator

_HEAD = b"From: a@sender.example\nSubject: s\nMIME-Version: 1.0\n"


def _typed(media_type: bytes, body: bytes, *, more: bytes = b"") -> bytes:
    return _HEAD + b"Content-Type: " + media_type + b"\n" + more + b"\n" + body


def _html(body: bytes) -> bytes:
    return _typed(b"text/html; charset=utf-8", body)


def _plain(body: bytes, charset: bytes = b"utf-8", encoding: bytes = b"8bit") -> bytes:
    more = b"Content-Transfer-Encoding: " + encoding + b"\n"
    return _typed(b"text/plain; charset=" + charset, body, more=more)


def _mixed(body: bytes) -> bytes:
    return _typed(b"multipart/mixed; boundary=b", body)


def _nested(depth: int, inside: bytes) -> bytes:
    levels = (b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
    return _HEAD + b"".join(levels) + b"\n" + inside


def _attributes(count: int) -> bytes:
    return b" ".join(b"a%d" % n for n in range(count))


CASES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one line end": lambda: b"\n",
    "multipart depth 1,000": lambda: _nested(1_000, b"x"),
    "multipart depth 10,000": lambda: _nested(10_000, b"x"),
    "multipart depth 99 around 10 MB": lambda: _nested(99, b"x" * 10_000_000),
    "message/rfc822 depth 10,000": lambda: _HEAD + b"Content-Type: message/rfc822\n\n" * 10_000 + b"\nx",
    "50,000 parts": lambda: _mixed(b"--b\n\nx\n" * 50_000),
    "near delimiters": lambda: _mixed(b"--bx\n" * 1_000_000),
    "padded near delimiters": lambda: _mixed((b"\n--b" + b" " * 1_000 + b"x") * 5_000),
    "huge boundary": lambda: _typed(b"multipart/mixed; boundary=" + b"b" * 5_000, b"x"),
    "20,000 encoded-words": lambda: _HEAD + b"Subject: " + b" ".join([b"=?utf-8?q?a?="] * 20_000) + b"\n\nx",
    "unclosed encoded-words": lambda: b"Subject: " + b"=?a?q?" * 15_000 + b"\n\nx",
    "20,000 addresses": lambda: b"From: " + b", ".join(b"a%d@x.example" % n for n in range(20_000)) + b"\n\nx",
    "20,000 parameters": lambda: _typed(b"text/plain" + b"".join(b"; p%d=v" % n for n in range(20_000)), b"x"),
    "8,000 parameter pieces": lambda: _typed(b"text/plain" + b"".join(b"; b*%d=v" % n for n in range(8_000)), b"x"),
    "nested comments": lambda: b"From: " + b"(" * 500 + b"x" + b")" * 500 + b" a@x.example\n\nx",
    "open comments": lambda: b"From: " + b"(" * 50_000 + b"\n\nx",
    "10 MB header": lambda: b"X: " + b"y" * 10_000_000 + b"\n\nx",
    "2,000,000 headers": lambda: b"X: y\n" * 2_000_000 + b"\nx",
    "nameless headers": lambda: b":\n" * 1_000_000,
    "header name without end": lambda: b"a" * 1_000_000,
    "10 MB of <": lambda: _html(b"<" * 10_000_000),
    "1,000,000 tags": lambda: _html(b"<b>" * 1_000_000),
    "1,000,000 nested div": lambda: _html(b"<div>" * 1_000_000),
    "1,000,000 paragraphs": lambda: _html(b"<p>x" * 1_000_000),
    "unclosed formatting": lambda: _html(b"".join(b"<font a=%d>" % n for n in range(20_000))),
    "small unclosed formatting": lambda: _html(b"".join(b"<i a%d>" % n for n in range(1_900))),
    "100,000 attributes": lambda: _html(b"<a " + _attributes(100_000) + b">x"),
    "small page of attributes": lambda: _html((b"<a " + _attributes(100_000))[:16_000]),
    "attributes behind quotes": lambda: _html(b'<a b=">" ' + _attributes(50_000) + b">x"),
    "unclosed attribute": lambda: _html(b'<a href="' + b"x" * 1_000_000),
    "unclosed attributes": lambda: _html(b'<a href="x ' * 100_000),
    "mixed quotes": lambda: _html(b'<a \'" "' * 100_000),
    "repeated html tags": lambda: _html(b"".join(b"<html a%d=1>" % n for n in range(16_000))),
    "stray closing tags": lambda: _html(b"<div>" * 250 + b"<b></p>" * 16_000),
    "many hidden": lambda: _html(b"<p hidden>x" * 15_000),
    "many display:none": lambda: _html(b'<p style="display:none">x</p>' * 15_000),
    "many white texts": lambda: _html(b'<p style="color:#fff">x</p>' * 15_000),
    "nested hidden": lambda: _html(b'<div style="display:none">' * 200 + b"x"),
    "many hiding rules": lambda: _html(b"<style>" + b".a{display:none}" * 60_000 + b"</style><p class=a>x"),
    "open braces": lambda: _html(b"<style>display:none" + b"{" * 500_000),
    "open style sheets": lambda: _html(b"<style>.a{display:none}" * 20_000),
    "open comments in a sheet": lambda: _html(b"<style>display:none" + b"/*" * 250_000),
    "many inline pieces": lambda: _html(b"<p>" + b"x<b>y</b>" * 9_000),
    "deep inline pieces": lambda: _html(b"<span>" * 200 + b"x<i>y</i>" * 9_000),
    "many links": lambda: _html(b"<a href=http://x.example/>y</a> " * 9_000),
    "many pictures": lambda: _html(b"<img alt=x>" * 19_000),
    "open HTML comments": lambda: _html(b"<!--" * 200_000),
    "many scripts": lambda: _html(b"<script>" * 20_000),
    "nested tables": lambda: _html(b"<table><tr><td>x" * 5_000),
    "entities": lambda: _html(b"&amp" * 250_000),
    "NUL page": lambda: _html(b"\0" * 1_000_000),
    "data URI": lambda: _html(b'<img src="data:image/png;base64,' + b"A" * 900_000 + b'"><p>hi'),
    "utf-7": lambda: _plain(b"+ADw-script+AD4-", b"utf-7"),
    "unknown charset": lambda: _plain(b"caf\xe9", b"x-nobody"),
    "punycode": lambda: _plain(b"a-" * 50_000, b"punycode"),
    "idna": lambda: _plain(b"\xe9" * 90_000, b"idna"),
    "unicode_escape": lambda: _plain(b"\\u0041\\N{DIGIT ONE}\\", b"unicode_escape"),
    "rot13": lambda: _plain(b"Fnir", b"rot13"),
    "half utf-16": lambda: _plain(b"\xff\xfeh", b"utf-16"),
    "lone surrogates": lambda: _plain(b"\xed\xa0\x80" * 1_000),
    "base64 garbage": lambda: _plain(b"=A=?\xff" * 200_000, encoding=b"base64"),
    "18 MB base64": lambda: _plain(base64.encodebytes(b"hello world " * 1_100_000), encoding=b"base64"),
    "base64 runs": lambda: _plain(b"QUJD=" * 400_000, encoding=b"base64"),
    "quoted-printable garbage": lambda: _plain(b"=" * 4_000_000, encoding=b"quoted-printable"),
    "quoted-printable spaces": lambda: _plain(b" " * 4_000_000, encoding=b"quoted-printable"),
    "uuencode": lambda: _plain(b"begin 644 a\n#0V%T\nend\n", encoding=b"x-uuencode"),
    "10 MB line": lambda: _plain(b"x" * 10_000_000),
    "10 MB of LF": lambda: _plain(b"\n" * 10_000_000),
    "10 MB of CR": lambda: _plain(b"\r" * 10_000_000),
    "lines of spaces": lambda: _plain(b"a \n \n" * 300_000),
    "quoted lines": lambda: _plain(b"> x\n" * 300_000),
    "rulers": lambda: _plain(b"-\n" * 500_000),
    "list items": lambda: _plain(b"- x\n" * 300_000),
    "half reply heads": lambda: _plain(b"On x\n" * 300_000),
    "one long ruler": lambda: _plain(b"_" * 1_000_000),
    "addresses in text": lambda: _plain(b"http://x.example/ " * 60_000),
    "half addresses in text": lambda: _plain(b"http://" * 150_000),
    "zero-width flood": lambda: _plain("V\u200bi\u200ba ".encode() * 90_000),
    "one letter, many marks": lambda: _plain(("a" + "\u0301\u0327" * 180_000).encode()),
    "many letters with marks": lambda: _plain("a\u0301\u0327".encode() * 200_000),
    "differing alternatives": lambda: _typed(
        b"multipart/alternative; boundary=b",
        b"--b\n\n"
        + b" ".join(b"w%d" % n for n in range(70_000))
        + b"\n--b\nContent-Type: text/html\n\n"
        + b"<p>".join(b"v%d" % n for n in range(19_000)),
    ),
    "random octets": lambda: random.Random(1).randbytes(1_000_000),
}

SEEDS: tuple[bytes, ...] = (
    _html(
        b'<div style="display:none">pre</div><table><tr><td>a</td><td>b</td></tr></table>'
        b'<a href="https://x.example/?u=1">Go</a>'
    ),
    _plain(b"Dear all,\n\nPlease =\nnote.\n\n> quoted\n-- \nUnsubscribe\n", encoding=b"quoted-printable"),
    _plain(base64.encodebytes("Grüße, 20 % off!".encode()), encoding=b"base64"),
    _mixed(b"--b\nContent-Type: text/plain\n\nhello\n--b\nContent-Type: application/pdf\n\n%PDF\n--b--\n"),
    _typed(
        b'multipart/alternative; boundary="=_x"',
        b"--=_x\r\n\r\nplain\r\n--=_x\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n"
        b"<p>caf\xe9 &pound;5</p>\r\n--=_x--\r\n",
    ),
    b"From: =?utf-8?q?Caf=C3=A9?= <a@x.example>\r\nSubject: =?utf-8?b?U2F2ZQ==?= =?utf-8?b?IG5vdw==?=\r\n\r\nHi\r\n",
)


def mutations(count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` damaged copies of the seeds: octets flipped, cut, doubled, moved between messages. Reproducible."""
    rnd = random.Random(seed)
    tokens = (
        b"\n",
        b"\r\n",
        b"\r",
        b"--b",
        b"--b--",
        b"=?utf-8?q?",
        b"?=",
        b"<",
        b">",
        b"<style>",
        b"&#0;",
        b"\0",
        b"=",
        b"\xff",
    )
    for _ in range(count):
        octets = bytearray(rnd.choice(SEEDS))
        for _ in range(rnd.randint(1, 8)):
            at, far = sorted((rnd.randrange(len(octets) + 1), rnd.randrange(len(octets) + 1)))
            match rnd.randrange(5):
                case 0:
                    octets[at:at] = rnd.choice(tokens)
                case 1:
                    del octets[at : min(far, at + 40)]
                case 2:
                    octets[at:at] = octets[at:far] * rnd.randint(1, 3)
                case 3 if at < len(octets):
                    octets[at] = rnd.randrange(256)
                case _:
                    other = rnd.choice(SEEDS)
                    octets[at:far] = other[at:far]
            del octets[20_000:]
        yield bytes(octets)

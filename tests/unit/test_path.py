"""Arguments of MAIL and RCPT: kept octet for octet, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter import replies
from filter.envelope import MailFrom, RcptTo
from filter.path import PathError, parse_mail, parse_rcpt

OFFERED = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})

GOOD = (
    b"jo@shop.example",
    b"Jo.Bloggs+tag@Shop.EXAMPLE",
    b"=?utf-8?q?a=40evil.example=3e=0d=0aRCPT_TO:=3cb?=@shop.example".replace(b":", b"_"),
    b"=?utf-8?q?victim?=@shop.example",
    b"=?utf-8?b?dmljdGlt?=@shop.example",
    b"!#$%&'*+-/=?^_`{|}~@shop.example",
    b"relay%other.example@shop.example",
    b"other.example!jo@shop.example",
    b'"jo bloggs"@shop.example',
    b'"jo@other.example"@shop.example',
    b'"a\\"b\\\\c"@shop.example',
    b'""@shop.example',
    b'"<>"@shop.example',
    b"jo@[192.0.2.1]",
    b"jo@[IPv6:2001:db8::1]",
    b"jo@[ipv6:::ffff:192.0.2.1]",
    b"jo@localhost",
    b"jo@xn--bcher-kva.example",
    b"jo@1.2.3.example",
    b"x" * 64 + b"@shop.example",
    b"jo@" + b"x" * 63 + b".example",
    b"jo@" + b".".join([b"x" * 49] * 5) + b".x",  # 254 octets, 256 with its brackets
)
BEYOND_ASCII = (
    "jö@shop.example".encode(),
    "jo@bücher.example".encode(),
    "用户@例子.example".encode(),
    '"jö bloggs"@shop.example'.encode(),
    "jo@paral·lel.example".encode(),
)
BAD = (
    b"",
    b"jo",
    b"@shop.example",
    b"jo@",
    b"@relay.example:jo@shop.example",
    b"@a.example,@b.example:jo@shop.example",
    b"jo(comment)@shop.example",
    b"(comment)jo@shop.example",
    b"jo@shop.example(comment)",
    b"jo@(comment)shop.example",
    b"jo@other.example@shop.example",
    b"jo bloggs@shop.example",
    b" jo@shop.example",
    b"jo@shop.example ",
    b"jo @shop.example",
    b"jo@ shop.example",
    b".jo@shop.example",
    b"jo.@shop.example",
    b"jo..bloggs@shop.example",
    b"jo@.shop.example",
    b"jo@shop..example",
    b"jo@shop.example.",
    b"jo@-shop.example",
    b"jo@shop-.example",
    b"jo@shop_.example",
    b"jo@=?utf-8?q?evil.example?=",
    b"=?utf-8?q?a=40evil.example=3e=0d=0aRCPT_TO:=3cb?=@shop.example",
    b"jo,bloggs@shop.example",
    b"jo:bloggs@shop.example",
    b"jo;bloggs@shop.example",
    b"<jo@shop.example>",
    b"jo\\@shop.example",
    b'"jo@shop.example',
    b'jo"@shop.example',
    b'"jo"bloggs@shop.example',
    b'"jo""bloggs"@shop.example',
    b'"jo"."bloggs"@shop.example',
    b'"jo\\"@shop.example',
    b"jo@192.0.2.1]",
    b"jo@[192.0.2.1",
    b"jo@[]",
    b"jo@[192.0.2]",
    b"jo@[192.0.2.256]",
    b"jo@[192.0.02.1]",
    b"jo@[2001:db8::1]",
    b"jo@[IPv6:2001:db8::1%eth0]",
    b"jo@[IPv6:192.0.2.1]",
    b"jo@[tag:content]",
    b"x" * 65 + b"@shop.example",
    b"jo@" + b"x" * 64 + b".example",
    b"jo@" + b".".join([b"x" * 49] * 5) + b".xx",
    *(b"jo%c@shop.example" % octet for octet in (*range(32), 127)),
    *(b"jo@shop%c.example" % octet for octet in (*range(32), 127)),
    *(b'"jo%c"@shop.example' % octet for octet in (*range(32), 127)),
    *(b'"jo\\%c"@shop.example' % octet for octet in (*range(32), 127)),
    # Beyond ASCII: what is no UTF-8, overlong, a surrogate; controls, turns of direction, spaces, look-alikes of @ .
    b"j\xf6@shop.example",
    b"jo\xc0\x80@shop.example",
    b"jo\xed\xa0\x80@shop.example",
    b"jo@b\xfccher.example",
    *(
        f"jo{character}@shop.example".encode()
        for character in "\x80\x85\u200b\u200e\u202e\u2066\u2028\u00a0\ufeff\ue000"
    ),
    *(f"jo@shop{character}x.example".encode() for character in "\x85\u200d\u202e\uff20\u3002\uff0e\u2024\u00a0"),
)


@pytest.mark.parametrize("path", GOOD + BEYOND_ASCII)
def test_what_is_allowed_is_kept_octet_for_octet(path):
    """An address of RFC 5321 or 6531 comes out as it went in, undecoded, also with spaces after the colon (A3, A4)."""
    for space in (b"", b" ", b"   "):
        mail = parse_mail(b"From:" + space + b"<" + path + b"> SMTPUTF8", offered=OFFERED)
        assert mail == MailFrom(path, (b"SMTPUTF8",), smtputf8=True)
        assert parse_rcpt(b"tO:" + space + b"<" + path + b">", offered=OFFERED, smtputf8=True) == RcptTo(path)
    assert mail.address.encode() == path


@pytest.mark.parametrize("path", BAD)
def test_what_is_not_allowed_is_refused(path):
    """Source routes, comments, controls, bad quoting, bad UTF-8, bad literals, over-long parts: 501 and 553 (A3)."""
    with pytest.raises(PathError) as refused:
        parse_rcpt(b"TO:<" + path + b">", offered=OFFERED, smtputf8=True)
    assert refused.value.reply is replies.BAD_RECIPIENT
    if path:
        with pytest.raises(PathError) as refused:
            parse_mail(b"FROM:<" + path + b"> SMTPUTF8", offered=OFFERED)
        assert refused.value.reply is replies.BAD_SENDER


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"jo@shop.example",
        b"<jo@shop.example",
        b"jo@shop.example>",
        b"<jo@shop.example>SIZE=1",
        b"<jo@shop.example>\tSIZE=1",
        b"<jo@shop.example> SIZE=1\t",
        b"<jo@shop.example>\r",
        b"<jo@shop.example>\n",
        b"<jo@shop.example>\x0b",
        b"<jo@shop.example> \x00",
        b"\t<jo@shop.example>",
        b"Jo <jo@shop.example>",
        b"<jo@shop.example> <al@shop.example>\x00",
        b"<jo@shop.example>, <al@shop.example>",
        b"<<jo@shop.example>>",
        b"< >",
        b"<",
        b">",
        b"<@",
    ],
)
def test_brackets_are_needed_and_only_spaces_stand_between(rest):
    """What is not exactly a path in brackets, a space and parameters is refused (A3)."""
    with pytest.raises(PathError) as refused:
        parse_mail(b"FROM:" + rest, offered=OFFERED)
    assert refused.value.reply is replies.BAD_SENDER
    with pytest.raises(PathError) as refused:
        parse_rcpt(b"TO:" + rest, offered=OFFERED)
    assert refused.value.reply is replies.BAD_RECIPIENT


@pytest.mark.parametrize(
    "argument", [b"", b"FROM", b"FROM <jo@x.example>", b"FROM :<jo@x.example>", b" TO:<jo@x.example>"]
)
def test_the_keyword_is_needed(argument):
    """MAIL needs FROM: and RCPT needs TO:, next to the colon."""
    for parse in (parse_mail, parse_rcpt):
        with pytest.raises(PathError) as refused:
            parse(argument, offered=OFFERED)
        assert refused.value.reply is replies.SYNTAX


def test_the_null_sender_is_a_sender_only():
    """MAIL takes <> and keeps it as nothing; RCPT refuses it (A5)."""
    assert parse_mail(b"FROM:<>", offered=OFFERED) == MailFrom(b"")
    assert parse_mail(b"FROM: <> SIZE=5 RET=HDRS", offered=OFFERED) == MailFrom(b"", (b"SIZE=5", b"RET=HDRS"), size=5)
    with pytest.raises(PathError):
        parse_rcpt(b"TO:<>", offered=OFFERED)


def test_the_postmaster_needs_no_domain():
    """RCPT takes <postmaster> in any case and keeps the case; MAIL does not take it."""
    for path in (b"postmaster", b"Postmaster", b"POSTMASTER"):
        assert parse_rcpt(b"TO:<" + path + b"> NOTIFY=NEVER", offered=OFFERED) == RcptTo(path, (b"NOTIFY=NEVER",))
        with pytest.raises(PathError):
            parse_mail(b"FROM:<" + path + b">", offered=OFFERED)


@pytest.mark.parametrize("path", BEYOND_ASCII)
def test_beyond_ascii_needs_smtputf8(path):
    """Without SMTPUTF8 on MAIL an address beyond ASCII is refused with 5.6.7, at MAIL and at RCPT."""
    for params in (b"", b" SIZE=1"):
        with pytest.raises(PathError) as refused:
            parse_mail(b"FROM:<" + path + b">" + params, offered=OFFERED)
        assert refused.value.reply is replies.SENDER_NEEDS_SMTPUTF8
    with pytest.raises(PathError) as refused:
        parse_rcpt(b"TO:<" + path + b">", offered=OFFERED)
    assert refused.value.reply is replies.RECIPIENT_NEEDS_SMTPUTF8
    with pytest.raises(PathError) as refused:
        parse_mail(b"FROM:<" + path + b"> SMTPUTF8", offered=OFFERED - {"SMTPUTF8"})
    assert refused.value.reply is replies.UNKNOWN_PARAMETER


def test_parameters_are_kept_as_received():
    """Case, order and spelling of parameters stay, and their meaning is understood (A6)."""
    mail = parse_mail(b"FROM:<jo@x.example> size=0012 Body=8bitMIME  ret=Full ENVID=QQ+2bA3+2D ", offered=OFFERED)
    assert mail.params == (b"size=0012", b"Body=8bitMIME", b"ret=Full", b"ENVID=QQ+2bA3+2D")
    assert (mail.size, mail.eight_bit, mail.smtputf8) == (12, True, False)
    assert not parse_mail(b"FROM:<jo@x.example> BODY=7BIT", offered=OFFERED).eight_bit
    recipient = parse_rcpt(b"TO:<jo@x.example> orcpt=rfc822;Jo+2B@X.example notify=Success,DELAY", offered=OFFERED)
    assert recipient.params == (b"orcpt=rfc822;Jo+2B@X.example", b"notify=Success,DELAY")


def test_nobody_is_vouched_for():
    """AUTH= of RFC 4954 is taken and not handed on."""
    mail = parse_mail(b"FROM:<jo@x.example> AUTH=e+3Dmc2@x.example SIZE=1", offered=OFFERED)
    assert mail == MailFrom(b"jo@x.example", (b"SIZE=1",), size=1)
    assert parse_mail(b"FROM:<jo@x.example> AUTH=<>", offered=OFFERED) == MailFrom(b"jo@x.example")


@pytest.mark.parametrize(
    ("params", "reply"),
    [
        (b"SIZE=1 SIZE=1", replies.BAD_PARAMETER),
        (b"SIZE=1 size=2", replies.BAD_PARAMETER),
        (b"SIZE", replies.BAD_PARAMETER),
        (b"SIZE=", replies.BAD_PARAMETER),
        (b"SIZE=-1", replies.BAD_PARAMETER),
        (b"SIZE=1k", replies.BAD_PARAMETER),
        (b"SIZE=" + b"1" * 21, replies.BAD_PARAMETER),
        (b"SIZE=1=2", replies.BAD_PARAMETER),
        (b"=1", replies.BAD_PARAMETER),
        (b"-SIZE=1", replies.BAD_PARAMETER),
        (b"BODY=BINARYMIME", replies.BAD_PARAMETER),
        (b"BODY", replies.BAD_PARAMETER),
        (b"SMTPUTF8=1", replies.BAD_PARAMETER),
        (b"RET=ALL", replies.BAD_PARAMETER),
        (b"ENVID=a+2", replies.BAD_PARAMETER),
        (b"ENVID=" + b"a" * 101, replies.BAD_PARAMETER),
        (b"ENVID=\xc3\xa9", replies.BAD_PARAMETER),
        (b"AUTH", replies.BAD_PARAMETER),
        (b"AUTH=a+zz", replies.BAD_PARAMETER),
        (b"MT-PRIORITY=1", replies.UNKNOWN_PARAMETER),
        (b"REQUIRETLS", replies.UNKNOWN_PARAMETER),
        (b"NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        (b"FOO=\xff", replies.UNKNOWN_PARAMETER),
    ],
)
def test_bad_and_unknown_parameters_of_mail_are_refused(params, reply):
    """A parameter given twice or with a bad value is 501, one that is not known 555 (A6)."""
    with pytest.raises(PathError) as refused:
        parse_mail(b"FROM:<jo@x.example> " + params, offered=OFFERED)
    assert refused.value.reply is reply


@pytest.mark.parametrize(
    ("params", "reply"),
    [
        (b"NOTIFY=", replies.BAD_PARAMETER),
        (b"NOTIFY=NEVER,DELAY", replies.BAD_PARAMETER),
        (b"NOTIFY=SOMETIMES", replies.BAD_PARAMETER),
        (b"NOTIFY=NEVER NOTIFY=NEVER", replies.BAD_PARAMETER),
        (b"ORCPT=jo@x.example", replies.BAD_PARAMETER),
        (b"ORCPT=rfc822;", replies.BAD_PARAMETER),
        (b"ORCPT=rfc822;a+b@x.example", replies.BAD_PARAMETER),
        (b"ORCPT=rfc822;" + b"a" * 494, replies.BAD_PARAMETER),
        (b"ORCPT=utf-8;\xff@x.example", replies.BAD_PARAMETER),
        (b"ORCPT=rfc822;\xc3\xa9@x.example", replies.BAD_PARAMETER),
        (b"SIZE=1", replies.UNKNOWN_PARAMETER),
        (b"RRVS=2014-04-03T23:01:00Z", replies.UNKNOWN_PARAMETER),
    ],
)
def test_bad_and_unknown_parameters_of_rcpt_are_refused(params, reply):
    """The same for RCPT; UTF-8 only in an ORCPT that says so (A6)."""
    with pytest.raises(PathError) as refused:
        parse_rcpt(b"TO:<jo@x.example> " + params, offered=OFFERED, smtputf8=True)
    assert refused.value.reply is reply


def test_utf_8_in_orcpt_needs_smtputf8():
    """RFC 6533: the original recipient may be UTF-8 where the message may."""
    argument = "TO:<jo@x.example> ORCPT=utf-8;é@x.example".encode()
    assert parse_rcpt(argument, offered=OFFERED, smtputf8=True).params == (argument[18:],)
    with pytest.raises(PathError):
        parse_rcpt(argument, offered=OFFERED)


@pytest.mark.parametrize(
    ("argument", "keyword"),
    [
        (b"FROM:<> SIZE=1", "SIZE"),
        (b"FROM:<> BODY=7BIT", "8BITMIME"),
        (b"FROM:<> SMTPUTF8", "SMTPUTF8"),
        (b"FROM:<> RET=FULL", "DSN"),
        (b"FROM:<> ENVID=a", "DSN"),
        (b"FROM:<> AUTH=<>", "AUTH"),
        (b"TO:<jo@x.example> NOTIFY=NEVER", "DSN"),
        (b"TO:<jo@x.example> ORCPT=rfc822;a", "DSN"),
    ],
)
def test_only_what_was_offered_is_taken(argument, keyword):
    """A parameter of an extension that EHLO did not offer, or after HELO, is 555 (A6)."""
    parse = parse_mail if argument.startswith(b"FROM") else parse_rcpt
    assert parse(argument, offered=frozenset({keyword}))
    for offered in (OFFERED - {keyword}, frozenset()):
        with pytest.raises(PathError) as refused:
            parse(argument, offered=offered)
        assert refused.value.reply is replies.UNKNOWN_PARAMETER


SIGNS = [bytes([octet]) for octet in b'<>@."\\ []:()=+\0\xff']
WORDS = [b"jo", b"x.example", b"192.0.2.1", b"IPv6:::1", b"=?utf-8?q?a?=", b"SIZE=1", b"NOTIFY=NEVER", b"\r\n"]
PIECES = st.sampled_from([*SIGNS, *WORDS, "é".encode(), "\u202e".encode()])


@given(pieces=st.lists(PIECES | st.binary(max_size=5), max_size=14), smtputf8=st.booleans())
def test_octets_are_identical_or_refused(pieces, smtputf8):
    """For any argument, what is accepted was received in these very octets, and has no control character (A3, A4)."""
    octets = b"".join(pieces)
    for argument in (octets, b"<" + octets + b">", b"<jo@x.example> " + octets):
        try:
            mail = parse_mail(b"FROM:" + argument, offered=OFFERED)
            assert_taken_from(argument, mail.path, mail.params)
            recipient = parse_rcpt(b"TO:" + argument, offered=OFFERED, smtputf8=smtputf8)
            assert_taken_from(argument, recipient.path, recipient.params)
        except PathError:
            continue


def assert_taken_from(argument, path, params):
    """The argument, written again from what was understood, is what was received, but for spaces and AUTH."""
    written = [b"<" + path + b">", *params]
    received = argument.lstrip(b" ").removeprefix(written[0])
    assert received != argument.lstrip(b" ")
    kept = [part for part in received.split(b" ") if part and not part.upper().startswith(b"AUTH=")]
    assert kept == list(params)
    assert not any(octet < 32 or octet == 127 for octet in b"".join(written))
    b"".join(written).decode()

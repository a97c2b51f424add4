"""The scanner takes messages apart within its caps."""

import pytest

from filter.mime import MAX_DEPTH, MAX_PARTS, parse_content_type, scan
from filter.segments import Defect, DefectCode
from filter.transfer import MAX_TEXT, decode_base64, decode_body, decode_header


def bodies(raw):
    """The text parts of a message as (media type, octets)."""
    found = scan(raw)
    return [(p.media_type, decode_body(found.octets, (p.start, p.end), p.encoding, MAX_TEXT, [])) for p in found.parts]


def codes(raw):
    """The defect codes of a scan."""
    return {defect.code for defect in scan(raw).defects}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_multipart_is_split_at_its_boundary(line_end):
    """Parts are found whatever the line ends; preamble, epilogue and the line end before a delimiter are no content."""
    lines = [
        b"Content-Type: multipart/mixed; boundary=b",
        b"",
        b"pre",
        b"--b",
        b"",
        b"one",
        b"--b  ",
        b"",
        b"two",
        b"--b--",
        b"x",
    ]
    assert bodies(line_end.join(lines)) == [("text/plain", b"one"), ("text/plain", b"two")]


def test_boundary_must_be_a_whole_line():
    """A line that only begins like the delimiter is content."""
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bb\n--b --\n--b--\n"
    assert bodies(raw) == [("text/plain", b"--bb\n--b --")]


def test_outer_boundary_ends_inner_parts():
    """A part that forgets to close its own multipart still ends where the outer one goes on."""
    raw = (
        b"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\n\n"
        b"--i\n\nin\n--o\n\nout\n--o--\n"
    )
    assert bodies(raw) == [("text/plain", b"in"), ("text/plain", b"out")]
    assert Defect(DefectCode.BOUNDARY_MISSING, "closing") in scan(raw).defects


@pytest.mark.parametrize("parameter", [b"", b"; boundary=nowhere", b"; boundary=" + b"b" * 3000])
def test_multipart_without_parts_is_read_as_text(parameter):
    """A multipart nobody can split is shown to readers as text, so it is judged as text."""
    raw = b"Content-Type: multipart/mixed" + parameter + b"\n\nBuy now"
    assert bodies(raw) == [("text/plain", b"Buy now")]
    assert DefectCode.BOUNDARY_MISSING in codes(raw)


def test_line_without_colon_begins_the_body():
    """What follows a header without a blank line is content and is not lost."""
    raw = b"Subject: s\nBuy now\n\nrest"
    assert bodies(raw) == [("text/plain", b"Buy now\n\nrest")]
    assert DefectCode.HEADER_MALFORMED in codes(raw)


def test_forwarded_message_is_quoted():
    """Text inside message/rfc822 is marked as quoted."""
    raw = b"Content-Type: message/rfc822\n\nSubject: inner\n\nold text"
    (part,) = scan(raw).parts
    assert part.quoted


def test_bare_line_ends_are_repaired():
    """A lone CR ends a line for the reader and is reported."""
    raw = b"Subject: s\r\n\r\na\rb"
    assert bodies(raw) == [("text/plain", b"a\nb")]
    assert codes(raw) == {DefectCode.BARE_LINE_END}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"text/plain", Defect(DefectCode.ENCODING_UNKNOWN, "x-uuencode")),
        (b"application/pdf", Defect(DefectCode.ATTACHMENT, "application/pdf")),
        (b"text/calendar", Defect(DefectCode.ENCODING_UNKNOWN, "x-uuencode")),
        (b"application/pkcs7-mime", Defect(DefectCode.ENCRYPTED, "application/pkcs7-mime")),
    ],
)
def test_unread_content_is_visible(header, expected):
    """Content that is not judged leaves a defect that says what it was."""
    found = scan(b"Content-Type: " + header + b"\nContent-Transfer-Encoding: x-uuencode\n\nx")
    assert found.defects == [expected]
    assert expected.unread


def test_signatures_are_no_attachment():
    """A detached signature is not content."""
    assert scan(b"Content-Type: application/pgp-signature\n\nx").defects == []


def test_nesting_is_capped():
    """Work stops at the depth cap, with a defect, and what lies there is read as text."""
    levels = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(MAX_DEPTH * 5))
    found = scan(levels + b"\nhello")
    assert Defect(DefectCode.TOO_DEEP, str(MAX_DEPTH)) in found.defects
    assert len(found.parts) == 1


def test_parts_are_capped():
    """Parts beyond the cap are not looked for, and the message says so."""
    found = scan(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * (MAX_PARTS * 3))
    assert len(found.parts) <= MAX_PARTS
    assert Defect(DefectCode.TOO_MANY_PARTS, str(MAX_PARTS)) in found.defects


def test_large_header_is_cut_and_the_body_still_read():
    """A header block over the cap is cut, reported, and the body after its blank line is read."""
    raw = b"Subject: s\nX: " + b"y" * 200_000 + b"\n\nbody"
    assert bodies(raw) == [("text/plain", b"body")]
    assert DefectCode.HEADERS_TOO_LARGE in codes(raw)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b' Text/HTML; Charset="UTF-8"', ("text/html", {"charset": "UTF-8"})),
        (b"multipart/mixed; boundary*0=ab; boundary*1=cd", ("multipart/mixed", {"boundary": "abcd"})),
        (b"text/plain; charset*=us-ascii'en'utf-8", ("text/plain", {"charset": "utf-8"})),
        (b"text", ("text/plain", {})),
        (b"", ("text/plain", {})),
        (b'a/b; boundary="x\\"y"', ("a/b", {"boundary": 'x"y'})),
    ],
)
def test_content_type(value, expected):
    """Media types are lower-case, parameters keep their value, pieces are joined, nonsense is text."""
    assert parse_content_type(value) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" plain\r\n folded", "plain folded"),
        (b"=?utf-8?q?Caf=C3=A9_now?=", "Café now"),
        (b"=?utf-8?b?U2F2?=\n =?utf-8?b?ZQ==?=", "Save"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
        (b"a =?iso-8859-1?q?=E9?= b", "a é b"),
        (b"=?utf-8?q?x?= y =?utf-8?q?z?=", "x y z"),
        (b"=?utf-8*en?q?x?=", "x"),
        (b"=?utf-8?x?no?= =?", "=?utf-8?x?no?= =?"),
        ("é".encode(), "é"),
    ],
)
def test_header_text(value, text):
    """Encoded-words are decoded, joined across the space between them, and left alone when malformed."""
    assert decode_header(value, []) == text


def test_base64_damage_loses_nothing():
    """Several padded runs are all read, and a missing end is tolerated."""
    defects = []
    assert decode_base64(b"QQ==\nQUI=\nQUJD\nQU", defects) == b"AABABCA"
    assert defects == [Defect(DefectCode.ENCODING_DAMAGED, "base64")]


def test_text_is_capped():
    """No more text is decoded than there is room for, and the cut is reported."""
    defects = []
    assert decode_body(b"x" * 100, (0, 100), "", 10, defects) == b"x" * 10
    assert [defect.code for defect in defects] == [DefectCode.TEXT_TOO_LARGE]

"""Plain text is cut where a reader sees a new paragraph, and nothing that promotes passes for quotation or footer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.labels import Channel
from filter.labels import SegmentKind as K
from filter.message import message_from_text
from filter.plain import MAX_LINES, footer_start, paragraphs


def cut(text):
    """Kind and words of each paragraph."""
    return [(kind, " ".join(piece.split())) for kind, piece in paragraphs(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  a\n\tb  ", [(K.PARAGRAPH, "a b")]),
        ("a\r\n\r\nb\rc", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b c")]),
        ("a\n \xa0\nb", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b")]),
        ("a\n- - -\nb", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b")]),
        ("1. a\n   more\n 2) b\n1.50 c", [(K.PARAGRAPH, "1. a more"), (K.PARAGRAPH, "2) b 1.50 c")]),
        ("<b>\n*bold*\n-x", [(K.PARAGRAPH, "<b> *bold* -x")]),
        ("On time\nand only\nOn x wrote a book", [(K.PARAGRAPH, "On time and only On x wrote a book")]),
        ("> a\n>> b\n\n> c", [(K.QUOTED, "a b"), (K.QUOTED, "c")]),
        ("a\n --\nb", [(K.PARAGRAPH, "a"), (K.PARAGRAPH, "b")]),
        ("a\n-- b", [(K.PARAGRAPH, "a -- b")]),
    ],
)
def test_text_is_cut_where_a_reader_sees_a_new_paragraph(text, expected):
    """Blank lines, rulers, list items and quotations separate; every other line goes on with the paragraph."""
    assert cut(text) == expected


def test_what_follows_a_ruler_on_its_line_is_read():
    """However long a ruler is, words behind it on the same line are not taken for a part of it."""
    assert cut("a\n\n" + "=" * 500 + " Save 20%")[-1] == (K.PARAGRAPH, "=" * 500 + " Save 20%")


@pytest.mark.parametrize("head", ["On 1 May, A <a@x.example> wrote:", "-----Original Message-----"])
def test_promotion_above_a_reply_counts_in_full(head):
    """A quotation below changes nothing of the promotion above it, which stays a paragraph."""
    offer = "Save 20% on travel insurance. Buy now!"
    assert cut(f"{offer}\n\n{head}\nold")[0] == (K.PARAGRAPH, offer)
    message = message_from_text(f"{offer}\n\n{head}\nold", channel=Channel.EMAIL)
    assert [segment.kind for segment in message.segments] == [K.PARAGRAPH, K.QUOTED, K.QUOTED]


def test_text_beyond_the_cap_is_kept():
    """After the last mark that is told apart, the rest is one paragraph; nothing is lost."""
    found = cut("- x\n" * (MAX_LINES + 5))
    assert len(found) == MAX_LINES
    assert found[-1] == (K.PARAGRAPH, " ".join(["- x"] * 6))


@given(st.text(alphabet="a1O >-=_*.\n\r\t\xa0", max_size=200))
def test_no_letter_is_lost(text):
    """Whatever the structure, every letter and digit of the text is in a paragraph, in order."""
    read = "".join(piece for _, piece in paragraphs(text))
    assert [c for c in read if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.parametrize(
    ("texts", "start"),
    [
        (["Bill", "Unsubscribe"], 1),
        (["Bill", "Unsubscribe", "x" * 900], 3),
        (["Unsubscribe", "Deals of the week"], 2),
        (["Unsubscribe", "Wholesale Ltd"], 0),
        (["Privacy " + "x" * 1_000], 1),
    ],
)
def test_footer_ends_at_what_is_none(texts, start):
    """The walk from the end stops at offer words (not at words that contain one) and at long texts."""
    assert footer_start(texts, [K.PARAGRAPH] * len(texts)) == start

"""Segments kept as columns are those of a tuple; texts are cleaned together as they are one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.labels import SegmentKind
from filter.segments import Segment, Segments, clean, clean_all, texts_of

SIGNS = (
    "ab Z.`|\0\n\r\t\x0b\x85\xa0\u2003\u00ad\u200b£\u2019é\u0430\u202e"
    "\x01\x1b\x1c\x7f\x9f\ufffd\u0301\u0338\ud83d\U0001d400"
)
ANY_TEXT = st.text(st.sampled_from(SIGNS), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(SegmentKind), ANY_TEXT, st.booleans()), max_size=5))
def test_columns_are_a_tuple_of_segments(rows: list[tuple[SegmentKind, str, bool]]) -> None:
    """Length, items, slices, equality, hash and representation are those of the tuple."""
    listed = tuple(Segment(*row) for row in rows)
    kinds, texts = [kind for kind, _, _ in rows], [text for _, text, _ in rows]
    columns = Segments(kinds, texts, [index for index, (_, _, hidden) in enumerate(rows) if hidden])
    assert tuple(columns) == listed
    assert (columns == listed, columns != listed, columns == columns[:]) == (True, False, True)
    assert (hash(columns), repr(columns), len(columns)) == (hash(listed), repr(listed), len(listed))
    assert [columns[i] for i in range(-len(listed), len(listed))] == [*listed, *listed]
    assert columns[1:3] == listed[1:3]
    assert list(texts_of(columns)) == list(texts_of(listed)) == texts


def test_an_index_beyond_the_segments_is_an_error() -> None:
    """A place that is not there is not taken for another."""
    with pytest.raises(IndexError):
        Segments([], [], [])[0]


@given(st.lists(ANY_TEXT, max_size=6))
def test_texts_are_cleaned_together_as_one_by_one(texts: list[str]) -> None:
    """Looking at all texts at once gives what looking at each gives."""
    assert clean_all(texts)[0] == [clean(text) for text in texts]

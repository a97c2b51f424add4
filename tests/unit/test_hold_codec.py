"""Held messages as rows: they come back as they were, and no changed row passes for the one that was stored."""

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.held import held_copy, held_message

from filter.envelope import MailFrom, RcptTo
from filter.hold_codec import Codec, DamagedMessageError, pack, unpack
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARAMS = st.lists(st.binary(min_size=1, max_size=8).filter(lambda param: b" " not in param), max_size=3).map(tuple)
COPIES = st.builds(
    HeldCopy,
    recipient=st.builds(RcptTo, st.binary(max_size=30), PARAMS),
    subject_key=st.binary(max_size=16).map(bytes.hex),
    disposition=st.sampled_from([Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT]),
    reason=TEXT,
    notes=st.lists(TEXT, max_size=3).map(tuple),
    state=TEXT,
    evidence=st.lists(TEXT, max_size=3).map(tuple),
)
MESSAGES = st.builds(
    HeldMessage,
    queue_id=TEXT,
    received_at=st.integers(0, 2**53),
    mail=st.builds(
        MailFrom,
        st.binary(max_size=30),
        PARAMS,
        size=st.integers(0, 2**40),
        eight_bit=st.booleans(),
        smtputf8=st.booleans(),
    ),
    trace=st.binary(max_size=40),
    content=st.binary(max_size=200) | st.binary(max_size=10).map(lambda octets: octets * 50),
    label=TEXT,
    score=st.floats(0, 1),
    ruleset=TEXT,
    declared=TEXT,
    controller=TEXT,
    brand=TEXT,
    topic=TEXT,
    copies=st.lists(COPIES, min_size=1, max_size=4).map(tuple),
    campaign=TEXT,
    facts=TEXT,
    pending=st.booleans(),
)
CELLS = st.none() | st.integers(-(2**60), 2**60) | st.binary(max_size=20) | TEXT | st.floats()


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message):
    """Every octet and every field is there again, null sender and empty content included."""
    packed = pack(message)
    stored = unpack(packed.message, packed.content, packed.copies)
    assert stored.message == message
    assert (stored.size, stored.has_content) == (len(message.content), True)


@given(message=MESSAGES, place=st.integers(0, 200), cell=CELLS)
def test_no_changed_cell_passes(message, place, cell):
    """Any other value in any cell is found, whatever its type, and never raises anything else (E7)."""
    packed = pack(message)
    rows = [list(packed.message), list(packed.content), *(list(copy[:-2]) for copy in packed.copies)]
    row, column = [(row, column) for row in rows for column in range(len(row))][place % sum(map(len, rows))]
    assume(repr(row[column]) != repr(cell))
    row[column] = cell
    copies = [(*row, *copy[-2:]) for row, copy in zip(rows[2:], packed.copies, strict=True)]
    with pytest.raises(DamagedMessageError):
        unpack(rows[0], rows[1], copies)


def test_missing_and_exchanged_copies_are_found():
    """A copy that is gone, comes twice, or belongs to another message is damage (E7)."""
    packed = pack(held_message("one", held_copy(1), held_copy(2)))
    other = pack(held_message("two", held_copy(1), held_copy(2)))
    first, second = packed.copies
    for copies in ([first], [first, second, second], [second, first], [first, first], [first, other.copies[1]]):
        with pytest.raises(DamagedMessageError, match="cop"):
            unpack(packed.message, packed.content, copies)


@given(CELLS, CELLS)
def test_an_unknown_state_is_damage(state, changed_at):
    """What stands outside the digests is checked by its form."""
    assume(type(changed_at) is not int)
    packed = pack(held_message("one"))
    with pytest.raises(DamagedMessageError):
        unpack(packed.message, packed.content, [(*packed.copies[0][:-2], state, 1)])
    with pytest.raises(DamagedMessageError):
        unpack(packed.message, packed.content, [(*packed.copies[0][:-1], changed_at)])


def test_content_is_compressed_if_that_helps():
    """Mail takes less space; what does not compress is kept plain."""
    mail = held_message("one", octets=30_000)
    assert pack(mail).content[0] is Codec.ZLIB
    assert len(pack(mail).content[1]) < 20_000
    noise = dataclasses.replace(mail, content=bytes(range(256)))
    assert pack(noise).content == (Codec.PLAIN, noise.content)


def test_a_body_that_would_grow_without_end_is_not_unpacked():
    """A damaged body is never expanded beyond the size of the message (E7)."""
    small = pack(held_message("one", octets=10))
    bomb = pack(dataclasses.replace(held_message("two"), content=bytes(50_000_000))).content
    with pytest.raises(DamagedMessageError, match="content differs"):
        unpack(small.message, bomb, small.copies)


@pytest.mark.parametrize("params", [(b"",), (b"SIZE=1 2",)])
def test_a_parameter_that_would_not_come_back_is_refused(params):
    """Parameters are kept as they stand on the line, so none may be empty or hold a space."""
    with pytest.raises(ValueError, match="ESMTP parameter"):
        pack(dataclasses.replace(held_message("one"), mail=MailFrom(b"", params)))

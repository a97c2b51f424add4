"""Held messages as rows: they come back as they were, and no changed row passes for the one that was stored."""

import dataclasses
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.held import VAULT, held_copy, held_message

from filter.envelope import MailFrom, RcptTo
from filter.held import CopyState
from filter.hold_codec import (
    MESSAGE_COLUMNS,
    Codec,
    ContentRow,
    CopyRecord,
    DamagedMessageError,
    Packed,
    pack,
    pack_record,
    read_copies,
    read_message,
    unpack,
    unpack_record,
    with_copies,
)
from filter.labels import Channel
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage, KafkaOrigin
from filter.sealing import OVERHEAD, UnknownKeyError, Vault

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
ORIGINS = st.builds(
    KafkaOrigin,
    channel=st.sampled_from(Channel),
    sender_known=st.booleans(),
    key=st.none() | st.binary(max_size=8),
    headers=st.lists(st.tuples(TEXT, st.none() | st.binary(max_size=8)), max_size=3).map(tuple),
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
    kafka=st.none() | ORIGINS,
)
CELLS = st.none() | st.integers(-(2**60), 2**60) | st.binary(max_size=20) | TEXT | st.floats()


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message):
    """Every octet and every field is there again, null sender and empty content included."""
    packed = pack(message, VAULT)
    stored = unpack(packed.message, packed.content, packed.copies, VAULT)
    assert stored.message == message
    assert (stored.size, stored.has_content) == (len(message.content), True)


@given(message=MESSAGES, place=st.integers(0, 200), cell=CELLS)
def test_no_changed_cell_passes(message, place, cell):
    """Any other value in any cell is found, whatever its type, and never raises anything else (E7)."""
    packed = pack(message, VAULT)
    rows = [list(packed.message), list(packed.content), *(list(copy) for copy in packed.copies)]
    row, column = [(row, column) for row in rows for column in range(len(row))][place % sum(map(len, rows))]
    assume(repr(row[column]) != repr(cell))
    row[column] = cell
    with pytest.raises((DamagedMessageError, UnknownKeyError)) as raised:
        unpack(rows[0], rows[1], rows[2:], VAULT)
    assert raised.type is DamagedMessageError or (row, column) == (rows[0], MESSAGE_COLUMNS.index("key_id"))


def test_what_is_personal_cannot_be_read():
    """Content, trace lines and addresses stand nowhere in the rows."""
    message = held_message("one", held_copy(1), held_copy(2))
    packed = pack(message, VAULT)
    cells = [cell for row in (packed.message, packed.content, *packed.copies) for cell in row]
    octets = b"|".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)
    for secret in (
        b"bounce+1",
        b"SIZE=3000",
        b"client.example",
        b"Subject",
        b"Person",
        b"p+2B",
        message.content[100:110],
    ):
        assert secret not in octets
    assert packed.message != pack(message, VAULT).message  # another key each time


def test_a_message_whose_master_key_is_missing_is_not_damaged():
    """The key that is needed is named; the rows are whole."""
    packed = pack(held_message("one"), VAULT)
    other = Vault.of([bytes(32)])
    with pytest.raises(UnknownKeyError, match=VAULT.current):
        unpack(packed.message, packed.content, packed.copies, other)
    assert read_copies(read_message(packed.message), packed.copies)


def test_missing_and_exchanged_copies_are_found():
    """A copy that is gone, comes twice, or belongs to another message is damage (E7)."""
    packed = pack(held_message("one", held_copy(1), held_copy(2)), VAULT)
    other = pack(held_message("two", held_copy(1), held_copy(2)), VAULT)
    first, second = packed.copies
    for copies in ([first], [first, second, second], [second, first], [first, first], [first, other.copies[1]]):
        with pytest.raises(DamagedMessageError, match="cop"):
            unpack(packed.message, packed.content, copies, VAULT)


def test_a_copy_that_was_erased_leaves_a_gap():
    """A message can have fewer copies than it once had; which of them is told by what it says of itself."""
    packed = pack(held_message("one", held_copy(1), held_copy(2)), VAULT)
    message = with_copies(packed.message, 1)
    stored = unpack(message, packed.content, packed.copies[1:], VAULT)
    assert stored.message.copies == (held_copy(2),)
    with pytest.raises(DamagedMessageError, match="2 of 1"):
        unpack(message, packed.content, packed.copies, VAULT)


RECORDS = st.builds(
    CopyRecord, st.sampled_from(CopyState), *[st.integers(0, 2**53)] * 3, st.text("ab c", max_size=4), TEXT
)


@given(RECORDS, RECORDS, st.integers(0, 6))
def test_what_became_of_a_copy_is_guarded_too(record, other, column):
    """A record comes back as it was, and with a changed column not at all."""
    columns = list(pack_record(b"d" * 16, record))
    assert unpack_record(b"d" * 16, columns) == record
    changed = pack_record(b"d" * 16, other)[column]
    assume(changed != columns[column])
    columns[column] = changed
    with pytest.raises(DamagedMessageError):
        unpack_record(b"d" * 16, columns)


@given(CELLS, st.integers(0, 6))
def test_an_unknown_state_is_damage(cell, column):
    """A record in any other form is damage, and nothing else."""
    columns = list(pack_record(b"d" * 16, CopyRecord(CopyState.HELD, 1)))
    assume(repr(columns[column]) != repr(cell))
    columns[column] = cell
    with pytest.raises(DamagedMessageError):
        unpack_record(b"d" * 16, columns)


def test_content_is_compressed_if_that_helps():
    """Mail takes less space; what does not compress is kept plain."""
    mail = held_message("one", octets=30_000)
    assert pack(mail, VAULT).content.codec is Codec.ZLIB
    assert len(pack(mail, VAULT).content.body) < 20_000
    noise = dataclasses.replace(mail, content=bytes(range(256)))
    assert pack(noise, VAULT).content.codec is Codec.PLAIN
    assert len(pack(noise, VAULT).content.body) == 256 + OVERHEAD


def with_body(message: HeldMessage, body: bytes) -> Packed:
    """The rows of a message with another body, sealed as it should be."""
    rows = pack(message, VAULT)
    key = VAULT.open_key(rows.message.key_id, rows.message.wrapped_key)
    sealed = key.seal(body, f"{message.queue_id}\0content {Codec.ZLIB:d}".encode())
    return dataclasses.replace(rows, content=ContentRow(Codec.ZLIB, sealed))


def test_content_is_deflate_whoever_makes_or_reads_it():
    """Python's own zlib opens what was compressed here, and what it compressed is read here (RFC 1950)."""
    mail = held_message("one", octets=30_000)
    rows = pack(mail, VAULT)
    key = VAULT.open_key(rows.message.key_id, rows.message.wrapped_key)
    assert zlib.decompress(key.open(rows.content.body, b"one\0content 1")) == mail.content
    rows = with_body(mail, zlib.compress(mail.content, 9))
    assert unpack(rows.message, rows.content, rows.copies, VAULT).message.content == mail.content


@given(st.binary(max_size=200))
def test_what_is_no_deflate_is_damage(body: bytes):
    """Whatever stands where compressed content should is damage, and nothing else."""
    rows = with_body(held_message("one", octets=30_000), body)
    with pytest.raises(DamagedMessageError):
        unpack(rows.message, rows.content, rows.copies, VAULT)


def test_a_body_that_would_grow_without_end_is_not_unpacked():
    """A damaged row never expands a body beyond the size that it says (E7)."""
    bomb = pack(dataclasses.replace(held_message("two"), content=bytes(50_000_000)), VAULT)
    small = bomb.message._replace(size=10)
    small = with_copies(small, 1)
    with pytest.raises(DamagedMessageError, match="content differs"):
        unpack(small, bomb.content, bomb.copies, VAULT)


@pytest.mark.parametrize("params", [(b"",), (b"SIZE=1 2",)])
def test_a_parameter_that_would_not_come_back_is_refused(params):
    """Parameters are kept as they stand on the line, so none may be empty or hold a space."""
    with pytest.raises(ValueError, match="ESMTP parameter"):
        pack(dataclasses.replace(held_message("one"), mail=MailFrom(b"", params)), VAULT)

"""Sealing: what was sealed opens, anything else is refused, and no key shows anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.sealing import KEY_SIZE, OVERHEAD, WRAPPED_SIZE, MessageKey, SealError, UnknownKeyError, Vault, key_id

OLD, NEW = bytes(range(KEY_SIZE)), bytes(range(100, 100 + KEY_SIZE))
KEY = MessageKey(bytes(KEY_SIZE))


@given(octets=st.binary(max_size=200), about=st.binary(max_size=50))
def test_what_was_sealed_opens(octets, about):
    """Opening gives the octets back, and sealing costs a stated number of octets."""
    sealed = KEY.seal(octets, about)
    assert KEY.open(sealed, about) == octets
    assert len(sealed) == len(octets) + OVERHEAD


@given(octets=st.binary(max_size=50), data=st.data())
def test_every_flipped_bit_is_found(octets, data):
    """Damage of any octet, of nonce, content or tag, is a SealError."""
    sealed = bytearray(KEY.seal(octets, b"here"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError):
        KEY.open(bytes(sealed), b"here")


@given(octets=st.binary(max_size=50), data=st.data())
def test_what_is_cut_is_refused(octets, data):
    """A shorter piece is a SealError, down to nothing."""
    sealed = KEY.seal(octets, b"here")
    with pytest.raises(SealError):
        KEY.open(sealed[: data.draw(st.integers(0, len(sealed) - 1))], b"here")


def test_what_is_moved_does_not_open():
    """What was sealed about one field does not open as another, nor with another key."""
    sealed = KEY.seal(b"text", b"Q1 content")
    with pytest.raises(SealError):
        KEY.open(sealed, b"Q2 content")
    with pytest.raises(SealError):
        MessageKey(OLD).open(sealed, b"Q1 content")


def test_no_two_seals_are_alike():
    """The same octets, sealed twice, share nothing that tells so."""
    assert len({KEY.seal(b"text", b"")[:12] for _ in range(1000)}) == 1000


def test_key_of_a_message_opens_again():
    """A new key is fresh each time, and its wrapped form gives the same key back."""
    vault = Vault.of([NEW])
    key, wrapped, name = vault.new_key()
    assert (len(wrapped), name) == (WRAPPED_SIZE, key_id(NEW))
    assert vault.open_key(name, wrapped).open(key.seal(b"text", b"a"), b"a") == b"text"
    other, _, _ = vault.new_key()
    with pytest.raises(SealError):
        other.open(key.seal(b"text", b"a"), b"a")


def test_new_keys_are_wrapped_by_the_first_master_key():
    """After a rotation the new master key wraps, and the old one still opens."""
    key, wrapped, name = Vault.of([OLD]).new_key()
    rotated = Vault.of([NEW, OLD])
    assert rotated.new_key()[2] == rotated.current == key_id(NEW)
    assert rotated.key_ids == (key_id(NEW), key_id(OLD))
    assert rotated.open_key(name, wrapped).open(key.seal(b"text", b""), b"") == b"text"


def test_wrapping_anew_frees_the_old_master_key():
    """A key that was wrapped anew opens without the old master key."""
    key, wrapped, name = Vault.of([OLD]).new_key()
    again, new_name = Vault.of([NEW, OLD]).rewrap(name, wrapped)
    assert Vault.of([NEW]).open_key(new_name, again).open(key.seal(b"text", b""), b"") == b"text"


def test_missing_master_key_is_named():
    """A master key that is not there is told apart from damage, by its id."""
    _, wrapped, name = Vault.of([OLD]).new_key()
    with pytest.raises(UnknownKeyError, match=f"hold key {key_id(OLD)}: not among") as caught:
        Vault.of([NEW]).open_key(name, wrapped)
    assert caught.value.key_id == name
    with pytest.raises(UnknownKeyError, match="of another form"):
        Vault.of([NEW]).open_key("\x1b[2J", wrapped)


def test_unknown_master_key_is_looked_for_once_more():
    """A vault that can ask for the keys as they are now follows a rotation elsewhere, and its first key wraps then."""
    _, wrapped, name = Vault.of([NEW]).new_key()
    keys = [OLD]
    vault = Vault.of([OLD], lambda: keys)
    with pytest.raises(UnknownKeyError):
        vault.open_key(name, wrapped)
    keys = []
    with pytest.raises(UnknownKeyError):
        vault.open_key(name, wrapped)
    assert vault.key_ids == (key_id(OLD),)
    keys = [NEW, OLD]
    vault.open_key(name, wrapped)
    assert vault.new_key()[2] == key_id(NEW)


def test_wrapped_key_opens_under_its_own_name_only():
    """A damaged wrapped key, or one under another master key's name, is a SealError."""
    vault = Vault.of([NEW, OLD])
    _, wrapped, _ = vault.new_key()
    with pytest.raises(SealError):
        vault.open_key(key_id(OLD), wrapped)
    with pytest.raises(SealError):
        vault.open_key(key_id(NEW), wrapped[:-1])


@pytest.mark.parametrize(("keys", "current"), [({}, "a"), ({"a": OLD}, "b"), ({"a": OLD[:16]}, "a")])
def test_unfit_keys_are_refused(keys, current):
    """A vault without its current key, or with a key of another size, cannot be made."""
    with pytest.raises(ValueError, match="32 octets"):
        Vault(keys, current)


def test_no_key_shows():
    """Neither a key nor its vault prints what it holds."""
    assert OLD.hex()[:8] not in repr(MessageKey(OLD)) + repr(Vault.of([OLD])) + key_id(OLD)

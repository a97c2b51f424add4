"""The master keys of held mail: made once, private, rotated in place, and never shown."""

import base64
import os
import threading

import pytest

from filter.master_keys import VARIABLE, HoldKeyError, add_key, load_vault, read_keys
from filter.sealing import UnknownKeyError, key_id

KEY, OTHER = bytes(range(32)), bytes(range(200, 232))


@pytest.fixture
def path(tmp_path):
    """Where a key file belongs; its directory is not there yet."""
    return tmp_path / "keys" / "hold.key"


def test_first_run_creates_a_private_key(path):
    """The file has mode 0600, its directory 0700, and a second run reads the same key."""
    vault = load_vault(path, {})
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_vault(path, {}).key_ids == vault.key_ids == (key_id(read_keys(path)[0]),)


def test_processes_that_start_together_agree(path):
    """Whoever comes first wins, all read the same complete key."""
    vaults = []
    threads = [threading.Thread(target=lambda: vaults.append(load_vault(path, {}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vaults) == 8
    assert len({vault.current for vault in vaults}) == 1


def test_missing_key_is_an_error_when_none_may_be_made(path):
    """Where mail is held already, no key is invented."""
    with pytest.raises(HoldKeyError, match="no hold key there"):
        load_vault(path, {}, create=False)
    assert not path.parent.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_file_that_others_may_use_is_refused(path, mode):
    """Group or world access is an error that says how to mend it, when reading and when rotating."""
    load_vault(path, {})
    path.chmod(mode)
    with pytest.raises(HoldKeyError, match="chmod 600"):
        load_vault(path, {})
    with pytest.raises(HoldKeyError, match="chmod 600"):
        add_key(path, {})


def test_rotation_puts_a_new_key_on_top(path):
    """The new key is current, the old one still opens, and notes between the keys stay."""
    before = load_vault(path, {})
    _, wrapped, name = before.new_key()
    path.write_text("# of May\n" + path.read_text())
    new = add_key(path, {})
    vault = load_vault(path, {})
    assert vault.key_ids == (new, name)
    assert vault.current == new
    vault.open_key(name, wrapped)
    assert "# of May\n" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_running_vault_follows_a_rotation(path):
    """A vault that was loaded before a rotation opens what was wrapped after it."""
    running = load_vault(path, {})
    add_key(path, {})
    _, wrapped, name = load_vault(path, {}).new_key()
    running.open_key(name, wrapped)
    assert running.current == name


def test_running_vault_keeps_its_keys_when_the_file_is_unfit(path):
    """A key file that is damaged while the relay runs takes nothing away."""
    running = load_vault(path, {})
    _, wrapped, name = running.new_key()
    path.write_text("nonsense\n")
    with pytest.raises(UnknownKeyError):
        running.open_key("00000000", wrapped)
    path.unlink()
    with pytest.raises(UnknownKeyError):
        running.open_key("00000000", wrapped)
    running.open_key(name, wrapped)


def test_rotations_at_the_same_time_lose_no_key(path):
    """Every key that was added is in the file."""
    first, added = load_vault(path, {}).current, []
    threads = [threading.Thread(target=lambda: added.append(add_key(path, {}))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*added, first} == set(load_vault(path, {}).key_ids)
    assert len(added) == 6


def test_rotation_that_fails_leaves_the_file(path, monkeypatch):
    """A disk that cannot sync costs no key and leaves no draft."""
    load_vault(path, {})
    before = path.read_bytes()

    def refuse(_descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        add_key(path, {})
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


@pytest.mark.parametrize("gap", ["\n", ",", " ", ", "])
def test_environment_goes_before_the_file(path, gap):
    """Keys in the environment, in either spelling and in order, are taken, and no file is made."""
    vault = load_vault(path, {VARIABLE: KEY.hex() + gap + base64.urlsafe_b64encode(OTHER).decode().rstrip("=")})
    assert vault.key_ids == (key_id(KEY), key_id(OTHER))
    assert vault.current == key_id(KEY)
    assert not path.parent.exists()


def test_environment_cannot_be_rotated_in_a_file(path):
    """A new key in a file that does not count would be a rotation in name only."""
    with pytest.raises(HoldKeyError, match=VARIABLE):
        add_key(path, {VARIABLE: KEY.hex()})


@pytest.mark.parametrize("text", ["", "# nothing", "00ff", "not a key!", "ab" * 33, KEY.hex() + "\n" + "ab" * 31])
def test_unusable_keys_are_refused_without_showing_them(path, text):
    """The error names the place and what is allowed, never a key; in the environment and in the file."""
    with pytest.raises(HoldKeyError, match=f"{VARIABLE}.*32 octets") as first:
        load_vault(path, {VARIABLE: text})
    load_vault(path, {})
    path.write_text(text)
    with pytest.raises(HoldKeyError, match=r"hold\.key.*32 octets") as second:
        load_vault(path, {})
    for line in text.split():
        assert len(line) < 4 or line not in f"{first.value}{second.value}"


def test_file_of_something_else_is_refused(path):
    """A file too large for keys is not read to its end."""
    load_vault(path, {})
    path.write_text(KEY.hex() + "\n" * 70_000)
    with pytest.raises(HoldKeyError, match="65536 octets"):
        load_vault(path, {})

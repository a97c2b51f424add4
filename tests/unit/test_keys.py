"""The subject key file: created once, private, and never silently replaced."""

import base64
import threading

import pytest

from filter.errors import ConsentDataError
from filter.keys import VARIABLE, create_key, load_key, read_key


def test_first_run_creates_a_private_key(tmp_path):
    """The file has mode 0600 and a second run reads the same key."""
    path = tmp_path / "keys" / "subject.key"
    key = load_key(path, {})
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path, {}) == key
    assert [one.name for one in path.parent.iterdir()] == ["subject.key"]


def test_key_that_is_there_is_kept(tmp_path):
    """Creating over a key leaves it."""
    path = tmp_path / "subject.key"
    create_key(path)
    key = read_key(path)
    create_key(path)
    assert read_key(path) == key


def test_processes_that_start_together_agree(tmp_path):
    """Whoever comes first wins, all read the same complete key."""
    path, keys = tmp_path / "subject.key", []
    threads = [threading.Thread(target=lambda: keys.append(load_key(path, {}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_file_that_others_may_use_is_refused(tmp_path, mode):
    """Group or world access to the key is an error that says how to mend it."""
    path = tmp_path / "subject.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(ConsentDataError, match="chmod 600"):
        read_key(path)


def test_missing_key_is_an_error_when_none_may_be_made(tmp_path):
    """A reader does not invent a key."""
    with pytest.raises(ConsentDataError, match="no subject key"):
        load_key(tmp_path / "subject.key", {}, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "encode",
    [
        bytes.hex,
        lambda key: base64.b64encode(key).decode(),
        lambda key: base64.urlsafe_b64encode(key).decode().rstrip("="),
    ],
)
def test_environment_holds_hexadecimal_or_base64(tmp_path, encode):
    """The environment wins over the file, in either spelling, and no file is made."""
    key = bytes(range(200, 232))
    assert load_key(tmp_path / "subject.key", {VARIABLE: encode(key)}) == key
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "00ff", "not a key!", "ab" * 65])
def test_unusable_key_is_refused_without_showing_it(tmp_path, text):
    """Too short, too long or not encoded: the error names the place, never the key."""
    with pytest.raises(ConsentDataError) as caught:
        load_key(tmp_path / "subject.key", {VARIABLE: text})
    assert VARIABLE in str(caught.value)
    assert not text or text not in str(caught.value)

"""The store directory: one owner, private, on a file system that keeps mail; and files that are whole or absent."""

import pytest

from filter.durable import make_directory, write_file
from filter.store_directory import StoreDirectoryError, concerns, locked, own


def test_a_second_owner_is_refused(tmp_path):
    """Two installations cannot use one directory: the second is told by whom it is in use (E8)."""
    directory = tmp_path / "var"
    refused = pytest.raises(StoreDirectoryError, match=r"in use by another installation \(process \d+\)")
    with own(directory), refused, own(directory):
        pass
    with own(directory):
        pass


def test_a_lock_is_released_by_an_error(tmp_path):
    """Whatever ends the block, the next one gets the lock."""
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    with locked(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n", ""),
        ("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:5 / {0} rw shared:1 - tmpfs tmpfs rw\n", "on tmpfs"),
        ("21 1 8:1 / / rw - overlay overlay rw\n", "on overlay"),
        ("21 1 8:1 / / rw - overlay overlay rw\n30 21 0:5 / {0} rw - xfs /dev/sdb rw\n", ""),
        (
            "21 1 8:1 / / rw - ext4 a rw\n30 21 0:5 / {0} rw - nfs4 a:/b rw\n30 21 0:5 / {0}x rw - ext4 a rw\n",
            "on nfs4",
        ),
        ("what is this\n", ""),
    ],
)
def test_an_unfit_file_system_is_told(tmp_path, mounts, found):
    """An operator learns that held mail would not outlive a restart."""
    directory = tmp_path / "va r"
    make_directory(directory)
    table = tmp_path / "mountinfo"
    table.write_text(mounts.format(str(directory).replace(" ", "\\040")))
    told = concerns(directory, table)
    assert found in "".join(told)
    assert bool(told) == bool(found)


def test_open_permissions_are_told(tmp_path):
    """A directory that others may look into is named with the way to close it."""
    directory = tmp_path / "var"
    make_directory(directory)
    directory.chmod(0o755)
    table = tmp_path / "no-such-table"
    assert concerns(directory, table) == (
        f"{directory}: mode 0755 lets others look into it; run: chmod 700 {directory}",
    )


def test_directories_are_private(tmp_path):
    """Every directory that is made is for its owner only; one that is there stays as it is."""
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


def test_a_file_is_written_whole(tmp_path):
    """A new file replaces the old one, or leaves it where that was asked for; no draft stays behind."""
    path = tmp_path / "file"
    write_file(path, b"one", replace=False)
    with pytest.raises(FileExistsError):
        write_file(path, b"two", replace=False)
    assert path.read_bytes() == b"one"
    write_file(path, b"three", replace=True)
    assert path.read_bytes() == b"three"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]

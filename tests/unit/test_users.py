"""The users file: names and scrypt hashes, private, with every bad line named and none shown."""

import pytest

from filter.errors import ConfigError
from filter.users import PasswordHash, Users, hash_password, load_users

CHEAP = "$scrypt$ln=10,r=1,p=1$c2FsdHNhbHQ$" + "A" * 43


def _write(tmp_path, text, mode=0o600):
    path = tmp_path / "users"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_password_that_was_hashed_is_the_one_that_matches(tmp_path):
    """The right password of a user passes; another one, another name or nothing does not (C6)."""
    users = load_users(_write(tmp_path, f"# who\n\nshop:{hash_password('c0rrect ä')}\n"))
    assert len(users) == 1
    assert users.verify(b"shop", "c0rrect ä".encode())
    assert not users.verify(b"shop", b"wrong")
    assert not users.verify(b"shop", b"")
    assert not users.verify(b"Shop", "c0rrect ä".encode())
    assert not users.verify(b"\xff", b"\xff")


def test_each_hash_has_its_own_salt():
    """Two hashes of one password differ."""
    assert hash_password("same") != hash_password("same")


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_password_has_a_sensible_length(password):
    """An empty password and one longer than a login can carry are refused."""
    with pytest.raises(ValueError, match="1 to 1024"):
        hash_password(password)


def test_over_long_password_never_matches_its_beginning():
    """What is beyond the bound is not cut off silently."""
    known = PasswordHash.parse(hash_password("x" * 1024))
    assert known.matches(b"x" * 1024)
    assert not known.matches(b"x" * 1025)


def test_unknown_name_costs_one_derivation_too(monkeypatch):
    """Time does not tell which names exist: an unknown one is derived with the cost of a known one."""
    costs = []
    derive = PasswordHash.matches

    def counted(self, password):
        costs.append(self.cost)
        return derive(self, password)

    monkeypatch.setattr(PasswordHash, "matches", counted)
    users = Users({"shop": PasswordHash.parse(CHEAP)})
    users.verify(b"shop", b"x")
    users.verify(b"nobody", b"x")
    assert costs == [(10, 1, 1)] * 2


def test_unknown_names_cost_what_known_ones_do(monkeypatch):
    """With users of different costs an unknown name has one of these costs, and the same one each time."""
    costs = []
    monkeypatch.setattr(PasswordHash, "matches", lambda self, _: bool(costs.append(self.cost.log)))
    dearer = CHEAP.replace("ln=10", "ln=11")
    users = Users({"shop": PasswordHash.parse(CHEAP), "till": PasswordHash.parse(dearer)})
    for _ in range(2):
        for number in range(100):
            users.verify(b"nobody%d" % number, b"x")
    assert set(costs) == {10, 11}
    assert costs[:100] == costs[100:]


def test_file_that_others_may_read_is_refused(tmp_path):
    """Group or world access is an error that says how to mend it."""
    with pytest.raises(ConfigError, match="chmod 600"):
        load_users(_write(tmp_path, f"shop:{CHEAP}\n", 0o644))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("shop", "name:"),
        (":" + CHEAP, "name:"),
        (" shop:" + CHEAP, "name:"),
        ("sh\top:" + CHEAP, "name:"),
        ("shop:plain-secret", "name:"),
        ("shop:" + CHEAP.replace("scrypt", "argon2id"), "name:"),
        ("shop:" + CHEAP.replace("ln=10", "ln=4"), "ln 10 to 20"),
        ("shop:" + CHEAP.replace("ln=10,r=1", "ln=20,r=8"), "256 MiB"),
        ("shop:" + CHEAP.replace("c2FsdHNhbHQ", "AAAAAAAAAAAAA"), "name:"),
        (b"sh\xffop:" + CHEAP.encode(), "UTF-8"),
    ],
)
def test_bad_line_is_named_and_not_shown(tmp_path, line, reason):
    """Each line that cannot be used is listed by number, and nothing of it appears in the error."""
    octets = line if isinstance(line, bytes) else line.encode()
    path = _write(tmp_path, b"ok:" + CHEAP.encode() + b"\n" + octets + b"\n")
    with pytest.raises(ConfigError, match=reason) as caught:
        load_users(path)
    assert [problem.place for problem in caught.value.problems] == [f"{path}:2"]
    assert "plain-secret" not in str(caught.value)


def test_name_stands_once(tmp_path):
    """A second line for a name is an error: which password holds must not depend on order."""
    with pytest.raises(ConfigError, match="earlier line"):
        load_users(_write(tmp_path, f"shop:{CHEAP}\nshop:{CHEAP}\n"))

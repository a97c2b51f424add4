"""`consentry run`, `users` and `config check` as their users see them, up to where the relay starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from filter.cli import cli
from filter.errors import ConfigError, InputError
from filter.users import load_users


def test_a_hash_fits_into_the_users_file(tmp_path: Path) -> None:
    """The line that `users hash NAME` prints lets this user in, and the password is nowhere in it."""
    result = CliRunner().invoke(cli, ["users", "hash", "ann"], input="correct horse\n")
    assert result.exit_code == 0
    assert "horse" not in result.output
    file = tmp_path / "users"
    file.write_text(result.stdout)
    file.chmod(0o600)
    assert load_users(file).verify(b"ann", b"correct horse")


def test_a_hash_alone() -> None:
    """Without a name the hash alone is printed."""
    result = CliRunner().invoke(cli, ["users", "hash"], input="correct horse\n")
    assert result.stdout.startswith("$scrypt$")


def test_an_empty_password_is_refused() -> None:
    """No password is no password."""
    result = CliRunner().invoke(cli, ["users", "hash", "ann"], input="\n")
    assert isinstance(result.exception, InputError)
    assert "1 to 1024 octets" in str(result.exception)


def test_run_wants_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no default file, so that nobody starts a relay in the wrong place."""
    monkeypatch.delenv("CONSENTRY_CONFIG", raising=False)
    assert CliRunner().invoke(cli, ["run"]).exit_code == 2


def test_a_check_is_of_the_configuration_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, `config check` takes the one that `run` would; one that is given goes before it."""
    named, given = tmp_path / "named.toml", tmp_path / "given.toml"
    for file in (named, given):
        file.write_text(f'[store]\ndir = "{tmp_path}"\n{file.stem} = 1\n')
    monkeypatch.setenv("CONSENTRY_CONFIG", str(named))
    for arguments, read in (([], named), (["-c", str(given)], given)):
        result = CliRunner().invoke(cli, ["config", "check", *arguments])
        assert isinstance(result.exception, ConfigError)
        assert f"store.{read.stem}" in str(result.exception)
    monkeypatch.delenv("CONSENTRY_CONFIG")
    assert CliRunner().invoke(cli, ["config", "check"]).exit_code == 2


def test_a_check_names_missing_files(tmp_path: Path) -> None:
    """`config check` reads the files that the configuration names (I3)."""
    file = tmp_path / "filter.toml"
    file.write_text('[next_hop]\ntls = "verify"\nuser = "x"\npassword_file = "password"\n')
    result = CliRunner().invoke(cli, ["config", "check", "-c", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert "next_hop.password_file" in str(result.exception)

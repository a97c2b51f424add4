"""A configuration chooses where held mail is: the same three things come from files and from PostgreSQL."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from support.held import VAULT, held_message
from support.postgres import running

from filter import hold_stores
from filter.config import load_config
from filter.errors import ConsentryError
from filter.held import By, HeldQuery
from filter.hold_codec import HoldDataError

pytestmark = pytest.mark.integration

postgres = pytest.fixture(scope="module")(running)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, postgres, tmp_path):
    """Settings of either kind."""
    lines = ['[store]\ndir = "var"\nmin_free_space = "0 B"']
    if request.param == "postgresql":
        lines += [f'url = "{postgres.database()}"', f'password_file = "{postgres.password_file}"']
    return configured(tmp_path, *lines)


def configured(directory: Path, *lines: str):
    """The [store] settings of a file with these lines."""
    file = directory / "filter.toml"
    file.write_text("\n".join(lines))
    return load_config(file).store


def test_what_the_relay_holds_is_there_for_review(store):
    """One process stores, another one finds it."""
    message = held_message("one")
    with closing(hold_stores.open_hold(store, VAULT)) as hold:
        asyncio.run(hold.store(message))
        assert hold.failed == ""
        assert hold.get("one").message == message
    assert hold_stores.holds_mail(store)
    with closing(hold_stores.open_review(store, VAULT)) as review:
        assert [tally[:3] for tally in review.tally(HeldQuery(), By.TOPIC)] == [("offers", 1, 1)]
    with closing(hold_stores.open_ledger(store)) as ledger:
        assert ledger.campaigns() == []


def test_without_a_relay_there_is_nothing_to_review(tmp_path):
    """Files are made by the relay, never by a question."""
    store = configured(tmp_path, '[store]\ndir = "var"')
    assert not hold_stores.holds_mail(store)
    with pytest.raises(HoldDataError, match="consentry run"):
        hold_stores.open_review(store, VAULT)
    assert not (tmp_path / "var").exists()


def test_a_wrong_password_is_told_by_its_server(postgres, tmp_path):
    """The error names the server and what it said, not the password; a file that others read is refused before."""
    (tmp_path / "password").write_text("a wrong one\n")
    (tmp_path / "password").chmod(0o600)
    store = configured(tmp_path, "[store]", f'url = "{postgres.url()}"', 'password_file = "password"')
    for opens in (hold_stores.open_hold, hold_stores.open_review):
        with (
            pytest.raises(ConsentryError, match="password authentication failed") as caught,
            closing(opens(store, VAULT)) as opened,
        ):
            opened.lines(HeldQuery())
        assert postgres.url() in str(caught.value)
        assert "a wrong one" not in str(caught.value)
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(ConsentryError, match=r"store\.password_file.*chmod 600"):
        hold_stores.open_hold(store, VAULT)

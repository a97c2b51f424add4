"""The composition root: settings reach the parts that they are for."""

from pathlib import Path

import pytest

from filter import app
from filter.address import AddressError
from filter.config import Config, load_config
from filter.labels import Channel

MINUTE = 60_000
NOW = 1_790_000_000_000


def configured(directory: Path, settings: str) -> Config:
    """The configuration of a file in this directory."""
    file = directory / "filter.toml"
    file.write_text(settings)
    return load_config(file)


def test_national_numbers_belong_to_the_default_country(tmp_path: Path) -> None:
    """`consent.default_country_code` makes a national number the international one; without it, it is refused."""
    british = app.keyer(configured(tmp_path, '[consent]\ndefault_country_code = "44"\n'), create=True)
    assert british.subject("07700 900123", Channel.SMS) == british.subject("+44 7700 900123", Channel.SMS)
    with pytest.raises(AddressError):
        app.keyer(configured(tmp_path, ""), create=True).subject("07700 900123", Channel.SMS)


def test_the_key_file_is_the_one_that_is_set(tmp_path: Path) -> None:
    """`consent.key_file` decides which key hides addresses; another file is another key."""
    first = app.keyer(configured(tmp_path, ""), create=True)
    other = app.keyer(configured(tmp_path, '[consent]\nkey_file = "other.key"\n'), create=True)
    assert first.key_id != other.key_id
    assert (tmp_path / "other.key").exists()
    assert app.keyer(configured(tmp_path, ""), create=True).key_id == first.key_id


def test_how_old_consent_data_may_be(tmp_path: Path) -> None:
    """`consent.stale_after` is the age from which on consent data counts as stale."""
    (tmp_path / "var").mkdir(mode=0o700)
    config = configured(tmp_path, '[consent]\nstale_after = "10min"\n')
    with app.consent_store(config, readonly=False) as store:
        store.touch(NOW)
        assert not store.stale(NOW + 10 * MINUTE)
        assert store.stale(NOW + 10 * MINUTE + 1)

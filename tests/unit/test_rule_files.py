"""Reading rules from disk, and the cache that is only ever a shortcut."""

import dataclasses
from pathlib import Path

import pytest

from filter.errors import RuleError
from filter.law import citation_problems, load_law
from filter.rule_files import load, read_rules, shipped_rules
from filter.rules import check_examples
from filter.sheet import sheet
from filter.weights import Weights

from .test_rules import OFFER


@pytest.fixture
def rule_dir(tmp_path: Path) -> Path:
    """A directory with one small rule file."""
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "en.toml").write_text(OFFER)
    return directory


def test_the_cache_gives_the_same_rules(rule_dir: Path, tmp_path: Path) -> None:
    """A set taken from the cache finds what a freshly compiled one finds, and says where it came from."""
    text = sheet(["Get 20% off."]).encode()
    fresh, cached = load([rule_dir], cache=tmp_path / "c"), load([rule_dir], cache=tmp_path / "c")
    assert (fresh.note, cached.note) == ("compiled", "cache")
    assert fresh.rules.scan(text) == cached.rules.scan(text) != []


@pytest.mark.parametrize("keep", [0, 8, 40])
def test_a_damaged_cache_is_no_harm(rule_dir: Path, tmp_path: Path, keep: int) -> None:
    """A truncated cache entry is noticed, the rules are compiled, and the entry is replaced."""
    load([rule_dir], cache=tmp_path / "c")
    (entry,) = (tmp_path / "c").iterdir()
    entry.write_bytes(entry.read_bytes()[:keep])
    assert load([rule_dir], cache=tmp_path / "c").note == "compiled: the cache entry is damaged"
    assert load([rule_dir], cache=tmp_path / "c").note == "cache"


def test_a_cache_that_others_can_write_is_not_trusted(rule_dir: Path, tmp_path: Path) -> None:
    """A compiled database is trusted like code, so a cache writable by others is passed over."""
    load([rule_dir], cache=tmp_path / "c")
    (tmp_path / "c").chmod(0o777)
    assert load([rule_dir], cache=tmp_path / "c").note == "compiled: the cache could be written by others"


def test_a_changed_rule_is_compiled_again(rule_dir: Path, tmp_path: Path) -> None:
    """The cache is keyed by content: an edited rule file never meets an old database."""
    load([rule_dir], cache=tmp_path / "c")
    (rule_dir / "en.toml").write_text(OFFER.replace("<percent> off", "<percent> rebate"))
    changed = load([rule_dir], cache=tmp_path / "c")
    assert changed.note == "compiled"
    assert changed.rules.scan(sheet(["20% rebate"]).encode()) != []


def test_a_cache_that_cannot_be_written_is_no_harm(rule_dir: Path, tmp_path: Path) -> None:
    """Without a place for the cache the rules are compiled all the same, and the reason is given."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert load([rule_dir], cache=blocked / "c").note.startswith("compiled: the cache cannot be")


def test_missing_and_unreadable_rules_are_errors(tmp_path: Path) -> None:
    """An empty directory, a missing file and a file in no text encoding are refused by name."""
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    for path in (tmp_path / "none.toml", tmp_path / "bad.toml"):
        with pytest.raises(RuleError, match=path.name):
            read_rules([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuleError, match=r"no \.toml file"):
        read_rules([tmp_path / "empty"])


def test_the_shipped_rules_are_sound(rules_cache: Path) -> None:
    """Every shipped rule compiles, keeps its own examples, and cites rules that the law file has."""
    rules = load(cache=rules_cache).rules
    assert check_examples(rules) == []
    assert citation_problems(rules.rules, load_law()) == []
    assert shipped_rules().is_dir()


def test_the_shipped_weights_are_the_defaults(rule_dir: Path) -> None:
    """Rules without weights of their own are weighed as the shipped ones are, and the code's defaults say the same."""
    _, weights = read_rules([rule_dir])
    assert weights == dataclasses.replace(Weights(), version=weights.version)
    assert weights == read_rules()[1]

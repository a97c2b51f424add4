"""The law's rule numbers: what a citation names, and that a missing rule is noticed."""

from pathlib import Path

import pytest

from filter.errors import RuleError
from filter.labels import SegmentLabel
from filter.law import citation_problems, cited, load_law
from filter.rules import Rule


@pytest.mark.parametrize(
    ("cites", "numbers"),
    [
        (("R12", "Halfords 2022"), ["R12"]),
        (("R15-R17",), ["R15", "R16", "R17"]),
        (("R2, R12", "R2"), ["R2", "R12"]),
        (("Honda", "R999"), []),
    ],
)
def test_citations_name_rules(cites: tuple[str, ...], numbers: list[str]) -> None:
    """A citation names one rule, several or a range, each once; a case or an unknown number names none."""
    assert [rule.number for rule in cited(cites, load_law())] == numbers


def test_every_rule_has_words_and_a_source() -> None:
    """All 68 rules say something, with their source."""
    law = load_law()
    assert list(law) == [f"R{number}" for number in range(1, 69)]
    assert all(rule.says and rule.source for rule in law.values())


@pytest.mark.parametrize(
    ("cites", "problems"),
    [
        (("R12", "Halfords"), []),
        (("R12", "R99"), ["a.toml: rule 1: cites: R99: law.toml has no such rule"]),
        (("Halfords",), ["a.toml: rule 1: cites: at least one number of law.toml, such as R12"]),
    ],
)
def test_every_rule_cites_the_law(cites: tuple[str, ...], problems: list[str]) -> None:
    """A rule that cites an unknown number, or none, is reported with its place."""
    rule = Rule("a.b", SegmentLabel.MARKETING, 1.0, ("x",), cites, place="a.toml: rule 1")
    assert [str(problem) for problem in citation_problems([rule], load_law())] == problems


def test_a_broken_law_file_is_refused(tmp_path: Path) -> None:
    """A law file without words, or none at all, is an error that names it."""
    file = tmp_path / "law.toml"
    for content in ('R1 = "text"', "R1 = {", 'R1 = { says = "x" }'):
        file.write_text(content)
        with pytest.raises(RuleError, match=r"law\.toml"):
            load_law(file)
    with pytest.raises(RuleError, match=r"none\.toml"):
        load_law(tmp_path / "none.toml")

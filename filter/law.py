"""The law's rule numbers in words: what a citation such as R12 means, for `explain` and for `rules lint`.

The words are data (`config/law.toml`). Raises RuleError when the file cannot be used.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from .errors import Problem, RuleError
from .resources import config_dir
from .rules import Rule

_NUMBER: Final = re.compile(r"R\d+")
_RANGE: Final = re.compile(r"R(\d+)\s*[-–]\s*R?(\d+)")  # noqa: RUF001 -- people write both dashes


class LawRule(NamedTuple):
    """What one rule says, in a sentence, and where it is from."""

    number: str
    says: str
    source: str


def load_law(path: Path | None = None) -> Mapping[str, LawRule]:
    """All rules by number (`R12`)."""
    path = path or config_dir() / "law.toml"
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        return {number: LawRule(number, entry["says"], entry["source"]) for number, entry in document.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuleError("the law's rules cannot be read", [Problem(str(path), "", str(error))]) from error


def cited(cites: Iterable[str], law: Mapping[str, LawRule]) -> list[LawRule]:
    """The rules that citations name, each once; `R15-R17` names three, a case names none."""
    numbers: list[str] = []
    for cite in cites:
        if span := _RANGE.search(cite):
            numbers += [f"R{n}" for n in range(int(span[1]), int(span[2]) + 1)]
        else:
            numbers += _NUMBER.findall(cite)
    return [law[number] for number in dict.fromkeys(numbers) if number in law]


def citation_problems(rules: Iterable[Rule], law: Mapping[str, LawRule]) -> list[Problem]:
    """Rules that name no rule of the law file, and citations of numbers that it does not have."""
    problems = []
    for rule in rules:
        place = f"{rule.place}: cites"
        if not cited(rule.cites, law):
            problems.append(Problem(place, "", "at least one number of law.toml, such as R12"))
        numbers = [number for cite in rule.cites for number in _NUMBER.findall(cite)]
        problems += [Problem(place, number, "law.toml has no such rule") for number in numbers if number not in law]
    return problems

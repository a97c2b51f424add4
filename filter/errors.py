"""The exception families: what went wrong, where, and who may catch it.

Every error a user can cause names the place, the value and what is allowed. Nothing here carries message content.

- `ConsentryError`: base; the command line prints it and exits 2. Nobody else catches the base.
- `ConfigError`: configuration cannot be used. Raised at start, never while messages flow.
- `RuleError`: a rule file cannot be used; carries every problem found, so that one run of `rules lint` shows all.
- `AddressError`: an address cannot be normalised; doors answer it, the importer reports the line.
- `ConsentDataError`: a consent event or index cannot be used.
- `ExampleError`: labelled examples cannot be used; `consentry train` and `evaluate` stop before they begin.
- `InputError`: a line or file given to a command is not in a form it takes.
"""

from dataclasses import dataclass


class ConsentryError(Exception):
    """Base of every error with a message fit for a user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: `place` (file:line, key path), the offending `value`, and what is `allowed`."""

    place: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.value, self.allowed) if part)


class ProblemsError(ConsentryError):
    """An input with one or more problems, all of them listed."""

    def __init__(self, summary: str, problems: "tuple[Problem, ...] | list[Problem]") -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  {problem}" for problem in self.problems)]))


class ConfigError(ProblemsError):
    """The configuration cannot be used; lists every problem at once."""


class RuleError(ProblemsError):
    """The rule set cannot be used; the previous one stays in force."""


class ExampleError(ProblemsError):
    """Labelled examples cannot be used; lists every problem of a file."""


class ConsentDataError(ConsentryError):
    """A consent event, key or index cannot be used."""


class DamagedIndexError(ConsentDataError):
    """The files of a consent index are damaged or missing: it can be restored, or built again."""


class AddressError(ConsentryError):
    """An address or number cannot be normalised (the message never quotes it in full)."""


class InputError(ConsentryError):
    """A file or line given to a command is not in a form it takes."""

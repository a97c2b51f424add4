"""What pydantic and tomllib found wrong -> `Problem`s in words: key path, value, what is allowed. Never raises.

Lists count from 1: `stream[2].mode` is in the second [[stream]]. A value that may be a secret is never shown; what
stands in the place of a value in round brackets describes it.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from .config_values import SecretError
from .errors import ConfigError, Problem

_MAX_SHOWN: Final = 60
_HIDDEN: Final = "(not shown)"
_SECRET_NAME: Final = re.compile(r"pass|secret|token|credential|auth|(^|_)key$", re.IGNORECASE)
_SYNTAX_PLACE: Final = re.compile(r"(.*) \(at (.*)\)")


class Contradiction(ValueError):  # noqa: N818 - a finding that is collected, not an error that escapes
    """Settings that are fine each but not together, found under one key; problems name places relative to that key."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = problems


def cannot_use(file: Path, problems: list[Problem]) -> ConfigError:
    """The error for a file with these problems."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError(f"{file} cannot be used, {count}:", problems)


def syntax_problem(error: ValueError) -> Problem:
    """Where and why a file is no TOML."""
    if isinstance(error, UnicodeDecodeError):
        return Problem(f"octet {error.start + 1}", "(not UTF-8)", "a configuration file is UTF-8 text")
    found = _SYNTAX_PLACE.fullmatch(str(error))
    reason, place = found.groups() if found else (str(error), "file")
    return Problem(place, "(not TOML)", reason)


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem in words, in the order of the file's sections."""
    return [problem for details in error.errors(include_url=False) for problem in _problems(details, model)]


def _problems(details: Mapping[str, Any], model: type[BaseModel]) -> Iterator[Problem]:
    location = tuple(part for part in details["loc"] if part != "[key]")
    place, value = key_path(location), details["input"]
    reason = details.get("ctx", {}).get("error")
    match details["type"]:
        case "extra_forbidden":
            yield Problem(place, _unknown_value(str(location[-1]), value), _unknown(location, model))
        case "missing":
            yield Problem(place, "(missing)", "this setting has no default")
        case "model_type" | "dict_type":
            header = f", headed [{place}]" if len(location) == 1 else ""
            yield Problem(place, _shown(value), f"must be a table{header}")
        case _ if isinstance(reason, Contradiction):
            yield from (Problem(f"{place}{p.place}", p.value, p.allowed) for p in reason.problems)
        case _ if isinstance(reason, SecretError):
            yield Problem(place, _HIDDEN, f"must be {reason}")
        case _:
            yield Problem(place, _shown(value), f"must be {reason or details['msg']}")


def key_path(location: tuple[str | int, ...]) -> str:
    """`("stream", 1, "match", "from_domain", 0)` -> `stream[2].match.from_domain[1]`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part + 1}]"
        else:
            path += f".{_key(part)}" if path else _key(part)
    return path


def _key(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "(a table)"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "(a list of tables)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _unknown_value(name: str, value: Any) -> str:
    return _HIDDEN if _SECRET_NAME.search(name) else _shown(value)


def _unknown(location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """What to write instead of an unknown key: a secret's file, the nearest name here, or the place it belongs to."""
    name = str(location[-1])
    known = fields_at(model, location[:-1])
    if f"{name}_file" in known:
        file = key_path((*location[:-1], f"{name}_file"))
        return f"a secret is never given inline: put it into a file and name that file in {file}"
    if _SECRET_NAME.search(name):
        return "unknown setting; secrets are never given inline, only in a file or in the environment"
    near = difflib.get_close_matches(name, known, n=1)
    elsewhere = [path for path in setting_paths(model) if re.split(r"[.\]]", path)[-1] == name]
    if near or elsewhere:
        return f'unknown setting; did you mean "{[*near, *elsewhere][0]}"?'
    return f"unknown setting; known here: {', '.join(known)}"


def fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The names of the settings in the table at `location`."""
    for part in location:
        inner = _inner(model, part) if isinstance(part, str) else model
        model = inner or model
    return [field.alias or name for name, field in model.model_fields.items()]


def setting_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by its path, tables of a list marked `[]`: `smtp.listen`, `stream[].match.from_domain`."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = _inner(model, name)
        if inner is None:
            yield path
        else:
            yield from setting_paths(inner, f"{path}{'[]' if _is_list(field.annotation) else ''}.")


def _inner(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of the table `name`, or of the tables in the list `name`; None for a plain setting."""
    field = model.model_fields.get(name)
    for candidate in (field.annotation, *get_args(field.annotation)) if field else ():
        if isinstance(candidate, type) and candidate is not NoneType and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_list(annotation: Any) -> bool:
    return Ellipsis in get_args(annotation)

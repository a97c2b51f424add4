"""Reads rule files, weights and what was learned from disk, and keeps the compiled database in a cache.

The cache is only ever a shortcut: a missing, damaged, foreign or unwritable entry means that the rules are compiled
again (`LoadedRules.note` says why). An entry is keyed by the compiled expressions and the version of the engine.
Raises RuleError (from `rules`) for bad content and for files that cannot be read.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import hyperscan
import orjson

from .errors import Problem, RuleError
from .learned import NOTHING_LEARNED, Learned
from .learned_file import parse_learned
from .resources import config_dir
from .rules import Rule, RuleSet, compile_rules, database_key, expressions_of, parse_rules
from .weights import Weights, parse_weights

WEIGHTS_FILE: Final = "weights.toml"
LEARNED_FILE: Final = "learned.json"
_DIGEST: Final = 16
_VERSION: Final = 6
_PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True)
class LoadedRules:
    """A compiled rule set, and in one phrase where its database came from: `cache`, or `compiled` and why."""

    rules: RuleSet
    note: str


def shipped_rules() -> Path:
    """The directory of the rule files that come with the product."""
    return config_dir() / "rules"


def load_rules(paths: Iterable[Path] = (), *, cache: Path | None = None) -> RuleSet:
    """Load and compile rule files or directories of them (none given: the shipped ones); see `load`."""
    return load(paths, cache=cache).rules


def load(paths: Iterable[Path] = (), *, cache: Path | None = None) -> LoadedRules:
    """Load and compile rules; with `cache`, a directory of ours, take the compiled database from there if possible."""
    paths = tuple(paths) or (shipped_rules(),)
    rules, weights = read_rules(paths)
    learned = read_learned(paths)
    if cache is None:
        return LoadedRules(compile_rules(rules, weights, learned=learned), "compiled")
    entry = cache / f"rules-{database_key(expressions_of(rules))}-hs{version('hyperscan')}.db"
    database, note = _from_cache(entry)
    compiled = compile_rules(rules, weights, database, learned)
    if database is None:
        note = _to_cache(entry, compiled.database) or note
    return LoadedRules(compiled, note)


def read_rules(paths: Iterable[Path] = ()) -> tuple[tuple[Rule, ...], Weights]:
    """Read and check rules and weights without compiling them."""
    files = {str(path): _read(path) for path in _toml_files(tuple(paths) or (shipped_rules(),))}
    weights = {name: text for name, text in files.items() if Path(name).name == WEIGHTS_FILE}
    rules = parse_rules({name: text for name, text in files.items() if name not in weights})
    if len(weights) > 1:
        raise RuleError(
            "the rules cannot be used", [Problem(name, "", "more than one weights.toml") for name in weights]
        )
    if not weights:  # rules without weights of their own are weighed as the shipped ones are
        weights = {WEIGHTS_FILE: _read(shipped_rules() / WEIGHTS_FILE)}
    ((name, text),) = weights.items()
    return rules, parse_weights(name, text, {rule.id for rule in rules})


def read_learned(paths: Iterable[Path] = ()) -> Learned:
    """Read and check the learned weights that lie with the rules; without any, rules judge alone."""
    given = tuple(paths) or (shipped_rules(),)
    found = [path / LEARNED_FILE for path in given if (path / LEARNED_FILE).is_file()]
    if len(found) > 1:
        raise RuleError(
            "the rules cannot be used", [Problem(str(path), "", "more than one learned.json") for path in found]
        )
    return learned_from(str(found[0]), _bytes(found[0])) if found else NOTHING_LEARNED


def learned_from(name: str, content: bytes) -> Learned:
    """The learned weights in a file's content; their version is a digest of it. Raises RuleError."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RuleError(
            "the learned weights cannot be used", [Problem(name, "", f"not valid JSON: {error}")]
        ) from error
    return parse_learned(name, document, hashlib.blake2b(content, digest_size=_VERSION).hexdigest())


def _toml_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise RuleError("the rules cannot be used", [Problem(str(path), "", "no .toml file in this directory")])
        found.extend(inside)
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RuleError("the rules cannot be read", [Problem(str(path), "", str(error))]) from error


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError("the rules cannot be read", [Problem(str(path), "", str(error))]) from error


def _from_cache(entry: Path) -> tuple[hyperscan.Database | None, str]:
    """The database of a cache entry that is ours alone and whole; else None and the reason."""
    try:
        with entry.open("rb") as file:
            # A compiled database is trusted like code: nobody else may be able to write it.
            status, directory = os.fstat(file.fileno()), entry.parent.stat()
            for owned in (status, directory):
                if owned.st_uid != os.geteuid() or owned.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None, "compiled: the cache could be written by others"
            content = file.read()
    except FileNotFoundError:
        return None, "compiled"
    except OSError as error:
        return None, f"compiled: the cache cannot be read ({error.strerror})"
    digest, dumped = content[:_DIGEST], content[_DIGEST:]
    if hashlib.blake2b(dumped, digest_size=_DIGEST).digest() != digest:
        return None, "compiled: the cache entry is damaged"
    try:
        database = hyperscan.loadb(dumped, hyperscan.HS_MODE_BLOCK)
        database.scratch = hyperscan.Scratch(database)
    except hyperscan.HyperscanError:
        return None, "compiled: the cache entry is for another processor"
    return database, "cache"


def _to_cache(entry: Path, database: hyperscan.Database) -> str:
    """Write a cache entry whole or not at all; the reason if it could not be written."""
    dumped = hyperscan.dumpb(database)
    try:
        entry.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent) as draft:
            file = Path(draft) / entry.name
            file.write_bytes(hashlib.blake2b(dumped, digest_size=_DIGEST).digest() + dumped)
            file.replace(entry)
    except OSError as error:
        return f"compiled: the cache cannot be written ({error.strerror})"
    return ""

"""Rule files' content -> one immutable, compiled `RuleSet`; all rules or none.

A rule is an argument for a label, with its weight, its citation and its own examples. Everything that is wrong with a
set is reported at once as `RuleError`, each problem with file, rule and field. Matching is one Hyperscan pass for the
whole set, whatever its size. Pure: reading files and the on-disk cache of compiled databases are `rule_files`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import hyperscan

from .errors import Problem, RuleError
from .labels import Channel, SegmentKind, SegmentLabel
from .learned import NOTHING_LEARNED, Learned
from .pattern import Expressions, PatternError, compile_pattern
from .sheet import OPENING, sheet
from .weights import MAX_WEIGHT, Weights, read_toml

_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)+")
_FLAGS: Final = hyperscan.HS_FLAG_CASELESS
_FIELDS: Final = (
    *("id", "label", "weight", "patterns", "in", "channels", "time_critical", "cites", "note", "match", "no_match"),
)
_MIN_EXAMPLES: Final = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: if a pattern matches in one of `kinds` of a message on one of `channels`, it argues for `label`.

    `weight` is in log-odds (above 0, at most 6), `cites` are law.md rule numbers or cases, `place` is file and rule.
    `time_critical`: what it finds does harm when it comes late (service rules only; see `urgency`).
    `lang` is the language of its phrases; it limits nothing, as a message's language is only the sender's claim.
    """

    id: str
    label: SegmentLabel
    weight: float
    patterns: tuple[str, ...]
    cites: tuple[str, ...]
    kinds: frozenset[SegmentKind] = frozenset(SegmentKind)
    channels: frozenset[Channel] = frozenset(Channel)
    time_critical: bool = False
    lang: str = "en"
    note: str = ""
    match: tuple[str, ...] = ()
    no_match: tuple[str, ...] = ()
    place: str = ""


class Hit(NamedTuple):
    """Pattern number `pattern` of a rule set matched in the line at octets `start` to `end` of a sheet's `segment`."""

    pattern: int
    segment: int
    start: int
    end: int


class Pattern:
    """One pattern of a rule, with the exact expression that Hyperscan's report is settled by where it has gaps;
    `worded` says that no text of figures only can match.
    """

    __slots__ = ("_exact", "_source", "rule", "settled", "worded")

    def __init__(self, rule: int, expressions: Expressions) -> None:
        self.rule, self._source = rule, expressions.exact
        self.settled, self.worded = expressions.settled, expressions.worded
        self._exact: re.Pattern[bytes] | None = None

    @property
    def exact(self) -> re.Pattern[bytes]:
        """For a sheet in lower case. Compiled on first use: most patterns of a set never match in a process's life."""
        if self._exact is None:
            self._exact = re.compile(self._source.encode())
        return self._exact


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules with their compiled database. `version` names content and weights; every verdict carries it."""

    rules: tuple[Rule, ...]
    patterns: tuple[Pattern, ...]
    weights: Weights
    version: str
    database: hyperscan.Database
    learned: Learned = NOTHING_LEARNED

    def weight(self, rule: int) -> float:
        """The weight of rule number `rule`, in log-odds."""
        return self.weights.rules.get(self.rules[rule].id, self.rules[rule].weight)

    def scan(self, text: bytes) -> list[Hit]:
        """Every pattern that matches somewhere in a `sheet`, once for each line; in order of lines."""
        text = text.lower()
        found: list[tuple[int, int]] = []
        add = found.append
        self.database.scan(text, match_event_handler=lambda pattern, _start, end, _flags, _context: add((end, pattern)))
        found.sort()  # Hyperscan promises no order
        hits: list[Hit] = []
        tried: set[int] = set()  # patterns seen in this line
        segment, start, stop = -1, 0, -1
        for end, pattern in found:
            # A match that runs to the end of its segment includes the opening of the next.
            last = end - 3 if text[end - 1] == _OPENING else end - 1
            if last > stop:
                opened = start if stop < 0 else start + 1
                start = text.rfind(b"\n", 0, last) + 1
                stop = text.find(b"\n", last)
                segment += text.count(_OPENING_BYTE, opened, start + 1)
                tried = set()
            if pattern in tried:
                continue
            tried.add(pattern)
            one = self.patterns[pattern]
            if one.settled or one.exact.search(text, start, stop + 2):
                hits.append(Hit(pattern, segment, start, stop))
        return hits


_OPENING: Final = ord(OPENING)
_OPENING_BYTE: Final = OPENING.encode()


def parse_rules(files: Mapping[str, str]) -> tuple[Rule, ...]:
    """Read rule files (name -> TOML text); raises RuleError with every problem of every file."""
    problems: list[Problem] = []
    rules: list[Rule] = []
    for name, text in files.items():
        rules.extend(_parse_file(name, text, problems))
    seen: dict[str, str] = {}
    for rule in rules:
        if first := seen.get(rule.id):
            problems.append(Problem(rule.place, rule.id, f"this id is taken by {first}; ids are unique over all files"))
        seen.setdefault(rule.id, rule.place)
    if not rules and not problems:
        problems.append(Problem("rules", "", "no rule found; a rule set needs at least one [[rule]]"))
    if problems:
        raise RuleError("the rule set cannot be used", problems)
    return tuple(rules)


def version_of(rules: Iterable[Rule], weights: Weights, learned: Learned = NOTHING_LEARNED) -> str:
    """Short name of a rule set's content: the same rules and weights give the same version on every machine."""
    deciding = ([_deciding(rule) for rule in rules], sorted(dataclasses.asdict(weights).items()), learned.version)
    digest = hashlib.blake2b(repr(deciding).encode(), digest_size=6).hexdigest()
    return f"{digest}+{weights.version}"


def _deciding(rule: Rule) -> tuple[Any, ...]:
    """Everything about a rule that can change a verdict."""
    kinds, channels = sorted(rule.kinds), sorted(rule.channels)
    return (rule.id, rule.label, rule.weight, rule.patterns, kinds, channels, rule.time_critical)


def expressions_of(rules: Iterable[Rule]) -> list[Expressions]:
    """The compiled patterns of all rules, in order."""
    return [compile_pattern(pattern) for rule in rules for pattern in rule.patterns]


def database_key(expressions: Iterable[Expressions]) -> str:
    """Names a compiled database by what is compiled into it."""
    digest = hashlib.blake2b(digest_size=12)
    for expression in expressions:
        digest.update(expression.scan.encode() + b"\0")
    return digest.hexdigest()


def compile_rules(
    rules: tuple[Rule, ...],
    weights: Weights,
    database: hyperscan.Database | None = None,
    learned: Learned = NOTHING_LEARNED,
) -> RuleSet:
    """Compile all rules into one database, or take one compiled before from the same rules; RuleError if refused."""
    expressions = expressions_of(rules)
    if database is None:
        try:
            database = _database([expression.scan for expression in expressions])
        except hyperscan.HyperscanError as error:
            raise RuleError("the rule set cannot be compiled", [_blame(rules, error)]) from error
    owners = (i for i, rule in enumerate(rules) for _ in rule.patterns)
    patterns = tuple(Pattern(owner, expression) for owner, expression in zip(owners, expressions, strict=True))
    return RuleSet(rules, patterns, weights, version_of(rules, weights, learned), database, learned)


def _database(expressions: list[str]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(expressions)
    database.compile(expressions=[e.encode() for e in expressions], ids=list(range(count)), flags=[_FLAGS] * count)
    return database


def _blame(rules: tuple[Rule, ...], error: Exception) -> Problem:
    """Find the pattern that Hyperscan refuses, by compiling each alone; slow, and only on the way to an error."""
    for rule in rules:
        for pattern in rule.patterns:
            try:
                _database([compile_pattern(pattern).scan])
            except hyperscan.HyperscanError as refused:
                return Problem(rule.place, pattern, f"Hyperscan refuses this pattern: {refused}")
    return Problem("rules", "", f"Hyperscan refuses the set as a whole: {error}")


def _parse_file(name: str, text: str, problems: list[Problem]) -> list[Rule]:
    document = read_toml(name, text, problems)
    lang = document.pop("lang", "en")
    entries = document.pop("rule", [])
    problems.extend(
        Problem(f"{name}: {key}", "", "unknown; a rule file has lang and [[rule]] entries") for key in document
    )
    if not isinstance(lang, str) or not re.fullmatch("[a-z]{2}", lang):
        problems.append(Problem(f"{name}: lang", repr(lang), "a two-letter language code"))
    if not isinstance(entries, list):
        problems.append(Problem(f"{name}: rule", "", "write [[rule]], with double brackets"))
        return []
    rules = (_parse_rule(f"{name}: rule {i + 1}", entry, str(lang), problems) for i, entry in enumerate(entries))
    return [rule for rule in rules if rule]


def _parse_rule(place: str, entry: Any, lang: str, problems: list[Problem]) -> Rule | None:
    if not isinstance(entry, dict):
        problems.append(Problem(place, repr(entry), "a table; write [[rule]], with double brackets"))
        return None
    reader = _Reader(place, entry, problems)
    rule = Rule(
        id=reader.id(),
        label=SegmentLabel(reader.choice("label", SegmentLabel)),
        weight=reader.weight(),
        patterns=reader.texts("patterns", least=1),
        cites=reader.texts("cites", least=1),
        kinds=frozenset(SegmentKind(kind) for kind in reader.choices("in", SegmentKind)),
        channels=frozenset(Channel(channel) for channel in reader.choices("channels", Channel)),
        time_critical=reader.time_critical(),
        lang=lang,
        note=str(entry.get("note", "")),
        match=reader.texts("match", least=_MIN_EXAMPLES),
        no_match=reader.texts("no_match", least=_MIN_EXAMPLES),
        place=reader.place,
    )
    reader.patterns(rule.patterns)
    return rule if reader.good else None


class _Reader:
    """Takes the fields of one [[rule]]; every mistake becomes a problem and a harmless value, so that all are found."""

    def __init__(self, place: str, entry: Mapping[str, Any], problems: list[Problem]) -> None:
        self.entry, self.problems, self.good = entry, problems, True
        name = entry.get("id")
        self.place = f"{place} ({name})" if isinstance(name, str) else place
        for key in entry:
            if key not in _FIELDS:
                self.problem(key, "", f"unknown field; known: {', '.join(_FIELDS)}")

    def problem(self, name: str, value: str, allowed: str) -> None:
        self.good = False
        self.problems.append(Problem(f"{self.place}: {name}", value, allowed))

    def id(self) -> str:
        value = self.entry.get("id")
        if not isinstance(value, str) or not _ID.fullmatch(value):
            self.problem(
                "id", repr(value), "theme.name in lower case letters, digits and hyphens, such as offer.percent-off"
            )
        return str(value)

    def choice(self, name: str, allowed: type[SegmentLabel]) -> str:
        value = self.entry.get(name)
        if not isinstance(value, str) or value not in set(allowed):
            self.problem(name, repr(value), f"one of {', '.join(allowed)}")
            return next(iter(allowed))
        return str(value)

    def choices(self, name: str, allowed: type[SegmentKind] | type[Channel]) -> list[str]:
        values = self.entry.get(name, list(allowed))
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(v, str) and v in set(allowed) for v in values)
        ):
            self.problem(name, repr(values), f"a list of {', '.join(allowed)}")
            return list(allowed)
        return values

    def weight(self) -> float:
        value = self.entry.get("weight")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_WEIGHT:
            self.problem("weight", repr(value), f"a number above 0, at most {MAX_WEIGHT} (log-odds)")
            return 1.0
        return float(value)

    def time_critical(self) -> bool:
        value = self.entry.get("time_critical", False)
        if not isinstance(value, bool) or (value and self.entry.get("label") != SegmentLabel.SERVICE):
            self.problem("time_critical", repr(value), "true or false; true for rules with label service only")
        return value is True

    def texts(self, name: str, *, least: int) -> tuple[str, ...]:
        values = self.entry.get(name, [])
        if not isinstance(values, list) or len(values) < least or not all(isinstance(v, str) and v for v in values):
            self.problem(name, "", f"a list of at least {least} text{'s' if least > 1 else ''}")
            return ()
        return tuple(values)

    def patterns(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            try:
                compile_pattern(pattern)
            except PatternError as error:
                self.problem("patterns", repr(pattern), str(error))


def check_examples(rules: RuleSet) -> list[Problem]:
    """Run every rule's own examples; a `match` it misses or a `no_match` it finds is a problem."""
    problems = []
    for index, rule in enumerate(rules.rules):
        for examples, wanted in ((rule.match, True), (rule.no_match, False)):
            for text in examples:
                found = any(rules.patterns[hit.pattern].rule == index for hit in rules.scan(sheet([text]).encode()))
                if found != wanted:
                    what = "must match, and does not" if wanted else "must not match, and does"
                    problems.append(Problem(f"{rule.place}: {'match' if wanted else 'no_match'}", repr(text), what))
    return problems

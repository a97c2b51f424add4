"""Rule files: what they may say, every problem at once, and what a compiled set finds where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.errors import RuleError
from filter.labels import Channel, SegmentKind, SegmentLabel
from filter.rules import RuleSet, check_examples, compile_rules, parse_rules, version_of
from filter.sheet import sheet
from filter.weights import Weights, parse_weights

OFFER = """
lang = "en"

[[rule]]
id = "offer.percent-off"
label = "marketing"
weight = 3
patterns = ["<percent> off", "save <0-2> <percent>"]
cites = ["R12"]
match = ["Get 20% off.", "Save up to 20%"]
no_match = ["20% of it", "Save this mail."]
"""
IDS = {"offer.percent-off"}


def rule_set(text: str = OFFER, weights: Weights | None = None) -> RuleSet:
    """The compiled rules of one file."""
    return compile_rules(parse_rules({"a.toml": text}), weights or Weights())


def found(rules: RuleSet, *segments: str) -> list[tuple[str, int]]:
    """Rule and segment of every match."""
    hits = rules.scan(sheet(segments).encode())
    return [(rules.rules[rules.patterns[hit.pattern].rule].id, hit.segment) for hit in hits]


def test_a_rule_is_read_with_its_defaults() -> None:
    """A rule without `in` and `channels` applies everywhere, and keeps its place for messages."""
    (rule,) = parse_rules({"a.toml": OFFER})
    assert (rule.id, rule.label, rule.weight) == ("offer.percent-off", SegmentLabel.MARKETING, 3.0)
    assert rule.kinds == frozenset(SegmentKind)
    assert rule.channels == frozenset(Channel)
    assert rule.place == "a.toml: rule 1 (offer.percent-off)"


def test_hits_name_their_segment() -> None:
    """Each match is handed to the segment whose sentence holds it, once a sentence, gaps counted exactly."""
    rules = rule_set()
    assert found(rules, "Hello.", "Now 20% off. And 30% off!", "Save a lot of money on 20%") == [
        ("offer.percent-off", 1),
        ("offer.percent-off", 1),
    ]
    assert found(rules, "Save on 20% of it") == [("offer.percent-off", 0)]


def test_a_match_at_the_end_of_a_segment_is_its_own() -> None:
    """A pattern bound to the end of its segment is not attributed to the next one."""
    rules = rule_set(OFFER.replace('"<percent> off"', '"^shop now$"').replace("Get 20% off.", "Shop now!"))
    assert found(rules, "Shop now!", "Shop now and then", "shop now >") == [
        ("offer.percent-off", 0),
        ("offer.percent-off", 2),
    ]


def test_offsets_survive_foreign_text() -> None:
    """Text outside ASCII moves no match into another segment."""
    assert found(rule_set(), "Привет и €5", "Só agora: 20% off", "x") == [("offer.percent-off", 1)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("offer.percent-off", "Offer"), "id: 'Offer': theme.name in lower case"),
        (('"marketing"', '"promo"'), "label: 'promo': one of neutral, service, survey, re_permission, marketing"),
        (("weight = 3", "weight = 9"), "weight: 9: a number above 0, at most 6.0"),
        (("weight = 3", "weight = true"), "weight: True: a number above 0"),
        (("<percent> off", "(off"), "patterns: '(off': character 1: an open bracket"),
        (("weight = 3", 'weight = 3\nin = ["header"]'), "in: ['header']: a list of subject, preheader"),
        (("weight = 3", 'weight = 3\nchannels = ["fax"]'), "channels: ['fax']: a list of email"),
        (("weight = 3", "weight = 3\nwieght = 3"), "wieght: unknown field; known: id, label"),
        (('cites = ["R12"]', "cites = []"), "cites: a list of at least 1 text"),
        (('"Get 20% off.", ', ""), "match: a list of at least 2 texts"),
        (('lang = "en"', 'lang = "english"'), "a.toml: lang: 'english': a two-letter language code"),
        (('"marketing"', '["marketing"]'), "label: ['marketing']: one of"),
        (("weight = 3", 'weight = 3\nin = [["a"]]'), "in: [['a']]: a list of"),
        (("<percent> off", ","), "which matches nothing"),
        (('lang = "en"', "lang = "), "a.toml: not valid TOML"),
        (("[[rule]]", "[rule]"), "a.toml: rule: write [[rule]]"),
        ((OFFER, ""), "rules: no rule found"),
    ],
)
def test_problems_name_place_and_what_is_allowed(change: tuple[str, str], problem: str) -> None:
    """A rule file that cannot be used is refused, naming file, rule, field, value and what is allowed."""
    with pytest.raises(RuleError) as error:
        parse_rules({"a.toml": OFFER.replace(*change)})
    assert problem in str(error.value)


def test_all_problems_are_listed_at_once() -> None:
    """Two files with three mistakes give three problems, among them an id used twice."""
    with pytest.raises(RuleError) as error:
        parse_rules({"a.toml": OFFER, "b.toml": OFFER + OFFER.partition("\n\n")[2].replace("20% of it", "")})
    assert len(error.value.problems) == 2
    with pytest.raises(RuleError) as error:
        parse_rules({"a.toml": OFFER, "b.toml": OFFER})
    assert "this id is taken by a.toml: rule 1" in str(error.value)


def test_examples_are_run() -> None:
    """An example that contradicts its rule is a problem; the shipped examples of a good rule are none."""
    assert check_examples(rule_set()) == []
    (problem,) = check_examples(rule_set(OFFER.replace("20% of it", "20% off it")))
    assert "must not match, and does" in str(problem)


def test_weights_override_and_are_part_of_the_version() -> None:
    """A weights file changes weights and version; an unknown rule, kind or key in it is an error."""
    rules = parse_rules({"a.toml": OFFER})
    text = 'version = "7"\nthreshold = 1.5\n[kinds]\nfooter = 0.1\n[rules]\n"offer.percent-off" = 0.7\n'
    weights = parse_weights("weights.toml", text, IDS)
    assert compile_rules(rules, weights).weight(0) == 0.7
    assert (weights.threshold, weights.kinds) == (1.5, {SegmentKind.FOOTER: 0.1})
    assert version_of(rules, weights) != version_of(rules, Weights())
    changed = parse_weights("weights.toml", text.replace("1.5", "1.6"), IDS)
    assert version_of(rules, weights) != version_of(rules, changed)
    with pytest.raises(RuleError) as error:
        parse_weights("weights.toml", 'vers = 1\nslope = "x"\n[kinds]\nhat = 1\n[rules]\nnone = 1\n', IDS)
    assert len(error.value.problems) == 5


@pytest.mark.parametrize(
    "line",
    ["threshold = nan", "threshold = inf", "slope = -1", "intercept = 3", "scattered = 2", "kinds = 3", "rules = []"],
)
def test_weights_are_bounded(line: str) -> None:
    """A weight that would switch judging off, or turn it round, is refused."""
    with pytest.raises(RuleError, match=r"a number from|a table of numbers"):
        parse_weights("w.toml", f'version = "1"\n{line}\n', IDS)


def test_a_kind_cannot_be_switched_off() -> None:
    """Neither a kind nor a rule can be given weight 0 or less."""
    for table in ("[kinds]\nparagraph = 0", "[kinds]\nparagraph = -5", '[rules]\n"offer.percent-off" = nan'):
        with pytest.raises(RuleError, match="not 0"):
            parse_weights("w.toml", f'version = "1"\n{table}\n', IDS)


TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "in", "label", "x"]), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["id", "label", "weight", "patterns", "in", "channels", "cites", "match"]), TOML)
)
def test_any_rule_is_read_or_refused(entry: dict[str, object]) -> None:
    """Whatever a rule's fields hold, reading it gives rules or a RuleError."""
    try:
        parse_rules({"a.toml": "rule = [" + _inline(entry) + "]"})
    except RuleError as error:
        refused = error
    else:
        return
    assert refused.problems


def _inline(value: object) -> str:
    """A value as TOML; None becomes a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value if value is not None else "none")


def test_the_version_follows_the_content() -> None:
    """The same rules have the same version in any file; a changed pattern gives another."""
    rules = parse_rules({"a.toml": OFFER})
    assert version_of(rules, Weights()) == version_of(parse_rules({"other.toml": OFFER}), Weights())
    changed = parse_rules({"a.toml": OFFER.replace("<percent> off", "<percent> discount")})
    assert version_of(rules, Weights()) != version_of(changed, Weights())


@pytest.mark.parametrize(("label", "value"), [("marketing", "true"), ("service", '"yes"'), ("neutral", "1")])
def test_only_service_can_be_time_critical(label, value):
    """A rule of another label, or another word than true or false, is refused with what is allowed."""
    text = f"""[[rule]]
id = "a.b"
label = "{label}"
weight = 1
time_critical = {value}
patterns = ["word"]
cites = ["R1"]
match = ["word", "a word"]
no_match = ["none", "nothing"]
"""
    with pytest.raises(RuleError, match="time_critical"):
        parse_rules({"own.toml": text})

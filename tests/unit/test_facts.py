"""What is kept of a classification is enough for the policy, and nothing else is taken for it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.consent import ConsentState
from filter.errors import InputError
from filter.facts import NO_FACTS, Facts, facts_of
from filter.labels import Label
from filter.message import DefectCode
from filter.policy import Policy, Trouble, decide

from .test_policy import TEXT, answer, judged

CONSENTS = [*[answer(state) for state in ConsentState], *Trouble]
FACTS = st.builds(
    Facts,
    label=st.sampled_from(Label),
    score=st.floats(0, 1),
    disguised=st.booleans(),
    unread=st.lists(st.sampled_from(DefectCode)).map(tuple),
    obfuscated=st.booleans(),
    service_shown=st.floats(0, 1000),
    threshold=st.floats(0, 10),
    decisive_rules=st.lists(st.text()).map(tuple),
    time_critical=st.booleans(),
)


@given(FACTS)
def test_facts_survive_being_kept(facts: Facts) -> None:
    """What is read is what was written, on one line."""
    assert Facts.from_json(facts.to_json()) == facts
    assert "\n" not in facts.to_json()


@pytest.mark.parametrize("text", [*TEXT.values(), "hello", "whiff", "whiff of service"])
@pytest.mark.parametrize(
    "defect", [DefectCode.ENCRYPTED, DefectCode.IMAGE_ONLY, DefectCode.OBFUSCATED, DefectCode.ATTACHMENT]
)
def test_facts_lead_to_the_same_verdict(text: str, defect: DefectCode) -> None:
    """The policy decides on kept facts as it does on the classification."""
    classification = judged(text, defect, declared="service")
    facts = Facts.from_json(facts_of(classification).to_json())
    for consent in CONSENTS:
        assert decide(facts, consent, Policy()) == decide(classification, consent, Policy())


GOOD: dict[str, Any] = json.loads(facts_of(judged("promotion", DefectCode.ENCRYPTED)).to_json())


@pytest.mark.parametrize(
    "text",
    [
        *("", NO_FACTS, "[]", "null", '"service"', "{", "[" * 100_000),
        *(json.dumps({key: value for key, value in GOOD.items() if key != gone}) for gone in GOOD),
        json.dumps({**GOOD, "label": "advert"}),
        json.dumps({**GOOD, "unread": ["unheard_of"]}),
        json.dumps({**GOOD, "unread": "encrypted"}),
        json.dumps({**GOOD, "score": "high"}),
        json.dumps({**GOOD, "score": True}),
        json.dumps({**GOOD, "service_shown": float("nan")}),
        json.dumps({**GOOD, "service_shown": float("inf")}),
        json.dumps({**GOOD, "disguised": 0}),
        json.dumps({**GOOD, "decisive_rules": [1]}),
        json.dumps({**GOOD, "more": 1}),
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    """Facts that are incomplete, unknown or out of range are an error, never a guess."""
    with pytest.raises(InputError, match="facts of a held message"):
        Facts.from_json(text)

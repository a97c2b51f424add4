"""The fuzzers still fit what they feed; how fuzz_message.py judges speed is for `make fuzz` alone."""

import os
import sys
from pathlib import Path

import pytest
from support.processes import run

pytestmark = pytest.mark.integration

FUZZ = Path(__file__).parents[1] / "fuzz"


@pytest.mark.parametrize("name", ["fuzz_consent.py", "fuzz_smtp.py"])
def test_a_few_inputs_find_nothing(name: str) -> None:
    """The first few hundred inputs, always the same ones, end as the documents say."""
    done = run([sys.executable, FUZZ / name, "300"], {"PATH": os.environ["PATH"]})
    assert done.code == 0, done.output
    assert done.output.startswith("300 inputs, no failure")

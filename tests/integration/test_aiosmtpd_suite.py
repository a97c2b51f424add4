"""aiosmtpd's own tests pass with our class in the place of aiosmtpd's."""

import importlib.resources
import os
import re
import subprocess
import sys

import pytest
from support.aiosmtpd_names import LEFT_OUT, MODULES

pytestmark = pytest.mark.integration

AT_LEAST = 60


def test_aiosmtpd_suite(root, tmp_path):
    """What is not left out for a stated reason passes (A16)."""
    tests = importlib.resources.files("aiosmtpd") / "tests"
    command = [sys.executable, "-m", "pytest", "-p", "support.aiosmtpd_suite", "-p", "no:cacheprovider", "-q"]
    command += ["--import-mode=prepend", f"--rootdir={tmp_path}", "-W", "ignore", "-c", os.devnull]
    command += [str(tests / module) for module in MODULES]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= AT_LEAST


def test_everything_left_out_has_a_reason():
    """No pattern stands without a word on why."""
    assert all(LEFT_OUT.values())

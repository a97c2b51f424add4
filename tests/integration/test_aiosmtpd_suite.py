"""aiosmtpd's own tests, with our class in the place of aiosmtpd's, pass or fail as is known and explained."""

import importlib.resources
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support.aiosmtpd_names import EXPECTED_FAILURES, NOT_OUR_CLASS, PARTS

pytestmark = pytest.mark.integration

AT_LEAST = 200


def test_aiosmtpd_suite(root, tmp_path):
    """Every test passes, except those that fail for a stated reason, and these do fail (A16)."""
    with ThreadPoolExecutor(len(PARTS)) as pool:
        runs = list(pool.map(partial(run_part, root, tmp_path), PARTS))
    for run in runs:
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert sum(int(re.findall(r"(\d+) passed", run.stdout)[-1]) for run in runs) >= AT_LEAST


def test_everything_left_out_has_a_reason():
    """No test is left out or fails without a word on why, and none for two reasons."""
    assert all(NOT_OUR_CLASS.values())
    assert all(reason and names for reason, names in EXPECTED_FAILURES.items())
    listed = [name for names in EXPECTED_FAILURES.values() for name in names]
    assert len(listed) == len(set(listed))


def run_part(root, directory, modules):
    """Run modules of aiosmtpd's tests in a process of their own."""
    tests = importlib.resources.files("aiosmtpd") / "tests"
    command = [sys.executable, "-m", "pytest", "-p", "support.aiosmtpd_suite", "-p", "no:cacheprovider", "-q"]
    command += ["--import-mode=prepend", f"--rootdir={directory}", "-W", "ignore", "-c", os.devnull]
    command += ["--tb=line", "--assert=plain"]  # hundreds of expected failures are not worth a description
    command += [str(tests / module) for module in modules]
    own = {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]), "ASYNCIO_CATCHUP_DELAY": "0.05"}
    return subprocess.run(
        command, cwd=directory, env=os.environ | own, capture_output=True, text=True, timeout=90, check=False
    )

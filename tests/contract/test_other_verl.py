# SPDX-License-Identifier: Apache-2.0
"""The contract holds for every release that REQUIRED_VERL.txt says is tested, not only for the installed one."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.verl_releases import INSTALLED, folder_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REQUIRED = (ROOT / "REQUIRED_VERL.txt").read_text()
TESTED = re.search(r"^# tested: (.*)$", REQUIRED, re.MULTILINE)[1].split()


def test_the_range_is_that_of_the_package():
    needs = [Requirement(text) for text in requires("verl-ext")]
    (ours,) = [need.specifier for need in needs if need.name == "verl" and need.marker is None]
    (said,) = [Requirement(line) for line in REQUIRED.splitlines() if not line.startswith("#")]
    assert said.specifier == ours
    assert INSTALLED in TESTED


@pytest.mark.parametrize("release", [release for release in TESTED if release != INSTALLED])
def test_the_contract(release):
    path = os.pathsep.join([str(folder_of(release)), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path}
    version = "from importlib.metadata import version; print(version('verl'))"
    seen = subprocess.run([sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == release
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_verl_api.py"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout

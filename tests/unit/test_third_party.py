# SPDX-License-Identifier: Apache-2.0
"""A package of somebody else's adds a method through the public API: the one that docs/adding_a_method.md prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"
TRAIN = """
import sys
import torch
from support.configuration import configuration
from verl_ext.errors import ConfigurationError
from verl_ext.integration.advantage import combined, method_weights
from verl_ext.integration.config import parse
from verl_ext.integration.plan import plan
from verl_ext.integration.validation import validate
from verl_ext.methods.base import RolloutSignals

try:
    config = configuration(*sys.argv[1:])
    validate(config)
except ConfigurationError as error:
    print(error)
    sys.exit(0)
perception = parse(config.perception)
mask = torch.tensor([[True, True, False]])
measured = {signal: torch.tensor([[0.5, 1.0, 9.0]]) for signal in perception.signals}
signals = RolloutSignals(mask, torch.tensor([True]), torch.tensor([0]), torch.zeros(1, 3), measured)
print([method.name for method in perception.methods], config.actor_rollout_ref.actor.clip_ratio_high)
print(sorted(signal.field for signal in perception.signals), plan(perception.signals).separate)
print(combined(method_weights(perception.methods, signals)).tolist())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The page's package, installed by pip where only its users see it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    files = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert {name for name, _ in files} == {
        "./pyproject.toml",
        "./louder/__init__.py",
        "./louder/config/perception/louder.yaml",
        "./hydra_plugins/louder_searchpath.py",
    }
    for name, text in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
    ]
    subprocess.run([*command, source], check=True, capture_output=True)
    return target


def run(installed, *overrides):
    path = os.pathsep.join([str(installed), str(PAGE.parents[1] / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "VERL_PLATFORM": "cpu", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_its_group_its_signal_and_its_weights(installed):
    assert run(installed, "+perception=louder")[-3:] == [
        "['louder'] 0.28",
        "['visual_similarity_cosine_last_prototype'] ()",
        "[[1.25, 1.5, 0.0]]",
    ]


def test_it_composes_with_ours(installed):
    lines = run(installed, "+perception=louder", "perception.methods=[louder,vgpo]", "perception.louder.gain=1")
    assert lines[-3] == "['louder', 'vgpo'] 0.28"
    alone = run(installed, "+perception=louder", "perception.methods=[vgpo]", "~perception.louder")
    both, ours = (json.loads(line[-1]) for line in (lines, alone))
    assert both[0] == pytest.approx([1.5 * ours[0][0], 2.0 * ours[0][1], 0.0])


def test_its_parameters_are_checked(installed):
    assert run(installed, "+perception=louder", "perception.louder.gain=11")[-1] == (
        "perception.louder.gain=11: write a value between 0 and 10"
    )
    assert run(installed, "+perception=louder", "+perception.louder.gian=1")[-1].endswith("did you mean 'gain'?")

# SPDX-License-Identifier: Apache-2.0
"""A package of somebody else's adds a method through the public API: the one that docs/adding_a_method.md prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "adding_a_method.md"
TRAIN = """
import json
import sys
import torch
from support.configuration import configuration
from verl_ext.errors import ConfigurationError
from verl_ext.methods.credit import combined, method_weights
from verl_ext.configuration.section import parse
from verl_ext.passes.signals_by_pass import plan
from verl_ext.configuration.validation import validate
from verl_ext.methods.base import RolloutSignals

def told(overrides):
    try:
        config = configuration(*overrides)
        validate(config)
    except ConfigurationError as error:
        return str(error)
    perception = parse(config.perception)
    mask = torch.tensor([[True, True, False]])
    measured = {signal: torch.tensor([[0.5, 1.0, 9.0]]) for signal in perception.signals}
    signals = RolloutSignals(mask, torch.tensor([True]), torch.tensor([0]), torch.zeros(1, 3), measured)
    return {
        "methods": [method.name for method in perception.methods],
        "clip": config.actor_rollout_ref.actor.clip_ratio_high,
        "signals": sorted(signal.field for signal in perception.signals),
        "passes": plan(perception.signals).separate,
        "weights": combined(method_weights(perception.methods, signals)).tolist(),
    }

print(json.dumps([told(overrides) for overrides in json.loads(sys.argv[1])]))
"""
ASKED = {
    "alone": [],
    "with ours": ["perception.methods=[louder,vgpo]", "perception.louder.gain=1"],
    "ours": ["perception.methods=[vgpo]", "~perception.louder"],
    "too large": ["perception.louder.gain=11"],
    "misspelt": ["+perception.louder.gian=1"],
}


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


@pytest.fixture(scope="module")
def told(installed):
    """{question: what a process in which the package is installed says of these overrides}."""
    path = os.pathsep.join([str(installed), str(PAGE.parents[1] / "tests")])
    questions = [["+perception=louder", *overrides] for overrides in ASKED.values()]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(questions)],
        capture_output=True,
        text=True,
        env={**os.environ, "VERL_PLATFORM": "cpu", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(ASKED, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_its_group_its_signal_and_its_weights(told):
    assert told["alone"] == {
        "methods": ["louder"],
        "clip": 0.28,
        "signals": ["visual_similarity_cosine_last_prototype"],
        "passes": [],
        "weights": [[1.25, 1.5, 0.0]],
    }


def test_it_composes_with_ours(told):
    both, ours = told["with ours"], told["ours"]["weights"]
    assert both["methods"] == ["louder", "vgpo"]
    assert both["clip"] == 0.28
    assert both["weights"][0] == pytest.approx([1.5 * ours[0][0], 2.0 * ours[0][1], 0.0])


def test_its_parameters_are_checked(told):
    assert told["too large"] == "perception.louder.gain=11: write a value between 0 and 10"
    assert told["misspelt"].endswith("did you mean 'gain'?")

# SPDX-License-Identifier: Apache-2.0
"""The patches for verl: each applies to the verl that is installed, and does what patches/README.md says."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import verl
from contract.patched import equal_rewards
from support import tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VERL = Path(verl.__file__).parent
VERSION = importlib.metadata.version("verl")
OWN = ROOT / "patches" / f"verl-{VERSION}"
FOLDER = OWN if OWN.is_dir() else ROOT / "patches" / "verl-0.9.1"
PATCHES = sorted(FOLDER.glob("*.patch"))


def applied(patches, tree):
    """A copy of the installed verl under `tree`, patched."""
    shutil.copytree(VERL, tree / "verl", dirs_exist_ok=True)
    # Were `tree` inside a checkout, git would take the paths as relative to the checkout and skip them all.
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    for patch in patches:
        command = ["git", "apply", "--whitespace=nowarn", str(patch)]
        done = subprocess.run(command, cwd=tree, env=outside, capture_output=True, text=True)
        if done.returncode:
            where = f"{patch.relative_to(ROOT)} does not apply to verl {VERSION}"
            pytest.fail(f"{where}: patches/verl-{VERSION}/ is missing or wrong\n{done.stderr}", pytrace=False)
    return tree


@cache
def named(name):
    (patch,) = (patch for patch in PATCHES if patch.stem.endswith(name))
    return patch


def start(program, *paths):
    """A Python process that finds `paths` before the installed packages."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(str(path) for path in (*paths, ROOT / "tests", inherited) if str(path))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, *program]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def facts(process, tree=VERL.parent):
    """What a program under contract/patched reports; that it ran with the verl of `tree` is checked."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    found = json.loads(out.splitlines()[-1])
    assert Path(found["verl"]).parent == tree / "verl"
    return found


def program(name):
    return ["-m", f"contract.patched.{name}"]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_applies_and_changes_what_it_names(patch, tmp_path):
    tree = applied([patch], tmp_path)
    for name in re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(), re.MULTILINE):
        assert (tree / name).read_bytes() != (VERL.parent / name).read_bytes(), name


def test_the_patches_apply_together(tmp_path):
    assert len(PATCHES) == 4
    applied(PATCHES, tmp_path)


def test_a_patch_that_does_not_apply_is_named_with_the_version(tmp_path):
    with pytest.raises(pytest.fail.Exception, match=rf"does not apply to verl {re.escape(VERSION)}: patches/verl-"):
        applied([PATCHES[0], PATCHES[0]], tmp_path)


def test_the_readme_lists_every_patch_and_this_version():
    text = (ROOT / "patches" / "README.md").read_text()
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(\S+\) \| ([^|]+) \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == [patch.stem for patch in PATCHES]
    for name, versions in rows:
        assert VERSION in versions.split(", "), f"patches/README.md does not say whether {name} is for verl {VERSION}"
    for target in re.findall(r"\]\((?!https://)([^)#]+)\)", text):
        assert (ROOT / "patches" / target).exists(), target


def test_logits_of_response_tokens_alone(tmp_path):
    tree = applied([named("response-only-lm-head")], tmp_path)
    found = facts(start(program("response_only_lm_head"), tree), tree)
    assert found["seen_full"] == found["tokens"]
    assert found["seen_short"] == found["responses"] < found["tokens"] / 2
    assert found["bit_equal"] == {"log_probs": True, "entropy": True}
    assert found["distinct"] > found["responses"] / 2
    assert found["elsewhere"] == found["responses"]
    assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-6)
    assert found["same_parameters"]
    assert found["gradient_error"] < 1e-5 * found["largest_gradient"]
    assert found["largest_gradient"] > 1e-3
    assert [said is not None and "use_remove_padding=True" in said for said in found["refusals"]] == [True] * 3 + [
        False
    ]
    assert found["layouts_agree"]


def test_equal_rewards_have_no_advantage(tmp_path):
    tree = applied([named("equal-rewards")], tmp_path)
    after = start(program("equal_rewards"), tree)
    before, after = equal_rewards.main(), facts(after, tree)
    for name in equal_rewards.ESTIMATORS:
        noise = before["eight of 0.9"][name]
        assert noise == pytest.approx([-0.056] * 8, abs=5e-4)
        assert after["eight of 0.9"][name] == [0.0] * 8
        assert after["largest of equal rewards"][name] == 0.0 < before["largest of equal rewards"][name]
        assert after["different rewards"][name] == before["different rewards"][name]


def test_a_dummy_load_keeps_buffers(tmp_path):
    tree = applied([named("dummy-load-keeps-buffers")], tmp_path)
    processes = start(program("dummy_load")), start(program("dummy_load"), tree)
    before, after = facts(processes[0]), facts(processes[1], tree)
    trained, buffers = ["projection.bias", "projection.weight"], ["input_norm.bias", "input_norm.weight"]
    assert (before["kept"], before["replaced"]) == (["cache"], [*buffers, *trained])
    assert (after["kept"], after["replaced"]) == (["cache", *buffers], trained)
    assert max(map(abs, before["pixels"])) < 0.3
    assert after["pixels"] == after["pixels as built"]
    assert min(after["pixels"]) < -1.4
    assert max(after["pixels"]) > 1.9


def test_the_actor_has_no_tensor_that_could_restore_them():
    assert not [name for name in tiny.model(torch.float32).state_dict() if "input_norm" in name]


def test_a_plug_in_that_fails_is_reported(tmp_path):
    tree = applied([named("plugin-errors")], tmp_path / "patched")
    plugin = tmp_path / "plugin"
    metadata = plugin / "broken_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[verl.plugins]\nbroken = broken_plugin\n")
    (plugin / "broken_plugin.py").write_text('raise RuntimeError("the plug-in is broken")\n')
    code = ["-c", "import json, verl; print(json.dumps({'verl': verl.__file__}))"]
    processes = start(code, plugin), start(code, tree, plugin)
    (_, before), (out, after) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert Path(json.loads(out.splitlines()[-1])["verl"]).parent == tree / "verl"
    assert "broken" not in before
    assert "ERROR" in after
    assert "Failed to load plugin 'broken' (broken_plugin)" in after
    assert "RuntimeError: the plug-in is broken" in after
    assert 'broken_plugin.py", line 1' in after

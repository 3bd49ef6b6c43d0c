# SPDX-License-Identifier: Apache-2.0
"""The soak, for a few steps: every role is watched, and nothing of this package's stays behind."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.runs import FOREGROUND
from support.tiny import ROOT

STEPS = 4
SMALLER = [
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
    "data.val_max_samples=4",
]
ROLES = {
    "driver",
    "task runner",
    "actor worker",
    "vLLM server",
    "vLLM engine core",
    "vLLM worker",
    "agent loop",
    "reward loop",
    "TransferQueue controller",
    "TransferQueue storage",
    "raylet",
    "gcs",
}
# Shared memory of vLLM's message queues, and semaphores of its processes; sockets and rendezvous files of vLLM's, locks
# of verl's checkpoints, and the folder of torch's compiler.
KNOWN = {"shared_memory": {"psm_*", "sem.mp-*"}, "temporary": {"*", "ckpt_*.lock", "vllm_dist_*", "torchinductor_*"}}


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    """(the folder of the finished run, what was printed)."""
    folder = tmp_path_factory.mktemp("soak") / "run"
    command = [sys.executable, ROOT / "scripts/soak.py", "--light", f"--steps={STEPS}", f"--folder={folder}", *SMALLER]
    environment = {**os.environ, **FOREGROUND}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, cwd=folder.parent)
    log = folder / "train.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text()[-4000:] if log.exists() else "")
    return folder, done.stdout


def test_every_role_is_watched(soak):
    samples = [json.loads(line) for line in (soak[0] / "samples.jsonl").read_text().splitlines()]
    assert len(samples) > 5
    assert {role for sample in samples for role in sample["roles"]} >= ROLES
    assert max(sample["step"] for sample in samples) >= STEPS - 1
    actor = [sample["roles"]["actor worker"] for sample in samples if "actor worker" in sample["roles"]]
    assert max(held["uss_mb"] for held in actor) > 100
    assert min(held["fds"] for held in actor) > 0


def test_it_does_what_a_soak_does(soak):
    folder = soak[0]
    assert {path.parent.name for path in folder.glob("global_step_*/actor")} == {"global_step_3", "global_step_4"}
    assert len(list((folder / "rollouts").glob("*.jsonl"))) == STEPS
    assert list((folder / "perception_tokens").glob("step_*.parquet"))
    steps = [json.loads(line) for line in next(folder.glob("metrics*.jsonl")).read_text().splitlines()]
    assert any(name.startswith("val-core/") for step in steps for name in step["data"])


def test_nothing_of_this_packages_is_left(soak):
    (end,) = [json.loads(line) for line in (soak[0] / "ends.jsonl").read_text().splitlines()]
    assert end["processes"] == 0
    for place, known in KNOWN.items():
        names = {re.sub(r"^torchinductor_.*", "torchinductor_*", name) for name in end[place]}
        assert names <= known, place


def test_the_report(soak):
    folder, printed = soak
    found = json.loads((folder / "report.json").read_text())
    assert found["steps"] == STEPS
    assert found["lowest_correlation"] > 0.999
    assert (folder / "report.md").read_text().strip() in printed
    assert re.search(r"^\| actor worker \| 1 \| ", printed, re.MULTILINE)


def test_a_finished_one_is_only_told_again(soak):
    folder, printed = soak
    command = [sys.executable, ROOT / "scripts/soak.py", f"--steps={STEPS}", f"--folder={folder}"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout.strip() in printed

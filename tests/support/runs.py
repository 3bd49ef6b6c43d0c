# SPDX-License-Identifier: Apache-2.0
"""Whole runs of `python -m verl.trainer.main_ppo` with Ray, FSDP2 and the real vLLM, on the tiny model."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.tiny import MODEL, ROOT
from verl_ext.platforms.cpu.environment import ENVIRONMENT

FOREGROUND = {"RAY_worker_niceness": "0"}
"""Ray would run its workers behind whatever else the tests do."""


@dataclass
class Run:
    """What a finished run left behind."""

    status: int
    output: str
    folder: Path

    @property
    def steps(self):
        """{step: metrics}."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return {entry["step"]: entry["data"] for entry in map(json.loads, lines)}

    def generations(self, step):
        """The prompts and responses of a training step, as verl dumps them."""
        return [json.loads(line) for line in (self.folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]


def train(folder, data, *overrides, steps=2, environment=None, only=None, checkpoints=None):
    """Run it to the end, or until it fails.

    `environment` is added to the usual one, and `only` takes its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = training_command(folder, data, *overrides, steps=steps, checkpoints=checkpoints)
    environment = only or {**usual_environment(folder), **(environment or {})}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900)
    return Run(done.returncode, done.stdout + done.stderr, folder)


def usual_environment(folder):
    return {
        **os.environ,
        **ENVIRONMENT,
        **FOREGROUND,
        "PYTHONPATH": str(ROOT / "tests"),
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
    }


def training_command(folder, data, *overrides, steps, checkpoints=None):
    return [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        "+platform=cpu",
        f"data.train_files={data / 'train.parquet'}",
        f"data.val_files={data / 'test.parquet'}",
        "data.train_batch_size=4",
        "data.max_prompt_length=96",
        "data.max_response_length=32",
        "data.seed=1",
        f"actor_rollout_ref.model.path={MODEL}",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.max_model_len=128",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.optim.lr=1e-4",
        "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer",
        "trainer.logger=[console,file]",
        f"trainer.total_training_steps={steps}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        f"trainer.rollout_data_dir={folder / 'rollouts'}",
        f"trainer.default_local_dir={checkpoints or folder / 'checkpoints'}",
        f"hydra.run.dir={folder / 'hydra'}",
        *overrides,
    ]

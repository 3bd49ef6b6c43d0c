# SPDX-License-Identifier: Apache-2.0
"""The results of all runs, read and turned into one number a run and quantity."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from study.arms import ARMS, BY_NAME, Arm
from verl_ext.errors import DataError

BASELINE = "grpo"
FEWEST = 2
ANEW = "delete its file, or run all anew with another folder for --results"
Number = Callable[["Run"], float]


@dataclass(frozen=True)
class Run:
    """One finished run, as study/run.py wrote it."""

    arm: str
    seed: int
    data: Mapping[str, Any]

    def accuracy(self, view: str = "image", kind: str = "all") -> float:
        """Share of right answers, sampled at temperature 1."""
        return float(self.data["evaluation"]["accuracy"][view][kind])

    @property
    def gap(self) -> float:
        """Accuracy with the image minus accuracy without."""
        return self.accuracy() - self.accuracy("blind")

    def greedy(self, view: str = "image", kind: str = "all") -> float:
        """Share of right answers among greedy responses."""
        return float(self.data["evaluation"]["greedy"][view][kind])

    @property
    def right_form(self) -> float:
        """Share of the responses that have the form which the prompt asks for."""
        return float(self.data["evaluation"]["format"])

    @property
    def visual_dependency(self) -> float:
        """Nats a token, on the test questions."""
        return float(self.data["evaluation"]["visual_dependency"])

    @property
    def tokens(self) -> float:
        """Mean tokens of a response to a test question."""
        return float(self.data["evaluation"]["response_tokens"])

    @property
    def step_seconds(self) -> float:
        """Median of the steps after the first."""
        return median(self.column("timing_s/step")[1:])

    @property
    def tokens_a_second(self) -> float:
        """Of prompts and responses, over the steps after the first."""
        return sum(self.column("perf/total_num_tokens")[1:]) / sum(self.column("timing_s/step")[1:])

    @property
    def extra_pass(self) -> float | None:
        """Median share that the ablated pass adds to the rest of its own step; None for an arm without one."""
        seconds = self.data["steps"]["timing_s/ablated_log_prob"]
        if None in seconds:
            return None
        steps = zip(seconds, self.column("timing_s/step"), strict=True)
        return median(float(own) / (step - float(own)) for own, step in list(steps)[1:])

    def column(self, name: str) -> list[float]:
        """A metric at every step."""
        return [float(value) for value in self.data["steps"][name]]

    def mean(self, name: str) -> float | None:
        """Of a metric, over the steps that measured it; None if no step did."""
        measured = [float(value) for value in self.data["steps"][name] if value is not None]
        return fmean(measured) if measured else None

    def curve(self, start: float) -> list[tuple[int, float]]:
        """(step, accuracy with the image) of the evaluated checkpoints, from the model that all runs start with."""
        points = [(int(step), float(value)) for step, value in self.data["accuracy_at"].items()]
        return [(0, start), *points, (len(self.data["steps"]["timing_s/step"]), self.accuracy())]

    def steps_to(self, target: float, start: float) -> float:
        """First step at which the line through the checkpoints reaches `target`; infinite if it never does."""
        if start >= target:
            return 0.0
        for (step, low), (later, high) in itertools.pairwise(self.curve(start)):
            if high >= target > low:
                return step + (target - low) / (high - low) * (later - step)
        return math.inf


@dataclass(frozen=True)
class Results:
    """All runs by arm, in the arms' order, the evaluation of the model that they start from, and where they lie."""

    runs: Mapping[str, Sequence[Run]]
    start: Run
    folder: Path

    @property
    def arms(self) -> list[Arm]:
        """Those with enough runs for an interval."""
        return [arm for arm in ARMS if len(self.runs.get(arm.name, ())) >= FEWEST]

    @property
    def seeds(self) -> str:
        """How many seeds an arm has, in words."""
        counts = sorted(len(self.runs[arm.name]) for arm in self.arms)
        return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """What all runs share, as study/plan.py says."""
        settings: Mapping[str, Any] = self.runs[BASELINE][0].data["settings"]
        return settings

    @property
    def steps(self) -> int:
        """Of training."""
        return int(self.settings["plan"]["steps"])

    def by_seed(self, arm: str, number: Number) -> dict[int, float]:
        """A quantity of an arm's runs."""
        return {run.seed: number(run) for run in self.runs[arm]}


def read_results(folder: Path, arms: Sequence[str] = tuple(BY_NAME), seeds: int | None = None) -> Results:
    """The results in `folder`.

    Args:
        folder: with the files of study/run.py.
        arms: the names of those to read.
        seeds: those up to it; all without it.

    Raises:
        DataError: GRPO has too few, or runs were made with different packages, settings, questions or arguments.
    """
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in read_runs(folder):
        if run.arm in arms and (seeds is None or run.seed <= seeds):
            runs[run.arm].append(run)
    path = folder / "start.json"
    if len(runs[BASELINE]) < FEWEST or not path.exists():
        raise DataError(f"{folder}: {len(runs[BASELINE])} results of GRPO; `bash scripts/compare.sh` makes them")
    start = _read(path)
    check_alike(start.data, [run for found in runs.values() for run in found])
    return Results({name: sorted(found, key=lambda run: run.seed) for name, found in runs.items()}, start, folder)


def read_runs(folder: Path) -> list[Run]:
    """Every run in `folder`."""
    return [_read(path) for path in sorted(folder.glob("*-*.json"))]


def _read(path: Path) -> Run:
    data = json.loads(path.read_text())
    return Run(data.get("arm", path.stem), data.get("seed", 0), data)


def check_alike(shared: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """That runs can be compared.

    Args:
        shared: the versions, settings and inputs that all should have.
        runs: finished ones.

    Raises:
        DataError: one has others, or was made with arguments that its arm no longer has.
    """
    for run in runs:
        name = f"{run.arm}-{run.seed}"
        for what in ("versions", "settings", "inputs"):
            if (mine := run.data[what]) != shared[what]:
                raise DataError(f"{name}: made with {what} {mine}, not {shared[what]}; {ANEW}")
        arguments = list(BY_NAME[run.arm].with_seed(run.seed))
        if run.data["overrides"] != arguments:
            raise DataError(f"{name}: made with {run.data['overrides']}, its arm now has {arguments}; {ANEW}")

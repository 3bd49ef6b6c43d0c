# SPDX-License-Identifier: Apache-2.0
"""Print the accuracies that lmms-eval wrote into the folders of evaluate.sh: avg@N of the sampled runs, and greedy.

    evaluation_table.py OUTPUT

OUTPUT holds a folder a run (`sampled-0`, ..., `greedy`) with lmms-eval's `*_results.json` anywhere below it.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

ACCURACY = ("acc_score", "dynamath_average")
"""What the tasks of evaluate.sh call their accuracy, in [0, 1]."""

Scores = dict[str, float]
"""Accuracy by task."""


def main(output: Path) -> None:
    """Print the table.

    Raises:
        SystemExit: a run has no results, or lacks a task that another has.
    """
    runs = {folder.name: scores(folder) for folder in sorted(output.iterdir()) if folder.is_dir()}
    _check_complete(runs)
    sampled = [runs[name] for name in runs if name.startswith("sampled-")]
    print(f"{'task':<40} {f'avg@{len(sampled)}':>8} {'spread':>7} {'greedy':>8}")
    for task in sorted(_tasks(runs)):
        values = [run[task] for run in sampled]
        greedy = [runs["greedy"][task]] if "greedy" in runs else []
        print(f"{task:<40} {_mean(values):>8} {_spread(values):>7} {_mean(greedy):>8}")
    print("percent; spread: standard deviation between the sampled runs")


def scores(folder: Path) -> Scores:
    """Accuracy by task of the latest results below a folder.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(folder.rglob("*_results.json"))
    if not files:
        raise SystemExit(f"evaluation_table: no *_results.json in {folder}")
    results = json.loads(files[-1].read_text())["results"]
    found = {task: accuracy(metrics) for task, metrics in results.items()}
    return {task: value for task, value in found.items() if value is not None}


def accuracy(metrics: dict[str, Any]) -> float | None:
    """The accuracy among a task's metrics, whose names end in lmms-eval's filter; None for a group's empty row."""
    values = {name.partition(",")[0]: value for name, value in metrics.items()}
    return next((float(values[name]) for name in ACCURACY if isinstance(values.get(name), int | float)), None)


def _check_complete(runs: dict[str, Scores]) -> None:
    for name, run in runs.items():
        if missing := sorted(_tasks(runs) - run.keys()):
            raise SystemExit(f"evaluation_table: {name} has no accuracy of {', '.join(missing)}, which other runs have")


def _tasks(runs: dict[str, Scores]) -> set[str]:
    return {task for run in runs.values() for task in run}


def _mean(values: list[float]) -> str:
    return f"{100 * statistics.fmean(values):.2f}" if values else "-"


def _spread(values: list[float]) -> str:
    return f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("evaluation_table: name the folder that evaluate.sh wrote")
    main(Path(sys.argv[1]))

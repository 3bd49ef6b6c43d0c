# SPDX-License-Identifier: Apache-2.0
"""The plots of the page, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from study.comparisons import Comparisons
from study.results import BASELINE, Results
from study.statistics import interval
from verl_ext.report.colours import CATEGORICAL
from verl_ext.report.figures import STYLE

_WINDOW = 4
OWN, OTHER = CATEGORICAL[0], CATEGORICAL[1]


def draw_all(results: Results, folder: Path) -> None:
    """Write every plot into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"differences": differences, "looking": looking, "curves": curves}
    with rc_context(STYLE):
        for name, draw in drawings.items():
            # Without a date or version in it, the same results give the same file.
            draw(results).savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})


def differences(results: Results) -> Figure:
    """Accuracy, that of colours, and visual dependency of every arm minus GRPO, with intervals."""
    compared = Comparisons(results)
    names = ("accuracy", "colour accuracy", "visual dependency")
    arms = [arm for arm in results.arms if compared.has(arm.name, BASELINE)][::-1]
    figure = Figure(figsize=(7.5, 3.2))
    for number, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        for height, arm in enumerate(arms):
            entry = compared.minus(arm.name, BASELINE, name).found.interval
            axes.plot([entry.low, entry.high], [height, height], color=OWN, linewidth=1.4)
            axes.plot(entry.mean, height, "o", color=OWN, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(arms)), [arm.label if number == 0 else "" for arm in arms])
        axes.set_title(f"{name}, minus GRPO", fontsize=8, loc="left")
    return figure


def looking(results: Results) -> Figure:
    """Accuracy with the image against accuracy without it; each run a small point, each arm's mean a large one."""
    figure = Figure(figsize=(5.5, 3.6))
    axes = figure.add_subplot()
    for number, arm in enumerate(results.arms):
        runs = results.runs[arm.name]
        blind, seen = [run.accuracy("blind") for run in runs], [run.accuracy() for run in runs]
        colour, marker = CATEGORICAL[number % len(CATEGORICAL)], "os^D"[number // len(CATEGORICAL) % 4]
        axes.plot(blind, seen, marker, color=colour, markersize=3, alpha=0.35)
        axes.plot(fmean(blind), fmean(seen), marker, color=colour, markersize=7, label=arm.label, zorder=3)
    axes.plot(results.start.accuracy("blind"), results.start.accuracy(), "kx", label="before training")
    axes.set_xlabel("accuracy without the image")
    axes.set_ylabel("accuracy with the image")
    figure.legend(loc="outside right center")
    return figure


def curves(results: Results) -> Figure:
    """Training reward of every arm beside GRPO's, means over the seeds with intervals, smoothed over a few steps."""
    others = [arm for arm in results.arms if arm.name != BASELINE]
    columns = 4
    rows = -(-len(others) // columns)
    figure = Figure(figsize=(7.5, 1.7 * rows))
    axes = None
    for number, arm in enumerate(others):
        axes = figure.add_subplot(rows, columns, number + 1, sharey=axes)
        for name, colour in ((BASELINE, OTHER), (arm.name, OWN)):
            _band(axes, [_smooth(run.column("critic/score/mean")) for run in results.runs[name]], colour)
        axes.set_title(arm.label, fontsize=8, loc="left", color=OWN)
    return figure


def _band(axes: Any, lines: Sequence[Sequence[float]], colour: str) -> None:
    steps = range(1, len(lines[0]) + 1)
    found = [interval([line[step - 1] for line in lines]) for step in steps]
    axes.plot(steps, [entry.mean for entry in found], color=colour, linewidth=1.2)
    axes.fill_between(
        steps, [entry.low for entry in found], [entry.high for entry in found], color=colour, alpha=0.18, linewidth=0
    )


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and those just before it."""
    return [fmean(values[max(0, end - _WINDOW) : end]) for end in range(1, len(values) + 1)]

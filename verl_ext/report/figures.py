# SPDX-License-Identifier: Apache-2.0
"""Figures for a paper, as PNG files: curves of all runs, seconds by phase, and a response of each run as a heat map."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from verl_ext.report.colours import CATEGORICAL, REST
from verl_ext.report.heat_map import heat_map
from verl_ext.report.metrics_file import measured
from verl_ext.report.panels import OTHER_PHASE, Panel, panels, phase_seconds, points
from verl_ext.report.runs import Run

_DOTS_PER_INCH = 300
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "figure.constrained_layout.use": True,
}
"""Of all figures, as matplotlib's parameters."""

Drawing = tuple[str, Callable[[], Figure | None]]


def drawings(runs: Sequence[Run]) -> list[Drawing]:
    """(name of the file without its suffix, function that draws it or returns None) of all figures of these runs."""
    found = panels([measured(run.steps) for run in runs])
    curves: list[Drawing] = [(panel.key, partial(_curve, panel, runs)) for panel in found]
    return [*curves, ("cost_by_phase", partial(_cost, runs)), ("token_heat_map", partial(heat_map, runs))]


def write_figure(drawing: Drawing, folder: Path) -> Path | None:
    """Draw a figure and write it at print quality; None if these runs have nothing to show in it."""
    name, draw = drawing
    path = folder / f"{name}.png"
    with rc_context(STYLE), warnings.catch_warnings():
        # Responses have characters that no font of matplotlib has; it draws a box for them.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = draw()
        if figure is None:
            return None
        figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def colour(index: int) -> str:
    """The colour of a run or of a phase."""
    return CATEGORICAL[index % len(CATEGORICAL)]


def _curve(panel: Panel, runs: Sequence[Run]) -> Figure | None:
    figure = Figure(figsize=(3.5, 2.5))
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        for line in panel.lines[number]:
            _draw_line(axes, points(run.steps, line), colour(number), line.dashed)
    if not axes.lines:
        return None
    axes.set_title(panel.title, fontsize=8, loc="left")
    axes.set_xlabel("training step")
    axes.set_ylabel(panel.unit)
    _whole_steps(axes)
    _draw_legends(figure, panel, runs)
    return figure


def _draw_line(axes: Axes, values: Sequence[tuple[int, float]], shade: str, dashed: bool) -> None:
    if not values:
        return
    steps, numbers = zip(*values, strict=True)
    style = _style(dashed)
    marker = "o" if len(steps) <= 15 else ""
    axes.plot(steps, numbers, style, color=shade, marker=marker, markersize=2.5)


def _style(dashed: bool) -> Literal["-", "--"]:
    return "--" if dashed else "-"


def _draw_legends(figure: Figure, panel: Panel, runs: Sequence[Run]) -> None:
    """Above the plot the runs' colours, below it the kinds of line; each where there are several."""
    # matplotlib leaves out names that begin with an underscore, hence the space.
    colours = [Line2D([], [], color=colour(index), label=f" {run.label}") for index, run in enumerate(runs)]
    kinds = [Line2D([], [], color="#555555", linestyle=_style(line.dashed), label=line.name) for line in panel.kinds]
    if len(colours) > 1:
        legend = figure.legend(handles=colours, loc="outside upper center", ncols=3, fontsize=7)
        for text in legend.get_texts():
            text.set_parse_math(False)
    if len(kinds) > 1:
        figure.legend(handles=kinds, loc="outside lower center", ncols=3, fontsize=7)


def _whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))


def _cost(runs: Sequence[Run]) -> Figure | None:
    costs = [phase_seconds(run.steps) for run in runs]
    if not any(steps for steps, _ in costs):
        return None
    phases = _phases(seconds for _, seconds in costs)
    figure = Figure(figsize=(1.6 + 2.4 * len(runs), 2.4))
    every_axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, run, (steps, seconds) in zip(every_axes, runs, costs, strict=True):
        _stack(axes, steps, seconds, phases)
        axes.set_title(run.label, fontsize=8, loc="left", parse_math=False)
        axes.set_xlabel("training step")
    every_axes[0].set_ylabel("seconds a step")
    handles, names = every_axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside right center", fontsize=7)
    return figure


def _phases(every_seconds: Iterator[dict[str, list[float]]]) -> list[str]:
    """All phases, in the order of a step."""
    return list(dict.fromkeys(phase for seconds in every_seconds for phase in seconds))


def _stack(axes: Axes, steps: Sequence[int], seconds: Mapping[str, Sequence[float]], phases: Sequence[str]) -> None:
    bottom = [0.0] * len(steps)
    for number, phase in enumerate(phases):
        heights = seconds.get(phase, [0.0] * len(steps))
        shade = REST if phase == OTHER_PHASE else colour(number)
        axes.bar(steps, heights, width=1.0, bottom=bottom, color=shade, label=phase, linewidth=0)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    _whole_steps(axes)
    axes.grid(visible=False, axis="x")

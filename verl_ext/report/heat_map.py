# SPDX-License-Identifier: Apache-2.0
"""A figure of recorded responses, each token on the colour of its visual dependency, beside the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from verl_ext.report.colours import SEQUENTIAL
from verl_ext.report.images import thumbnail
from verl_ext.report.quantities import value_range
from verl_ext.report.record_files import Response
from verl_ext.report.runs import Run
from verl_ext.report.token_flow import Cell, flow

QUANTITY = "visual_dependency"
COLUMNS = 84
MOST_TOKENS = 400
_FONT_SIZE = 6.5
_ROW_HEIGHT = 0.155
_IMAGE_SIDE = 1.3
_WIDTH = 7.0


def heat_map(runs: Sequence[Run]) -> Figure | None:
    """One response of each run that has any with a measured dependency; None if no run has."""
    picked = [(run, response) for run in runs if (response := pick(run.responses))]
    if not picked:
        return None
    flows = [flow(response.tokens[:MOST_TOKENS], COLUMNS) for _, response in picked]
    heights = [max(_IMAGE_SIDE, _ROW_HEIGHT * (cells[-1].row + 1 if cells else 1)) + 0.3 for cells in flows]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.6))
    grid = figure.add_gridspec(len(picked), 2, width_ratios=[_IMAGE_SIDE, _WIDTH - _IMAGE_SIDE], height_ratios=heights)
    colours = _scale([response for _, response in picked])
    for row, ((run, response), cells) in enumerate(zip(picked, flows, strict=True)):
        _draw_image(figure.add_subplot(grid[row, 0]), response)
        axes = figure.add_subplot(grid[row, 1])
        axes.set_title(_title(run, response), fontsize=7, loc="left", parse_math=False)
        axes.set_ylim(heights[row] / _ROW_HEIGHT, 0)
        _draw_tokens(axes, cells, response.values[QUANTITY], colours)
    bar = figure.colorbar(colours, ax=figure.axes, location="bottom", shrink=0.4, aspect=35, extend="max", pad=0.02)
    bar.set_label("visual dependency, nats")
    return figure


def pick(responses: Sequence[Response]) -> Response | None:
    """A response of the newest step at which the dependency was measured, a right one with an image if there is any."""
    measured = [response for response in responses if response.values.get(QUANTITY)]
    return max(measured, key=lambda r: (r.step, r.accuracy or 0.0, bool(r.images)), default=None)


def _scale(responses: Sequence[Response]) -> ScalarMappable:
    values = np.array([value for response in responses for value in response.values[QUANTITY]])
    low, high = value_range(values, None)
    stops = LinearSegmentedColormap.from_list("report", SEQUENTIAL["light"])
    # The square root keeps apart the many small values of a quantity with a long tail.
    return ScalarMappable(PowerNorm(0.5, low, high, clip=True), stops)


def _title(run: Run, response: Response) -> str:
    left_out = len(response.tokens) - MOST_TOKENS
    more = f", first {MOST_TOKENS} of {len(response.tokens)} tokens" if left_out > 0 else ""
    return f"{run.label}, step {response.step}, reward {response.reward:.3g}{more}"


def _draw_image(axes: Axes, response: Response) -> None:
    axes.axis("off")
    axes.set_anchor("N")
    if response.images:
        axes.imshow(np.asarray(thumbnail(response.images[0], f"step {response.step}, uid {response.uid}")))


def _draw_tokens(axes: Axes, cells: Sequence[Cell], values: Sequence[float], colours: ScalarMappable) -> None:
    """One unit of the horizontal axis is a column, one of the vertical axis a row."""
    axes.axis("off")
    axes.grid(visible=False)
    axes.set_xlim(0, COLUMNS)
    for cell in cells:
        shade = colours.to_rgba(values[cell.token] if math.isfinite(values[cell.token]) else 0.0)
        axes.add_patch(Rectangle((cell.column, cell.row), cell.width, 0.92, facecolor=shade, linewidth=0))
        axes.text(
            cell.column,
            cell.row + 0.46,
            cell.text,
            family="monospace",
            size=_FONT_SIZE,
            va="center",
            color=_ink(shade),
            parse_math=False,
        )


def _ink(shade: tuple[float, ...]) -> str:
    """Black or white, whichever is read more easily on the shade."""
    red, green, blue = shade[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"

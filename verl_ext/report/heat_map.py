# SPDX-License-Identifier: Apache-2.0
"""A figure of recorded responses, each token on the colour of its visual dependency, beside the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from verl_ext.report.colours import SEQUENTIAL
from verl_ext.report.images import thumbnail
from verl_ext.report.quantities import value_range
from verl_ext.report.record_files import Response
from verl_ext.report.runs import Run
from verl_ext.report.token_flow import Cell, flow

QUANTITY = "visual_dependency"
COLUMNS = 96
MOST_TOKENS = 400

# Inches, but for the font's points; a character of DejaVu Sans Mono is 0.602 of its size wide.
_FONT_SIZE = 6.5
_COLUMN = 0.602 * _FONT_SIZE / 72
_ROW = 0.155
_IMAGE = 1.3
_MARGIN = 0.15
_TITLE = 0.2
_BAR = 0.5
_WIDTH = _IMAGE + COLUMNS * _COLUMN + 3 * _MARGIN


@dataclass(frozen=True)
class _Scale:
    """What colour a value has."""

    norm: PowerNorm
    stops: Colormap

    def shade(self, value: float) -> tuple[float, ...]:
        return self.stops(float(self.norm(value)) if math.isfinite(value) else 0.0)


@dataclass(frozen=True)
class _Part:
    """One response in the figure, its tokens laid out, its picture, and the height of it all in inches."""

    run: Run
    response: Response
    cells: list[Cell]
    picture: Image.Image | None

    @property
    def height(self) -> float:
        rows = self.cells[-1].row + 1 if self.cells else 1
        beside = _IMAGE * min(1.0, self.picture.height / self.picture.width) if self.picture else 0.0
        return _TITLE + max(beside, _ROW * rows) + _MARGIN


def heat_map(runs: Sequence[Run]) -> Figure | None:
    """One response of each run that has any with a measured dependency; None if no run has."""
    picked = [(run, response) for run in runs if (response := pick(run.responses))]
    if not picked:
        return None
    parts = [_part(run, response) for run, response in picked]
    figure = Figure(figsize=(_WIDTH, sum(part.height for part in parts) + _BAR))
    figure.set_layout_engine("none")
    colours = _scale([part.response for part in parts])
    top = figure.get_figheight()
    for part in parts:
        _draw_part(figure, part, top, colours)
        top -= part.height
    _draw_bar(figure, colours)
    return figure


def pick(responses: Sequence[Response]) -> Response | None:
    """A response of the newest step at which the dependency was measured, a right one with an image if there is any."""
    measured = [response for response in responses if response.values.get(QUANTITY)]
    return max(measured, key=lambda r: (r.step, r.accuracy or 0.0, bool(r.images)), default=None)


def _part(run: Run, response: Response) -> _Part:
    where = f"step {response.step}, uid {response.uid}"
    picture = thumbnail(response.images[0], where) if response.images else None
    return _Part(run, response, flow(response.tokens[:MOST_TOKENS], COLUMNS), picture)


def _scale(responses: Sequence[Response]) -> _Scale:
    values = np.array([value for response in responses for value in response.values[QUANTITY]])
    low, high = value_range(values, None)
    stops = LinearSegmentedColormap.from_list("report", SEQUENTIAL["light"])
    # The square root keeps apart the many small values of a quantity with a long tail.
    return _Scale(PowerNorm(0.5, low, high, clip=True), stops)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without anything drawn around them, at a place in inches."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = (top - height) / whole_height
    axes = figure.add_axes((left / whole_width, bottom, width / whole_width, height / whole_height))
    axes.axis("off")
    axes.grid(visible=False)
    return axes


def _draw_part(figure: Figure, part: _Part, top: float, colours: _Scale) -> None:
    left = _MARGIN
    if part.picture:
        axes = _axes(figure, _MARGIN, top - _TITLE, _IMAGE, _IMAGE)
        axes.set_anchor("NW")
        axes.imshow(np.asarray(part.picture))
        left += _IMAGE + _MARGIN
    height = part.height - _TITLE - _MARGIN
    axes = _axes(figure, left, top - _TITLE, COLUMNS * _COLUMN, height)
    axes.set_title(_title(part), fontsize=7, loc="left", pad=4, parse_math=False)
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(height / _ROW, 0)
    for cell in part.cells:
        _draw_cell(axes, cell, part.response.values[QUANTITY][cell.token], colours)


def _title(part: _Part) -> str:
    count = len(part.response.tokens)
    more = f", first {MOST_TOKENS} of {count} tokens" if count > MOST_TOKENS else ""
    return f"{part.run.label}, step {part.response.step}, reward {part.response.reward:.3g}{more}"


def _draw_cell(axes: Axes, cell: Cell, value: float, colours: _Scale) -> None:
    """One unit of the horizontal axis is a column, one of the vertical axis a row."""
    shade = colours.shade(value)
    axes.add_patch(Rectangle((cell.column, cell.row), cell.width, 0.92, facecolor=shade, linewidth=0))
    where = (cell.column, cell.row + 0.46, cell.text)
    axes.text(*where, family="monospace", size=_FONT_SIZE, va="center", color=_ink(shade), parse_math=False)


def _ink(shade: tuple[float, ...]) -> str:
    """Black or white, whichever is read more easily on the shade."""
    red, green, blue = shade[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def _draw_bar(figure: Figure, colours: _Scale) -> None:
    axes = _axes(figure, _WIDTH - 2.6 - _MARGIN, _BAR - 0.15, 2.6, 0.1)
    axes.axis("on")
    ticks = [float(colours.norm.inverse(place)) for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    bar = figure.colorbar(
        ScalarMappable(colours.norm, colours.stops), cax=axes, orientation="horizontal", ticks=ticks, format="%.2g"
    )
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=6, length=2)
    bar.ax.spines["outline"].set_linewidth(0.4)
    axes.set_ylabel("visual dependency, nats", rotation=0, ha="right", va="center", fontsize=7, labelpad=6)

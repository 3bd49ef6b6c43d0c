# SPDX-License-Identifier: Apache-2.0
"""Which metrics belong together in one plot, and which seconds make up a step."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from verl_ext.report.metrics_file import Step, series
from verl_ext.report.summary import PHASES
from verl_ext.report.validation import Validation, choose_metrics, sources

OTHER_PHASE = "other"


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: what the line shows; empty if its plot says it.
        metric: the metric.
        minus: a metric to subtract, or None.
        dashed: whether the line is dashed.
    """

    name: str
    metric: str
    minus: str | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        key: names the plot, and its file; no other plot has it, even where a file's name has no case.
        title: what it shows, for a reader.
        unit: of the vertical axis.
        lines: of each run, in the order of the runs; at least one run has one. Lines of one name belong together.
    """

    key: str
    title: str
    unit: str
    lines: tuple[tuple[Line, ...], ...]

    @property
    def kinds(self) -> list[Line]:
        """One line of each name."""
        return list({line.name: line for lines in self.lines for line in lines}.values())


@dataclass(frozen=True)
class _Template:
    """A plot of the same metrics in every run."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]


def panels(runs: Sequence[Collection[str]]) -> list[Panel]:
    """The plots for which there is at least one metric, each with the lines that there are.

    Args:
        runs: the names of each run's metrics.
    """
    rest = (_filled(template, runs) for template in _OTHERS)
    found = [_filled(_REWARD, runs), *_accuracy(runs), *rest]
    return _numbered([panel for panel in found if panel.kinds])


def points(steps: Sequence[Step], line: Line) -> list[tuple[int, float]]:
    """(step, value) of a line, at the steps at which all of its metrics are numbers."""
    values = series(steps, line.metric)
    if line.minus is None:
        return values
    subtracted = dict(series(steps, line.minus))
    return [(step, value - subtracted[step]) for step, value in values if step in subtracted]


def phase_seconds(steps: Sequence[Step]) -> tuple[list[int], dict[str, list[float]]]:
    """The timed steps, and the seconds of each phase at them; `other` is what the phases leave of a step."""
    totals = series(steps, "timing_s/step")
    measured = {phase: dict(series(steps, f"timing_s/{phase}")) for phase in PHASES if phase != "step"}
    seconds = {phase: [values.get(step, 0.0) for step, _ in totals] for phase, values in measured.items() if values}
    told = [sum(values) for values in zip(*seconds.values(), strict=True)] or [0.0] * len(totals)
    seconds[OTHER_PHASE] = [max(0.0, total - part) for (_, total), part in zip(totals, told, strict=True)]
    return [step for step, _ in totals], seconds


def _filled(template: _Template, runs: Sequence[Collection[str]]) -> Panel:
    lines = tuple(tuple(line for line in template.lines if line.metric in names) for names in runs)
    return Panel(template.key, template.title, template.unit, lines)


def _accuracy(runs: Sequence[Collection[str]]) -> Iterator[Panel]:
    """For each data source its accuracy with and without the image, and the difference."""
    found = sources(runs)
    for source in found:
        chosen = [choose_metrics(source, names) for names in runs]
        end = f": {source}" if len(found) > 1 else ""
        key = f"_{re.sub('[^A-Za-z0-9]+', '_', source)}" if len(found) > 1 else ""
        lines = tuple(_accuracy_lines(validation) for validation in chosen)
        yield Panel(f"accuracy{key}", f"Validation accuracy{end}", "accuracy", lines)
        gained = tuple(_gained_lines(validation) for validation in chosen)
        yield Panel(f"accuracy_gap{key}", f"Accuracy that the image adds{end}", "difference in accuracy", gained)


def _accuracy_lines(validation: Validation) -> tuple[Line, ...]:
    with_image = [Line("with image", validation.metric)] if validation.metric else []
    blind = [Line("image taken away", validation.blind, dashed=True)] if validation.blind else []
    return (*with_image, *blind)


def _gained_lines(validation: Validation) -> tuple[Line, ...]:
    if not (validation.alike and validation.metric):
        return ()
    return (Line("", validation.metric, minus=validation.blind),)


def _numbered(found: Sequence[Panel]) -> list[Panel]:
    """The panels, with a number behind keys that were taken."""
    taken: set[str] = set()
    numbered = []
    for panel in found:
        keys = (panel.key, *(f"{panel.key}_{number}" for number in range(2, len(found) + 2)))
        key = next(key for key in keys if key.casefold() not in taken)
        taken.add(key.casefold())
        numbered.append(replace(panel, key=key))
    return numbered


def _single(key: str, title: str, unit: str, metric: str) -> _Template:
    return _Template(key, title, unit, (Line("", metric),))


_REWARD = _single("reward", "Training reward", "mean score", "critic/score/mean")
_OTHERS = (
    _Template(
        "visual_dependency",
        "Visual dependency of tokens",
        "nats",
        (
            Line("mean", "perception/visual_dependency/mean"),
            Line("95th percentile", "perception/visual_dependency/p95", dashed=True),
        ),
    ),
    _single(
        "dependency_concentration",
        "Dependency held by the top fifth of tokens",
        "share",
        "perception/visual_dependency/top20_share",
    ),
    _single(
        "effective_tokens",
        "Effective tokens: how evenly credit is spread",
        "fraction of all tokens",
        "perception/token_weight/effective_fraction",
    ),
    _single("entropy", "Entropy of the policy", "nats", "actor/entropy"),
    _single(
        "ablated_nll",
        "Surprise at the response without the image",
        "negative log-likelihood, nats",
        "perception/ablated_nll",
    ),
    _single("response_length", "Response length", "tokens", "response_length/mean"),
    _single("collapse_signs", "Signs of a collapse", "number of signs", "perception/collapse/signs"),
)

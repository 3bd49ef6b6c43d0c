# SPDX-License-Identifier: Apache-2.0
"""Which metrics belong together in one plot, and which seconds make up a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from verl_ext.report.metrics_file import Step, series
from verl_ext.report.summary import BLIND_SUFFIX, PHASES

_VALIDATION = re.compile(r"val-core/(?P<source>.+)/(?:acc|reward)/mean@\d+")
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
        key: names the plot, and its file.
        title: what it shows, for a reader.
        unit: of the vertical axis.
        lines: at least one.
    """

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]


def panels(names: Iterable[str]) -> list[Panel]:
    """The plots for which there is at least one of these metrics, each with the lines that there are."""
    known = set(names)
    found = (_present(panel, known) for panel in (_REWARD, *_accuracy(sorted(known)), *_OTHERS))
    return [panel for panel in found if panel.lines]


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


def _present(panel: Panel, known: set[str]) -> Panel:
    lines = (line for line in panel.lines if {line.metric, line.minus or line.metric} <= known)
    return Panel(panel.key, panel.title, panel.unit, tuple(lines))


def _accuracy(names: Sequence[str]) -> Iterator[Panel]:
    """For each data source its accuracy with and without the image, and the difference."""
    metrics = {match["source"]: name for name in names if (match := _VALIDATION.fullmatch(name))}
    pairs = {source: metrics.get(source + BLIND_SUFFIX) for source in metrics if not _is_blind(source, metrics)}
    for source, blind in pairs.items():
        end = f": {source}" if len(pairs) > 1 else ""
        key = f"_{re.sub('[^A-Za-z0-9]+', '_', source)}" if len(pairs) > 1 else ""
        lines = [Line("with image", metrics[source])]
        if blind:
            lines.append(Line("image taken away", blind, dashed=True))
        yield Panel(f"accuracy{key}", f"Validation accuracy{end}", "accuracy", tuple(lines))
        if blind:
            gained = Line("", metrics[source], minus=blind)
            yield Panel(f"accuracy_gap{key}", f"Accuracy that the image adds{end}", "difference in accuracy", (gained,))


def _is_blind(source: str, metrics: dict[str, str]) -> bool:
    return source.endswith(BLIND_SUFFIX) and source.removesuffix(BLIND_SUFFIX) in metrics


def _single(key: str, title: str, unit: str, metric: str) -> Panel:
    return Panel(key, title, unit, (Line("", metric),))


_REWARD = _single("reward", "Training reward", "mean score", "critic/score/mean")
_OTHERS = (
    Panel(
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

# SPDX-License-Identifier: Apache-2.0
"""A short table of what a run did: accuracy with and without the image, before and after, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from verl_ext.report.metrics_file import Step, series

ACCURACY = "val-core/{source}/acc/mean@1"
BLIND_SUFFIX = "_blind"
PHASES = ("gen", "old_log_prob", "ablated_log_prob", "ref", "adv", "update_actor", "update_weights", "step")


def summarise(steps: Sequence[Step], *, source: str, questions: int) -> str:
    """The table.

    Args:
        steps: metrics of the run.
        source: data source of the validation questions; `<source>_blind` holds them without their images.
        questions: how many there are, for the standard error.
    """
    rows = [_accuracy_row(steps, source, questions), _accuracy_row(steps, source + BLIND_SUFFIX, questions)]
    rewards = series(steps, "critic/score/mean")
    window = max(1, len(rewards) // 5)
    early, late = (mean(value for _, value in part) for part in (rewards[:window], rewards[-window:]))
    lines = [
        f"{'accuracy on held-out questions':32}{'before':>16}{'after':>16}{'change':>9}",
        *rows,
        "",
        f"training reward, first and last {window} steps: {early:.3f} -> {late:.3f}",
        _correlation_line(steps),
        "",
        "mean seconds a step, after the first: " + ", ".join(_phases(steps)),
    ]
    return "\n".join(lines)


def improvement(steps: Sequence[Step], *, source: str, questions: int) -> tuple[float, float]:
    """(last - first validation accuracy, its standard error)."""
    values = [value for _, value in series(steps, ACCURACY.format(source=source))]
    first, last = values[0], values[-1]
    return last - first, math.hypot(_standard_error(first, questions), _standard_error(last, questions))


def _accuracy_row(steps: Sequence[Step], source: str, questions: int) -> str:
    values = [value for _, value in series(steps, ACCURACY.format(source=source))]
    first, last = (f"{value:.3f} ± {_standard_error(value, questions):.3f}" for value in (values[0], values[-1]))
    label = "image taken away (blind)" if source.endswith(BLIND_SUFFIX) else "with image"
    return f"  {label:30}{first:>16}{last:>16}{values[-1] - values[0]:>+9.3f}"


def _standard_error(accuracy: float, questions: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / questions)


def _correlation_line(steps: Sequence[Step]) -> str:
    values = [value for _, value in series(steps, "perception/rollout_actor_log_prob_corr")]
    return f"rollout and actor log-probabilities, lowest correlation of any step: {min(values):.6f}"


def _phases(steps: Sequence[Step]) -> list[str]:
    found = ((phase, series(steps, f"timing_s/{phase}")[1:]) for phase in PHASES)
    return [f"{phase} {mean(value for _, value in values):.2f}" for phase, values in found if values]

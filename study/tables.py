# SPDX-License-Identifier: Apache-2.0
"""The tables of the page, and the sentences that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from statistics import fmean, median

from study.arms import BY_NAME, Arm
from study.comparisons import OUTCOMES, Comparisons
from study.results import BASELINE, Number, Results
from study.statistics import Interval, difference, interval
from study.words import shown, words
from verl_ext.data.markdown import markdown_table

OTHERS: dict[str, Number] = {
    "yes/no": lambda run: run.accuracy(kind="yes_no"),
    "yes/no, blind": lambda run: run.accuracy("blind", "yes_no"),
    "colour, blind": lambda run: run.accuracy("blind", "color"),
    "colour, greedy": lambda run: run.greedy(kind="color"),
    "right form": lambda run: run.right_form,
    "response tokens": lambda run: run.tokens,
}
DEPENDENCY = "perception/visual_dependency/mean"
SPREAD = "perception/token_weight/effective_fraction"
SIGNALS = (DEPENDENCY, SPREAD, "perception/token_weight/max", "actor/entropy")
GRADIENT = "actor/grad_norm"
CLIP = 1.0
"""verl's `actor.grad_clip`."""
EVEN = 0.99
"""Of (Σw)² / (n Σw²), from which on weights change next to nothing."""
STEP_SECONDS: Number = attrgetter("step_seconds")
TOKENS_A_SECOND: Number = attrgetter("tokens_a_second")


class Tables:
    """Everything that the page says in numbers."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.start = results.start.accuracy()
        self.target = (self.start + fmean(run.accuracy() for run in results.runs[BASELINE])) / 2
        self._compared = Comparisons(results)

    def arms(self) -> str:
        """What each arm is."""
        rows = [(arm.label, arm.about, _code(arm.overrides)) for arm in self._results.arms]
        return markdown_table(("arm", "what it is", "arguments"), rows)

    def outcomes(self, *names: str) -> str:
        """Outcomes of every arm, each with its difference to GRPO."""
        header = ("arm", *(cell for name in names for cell in (name, "minus GRPO")))
        start = ("before training", *(cell for name in names for cell in (self.before(name), "-")))
        return markdown_table(header, [start, *(self._outcomes(arm, names) for arm in self._results.arms)])

    def before(self, name: str) -> str:
        """An outcome of the model that all runs start from."""
        return f"{OUTCOMES[name](self._results.start):.3f}"

    def each_run(self) -> str:
        """Accuracy of every run, a column for each seed."""
        seeds = sorted({run.seed for arm in self._results.arms for run in self._results.runs[arm.name]})
        rows = []
        for arm in self._results.arms:
            found = self._results.by_seed(arm.name, OUTCOMES["accuracy"])
            rows.append((arm.label, *(f"{found[seed]:.3f}" if seed in found else "-" for seed in seeds)))
        return markdown_table(("arm", *(f"seed {seed}" for seed in seeds)), rows)

    def fallen(self) -> str:
        """The runs that ended below the model they started from, in words."""
        return words(
            f"{arm.label} (seed {run.seed}, {run.accuracy():.3f})"
            for arm in self._results.arms
            for run in self._results.runs[arm.name]
            if run.accuracy() < self.start
        )

    def others(self) -> str:
        """What arms are not compared in."""
        rows = [
            (arm.label, *(shown(self._interval(arm, number)) for number in OTHERS.values()))
            for arm in self._results.arms
        ]
        return markdown_table(("arm", *OTHERS), rows)

    def signals(self) -> str:
        """What each method measured while it trained, how it spread the credit, and its gradients."""
        header = (
            *("arm", "dependency measured", "(Σw)² / (n Σw²)", "largest weight", "entropy"),
            *("gradient norm, median", "steps clipped"),
        )
        rows = [
            (arm.label, *(self._measured(arm, name) for name in SIGNALS), *self._gradients(arm))
            for arm in self._results.arms
        ]
        return markdown_table(header, rows)

    def even(self) -> str:
        """The arms with weights that hardly differ from token to token, in words."""
        return words(
            arm.label
            for arm in self._results.arms
            if min(run.mean(SPREAD) or 0.0 for run in self._results.runs[arm.name]) > EVEN
        )

    def yes_no_looking(self) -> tuple[float, float]:
        """Least and largest share that an arm gains on yes/no questions from having the image."""
        gains = [
            fmean(run.accuracy(kind="yes_no") - run.accuracy("blind", "yes_no") for run in self._results.runs[arm.name])
            for arm in self._results.arms
        ]
        return min(gains), max(gains)

    def speed(self) -> str:
        """Steps to the target, tokens a second and time of a step over GRPO's, and the ablated pass within a step."""
        header = (
            *("arm", "runs that reach it", "step, median of all"),
            *("tokens/s over GRPO's", "step over GRPO's", "ablated pass"),
        )
        return markdown_table(header, [self._speed(arm) for arm in self._results.arms])

    def relatives(self) -> str:
        """Each arm against the arms that it extends or that control it."""
        header = ("difference", *OUTCOMES)
        rows = [
            (
                f"{BY_NAME[arm].label} minus {BY_NAME[other].label}",
                *(str(self._compared.minus(arm, other, q)) for q in OUTCOMES),
            )
            for arm, other in self._compared.pairs
            if other != BASELINE
        ]
        return markdown_table(header, rows)

    def _interval(self, arm: Arm, number: Number) -> Interval:
        return interval(list(self._results.by_seed(arm.name, number).values()))

    def _outcomes(self, arm: Arm, names: Sequence[str]) -> tuple[str, ...]:
        cells = [arm.label]
        for name in names:
            cells.append(shown(self._interval(arm, OUTCOMES[name])))
            cells.append(
                str(self._compared.minus(arm.name, BASELINE, name)) if self._compared.has(arm.name, BASELINE) else "-"
            )
        return tuple(cells)

    def _measured(self, arm: Arm, name: str) -> str:
        means = [mean for run in self._results.runs[arm.name] if (mean := run.mean(name)) is not None]
        return f"{fmean(means):.2f}" if means else "-"

    def _gradients(self, arm: Arm) -> tuple[str, str]:
        """Median of all steps and seeds, and the share of them that verl clips."""
        norms = [norm for run in self._results.runs[arm.name] for norm in run.column(GRADIENT)]
        return f"{median(norms):.2f}", f"{fmean(norm > CLIP for norm in norms):.0%}"

    def _speed(self, arm: Arm) -> tuple[str, ...]:
        runs = self._results.runs[arm.name]
        steps = [run.steps_to(self.target, self.start) for run in runs]
        reached = sum(math.isfinite(step) for step in steps)
        shares = [share for run in runs if (share := run.extra_pass) is not None]
        extra = f"+{fmean(shares):.0%}" if shares else "-"
        return (
            *(arm.label, f"{reached} of {len(runs)}", self._when(median(steps))),
            *(self._over(arm, TOKENS_A_SECOND), self._over(arm, STEP_SECONDS), extra),
        )

    def _when(self, step: float) -> str:
        return f"{step:.0f}" if math.isfinite(step) else f"> {self._results.steps}"

    def _over(self, arm: Arm, number: Number) -> str:
        """Ratio to GRPO: geometric mean over the seeds, with the interval of the logarithms."""
        if not self._compared.has(arm.name, BASELINE):
            return "1" if arm.name == BASELINE else "-"
        own, base = (
            {seed: math.log(value) for seed, value in self._results.by_seed(name, number).items()}
            for name in (arm.name, BASELINE)
        )
        found = difference(own, base).interval
        return f"{math.exp(found.mean):.2f} [{math.exp(found.low):.2f}, {math.exp(found.high):.2f}]"


def _code(overrides: Sequence[str]) -> str:
    return " ".join(f"`{override}`" for override in overrides)

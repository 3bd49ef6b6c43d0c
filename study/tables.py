# SPDX-License-Identifier: Apache-2.0
"""The tables of the page, and the sentences that follow from them."""

from __future__ import annotations

import statistics as middle
from collections.abc import Iterable, Sequence
from operator import attrgetter

from study.arms import BY_NAME, Arm
from study.results import BASELINE, Number, Results
from study.statistics import Difference, Interval, difference, holm, interval
from verl_ext.data.markdown import markdown_table

LEVEL = 0.05
SIGNALS = (
    "perception/visual_dependency/mean",
    "perception/token_weight/effective_fraction",
    "perception/token_weight/max",
    "actor/grad_norm",
)
QUANTITIES: dict[str, Number] = {
    "accuracy": lambda run: run.accuracy(),
    "blind accuracy": lambda run: run.accuracy("blind"),
    "gap": lambda run: run.gap,
    "yes/no": lambda run: run.accuracy(kind="yes_no"),
    "colour": lambda run: run.accuracy(kind="color"),
    "greedy": lambda run: run.greedy,
    "visual dependency": lambda run: run.visual_dependency,
    "response tokens": lambda run: run.tokens,
}


def shown(found: Interval, digits: int = 3) -> str:
    """Mean and half of the interval."""
    return f"{found.mean:.{digits}f} ± {found.half:.{digits}f}"


def signed(found: Interval, digits: int = 3) -> str:
    """A difference with its interval."""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


class Tables:
    """Everything that the page says in numbers."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.target = middle.fmean([run.accuracy() for run in results.runs[BASELINE]])
        self.start = results.start.accuracy()

    def differences(self, number: Number, other: str = BASELINE) -> dict[str, Difference]:
        """Of every arm but `other`, by its name."""
        base = self._results.by_seed(other, number)
        return {
            arm.name: difference(self._results.by_seed(arm.name, number), base)
            for arm in self._results.arms
            if arm.name != other
        }

    def arms(self) -> str:
        """What each arm is."""
        rows = [(arm.label, arm.about, _code(arm.overrides)) for arm in self._results.arms]
        return markdown_table(("arm", "what it is", "arguments"), rows)

    def accuracy(self) -> str:
        """Accuracy and its difference to GRPO."""
        found = self.differences(QUANTITIES["accuracy"])
        adjusted = holm({name: entry.p for name, entry in found.items()})
        rows = []
        for arm in self._results.arms:
            own = shown(self._interval(arm, QUANTITIES["accuracy"]))
            if arm.name == BASELINE:
                rows.append((arm.label, own, "-", "-", "-"))
                continue
            entry = found[arm.name]
            rows.append(
                (arm.label, own, signed(entry.interval), _chance(entry.p), _chance(adjusted[arm.name])),
            )
        return markdown_table(("arm", "accuracy", "minus GRPO", "p", "p, Holm"), rows)

    def looking(self) -> str:
        """Blind accuracy, the gap and visual dependency, and what differs from GRPO."""
        names = ("blind accuracy", "gap", "visual dependency")
        header = ("arm", *(cell for name in names for cell in (name, "minus GRPO")))
        return markdown_table(header, [self._compared(arm, names) for arm in self._results.arms])

    def kinds(self) -> str:
        """Accuracy by kind of question, greedy accuracy, and length."""
        names = ("yes/no", "colour", "greedy", "response tokens")
        rows = [
            (
                arm.label,
                *(shown(self._interval(arm, QUANTITIES[name]), 1 if "tokens" in name else 3) for name in names),
            )
            for arm in self._results.arms
        ]
        return markdown_table(("arm", *names), rows)

    def signals(self) -> str:
        """What each method measured while it trained, and how it spread the credit; means over steps and seeds."""
        header = ("arm", "dependency measured", "(Σw)² / (n Σw²)", "largest weight", "gradient norm")
        rows = [(arm.label, *(self._measured(arm, name) for name in SIGNALS)) for arm in self._results.arms]
        return markdown_table(header, rows)

    def speed(self) -> str:
        """Steps to GRPO's final accuracy, tokens a second, and the cost of a step."""
        header = ("arm", "runs that reach it", "step, median of those", "tokens/s", "step time over GRPO's")
        return markdown_table(header, [self._speed(arm) for arm in self._results.arms])

    def controls(self) -> str:
        """Each arm against the arms that it is made of or that control it."""
        rows = []
        for arm, other in self._pairs():
            row = [f"{arm.label} minus {BY_NAME[other].label}"]
            for name in ("accuracy", "gap", "visual dependency"):
                row.append(signed(self.differences(QUANTITIES[name], other)[arm.name].interval))
            rows.append(row)
        return markdown_table(("difference", "accuracy", "gap", "visual dependency"), rows)

    def separating(self, name: str, sign: int) -> str:
        """The arms whose interval of that difference to GRPO lies above (`sign` 1) or below (-1) nothing, as words."""
        found = self.differences(QUANTITIES[name])
        return _words(
            BY_NAME[arm].label
            for arm, entry in found.items()
            if entry.separates and (entry.interval.mean > 0) == (sign > 0)
        )

    def after_holm(self) -> str:
        """The arms whose accuracy still differs from GRPO's after Holm's correction, as words."""
        adjusted = holm({name: entry.p for name, entry in self.differences(QUANTITIES["accuracy"]).items()})
        return _words(BY_NAME[name].label for name, p in adjusted.items() if p < LEVEL)

    def width(self) -> float:
        """Median half width of the intervals of accuracy differences to GRPO."""
        return middle.median(entry.interval.half for entry in self.differences(QUANTITIES["accuracy"]).values())

    def minus(self, arm: str, other: str, name: str) -> Difference:
        """One arm minus another in one quantity."""
        return self.differences(QUANTITIES[name], other)[arm]

    def _pairs(self) -> Iterable[tuple[Arm, str]]:
        present = {arm.name for arm in self._results.arms}
        return [
            (arm, other)
            for arm in self._results.arms
            for other in arm.against
            if other != BASELINE and other in present
        ]

    def _interval(self, arm: Arm, number: Number) -> Interval:
        return interval(list(self._results.by_seed(arm.name, number).values()))

    def _compared(self, arm: Arm, names: Sequence[str]) -> tuple[str, ...]:
        cells = [arm.label]
        for name in names:
            cells.append(shown(self._interval(arm, QUANTITIES[name])))
            differs = "-" if arm.name == BASELINE else signed(self.minus(arm.name, BASELINE, name).interval)
            cells.append(differs)
        return tuple(cells)

    def _measured(self, arm: Arm, name: str) -> str:
        means = [mean for run in self._results.runs[arm.name] if (mean := run.mean(name)) is not None]
        return f"{middle.fmean(means):.2f}" if means else "-"

    def _speed(self, arm: Arm) -> tuple[str, ...]:
        runs = self._results.runs[arm.name]
        reached = [step for run in runs if (step := run.steps_to(self.target, self.start)) is not None]
        when = f"{middle.median(reached):.1f}" if reached else "-"
        rate = middle.median(run.tokens_a_second for run in runs)
        return (arm.label, f"{len(reached)} of {len(runs)}", when, f"{rate:.0f}", self._cost(arm))

    def _cost(self, arm: Arm) -> str:
        own, base = (self._results.by_seed(name, attrgetter("step_seconds")) for name in (arm.name, BASELINE))
        ratios = sorted(own[seed] / base[seed] for seed in own.keys() & base.keys())
        return f"{middle.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _chance(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _code(overrides: Sequence[str]) -> str:
    return " ".join(f"`{override}`" for override in overrides)


def _words(names: Iterable[str]) -> str:
    listed = list(names)
    if not listed:
        return "none"
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"

# SPDX-License-Identifier: Apache-2.0
"""Which arms are compared in what, corrected for how many comparisons that makes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from study.arms import BY_NAME
from study.results import BASELINE, FEWEST, Number, Results
from study.statistics import Difference, difference, holm, quantile
from study.words import signed, words

LEVEL = 0.05
# What arms are compared in, each with a correction of its own for the number of comparisons.
OUTCOMES: dict[str, Number] = {
    "accuracy": lambda run: run.accuracy(),
    "greedy accuracy": lambda run: run.greedy(),
    "colour accuracy": lambda run: run.accuracy(kind="color"),
    "blind accuracy": lambda run: run.accuracy("blind"),
    "gap": lambda run: run.gap,
    "visual dependency": lambda run: run.visual_dependency,
}
Pair = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """Two arms in one outcome.

    Attributes:
        found: the difference.
        adjusted: its p after Holm's correction for all comparisons in that outcome.
    """

    found: Difference
    adjusted: float

    @property
    def mark(self) -> str:
        """`**` if it separates after the correction, `*` if only without it."""
        if self.adjusted < LEVEL:
            return " **"
        return " *" if self.found.separates else ""

    def __str__(self) -> str:
        return signed(self.found.interval) + self.mark


class Comparisons:
    """Every arm with those that it is compared with, in every outcome."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.pairs = self._all_pairs()
        self._found = {name: self._all_in(number) for name, number in OUTCOMES.items()}

    @property
    def number(self) -> int:
        """How many there are in each outcome."""
        return len(self.pairs)

    def has(self, arm: str, other: str) -> bool:
        """Whether the two are compared."""
        return (arm, other) in self.pairs

    def minus(self, arm: str, other: str, name: str) -> Compared:
        """One arm minus another in one outcome."""
        return self._found[name][arm, other]

    def separating(self, name: str, sign: int, mark: str) -> str:
        """Arms whose outcome lies above (`sign` 1) or below (-1) GRPO's with that mark, in words."""
        return words(
            BY_NAME[arm].label
            for (arm, other), entry in self._found[name].items()
            if other == BASELINE and entry.mark.strip() == mark and (entry.found.interval.mean > 0) == (sign > 0)
        )

    def controls_above(self) -> list[tuple[str, str]]:
        """(outcome, controls) of the outcomes in which controls lie above GRPO, with one mark or two."""
        found = {
            name: [
                BY_NAME[arm].label
                for (arm, other), entry in entries.items()
                if other == BASELINE and BY_NAME[arm].is_control and entry.found.interval.low > 0
            ]
            for name, entries in self._found.items()
        }
        return [(name, words(labels)) for name, labels in found.items() if labels]

    def marked(self) -> int:
        """How many intervals of all outcomes leave 0 out."""
        return sum(entry.found.separates for entries in self._found.values() for entry in entries.values())

    def width(self, name: str) -> float:
        """Median half width of the intervals of an outcome's differences."""
        return median(entry.found.interval.half for entry in self._found[name].values())

    def strictest(self) -> float:
        """How many half widths the largest difference of an outcome must have to pass Holm's correction."""
        freedom = min(len(self._results.runs[arm.name]) for arm in self._results.arms) - 1
        return quantile(LEVEL / self.number, freedom) / quantile(LEVEL, freedom)

    def _all_in(self, number: Number) -> dict[Pair, Compared]:
        found = {
            (arm, other): difference(self._results.by_seed(arm, number), self._results.by_seed(other, number))
            for arm, other in self.pairs
        }
        adjusted = holm({pair: entry.p for pair, entry in found.items()})
        return {pair: Compared(entry, adjusted[pair]) for pair, entry in found.items()}

    def _all_pairs(self) -> list[Pair]:
        present = {arm.name for arm in self._results.arms}
        return [
            (arm.name, other)
            for arm in self._results.arms
            for other in arm.against
            if other in present and len(self._shared_seeds(arm.name, other)) >= FEWEST
        ]

    def _shared_seeds(self, arm: str, other: str) -> set[int]:
        return {run.seed for run in self._results.runs[arm]} & {run.seed for run in self._results.runs[other]}

# SPDX-License-Identifier: Apache-2.0
"""Means with 95 % intervals, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy import stats

CONFIDENCE = 0.95
BySeed = Mapping[int, float]
Name = TypeVar("Name")


@dataclass(frozen=True)
class Interval:
    """A mean and its Student t interval over the seeds."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """An arm minus another, seed by seed.

    Attributes:
        interval: mean difference with its 95 % interval.
        p: of the two-sided paired t test; 1 where all seeds differ by exactly nothing.
    """

    interval: Interval
    p: float

    @property
    def separates(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval.low > 0 or self.interval.high < 0


def interval(values: Sequence[float]) -> Interval:
    """Of the mean of independent runs.

    Raises:
        ValueError: fewer than two runs.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} run: an interval needs two or more")
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Interval(sum(values) / len(values), float(low), float(high))


def difference(arm: BySeed, other: BySeed) -> Difference:
    """Of the seeds that both have.

    Raises:
        ValueError: they share fewer than two.
    """
    deltas = [arm[seed] - other[seed] for seed in sorted(arm.keys() & other.keys())]
    if not any(deltas):
        return Difference(interval(deltas), 1.0)
    return Difference(interval(deltas), float(stats.ttest_1samp(deltas, 0.0).pvalue))


def quantile(level: float, freedom: int) -> float:
    """What the t statistic of a two-sided test at `level` must exceed."""
    return float(stats.t.ppf(1 - level / 2, freedom))


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p-values: the chance of any false finding among all of them stays below the level."""
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return adjusted

# SPDX-License-Identifier: Apache-2.0
"""What every benchmark does alike: time calls side by side, print tables, hold results against limits."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Call = Callable[[], object]
Clock = Callable[[], float]
Name = TypeVar("Name")


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds of a ratio within each round, and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Ratio:
        values = list(values)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(statistics.median(values), low, high)

    @classmethod
    def between(cls, values: Sequence[float], base: Sequence[float]) -> Ratio:
        """Of what was measured in the same round."""
        return cls.of(value / other for value, other in zip(values, base, strict=True))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def seconds(call: Call, clock: Clock = time.perf_counter) -> float:
    """How long it takes, the accelerator's work included."""
    start = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def rounds(calls: Mapping[Name, Call], count: int, clock: Clock = time.perf_counter) -> dict[Name, list[float]]:
    """Seconds of each call in `count` rounds in which every one runs once, in an order that changes.

    One round before does not count. The order is the same in every process. With `time.process_time` as the clock
    nothing counts that other processes do.
    """
    measured: dict[Name, list[float]] = {name: [] for name in calls}
    for index in range(count + 1):
        for name in random.Random(index).sample(list(calls), len(calls)):
            elapsed = seconds(calls[name], clock)
            if index:
                measured[name].append(elapsed)
    return measured


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table in Markdown, written at once."""
    print(f"\n{title}\n" if title else "")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


@dataclass(frozen=True)
class Limit:
    """What a result must stay below, or above if `least`."""

    what: str
    value: float
    bound: float
    least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.least else self.value <= self.bound


def exit_status(limits: Sequence[Limit]) -> int:
    """Print each limit and whether it holds; 1 if one does not."""
    if limits:
        rows = [
            [x.what, f"{x.value:.3g}", f"{'>=' if x.least else '<='} {x.bound:g}", "yes" if x.holds else "NO"]
            for x in limits
        ]
        print_table(["limit", "measured", "bound", "holds"], rows)
    return int(not all(limit.holds for limit in limits))

# SPDX-License-Identifier: Apache-2.0
"""Early signs that a run is collapsing, as the authors of PAPO (arXiv 2507.06448) describe them.

The policy finds a way to make its two views differ without looking better: the divergence of the views (PAPO's loss
term) runs away, updates are clipped ever more often, both views grow uncertain, and the reward falls, last of all.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev

PREFIX = "perception/collapse"
FEWEST, ENOUGH = 2, 3
"""How many signs make a warning: all that can be told, between these two."""

REMEDIES = (
    "What has helped: a smaller weight of the perception term (perception.papo.coef, where PAPO acts), influence that "
    "fades over the run (perception.fade_over=0.5), a reference KL (recipe=grpo_kl), a lower learning rate. "
    "perception.collapse_window=0 turns this warning off."
)
SHORTEST_WINDOW = 4
LARGEST = 1e100
"""Metrics beyond it are as good as infinite, and left out."""

Change = Callable[[list[float], list[float]], bool]


@dataclass(frozen=True)
class Sign:
    """One sign.

    Attributes:
        metrics: what must change, each of it.
        changed: whether the newer half of the window differs from the older as the sign says.
        words: the change, for the warning.
    """

    metrics: tuple[str, ...]
    changed: Change
    words: str


def rose(factor: float, least: float = 0.0) -> Change:
    """The mean grew by more than `factor` and by more than noise, to more than `least`."""

    def changed(older: list[float], newer: list[float]) -> bool:
        after = mean(newer)
        return after > max(least, mean(older) * factor) and after - mean(older) > _noise(older, newer)

    return changed


def fell(share: float) -> Change:
    """The mean lost more than `share` of its size, and more than noise."""

    def changed(older: list[float], newer: list[float]) -> bool:
        lost = mean(older) - mean(newer)
        return lost > share * abs(mean(older)) and lost > _noise(older, newer)

    return changed


SIGNS = {
    "divergence_runs_away": Sign(("perception/visual_dependency/mean",), rose(2.0), "the views diverge twice as much"),
    "clipping_rises": Sign(("actor/pg_clipfrac",), rose(1.5, least=0.005), "updates are clipped more often"),
    "both_entropies_rise": Sign(
        ("actor/entropy", "perception/ablated_nll"), rose(1.2), "both views are more uncertain"
    ),
    "reward_falls": Sign(("critic/score/mean",), fell(0.1), "the reward falls"),
}


class CollapseWatch:
    """Compares the newer half of the last steps with the older half.

    Args:
        window: steps that are compared, half against half; at least `SHORTEST_WINDOW`.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._seen: dict[str, deque[float]] = {}
        self._quiet_until = 0

    def update(self, metrics: Mapping[str, float], step: int) -> tuple[dict[str, float], str | None]:
        """Take in the metrics of a step.

        Returns:
            `perception/collapse/<sign>` (0 or 1) for each sign that can be told by now, with their number as
            `perception/collapse/signs`; and a warning, at most once a window, when enough of them hold.
        """
        for name in {name for sign in SIGNS.values() for name in sign.metrics}:
            # Comparisons with NaN are false.
            if abs(metrics.get(name, math.nan)) < LARGEST:
                self._seen.setdefault(name, deque(maxlen=self.window)).append(float(metrics[name]))
        told = {name: self._holds(sign) for name, sign in SIGNS.items() if self._can_tell(sign)}
        if not told:
            return {}, None
        logged = {f"{PREFIX}/{name}": float(holds) for name, holds in told.items()}
        count = sum(told.values())
        alarm = count >= max(FEWEST, min(ENOUGH, len(told)))
        return {**logged, f"{PREFIX}/signs": float(count)}, self._warning(told, step) if alarm else None

    def save(self, path: Path) -> None:
        """Write what was seen, for a run that resumes from here."""
        seen = {name: list(values) for name, values in self._seen.items()}
        path.write_text(json.dumps({"seen": seen, "quiet_until": self._quiet_until}))

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; with another window, from as much of it as that holds."""
        state = json.loads(path.read_text())
        self._seen = {name: deque(values, maxlen=self.window) for name, values in state["seen"].items()}
        self._quiet_until = state["quiet_until"]

    def _can_tell(self, sign: Sign) -> bool:
        return all(len(self._seen.get(name, ())) == self.window for name in sign.metrics)

    def _holds(self, sign: Sign) -> bool:
        return all(sign.changed(*self._halves(name)) for name in sign.metrics)

    def _halves(self, name: str) -> tuple[list[float], list[float]]:
        values = list(self._seen[name])
        half = self.window // 2
        return values[:half], values[-half:]

    def _warning(self, told: Mapping[str, bool], step: int) -> str | None:
        if step < self._quiet_until:
            return None
        self._quiet_until = step + self.window
        signs = [SIGNS[name] for name, holds in told.items() if holds]
        words = "; ".join(f"{sign.words} ({self._figures(sign)})" for sign in signs)
        return f"step {step}: signs of a collapse over the last {self.window} steps: {words}"

    def _figures(self, sign: Sign) -> str:
        halves = {name: self._halves(name) for name in sign.metrics}
        return ", ".join(f"{name} {mean(older):.3g} -> {mean(newer):.3g}" for name, (older, newer) in halves.items())


def _noise(older: list[float], newer: list[float]) -> float:
    """Two standard errors of the difference of two means."""
    return 2.0 * ((pstdev(older) ** 2 + pstdev(newer) ** 2) / len(older)) ** 0.5

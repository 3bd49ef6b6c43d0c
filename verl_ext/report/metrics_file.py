# SPDX-License-Identifier: Apache-2.0
"""The JSON-lines files that verl's `file` logger writes, one object a step: {"step": int, "data": {name: value}}."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

Step = tuple[int, dict[str, float]]


def read_steps(paths: Iterable[Path]) -> list[Step]:
    """All steps in order; where runs overlap (a resumed run), the later file wins. Unfinished lines are left out."""
    steps: dict[int, dict[str, float]] = {}
    for path in paths:
        for line in path.read_text().split("\n")[:-1]:
            entry = json.loads(line)
            steps[entry["step"]] = entry["data"]
    return sorted(steps.items())


def series(steps: Iterable[Step], name: str) -> list[tuple[int, float]]:
    """(step, value) of every step that has the metric."""
    return [(step, data[name]) for step, data in steps if name in data]

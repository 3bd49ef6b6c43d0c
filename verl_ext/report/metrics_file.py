# SPDX-License-Identifier: Apache-2.0
"""The JSON-lines files that verl's `file` logger writes, one object a step: {"step": int, "data": {name: value}}."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_ext.errors import DataError

Step = tuple[int, dict[str, float]]
MOST_STEPS = 2**53
"""Steps up to here are whole numbers wherever a report shows them."""


def read_steps(paths: Iterable[Path]) -> list[Step]:
    """All steps in order; where runs overlap (a resumed run), the later file's values count.

    Unfinished lines are left out.
    Values that the later file does not have stay: verl validates once more before it resumes, and writes the result as
    those of the step that it resumes from.

    Raises:
        DataError: a finished line is not one that verl's file logger writes.
    """
    steps: dict[int, dict[str, float]] = {}
    for path in paths:
        for step, data in _entries(path):
            steps[step] = {**steps.get(step, {}), **data}
    return sorted(steps.items())


def earlier_name(path: Path, number: int) -> Path:
    """The name under which the metrics of a run's attempt `number` (1, 2, ...) are kept when `path` is begun anew."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def with_earlier(path: Path) -> list[Path]:
    """A file of metrics after those of the earlier attempts that were kept beside it, oldest first.

    The file itself is left out where a resumed run has not begun it yet.
    """
    names = (earlier_name(path, number) for number in itertools.count(1))
    earlier = list(itertools.takewhile(Path.exists, names))
    return [*earlier, path] if path.exists() or not earlier else earlier


def series(steps: Iterable[Step], name: str) -> list[tuple[int, float]]:
    """(step, value) of every step at which the metric is a finite number."""
    return [(step, float(data[name])) for step, data in steps if is_number(data.get(name))]


def measured(steps: Iterable[Step]) -> set[str]:
    """Names of the metrics that are a finite number at any step."""
    return {name for _, data in steps for name, value in data.items() if is_number(value)}


def is_number(value: object) -> bool:
    """Whether a logged value is a finite number. verl's logger writes what is not finite as null."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer beyond the largest float is as little a number here as infinity is.
    return abs(value) <= sys.float_info.max


def _entries(path: Path) -> Iterator[Step]:
    # A line without its end is still being written, and may be cut within a character.
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        yield _entry(line, path, number)


def _entry(line: bytes, path: Path, number: int) -> Step:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    match entry:
        case {"step": int(step), "data": dict(data)} if abs(step) <= MOST_STEPS:
            return step, data
    raise DataError(f"{path}:{number}: not a line of verl's file logger, which reads " + '{"step": 1, "data": {...}}')

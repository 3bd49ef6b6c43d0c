# SPDX-License-Identifier: Apache-2.0
"""Which of many recorded responses a report shows: spread over the steps, prompts that come back first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def choose(prompts: Sequence[Sequence[str | None]], limit: int) -> list[list[int]]:
    """Rows to show of each record file, at most `limit` in all.

    The files are spread evenly, the first and the last among them, and give equally many rows. Of a file come first
    the rows whose prompt stands in most files, since those show how a response changed; then those recorded first.

    Args:
        prompts: for each file its rows' prompt ids, in order of the steps.
        limit: at least 1.
    """
    if sum(map(len, prompts)) <= limit:
        return [list(range(len(rows))) for rows in prompts]
    files = set(_spread(len(prompts), limit))
    each = limit // len(files)
    seen_in = Counter(prompt for rows in prompts for prompt in set(rows) if prompt is not None)
    return [_first(rows, seen_in, each) if file in files else [] for file, rows in enumerate(prompts)]


def _spread(count: int, limit: int) -> list[int]:
    """Up to `limit` of the numbers below `count`, evenly, with both ends; the last alone if there may be only one."""
    if count <= limit:
        return list(range(count))
    if limit == 1:
        return [count - 1]
    return [round(index * (count - 1) / (limit - 1)) for index in range(limit)]


def _first(rows: Sequence[str | None], seen_in: Counter[str], count: int) -> list[int]:
    ranked = sorted(range(len(rows)), key=lambda row: -seen_in[rows[row] or ""])
    return sorted(ranked[:count])

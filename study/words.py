# SPDX-License-Identifier: Apache-2.0
"""Intervals and lists as text."""

from __future__ import annotations

from collections.abc import Iterable

from study.statistics import Interval


def shown(found: Interval, digits: int = 3) -> str:
    """Mean and half of the interval."""
    return f"{found.mean:.{digits}f} ± {found.half:.{digits}f}"


def signed(found: Interval, digits: int = 3) -> str:
    """A difference with its interval."""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def words(names: Iterable[str]) -> str:
    """A list in a sentence."""
    listed = list(names)
    if not listed:
        return "none"
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"

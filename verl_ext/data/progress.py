# SPDX-License-Identifier: Apache-2.0
"""Progress of what may take long, on stderr."""

from typing import Any

from tqdm import tqdm

QUIET_SECONDS = 1.0
"""Shorter passes show no progress; a command has several, and is not to be silent for more than two seconds."""


def progress_bar(name: str, total: int | None, unit: str) -> "tqdm[Any]":
    """A bar to be updated once for each of `total` things; it counts them where their number is not known."""
    return tqdm(total=total, desc=name, unit=f" {unit}", delay=QUIET_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""Recorded responses in a terminal, each token shaded by how much it depended on the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

SHADES = (None, 22, 28, 34, 40, 46)
"""Background colours of the 256-colour palette, from no dependency to the most."""


def latest_records(folder: Path) -> list[dict[str, Any]]:
    """Rows of the newest record file in `folder`; empty if there is none."""
    files = sorted(folder.glob("step_*.parquet"))
    return pq.read_table(files[-1]).to_pylist() if files else []


def shaded(record: Mapping[str, Any], *, colour: bool) -> str:
    """The response as one line; with `colour` shaded, otherwise with the dependency behind each token that has any."""
    # Empty where no method asked for the ablated view.
    dependency: Sequence[float] = record["visual_dependency"] or [0.0] * len(record["tokens"])
    peak = max(dependency, default=0.0)
    parts = [_part(token, value, peak, colour) for token, value in zip(record["tokens"], dependency, strict=True)]
    return "".join(parts)


def _part(token: str, value: float, peak: float, colour: bool) -> str:
    # Model output is never interpreted: control characters would reach the terminal.
    token = "".join(c if c.isprintable() else " " for c in token)
    share = value / peak if peak > 0 else 0.0
    if not colour:
        return f"{token}[{value:.1f}]" if share >= 0.1 else token
    shade = SHADES[min(len(SHADES) - 1, round(share * (len(SHADES) - 1)))]
    return token if shade is None else click.style(token, bg=shade, fg=231 if share < 0.6 else 16)

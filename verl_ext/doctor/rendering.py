# SPDX-License-Identifier: Apache-2.0
"""The report as text and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import click

from verl_ext.doctor.checks import Check, Status

COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "red"}
STATUS_WIDTH = max(len(status.value) for status in Status)
NARROWEST, WIDEST = 60, 120


def section_text(title: str, checks: Sequence[Check]) -> str:
    """A section with its columns aligned; ANSI colours included, which click drops where there is no terminal."""
    width = max((len(check.name) for check in checks), default=0)
    return "\n".join([click.style(title, bold=True), *(_check_text(check, width) for check in checks)])


def summary_text(checks: Iterable[Check]) -> str:
    """One line that counts."""
    counts = _counts(checks)
    parts = [f"{counts[status.value]} {status.value}{_plural(status, counts[status.value])}" for status in Status]
    return f"{sum(counts.values())} checks: {', '.join(parts)}"


def _plural(status: Status, count: int) -> str:
    return "" if status is Status.OK or count == 1 else "s"


def as_json(sections: Mapping[str, Sequence[Check]]) -> str:
    """Everything, for scripts: `checks` in order, and `summary` with the number of each status."""
    checks = [
        {
            "section": title,
            "name": check.name,
            "status": check.status.value,
            "found": check.found,
            "remedy": check.remedy,
        }
        for title, section in sections.items()
        for check in section
    ]
    counts = _counts(check for section in sections.values() for check in section)
    return json.dumps({"checks": checks, "summary": counts}, indent=2)


def _counts(checks: Iterable[Check]) -> dict[str, int]:
    found = Counter(check.status.value for check in checks)
    return {status.value: found[status.value] for status in Status}


def _check_text(check: Check, width: int) -> str:
    label = click.style(check.status.value.ljust(STATUS_WIDTH), fg=COLOURS[check.status])
    lines = _wrapped(check.found, width)
    if check.remedy:
        lines += _wrapped(f"-> {check.remedy}", width)
    first, *rest = lines
    indent = " " * (STATUS_WIDTH + width + 6)
    return "\n".join([f"  {label}  {check.name.ljust(width)}  {first}", *(indent + line for line in rest)])


def _wrapped(text: str, width: int) -> list[str]:
    columns = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
    room = max(columns - STATUS_WIDTH - width - 6, NARROWEST // 2)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]

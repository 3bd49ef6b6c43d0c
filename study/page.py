# SPDX-License-Identifier: Apache-2.0
"""Writes the page about the comparison from its results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.arms import BY_NAME, PAPO_COEF, TEXT_COEF
from study.comparisons import OUTCOMES, Compared, Comparisons
from study.plan import ROOT
from study.results import BASELINE, Results, Run
from study.statistics import interval
from study.tables import CLIP, DEPENDENCY, Tables
from study.words import shown, signed

HERE = Path(__file__).parent
# What the text speaks about, where both arms are there.
PAIRS = (
    ("pgpo_shuffled", "pgpo", "PGPO's weights on other tokens, minus PGPO"),
    ("papo_text", "papo_g", f"PAPO's term on shuffled text with {TEXT_COEF}, minus PAPO-G"),
    ("papo_text_full", "papo_g", f"PAPO's term on shuffled text with {PAPO_COEF}, minus PAPO-G"),
    ("papo_d", "dapo", "PAPO-D, minus DAPO"),
)


def page(results: Results, date: str, folder: Path) -> str:
    """The page as Markdown.

    Args:
        results: of all runs.
        date: to print, as MM/DD/YYYY.
        folder: that it will lie in, which its links start from.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    compared = Comparisons(results)
    return environment.get_template("page.md.j2").render(
        date=date,
        links={
            "results": os.path.relpath(results.folder, folder),
            "benchmarks": os.path.relpath(ROOT / "benchmarks" / "README.md", folder),
        },
        arms=results.arms,
        seeds=results.seeds,
        tables=Tables(results),
        compared=compared,
        outcomes=list(OUTCOMES),
        clip=CLIP,
        settings=results.settings,
        checkpoints=", ".join(str(step) for step, _ in results.runs[BASELINE][0].curve(0.0)[1:]),
        wording=_wording(results.start),
        start={view: _shares(results.start, "accuracy", view) for view in ("image", "blind")},
        greedy={view: _shares(results.start, "greedy", view) for view in ("image", "blind")},
        grpo={
            name: shown(interval([number(run) for run in results.runs[BASELINE]])) for name, number in OUTCOMES.items()
        },
        tokens=f"{fmean(run.tokens for found in results.runs.values() for run in found):.0f}",
        pairs=[entry for entry in PAIRS if compared.has(entry[0], entry[1])],
        strengths=_strengths(results),
        told=_told,
        versions=", ".join(f"{name} {number}" for name, number in results.runs[BASELINE][0].data["versions"].items()),
    )


def _wording(start: Run) -> dict[str, str]:
    share = start.data["wording_alone"]
    return {**{name: f"{value:.3f}" for name, value in share.items()}, "all": f"{fmean(share.values()):.3f}"}


def _shares(start: Run, how: str, view: str) -> Mapping[str, str]:
    return {kind: f"{value:.3f}" for kind, value in start.data["evaluation"][how][view].items()}


def _told(compared: Compared) -> str:
    found = compared.found
    if found.separates:
        return f"{signed(found.interval)}{compared.mark}"
    return f"not resolved ({signed(found.interval)})"


def _strengths(results: Results) -> dict[str, str]:
    """{control: size of its term over that of PAPO-G's}, coefficients included, of those whose arms are there."""
    masked = _sizes(results, "papo_g", PAPO_COEF)
    told = {}
    for name, coef in (("papo_text", TEXT_COEF), ("papo_text_full", PAPO_COEF)):
        if (words := _sizes(results, name, coef)) and masked:
            ratios = [own / other for own, other in zip(words, masked, strict=True)]
            told[BY_NAME[name].label] = "{:.2f} ({:.2f} in the first half, {:.2f} in the second)".format(*ratios)
    return told


def _sizes(results: Results, name: str, coef: float) -> list[float]:
    """Of a PAPO term, over all steps, over the first half of them, and over the second; empty where it was not run."""
    if BY_NAME[name] not in results.arms:
        return []
    half = results.steps // 2
    columns = [run.column(DEPENDENCY) for run in results.runs[name]]
    return [
        coef * fmean(fmean(column[part]) for column in columns)
        for part in (slice(None), slice(half), slice(half, None))
    ]

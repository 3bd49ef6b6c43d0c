# SPDX-License-Identifier: Apache-2.0
"""Writes the page about the comparison from its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.arms import PAPO_COEF, TEXT_COEF
from study.results import BASELINE, Results, Run
from study.statistics import interval
from study.tables import DEPENDENCY, OUTCOMES, Compared, Tables, shown, signed

HERE = Path(__file__).parent
# What the text speaks about, where both arms are there.
PAIRS = (
    ("pgpo_shuffled", "pgpo", "PGPO's weights on other tokens, minus PGPO"),
    ("papo_text", "papo_g", "PAPO's term on shuffled text, minus PAPO-G"),
    ("papo_d", "dapo", "PAPO-D, minus DAPO"),
)


def page(results: Results, date: str) -> str:
    """The page as Markdown.

    Args:
        results: of all runs.
        date: to print, as MM/DD/YYYY.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    present = {arm.name for arm in results.arms}
    return environment.get_template("page.md.j2").render(
        date=date,
        arms=results.arms,
        seeds=results.seeds,
        tables=Tables(results),
        outcomes=list(OUTCOMES),
        settings=results.settings,
        checkpoints=", ".join(str(step) for step, _ in results.runs[BASELINE][0].curve(0.0)[1:]),
        wording=_wording(results.start),
        start={view: _shares(results.start, "accuracy", view) for view in ("image", "blind")},
        greedy={view: _shares(results.start, "greedy", view) for view in ("image", "blind")},
        grpo={
            name: shown(interval([number(run) for run in results.runs[BASELINE]])) for name, number in OUTCOMES.items()
        },
        tokens=f"{fmean(run.tokens for found in results.runs.values() for run in found):.0f}",
        pairs=[entry for entry in PAIRS if {entry[0], entry[1]} <= present],
        strength=_strength(results),
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


def _strength(results: Results) -> str | None:
    """The size of the control's term over that of PAPO-G's, coefficients included; None without both arms."""
    sizes = {}
    for name, coef in (("papo_text", TEXT_COEF), ("papo_g", PAPO_COEF)):
        measured = [mean for run in results.runs.get(name, ()) if (mean := run.mean(DEPENDENCY)) is not None]
        if not measured:
            return None
        sizes[name] = coef * fmean(measured)
    return f"{sizes['papo_text'] / sizes['papo_g']:.2f}"

# SPDX-License-Identifier: Apache-2.0
"""Writes the page about the comparison from its results."""

from __future__ import annotations

import statistics as middle
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.results import Results
from study.run import CHECKPOINT_EVERY, PROMPTS, RESPONSES, STEPS
from study.statistics import Difference
from study.tables import Tables, signed
from study.task import TEST_PER_KIND, TRAIN_PER_KIND

HERE = Path(__file__).parent
CONTROLS = (
    ("pgpo", "pgpo_shuffled", "PGPO minus its own weights on shuffled tokens"),
    ("papo_g", "papo_text", "PAPO-G minus the same term on a perturbed question"),
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
    tables = Tables(results)
    wording = results.start.data["wording_alone"]
    return environment.get_template("page.md.j2").render(
        date=date,
        arms=results.arms,
        seeds=results.seeds,
        tables=tables,
        steps=STEPS,
        prompts=PROMPTS,
        responses=RESPONSES,
        checkpoints=", ".join(str(step) for step in range(CHECKPOINT_EVERY, STEPS, CHECKPOINT_EVERY)) + f" and {STEPS}",
        train=2 * TRAIN_PER_KIND,
        test=2 * TEST_PER_KIND,
        wording=_shares({**wording, "all": middle.fmean(wording.values())}),
        start={view: _shares(results.start.data["evaluation"]["accuracy"][view]) for view in ("image", "blind")},
        target=f"{tables.target:.3f}",
        width=f"{tables.width():.3f}",
        tokens=f"{middle.fmean(run.tokens for found in results.runs.values() for run in found):.0f}",
        controls=[entry for entry in CONTROLS if {entry[0], entry[1]} <= present],
        signed=signed,
        verdict=_verdict,
        versions=_versions(results),
    )


def _shares(values: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in values.items()}


def _verdict(accuracy: Difference, dependency: Difference) -> str:
    """What the two differences allow to say."""
    names = {(True, True): "both", (True, False): "accuracy alone", (False, True): "visual dependency alone"}
    found = names.get((accuracy.separates, dependency.separates))
    return f"{found} separating" if found else "neither separating: where the credit goes made no visible difference"


def _versions(results: Results) -> str:
    first = next(iter(results.runs.values()))[0]
    return ", ".join(f"{name} {number}" for name, number in first.data["versions"].items())

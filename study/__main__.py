# SPDX-License-Identifier: Apache-2.0
"""`python -m study`: run what is missing, then write the page. Called by scripts/compare.sh."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import click

from study.arms import ARMS, BY_NAME
from study.figures import draw_all
from study.page import page
from study.results import read_results
from study.run import ROOT, Folders, Job, RunFailed, run_all
from verl_ext.errors import DataError

RESULTS = ROOT / "study" / "results"
PAGE = ROOT / "docs" / "comparison.md"


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, help="Seeds of each arm, counted from 1.")
@click.option("--arms", "names", type=click.Choice(list(BY_NAME)), multiple=True, help="Only these; repeatable.")
@click.option("--at-a-time", type=click.IntRange(min=1), default=2, help="Runs beside each other; 7 GB each.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "runs" / "comparison", help="Logs and data.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="What is kept of each run.")
@click.option(
    "--page",
    "target",
    type=click.Path(path_type=Path),
    help="The page, with its plots beside it: that of the docs, or with --arms one in the folder of --work.",
)
@click.option("--page-only", is_flag=True, help="Run nothing; write the page from the results that are there.")
def main(
    seeds: int, names: tuple[str, ...], at_a_time: int, work: Path, results: Path, target: Path | None, page_only: bool
) -> None:
    """Train every arm with every seed, evaluate it, and write the page from the files of all runs.

    \b
    Example:
        bash scripts/compare.sh --arms grpo --arms pgpo --seeds 3
    """
    arms = [BY_NAME[name] for name in names] or list(ARMS)
    jobs = [Job(arm, seed) for seed in range(1, seeds + 1) for arm in arms]
    try:
        if not page_only:
            run_all(jobs, Folders(results, work), at_a_time)
        write(results, target or (work / PAGE.name if names else PAGE))
    except (RunFailed, DataError) as failure:
        sys.exit(f"compare: {failure}")


def write(results: Path, target: Path) -> None:
    """Write the page and its plots."""
    found = read_results(results)
    draw_all(found, target.with_suffix(""))
    target.write_text(page(found, date.today().strftime("%m/%d/%Y")))
    print(f"written: {target}")


if __name__ == "__main__":
    main()

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
from study.plan import ROOT
from study.results import BASELINE, FEWEST, Results, read_results
from study.run import Folders, Job, RunFailed, run_all
from verl_ext.errors import DataError

RESULTS = ROOT / "study" / "results"
PAGE = ROOT / "docs" / "comparison.md"
SEEDS = 5


@click.command()
@click.option("--seeds", type=click.IntRange(min=FEWEST), default=SEEDS, help="Seeds of each arm, counted from 1.")
@click.option("--arms", "names", type=click.Choice(list(BY_NAME)), multiple=True, help="These and GRPO; repeatable.")
@click.option("--at-a-time", type=click.IntRange(min=1), default=2, help="Runs beside each other; 7 GB each.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "runs" / "comparison", help="Logs and data.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="What is kept of each run.")
@click.option(
    "--page",
    "target",
    type=click.Path(path_type=Path),
    help="The page, with its plots beside it: that of the docs, or of what was chosen one in the folder of --work.",
)
@click.option("--page-only", is_flag=True, help="Run nothing; write the page from the results that are there.")
def main(
    seeds: int, names: tuple[str, ...], at_a_time: int, work: Path, results: Path, target: Path | None, page_only: bool
) -> None:
    """Train every arm with every seed, evaluate it, and write the page from the files of all runs.

    What is finished is not run again; another folder for --results begins anew.

    \b
    Examples:
        bash scripts/compare.sh --arms pgpo --seeds 3
        bash scripts/compare.sh --results runs/comparison/results
    """
    arms = [arm for arm in ARMS if not names or arm.name in (BASELINE, *names)]
    jobs = [Job(arm, seed) for seed in range(1, seeds + 1) for arm in arms]
    is_whole = not names and seeds == SEEDS and results.resolve() == RESULTS
    try:
        if not page_only:
            run_all(jobs, Folders(results, work), at_a_time)
        found = read_results(results, [arm.name for arm in arms], seeds)
    except (RunFailed, DataError) as failure:
        sys.exit(f"compare: {failure}")
    write(found, target or (PAGE if is_whole else work / PAGE.name))


def write(results: Results, target: Path) -> None:
    """Write the page and its plots."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_all(results, target.with_suffix(""))
    target.write_text(page(results, date.today().strftime("%m/%d/%Y"), target.parent))
    print(f"written: {target}")


if __name__ == "__main__":
    main()

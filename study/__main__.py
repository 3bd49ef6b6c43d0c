# SPDX-License-Identifier: Apache-2.0
"""`python -m study`: run what is missing. Called by scripts/compare.sh."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from study.arms import ARMS, BY_NAME
from study.run import ROOT, Folders, Job, RunFailed, run_all

RESULTS = ROOT / "study" / "results"


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, help="Seeds of each arm, counted from 1.")
@click.option("--arms", "names", type=click.Choice(list(BY_NAME)), multiple=True, help="Only these; repeatable.")
@click.option("--at-a-time", type=click.IntRange(min=1), default=2, help="Runs beside each other; 7 GB each.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "runs" / "comparison", help="Logs and data.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="What is kept of each run.")
def main(seeds: int, names: tuple[str, ...], at_a_time: int, work: Path, results: Path) -> None:
    """Train every arm with every seed, and evaluate it.

    \b
    Example:
        bash scripts/compare.sh --arms grpo --arms pgpo --seeds 3
    """
    arms = [BY_NAME[name] for name in names] or list(ARMS)
    jobs = [Job(arm, seed) for seed in range(1, seeds + 1) for arm in arms]
    try:
        run_all(jobs, Folders(results, work), at_a_time)
    except RunFailed as failure:
        sys.exit(f"compare: {failure}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""`verl-ext data`: data sets in verl's parquet schema. Heavy imports stay inside the commands."""

from pathlib import Path

import click


@click.group("data")
def command() -> None:
    """Prepare data sets in verl's parquet schema."""


@command.command("easy-vqa")
@click.option(
    "--output-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("data/easy_vqa"), help="Created."
)
@click.option("--rl-fraction", type=float, default=0.5, help="Share of the train images kept for RL.")
@click.option("--blind-fraction", type=float, default=0.1, help="Share of the warm-start rows without their image.")
@click.option("--val-size", type=int, default=512, help="Number of test questions, with and without image each.")
@click.option("--questions", default="all", help="all, color, shape or yes_no; sft.parquet always has all.")
@click.option("--seed", type=int, default=0, help="Seed of the splits.")
def easy_vqa(
    output_dir: Path, rl_fraction: float, blind_fraction: float, val_size: int, questions: str, seed: int
) -> None:
    """Convert the PyPI package easy-vqa: sft, train, test and test_blind parquet files."""
    from verl_ext.data.easy_vqa import write_easy_vqa

    counts = write_easy_vqa(
        output_dir,
        rl_fraction=rl_fraction,
        blind_fraction=blind_fraction,
        val_size=val_size,
        questions=questions,
        seed=seed,
    )
    for name, count in counts.items():
        click.echo(f"{output_dir / name}.parquet: {count} rows")

# SPDX-License-Identifier: Apache-2.0
"""The command ``verl-ext``. Heavy imports stay inside the commands, so that ``--help`` is quick."""

from pathlib import Path
from typing import Any

import click

from verl_ext.errors import ConfigurationError, DataError


class _OneLineErrors(click.Group):
    """A group that prints the package's own errors as one line and exits with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (ConfigurationError, DataError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Perception-aware reinforcement learning of vision-language models, for verl."""


@main.group()
def data() -> None:
    """Prepare data sets in verl's parquet schema."""


@data.command("easy-vqa")
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


if __name__ == "__main__":
    main()

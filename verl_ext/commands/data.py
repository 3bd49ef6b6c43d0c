# SPDX-License-Identifier: Apache-2.0
"""`verl-ext data`: data sets in verl's parquet schema. Heavy imports stay inside the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verl_ext.data.data_set import HubDataSet
from verl_ext.data.sets import hub_data_sets

if TYPE_CHECKING:
    from verl_ext.data.source import Source

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_POSITIVE = click.IntRange(min=1)

_OPTIONS = (
    click.Option(["--template"], default="papo", help="papo, easyr1, plain, or the path of a Jinja file."),
    click.Option(["--blind"], is_flag=True, help="Also write held-out rows without images: <split>_blind.parquet."),
    click.Option(["--skip-bad"], is_flag=True, help="Leave unusable rows out instead of stopping at the first."),
    click.Option(["--keep-duplicates"], is_flag=True, help="Keep train rows that share an image with held-out rows."),
    click.Option(
        ["--held-out"],
        type=_FILE,
        multiple=True,
        help="A prepared file that train must share no image with; repeatable.",
    ),
    click.Option(["--limit"], type=_POSITIVE, help="Read only so many rows of each split, the first ones."),
    click.Option(["--max-pixels"], type=_POSITIVE, help="Scale larger images down to so many pixels."),
)
_VALIDATION_OPTIONS = (
    click.Option(
        ["--val-size"], type=click.IntRange(min=0), default=0, help="Hold so many train rows out: val.parquet."
    ),
    click.Option(["--seed"], type=int, default=0, help="Seed of the choice of held-out rows."),
)


@click.group("data")
def command() -> None:
    """Prepare data sets in verl's parquet schema, with a data card.

    \b
    Example:
        verl-ext data geometry3k --blind
    """


@command.command("easy-vqa")
@click.option("--output-dir", type=_FOLDER, default=Path("data/easy_vqa"), help="Created.")
@click.option("--rl-fraction", type=float, default=0.5, help="Share of the train images kept for RL.")
@click.option("--blind-fraction", type=float, default=0.1, help="Share of the warm-start rows without their image.")
@click.option("--val-size", type=int, default=512, help="Number of test questions, with and without image each.")
@click.option("--questions", default="all", help="all, color, shape or yes_no; sft.parquet always has all.")
@click.option("--seed", type=int, default=0, help="Seed of the splits.")
def easy_vqa(
    output_dir: Path, rl_fraction: float, blind_fraction: float, val_size: int, questions: str, seed: int
) -> None:
    """Convert the PyPI package easy-vqa: sft, train, test and test_blind parquet files.

    \b
    Example:
        verl-ext data easy-vqa --questions color --val-size 256
    """
    from verl_ext.data.easy_vqa import write_easy_vqa

    counts = write_easy_vqa(
        output_dir,
        rl_fraction=rl_fraction,
        blind_fraction=blind_fraction,
        val_size=val_size,
        questions=questions,
        seed=seed,
    )
    _tell_rows(output_dir, counts)


@command.command("folder", params=[*_OPTIONS, *_VALIDATION_OPTIONS])
@click.argument("path", type=_EXISTING)
@click.option("--test", type=_EXISTING, help="A further table or folder, held out as test.parquet.")
@click.option("--name", help="data_source of the rows; the name of PATH if not given.")
@click.option("--licence", default="not stated", help="For the data card.")
@click.option("--allow-outside", is_flag=True, help="Also read images outside of the folder of their table.")
@click.option("--output-dir", type=_FOLDER, help="Created; data/<name> if not given.")
def folder(path: Path, name: str | None, output_dir: Path | None, **options: Any) -> None:
    """Convert images, questions and answers of your own.

    PATH is a table (.jsonl, .csv, .parquet) with the columns image or images, question, answer and, if there are any,
    choices; or a folder with such a table, called metadata, beside its images; or a folder of those, such as train and
    test. Paths of images are relative to their table. Nothing is fetched from URLs.

    \b
    Example:
        verl-ext data folder photos --val-size 200 --blind
    """
    from verl_ext.data.source import folder_source

    name = name or path.resolve().stem
    own = {key: options.pop(key) for key in ("test", "licence", "allow_outside")}
    _convert(folder_source(path, name=name, **own), output_dir or Path("data") / name, options)


def _hub_command(data_set: HubDataSet) -> click.Command:
    repositories = [repository.id for repository in data_set.repositories]
    revisions = "; ".join(f"{repository.id}: {repository.revision}" for repository in data_set.repositories)
    held_out = any(split != "train" for repository in data_set.repositories for split in repository.files)

    @click.command(
        data_set.name,
        params=[*_OPTIONS, *(() if held_out else _VALIDATION_OPTIONS)],
        help=f"Convert {data_set.title}.\n\n\b\nExample:\n    verl-ext data {data_set.name} --limit 100",
    )
    @click.option("--repo", type=click.Choice(repositories), default=repositories[0], help="Where to get it.")
    @click.option("--revision", help=f"Commit, tag or branch to get instead ({revisions}).")
    @click.option("--source", type=_EXISTING, help="A download of the repository, or one file; nothing is fetched.")
    @click.option("--output-dir", type=_FOLDER, default=Path("data") / data_set.name, help="Created.")
    def convert_hub(repo: str, revision: str | None, source: Path | None, output_dir: Path, **options: Any) -> None:
        from verl_ext.data.source import hub_source, local_source

        repository = data_set.repository(repo)
        if source is not None and revision is not None:
            raise click.UsageError("--revision is of the hub; --source reads local files")
        if source is not None:
            _convert(local_source(data_set, repository, source), output_dir, options)
        else:
            _convert(hub_source(data_set, repository, revision or repository.revision), output_dir, options)

    return convert_hub


def _convert(source: Source, output_dir: Path, options: Mapping[str, Any]) -> None:
    from verl_ext.data.convert import Options, convert

    counts = convert(source, output_dir, Options(**options))
    _tell_rows(output_dir, {name: count.rows for name, count in counts.items()})
    for name, count in counts.items():
        if count.unusable or count.duplicates:
            click.echo(f"left out of {name}: {len(count.unusable)} unusable, {count.duplicates} duplicates")


def _tell_rows(output_dir: Path, rows: Mapping[str, int]) -> None:
    for name, count in rows.items():
        click.echo(f"{output_dir / name}.parquet: {count} rows")


for _data_set in hub_data_sets():
    command.add_command(_hub_command(_data_set))

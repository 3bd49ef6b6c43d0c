# SPDX-License-Identifier: Apache-2.0
"""`verl-ext report`: training runs as one page and as figures. Heavy imports stay inside the command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from verl_ext.errors import ConfigurationError

if TYPE_CHECKING:
    from verl_ext.report.runs import Run

T = TypeVar("T")


@click.command("report", epilog="Example: verl-ext report checkpoints/shapes/grpo checkpoints/shapes/pgpo")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN [RUN ...]")
@click.option(
    "--metrics",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of verl's file logger, if it does not lie in RUN; may be repeated. With several runs, one for each.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write.  [default: RUN/report, or report]",
)
@click.option("--label", "labels", multiple=True, help="Name of a run in the report; one for each run.")
@click.option("--no-png", is_flag=True, help="Write the page alone, without figures.")
@click.option("--max-records", type=click.IntRange(min=1), default=200, help="Recorded responses to show of a run.")
def command(
    runs: tuple[Path, ...],
    metrics: tuple[Path, ...],
    output: Path | None,
    labels: tuple[str, ...],
    no_png: bool,
    max_records: int,
) -> None:
    """Make one offline page, and figures, of training runs.

    RUN is verl's trainer.default_local_dir, with the metrics of verl's file logger in it. What
    perception.record_every recorded there is shown token by token.
    """
    from verl_ext.report.runs import load_run
    from verl_ext.report.validation import with_notes

    names = _labels(runs, labels)
    files = _metrics(runs, metrics)
    inputs = list(zip(runs, files, names, strict=True))
    read = [load_run(run, own, name, max_records) for run, own, name in _progress(inputs, "Reading runs")]
    loaded = with_notes(read)
    for run in loaded:
        for note in run.notes:
            click.echo(f"{run.label}: {note}", err=True)
    for path in _write(loaded, output or (runs[0] / "report" if len(runs) == 1 else Path("report")), not no_png):
        click.echo(path)


def _write(runs: Sequence[Run], folder: Path, png: bool) -> Iterator[Path]:
    from verl_ext.report.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    write_page(runs, page, lambda responses: _progress(responses, "Writing the page"))
    yield page
    if png:
        yield from _write_figures(runs, folder)


def _write_figures(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    from verl_ext.report.figures import drawings, write_figure

    paths = [write_figure(drawing, folder) for drawing in _progress(drawings(runs), "Drawing figures")]
    yield from (path for path in paths if path)


def _labels(runs: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """A different name for every run: the labels, or the folders' names, or their paths where names are the same."""
    if labels and len(labels) != len(runs):
        raise ConfigurationError(key="--label", value=list(labels), remedy=f"give one for each of the {len(runs)} runs")
    names = list(labels) or [run.resolve().name for run in runs]
    if len(set(names)) < len(names) and not labels:
        names = [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise ConfigurationError(key="--label", value=names, remedy="give every run a name of its own")
    return names


def _metrics(runs: Sequence[Path], metrics: Sequence[Path]) -> list[list[Path]]:
    """The files given for each run."""
    if len(runs) == 1:
        return [list(metrics)]
    if metrics and len(metrics) != len(runs):
        given = [str(path) for path in metrics]
        raise ConfigurationError(key="--metrics", value=given, remedy=f"give one for each of the {len(runs)} runs")
    return [[path] for path in metrics] or [[] for _ in runs]


def _progress(items: Sequence[T], label: str) -> Iterable[T]:
    with click.progressbar(items, label=label, file=sys.stderr, hidden=not items) as bar:
        yield from bar

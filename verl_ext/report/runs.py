# SPDX-License-Identifier: Apache-2.0
"""What a training run left behind: its metrics and its recorded responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_ext.errors import DataError
from verl_ext.report.metrics_file import Step, is_number, read_steps, with_earlier
from verl_ext.report.record_files import Response, prompt_ids, read_responses, record_files
from verl_ext.report.selection import choose


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        label: its name in the report.
        steps: metrics by step.
        responses: recorded responses in order of their steps.
        notes: sentences about what is left out.
    """

    label: str
    steps: list[Step]
    responses: list[Response]
    notes: list[str]


def load_run(folder: Path, metrics: Sequence[Path], label: str, max_records: int) -> Run:
    """Read a run.

    Args:
        folder: verl's `trainer.default_local_dir`, or the folder that holds it as `checkpoints`.
        metrics: files of verl's file logger, of which earlier attempts kept beside them are read as well; if empty,
            those that lie in `folder`.
        label: name of the run in the report.
        max_records: how many recorded responses to take at most.

    Raises:
        DataError: there are no metrics, or a file cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths, notes = (_with_earlier(metrics), []) if metrics else _metrics_files(folder)
    steps = read_steps(_in_order(paths))
    if not steps:
        raise DataError(_no_metrics(folder))
    responses, record_notes = _responses(folder, max_records)
    return Run(label, steps, responses, [*notes, *_not_numbers(steps), *record_notes])


def _with_earlier(metrics: Sequence[Path]) -> list[Path]:
    """The files and the earlier attempts beside them, each once."""
    return list(dict.fromkeys(path for given in metrics for path in with_earlier(given)))


def _metrics_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Metrics files in the folder, and notes about other JSON-lines files."""
    paths = sorted(folder.glob("*.jsonl"))
    metrics = [path for path in paths if _is_metrics_file(path)]
    others = [path for path in paths if path not in metrics]
    return metrics, [f"{path} is left out: its first line is not one of verl's file logger" for path in others]


def _is_metrics_file(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    return not first.endswith(b"\n") or (b'"step"' in first and b'"data"' in first)


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Files by their first steps, then by age, so that what a resumed run repeated replaces what it repeats."""
    return sorted(paths, key=lambda path: (_first_step(path), _modified(path), path.name))


def _first_step(path: Path) -> int:
    return next((step for step, _ in read_steps([_existing(path)])), 0)


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return path


def _no_metrics(folder: Path) -> str:
    return (
        f"{folder}: no metrics of verl's file logger. Train with trainer.logger=[console,file] and the environment"
        f" variable VERL_FILE_LOGGER_PATH={folder}/metrics.jsonl, or name the file with --metrics"
    )


def _not_numbers(steps: Sequence[Step]) -> Iterator[str]:
    names = {name for _, data in steps for name, value in data.items() if value is not None and not is_number(value)}
    if names:
        yield f"values that are not finite numbers are left out: {', '.join(sorted(names))}"


def _responses(folder: Path, max_records: int) -> tuple[list[Response], list[str]]:
    files, notes = record_files(folder)
    prompts = [prompt_ids(path) for path in files]
    chosen = choose(prompts, max_records)
    found, shown = (sum(map(len, rows)) for rows in (prompts, chosen))
    if shown < found:
        notes = [*notes, f"{shown} of {found} recorded responses are shown; --max-records allows more"]
    return [r for path, rows in zip(files, chosen, strict=True) if rows for r in read_responses(path, rows)], notes

# SPDX-License-Identifier: Apache-2.0
"""The per-token records of a run: `perception_tokens/step_<step>.parquet`, one row a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.errors import DataError

FOLDER = "perception_tokens"
REQUIRED = ("step", "uid", "prompt", "tokens", "visual_dependency", "signals", "weight", "reward")
OPTIONAL = ("prompt_id", "advantage", "accuracy", "ground_truth", "images")
_FOOTER = b"PAR1"


@dataclass(frozen=True)
class Response:
    """One recorded response.

    Attributes:
        step: training step.
        uid: verl's identifier of the prompt within its step.
        prompt: the prompt as text.
        tokens: response tokens as text.
        values: a number a token, by name: `visual_dependency`, `weight`, `advantage`, every signal; where measured.
        reward: score of the response.
        prompt_id: the same for the same prompt and image at any step; None in older records.
        accuracy: 1 where the answer is right, 0 where it is wrong; None if it was not recorded.
        ground_truth: the expected answer, or None.
        images: PNG files of the prompt.
    """

    step: int
    uid: str
    prompt: str
    tokens: list[str]
    values: dict[str, list[float]]
    reward: float
    prompt_id: str | None
    accuracy: float | None
    ground_truth: str | None
    images: list[bytes]


def record_files(run_dir: Path) -> tuple[list[Path], list[str]]:
    """Record files of a run in order of their steps, and notes about what is left out.

    They lie in `perception_tokens` of `trainer.default_local_dir`, which may be `run_dir` or its folder `checkpoints`.
    The newest file without its end, as when it is copied while it is written, is left out with a note.
    """
    files = sorted((run_dir / FOLDER).glob("step_*.parquet")) or sorted(
        (run_dir / "checkpoints" / FOLDER).glob("step_*.parquet")
    )
    if files and not _finished(files[-1]):
        return files[:-1], [f"{files[-1]} is not complete and is left out"]
    return files, []


def prompt_ids(path: Path) -> list[str | None]:
    """The prompt id of every row; None where there is none.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    columns = _columns(path)
    column = "prompt_id" if "prompt_id" in columns else "uid"
    rows = _rows(path, [column])
    return [row.get("prompt_id") for row in rows]


def read_responses(path: Path, rows: Sequence[int]) -> list[Response]:
    """The responses in these rows of a record file.

    Raises:
        DataError: the file cannot be read, lacks a column, or a row's lists differ in length.
    """
    found = _rows(path, _columns(path))
    return [_response(found[row], f"{path}, row {row}") for row in rows]


def _finished(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_FOOTER)))
        return file.read() == _FOOTER


def _columns(path: Path) -> list[str]:
    try:
        present = set(pq.read_schema(path).names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from error
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise DataError(f"{path}: column {', '.join(missing)} is missing; records of verl-ext have it")
    return [name for name in (*REQUIRED, *OPTIONAL) if name in present]


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path, columns=columns).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from error


def _response(row: dict[str, Any], where: str) -> Response:
    missing = [name for name in ("step", "tokens", "reward") if row[name] is None]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} is null")
    return Response(
        step=row["step"],
        uid=row["uid"] or "",
        prompt=row["prompt"] or "",
        tokens=row["tokens"],
        values=_values(row, where),
        reward=row["reward"],
        prompt_id=row.get("prompt_id"),
        accuracy=row.get("accuracy"),
        ground_truth=row.get("ground_truth"),
        images=row.get("images") or [],
    )


def _values(row: dict[str, Any], where: str) -> dict[str, list[float]]:
    own = ((name, row.get(name)) for name in ("visual_dependency", "weight", "advantage"))
    values = {name: numbers for name, numbers in (*own, *sorted(row["signals"] or [])) if numbers}
    for name, numbers in values.items():
        if len(numbers) != len(row["tokens"]):
            raise DataError(f"{where}: {len(numbers)} values of {name} for {len(row['tokens'])} tokens")
    return values

# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet, JSON lines and CSV files, one after the other, each with a name for errors."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.data.progress import progress_bar
from verl_ext.errors import DataError

SUFFIXES = (".parquet", ".jsonl", ".csv")
_BATCH_ROWS = 32


@dataclass(frozen=True)
class Record:
    """One row of a table: its values by column, the folder of its file, and how to call it in an error."""

    name: str
    folder: Path
    values: dict[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a file in order; Parquet is read in batches, so that memory stays bounded.

    Values of Parquet and JSON keep their types; all of CSV are strings.

    Raises:
        DataError: the file has another suffix, is missing, or cannot be read; a line of it is no row.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: a file in {', '.join(SUFFIXES)} is needed")
    try:
        for name, values in reader(path):
            yield Record(f"{path}: {name}", path.parent, values)
    except DataError:
        raise
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def count_records(path: Path) -> int:
    """The number of rows that `read_records` gives."""
    if path.suffix != ".parquet":
        return _counted(path)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _counted(path: Path) -> int:
    with progress_bar(f"counting {path.name}", None, "rows") as bar:
        for _ in read_records(path):
            bar.update()
    return int(bar.n)


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    position = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                yield f"row {position}", values
                position += 1


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _json_object(line, f"{path}: line {number}")


def _json_object(line: str, name: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{name}: holds a {type(values).__name__}; an object is needed")
    return values


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        for values in reader:
            name = f"line {reader.line_num}"
            if None in values or None in values.values():
                raise DataError(f"{path}: {name}: has not as many cells as the header")
            yield name, dict(values)


_READERS = {".parquet": _parquet_rows, ".jsonl": _json_rows, ".csv": _csv_rows}

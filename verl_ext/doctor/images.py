# SPDX-License-Identifier: Apache-2.0
"""How many images do the rows of a whole Parquet file hold, and how many do their prompts mark?

The pictures themselves are not read where the file's own counts show that each row has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.doctor.checks import Check, failure, ok, warning

BATCH = 256
"""Rows that are read at a time."""
WRITER = "parquet-cpp"
"""Start of the name of the writer (pyarrow's) whose number of nulls is known to count empty lists."""


def image_check(file: Path, prompt_column: str, image_column: str, *, training: bool) -> Iterator[Check]:
    """One line on all rows of a Parquet file; nothing where the image column is not one of lists.

    Args:
        file: of rows.
        prompt_column: its column of chat messages.
        image_column: its column of images.
        training: whether it is trained on, so that rows without an image are a waste.
    """
    with pq.ParquetFile(file, pre_buffer=False) as table:
        held, marked = images_held(table, image_column), images_marked(table, prompt_column)
    if held is not None and len(held):
        yield _judged(file, held, marked, training)


def images_held(table: pq.ParquetFile, column: str) -> np.ndarray | None:
    """The number of images of each row, int64, shape (rows,); None where `column` is not one of lists."""
    if not _is_list(table, column):
        return None
    groups = [_held_in_group(table, column, group) for group in range(table.num_row_groups)]
    return np.concatenate([np.zeros(0, np.int64), *groups])


def images_marked(table: pq.ParquetFile, column: str) -> np.ndarray | None:
    """The number of `<image>` in each row's messages, int64, shape (rows,); None where their content is no text."""
    path = next((path for path in _leaves(table, column) if path.split(".")[3:] == ["content"]), None)
    if path is None or not _is_list(table, column):
        return None
    counts = [_marked(batch.column(0)) for batch in table.iter_batches(BATCH, columns=[path])]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def _judged(file: Path, held: np.ndarray, marked: np.ndarray | None, training: bool) -> Check:
    if marked is not None and (held != marked).any():
        return _different(file, held, marked)
    lacking = int((held == 0).sum())
    if lacking and training:
        found = f"{file}: {lacking} of {len(held)} rows have no image"
        return warning("images", found, "the methods change nothing for them; add the images, or leave out the rows")
    return ok("images", f"{file}: {len(held) - lacking} of {len(held)} rows have an image")


def _different(file: Path, held: np.ndarray, marked: np.ndarray) -> Check:
    rows = np.flatnonzero(held != marked)
    found = (
        f"{file}: {len(rows)} of {len(held)} rows mark another number of images with {PLACEHOLDER} than they "
        f"hold; the first is row {rows[0]}, which marks {marked[rows[0]]} and holds {held[rows[0]]}"
    )
    return failure("images", found, "training stops at such a row: add the images, or take out what marks them")


def _is_list(table: pq.ParquetFile, column: str) -> bool:
    schema = table.schema_arrow
    return column in schema.names and _lists(schema.field(column).type)


def _lists(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _leaves(table: pq.ParquetFile, column: str) -> list[str]:
    """Paths of what Parquet stores of a column."""
    paths = (table.schema.column(index).path for index in range(len(table.schema)))
    return [path for path in paths if path.split(".")[0] == column]


def _held_in_group(table: pq.ParquetFile, column: str, group: int) -> np.ndarray:
    chunks = [chunk for chunk in _chunks(table, group) if chunk.path_in_schema.split(".")[0] == column]
    rows = table.metadata.row_group(group).num_rows
    if str(table.metadata.created_by).startswith(WRITER) and any(_one_a_row(chunk, rows) for chunk in chunks):
        return np.ones(rows, np.int64)
    smallest = min(chunks, key=lambda chunk: chunk.total_compressed_size).path_in_schema
    batches = table.iter_batches(BATCH, row_groups=[group], columns=[smallest])
    counts = [pc.fill_null(pc.list_value_length(batch.column(0)), 0).to_numpy() for batch in batches]
    return np.concatenate(counts).astype(np.int64)


def _chunks(table: pq.ParquetFile, group: int) -> Iterator[Any]:
    metadata = table.metadata.row_group(group)
    yield from (metadata.column(index) for index in range(metadata.num_columns))


def _one_a_row(chunk: Any, rows: int) -> bool:
    """Whether a column's counts leave no other way than one element a row: none is empty, and there are as many."""
    counts = chunk.statistics
    return counts is not None and counts.has_null_count and counts.null_count == 0 and chunk.num_values == rows


def _marked(messages: pa.ListArray) -> np.ndarray:
    contents = pc.struct_field(pc.list_flatten(messages), [0])
    if not (pa.types.is_string(contents.type) or pa.types.is_large_string(contents.type)):
        return np.zeros(len(messages), np.int64)
    counts = pc.fill_null(pc.count_substring(contents, PLACEHOLDER), 0).to_numpy()
    parents = pc.list_parent_indices(messages).to_numpy()
    return np.bincount(parents, weights=counts, minlength=len(messages)).astype(np.int64)

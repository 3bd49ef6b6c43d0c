# SPDX-License-Identifier: Apache-2.0
"""Parquet files of rows, written in row groups, so that memory stays bounded however large the data set."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.data.rows import Row

GROUP_ROWS = 1024
GROUP_BYTES = 32 * 2**20
"""A row group is full at either: its rows, or the bytes of its images."""

_TEXT = pa.string()
EXTRA_INFO: dict[str, pa.DataType] = {
    "split": _TEXT,
    "index": pa.int64(),
    "question": _TEXT,
    "answer": _TEXT,
    "answer_type": _TEXT,
    "source_id": _TEXT,
}
"""The columns of `extra_info`: the same for all data sets, because verl concatenates the files that it is given."""


def row_schema(extra_info: dict[str, pa.DataType], *, response: bool = False) -> pa.Schema:
    """The schema of rows, spelled out because inference would type an all-empty `images` column as null.

    With `response`, rows have a column of that name for supervised training.
    """
    fields = [
        ("data_source", _TEXT),
        ("prompt", pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("ability", _TEXT),
        ("reward_model", pa.struct([("style", _TEXT), ("ground_truth", _TEXT)])),
        ("extra_info", pa.struct(list(extra_info.items()))),
    ]
    return pa.schema([*fields, ("response", _TEXT)] if response else fields)


class RowFile(AbstractContextManager["RowFile"]):
    """A file that rows are written to; it gets its name when the context ends well, and is removed otherwise."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._part = path.with_name(f"{path.name}.part")
        self._rows: list[Row] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(self._part, schema)

    def write(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(row)
        self._bytes += sum(len(image["bytes"]) for image in row["images"])
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is left; the file still has no name of its own, so that others can be finished before it has."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                os.replace(self._part, self._path)
            else:
                self._writer.close()
        finally:
            self._part.unlink(missing_ok=True)

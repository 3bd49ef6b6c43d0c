# SPDX-License-Identifier: Apache-2.0
"""Where a Parquet file is damaged: found by reading it, once something else has failed on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises on damaged files, Thrift's errors among them."""
ROWS_AT_A_TIME = 16


def first_damage(paths: Iterable[Path]) -> str | None:
    """A clause about the first file that cannot be read to its end: its name, and its rows if its index is whole.

    Bytes of a page that were changed without making it unreadable are not found: Parquet files have no checksums unless
    their writer was told so.
    """
    return next((found for path in paths for found in _damages(path)), None)


def _damages(path: Path) -> Iterator[str]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except BROKEN as error:
        yield f"{path} is no whole Parquet file ({_said(error)}); it may have been copied or written only in part"
        return
    with file:
        start = 0
        for group in range(file.num_row_groups):
            yield from _damages_of_group(path, file, group, start)
            start += file.metadata.row_group(group).num_rows


def _damages_of_group(path: Path, file: pq.ParquetFile, group: int, start: int) -> Iterator[str]:
    """Args: start: number of the group's first row in the file."""
    row, last = start, start + file.metadata.row_group(group).num_rows - 1
    try:
        for batch in file.iter_batches(ROWS_AT_A_TIME, row_groups=[group]):
            batch.validate(full=True)
            row += len(batch)
    except BROKEN as error:
        yield f"{path} is damaged between row {row} and row {last} ({_said(error)})"


def _said(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

# SPDX-License-Identifier: Apache-2.0
"""The pixels of rows that name another row for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import transfer_queue as tq
from torch import Tensor

from verl_ext.errors import DataError
from verl_ext.passes.row_inputs import Inputs, row_inputs
from verl_ext.vocabulary import PIXELS_OF

TRAINED = "train"
"""verl's partition of the rows that are trained on."""


def with_pixels(rows: Sequence[Inputs], partition: str = TRAINED) -> list[Inputs]:
    """The rows as verl knows them; those of one picture share one tensor.

    Pixels of rows that are not among `rows` (verl may spread a group over ranks) are fetched, each once.

    Args:
        rows: `multi_modal_inputs`, row by row.
        partition: of TransferQueue, where the named rows lie.

    Raises:
        DataError: a row that is named is not there.
    """
    pixels = _carried(rows)
    absent = sorted({row[PIXELS_OF] for row in rows if PIXELS_OF in row} - pixels.keys())
    if absent:
        pixels |= _fetched(absent, partition)
    return [_whole(row, pixels) for row in rows]


def _fetched(keys: list[str], partition: str) -> dict[str, Tensor]:
    there = (tq.kv_list(partition) or {}).get(partition, {})
    if lost := [key for key in keys if key not in there]:
        raise DataError(
            f"the pictures of the rows {lost} are not in TransferQueue, but other rows of their groups were sampled; "
            "write perception.share_prompts=False where something parts groups"
        )
    fields = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=["multi_modal_inputs"])
    return _carried(row_inputs(fields))


def _carried(rows: Iterable[Inputs]) -> dict[str, Tensor]:
    return {row[PIXELS_OF]: row["pixel_values"] for row in rows if PIXELS_OF in row and "pixel_values" in row}


def _whole(row: Inputs, pixels: Mapping[str, Tensor]) -> Inputs:
    if PIXELS_OF not in row:
        return row
    others = {name: value for name, value in row.items() if name not in (PIXELS_OF, "pixel_values")}
    return {"pixel_values": pixels[row[PIXELS_OF]], **others}

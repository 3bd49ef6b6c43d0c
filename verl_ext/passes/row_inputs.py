# SPDX-License-Identifier: Apache-2.0
"""`multi_modal_inputs` of verl's batches, row by row."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

Inputs = dict[str, Any]
"""`multi_modal_inputs` of one row: `pixel_values` (N, D), `image_grid_thw` (images, 3), ..."""


def row_inputs(batch: TensorDict) -> list[Inputs]:
    """`multi_modal_inputs` row by row; an empty dict where a row has none."""
    if "multi_modal_inputs" not in batch:
        return [{} for _ in range(batch.batch_size[0])]
    rows = [getattr(row, "data", row) for row in batch["multi_modal_inputs"]]
    return [dict(row) if row else {} for row in rows]


def set_row_inputs(batch: TensorDict, rows: list[Inputs]) -> None:
    """Replace `multi_modal_inputs`, one dict a row."""
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", rows)


def has_image(inputs: Inputs) -> bool:
    """Whether a row carries image features."""
    return inputs.get("pixel_values") is not None

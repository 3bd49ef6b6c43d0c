# SPDX-License-Identifier: Apache-2.0
"""Before a pass: do a row's image tokens and its image features agree?"""

from __future__ import annotations

import torch
from tensordict import TensorDict

from verl_ext.errors import DataError
from verl_ext.integration.ablated_batch import Inputs, ModelFacts, has_image, row_inputs


def check_image_tokens(data: TensorDict, model: ModelFacts) -> None:
    """Compare the placeholders in each row with the features that will replace them.

    Raises:
        DataError: a row's counts differ, or a response has images (a tool returned one); names the row's uid and data
            index, and the counts.
    """
    prompts, responses = (count_vision_tokens(data[name], model) for name in ("prompts", "responses"))
    for row, inputs in enumerate(row_inputs(data)):
        if responses[row]:
            raise DataError(
                f"{_row_name(data, row)}: its response has {responses[row]} image tokens; images in responses (tools "
                "that return pictures) are not supported by perception methods"
            )
        tokens = prompts[row]
        features = _feature_count(inputs, model.merge_size)
        if tokens != features:
            raise DataError(
                f"{_row_name(data, row)}: its prompt has {tokens} image tokens but its images give {features} "
                "features; check that the prompt names every image once and that no placeholder was typed in the text"
            )


def count_vision_tokens(sequences: torch.Tensor, model: ModelFacts) -> list[int]:
    """How many vision placeholders each of the (B, j) jagged sequences has."""
    ids = torch.tensor(model.vision_token_ids)
    return [int(torch.isin(sequence.cpu(), ids).sum()) for sequence in sequences.unbind()]


def _feature_count(inputs: Inputs, merge_size: int) -> int:
    grids = [inputs.get("image_grid_thw") if has_image(inputs) else None, inputs.get("video_grid_thw")]
    return sum(int(grid.prod(dim=-1).sum()) // merge_size**2 for grid in grids if grid is not None)


def _row_name(data: TensorDict, row: int) -> str:
    names = [f"{key} {data[key][row]}" for key in ("uid", "index") if key in data]
    return f"row {row} ({', '.join(names)})" if names else f"row {row}"

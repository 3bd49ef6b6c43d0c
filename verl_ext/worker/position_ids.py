# SPDX-License-Identifier: Apache-2.0
"""Position ids as verl's engines expect them, also when all rows of a batch happen to be equally long.

torch guesses which dimension of a jagged tensor is ragged from the sizes of its rows. TransferQueue lets it guess for
rows of shape (4, L); when every L is the same it picks the 4, and verl's engines then fail on the result.
"""

from __future__ import annotations

from tensordict import TensorDict
from torch.nested import nested_tensor_from_jagged


def repair_position_ids(data: TensorDict) -> None:
    """Replace `position_ids` (B, R, j) by one that is ragged along the sequence, if it is not.

    Args:
        data: a batch with `input_ids` (B, j) jagged.
    """
    position_ids, input_ids = data["position_ids"], data["input_ids"]
    if not position_ids.is_nested or position_ids.dim() != 3:
        return
    offsets = input_ids.offsets()
    if position_ids.offsets().equal(offsets):
        return
    rows = position_ids.values().unflatten(0, (len(data), -1))
    data["position_ids"] = nested_tensor_from_jagged(rows.transpose(0, 1).flatten(1), offsets, jagged_dim=2)

# SPDX-License-Identifier: Apache-2.0
"""Where the tokens of one of verl's micro-batches stand among the positions that the model computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nested import nested_tensor_from_jagged
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id

from verl_ext.passes.shared_prompts import shared_prompts
from verl_ext.signals.layout import TokenLayout


def token_layout(micro_batch: TensorDict, vision_token_ids: Sequence[int], packed: bool | None = None) -> TokenLayout:
    """Flat positions of the response tokens and of the prompts' image tokens, on the device that the engine uses.

    Where prompts are shared they are those of :class:`verl_ext.passes.shared_prompts.SharedPrompts`.

    Hidden states flattened to (positions, D) are indexed by them: (1, N, D) when sequences are packed, (B, L, D) with
    every sequence at the start of its row when they are padded. A token's own state stands at its position; the
    distribution that it was drawn from stands one before, or at the end of its prompt.

    Args:
        micro_batch: `input_ids`, `responses` (jagged), and verl's setting `use_remove_padding`.
        vision_token_ids: ids of the placeholders that image features replace.
        packed: instead of verl's setting and of sharing, whether positions are those of the sequences laid end to end.
    """
    device = get_device_id()
    if packed is None and (shared := shared_prompts(micro_batch)) is not None:
        return shared.layout(vision_token_ids, device)
    ids, offsets = micro_batch["input_ids"].values().to(device), micro_batch["input_ids"].offsets().to(device)
    lengths, responses = offsets.diff(), micro_batch["responses"].offsets().diff().to(device)
    # Of row b, position p is ids[offsets[b] + p] and flat position starts[b] + p.
    in_rows = torch.arange(len(lengths), device=device)
    packed = _is_packed(micro_batch) if packed is None else packed
    starts = offsets[:-1] if packed else in_rows * lengths.max()
    rows = torch.repeat_interleave(in_rows, lengths)
    positions = torch.arange(len(ids), device=device) - offsets[:-1][rows]
    flat = starts[rows] + positions
    in_response = positions >= (lengths - responses)[rows]
    image = ~in_response & torch.isin(ids, torch.tensor(vision_token_ids, device=device, dtype=ids.dtype))
    return TokenLayout(
        tokens=flat[in_response],
        token_rows=rows[in_response],
        images=flat[image],
        image_rows=rows[image],
        rows=len(lengths),
    )


def as_response_field(values: Tensor, micro_batch: TensorDict) -> Tensor:
    """(N,) values of all response tokens, in order, as (B, j) jagged fp32."""
    offsets = micro_batch["responses"].offsets().to(values.device)
    return nested_tensor_from_jagged(values.float(), offsets)


def predictors(micro_batch: TensorDict, packed: bool | None = None) -> Tensor:
    """(N,) flat positions of the states whose distributions the response tokens were drawn from."""
    if packed is None and (shared := shared_prompts(micro_batch)) is not None:
        return shared.predictors.to(get_device_id())
    return token_layout(micro_batch, (), packed).tokens - 1


def temperature(micro_batch: TensorDict) -> float:
    """What verl divides the logits of `micro_batch` by."""
    return float(tu.get_non_tensor_data(data=micro_batch, key="temperature", default=1.0))


def _is_packed(micro_batch: TensorDict) -> bool:
    return bool(tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True))

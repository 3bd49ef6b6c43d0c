# SPDX-License-Identifier: Apache-2.0
"""Rotary positions that stay what they were when the tokens between them are dropped.

Vision-language models for Megatron make positions of the ids that they are given, so a text whose vision tokens are
dropped would move together. Here the language model inside gets the micro-batch's own positions instead.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.tensordict_utils import maybe_fix_3d_position_ids

from verl_ext.passes.forward_step import method_replaced
from verl_ext.passes.megatron.cut import Cut, cut_of
from verl_ext.passes.megatron.grid import Axis, Grid
from verl_ext.passes.megatron.model import language_model

ROTARY_AXES = 3


def own_positions(model: Any, micro_batch: TensorDict, grid: Grid) -> AbstractContextManager[None]:
    """While open, the language model in `model` runs `micro_batch` at the positions that `position_ids` name.

    Args:
        model: a model chunk of the engine.
        micro_batch: `position_ids` (B, R, j) jagged, whose last three rows are rotary positions.
        grid: what the micro-batch is cut over.
    """
    # Not a hook: Megatron-Bridge's models call `forward` itself.
    return method_replaced(language_model(model), "forward", lambda run: _at_own_positions(run, micro_batch, grid))


def _at_own_positions(run: Any, micro_batch: TensorDict, grid: Grid) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        kwargs["position_ids"] = _replaced(
            kwargs["position_ids"], micro_batch, kwargs.get("packed_seq_params"), grid.context
        )
        return run(*args, **kwargs)

    return forward


def _replaced(given: Tensor, micro_batch: TensorDict, pack: Any, context: Axis) -> Tensor:
    """`given` (3, columns, places) with the micro-batch's positions where it has tokens."""
    if given.ndim != 3 or len(given) != ROTARY_AXES:
        raise RuntimeError(
            f"the language model takes positions of shape {tuple(given.shape)}; dropping vision tokens needs one that "
            f"takes ({ROTARY_AXES}, batch, length), such as Qwen2.5-VL's"
        )
    rotary, offsets = _rotary(micro_batch, given.device)
    cut, rank = _cut_of_positions(given, offsets, pack, context)
    kept = (cut.context == rank).nonzero().flatten()
    replaced = given.clone()
    replaced[:, cut.column[kept], cut.place[kept]] = rotary[:, kept].to(given.dtype)
    return replaced


def _rotary(micro_batch: TensorDict, device: torch.device) -> tuple[Tensor, Tensor]:
    """(3, N) rotary positions of all tokens laid end to end, and the (B + 1,) offsets of the sequences."""
    maybe_fix_3d_position_ids(micro_batch)
    values = micro_batch["position_ids"].values()
    return values[-ROTARY_AXES:].to(device), micro_batch["input_ids"].offsets().to(device)


def _cut_of_positions(given: Tensor, offsets: Tensor, pack: Any, context: Axis) -> tuple[Cut, int]:
    """The cut of `given`, whose sequence dimension is never cut by sequence parallelism, and this rank in it.

    Models give positions as a padded batch, or packed, before or after context parallelism has cut the pack.
    """
    shape = torch.Size([given.shape[2], given.shape[1], 1])
    uncut = Grid(Axis(), Axis(), Axis())
    padded_offsets = None if pack is None else pack.cu_seqlens_q_padded
    total = None if padded_offsets is None else int(padded_offsets[-1])
    if context.size > 1 and total == shape[0] * context.size and int(offsets[-1]) <= shape[0]:
        raise RuntimeError(
            f"{shape[0]} positions for {total} packed places may be this rank's part or all of one sequence; do not "
            "pad packs to a fixed length together with drop_vision and context parallelism"
        )
    if given.shape[1] == 1 and total == shape[0] * context.size:
        grid = Grid(context, Axis(), Axis())
        return cut_of(offsets, shape, padded_offsets, grid), context.rank
    if given.shape[1] == 1 and total == shape[0]:
        return cut_of(offsets, shape, padded_offsets, uncut), 0
    return cut_of(offsets, shape, None, uncut), 0

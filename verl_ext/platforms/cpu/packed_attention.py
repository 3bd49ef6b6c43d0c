# SPDX-License-Identifier: Apache-2.0
"""Attention over packed sequences (`use_remove_padding`) without flash-attention, which needs a GPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from verl.utils.ulysses import (
    all_gather_tensor,
    gather_heads_scatter_seq,
    gather_seq_scatter_heads,
    get_ulysses_sequence_parallel_group,
)

from verl_ext.platforms.cpu.patching import replace_symbol


def patch(module: ModuleType) -> None:
    """Replace `_custom_flash_attention_forward` of `verl.models.transformers.qwen2_vl` or `.glm4v` (verl 0.9)."""
    replace_symbol(
        module,
        "_custom_flash_attention_forward",
        _per_sequence_attention,
        reason="packed attention in verl calls flash-attention",
    )
    # verl defines this flag only beside flash-attention and reads it always.
    if not hasattr(module, "_flash_use_top_left_mask"):
        module._flash_use_top_left_mask = False  # type: ignore[attr-defined]


def _per_sequence_attention(_original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return attend_packed


def attend_packed(
    query_states: torch.Tensor,
    key_states: torch.Tensor,
    value_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    query_length: int,
    is_causal: bool = True,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_flash_only: Any,
) -> torch.Tensor:
    """Causal attention inside each packed sequence.

    Args:
        query_states, key_states, value_states: (1, S, heads, head_dim), S the packed length, or this rank's part of it
            where verl splits sequences over ranks.
        position_ids: (1, S) text positions; a sequence starts wherever they are 0.
        scaling: what products of query and key are multiplied by; None for head_dim ** -0.5.

    Returns:
        (1, S, heads, head_dim).

    Raises:
        ValueError: more than one packed row, no position ids, a sliding window, or non-causal attention.
    """
    if query_states.size(0) != 1 or position_ids is None or sliding_window is not None or not is_causal:
        raise ValueError("packed attention on the CPU handles one causal packed row with position ids and no window")
    if get_ulysses_sequence_parallel_group() is None:
        return _attend(query_states, key_states, value_states, position_ids, dropout, scaling)
    # Each rank has some positions of all heads, and attends at all positions for some heads.
    query, key, value = (
        gather_seq_scatter_heads(states, seq_dim=1, head_dim=2) for states in (query_states, key_states, value_states)
    )
    everywhere = all_gather_tensor(position_ids.reshape(-1), get_ulysses_sequence_parallel_group())
    return gather_heads_scatter_seq(_attend(query, key, value, everywhere, dropout, scaling), head_dim=2, seq_dim=1)


def _attend(
    query_states: torch.Tensor,
    key_states: torch.Tensor,
    value_states: torch.Tensor,
    position_ids: torch.Tensor,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    starts = (position_ids.reshape(-1) == 0).nonzero().reshape(-1).tolist()
    ends = [*starts[1:], query_states.size(1)]
    outputs = []
    for begin, end in zip(starts, ends, strict=True):
        query, key, value = (x[:, begin:end].transpose(1, 2) for x in (query_states, key_states, value_states))
        grouped = key.size(1) != query.size(1)
        output = scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1)

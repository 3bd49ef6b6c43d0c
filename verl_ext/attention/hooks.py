# SPDX-License-Identifier: Apache-2.0
"""Where attention over shared prompts takes the place of a model's own: whenever a pack has any, and never else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import wrapt
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import _flash_attention_forward, flash_attn_supports_top_left_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from verl_ext.attention.by_segment import attend_by_segment
from verl_ext.attention.implementations import FLASH, IMPLEMENTATIONS
from verl_ext.attention.segments import Layout, layout_of

VERL_OWN = "_custom_flash_attention_forward"
"""What verl's replacements of a model's attention call, in the module of each."""


def why_not(implementation: str) -> str | None:
    """Why a model with this attention cannot share prompts; None if it can."""
    if implementation not in IMPLEMENTATIONS:
        return f"its attention is {implementation}, not one of {', '.join(IMPLEMENTATIONS)}"
    if implementation in FLASH and flash_attn_supports_top_left_mask():
        return "flash-attention before 2.1 aligns masks of unequal lengths otherwise"
    return None


def install(attention: torch.nn.Module, implementation: str) -> None:
    """Let a layer's `attention` see shared prompts; does nothing the second time.

    Args:
        attention: of one layer of the decoder: where its forward was defined tells whether it is verl's.
        implementation: name of the model's attention among transformers', one of `IMPLEMENTATIONS`.
    """
    module = sys.modules[type(attention).forward.__module__]
    if hasattr(module, VERL_OWN):
        setattr(module, VERL_OWN, _before(getattr(module, VERL_OWN), _instead_of_verls))
    before = ALL_ATTENTION_FUNCTIONS[implementation]
    AttentionInterface.register(implementation, _before(before, _instead_of_transformers))


class _SharingAttention(wrapt.FunctionWrapper):  # type: ignore[misc]
    """An attention function that sees shared prompts, and is the original in everything else."""


def _before(original: Any, attend: Callable[..., Any]) -> Any:
    return original if isinstance(original, _SharingAttention) else _SharingAttention(original, attend)


def _layout(query: Tensor, how: dict[str, Any]) -> Layout | None:
    return layout_of(how.get("position_ids")) if query.shape[0] == 1 else None


def _instead_of_verls(original: Any, _instance: Any, args: Any, how: dict[str, Any]) -> Tensor:
    """verl's attention of Qwen2-VL and GLM-4V; states are (1, N, heads, head_dim)."""
    query, key, value = args[:3]
    layout = _layout(query, how)
    if layout is None:
        return original(*args, **how)
    dropout, scaling = how.get("dropout", 0.0), how.get("softmax_scale")
    if query.device.type == "cpu":
        queries, keys, values = (part.transpose(1, 2) for part in (query, key, value))
        found = attend_by_segment(queries, keys, values, layout.segments, dropout=dropout, scaling=scaling)
        return found.transpose(1, 2)
    return _flash_attention_forward(
        query,
        *_gathered(key, value, layout, dim=1),
        None,
        query_length=query.shape[1],
        is_causal=True,
        dropout=dropout,
        softmax_scale=scaling,
        target_dtype=torch.bfloat16,
        attn_implementation=FLASH[0],
        **_lengths(layout),
    )


def _instead_of_transformers(original: Any, _instance: Any, args: Any, how: dict[str, Any]) -> tuple[Tensor, None]:
    """A function of transformers' interface; states are (1, heads, N, head_dim)."""
    layer, query, key, value = args[:4]
    layout = _layout(query, how)
    if layout is None:
        return original(*args, **how)
    if layer.config._attn_implementation in FLASH:
        how = {name: value for name, value in how.items() if name not in ("position_ids", "attention_mask")}
        return original(layer, query, *_gathered(key, value, layout, dim=2), None, **how, **_lengths(layout))
    dropout, scaling = how.get("dropout", 0.0), how.get("scaling")
    found = attend_by_segment(query, key, value, layout.segments, dropout=dropout, scaling=scaling)
    return found.transpose(1, 2).contiguous(), None


def _gathered(key: Tensor, value: Tensor, layout: Layout, dim: int) -> tuple[Tensor, Tensor]:
    """Keys and values of each segment behind those of its prompt."""
    return key.index_select(dim, layout.keys), value.index_select(dim, layout.keys)


def _lengths(layout: Layout) -> dict[str, Any]:
    """What tells flash-attention queries and keys of each segment; its causal mask ends where both end."""
    return {
        "cu_seq_lens_q": layout.query_ends,
        "cu_seq_lens_k": layout.key_ends,
        "max_length_q": layout.longest_query,
        "max_length_k": layout.longest_keys,
    }

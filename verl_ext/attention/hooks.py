# SPDX-License-Identifier: Apache-2.0
"""Where attention over shared prompts takes the place of a model's own: whenever a pack has any, and never else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import _flash_attention_forward, flash_attn_supports_top_left_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from verl_ext.attention.by_segment import attend_by_segment
from verl_ext.attention.segments import Layout, layout_of

VERL_OWN = "_custom_flash_attention_forward"
"""What verl's replacements of a model's attention call, in the module of each."""
FLASH = ("flash_attention_2", "flash_attention_3")
IMPLEMENTATIONS = ("sdpa", *FLASH)


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
        setattr(module, VERL_OWN, _once(getattr(module, VERL_OWN), _before_verls))
    before = ALL_ATTENTION_FUNCTIONS[implementation]
    AttentionInterface.register(implementation, _once(before, _before_transformers))


def _once(original: Any, wrap: Callable[[Any], Any]) -> Any:
    if getattr(original, "shares_prompts", False):
        return original
    wrapped = wrap(original)
    wrapped.shares_prompts = True
    return wrapped


def _before_verls(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """verl's attention of Qwen2-VL and GLM-4V; states are (1, N, heads, head_dim)."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **how: Any) -> Tensor:
        layout = layout_of(how.get("position_ids")) if query.shape[0] == 1 else None
        if layout is None:
            return original(query, key, value, *args, **how)
        dropout, scaling = how.get("dropout", 0.0), how.get("softmax_scale")
        if query.device.type == "cpu":
            queries, keys, values = (part.transpose(1, 2) for part in (query, key, value))
            found = attend_by_segment(queries, keys, values, layout.segments, dropout=dropout, scaling=scaling)
            return found.transpose(1, 2)
        given, lengths = _gathered(key, value, layout, dim=1), _lengths(layout)
        return _flash_attention_forward(
            query,
            *given,
            None,
            query_length=query.shape[1],
            is_causal=True,
            dropout=dropout,
            softmax_scale=scaling,
            target_dtype=torch.bfloat16,
            attn_implementation=FLASH[0],
            **lengths,
        )

    return attend


def _before_transformers(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of transformers' interface; states are (1, heads, N, head_dim)."""

    def attend(
        layer: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **how: Any
    ) -> tuple[Tensor, None]:
        layout = layout_of(how.get("position_ids")) if query.shape[0] == 1 else None
        if layout is None:
            return original(layer, query, key, value, attention_mask, **how)
        if layer.config._attn_implementation in FLASH:
            del how["position_ids"]
            given, lengths = _gathered(key, value, layout, dim=2), _lengths(layout)
            return original(layer, query, *given, None, **how, **lengths)
        dropout, scaling = how.get("dropout", 0.0), how.get("scaling")
        found = attend_by_segment(query, key, value, layout.segments, dropout=dropout, scaling=scaling)
        return found.transpose(1, 2).contiguous(), None

    return attend


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

# SPDX-License-Identifier: Apache-2.0
"""FLOPs of attention as flash-attention spends them: of the pairs of query and key that attend, and of no others.

Forward a pair takes 4 * head_dim FLOPs a query head: a product with the key, one with the value. Backward it takes
10 * head_dim: the product with the key again, and two for each factor of both. A causal sequence of n tokens has
n * (n + 1) / 2 pairs; a response of r behind a prompt of p has r * p + r * (r + 1) / 2. The same for all that is
compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface

from verl_ext.attention import hooks
from verl_ext.attention.segments import Segment
from verl_ext.platforms.cpu import packed_attention

FORWARD, BACKWARD = 4, 10
IN_WINDOWS = "flash_in_windows"
"""Name of `attend_in_windows` among transformers' attention functions; "flash" has it called once for all windows."""


@torch.library.custom_op("benchmarks::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor, pairs: int) -> Tensor:
    """Zeros of the shape of attention over (B, heads, N, head_dim); `pairs` is of one head."""
    return query.new_zeros(*query.shape[:-1], value.shape[-1])


@torch.library.custom_op("benchmarks::attention_backward", mutates_args=())
def attention_backward(query: Tensor, key: Tensor, value: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros of the shape of its gradients."""
    return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)


attention.register_fake(lambda query, key, value, pairs: query.new_empty(*query.shape[:-1], value.shape[-1]))
attention_backward.register_fake(
    lambda query, key, value, pairs: (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *states, ctx.pairs = inputs
    ctx.save_for_backward(*states)


def _gradients(ctx: Any, _gradient: Tensor) -> tuple[Tensor | None, ...]:
    return (*attention_backward(*ctx.saved_tensors, ctx.pairs), None)


attention.register_autograd(_gradients, setup_context=_keep)


def _counted(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, **_how: Any
) -> Tensor:
    queries, keys = query.shape[-2], key.shape[-2]
    if attn_mask is not None:
        if attn_mask.dtype != torch.bool:
            raise ValueError("only masks that say which pairs attend can be counted")
        masks = attn_mask.shape[:-2]
        pairs = int(attn_mask.expand(*masks, queries, keys).sum()) // masks.numel()
    else:
        pairs = causal(queries) if is_causal else queries * keys
    return attention(query, key, value, pairs)


def attend_in_windows(
    _layer: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, cu_seq_lens_q: Tensor, **_how: Any
) -> tuple[Tensor, None]:
    """Of the vision tower: all tokens of a window with each other; by transformers' interface for flash-attention."""
    pairs = int(cu_seq_lens_q.diff().long().square().sum())
    return attention(query, key, value, pairs).transpose(1, 2), None


def causal(length: int, seen: int = 0) -> int:
    """Pairs of `length` tokens that attend to each other and to `seen` before them."""
    return length * seen + length * (length + 1) // 2


def _by_segment(query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], **_how: Any) -> Tensor:
    return attention(query, key, value, sum(causal(segment.length, segment.seen) for segment in segments))


def _flops(a_pair: int, query: Sequence[int], key: Any, value: Any, pairs: int, **_out: Any) -> int:
    rows, heads, _, width = query
    return a_pair * pairs * width * heads * rows


AttentionInterface.register(IN_WINDOWS, attend_in_windows)


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """While open, counts all FLOPs, those of attention in the way above."""
    ops = torch.ops.benchmarks
    formulas = {
        ops.attention: partial(_flops, FORWARD),
        ops.attention_backward: partial(_flops, BACKWARD),
    }
    with ExitStack() as replaced:
        for module in (torch.nn.functional, packed_attention):
            replaced.enter_context(patch.object(module, "scaled_dot_product_attention", _counted))
        # Without flash-attention a response would be computed behind a prompt of its own, or under a mask.
        replaced.enter_context(patch.object(hooks, "attend_by_segment", _by_segment))
        yield replaced.enter_context(FlopCounterMode(display=False, custom_mapping=formulas))

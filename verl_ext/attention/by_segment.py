# SPDX-License-Identifier: Apache-2.0
"""Attention segment by segment with torch's own, for devices and models without flash-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from verl_ext.attention.segments import Segment

BLOCK = 256
"""Response tokens under one mask: what a mask closes is computed all the same, so it must not reach far ahead."""


def attend_by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Segment],
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """Each token attends to those before it in its segment, and to the segment's prompt.

    Args:
        query: (1, heads, N, head_dim).
        key, value: (1, key heads, N, head_dim).
        segments: of the N tokens.
        dropout: chance that a weight is dropped.
        scaling: what products of query and key are multiplied by; None for head_dim ** -0.5.

    Returns:
        (1, heads, N, head_dim).
    """

    def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        return scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=keys.shape[1] != queries.shape[1],
        )

    found = []
    for segment in segments:
        queries = query[:, :, segment.begin : segment.end]
        keys, values = _behind_prompt(key, segment), _behind_prompt(value, segment)
        if not segment.seen:
            found.append(attend(queries, keys, values))
            continue
        for first in range(0, segment.length, BLOCK):
            part = queries[:, :, first : first + BLOCK]
            end = segment.seen + first + part.shape[2]
            mask = torch.ones(part.shape[2], end, dtype=torch.bool, device=query.device).tril(segment.seen + first)
            found.append(attend(part, keys[:, :, :end], values[:, :, :end], mask))
    return torch.cat(found, dim=2)


def _behind_prompt(states: Tensor, segment: Segment) -> Tensor:
    """(1, heads, seen + length, head_dim): the prompt's and the segment's own."""
    own = states[:, :, segment.begin : segment.end]
    if not segment.seen:
        return own
    return torch.cat([states[:, :, segment.prompt : segment.prompt + segment.seen], own], dim=2)

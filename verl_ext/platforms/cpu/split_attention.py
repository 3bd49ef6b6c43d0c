# SPDX-License-Identifier: Apache-2.0
"""transformers' own attention where verl splits packed sequences over ranks (Ulysses) and no flash-attention is there.

verl joins the ranks' parts inside flash-attention, or inside the attention of the few models whose own it replaces; any
other attention would see this rank's part alone, and nothing would fail.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch


def patch(module: ModuleType) -> None:
    """Put the joining of parts before transformers' "sdpa", which the CPU platform's configuration chooses."""
    whole = module.ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **how: Any,
    ) -> tuple[torch.Tensor, None]:
        if not _is_split(how):
            return whole(layer, query, key, value, attention_mask, **how)
        return _joined(query, key, value, how), None

    module.AttentionInterface.register("sdpa", attend)


def _is_split(how: dict[str, Any]) -> bool:
    """Whether this is text, which has positions, of a sequence that other ranks have parts of."""
    from verl.utils.ulysses import get_ulysses_sequence_parallel_group

    return how.get("position_ids") is not None and get_ulysses_sequence_parallel_group() is not None


def _joined(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
    """(1, S, heads, head_dim) from states (1, heads, S, head_dim), S this rank's part of the packed length."""
    from verl_ext.platforms.cpu.packed_attention import attend_packed

    shared = query.size(1) // key.size(1)
    states = (query, key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1))
    queries, keys, values = (part.transpose(1, 2).contiguous() for part in states)
    return attend_packed(
        queries,
        keys,
        values,
        None,
        query.size(2),
        position_ids=how["position_ids"],
        sliding_window=how.get("sliding_window"),
        dropout=how.get("dropout", 0.0),
        scaling=how.get("scaling"),
    )

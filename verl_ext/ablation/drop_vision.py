# SPDX-License-Identifier: Apache-2.0
"""Take the image away by deleting its tokens from the sequence.

In a causal decoder whose blocks mix positions only through attention, a sequence without its image tokens, whose other
tokens keep their rotary positions, gives exactly the states of the full sequence with all attention to the image
tokens masked. The vision tower and every image token are skipped. Layers of linear attention (Qwen3.5) carry a state
that no mask reaches: there the result is that of the shorter sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedSequences:
    """Sequences laid end to end.

    Attributes:
        input_ids: (N,) long.
        position_ids: (4, N) long: row 0 counts the tokens of each sequence from 0, the others are rotary positions.
        offsets: (B + 1,) long; sequence b is `offsets[b]:offsets[b + 1]`.
    """

    input_ids: Tensor
    position_ids: Tensor
    offsets: Tensor


def drop_vision(packed: PackedSequences, response_lengths: Tensor, vision_token_ids: list[int]) -> PackedSequences:
    """Delete the vision tokens of every prompt.

    Vision start and end tokens stay, as do all tokens of the response (whose log-probabilities are wanted).

    Args:
        packed: the sequences, each a prompt and then its response.
        response_lengths: (B,) long.
        vision_token_ids: ids of the placeholders that the vision tower's features replace.

    Returns:
        The shorter sequences. Rotary rows keep their values; row 0 counts anew, since kernels for packed sequences
        read the boundaries from it and take a gap for the start of another sequence.

    Raises:
        ValueError: `position_ids` has no rotary rows of its own (a model without multimodal rotary positions).
    """
    if packed.position_ids.ndim != 2 or packed.position_ids.shape[0] != 4:
        raise ValueError(
            f"position_ids has shape {tuple(packed.position_ids.shape)}; dropping vision tokens needs (4, N): one row "
            "of token counts and the three rotary rows of a model with multimodal rotary positions (Qwen2-VL family)"
        )
    keep = _kept_tokens(packed, response_lengths, vision_token_ids)
    offsets = _offsets_after(packed.offsets, keep)
    position_ids = packed.position_ids[:, keep]
    position_ids[0] = _token_counts(offsets)
    return PackedSequences(packed.input_ids[keep], position_ids, offsets)


def _kept_tokens(packed: PackedSequences, response_lengths: Tensor, vision_token_ids: list[int]) -> Tensor:
    """(N,) bool: not a vision token, or inside a response."""
    ids = packed.input_ids
    ends = packed.offsets[1:]
    row = torch.bucketize(torch.arange(ids.shape[0], device=ids.device), ends, right=True)
    in_response = torch.arange(ids.shape[0], device=ids.device) >= (ends - response_lengths.to(ends))[row]
    return in_response | ~torch.isin(ids, torch.tensor(vision_token_ids, device=ids.device))


def _offsets_after(offsets: Tensor, keep: Tensor) -> Tensor:
    """Offsets of the sequences once only the kept tokens remain."""
    kept_before = torch.cat([keep.new_zeros(1, dtype=torch.long), keep.cumsum(0)])
    return kept_before[offsets.long()].to(offsets.dtype)


def _token_counts(offsets: Tensor) -> Tensor:
    """(N,) position of each token inside its own sequence."""
    lengths = offsets.diff().long()
    starts = torch.repeat_interleave(offsets[:-1].long(), lengths)
    return torch.arange(starts.shape[0], device=offsets.device) - starts

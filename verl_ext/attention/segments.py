# SPDX-License-Identifier: Apache-2.0
"""What a packed sequence is made of, read from its text positions.

A position that is not the one before plus 1 begins a segment. One that begins at 0 is a sequence of its own, the first
response to a prompt behind it. One that begins at p > 0 is a further response: it goes on behind the first p tokens of
the last sequence, its prompt, as if what stands between were not there.

Positions alone tell it, so that a layer that is computed again in the backward pass finds it as well.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """Tokens that follow each other.

    Attributes:
        begin, end: where they stand in the pack.
        prompt: where the prompt stands that they go on from.
        seen: length of that prompt; 0 for a sequence of its own.
    """

    begin: int
    end: int
    prompt: int
    seen: int

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.end - self.begin


def segments_of(position_ids: Tensor) -> tuple[Segment, ...]:
    """The segments of a pack; on an accelerator this waits for it, once.

    Args:
        position_ids: (1, N) or (N,) long; text positions.

    Raises:
        ValueError: a response goes on from more tokens than the sequence before it has.
    """
    flat = position_ids.reshape(-1)
    breaks = (flat.diff() != 1).nonzero().flatten() + 1
    places, firsts = torch.stack([breaks, flat[breaks]]).tolist()
    found: list[Segment] = []
    trunk = Segment(0, 0, 0, 0)
    for begin, end, first in zip([0, *places], [*places, len(flat)], [0, *firsts], strict=True):
        segment = Segment(begin, end, trunk.begin if first else begin, first)
        if first > trunk.length:
            raise ValueError(f"the segment at {begin} goes on from {first} tokens of a sequence of {trunk.length}")
        trunk = trunk if first else segment
        found.append(segment)
    return tuple(found)


class Layout:
    """The segments of a pack whose prompts are shared, and what kernels for sequences of various lengths need of them.

    Attributes:
        segments: in order.
        keys: (K,) long; for each segment the places of its prompt and of its own tokens, all laid end to end.
        query_ends, key_ends: (segments + 1,) int32; where each segment begins and ends in the pack and in `keys`.
        longest_query, longest_keys: of any segment.
    """

    def __init__(self, segments: tuple[Segment, ...], device: torch.device) -> None:
        self.segments = segments
        parts = [(s.prompt, s.prompt + s.seen) for s in segments], [(s.begin, s.end) for s in segments]
        places = [torch.arange(*part) for pair in zip(*parts, strict=True) for part in pair]
        lengths = torch.tensor([s.length for s in segments])
        seen = torch.tensor([s.seen for s in segments])
        self.keys = torch.cat(places).to(device)
        self.query_ends, self.key_ends = (_ends(each).to(device) for each in (lengths, lengths + seen))
        self.longest_query, self.longest_keys = int(lengths.max()), int((lengths + seen).max())


def _ends(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()


class _Last:
    """What was found for the positions that were asked for last: every layer of a model asks for the same ones."""

    positions: weakref.ref[Tensor] | None = None
    version: int = 0
    layout: Layout | None = None


def layout_of(position_ids: Tensor | None) -> Layout | None:
    """The layout of a pack with shared prompts; None for anything else.

    Args:
        position_ids: (1, N) long; text positions. None, or more rows than one, is no pack.
    """
    if position_ids is None or position_ids.ndim != 2 or position_ids.shape[0] != 1:
        return None
    known = _Last.positions is not None and _Last.positions() is position_ids
    if not known or position_ids._version != _Last.version:
        segments = segments_of(position_ids)
        shared = any(segment.seen for segment in segments)
        _Last.layout = Layout(segments, position_ids.device) if shared else None
        _Last.positions, _Last.version = weakref.ref(position_ids), position_ids._version
    return _Last.layout

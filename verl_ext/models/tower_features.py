# SPDX-License-Identifier: Apache-2.0
"""What a vision tower made of pictures: cut apart, kept in host memory up to a budget, and put together again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verl_ext.models.picture_identity import Picture


@dataclass
class Seen:
    """What a tower returns, as far as verl and transformers read it.

    Attributes:
        pooler_output: (tokens, D) features.
        deepstack_features: (tokens, D) of earlier layers, for models that add them behind layers of the decoder.
    """

    pooler_output: Tensor
    deepstack_features: list[Tensor] | None = None

    def mean(self) -> Tensor:
        """Of the features; verl's forwards add 0 times it where a micro-batch has no image."""
        return self.pooler_output.mean()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Features of all layers."""
        return (self.pooler_output, *(self.deepstack_features or ()))


def read(output: Any) -> Seen:
    """What a tower's forward has returned: a structure, a pair with features of earlier layers, or a tensor."""
    if isinstance(output, tuple):
        return Seen(output[0], list(output[1]))
    earlier = getattr(output, "deepstack_features", None)
    return Seen(getattr(output, "pooler_output", output), None if earlier is None else list(earlier))


def cut(seen: Seen, grid: Tensor) -> list[Seen]:
    """The features of each picture.

    Args:
        seen: of all of them, one behind another.
        grid: (pictures, 3) long; frames, height and width in patches, of which a fixed number make a token.
    """
    patches = grid.prod(-1).tolist()
    tokens = [count * len(seen.pooler_output) // sum(patches) for count in patches]
    return [_assembled(parts) for parts in zip(*(values.split(tokens) for values in seen.tensors), strict=True)]


def joined(pictures: Iterable[Seen], device: torch.device) -> Seen:
    """The features of pictures, one behind another, on `device`."""
    layers = zip(*(picture.tensors for picture in pictures), strict=True)
    return _assembled([torch.cat([part.to(device, non_blocking=True) for part in layer]) for layer in layers])


class FeatureStore:
    """Features by picture, at most `budget` bytes of them. Host memory, since the rollout shares the device."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._known: dict[Picture, Seen] = {}

    def __contains__(self, picture: Picture) -> bool:
        return picture in self._known

    def __getitem__(self, picture: Picture) -> Seen:
        return self._known[picture]

    def __len__(self) -> int:
        return len(self._known)

    def add(self, picture: Picture, seen: Seen) -> None:
        """Keep a copy, unless it is there already or would go beyond the budget."""
        size = sum(values.nbytes for values in seen.tensors)
        if picture in self._known or self.size + size > self.budget:
            return
        self._known[picture] = _assembled([values.detach().to("cpu", copy=True) for values in seen.tensors])
        self.size += size

    def clear(self) -> None:
        """Let go of everything."""
        self._known.clear()
        self.size = 0


def _assembled(tensors: Iterable[Tensor]) -> Seen:
    pooled, *earlier = tensors
    return Seen(pooled, earlier or None)

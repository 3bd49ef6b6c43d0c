# SPDX-License-Identifier: Apache-2.0
"""Where response and image tokens stand in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Where response and image tokens stand in a batch whose hidden states are flattened to (positions, D).

    In a padded batch (B, L, D), position l of row b is ``b * L + l``; in a packed one (1, positions, D) it is the
    offset in the pack. Order is free. A row may have no token, no image, or several images.

    Attributes:
        tokens: (N,) long; flat positions of the response tokens.
        token_rows: (N,) long; the row of each, in [0, rows).
        images: (M,) long; flat positions of the prompt's image tokens.
        image_rows: (M,) long; the row of each, in [0, rows).
        rows: number of rows.

    Raises:
        ValueError: an index is not a 1-D long tensor, or is not as long as its rows.
    """

    tokens: Tensor
    token_rows: Tensor
    images: Tensor
    image_rows: Tensor
    rows: int

    def __post_init__(self) -> None:
        for name in ("tokens", "token_rows", "images", "image_rows"):
            index = getattr(self, name)
            if index.ndim != 1 or index.dtype != torch.long:
                raise ValueError(
                    f"{name} has shape {tuple(index.shape)} and dtype {index.dtype}; it must be a 1-D long tensor"
                )
        for name, rows in (("tokens", "token_rows"), ("images", "image_rows")):
            if getattr(self, rows).shape != getattr(self, name).shape:
                raise ValueError(
                    f"{rows} has {len(getattr(self, rows))} entries; it must have {name}'s {len(getattr(self, name))}"
                )
        if self.rows < 0:
            raise ValueError(f"rows is {self.rows!r}; it must be >= 0")

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Per row with both: indices into the layout's tokens, and flat positions of its image tokens."""
        for row in range(self.rows):
            members = (self.token_rows == row).nonzero().flatten()
            images = self.images[self.image_rows == row]
            if len(members) and len(images):
                yield members, images

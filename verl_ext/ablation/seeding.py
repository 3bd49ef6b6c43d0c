# SPDX-License-Identifier: Apache-2.0
"""Random masks that depend on the run's seed, the training step and what is masked, and on nothing else.

verl names prompts by identifiers drawn anew in every run, so a mask seeded by them would change when a run is
resumed. The content of the prompt is the same on every rank, in every split of the batch and after a resume.
"""

from __future__ import annotations

import hashlib
import struct

import torch
from torch import Tensor

PIXEL_ROWS = 64
"""Patch rows of the pixels that enter the digest: enough to tell images apart, few enough to cost nothing."""


def generators(seed: int, step: int, images: int, *content: Tensor) -> list[torch.Generator]:
    """One CPU generator per image.

    Args:
        seed: the run's mask seed.
        step: training step.
        images: number of images of the prompt.
        content: what identifies the prompt (token ids, pixels, ...); see :func:`sample_rows` for large tensors.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(struct.pack("<qq", seed, step))
    for tensor in content:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    base = digest.digest()
    return [_generator(base, index) for index in range(images)]


def sample_rows(pixel_values: Tensor) -> Tensor:
    """At most `PIXEL_ROWS` rows of (N, D) spread evenly over it."""
    stride = -(-pixel_values.shape[0] // PIXEL_ROWS) or 1
    return pixel_values[::stride]


def _generator(base: bytes, index: int) -> torch.Generator:
    digest = hashlib.blake2b(base + struct.pack("<q", index), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

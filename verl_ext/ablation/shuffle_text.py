# SPDX-License-Identifier: Apache-2.0
"""A control for experiments: leave the image as it is, and put the words of the prompt in another order."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def shuffle_text(prompt: Tensor, kept: Collection[int], generator: torch.Generator) -> Tensor:
    """The prompt with its text tokens permuted.

    Args:
        prompt: (P,) token ids.
        kept: ids that keep their places: those that stand for images, and markers of the chat.
        generator: on the CPU; a permutation depends on it and on the number of text tokens alone.

    Returns:
        New (P,) tensor on the device of `prompt`.
    """
    text = ~torch.isin(prompt, torch.tensor(sorted(kept), dtype=prompt.dtype, device=prompt.device))
    words = prompt[text]
    order = torch.randperm(len(words), generator=generator).to(prompt.device)
    shuffled = prompt.clone()
    shuffled[text] = words[order]
    return shuffled

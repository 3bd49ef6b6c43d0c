# SPDX-License-Identifier: Apache-2.0
"""PEPO's token weights of a whole batch, one token at a time in plain Python."""

import torch

from support import reference


def pepo_weights(visual_similarity, entropy, response_mask, has_image, **parameters):
    """(B, T) float64; written from the formulas, shares no code with the package."""
    weights = torch.zeros(response_mask.shape, dtype=torch.float64)
    columns = (visual_similarity.tolist(), entropy.tolist(), response_mask.tolist(), has_image.tolist())
    for b, (similarities, entropies, mask, image) in enumerate(zip(*columns, strict=True)):
        valid = [t for t, kept in enumerate(mask) if kept]
        row = reference.pepo_weights([similarities[t] for t in valid], [entropies[t] for t in valid], **parameters)
        for t, weight in zip(valid, row, strict=True):
            weights[b, t] = weight if image else 1.0
    return weights

# SPDX-License-Identifier: Apache-2.0
"""PEPO's token weights, one token at a time in plain Python."""

import math

import torch


def pepo_weights(
    visual_similarity, entropy, response_mask, has_image, gate_alpha=0.05, temperature=1.8, normalised=False
):
    """(B, T) float64; written from the formulas, shares no code with the package."""
    weights = torch.zeros(response_mask.shape, dtype=torch.float64)
    columns = (visual_similarity.tolist(), entropy.tolist(), response_mask.tolist(), has_image.tolist())
    for b, (similarities, entropies, mask, image) in enumerate(zip(*columns, strict=True)):
        valid = [t for t, kept in enumerate(mask) if kept]
        row = _row([similarities[t] for t in valid], [entropies[t] for t in valid], gate_alpha, temperature, normalised)
        for t, weight in zip(valid, row, strict=True):
            weights[b, t] = weight if image else 1.0
    return weights


def _row(similarities, entropies, gate_alpha, temperature, normalised):
    if not similarities:
        return []
    relative = _min_max(similarities)
    evidence = [v + h for v, h in zip(relative, _min_max(entropies), strict=True)]
    mean = sum(evidence) / len(evidence)
    logits = [
        v * (1.0 + gate_alpha * math.tanh(c - mean)) / temperature
        for v, c in zip(relative if normalised else similarities, evidence, strict=True)
    ]
    exponentials = [math.exp(x - max(logits)) for x in logits]
    total = sum(exponentials)
    return [len(logits) * x / total for x in exponentials]


def _min_max(values):
    low, high = min(values), max(values)
    return [(v - low) / max(high - low, 1e-6) for v in values]

# SPDX-License-Identifier: Apache-2.0
"""The methods token by token, in plain Python, as the formulas read.

Every function takes lists of floats. A `scores` is one response and holds its valid tokens only; a list of responses
is a batch. None of them knows about padding, and none shares code with the package.
"""

import math

import numpy as np


def minmax(values, epsilon=0.0):
    low, high = min(values), max(values)
    return [(value - low) / (high - low + epsilon) for value in values]


def mean(values):
    return sum(values) / len(values)


def clamp(value, low, high):
    return min(max(value, low), high)


def pgpo_weights(scores, threshold, boost, threshold_mode, low_weight_floor, conserve_mass):
    """PGPO's weights of one response."""
    x = [math.log1p(score) for score in scores]
    if not x or max(x) - min(x) <= 1e-8:
        return [1.0] * len(x)
    normalised = minmax(x)
    tau = threshold
    if threshold_mode == "quantile":
        tau = sorted(normalised)[min(math.floor(len(x) * threshold), len(x) - 1)]
    weights = []
    for i in normalised:
        if i < tau:
            weights.append(max(i / tau, low_weight_floor))
        else:
            weights.append(1.0 if tau == 1.0 else 1.0 + boost * (i - tau) / (1.0 - tau))
    scale = len(x) / sum(weights) if conserve_mass else 1.0
    return [weight * scale for weight in weights]


def vppo_mask(scores, has_image=True, top_fraction=0.4):
    """VPPO's token mask of one response: 1 for the most dependent tokens, the earlier first among equals."""
    if not scores or not has_image or max(scores) - min(scores) <= 1e-8:
        return [1.0] * len(scores)
    count = math.ceil(np.float32(len(scores)) * np.float32(top_fraction))
    ranked = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    kept = set(ranked[:count])
    return [1.0 if token in kept else 0.0 for token in range(len(scores))]


def vppo_factors(batch, has_image, floor=0.9, ceiling=None):
    """VPPO's factors of the responses of a batch."""
    means = [mean(scores) if scores and image else None for scores, image in zip(batch, has_image, strict=True)]
    usable = [value for value in means if value is not None]
    if len(usable) < 2 or max(usable) - min(usable) <= 1e-6:
        return [1.0] * len(batch)
    low, high = min(usable), max(usable)
    top = floor + (1.0 - floor) / (mean(minmax(usable)) + 1e-8)
    if ceiling is not None:
        top = min(top, ceiling)
    return [1.0 if value is None else floor + (value - low) / (high - low) * (top - floor) for value in means]


def vgpo_ramp(positions, strength, schedule="linear"):
    """VGPO's compensation at the positions of the valid tokens of one response."""
    gains = []
    for position in positions:
        x = (position - positions[0]) / max(positions[-1] - positions[0], 1)
        gains.append(strength * {"linear": x, "exponential": x * x, "step": float(x >= 0.5)}[schedule])
    return gains


def vgpo_gate(scores, tail_start=0.5, gate_fraction=0.2):
    """1 at the tokens of one response that are compensated."""
    start = int(len(scores) * tail_start)
    tail = scores[start:]
    if not tail:
        return [0.0] * len(scores)
    threshold = sorted(tail, reverse=True)[max(1, int(len(tail) * gate_fraction)) - 1]
    return [1.0 if i >= start and score >= threshold else 0.0 for i, score in enumerate(scores)]


def vgpo_weights(
    scores,
    lowest,
    positions=None,
    compensation=0.3,
    tail_start=0.5,
    gate_fraction=0.2,
    offset="official",
    schedule="linear",
):
    """VGPO's visual weights of one response; `lowest` is the smallest score of the batch."""
    if not scores or max(scores) - min(scores) <= 1e-6:
        return [0.0] * len(scores)
    ramp = vgpo_ramp(range(len(scores)) if positions is None else positions, compensation, schedule)
    gate = vgpo_gate(scores, tail_start, gate_fraction)
    shift = min(0.0, lowest) if offset == "official" else -1.0
    rho = [(score - shift) * (1.0 + g * c) for score, g, c in zip(scores, gate, ramp, strict=True)]
    return minmax(rho, 1e-8)


def vgpo_token_factors(weights, has_image=True, low=0.1, high=2.0):
    """VGPO's token factors of one response."""
    if not weights or not has_image:
        return [1.0] * len(weights)
    centre = mean(weights)
    return [clamp(1.0 + weight - centre, low, high) for weight in weights]


def vgpo_trajectory_factors(batch, group_ids, has_image, low=0.9, high=2.0, recentre=False):
    """VGPO's factors of the responses of a batch, from their visual weights."""
    factors = [1.0] * len(batch)
    for group in set(group_ids):
        members = [i for i, name in enumerate(group_ids) if name == group and has_image[i] and batch[i]]
        if not members:
            continue
        mass = [sum(batch[i]) for i in members]
        position = [0.0] * len(mass) if max(mass) - min(mass) <= 1e-6 * max(mass) else minmax(mass, 1e-8)
        values = [clamp(1.0 + u - mean(position), low, high) for u in position]
        scale = mean(values) if recentre else 1.0
        for i, value in zip(members, values, strict=True):
            factors[i] = value / scale
    return factors


def papo_values(log_probs, ablated):
    """K of the perception term on one response."""
    deltas = [clamp(blind - clean, -20.0, 20.0) for clean, blind in zip(log_probs, ablated, strict=True)]
    return [clamp(math.exp(d) - d - 1.0, 0.0, 10.0) for d in deltas]


def pepo_weights(similarities, entropies, gate_alpha=0.05, temperature=1.8, normalised=False):
    """PEPO's weights of one response, before the schedule."""
    if not similarities:
        return []

    def scaled(values):
        low, high = min(values), max(values)
        return [(v - low) / max(high - low, 1e-6) for v in values]

    relative, uncertain = scaled(similarities), scaled(entropies)
    evidence = [v + h for v, h in zip(relative, uncertain, strict=True)]
    centre = mean(evidence)
    logits = [
        v * (1.0 + gate_alpha * math.tanh(c - centre)) / temperature
        for v, c in zip(relative if normalised else similarities, evidence, strict=True)
    ]
    top = max(logits)
    exponentials = [math.exp(x - top) for x in logits]
    total = sum(exponentials)
    return [len(logits) * x / total for x in exponentials]


def tor_weights(entropies, differences, has_image, entropy_fraction=0.3, visual_fraction=0.3):
    """ToR's weights of all responses, each a list of its valid tokens."""
    counted = [(b, t) for b, row in enumerate(entropies) for t in range(len(row)) if has_image[b]]

    def top(values, fraction):
        room = math.ceil(len(counted) * fraction)
        ranked = sorted((values[b][t] for b, t in counted), reverse=True)
        limit = ranked[room] if room < len(ranked) else -math.inf
        return {(b, t) for b, t in counted if room and values[b][t] > limit}

    reasoning, perception = top(entropies, entropy_fraction), top(differences, visual_fraction)
    weight = {**dict.fromkeys(perception, 0.5), **dict.fromkeys(reasoning, 1.0)}
    return [
        [weight.get((b, t), 0.0) if has_image[b] else 1.0 for t in range(len(row))] for b, row in enumerate(entropies)
    ]


def vepo_scores(divergences, changes, entropies, share=0.7):
    """VEPO's score of each token of one response."""

    def scaled(values):
        low, high = min(values), max(values)
        return [(v - low) / max(high - low, 1e-8) for v in values]

    triples = zip(scaled(divergences), scaled(changes), scaled(entropies), strict=True)
    return [(1 - (1 - j) ** share * (1 - d) ** (1 - share)) * h for j, d, h in triples]


def vepo_mask(scores, fraction=0.2):
    """Which tokens of one response VEPO keeps."""
    if max(scores) - min(scores) <= 1e-8:
        return [1.0] * len(scores)
    ranked = sorted(range(len(scores)), key=lambda t: (-scores[t], t))
    kept = set(ranked[: max(1, math.ceil(len(scores) * fraction))])
    return [float(t in kept) for t in range(len(scores))]
